"""SANITIZE and FORMAT UNIT: service actions and parameter lists (SBC-3 5.24, 5.3)."""

from dataclasses import dataclass
from enum import IntEnum

import construct as c

from storage_model.errors import CheckCondition
from storage_model.spec.scsi_sense import AscAscq, SenseKey


class Sanitize(IntEnum):
    """SANITIZE, byte 1 bits 4:0 (SBC-3 5.24.2)."""

    OVERWRITE = 0x01
    BLOCK_ERASE = 0x02
    CRYPTOGRAPHIC_ERASE = 0x03
    EXIT_FAILURE_MODE = 0x1F


SANITIZE_IMMED = 0x80
SANITIZE_AUSE = 0x20
_INVERT = 0x80
_TEST = 0x60
_OVERWRITE_COUNT = 0x1F

_OVERWRITE = c.Struct(
    "flags" / c.Int8ub,  # INVERT, TEST, OVERWRITE COUNT
    c.Padding(1),
    "pattern" / c.Prefixed(c.Int16ub, c.GreedyBytes),
)


def _invalid_parameter(byte: int, bit: int | None = None) -> CheckCondition:
    return CheckCondition(
        SenseKey.ILLEGAL_REQUEST,
        AscAscq.INVALID_FIELD_IN_PARAMETER_LIST,
        field_pointer=byte,
        in_parameter_list=True,
        bit_pointer=bit,
    )


def _length_error() -> CheckCondition:
    return CheckCondition(SenseKey.ILLEGAL_REQUEST, AscAscq.PARAMETER_LIST_LENGTH_ERROR)


@dataclass(frozen=True, slots=True)
class Overwrite:
    """``passes`` is the OVERWRITE COUNT, 1 to 31; ``pattern`` has 1 byte to one block."""

    pattern: bytes
    passes: int = 1
    invert: bool = False

    def encode(self) -> bytes:
        return bytes(
            _OVERWRITE.build({"flags": (_INVERT if self.invert else 0) | self.passes, "pattern": self.pattern})
        )


def parse_overwrite(data: bytes, block_length: int) -> Overwrite:
    """The OVERWRITE parameter list (SBC-3 5.24.2.2), of more than 4 bytes; raises ``CheckCondition``."""
    flags, pattern_length = data[0], data[2] << 8 | data[3]
    if flags & _TEST:
        raise _invalid_parameter(0, 6)
    if not flags & _OVERWRITE_COUNT:
        raise _invalid_parameter(0, 4)
    if not 0 < pattern_length <= block_length:
        raise _invalid_parameter(2)
    if pattern_length > len(data) - 4:
        raise _length_error()
    return Overwrite(data[4 : 4 + pattern_length], flags & _OVERWRITE_COUNT, bool(flags & _INVERT))


# --- FORMAT UNIT -------------------------------------------------------------------------------------------------

FORMAT_LONGLIST = 0x20
FORMAT_FMTDATA = 0x10
FORMAT_CMPLST = 0x08
FORMAT_DEFECT_LIST = 0x07

_FOV = 0x80
_OPTIONS = 0x78  # DPRY, DCRT, STPF, IP
_IP = 0x08
_IMMED = 0x02
_OBSOLETE = 0x05  # DSP, vendor specific

_SHORT_HEADER = c.Struct("protection" / c.Int8ub, "flags" / c.Int8ub, "defect_list_length" / c.Int16ub)
_LONG_HEADER = c.Struct(
    "protection" / c.Int8ub, "flags" / c.Int8ub, c.Padding(1), "interval" / c.Int8ub, "defect_list_length" / c.Int32ub
)
_INITIALIZATION_PATTERN = c.Struct("flags" / c.Int8ub, "type" / c.Int8ub, "length" / c.Int16ub)
_DEFAULT_PATTERN, _REPEATED_PATTERN = 0x00, 0x01


@dataclass(frozen=True, slots=True)
class Format:
    """What a FORMAT UNIT parameter list asks for; ``pattern`` empty: the device's own, which is zeros."""

    immediate: bool = False
    pattern: bytes = b""


def parse_format(data: bytes, block_length: int, *, long_list: bool) -> Format:
    """The FORMAT UNIT parameter list (SBC-3 5.3.2); raises ``CheckCondition``.

    There are no defects to manage: the options about them (DPRY, DCRT, STPF) may be what they like, lists of defects
    are refused. So is protection information.
    """
    layout = _LONG_HEADER if long_list else _SHORT_HEADER
    size = layout.sizeof()
    if len(data) < size:
        raise _length_error()
    header = layout.parse(data)
    if header.protection:
        raise _invalid_parameter(0)
    if header.flags & _OBSOLETE or (header.flags & _OPTIONS and not header.flags & _FOV):
        raise _invalid_parameter(1)
    if long_list and header.interval:
        raise _invalid_parameter(3)
    if header.defect_list_length:
        raise _invalid_parameter(4 if long_list else 2)
    pattern = _parse_pattern(data, size, block_length) if header.flags & _IP else b""
    return Format(bool(header.flags & _IMMED), pattern)


def _parse_pattern(data: bytes, at: int, block_length: int) -> bytes:
    """The initialization pattern descriptor (SBC-3 5.3.2.3)."""
    if len(data) < at + 4:
        raise _length_error()
    descriptor = _INITIALIZATION_PATTERN.parse(data[at:])
    if descriptor.flags:  # IP MODIFIER and SI, both obsolete or not done
        raise _invalid_parameter(at)
    if descriptor.type not in (_DEFAULT_PATTERN, _REPEATED_PATTERN):
        raise _invalid_parameter(at + 1)
    repeated = descriptor.type == _REPEATED_PATTERN
    if repeated != bool(descriptor.length) or descriptor.length > block_length:
        raise _invalid_parameter(at + 2)
    if len(data) < at + 4 + descriptor.length:
        raise _length_error()
    return data[at + 4 : at + 4 + descriptor.length]
