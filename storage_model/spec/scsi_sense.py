"""Sense keys, additional sense codes and the two sense data formats (SPC-4 4.5).

Both ends use this: the target encodes, the initiator decodes. ASC and ASCQ travel together as one 16-bit number,
ASC in the high byte, because neither means anything alone.
"""

from dataclasses import dataclass
from enum import IntEnum
from struct import Struct


class SenseKey(IntEnum):
    """SPC-4 table 46."""

    NO_SENSE = 0x0
    RECOVERED_ERROR = 0x1
    NOT_READY = 0x2
    MEDIUM_ERROR = 0x3
    HARDWARE_ERROR = 0x4
    ILLEGAL_REQUEST = 0x5
    UNIT_ATTENTION = 0x6
    DATA_PROTECT = 0x7
    BLANK_CHECK = 0x8
    VENDOR_SPECIFIC = 0x9
    COPY_ABORTED = 0xA
    ABORTED_COMMAND = 0xB
    VOLUME_OVERFLOW = 0xD
    MISCOMPARE = 0xE
    COMPLETED = 0xF


class AscAscq(IntEnum):
    """The additional sense codes that the project uses (SPC-4 annex F.2), ASC << 8 | ASCQ."""

    NO_ADDITIONAL_SENSE = 0x0000
    LOGICAL_UNIT_NOT_READY_CAUSE_NOT_REPORTABLE = 0x0400
    LOGICAL_UNIT_NOT_READY_INITIALIZING_COMMAND_REQUIRED = 0x0402
    WRITE_ERROR = 0x0C00
    UNRECOVERED_READ_ERROR = 0x1100
    PARAMETER_LIST_LENGTH_ERROR = 0x1A00
    MISCOMPARE_DURING_VERIFY_OPERATION = 0x1D00
    INVALID_COMMAND_OPERATION_CODE = 0x2000
    LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE = 0x2100
    INVALID_FIELD_IN_CDB = 0x2400
    LOGICAL_UNIT_NOT_SUPPORTED = 0x2500
    INVALID_FIELD_IN_PARAMETER_LIST = 0x2600
    WRITE_PROTECTED = 0x2700
    LOGICAL_UNIT_SOFTWARE_WRITE_PROTECTED = 0x2702
    SPACE_ALLOCATION_FAILED_WRITE_PROTECT = 0x2707
    POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED = 0x2900
    POWER_ON_OCCURRED = 0x2901
    SCSI_BUS_RESET_OCCURRED = 0x2902
    BUS_DEVICE_RESET_FUNCTION_OCCURRED = 0x2903
    DEVICE_INTERNAL_RESET = 0x2904
    I_T_NEXUS_LOSS_OCCURRED = 0x2907
    MODE_PARAMETERS_CHANGED = 0x2A01
    CAPACITY_DATA_HAS_CHANGED = 0x2A09
    COMMANDS_CLEARED_BY_ANOTHER_INITIATOR = 0x2F00
    SAVING_PARAMETERS_NOT_SUPPORTED = 0x3900
    MEDIUM_NOT_PRESENT = 0x3A00
    MEDIUM_NOT_PRESENT_LOADABLE = 0x3A02
    REPORTED_LUNS_DATA_HAS_CHANGED = 0x3F0E
    INTERNAL_TARGET_FAILURE = 0x4400
    INVALID_MESSAGE_ERROR = 0x4900
    OVERLAPPED_COMMANDS_ATTEMPTED = 0x4E00
    MEDIUM_REMOVAL_PREVENTED = 0x5302


FIXED_CURRENT = 0x70
DESCRIPTOR_CURRENT = 0x72
FIXED_LENGTH = 18

_INFORMATION_DESCRIPTOR = 0x00
_SENSE_KEY_SPECIFIC_DESCRIPTOR = 0x02

_FIXED = Struct(">BxBIB4xHxBH")  # SPC-4 table 53: code, key, INFORMATION, length, ASC/ASCQ, sense key specific
_DESCRIPTOR_HEADER = Struct(">BBH3xB")  # SPC-4 table 27
_DESCRIPTOR_INFORMATION = Struct(">BBBxQ")  # SPC-4 table 31
_DESCRIPTOR_SENSE_KEY_SPECIFIC = Struct(">BB2xBHx")  # SPC-4 table 35


@dataclass(frozen=True, slots=True)
class SenseData:
    """What sense data says, whichever format carried it; the arguments of ``CheckCondition`` on the wire."""

    sense_key: int
    asc_ascq: int
    information: int | None = None
    field_pointer: int | None = None
    in_parameter_list: bool = False

    @property
    def asc(self) -> int:
        return self.asc_ascq >> 8

    @property
    def ascq(self) -> int:
        return self.asc_ascq & 0xFF

    def __str__(self) -> str:
        return f"{self.sense_key:X}h {self.asc:02X}h/{self.ascq:02X}h"


def encode_sense(sense: SenseData, *, descriptor_format: bool = False) -> bytes:
    """Sense data in fixed format, or in descriptor format when the control mode page's D_SENSE bit asks for it."""
    return _encode_descriptor(sense) if descriptor_format else _encode_fixed(sense)


def decode_sense(data: bytes) -> SenseData:
    """Read sense data of either format; raises ``ValueError`` when it is neither or too short to hold a sense key."""
    if len(data) >= 8:
        response_code = data[0] & 0x7F
        if response_code in (FIXED_CURRENT, FIXED_CURRENT + 1):
            return _decode_fixed(data)
        if response_code in (DESCRIPTOR_CURRENT, DESCRIPTOR_CURRENT + 1):
            return _decode_descriptor(data)
    raise ValueError(f"not sense data: {bytes(data[:18]).hex()}")


def _field_pointer_bytes(sense: SenseData) -> tuple[int, int]:
    """SKSV and C/D with the pointer (SPC-4 4.5.2.4.2); zeros when there is none."""
    if sense.field_pointer is None:
        return 0, 0
    return 0x80 if sense.in_parameter_list else 0xC0, sense.field_pointer


def _encode_fixed(sense: SenseData) -> bytes:
    # An INFORMATION value that four bytes cannot hold is left out, VALID cleared (SPC-4 4.5.3).
    information = sense.information
    valid = information is not None and information <= 0xFFFFFFFF
    specific, pointer = _field_pointer_bytes(sense)
    return _FIXED.pack(
        FIXED_CURRENT | (0x80 if valid else 0),
        sense.sense_key,
        information if valid and information is not None else 0,
        FIXED_LENGTH - 8,
        sense.asc_ascq,
        specific,
        pointer,
    )


def _decode_fixed(data: bytes) -> SenseData:
    code, key, information, _, asc_ascq, specific, pointer = _FIXED.unpack(bytes(data[:FIXED_LENGTH]).ljust(18, b"\0"))
    return SenseData(
        key & 0x0F,
        asc_ascq,
        information if code & 0x80 else None,
        pointer if specific & 0x80 and key & 0x0F == SenseKey.ILLEGAL_REQUEST else None,
        bool(specific & 0x80) and not specific & 0x40,
    )


def _encode_descriptor(sense: SenseData) -> bytes:
    descriptors = b""
    if sense.information is not None:
        descriptors += _DESCRIPTOR_INFORMATION.pack(_INFORMATION_DESCRIPTOR, 0x0A, 0x80, sense.information)
    if sense.field_pointer is not None:
        specific, pointer = _field_pointer_bytes(sense)
        descriptors += _DESCRIPTOR_SENSE_KEY_SPECIFIC.pack(_SENSE_KEY_SPECIFIC_DESCRIPTOR, 0x06, specific, pointer)
    header = _DESCRIPTOR_HEADER.pack(DESCRIPTOR_CURRENT, sense.sense_key, sense.asc_ascq, len(descriptors))
    return header + descriptors


def _decode_descriptor(data: bytes) -> SenseData:
    _, key, asc_ascq, additional_length = _DESCRIPTOR_HEADER.unpack(bytes(data[:8]))
    information: int | None = None
    pointer: int | None = None
    in_parameter_list = False
    rest = bytes(data[8 : 8 + additional_length])
    while len(rest) >= 2:
        descriptor, rest = rest[: 2 + rest[1]], rest[2 + rest[1] :]
        if descriptor[0] == _INFORMATION_DESCRIPTOR and len(descriptor) == _DESCRIPTOR_INFORMATION.size:
            _, _, valid, value = _DESCRIPTOR_INFORMATION.unpack(descriptor)
            information = value if valid & 0x80 else None
        elif descriptor[0] == _SENSE_KEY_SPECIFIC_DESCRIPTOR and len(descriptor) == _DESCRIPTOR_SENSE_KEY_SPECIFIC.size:
            _, _, specific, value = _DESCRIPTOR_SENSE_KEY_SPECIFIC.unpack(descriptor)
            pointer = value if specific & 0x80 and key & 0x0F == SenseKey.ILLEGAL_REQUEST else None
            in_parameter_list = bool(specific & 0x80) and not specific & 0x40
    return SenseData(key & 0x0F, asc_ascq, information, pointer, in_parameter_list)
