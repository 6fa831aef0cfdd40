"""PDUs on their way out of an initiator session: CmdSN and ExpStatSN, digests, and how a command's data leaves."""

from initiator_shim.initiator_login import Negotiated
from initiator_shim.initiator_task import ScsiTask
from storage_model.errors import RemoteProtocolError
from storage_model.spec.iscsi_codes import NO_LUN, RESERVED_TAG, RejectReason
from storage_model.spec.iscsi_pdu import (
    DataOutPdu,
    LogoutRequestPdu,
    NopOutPdu,
    TaskManagementRequestPdu,
    TextRequestPdu,
)
from storage_model.spec.iscsi_stream import EncodablePdu, encode_pdu
from storage_model.spec.scsi_task import TaskFunction
from storage_model.spec.serial_number import serial_add, serial_le, serial_lt
from storage_model.volume import Buffer


class InitiatorOutgoing:
    """Collects the buffers of one batch. Without digests and with a closed window until :meth:`open`."""

    def __init__(self, negotiated: Negotiated) -> None:
        self.exp_stat_sn = 0
        self._negotiated = negotiated
        self._cmd_sn = 1
        self._max_cmd_sn = 0
        self._header_digest = False
        self._data_digest = False
        self._buffers: list[Buffer] = []

    def open(self, max_cmd_sn: int) -> None:
        """The full feature phase begins, with the window of the last Login Response."""
        self._max_cmd_sn = max_cmd_sn
        self._header_digest = self._negotiated.header_digest
        self._data_digest = self._negotiated.data_digest

    @property
    def window_open(self) -> bool:
        """The target would take another command (RFC 7143 §4.2.2.1)."""
        return serial_le(self._cmd_sn, self._max_cmd_sn)

    def count(self, stat_sn: int | None, exp_cmd_sn: int, max_cmd_sn: int) -> None:
        """What a PDU from the target says of the numbers (RFC 7143 §4.2.2.1, §4.2.2.2).

        ``stat_sn`` is None when the PDU does not use one up. Raises RemoteProtocolError when one is missing.
        """
        if stat_sn is not None:
            if stat_sn != self.exp_stat_sn:  # without error recovery a lost status is a lost session
                raise RemoteProtocolError(f"StatSN {stat_sn}, expected {self.exp_stat_sn}", RejectReason.PROTOCOL_ERROR)
            self.exp_stat_sn = serial_add(stat_sn, 1)
        impossible = serial_lt(max_cmd_sn, serial_add(exp_cmd_sn, -1))
        if not impossible and serial_lt(self._max_cmd_sn, max_cmd_sn):
            self._max_cmd_sn = max_cmd_sn

    def take(self) -> list[Buffer]:
        buffers, self._buffers = self._buffers, []
        return buffers

    def send(self, pdu: EncodablePdu) -> None:
        self._buffers += encode_pdu(pdu, self._header_digest, self._data_digest)

    def send_command(self, task: ScsiTask) -> None:
        """The command with its unsolicited data: immediate, then Data-Out up to FirstBurstLength (§4.2.5.2)."""
        held = self._negotiated
        length = len(task.data_out)
        unsolicited = min(length, held.first_burst_length)
        immediate = min(unsolicited, held.target_max_recv_data_segment_length) if held.immediate_data else 0
        if held.initial_r2t:
            unsolicited = immediate
        task.cmd_sn = self._cmd_sn
        self.send(task.command_pdu(self._cmd_sn, self.exp_stat_sn, immediate, final=unsolicited == immediate))
        self._cmd_sn = serial_add(self._cmd_sn, 1)
        if unsolicited > immediate:
            self.send_data_out(task, RESERVED_TAG, task.lun, immediate, unsolicited)

    def send_data_out(self, task: ScsiTask, ttt: int, lun: bytes, start: int, end: int) -> None:
        """One sequence of Data-Out PDUs for bytes ``start`` to ``end``."""
        data = memoryview(task.data_out)
        step = self._negotiated.target_max_recv_data_segment_length
        for data_sn, offset in enumerate(range(start, end, step)):
            stop = min(offset + step, end)
            self.send(DataOutPdu(stop == end, lun, task.itt, ttt, self.exp_stat_sn, data_sn, offset, data[offset:stop]))

    def send_task_management(
        self, itt: int, function: TaskFunction, lun: bytes, referenced_task_tag: int, ref_cmd_sn: int
    ) -> None:
        self.send(
            TaskManagementRequestPdu(
                function=function,
                lun=lun,
                itt=itt,
                referenced_task_tag=referenced_task_tag,
                cmd_sn=self._cmd_sn,
                exp_stat_sn=self.exp_stat_sn,
                ref_cmd_sn=ref_cmd_sn,
            )
        )

    def send_text(self, itt: int, ttt: int, lun: bytes, data: bytes) -> None:
        pdu = TextRequestPdu(
            True, True, False, lun, itt, ttt, cmd_sn=self._cmd_sn, exp_stat_sn=self.exp_stat_sn, data=data
        )
        self.send(pdu)

    def send_logout(self, itt: int) -> None:
        self.send(LogoutRequestPdu(itt=itt, cmd_sn=self._cmd_sn, exp_stat_sn=self.exp_stat_sn))

    def send_nop_out(self, itt: int, ttt: int = RESERVED_TAG, lun: bytes = NO_LUN) -> None:
        """A ping of ours, or with the reserved ITT the answer to the target's."""
        self.send(NopOutPdu(True, lun, itt, ttt, self._cmd_sn, self.exp_stat_sn))
