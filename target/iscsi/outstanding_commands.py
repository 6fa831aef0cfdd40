"""The commands of one connection, from SCSI Command PDU to status (RFC 7143 §4.2.5, §11.3, §11.4, §11.7).

This is the data path: fields are taken from the BHS and put into one without a PDU object between, which would cost
more than all that is done with it.
"""

from collections import deque
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from storage_model.errors import RemoteProtocolError
from storage_model.nexus import ITNexus
from storage_model.spec.iscsi_bhs import (
    ATTRIBUTE,
    FINAL,
    IMMEDIATE,
    OVERFLOW,
    READ,
    SCSI_COMMAND_BHS,
    STATUS_PRESENT,
    UNDERFLOW,
    WRITE,
    data_in_bhs,
    scsi_response_bhs,
)
from storage_model.spec.iscsi_pdu import (
    RESERVED_TAG,
    DataOutPdu,
    Opcode,
    RejectReason,
    lun_from_bytes,
    sense_segment,
)
from storage_model.spec.iscsi_stream import RawPdu
from storage_model.spec.scsi_sense import SenseData, encode_sense
from storage_model.spec.scsi_task import ScsiStatus, TaskAttribute
from storage_model.spec.serial_number import serial_lt
from target.iscsi.events import Limits
from target.iscsi.outgoing import Outgoing
from target.iscsi.session import SessionParameters
from target.iscsi.write_transfer import WriteTransfer
from target.scsi.task import ScsiTask, TaskOutcome
from target.sendable import Sendable, part_of

_EXTENDED_CDB: Final = 1  # AHSType (§11.2.2.1)
_ATTRIBUTES: Final = (*TaskAttribute, *[TaskAttribute.SIMPLE] * (ATTRIBUTE + 1 - len(TaskAttribute)))
"""By the Attr field; those that do not exist are simple."""
_SIMPLE: Final = TaskAttribute.SIMPLE
_GOOD: Final = ScsiStatus.GOOD
LENT_BYTES_MIN: Final = 64 << 10
"""Of Data-In, and of its segments, that is sent from where it lies: a copy of less costs less than sending it so."""
_BATCH_BYTES: Final = 512 << 10
"""Of Data-In, after which what there is is written, so that the initiator has something to do while we read on."""
_lun: Final = lru_cache(256)(lun_from_bytes)  # a session uses a few fields over and over


class Command:
    """One command that has no status yet, by the names of §11.3; as an event: execute ``task``, then complete it.

    ``transfer`` is there when it needs Data-Out besides the immediate data; until that is done, ``task`` has no data.
    """

    __slots__ = (
        "ended",
        "expected_length",
        "flags",
        "immediate",
        "itt",
        "lun_field",
        "reserved_bytes",
        "running",
        "task",
        "transfer",
    )

    def __init__(self, raw: RawPdu, nexus: ITNexus) -> None:
        byte0, flags, _, _, _, self.lun_field, self.itt, expected_length, _, _, cdb = SCSI_COMMAND_BHS.unpack(raw.bhs)
        if raw.ahs:
            cdb = _whole_cdb(cdb, raw.ahs)
        self.flags: int = flags
        self.expected_length: int = expected_length
        self.immediate = bool(byte0 & IMMEDIATE)
        self.reserved_bytes: int = expected_length if flags & READ else 0  # of Data-In, while it runs
        self.task = ScsiTask(
            nexus, _lun(self.lun_field), self.itt, cdb, raw.data, self.reserved_bytes, _ATTRIBUTES[flags & ATTRIBUTE]
        )
        self.transfer: WriteTransfer | None = None
        self.running = False
        self.ended = False

    @property
    def lun(self) -> int:
        return self.task.lun


def _whole_cdb(cdb: bytes, ahs: bytes) -> bytes:
    """The 16 bytes of the BHS, and those of an Extended CDB AHS after them (§11.2.2.3)."""
    while len(ahs) >= 4:
        length = int.from_bytes(ahs[:2])
        if ahs[2] == _EXTENDED_CDB and 1 <= length <= len(ahs) - 3:
            return cdb + ahs[4 : 3 + length]
        ahs = ahs[(3 + length + 3) & ~3 :]
    return cdb


def residual(expected: int, transfer: int) -> tuple[int, int]:
    """OVERFLOW, UNDERFLOW or 0, and the count: what the command would move against what is expected (§11.4.5)."""
    if transfer > expected:
        return OVERFLOW, min(transfer - expected, 0xFFFFFFFF)
    return (UNDERFLOW if transfer < expected else 0), expected - transfer


class SharedRoom:
    """What the commands of all connections of a portal hold: bytes of Data-In and of Data-Out."""

    __slots__ = ("in_use",)

    def __init__(self) -> None:
        self.in_use = 0


class OutstandingCommands:
    """Commands by Initiator Task Tag.

    A command collects its Data-Out, then waits for room, then runs. Room: the Data-In that running commands may
    produce and what waits to be written stay under ``limits.data_in``, the Data-Out buffers under
    ``limits.data_out``, both of all connections that share ``room`` under ``limits.data_of_all``; one command always
    may. So nobody has to be told when others give room back.
    """

    def __init__(
        self,
        nexus: ITNexus,
        parameters: SessionParameters,
        outgoing: Outgoing,
        limits: Limits,
        room: SharedRoom | None = None,
        lends: bool = False,
    ) -> None:
        self.writing_paused = False
        self._room = room or SharedRoom()
        self._nexus = nexus
        self._parameters = parameters
        self._outgoing = outgoing
        self._limits = limits
        self._commands: dict[int, Command] = {}
        self._immediate = 0
        self._ready: deque[Command] = deque()
        self._soliciting: dict[int, Command] = {}  # those that may still want an R2T, oldest first
        self._data_in_reserved = 0
        self._data_out_reserved = 0
        self._last_ttt = 0
        # Data-In may be lent: until the initiator has it, the file may change. Whether a read that is not over comes
        # before or after a write that is not over either is open, unless the initiator has asked for an order.
        self._lends = (
            lends and not parameters.data_digest and parameters.initiator_max_recv_data_segment_length >= LENT_BYTES_MIN
        )
        self._last_lent_stat_sn: int | None = None
        # Immediate data that is all a write needs, up to this much: no transfer has to be kept for it.
        self._immediate_data_max = min(
            parameters.first_burst_length, parameters.max_burst_length, limits.data_out_per_command
        )
        if not parameters.immediate_data:
            self._immediate_data_max = 0

    def __len__(self) -> int:
        return len(self._commands)

    def __contains__(self, itt: int) -> bool:
        return itt in self._commands

    def begin(self, raw: RawPdu) -> None:
        """Takes in a SCSI Command that is next in order. Raises RemoteProtocolError (a RejectReason)."""
        command = Command(raw, self._nexus)
        itt, flags, length = command.itt, command.flags, len(raw.data)
        if itt in self._commands:
            raise RemoteProtocolError(f"ITT {itt:08X}h is in use", RejectReason.TASK_IN_PROGRESS)
        if itt == RESERVED_TAG or (length and not flags & WRITE):
            raise RemoteProtocolError("SCSI Command with a reserved ITT or stray data", RejectReason.INVALID_PDU_FIELD)
        if command.immediate:
            if self._immediate >= self._limits.immediate_commands:
                raise RemoteProtocolError("too many immediate commands", RejectReason.IMMEDIATE_COMMAND_REJECT)
            self._immediate += 1
        else:
            self._outgoing.window.active += 1
        self._commands[itt] = command
        if self._lends:
            if command.task.attribute is not _SIMPLE:
                if self._lends_no_more(raw):
                    self.complete(command, TaskOutcome(ScsiStatus.BUSY))
                    return
            elif command.reserved_bytes >= LENT_BYTES_MIN:
                command.task.may_borrow = True
        if not flags & WRITE or (
            flags & FINAL and length == command.expected_length and length <= self._immediate_data_max
        ):
            self._ready.append(command)
        else:
            self._begin_transfer(command)

    def _lends_no_more(self, raw: RawPdu) -> bool:
        """From the first command on that asks for an order (SAM-5 8.6): whether that one has to come again.

        That is so when the initiator does not have yet what was lent before, as its ExpStatSN tells.
        """
        self._lends = False
        for command in self._commands.values():
            command.task.may_borrow = False
        last, self._last_lent_stat_sn = self._last_lent_stat_sn, None
        return last is not None and not serial_lt(last, int.from_bytes(raw.bhs[28:32]))

    def _begin_transfer(self, command: Command) -> None:
        immediate, command.task.data_out = command.task.data_out, b""
        transfer = command.transfer = WriteTransfer(
            command.expected_length,
            self._parameters,
            immediate,
            bool(command.flags & FINAL),
            self._limits.data_out_per_command,
        )
        if transfer.done:
            self._collected(command, transfer)
            return
        if transfer.expected_length <= self._parameters.first_burst_length:
            self._grant(transfer)
        self._soliciting[command.itt] = command
        self._solicit()

    def _grant(self, transfer: WriteTransfer) -> None:
        transfer.granted = True
        self._data_out_reserved += transfer.expected_length
        self._room.in_use += transfer.expected_length

    def close(self) -> None:
        """The connection is over: what its commands hold does not count any more, whenever they may end."""
        self._room.in_use -= self._data_in_reserved + self._data_out_reserved
        self._room = SharedRoom()

    def place_data_out(self, bhs: bytes, length: int) -> memoryview | None:
        """Where the data segment of a Data-Out belongs, when it is what its command waits for; for any other: None."""
        if bhs[0] & 0x3F != Opcode.DATA_OUT:
            return None
        pdu = DataOutPdu.decode(bhs, b"", b"")
        command = self._commands.get(pdu.itt)
        if command is None or command.transfer is None or command.running:
            return None
        return command.transfer.place(pdu.ttt, pdu.data_sn, pdu.buffer_offset, length)

    def receive_data_out(self, pdu: DataOutPdu, damaged: bool = False) -> None:
        """Raises RemoteProtocolError (a RejectReason); Data-Out for a task that is no more is ignored."""
        command = self._commands.get(pdu.itt)
        if command is None or command.ended:
            return
        transfer = command.transfer
        if transfer is None or command.running:
            raise RemoteProtocolError("Data-Out for a command that wants none", RejectReason.PROTOCOL_ERROR)
        transfer.receive(pdu, damaged)
        if transfer.done:
            self._soliciting.pop(pdu.itt, None)
            self._collected(command, transfer)
        elif pdu.final:
            self._solicit()

    def _solicit(self) -> None:
        """Sends the R2Ts that may go out now, oldest command first."""
        limit = self._limits.data_out
        for itt, command in self._soliciting.items():
            transfer = command.transfer
            assert transfer is not None
            if not transfer.granted and transfer.wants_r2t:
                length = transfer.expected_length
                if self._data_out_reserved and (
                    self._data_out_reserved + length > limit or self._room.in_use + length > self._limits.data_of_all
                ):
                    return
                self._grant(transfer)
            while transfer.wants_r2t:
                window = self._outgoing.window
                self._last_ttt = (self._last_ttt + 1) % RESERVED_TAG
                self._outgoing.send(
                    transfer.solicit(
                        self._last_ttt,
                        itt,
                        command.lun_field,
                        self._outgoing.stat_sn,
                        window.exp_cmd_sn,
                        window.max_cmd_sn,
                    )
                )

    def _collected(self, command: Command, transfer: WriteTransfer) -> None:
        if transfer.failure is None:
            command.task.data_out = transfer.data
            self._ready.append(command)
            return
        sense = encode_sense(SenseData(*transfer.failure))
        self.complete(command, TaskOutcome(ScsiStatus.CHECK_CONDITION, sense=sense))

    def next_commands(self) -> list[Command]:
        """The commands to execute now; no more at a time than what is worth writing to the initiator meanwhile."""
        started: list[Command] = []
        ready, limits, room, batch = self._ready, self._limits, self._room, 0
        while ready and batch < _BATCH_BYTES and not self.writing_paused:
            command = ready[0]
            length = command.reserved_bytes
            if length:
                in_use = self._data_in_reserved + self._outgoing.queued_bytes
                if in_use and (in_use + length > limits.data_in or room.in_use + length > limits.data_of_all):
                    break
            ready.popleft()
            if command.ended:
                continue
            if length:
                self._data_in_reserved += length
                room.in_use += length
                batch += length
            command.running = True
            started.append(command)
        return started

    def complete(self, command: Command, outcome: TaskOutcome) -> None:
        """Answers the command, unless it was aborted, and gives its place back."""
        if not self._end(command):
            return
        outgoing, status = self._outgoing, outcome.status
        data: Sendable = outcome.data_in if outcome.lent is None else outcome.lent
        window, flags, expected = outgoing.window, command.flags, command.expected_length
        available = len(data)
        transfer = outcome.transfer_length_bytes
        if transfer < available or (status is not _GOOD and not flags & WRITE):
            transfer = available
        residual_flag, count = (0, 0) if transfer == expected else residual(expected, transfer)
        data_pdus = 0
        if available and flags & READ and expected:
            collapsed = status is _GOOD and not outcome.sense
            if available > expected:
                data = part_of(data, 0, expected)
            data_pdus = self._send_data_in(command, data, collapsed, residual_flag, count)
            if outcome.lent is not None:
                self._last_lent_stat_sn = (outgoing.stat_sn - 1) & 0xFFFFFFFF  # the status goes with the data
            if collapsed:
                return
        segment = sense_segment(outcome.sense) if outcome.sense else b""
        outgoing.put(
            scsi_response_bhs(
                FINAL | residual_flag, status, len(segment), command.itt, outgoing.take_stat_sn(),
                window.exp_cmd_sn, window.max_cmd_sn, data_pdus, count,
            ),
            segment,
        )  # fmt: skip

    def _send_data_in(
        self, command: Command, data: Sendable, with_status: bool, residual_flag: int, residual_count: int
    ) -> int:
        """Data-In PDUs under the initiator's MaxRecvDataSegmentLength, in sequences under MaxBurstLength; how many.

        GOOD status travels in the last one (§11.7.3).
        """
        outgoing, itt, lun = self._outgoing, command.itt, command.lun_field
        exp_cmd_sn, max_cmd_sn = outgoing.window.exp_cmd_sn, outgoing.window.max_cmd_sn
        segment_length = self._parameters.initiator_max_recv_data_segment_length
        burst_length = self._parameters.max_burst_length
        length = len(data)
        offset = data_sn = 0
        while offset < length:
            burst_end = min((offset // burst_length + 1) * burst_length, length)
            end = min(offset + segment_length, burst_end)
            flags, stat_sn, count = FINAL if end == burst_end else 0, 0, 0
            if with_status and end == length:
                flags, stat_sn, count = flags | STATUS_PRESENT | residual_flag, outgoing.take_stat_sn(), residual_count
            bhs = data_in_bhs(
                flags, end - offset, lun, itt, stat_sn, exp_cmd_sn, max_cmd_sn, data_sn, offset, count
            )  # fmt: skip
            outgoing.put(bhs, data if end - offset == length else part_of(data, offset, end))
            offset = end
            data_sn += 1
        return data_sn

    def _end(self, command: Command) -> bool:
        """Frees what the command held; False when it had been aborted or ended before."""
        itt = command.itt
        if self._commands.get(itt) is not command:
            return False
        del self._commands[itt]
        command.ended = True
        if command.immediate:
            self._immediate -= 1
        else:
            self._outgoing.window.active -= 1
        if command.running:
            self._data_in_reserved -= command.reserved_bytes
            self._room.in_use -= command.reserved_bytes
        transfer = command.transfer
        if transfer is not None:
            self._soliciting.pop(itt, None)
            if transfer.granted:
                self._data_out_reserved -= transfer.expected_length
                self._room.in_use -= transfer.expected_length
                self._solicit()
        return True

    def drop(self, command: Command) -> None:
        """The command was aborted: no status (SAM-5 5.3.1, RFC 7143 §11.5.1)."""
        self._end(command)

    def drop_aborted(self) -> None:
        """Task management is over: the ITTs of what it aborted may be used again as soon as its response is read."""
        for command in [command for command in self._commands.values() if command.task.aborted]:
            self._end(command)

    def abort_not_running(self, matches: Callable[[Command], bool]) -> int:
        """Drops the commands that the SCSI side has not seen yet and that match; how many."""
        doomed = [command for command in self._commands.values() if not command.running and matches(command)]
        for command in doomed:
            self._end(command)
        if doomed:  # they must not pile up behind a command that waits for room
            self._ready = deque(command for command in self._ready if not command.ended)
        return len(doomed)
