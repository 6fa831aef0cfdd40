"""The PDUs that manage sessions and tasks (RFC 7143 §11).

The rare ones have the layout itself as their codec. Those of a login, a discovery and a logout use ``struct``: a
thousand hosts come back at once after a power cut, and the layouts took a third of the CPU time of each.
``iscsi_pdu`` has the PDUs that move commands and data, and is where all of them are imported from.
"""

from dataclasses import dataclass, fields
from struct import Struct
from typing import Any, ClassVar, Self

from storage_model.spec.iscsi_codes import NO_LUN, RESERVED_TAG, Opcode
from storage_model.spec.iscsi_layout import LAYOUTS
from storage_model.volume import Buffer

_IMMEDIATE = 0x40
_FIRST, _SECOND = 0x80, 0x40  # of byte 1: F or T bit, C bit
_LOGIN_REQUEST = Struct(">BBBBI6sHIH2xII16x")
_LOGIN_RESPONSE = Struct(">BBBBI6sHI4xIIIH10x")
_TEXT_REQUEST = Struct(">BB2xI8sIIII16x")
_TEXT_RESPONSE = Struct(">BB2xI8sIIIII12x")
_LOGOUT_REQUEST = Struct(">BB14xIH2xII16x")
_LOGOUT_RESPONSE = Struct(">BBB13xI4xIII4xHH4x")


class LayoutPdu:
    """A cold PDU: its codec is its layout."""

    __slots__: tuple[str, ...] = ()
    opcode: ClassVar[Opcode]

    def encode_bhs(self) -> bytes:
        values: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        values["total_ahs_length"] = len(values.get("ahs", b"")) // 4
        values["data_segment_length"] = len(values.get("data", b""))
        return bytes(LAYOUTS[self.opcode].build(values))

    @classmethod
    def decode(cls, bhs: bytes, ahs: bytes, data: Buffer) -> Self:
        values = LAYOUTS[cls.opcode].parse(bhs)
        values["ahs"], values["data"] = ahs, data
        return cls(**{field.name: values[field.name] for field in fields(cls)})  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class TaskManagementRequestPdu(LayoutPdu):
    """§11.5."""

    opcode: ClassVar[Opcode] = Opcode.TASK_MANAGEMENT_REQUEST
    immediate: bool = True
    function: int = 0
    lun: bytes = NO_LUN
    itt: int = 0
    referenced_task_tag: int = RESERVED_TAG
    cmd_sn: int = 0
    exp_stat_sn: int = 0
    ref_cmd_sn: int = 0
    exp_data_sn: int = 0


@dataclass(frozen=True, slots=True)
class TaskManagementResponsePdu(LayoutPdu):
    """§11.6."""

    opcode: ClassVar[Opcode] = Opcode.TASK_MANAGEMENT_RESPONSE
    response: int = 0
    itt: int = 0
    stat_sn: int = 0
    exp_cmd_sn: int = 0
    max_cmd_sn: int = 0


@dataclass(frozen=True, slots=True)
class LoginRequestPdu:
    """§11.12. ``csg`` and ``nsg`` are a :class:`Stage`; ``isid`` is six bytes."""

    opcode: ClassVar[Opcode] = Opcode.LOGIN_REQUEST
    immediate: bool = True
    transit: bool = False
    cont: bool = False
    csg: int = 0
    nsg: int = 0
    version_max: int = 0
    version_min: int = 0
    isid: bytes = bytes(6)
    tsih: int = 0
    itt: int = 0
    cid: int = 0
    cmd_sn: int = 0
    exp_stat_sn: int = 0
    data: Buffer = b""

    def encode_bhs(self) -> bytes:
        flags = self.transit << 7 | self.cont << 6 | self.csg << 2 | self.nsg
        return _LOGIN_REQUEST.pack(
            Opcode.LOGIN_REQUEST | self.immediate << 6, flags, self.version_max, self.version_min, len(self.data),
            self.isid, self.tsih, self.itt, self.cid, self.cmd_sn, self.exp_stat_sn,
        )  # fmt: skip

    @classmethod
    def decode(cls, bhs: bytes, ahs: bytes, data: Buffer) -> Self:
        (byte0, flags, version_max, version_min, _, isid, tsih, itt, cid, cmd_sn,
         exp_stat_sn) = _LOGIN_REQUEST.unpack(bhs)  # fmt: skip
        return cls(
            bool(byte0 & _IMMEDIATE), bool(flags & _FIRST), bool(flags & _SECOND), flags >> 2 & 3, flags & 3,
            version_max, version_min, isid, tsih, itt, cid, cmd_sn, exp_stat_sn, data,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class LoginResponsePdu:
    """§11.13. ``status`` is a :class:`LoginStatus`."""

    opcode: ClassVar[Opcode] = Opcode.LOGIN_RESPONSE
    transit: bool = False
    cont: bool = False
    csg: int = 0
    nsg: int = 0
    version_max: int = 0
    version_active: int = 0
    isid: bytes = bytes(6)
    tsih: int = 0
    itt: int = 0
    stat_sn: int = 0
    exp_cmd_sn: int = 0
    max_cmd_sn: int = 0
    status: int = 0
    data: Buffer = b""

    def encode_bhs(self) -> bytes:
        flags = self.transit << 7 | self.cont << 6 | self.csg << 2 | self.nsg
        return _LOGIN_RESPONSE.pack(
            Opcode.LOGIN_RESPONSE, flags, self.version_max, self.version_active, len(self.data), self.isid, self.tsih,
            self.itt, self.stat_sn, self.exp_cmd_sn, self.max_cmd_sn, self.status,
        )  # fmt: skip

    @classmethod
    def decode(cls, bhs: bytes, ahs: bytes, data: Buffer) -> Self:
        (_, flags, version_max, version_active, _, isid, tsih, itt, stat_sn, exp_cmd_sn, max_cmd_sn,
         status) = _LOGIN_RESPONSE.unpack(bhs)  # fmt: skip
        return cls(
            bool(flags & _FIRST), bool(flags & _SECOND), flags >> 2 & 3, flags & 3, version_max, version_active,
            isid, tsih, itt, stat_sn, exp_cmd_sn, max_cmd_sn, status, data,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class TextRequestPdu:
    """§11.10."""

    opcode: ClassVar[Opcode] = Opcode.TEXT_REQUEST
    immediate: bool = False
    final: bool = True
    cont: bool = False
    lun: bytes = NO_LUN
    itt: int = 0
    ttt: int = RESERVED_TAG
    cmd_sn: int = 0
    exp_stat_sn: int = 0
    data: Buffer = b""

    def encode_bhs(self) -> bytes:
        return _TEXT_REQUEST.pack(
            Opcode.TEXT_REQUEST | self.immediate << 6, self.final << 7 | self.cont << 6, len(self.data), self.lun,
            self.itt, self.ttt, self.cmd_sn, self.exp_stat_sn,
        )  # fmt: skip

    @classmethod
    def decode(cls, bhs: bytes, ahs: bytes, data: Buffer) -> Self:
        byte0, flags, _, lun, itt, ttt, cmd_sn, exp_stat_sn = _TEXT_REQUEST.unpack(bhs)
        return cls(
            bool(byte0 & _IMMEDIATE), bool(flags & _FIRST), bool(flags & _SECOND), lun, itt, ttt, cmd_sn, exp_stat_sn,
            data,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class TextResponsePdu:
    """§11.11."""

    opcode: ClassVar[Opcode] = Opcode.TEXT_RESPONSE
    final: bool = True
    cont: bool = False
    lun: bytes = NO_LUN
    itt: int = 0
    ttt: int = RESERVED_TAG
    stat_sn: int = 0
    exp_cmd_sn: int = 0
    max_cmd_sn: int = 0
    data: Buffer = b""

    def encode_bhs(self) -> bytes:
        return _TEXT_RESPONSE.pack(
            Opcode.TEXT_RESPONSE, self.final << 7 | self.cont << 6, len(self.data), self.lun, self.itt, self.ttt,
            self.stat_sn, self.exp_cmd_sn, self.max_cmd_sn,
        )  # fmt: skip

    @classmethod
    def decode(cls, bhs: bytes, ahs: bytes, data: Buffer) -> Self:
        _, flags, _, lun, itt, ttt, stat_sn, exp_cmd_sn, max_cmd_sn = _TEXT_RESPONSE.unpack(bhs)
        return cls(bool(flags & _FIRST), bool(flags & _SECOND), lun, itt, ttt, stat_sn, exp_cmd_sn, max_cmd_sn, data)


@dataclass(frozen=True, slots=True)
class LogoutRequestPdu:
    """§11.14. ``reason``: 0 closes the session, 1 the connection, 2 removes it for recovery."""

    opcode: ClassVar[Opcode] = Opcode.LOGOUT_REQUEST
    immediate: bool = True
    reason: int = 0
    itt: int = 0
    cid: int = 0
    cmd_sn: int = 0
    exp_stat_sn: int = 0

    def encode_bhs(self) -> bytes:
        return _LOGOUT_REQUEST.pack(
            Opcode.LOGOUT_REQUEST | self.immediate << 6, _FIRST | self.reason, self.itt, self.cid, self.cmd_sn,
            self.exp_stat_sn,
        )  # fmt: skip

    @classmethod
    def decode(cls, bhs: bytes, ahs: bytes, data: Buffer) -> Self:
        byte0, flags, itt, cid, cmd_sn, exp_stat_sn = _LOGOUT_REQUEST.unpack(bhs)
        return cls(bool(byte0 & _IMMEDIATE), flags & 0x7F, itt, cid, cmd_sn, exp_stat_sn)


@dataclass(frozen=True, slots=True)
class LogoutResponsePdu:
    """§11.15. Times in seconds."""

    opcode: ClassVar[Opcode] = Opcode.LOGOUT_RESPONSE
    response: int = 0
    itt: int = 0
    stat_sn: int = 0
    exp_cmd_sn: int = 0
    max_cmd_sn: int = 0
    time2wait: int = 0
    time2retain: int = 0

    def encode_bhs(self) -> bytes:
        return _LOGOUT_RESPONSE.pack(
            Opcode.LOGOUT_RESPONSE, _FIRST, self.response, self.itt, self.stat_sn, self.exp_cmd_sn, self.max_cmd_sn,
            self.time2wait, self.time2retain,
        )  # fmt: skip

    @classmethod
    def decode(cls, bhs: bytes, ahs: bytes, data: Buffer) -> Self:
        _, _, response, itt, stat_sn, exp_cmd_sn, max_cmd_sn, time2wait, time2retain = _LOGOUT_RESPONSE.unpack(bhs)
        return cls(response, itt, stat_sn, exp_cmd_sn, max_cmd_sn, time2wait, time2retain)


@dataclass(frozen=True, slots=True)
class SnackRequestPdu(LayoutPdu):
    """§11.16."""

    opcode: ClassVar[Opcode] = Opcode.SNACK_REQUEST
    snack_type: int = 0
    lun: bytes = NO_LUN
    itt: int = RESERVED_TAG
    ttt: int = RESERVED_TAG
    exp_stat_sn: int = 0
    beg_run: int = 0
    run_length: int = 0


@dataclass(frozen=True, slots=True)
class AsyncMessagePdu(LayoutPdu):
    """§11.9."""

    opcode: ClassVar[Opcode] = Opcode.ASYNC_MESSAGE
    lun: bytes = NO_LUN
    itt: int = RESERVED_TAG
    stat_sn: int = 0
    exp_cmd_sn: int = 0
    max_cmd_sn: int = 0
    async_event: int = 0
    async_vcode: int = 0
    parameter1: int = 0
    parameter2: int = 0
    parameter3: int = 0
    data: Buffer = b""


@dataclass(frozen=True, slots=True)
class RejectPdu(LayoutPdu):
    """§11.17. ``data`` is the BHS of the PDU that was rejected."""

    opcode: ClassVar[Opcode] = Opcode.REJECT
    reason: int = 0
    itt: int = RESERVED_TAG
    stat_sn: int = 0
    exp_cmd_sn: int = 0
    max_cmd_sn: int = 0
    data_sn: int = 0
    data: Buffer = b""
