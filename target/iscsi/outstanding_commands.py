"""The commands of one connection, from SCSI Command PDU to status (RFC 7143 §4.2.5, §11.3, §11.4, §11.7)."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from storage_model.errors import RemoteProtocolError
from storage_model.nexus import ITNexus
from storage_model.spec.iscsi_pdu import (
    RESERVED_TAG,
    DataInPdu,
    DataOutPdu,
    RejectReason,
    ScsiCommandPdu,
    ScsiResponsePdu,
    lun_from_bytes,
    sense_segment,
)
from storage_model.spec.scsi_sense import SenseData, encode_sense
from storage_model.spec.scsi_task import ScsiStatus, TaskAttribute
from target.iscsi.events import CommandReceived, Limits
from target.iscsi.outgoing import Outgoing
from target.iscsi.session import SessionParameters
from target.iscsi.write_transfer import WriteTransfer
from target.scsi.task import ScsiTask, TaskOutcome

_EXTENDED_CDB = 1  # AHSType (§11.2.2.1)
_ATTRIBUTES = tuple(TaskAttribute)


@dataclass(slots=True)
class Command:
    """One command that has no status yet. ``transfer`` is None when it needs no Data-Out, ``task`` until it runs."""

    pdu: ScsiCommandPdu
    lun: int
    transfer: WriteTransfer | None
    task: ScsiTask | None = None
    ended: bool = False

    @property
    def running(self) -> bool:
        return self.task is not None


def _whole_cdb(pdu: ScsiCommandPdu) -> bytes:
    """The 16 bytes of the BHS, and those of an Extended CDB AHS after them (§11.2.2.3)."""
    cdb, ahs = pdu.cdb, pdu.ahs
    while len(ahs) >= 4:
        length = int.from_bytes(ahs[:2])
        if ahs[2] == _EXTENDED_CDB and 1 <= length <= len(ahs) - 3:
            return cdb + ahs[4 : 3 + length]
        ahs = ahs[(3 + length + 3) & ~3 :]
    return cdb


def residual(expected: int, transfer: int) -> tuple[bool, bool, int]:
    """Overflow, underflow, count: what the command would move against what the initiator expects (§11.4.5)."""
    if transfer > expected:
        return True, False, min(transfer - expected, 0xFFFFFFFF)
    return False, transfer < expected, expected - transfer


class OutstandingCommands:
    """Commands by Initiator Task Tag.

    A command collects its Data-Out, then waits for room, then runs. Room: the Data-In that running commands may
    produce and what waits to be written stay under ``limits.data_in``, the Data-Out buffers under
    ``limits.data_out``; one command always may.
    """

    def __init__(self, nexus: ITNexus, parameters: SessionParameters, outgoing: Outgoing, limits: Limits) -> None:
        self.writing_paused = False
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

    def __len__(self) -> int:
        return len(self._commands)

    def __contains__(self, itt: int) -> bool:
        return itt in self._commands

    def begin(self, pdu: ScsiCommandPdu) -> None:
        """Takes in a command that is next in order. Raises RemoteProtocolError (a RejectReason)."""
        if pdu.itt in self._commands:
            raise RemoteProtocolError(f"ITT {pdu.itt:08X}h is in use", RejectReason.TASK_IN_PROGRESS)
        if pdu.itt == RESERVED_TAG or (len(pdu.data) and not pdu.write):
            raise RemoteProtocolError("SCSI Command with a reserved ITT or stray data", RejectReason.INVALID_PDU_FIELD)
        if pdu.immediate:
            if self._immediate >= self._limits.immediate_commands:
                raise RemoteProtocolError("too many immediate commands", RejectReason.IMMEDIATE_COMMAND_REJECT)
            self._immediate += 1
        else:
            self._outgoing.window.active += 1
        command = Command(pdu, lun_from_bytes(pdu.lun), None)
        self._commands[pdu.itt] = command
        if pdu.write and (pdu.expected_data_transfer_length or len(pdu.data) or not pdu.final):
            self._begin_transfer(command)
        else:
            self._ready.append(command)

    def _begin_transfer(self, command: Command) -> None:
        pdu = command.pdu
        transfer = command.transfer = WriteTransfer(
            pdu.expected_data_transfer_length,
            self._parameters,
            pdu.data,
            pdu.final,
            self._limits.data_out_per_command,
        )
        if transfer.done:
            self._collected(command)
            return
        if transfer.expected_length <= self._parameters.first_burst_length:
            self._grant(transfer)
        self._soliciting[pdu.itt] = command
        self._solicit()

    def _grant(self, transfer: WriteTransfer) -> None:
        transfer.granted = True
        self._data_out_reserved += transfer.expected_length

    def receive_data_out(self, pdu: DataOutPdu, damaged: bool = False) -> None:
        """Raises RemoteProtocolError (a RejectReason); Data-Out for a task that is no more is ignored."""
        command = self._commands.get(pdu.itt)
        if command is None or command.ended:
            return
        if command.transfer is None or command.running:
            raise RemoteProtocolError("Data-Out for a command that wants none", RejectReason.PROTOCOL_ERROR)
        command.transfer.receive(pdu, damaged)
        if command.transfer.done:
            self._soliciting.pop(pdu.itt, None)
            self._collected(command)
        elif pdu.final:
            self._solicit()

    def _solicit(self) -> None:
        """Sends the R2Ts that may go out now, oldest command first."""
        limit = self._limits.data_out
        for itt, command in self._soliciting.items():
            transfer = command.transfer
            assert transfer is not None
            if not transfer.granted and transfer.wants_r2t:
                if self._data_out_reserved and self._data_out_reserved + transfer.expected_length > limit:
                    return
                self._grant(transfer)
            while transfer.wants_r2t:
                window = self._outgoing.window
                self._last_ttt = (self._last_ttt + 1) % RESERVED_TAG
                self._outgoing.send(
                    transfer.solicit(
                        self._last_ttt,
                        itt,
                        command.pdu.lun,
                        self._outgoing.stat_sn,
                        window.exp_cmd_sn,
                        window.max_cmd_sn,
                    )
                )

    def _collected(self, command: Command) -> None:
        assert command.transfer is not None
        if command.transfer.failure is None:
            self._ready.append(command)
            return
        sense = encode_sense(SenseData(*command.transfer.failure))
        self.complete(command, TaskOutcome(ScsiStatus.CHECK_CONDITION, sense=sense))

    def next_commands(self) -> list[CommandReceived]:
        """The commands to execute now."""
        events: list[CommandReceived] = []
        while self._ready and not self.writing_paused:
            command = self._ready[0]
            reserve = self._data_in_length(command)
            in_use = self._data_in_reserved + self._outgoing.queued_bytes
            if in_use and in_use + reserve > self._limits.data_in:
                break
            self._ready.popleft()
            if command.ended:
                continue
            self._data_in_reserved += reserve
            command.task = self._task(command)
            events.append(CommandReceived(command, command.task))
        return events

    def _data_in_length(self, command: Command) -> int:
        return command.pdu.expected_data_transfer_length if command.pdu.read else 0

    def _task(self, command: Command) -> ScsiTask:
        pdu = command.pdu
        return ScsiTask(
            self._nexus,
            command.lun,
            pdu.itt,
            _whole_cdb(pdu) if pdu.ahs else pdu.cdb,
            command.transfer.data if command.transfer else b"",
            self._data_in_length(command),
            _ATTRIBUTES[pdu.attribute] if pdu.attribute < len(_ATTRIBUTES) else TaskAttribute.SIMPLE,
        )

    def complete(self, command: Command, outcome: TaskOutcome) -> None:
        """Answers the command, unless it was aborted, and gives its place back."""
        if not self._end(command):
            return
        pdu, window = command.pdu, self._outgoing.window
        expected = pdu.expected_data_transfer_length
        length = min(len(outcome.data_in), expected) if pdu.read else 0
        transfer = max(outcome.transfer_length_bytes, len(outcome.data_in))
        if outcome.status != ScsiStatus.GOOD and not pdu.write:
            transfer = len(outcome.data_in)
        overflow, underflow, count = residual(expected, transfer)
        data_pdus = 0
        collapsed = outcome.status == ScsiStatus.GOOD and not outcome.sense
        if length:
            data = memoryview(outcome.data_in)[:length]
            data_pdus = self._send_data_in(pdu, data, collapsed, overflow, underflow, count)
            if collapsed:
                return
        self._outgoing.send(
            ScsiResponsePdu(
                itt=pdu.itt,
                status=outcome.status,
                overflow=overflow,
                underflow=underflow,
                residual_count=count,
                stat_sn=self._outgoing.take_stat_sn(),
                exp_cmd_sn=window.exp_cmd_sn,
                max_cmd_sn=window.max_cmd_sn,
                exp_data_sn=data_pdus,
                data=sense_segment(outcome.sense),
            )
        )

    def _send_data_in(
        self, pdu: ScsiCommandPdu, data: memoryview, with_status: bool, overflow: bool, underflow: bool, count: int
    ) -> int:
        """Data-In PDUs under the initiator's MaxRecvDataSegmentLength, in sequences under MaxBurstLength; how many.

        GOOD status travels in the last one (§11.7.3).
        """
        outgoing = self._outgoing
        segment_length = self._parameters.initiator_max_recv_data_segment_length
        burst_length = self._parameters.max_burst_length
        offset = data_sn = 0
        while offset < len(data):
            burst_end = min((offset // burst_length + 1) * burst_length, len(data))
            end = min(offset + segment_length, burst_end)
            status_here = with_status and end == len(data)
            window = outgoing.window
            outgoing.send(
                DataInPdu(
                    final=end == burst_end,
                    overflow=status_here and overflow,
                    underflow=status_here and underflow,
                    status_present=status_here,
                    lun=pdu.lun,
                    itt=pdu.itt,
                    stat_sn=outgoing.take_stat_sn() if status_here else 0,
                    exp_cmd_sn=window.exp_cmd_sn,
                    max_cmd_sn=window.max_cmd_sn,
                    data_sn=data_sn,
                    buffer_offset=offset,
                    residual_count=count if status_here else 0,
                    data=data[offset:end],
                )
            )
            offset = end
            data_sn += 1
        return data_sn

    def _end(self, command: Command) -> bool:
        """Frees what the command held; False when it had been aborted or ended before."""
        if self._commands.get(command.pdu.itt) is not command:
            return False
        del self._commands[command.pdu.itt]
        command.ended = True
        self._soliciting.pop(command.pdu.itt, None)
        if command.pdu.immediate:
            self._immediate -= 1
        else:
            self._outgoing.window.active -= 1
        if command.running:
            self._data_in_reserved -= self._data_in_length(command)
        if command.transfer is not None and command.transfer.granted:
            self._data_out_reserved -= command.transfer.expected_length
            self._solicit()
        return True

    def drop(self, command: Command) -> None:
        """The command was aborted: no status (SAM-5 5.3.1, RFC 7143 §11.5.1)."""
        self._end(command)

    def drop_aborted(self) -> None:
        """Task management is over: the ITTs of what it aborted may be used again as soon as its response is read."""
        for command in [command for command in self._commands.values() if command.task and command.task.aborted]:
            self._end(command)

    def abort_not_running(self, matches: Callable[[Command], bool]) -> int:
        """Drops the commands that the SCSI side has not seen yet and that match; how many."""
        doomed = [command for command in self._commands.values() if not command.running and matches(command)]
        for command in doomed:
            self._end(command)
        if doomed:  # they must not pile up behind a command that waits for room
            self._ready = deque(command for command in self._ready if not command.ended)
        return len(doomed)
