"""What an initiator session reports, and the state of one task in it."""

from dataclasses import dataclass, field

from initiator_shim.initiator_login import Negotiated
from initiator_shim.session_errors import SessionError
from storage_model.errors import RemoteProtocolError
from storage_model.spec.iscsi_codes import RejectReason
from storage_model.spec.iscsi_pdu import DataInPdu, ScsiCommandPdu
from storage_model.volume import Buffer


@dataclass(frozen=True, slots=True)
class ScsiOutcome:
    """How a SCSI command ended.

    ``status`` is SAM-5's; ``sense`` is empty unless the target sent some; ``data_in`` is what arrived. ``residual`` in
    bytes is positive when less was moved than expected, negative when the command would have moved more.
    """

    status: int
    sense: bytes = b""
    data_in: bytes = b""
    residual: int = 0


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """The session is in the full-feature phase."""

    negotiated: Negotiated


@dataclass(frozen=True, slots=True)
class Completed:
    """The request with this ITT ended: a ScsiOutcome, a task management or logout response code, text pairs, or None
    for a ping."""

    itt: int
    result: ScsiOutcome | int | list[tuple[str, str]] | None


@dataclass(frozen=True, slots=True)
class Failed:
    """The request with this ITT has no result."""

    itt: int
    error: SessionError


@dataclass(frozen=True, slots=True)
class Ended:
    """The session is over; every request that was open has its own Failed event before this one."""

    error: SessionError


Event = LoggedIn | Completed | Failed | Ended


@dataclass(slots=True)
class ScsiTask:
    """A SCSI command from its queueing to its response. ``deadline`` is in seconds of the caller's clock."""

    itt: int
    lun: bytes
    cdb: bytes
    data_out: Buffer
    data_in_length: int
    deadline: float
    cmd_sn: int | None = None
    data_in: bytearray = field(default_factory=bytearray)

    def command_pdu(self, cmd_sn: int, exp_stat_sn: int, immediate_length: int, final: bool) -> ScsiCommandPdu:
        return ScsiCommandPdu(
            final=final,
            read=self.data_in_length > 0,
            write=len(self.data_out) > 0,
            lun=self.lun,
            itt=self.itt,
            expected_data_transfer_length=self.data_in_length or len(self.data_out),
            cmd_sn=cmd_sn,
            exp_stat_sn=exp_stat_sn,
            cdb=self.cdb.ljust(16, b"\0"),
            data=memoryview(self.data_out)[:immediate_length],
        )

    def take_data_in(self, pdu: DataInPdu) -> None:
        """Raises RemoteProtocolError when the data does not follow in order (DataPDUInOrder, DataSequenceInOrder)
        or is more than was asked for."""
        if pdu.buffer_offset != len(self.data_in):
            raise RemoteProtocolError(
                f"Data-In at offset {pdu.buffer_offset}, expected {len(self.data_in)}", RejectReason.PROTOCOL_ERROR
            )
        if pdu.buffer_offset + len(pdu.data) > self.data_in_length:
            raise RemoteProtocolError("more Data-In than was asked for", RejectReason.PROTOCOL_ERROR)
        self.data_in += pdu.data

    def outcome(self, status: int, sense: bytes, overflow: bool, underflow: bool, residual_count: int) -> ScsiOutcome:
        residual = residual_count if underflow else -residual_count if overflow else 0
        return ScsiOutcome(status, sense, bytes(self.data_in), residual)
