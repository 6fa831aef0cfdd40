"""Parameter data of PERSISTENT RESERVE IN and OUT, and the iSCSI TransportID (SPC-4 6.15, 6.16, 7.6.4.6).

Both ends may use it. What a list announces about itself is checked before anything is read: nothing here depends on
more bytes than there are, and a wrong list ends as ``CheckCondition``.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import construct as c

from storage_model.errors import CheckCondition
from storage_model.nexus import is_name_length
from storage_model.spec.scsi_sense import AscAscq, SenseKey

BASIC_LENGTH = 24
MAXIMUM_LIST_LENGTH = 64 << 10
"""Bytes of a parameter list; a longer one is refused (SPC-4 6.16.1). Over 250 of the longest TransportIDs."""

TRANSPORT_ID_MINIMUM_LENGTH = 24
_HEADER_LENGTH = 4
_PROTOCOL_ISCSI = 0x5
_DEVICE_NAME, _INITIATOR_PORT = 0, 1  # FORMAT CODE (SPC-4 table 504)
_SEPARATOR = ",i,0x"
_ISCSI_NAME = re.compile(r"(?:iqn|eui|naa)\.[^\x00-\x20,\x7f]+")
_ISID = re.compile(r"[0-9A-Fa-f]{1,12}")

BASIC_PARAMETER_LIST = c.Struct(
    "key" / c.Int64ub,
    "action_key" / c.Int64ub,
    "obsolete" / c.Bytes(4),
    "flags" / c.BitStruct(c.Padding(4), "spec_i_pt" / c.Flag, "all_tg_pt" / c.Flag, c.Padding(1), "aptpl" / c.Flag),
    "reserved" / c.Bytes(3),
)
"""SPC-4 table 214, without the TransportIDs that may follow."""

MOVE_PARAMETER_LIST = c.Struct(
    "key" / c.Int64ub,
    "action_key" / c.Int64ub,
    "reserved" / c.Bytes(1),
    "flags" / c.BitStruct(c.Padding(6), "unregister" / c.Flag, "aptpl" / c.Flag),
    "relative_target_port" / c.Int16ub,
    "transport_id_length" / c.Int32ub,
)
"""SPC-4 table 217, without the TransportID."""

_FULL_STATUS = c.Struct(
    "key" / c.Int64ub,
    c.Padding(4),
    "flags" / c.BitStruct(c.Padding(6), "all_tg_pt" / c.Flag, "holder" / c.Flag),
    "scope_and_type" / c.Int8ub,
    c.Padding(4),
    "relative_target_port" / c.Int16ub,
    "transport_id" / c.Prefixed(c.Int32ub, c.GreedyBytes),
)
_RESERVATION = c.Struct("key" / c.Int64ub, c.Padding(5), "scope_and_type" / c.Int8ub, c.Padding(2))
_REPORT = c.Struct("generation" / c.Int32ub, "descriptors" / c.Prefixed(c.Int32ub, c.GreedyBytes))

_CAPABILITIES = c.Struct(
    "length" / c.Const(8, c.Int16ub),
    "capable"
    / c.BitStruct(
        "replace_lost_reservation" / c.Flag,
        c.Padding(2),
        "compatible_reservation_handling" / c.Flag,
        "specify_initiator_ports" / c.Flag,
        "all_target_ports" / c.Flag,
        c.Padding(1),
        "persist_through_power_loss" / c.Flag,
    ),
    "more"
    / c.BitStruct("type_mask_valid" / c.Flag, "allow_commands" / c.BitsInteger(3), c.Padding(3), "activated" / c.Flag),
    "type_mask" / c.Int16ub,
    c.Padding(2),
)

ALL_TYPES = 0xEA01
"""PERSISTENT RESERVATION TYPE MASK with all six (SPC-4 table 209)."""

ALLOW_COMMANDS = 0b100
"""SPC-4 table 208: TEST UNIT READY and RECEIVE COPY RESULTS are allowed under both kinds; MODE SENSE, READ BUFFER,
REPORT SUPPORTED OPERATION CODES and TASK MANAGEMENT FUNCTIONS and READ DEFECT DATA under Write Exclusive."""


@dataclass(frozen=True, slots=True)
class TransportId:
    """An initiator port, or with ``isid`` None the device of that name: each port of it that is known."""

    initiator_name: str
    isid: bytes | None

    def encode(self) -> bytes:
        """NUL-terminated and padded to a multiple of four, at least 24 bytes (SPC-4 tables 505, 506)."""
        text = self.initiator_name if self.isid is None else f"{self.initiator_name}{_SEPARATOR}{self.isid.hex()}"
        name = text.encode() + b"\0"
        length = max(-(-len(name) // 4) * 4, TRANSPORT_ID_MINIMUM_LENGTH - _HEADER_LENGTH)
        format_code = _DEVICE_NAME if self.isid is None else _INITIATOR_PORT
        return bytes((format_code << 6 | _PROTOCOL_ISCSI, 0)) + length.to_bytes(2, "big") + name.ljust(length, b"\0")


def _refused(byte: int) -> CheckCondition:
    """The pointer has sixteen bits, which every list that is accepted fits."""
    return CheckCondition(
        SenseKey.ILLEGAL_REQUEST,
        AscAscq.INVALID_FIELD_IN_PARAMETER_LIST,
        field_pointer=byte,
        in_parameter_list=True,
    )


def _wrong_length() -> CheckCondition:
    return CheckCondition(SenseKey.ILLEGAL_REQUEST, AscAscq.PARAMETER_LIST_LENGTH_ERROR)


def _check_list_length(length: int, least: int) -> None:
    if not least <= length <= MAXIMUM_LIST_LENGTH:
        raise _wrong_length()


def decode_transport_ids(data: bytes, offset: int) -> list[TransportId]:
    """All of a TransportID list that begins at ``offset`` of its parameter list, to its very end.

    Raises CheckCondition: one that is cut off, of another protocol, without a terminator or not an iSCSI name.
    """
    found = []
    at = 0
    while at < len(data):
        length = _transport_id_length(data[at : at + _HEADER_LENGTH], offset + at)
        if at + length > len(data):
            raise _refused(offset + at + 2)
        found.append(_decode_transport_id(data[at : at + length], offset + at))
        at += length
    return found


def _transport_id_length(header: bytes, offset: int) -> int:
    """Bytes of a TransportID, its header included (SPC-4 7.6.4.1, 7.6.4.6)."""
    if len(header) < _HEADER_LENGTH or header[0] & 0x0F != _PROTOCOL_ISCSI:
        raise _refused(offset)
    length = _HEADER_LENGTH + int.from_bytes(header[2:4], "big")
    if length < TRANSPORT_ID_MINIMUM_LENGTH or length % 4:
        raise _refused(offset + 2)
    return length


def _decode_transport_id(data: bytes, offset: int) -> TransportId:
    """What follows the first NUL does not count (SPC-4 7.6.4.6); without a NUL it is none."""
    raw, terminator, _ = data[_HEADER_LENGTH:].partition(b"\0")
    format_code = data[0] >> 6
    if not terminator or format_code not in (_DEVICE_NAME, _INITIATOR_PORT):
        raise _refused(offset)
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise _refused(offset + _HEADER_LENGTH) from None
    isid = None
    if format_code == _INITIATOR_PORT:
        text, separator, digits = text.rpartition(_SEPARATOR)
        if not separator or not _ISID.fullmatch(digits):
            raise _refused(offset + _HEADER_LENGTH)
        isid = int(digits, 16).to_bytes(6, "big")
    if not is_name_length(text) or not _ISCSI_NAME.fullmatch(text):
        raise _refused(offset + _HEADER_LENGTH)
    return TransportId(text, isid)


@dataclass(frozen=True, slots=True)
class BasicParameters:
    """The parameter list of every service action but REGISTER AND MOVE; ``transport_ids`` still as they came."""

    key: int
    action_key: int = 0
    spec_i_pt: bool = False
    all_tg_pt: bool = False
    aptpl: bool = False
    transport_ids: bytes = b""

    @classmethod
    def decode(cls, data: bytes) -> "BasicParameters":
        """Raises CheckCondition for a length that cannot be (SPC-4 6.16.1, 6.16.3)."""
        _check_list_length(len(data), BASIC_LENGTH)
        fields = BASIC_PARAMETER_LIST.parse(data)
        flags = fields.flags
        more = b""
        if flags.spec_i_pt and len(data) > BASIC_LENGTH:
            announced = int.from_bytes(data[BASIC_LENGTH : BASIC_LENGTH + 4], "big")
            _check_list_length(len(data), BASIC_LENGTH + 4 + announced)
            more = data[BASIC_LENGTH + 4 : BASIC_LENGTH + 4 + announced]
        elif len(data) != BASIC_LENGTH:
            raise _wrong_length()
        return cls(fields.key, fields.action_key, flags.spec_i_pt, flags.all_tg_pt, flags.aptpl, more)

    def encode(self) -> bytes:
        flags = {"spec_i_pt": self.spec_i_pt, "all_tg_pt": self.all_tg_pt, "aptpl": self.aptpl}
        fields = {"key": self.key, "action_key": self.action_key, "flags": flags}
        basic = bytes(BASIC_PARAMETER_LIST.build({**fields, "obsolete": bytes(4), "reserved": bytes(3)}))
        return basic + (len(self.transport_ids).to_bytes(4, "big") + self.transport_ids if self.spec_i_pt else b"")


@dataclass(frozen=True, slots=True)
class MoveParameters:
    """The parameter list of REGISTER AND MOVE; ``transport_id`` still as it came."""

    key: int
    action_key: int
    relative_target_port: int
    transport_id: bytes
    unregister: bool = False
    aptpl: bool = False

    @classmethod
    def decode(cls, data: bytes) -> "MoveParameters":
        """Raises CheckCondition for a length that cannot be (SPC-4 6.16.4)."""
        _check_list_length(len(data), BASIC_LENGTH)
        fields = MOVE_PARAMETER_LIST.parse(data)
        _check_list_length(len(data), BASIC_LENGTH + fields.transport_id_length)
        transport_id = data[BASIC_LENGTH : BASIC_LENGTH + fields.transport_id_length]
        return cls(
            fields.key,
            fields.action_key,
            fields.relative_target_port,
            transport_id,
            fields.flags.unregister,
            fields.flags.aptpl,
        )

    def encode(self) -> bytes:
        fields = {
            "key": self.key,
            "action_key": self.action_key,
            "reserved": b"\0",
            "flags": {"unregister": self.unregister, "aptpl": self.aptpl},
            "relative_target_port": self.relative_target_port,
            "transport_id_length": len(self.transport_id),
        }
        return bytes(MOVE_PARAMETER_LIST.build(fields)) + self.transport_id


def decode_move_destination(data: bytes) -> TransportId:
    """The TransportID of REGISTER AND MOVE: one, of at least 24 bytes (SPC-4 6.16.4). Raises CheckCondition."""
    if len(data) < TRANSPORT_ID_MINIMUM_LENGTH or len(data) % 4:
        raise _refused(20)
    found = decode_transport_ids(data, BASIC_LENGTH)
    if len(found) != 1:
        raise _refused(20)
    return found[0]


@dataclass(frozen=True, slots=True)
class FullStatus:
    """One full status descriptor (SPC-4 table 211); ``type_code`` 0 unless it is one of a holder."""

    key: int
    transport_id: TransportId
    relative_target_port: int
    holder: bool = False
    type_code: int = 0
    all_target_ports: bool = False

    def encode(self) -> bytes:
        return bytes(
            _FULL_STATUS.build(
                {
                    "key": self.key,
                    "flags": {"all_tg_pt": self.all_target_ports, "holder": self.holder},
                    "scope_and_type": self.type_code,
                    "relative_target_port": self.relative_target_port,
                    "transport_id": self.transport_id.encode(),
                }
            )
        )


def encode_keys(generation: int, keys: Iterable[int]) -> bytes:
    """READ KEYS: one for each registered nexus, equal ones too (SPC-4 table 202)."""
    return _report(generation, b"".join(key.to_bytes(8, "big") for key in keys))


def encode_reservation(generation: int, held: tuple[int, int] | None) -> bytes:
    """READ RESERVATION of the key and the type, or of none (SPC-4 tables 203, 204)."""
    if held is None:
        return _report(generation, b"")
    key, type_code = held
    return _report(generation, bytes(_RESERVATION.build({"key": key, "scope_and_type": type_code})))


def encode_full_status(generation: int, descriptors: Sequence[FullStatus]) -> bytes:
    return _report(generation, b"".join(descriptor.encode() for descriptor in descriptors))


def decode_full_status(data: bytes) -> list[FullStatus]:
    """The descriptors of a READ FULL STATUS that was not cut off."""
    found = []
    for fields in c.GreedyRange(_FULL_STATUS).parse(_REPORT.parse(data).descriptors):
        (transport_id,) = decode_transport_ids(fields.transport_id, 0)
        found.append(
            FullStatus(
                fields.key,
                transport_id,
                fields.relative_target_port,
                fields.flags.holder,
                fields.scope_and_type,
                fields.flags.all_tg_pt,
            )
        )
    return found


def _report(generation: int, descriptors: bytes) -> bytes:
    return bytes(_REPORT.build({"generation": generation, "descriptors": descriptors}))


def encode_capabilities(*, power_loss: bool, activated: bool, type_mask: int = ALL_TYPES) -> bytes:
    """REPORT CAPABILITIES (SPC-4 table 207). ``power_loss``: APTPL is possible; ``activated``: it is on.

    CRH is 1, as with the Linux target: RESERVE and RELEASE by whom the reservation takes in have no effect and no
    conflict (SPC-4 5.13.3).
    """
    return bytes(
        _CAPABILITIES.build(
            {
                "capable": {
                    "replace_lost_reservation": False,
                    "compatible_reservation_handling": True,
                    "specify_initiator_ports": True,
                    "all_target_ports": True,
                    "persist_through_power_loss": power_loss,
                },
                "more": {"type_mask_valid": True, "allow_commands": ALLOW_COMMANDS, "activated": activated},
                "type_mask": type_mask,
            }
        )
    )
