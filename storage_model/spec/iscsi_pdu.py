"""iSCSI PDUs: one frozen dataclass each, fields named as in RFC 7143 §11.

``encode_bhs()`` gives the 48-byte Basic Header Segment, with DataSegmentLength and TotalAHSLength taken from ``data``
and ``ahs``; ``decode(bhs, ahs, data)`` is its inverse. Numbers are plain integers, ``lun`` is the 8-byte field,
lengths and offsets are bytes. PDUs on the hot path use ``struct``; the others are built from ``iscsi_layout``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Self, TypeAlias

from storage_model.errors import RemoteProtocolError
from storage_model.spec.iscsi_bhs import (
    HEADER,
    IMMEDIATE,
    ISCSI_COMPLETED_AT_TARGET,
    SCSI_COMMAND_BHS,
    data_in_bhs,
    scsi_response_bhs,
)
from storage_model.spec.iscsi_codes import (
    NO_LUN,
    RESERVED_TAG,
    AsyncEvent,
    LoginStatus,
    LogoutReason,
    LogoutResponse,
    Opcode,
    RejectReason,
    Stage,
    lun_from_bytes,
    lun_to_bytes,
)
from storage_model.spec.iscsi_control_pdu import (
    AsyncMessagePdu,
    LoginRequestPdu,
    LoginResponsePdu,
    LogoutRequestPdu,
    LogoutResponsePdu,
    RejectPdu,
    SnackRequestPdu,
    TaskManagementRequestPdu,
    TaskManagementResponsePdu,
    TextRequestPdu,
    TextResponsePdu,
)
from storage_model.spec.iscsi_stream import RawPdu
from storage_model.volume import Buffer

__all__ = [
    "NO_LUN",
    "RESERVED_TAG",
    "AsyncEvent",
    "AsyncMessagePdu",
    "DataInPdu",
    "DataOutPdu",
    "LoginRequestPdu",
    "LoginResponsePdu",
    "LoginStatus",
    "LogoutReason",
    "LogoutRequestPdu",
    "LogoutResponse",
    "LogoutResponsePdu",
    "NopInPdu",
    "NopOutPdu",
    "Opcode",
    "Pdu",
    "R2TPdu",
    "RejectPdu",
    "RejectReason",
    "ScsiCommandPdu",
    "ScsiResponsePdu",
    "SnackRequestPdu",
    "Stage",
    "TaskManagementRequestPdu",
    "TaskManagementResponsePdu",
    "TextRequestPdu",
    "TextResponsePdu",
    "decode_pdu",
    "lun_from_bytes",
    "lun_to_bytes",
    "sense_from_segment",
    "sense_segment",
]


def _lengths(ahs: bytes, data: Buffer) -> int:
    """Bytes 4 to 7: TotalAHSLength in four-byte words, then DataSegmentLength (§11.2.1.5, §11.2.1.6)."""
    return len(ahs) << 22 | len(data)


@dataclass(frozen=True, slots=True)
class NopOutPdu:
    """§11.18."""

    opcode: ClassVar[Opcode] = Opcode.NOP_OUT
    immediate: bool = False
    lun: bytes = NO_LUN
    itt: int = RESERVED_TAG
    ttt: int = RESERVED_TAG
    cmd_sn: int = 0
    exp_stat_sn: int = 0
    data: Buffer = b""

    def encode_bhs(self) -> bytes:
        return HEADER.pack(
            IMMEDIATE if self.immediate else 0, 0x80, 0, 0, len(self.data), self.lun,
            self.itt, self.ttt, self.cmd_sn, self.exp_stat_sn, 0, 0, 0, 0,
        )  # fmt: skip

    @classmethod
    def decode(cls, bhs: bytes, ahs: bytes, data: Buffer) -> Self:
        byte0, _, _, _, _, lun, itt, ttt, cmd_sn, exp_stat_sn, _, _, _, _ = HEADER.unpack(bhs)
        return cls(bool(byte0 & IMMEDIATE), lun, itt, ttt, cmd_sn, exp_stat_sn, data)


@dataclass(frozen=True, slots=True)
class NopInPdu:
    """§11.19."""

    opcode: ClassVar[Opcode] = Opcode.NOP_IN
    lun: bytes = NO_LUN
    itt: int = RESERVED_TAG
    ttt: int = RESERVED_TAG
    stat_sn: int = 0
    exp_cmd_sn: int = 0
    max_cmd_sn: int = 0
    data: Buffer = b""

    def encode_bhs(self) -> bytes:
        return HEADER.pack(
            Opcode.NOP_IN, 0x80, 0, 0, len(self.data), self.lun,
            self.itt, self.ttt, self.stat_sn, self.exp_cmd_sn, self.max_cmd_sn, 0, 0, 0,
        )  # fmt: skip

    @classmethod
    def decode(cls, bhs: bytes, ahs: bytes, data: Buffer) -> Self:
        _, _, _, _, _, lun, itt, ttt, stat_sn, exp_cmd_sn, max_cmd_sn, _, _, _ = HEADER.unpack(bhs)
        return cls(lun, itt, ttt, stat_sn, exp_cmd_sn, max_cmd_sn, data)


@dataclass(frozen=True, slots=True)
class ScsiCommandPdu:
    """§11.3. ``data`` is immediate data; ``ahs`` may hold a longer CDB or a bidirectional read length."""

    opcode: ClassVar[Opcode] = Opcode.SCSI_COMMAND
    immediate: bool = False
    final: bool = True
    read: bool = False
    write: bool = False
    attribute: int = 1
    lun: bytes = NO_LUN
    itt: int = 0
    expected_data_transfer_length: int = 0
    cmd_sn: int = 0
    exp_stat_sn: int = 0
    cdb: bytes = bytes(16)
    ahs: bytes = b""
    data: Buffer = b""

    def encode_bhs(self) -> bytes:
        return SCSI_COMMAND_BHS.pack(
            Opcode.SCSI_COMMAND | (IMMEDIATE if self.immediate else 0),
            self.final << 7 | self.read << 6 | self.write << 5 | self.attribute, 0, 0,
            _lengths(self.ahs, self.data), self.lun, self.itt, self.expected_data_transfer_length,
            self.cmd_sn, self.exp_stat_sn, self.cdb,
        )  # fmt: skip

    @classmethod
    def decode(cls, bhs: bytes, ahs: bytes, data: Buffer) -> Self:
        byte0, flags, _, _, _, lun, itt, expected, cmd_sn, exp_stat_sn, cdb = SCSI_COMMAND_BHS.unpack(bhs)
        return cls(
            bool(byte0 & IMMEDIATE), bool(flags & 0x80), bool(flags & 0x40), bool(flags & 0x20), flags & 7,
            lun, itt, expected, cmd_sn, exp_stat_sn, cdb, ahs, data,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class ScsiResponsePdu:
    """§11.4. ``data`` is SenseLength (two bytes) and sense data, or empty; see :func:`sense_segment`."""

    opcode: ClassVar[Opcode] = Opcode.SCSI_RESPONSE
    itt: int = 0
    response: int = ISCSI_COMPLETED_AT_TARGET
    status: int = 0
    overflow: bool = False
    underflow: bool = False
    residual_count: int = 0
    stat_sn: int = 0
    exp_cmd_sn: int = 0
    max_cmd_sn: int = 0
    exp_data_sn: int = 0
    bidirectional_overflow: bool = False
    bidirectional_underflow: bool = False
    bidirectional_residual_count: int = 0
    snack_tag: int = 0
    data: Buffer = b""

    def encode_bhs(self) -> bytes:
        flags = 0x80 | self.bidirectional_overflow << 4 | self.bidirectional_underflow << 3
        return scsi_response_bhs(
            flags | self.overflow << 2 | self.underflow << 1, self.status, len(self.data), self.itt, self.stat_sn,
            self.exp_cmd_sn, self.max_cmd_sn, self.exp_data_sn, self.residual_count, self.response,
            self.bidirectional_residual_count, self.snack_tag,
        )  # fmt: skip

    @classmethod
    def decode(cls, bhs: bytes, ahs: bytes, data: Buffer) -> Self:
        (_, flags, response, status, _, _, itt, snack_tag, stat_sn, exp_cmd_sn, max_cmd_sn, exp_data_sn,
         bidirectional_residual, residual) = HEADER.unpack(bhs)  # fmt: skip
        return cls(
            itt, response, status, bool(flags & 4), bool(flags & 2), residual, stat_sn, exp_cmd_sn, max_cmd_sn,
            exp_data_sn, bool(flags & 0x10), bool(flags & 8), bidirectional_residual, snack_tag, data,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class DataOutPdu:
    """§11.7."""

    opcode: ClassVar[Opcode] = Opcode.DATA_OUT
    final: bool = True
    lun: bytes = NO_LUN
    itt: int = 0
    ttt: int = RESERVED_TAG
    exp_stat_sn: int = 0
    data_sn: int = 0
    buffer_offset: int = 0
    data: Buffer = b""

    def encode_bhs(self) -> bytes:
        return HEADER.pack(
            Opcode.DATA_OUT, self.final << 7, 0, 0, len(self.data), self.lun,
            self.itt, self.ttt, 0, self.exp_stat_sn, 0, self.data_sn, self.buffer_offset, 0,
        )  # fmt: skip

    @classmethod
    def decode(cls, bhs: bytes, ahs: bytes, data: Buffer) -> Self:
        _, flags, _, _, _, lun, itt, ttt, _, exp_stat_sn, _, data_sn, buffer_offset, _ = HEADER.unpack(bhs)
        return cls(bool(flags & 0x80), lun, itt, ttt, exp_stat_sn, data_sn, buffer_offset, data)


@dataclass(frozen=True, slots=True)
class DataInPdu:
    """§11.7. With ``status_present`` it also ends the task, and only then ``stat_sn`` counts."""

    opcode: ClassVar[Opcode] = Opcode.DATA_IN
    final: bool = True
    acknowledge: bool = False
    overflow: bool = False
    underflow: bool = False
    status_present: bool = False
    status: int = 0
    lun: bytes = NO_LUN
    itt: int = 0
    ttt: int = RESERVED_TAG
    stat_sn: int = 0
    exp_cmd_sn: int = 0
    max_cmd_sn: int = 0
    data_sn: int = 0
    buffer_offset: int = 0
    residual_count: int = 0
    data: Buffer = b""

    def encode_bhs(self) -> bytes:
        flags = self.final << 7 | self.acknowledge << 6 | self.overflow << 2 | self.underflow << 1
        return data_in_bhs(
            flags | self.status_present, len(self.data), self.lun, self.itt, self.stat_sn, self.exp_cmd_sn,
            self.max_cmd_sn, self.data_sn, self.buffer_offset, self.residual_count, self.status, self.ttt,
        )  # fmt: skip

    @classmethod
    def decode(cls, bhs: bytes, ahs: bytes, data: Buffer) -> Self:
        (_, flags, _, status, _, lun, itt, ttt, stat_sn, exp_cmd_sn, max_cmd_sn, data_sn, buffer_offset,
         residual) = HEADER.unpack(bhs)  # fmt: skip
        return cls(
            bool(flags & 0x80), bool(flags & 0x40), bool(flags & 4), bool(flags & 2), bool(flags & 1), status,
            lun, itt, ttt, stat_sn, exp_cmd_sn, max_cmd_sn, data_sn, buffer_offset, residual, data,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class R2TPdu:
    """§11.8."""

    opcode: ClassVar[Opcode] = Opcode.R2T
    lun: bytes = NO_LUN
    itt: int = 0
    ttt: int = 0
    stat_sn: int = 0
    exp_cmd_sn: int = 0
    max_cmd_sn: int = 0
    r2t_sn: int = 0
    buffer_offset: int = 0
    desired_data_transfer_length: int = 0

    def encode_bhs(self) -> bytes:
        return HEADER.pack(
            Opcode.R2T, 0x80, 0, 0, 0, self.lun, self.itt, self.ttt, self.stat_sn, self.exp_cmd_sn, self.max_cmd_sn,
            self.r2t_sn, self.buffer_offset, self.desired_data_transfer_length,
        )  # fmt: skip

    @classmethod
    def decode(cls, bhs: bytes, ahs: bytes, data: Buffer) -> Self:
        (_, _, _, _, _, lun, itt, ttt, stat_sn, exp_cmd_sn, max_cmd_sn, r2t_sn, buffer_offset,
         desired) = HEADER.unpack(bhs)  # fmt: skip
        return cls(lun, itt, ttt, stat_sn, exp_cmd_sn, max_cmd_sn, r2t_sn, buffer_offset, desired)


Pdu: TypeAlias = (
    NopOutPdu
    | NopInPdu
    | ScsiCommandPdu
    | ScsiResponsePdu
    | DataOutPdu
    | DataInPdu
    | R2TPdu
    | TaskManagementRequestPdu
    | TaskManagementResponsePdu
    | LoginRequestPdu
    | LoginResponsePdu
    | TextRequestPdu
    | TextResponsePdu
    | LogoutRequestPdu
    | LogoutResponsePdu
    | SnackRequestPdu
    | AsyncMessagePdu
    | RejectPdu
)

_DECODERS: dict[int, Callable[[bytes, bytes, Buffer], Pdu]] = {int(pdu.opcode): pdu.decode for pdu in Pdu.__args__}


def decode_pdu(raw: RawPdu) -> Pdu:
    """Raises RemoteProtocolError (reason: a RejectReason) for an unknown opcode or a damaged data segment."""
    if raw.data_digest_failed:
        raise RemoteProtocolError("data digest does not match", RejectReason.DATA_DIGEST_ERROR)
    decoder = _DECODERS.get(raw.opcode)
    if decoder is None:
        raise RemoteProtocolError(f"unknown opcode {raw.opcode:02X}h", RejectReason.COMMAND_NOT_SUPPORTED)
    return decoder(raw.bhs, raw.ahs, raw.data)


def sense_segment(sense: bytes) -> bytes:
    """The data segment of a SCSI Response that carries ``sense`` (§11.4.7)."""
    return len(sense).to_bytes(2) + sense if sense else b""


def sense_from_segment(data: Buffer) -> bytes:
    """The sense data in the data segment of a SCSI Response; empty when there is none."""
    if len(data) < 2:
        return b""
    return bytes(data[2 : 2 + int.from_bytes(data[:2])])
