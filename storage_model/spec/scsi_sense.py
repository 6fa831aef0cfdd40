"""Sense keys, additional sense codes and the two sense data formats (SPC-4 4.5).

Both ends use this: the target encodes, the initiator decodes. ASC and ASCQ travel together as one 16-bit number,
ASC in the high byte, because neither means anything alone.
"""

from dataclasses import dataclass
from enum import IntEnum
from struct import Struct

from storage_model.errors import CheckCondition


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
    OPERATION_IN_PROGRESS = 0x0016
    LOGICAL_UNIT_NOT_READY_CAUSE_NOT_REPORTABLE = 0x0400
    LOGICAL_UNIT_NOT_READY_INITIALIZING_COMMAND_REQUIRED = 0x0402
    LOGICAL_UNIT_NOT_ACCESSIBLE_TARGET_PORT_IN_STANDBY_STATE = 0x040B
    LOGICAL_UNIT_NOT_ACCESSIBLE_TARGET_PORT_IN_UNAVAILABLE_STATE = 0x040C
    LOGICAL_UNIT_NOT_READY_FORMAT_IN_PROGRESS = 0x0404
    LOGICAL_UNIT_NOT_READY_SANITIZE_IN_PROGRESS = 0x041B
    UNREACHABLE_COPY_TARGET = 0x0804
    WRITE_ERROR = 0x0C00
    THIRD_PARTY_DEVICE_FAILURE = 0x0D01
    COPY_TARGET_DEVICE_NOT_REACHABLE = 0x0D02
    INCORRECT_COPY_TARGET_DEVICE_TYPE = 0x0D03
    UNRECOVERED_READ_ERROR = 0x1100
    PARAMETER_LIST_LENGTH_ERROR = 0x1A00
    MISCOMPARE_DURING_VERIFY_OPERATION = 0x1D00
    INVALID_COMMAND_OPERATION_CODE = 0x2000
    ACCESS_DENIED_NO_ACCESS_RIGHTS = 0x2002
    LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE = 0x2100
    INVALID_FIELD_IN_CDB = 0x2400
    LOGICAL_UNIT_NOT_SUPPORTED = 0x2500
    INVALID_FIELD_IN_PARAMETER_LIST = 0x2600
    INVALID_RELEASE_OF_PERSISTENT_RESERVATION = 0x2604
    TOO_MANY_TARGET_DESCRIPTORS = 0x2606
    UNSUPPORTED_TARGET_DESCRIPTOR_TYPE_CODE = 0x2607
    TOO_MANY_SEGMENT_DESCRIPTORS = 0x2608
    UNSUPPORTED_SEGMENT_DESCRIPTOR_TYPE_CODE = 0x2609
    UNEXPECTED_INEXACT_SEGMENT = 0x260A
    INLINE_DATA_LENGTH_EXCEEDED = 0x260B
    WRITE_PROTECTED = 0x2700
    LOGICAL_UNIT_SOFTWARE_WRITE_PROTECTED = 0x2702
    SPACE_ALLOCATION_FAILED_WRITE_PROTECT = 0x2707
    NOT_READY_TO_READY_CHANGE_MEDIUM_MAY_HAVE_CHANGED = 0x2800
    POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED = 0x2900
    POWER_ON_OCCURRED = 0x2901
    SCSI_BUS_RESET_OCCURRED = 0x2902
    BUS_DEVICE_RESET_FUNCTION_OCCURRED = 0x2903
    DEVICE_INTERNAL_RESET = 0x2904
    I_T_NEXUS_LOSS_OCCURRED = 0x2907
    MODE_PARAMETERS_CHANGED = 0x2A01
    RESERVATIONS_PREEMPTED = 0x2A03
    RESERVATIONS_RELEASED = 0x2A04
    REGISTRATIONS_PREEMPTED = 0x2A05
    LOG_PARAMETERS_CHANGED = 0x2A02
    ASYMMETRIC_ACCESS_STATE_CHANGED = 0x2A06
    CAPACITY_DATA_HAS_CHANGED = 0x2A09
    COMMAND_SEQUENCE_ERROR = 0x2C00
    COMMANDS_CLEARED_BY_ANOTHER_INITIATOR = 0x2F00
    MEDIUM_FORMAT_CORRUPTED = 0x3100
    FORMAT_COMMAND_FAILED = 0x3101
    SANITIZE_COMMAND_FAILED = 0x3103
    SAVING_PARAMETERS_NOT_SUPPORTED = 0x3900
    MEDIUM_NOT_PRESENT = 0x3A00
    MEDIUM_NOT_PRESENT_LOADABLE = 0x3A02
    REPORTED_LUNS_DATA_HAS_CHANGED = 0x3F0E
    ECHO_BUFFER_OVERWRITTEN = 0x3F0F
    INTERNAL_TARGET_FAILURE = 0x4400
    INVALID_MESSAGE_ERROR = 0x4900
    OVERLAPPED_COMMANDS_ATTEMPTED = 0x4E00
    MEDIUM_REMOVAL_PREVENTED = 0x5302
    INSUFFICIENT_REGISTRATION_RESOURCES = 0x5504


FIXED_CURRENT = 0x70
DESCRIPTOR_CURRENT = 0x72
FIXED_LENGTH = 18

_INFORMATION_DESCRIPTOR = 0x00
_COMMAND_SPECIFIC_DESCRIPTOR = 0x01
_SENSE_KEY_SPECIFIC_DESCRIPTOR = 0x02
_FORWARDED_SENSE_DESCRIPTOR = 0x0C
_SENSE_DATA_SOURCE = (1, 2)
"""SPC-4 table 42: the source, the destination of a copy."""
_BPV = 0x08
"""Bit pointer valid: the low three bits name the leftmost bit of the field in error."""

# SPC-4 table 53: code, key, INFORMATION, length, COMMAND-SPECIFIC INFORMATION, ASC/ASCQ, sense key specific
_FIXED = Struct(">BxBIBIHxBH")
_DESCRIPTOR_HEADER = Struct(">BBH3xB")  # SPC-4 table 27
_DESCRIPTOR_INFORMATION = Struct(">BBBxQ")  # SPC-4 table 31
_DESCRIPTOR_COMMAND_SPECIFIC = Struct(">BB2xQ")  # SPC-4 table 33
_DESCRIPTOR_FORWARDED = Struct(">BBBB")  # SPC-4 table 41, before the sense data
_DESCRIPTOR_SENSE_KEY_SPECIFIC = Struct(">BB2xBHx")  # SPC-4 table 35


@dataclass(frozen=True, slots=True)
class SegmentError:
    """What sense data with COPY ABORTED adds (SPC-4 6.4.3.3): the segment, counted from 0, and who refused.

    ``status`` and ``sense`` are those of the source's or the destination's answer, where it gave one.
    """

    number: int
    at_destination: bool = False
    status: int | None = None
    sense: bytes = b""


class CopyAborted(CheckCondition):
    """EXTENDED COPY ends inside a segment.

    ``information``: the destination's blocks of it that were not written; ``field_pointer``: a byte of its descriptor.
    """

    def __init__(
        self,
        asc_ascq: int,
        segment: SegmentError,
        *,
        information: int | None = None,
        field_pointer: int | None = None,
    ) -> None:
        super().__init__(SenseKey.COPY_ABORTED, asc_ascq, information=information, field_pointer=field_pointer)
        self.segment = segment


@dataclass(frozen=True, slots=True)
class SenseData:
    """What sense data says, whichever format carried it; the arguments of ``CheckCondition`` on the wire."""

    sense_key: int
    asc_ascq: int
    information: int | None = None
    field_pointer: int | None = None
    in_parameter_list: bool = False
    bit_pointer: int | None = None
    progress: int | None = None
    segment: SegmentError | None = None

    @property
    def asc(self) -> int:
        return self.asc_ascq >> 8

    @property
    def ascq(self) -> int:
        return self.asc_ascq & 0xFF

    def __str__(self) -> str:
        return f"{self.sense_key:X}h {self.asc:02X}h/{self.ascq:02X}h"


def sense_of(error: CheckCondition) -> SenseData:
    """The sense data that tells what a handler raised."""
    return SenseData(
        error.sense_key,
        error.asc_ascq,
        error.information,
        error.field_pointer,
        error.in_parameter_list,
        error.bit_pointer,
        error.progress,
        error.segment if isinstance(error, CopyAborted) else None,
    )


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
    """SKSV, C/D, BPV and BIT POINTER with the field pointer (SPC-4 4.5.2.4.2); zeros when there is none."""
    if sense.progress is not None:
        return 0x80, sense.progress
    if sense.field_pointer is None:
        return 0, 0
    bit = 0 if sense.bit_pointer is None else _BPV | sense.bit_pointer
    if sense.sense_key == SenseKey.COPY_ABORTED:  # SD: the pointer counts from the segment descriptor
        return bit | (0x80 if sense.in_parameter_list else 0xA0), sense.field_pointer
    return bit | (0x80 if sense.in_parameter_list else 0xC0), sense.field_pointer


def _bit_pointer(specific: int, sense_key: int) -> int | None:
    if specific & (0x80 | _BPV) != 0x80 | _BPV or sense_key != SenseKey.ILLEGAL_REQUEST:
        return None
    return specific & 0x07


def _encode_fixed(sense: SenseData) -> bytes:
    # An INFORMATION value that four bytes cannot hold is left out, VALID cleared (SPC-4 4.5.3).
    information = sense.information
    valid = information is not None and information <= 0xFFFFFFFF
    specific, pointer = _field_pointer_bytes(sense)
    forwarded = _forwarded(sense)
    return (
        _FIXED.pack(
            FIXED_CURRENT | (0x80 if valid else 0),
            sense.sense_key,
            information if valid and information is not None else 0,
            FIXED_LENGTH - 8 + len(forwarded),
            _command_specific(sense),
            sense.asc_ascq,
            specific,
            pointer,
        )
        + forwarded
    )


def _forwarded(sense: SenseData) -> bytes:
    """The status and the sense data of a copy's source or destination, as the copy manager got them."""
    if sense.segment is None or sense.segment.status is None:
        return b""
    return bytes((sense.segment.status,)) + sense.segment.sense


def _command_specific(sense: SenseData) -> int:
    """SPC-4 6.4.3.3: where the source's status is in these sense data, where the destination's, and the segment."""
    if sense.segment is None:
        return 0
    offset = 0 if sense.segment.status is None else FIXED_LENGTH
    return offset << (16 if sense.segment.at_destination else 24) | sense.segment.number


def _decode_fixed(data: bytes) -> SenseData:
    fields = _FIXED.unpack(bytes(data[:FIXED_LENGTH]).ljust(FIXED_LENGTH, b"\0"))
    code, key, information, length, command_specific, asc_ascq, specific, pointer = fields
    segment = None
    if key & 0x0F == SenseKey.COPY_ABORTED:
        source, destination = command_specific >> 24, command_specific >> 16 & 0xFF
        area = bytes(data[: 8 + length])[source or destination or len(data) :]
        segment = SegmentError(command_specific & 0xFFFF, bool(destination), area[0] if area else None, area[1:])
    return SenseData(
        key & 0x0F,
        asc_ascq,
        information if code & 0x80 else None,
        pointer if specific & 0x80 and key & 0x0F == SenseKey.ILLEGAL_REQUEST else None,
        specific & 0xC0 == 0x80 and key & 0x0F == SenseKey.ILLEGAL_REQUEST,
        _bit_pointer(specific, key & 0x0F),
        _progress(specific, pointer, key & 0x0F),
        segment,
    )


def _progress(specific: int, value: int, sense_key: int) -> int | None:
    return value if specific & 0x80 and sense_key in (SenseKey.NO_SENSE, SenseKey.NOT_READY) else None


def _encode_descriptor(sense: SenseData) -> bytes:
    descriptors = b""
    if sense.information is not None:
        descriptors += _DESCRIPTOR_INFORMATION.pack(_INFORMATION_DESCRIPTOR, 0x0A, 0x80, sense.information)
    if sense.segment is not None:
        descriptors += _DESCRIPTOR_COMMAND_SPECIFIC.pack(_COMMAND_SPECIFIC_DESCRIPTOR, 0x0A, sense.segment.number)
    if sense.field_pointer is not None or sense.progress is not None:
        specific, pointer = _field_pointer_bytes(sense)
        descriptors += _DESCRIPTOR_SENSE_KEY_SPECIFIC.pack(_SENSE_KEY_SPECIFIC_DESCRIPTOR, 0x06, specific, pointer)
    if sense.segment is not None and sense.segment.status is not None:
        answer = sense.segment.sense.ljust(-(-len(sense.segment.sense) // 4) * 4, b"\0")
        by = _SENSE_DATA_SOURCE[sense.segment.at_destination]
        status = sense.segment.status
        descriptors += _DESCRIPTOR_FORWARDED.pack(_FORWARDED_SENSE_DESCRIPTOR, 2 + len(answer), by, status) + answer
    header = _DESCRIPTOR_HEADER.pack(DESCRIPTOR_CURRENT, sense.sense_key, sense.asc_ascq, len(descriptors))
    return header + descriptors


def _decode_descriptor(data: bytes) -> SenseData:
    _, key, asc_ascq, additional_length = _DESCRIPTOR_HEADER.unpack(bytes(data[:8]))
    information: int | None = None
    pointer: int | None = None
    in_parameter_list = False
    bit_pointer: int | None = None
    progress: int | None = None
    segment: SegmentError | None = None
    rest = bytes(data[8 : 8 + additional_length])
    while len(rest) >= 2:
        descriptor, rest = rest[: 2 + rest[1]], rest[2 + rest[1] :]
        if descriptor[0] == _INFORMATION_DESCRIPTOR and len(descriptor) == _DESCRIPTOR_INFORMATION.size:
            _, _, valid, value = _DESCRIPTOR_INFORMATION.unpack(descriptor)
            information = value if valid & 0x80 else None
        elif descriptor[0] == _SENSE_KEY_SPECIFIC_DESCRIPTOR and len(descriptor) == _DESCRIPTOR_SENSE_KEY_SPECIFIC.size:
            _, _, specific, value = _DESCRIPTOR_SENSE_KEY_SPECIFIC.unpack(descriptor)
            pointer = value if specific & 0x80 and key & 0x0F == SenseKey.ILLEGAL_REQUEST else None
            in_parameter_list = specific & 0xC0 == 0x80 and key & 0x0F == SenseKey.ILLEGAL_REQUEST
            bit_pointer = _bit_pointer(specific, key & 0x0F)
            progress = _progress(specific, value, key & 0x0F)
        elif descriptor[0] == _COMMAND_SPECIFIC_DESCRIPTOR and key & 0x0F == SenseKey.COPY_ABORTED:
            segment = SegmentError(int.from_bytes(descriptor[-2:], "big"))
        elif descriptor[0] == _FORWARDED_SENSE_DESCRIPTOR and segment is not None and len(descriptor) >= 4:
            segment = SegmentError(segment.number, descriptor[2] & 0x0F == 2, descriptor[3], descriptor[4:])
    return SenseData(key & 0x0F, asc_ascq, information, pointer, in_parameter_list, bit_pointer, progress, segment)
