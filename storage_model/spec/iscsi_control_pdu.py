"""The PDUs that manage sessions and tasks: rare, so their codec is the layout itself (RFC 7143 §11).

``iscsi_pdu`` has those that move commands and data, and is where all of them are imported from.
"""

from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

from storage_model.spec.iscsi_codes import NO_LUN, RESERVED_TAG, Opcode
from storage_model.spec.iscsi_layout import LAYOUTS
from storage_model.volume import Buffer


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
class LoginRequestPdu(LayoutPdu):
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


@dataclass(frozen=True, slots=True)
class LoginResponsePdu(LayoutPdu):
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


@dataclass(frozen=True, slots=True)
class TextRequestPdu(LayoutPdu):
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


@dataclass(frozen=True, slots=True)
class TextResponsePdu(LayoutPdu):
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


@dataclass(frozen=True, slots=True)
class LogoutRequestPdu(LayoutPdu):
    """§11.14. ``reason``: 0 closes the session, 1 the connection, 2 removes it for recovery."""

    opcode: ClassVar[Opcode] = Opcode.LOGOUT_REQUEST
    immediate: bool = True
    reason: int = 0
    itt: int = 0
    cid: int = 0
    cmd_sn: int = 0
    exp_stat_sn: int = 0


@dataclass(frozen=True, slots=True)
class LogoutResponsePdu(LayoutPdu):
    """§11.15. Times in seconds."""

    opcode: ClassVar[Opcode] = Opcode.LOGOUT_RESPONSE
    response: int = 0
    itt: int = 0
    stat_sn: int = 0
    exp_cmd_sn: int = 0
    max_cmd_sn: int = 0
    time2wait: int = 0
    time2retain: int = 0


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
