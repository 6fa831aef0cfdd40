"""Third-party copy: EXTENDED COPY(LID1) and RECEIVE COPY RESULTS (SPC-4 6.4, 6.4.5, 6.4.6, 7.8.17).

Both ends use the layouts: the target parses a parameter list, an initiator builds one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import construct as c

from storage_model.errors import CheckCondition
from storage_model.spec.scsi_pages import PERIPHERAL_DISK, Designator
from storage_model.spec.scsi_sense import AscAscq, SenseKey


class ExtendedCopy(IntEnum):
    """THIRD-PARTY COPY OUT, byte 1 bits 4:0 (SPC-4 6.3)."""

    EXTENDED_COPY_LID1 = 0x00


class ReceiveCopyResults(IntEnum):
    """THIRD-PARTY COPY IN, byte 1 bits 4:0 (SPC-4 6.3); RECEIVE COPY RESULTS in SPC-3."""

    COPY_STATUS = 0x00
    RECEIVE_DATA = 0x01
    OPERATING_PARAMETERS = 0x03
    FAILED_SEGMENT_DETAILS = 0x04


MAXIMUM_CSCD_DESCRIPTORS = 64
MAXIMUM_SEGMENT_DESCRIPTORS = 64
_CSCD_DESCRIPTOR_LENGTH = 32
_SEGMENT_DESCRIPTOR_LENGTH = 28
MAXIMUM_DESCRIPTOR_LIST_LENGTH = (
    MAXIMUM_CSCD_DESCRIPTORS * _CSCD_DESCRIPTOR_LENGTH + MAXIMUM_SEGMENT_DESCRIPTORS * _SEGMENT_DESCRIPTOR_LENGTH
)
MAXIMUM_SEGMENT_BYTES = 256 << 20
"""More than the 65,535 blocks that one segment descriptor can name have."""
MAXIMUM_CONCURRENT_COPIES = 16
"""Of one logical unit's copy manager."""
HEADER_LENGTH = 16

IDENTIFICATION_CSCD = 0xE4
BLOCK_TO_BLOCK_SEGMENT = 0x02
OWN_UNIT = 0xFFFF
"""The CSCD descriptor ID of the logical unit that the command is sent to (SPC-4 table 150)."""


class ListIdUsage(IntEnum):
    """SPC-4 6.4.3.2. The high bit is what SPC-3 calls NRCR, no receive copy results."""

    HOLD = 0b00
    DISCARD = 0b10
    NO_LIST_ID = 0b11


_HEADER = c.Struct(
    "list_identifier" / c.Int8ub,
    "flags" / c.Int8ub,  # STR, LIST ID USAGE, PRIORITY
    "cscd_list_length" / c.Int16ub,
    c.Padding(4),
    "segment_list_length" / c.Int32ub,
    "inline_data_length" / c.Int32ub,
)
_CSCD = c.Struct(
    "type_code" / c.Int8ub,
    "device" / c.Int8ub,  # LU ID TYPE, NUL, PERIPHERAL DEVICE TYPE
    "relative_initiator_port" / c.Int16ub,
    "code_set" / c.Int8ub,
    "designator_type" / c.Int8ub,  # ASSOCIATION, DESIGNATOR TYPE
    c.Padding(1),
    "designator_length" / c.Int8ub,
    "designator" / c.Bytes(20),
    "pad" / c.Int8ub,
    "block_length" / c.Int24ub,
)
_SEGMENT = c.Struct(
    "type_code" / c.Int8ub,
    "flags" / c.Int8ub,  # DC, CAT
    "descriptor_length" / c.Int16ub,
    "source_cscd" / c.Int16ub,
    "destination_cscd" / c.Int16ub,
    c.Padding(2),
    "blocks" / c.Int16ub,
    "source_lba" / c.Int64ub,
    "destination_lba" / c.Int64ub,
)
_DC = 0x02
_NUL = 0x20


@dataclass(frozen=True, slots=True)
class Cscd:
    """A copy source or copy destination, named by a designator of its VPD page 83h (SPC-4 6.4.5.4).

    ``block_length`` in bytes; 0: the initiator does not say. ``null`` is SPC-3's NUL bit: a unit that is none.
    """

    designator: Designator
    block_length: int = 0
    null: bool = False
    peripheral_type: int = PERIPHERAL_DISK


@dataclass(frozen=True, slots=True)
class Segment:
    """Copy ``blocks`` blocks of one CSCD to another (SPC-4 6.4.6.5); both are indexes of ``CopyRequest.cscds``.

    ``counts_destination`` is the DC bit: ``blocks`` are the destination's, else the source's.
    """

    source: int
    destination: int
    blocks: int
    source_lba: int
    destination_lba: int
    counts_destination: bool = False


@dataclass(frozen=True, slots=True)
class CopyRequest:
    """The parameter list of EXTENDED COPY(LID1)."""

    cscds: Sequence[Cscd]
    segments: Sequence[Segment]
    list_identifier: int = 0
    list_id_usage: ListIdUsage = field(default=ListIdUsage.HOLD)


def encode_copy_request(request: CopyRequest) -> bytes:
    """What an initiator sends."""
    cscds, segments = b"".join(map(_encode_cscd, request.cscds)), b"".join(map(_encode_segment, request.segments))
    header = _HEADER.build(
        {
            "list_identifier": request.list_identifier,
            "flags": request.list_id_usage << 3,
            "cscd_list_length": len(cscds),
            "segment_list_length": len(segments),
            "inline_data_length": 0,
        }
    )
    return bytes(header) + cscds + segments


def _encode_cscd(cscd: Cscd) -> bytes:
    designator = cscd.designator
    encoded = designator.encode()  # code set, type, reserved, length: the same four bytes here
    fields = {
        "type_code": IDENTIFICATION_CSCD,
        "device": (_NUL if cscd.null else 0) | cscd.peripheral_type,
        "relative_initiator_port": 0,
        "code_set": encoded[0] & 0x0F,
        "designator_type": designator.association << 4 | designator.designator_type,
        "designator_length": len(designator.value),
        "designator": designator.value.ljust(20, b"\0"),
        "pad": 0,
        "block_length": cscd.block_length,
    }
    return bytes(_CSCD.build(fields))


def _encode_segment(segment: Segment) -> bytes:
    fields = {
        "type_code": BLOCK_TO_BLOCK_SEGMENT,
        "flags": _DC if segment.counts_destination else 0,
        "descriptor_length": _SEGMENT_DESCRIPTOR_LENGTH - 4,
        "source_cscd": segment.source,
        "destination_cscd": segment.destination,
        "blocks": segment.blocks,
        "source_lba": segment.source_lba,
        "destination_lba": segment.destination_lba,
    }
    return bytes(_SEGMENT.build(fields))


def _illegal(asc_ascq: int, byte: int | None = None) -> CheckCondition:
    return CheckCondition(SenseKey.ILLEGAL_REQUEST, asc_ascq, field_pointer=byte, in_parameter_list=byte is not None)


def parse_copy_request(data: bytes) -> CopyRequest:
    """Read a parameter list; raises ``CheckCondition`` for what is wrong before any segment is looked at closer.

    The caller refuses one that is longer than ``MAXIMUM_DESCRIPTOR_LIST_LENGTH`` and the header.
    """
    if len(data) < HEADER_LENGTH:
        raise _illegal(AscAscq.PARAMETER_LIST_LENGTH_ERROR)
    header = _HEADER.parse(data)
    lists = header.cscd_list_length + header.segment_list_length
    if HEADER_LENGTH + lists + header.inline_data_length > len(data):
        raise _illegal(AscAscq.PARAMETER_LIST_LENGTH_ERROR)
    if header.inline_data_length:
        raise _illegal(AscAscq.INLINE_DATA_LENGTH_EXCEEDED)
    usage = header.flags >> 3 & 0x03
    if usage not in list(ListIdUsage):
        raise _illegal(AscAscq.INVALID_FIELD_IN_PARAMETER_LIST, 1)
    if usage == ListIdUsage.NO_LIST_ID and header.list_identifier:
        raise _illegal(AscAscq.INVALID_FIELD_IN_PARAMETER_LIST, 0)
    segments_at = HEADER_LENGTH + header.cscd_list_length
    return CopyRequest(
        _parse_cscds(data[:segments_at]),
        _parse_segments(data[: HEADER_LENGTH + lists], segments_at),
        header.list_identifier,
        ListIdUsage(usage),
    )


def _parse_cscds(data: bytes) -> tuple[Cscd, ...]:
    cscds: list[Cscd] = []
    for offset in range(HEADER_LENGTH, len(data), _CSCD_DESCRIPTOR_LENGTH):
        if len(cscds) == MAXIMUM_CSCD_DESCRIPTORS:
            raise _illegal(AscAscq.TOO_MANY_TARGET_DESCRIPTORS)
        if data[offset] != IDENTIFICATION_CSCD:
            raise _illegal(AscAscq.UNSUPPORTED_TARGET_DESCRIPTOR_TYPE_CODE, offset)
        if offset + _CSCD_DESCRIPTOR_LENGTH > len(data):  # CSCD DESCRIPTOR LIST LENGTH cuts it off
            raise _illegal(AscAscq.INVALID_FIELD_IN_PARAMETER_LIST, 2)
        fields = _CSCD.parse(data[offset:])  # whose LU ID TYPE is to be ignored in this descriptor
        association = fields.designator_type >> 4 & 0x03
        if association:  # not a logical unit's
            raise _illegal(AscAscq.INVALID_FIELD_IN_PARAMETER_LIST, offset + 5)
        if fields.designator_length > len(fields.designator):
            raise _illegal(AscAscq.INVALID_FIELD_IN_PARAMETER_LIST, offset + 7)
        value = bytes(fields.designator[: fields.designator_length])
        designator = Designator(fields.designator_type & 0x0F, value, association)
        cscds.append(Cscd(designator, fields.block_length, bool(fields.device & _NUL), fields.device & 0x1F))
    return tuple(cscds)


def _parse_segments(data: bytes, offset: int) -> tuple[Segment, ...]:
    segments: list[Segment] = []
    for at in range(offset, len(data), _SEGMENT_DESCRIPTOR_LENGTH):
        if len(segments) == MAXIMUM_SEGMENT_DESCRIPTORS:
            raise _illegal(AscAscq.TOO_MANY_SEGMENT_DESCRIPTORS)
        if data[at] != BLOCK_TO_BLOCK_SEGMENT:
            raise _illegal(AscAscq.UNSUPPORTED_SEGMENT_DESCRIPTOR_TYPE_CODE, at)
        if at + _SEGMENT_DESCRIPTOR_LENGTH > len(data):  # SEGMENT DESCRIPTOR LIST LENGTH cuts it off
            raise _illegal(AscAscq.INVALID_FIELD_IN_PARAMETER_LIST, 8)
        fields = _SEGMENT.parse(data[at:])
        if fields.descriptor_length != _SEGMENT_DESCRIPTOR_LENGTH - 4:
            raise _illegal(AscAscq.INVALID_FIELD_IN_PARAMETER_LIST, at + 2)
        segments.append(
            Segment(
                fields.source_cscd,
                fields.destination_cscd,
                fields.blocks,
                fields.source_lba,
                fields.destination_lba,
                bool(fields.flags & _DC),
            )
        )
    return tuple(segments)


# --- RECEIVE COPY RESULTS ----------------------------------------------------------------------------------------


class CopyCommandStatus(IntEnum):
    """COPY COMMAND STATUS of RECEIVE COPY STATUS(LID1)."""

    IN_PROGRESS = 0x00
    COMPLETED = 0x01
    FAILED = 0x02


_OPERATING_PARAMETERS = c.Struct(
    "available_data" / c.Int32ub,
    "snlid" / c.Int8ub,
    c.Padding(3),
    "maximum_cscd_descriptors" / c.Int16ub,
    "maximum_segment_descriptors" / c.Int16ub,
    "maximum_descriptor_list_length" / c.Int32ub,
    "maximum_segment_length" / c.Int32ub,
    "maximum_inline_data_length" / c.Int32ub,
    "held_data_limit" / c.Int32ub,
    "maximum_stream_device_transfer_size" / c.Int32ub,
    c.Padding(2),
    "total_concurrent_copies" / c.Int16ub,
    "maximum_concurrent_copies" / c.Int8ub,
    "data_segment_granularity" / c.Int8ub,  # powers of two, bytes
    "inline_data_granularity" / c.Int8ub,
    "held_data_granularity" / c.Int8ub,
    c.Padding(3),
    "implemented_descriptors" / c.Prefixed(c.Int8ub, c.GreedyBytes),
)
IMPLEMENTED_DESCRIPTORS = bytes((BLOCK_TO_BLOCK_SEGMENT, IDENTIFICATION_CSCD))


def operating_parameters(block_length: int) -> bytes:
    """RECEIVE COPY OPERATING PARAMETERS; ``block_length``: less is not copied."""
    fields = {
        "available_data": 40 + len(IMPLEMENTED_DESCRIPTORS),
        "snlid": 1,
        "maximum_cscd_descriptors": MAXIMUM_CSCD_DESCRIPTORS,
        "maximum_segment_descriptors": MAXIMUM_SEGMENT_DESCRIPTORS,
        "maximum_descriptor_list_length": MAXIMUM_DESCRIPTOR_LIST_LENGTH,
        "maximum_segment_length": MAXIMUM_SEGMENT_BYTES,
        "maximum_inline_data_length": 0,
        "held_data_limit": 0,
        "maximum_stream_device_transfer_size": 0,
        "total_concurrent_copies": MAXIMUM_CONCURRENT_COPIES,
        "maximum_concurrent_copies": MAXIMUM_CONCURRENT_COPIES,
        "data_segment_granularity": block_length.bit_length() - 1,
        "inline_data_granularity": 0,
        "held_data_granularity": 0,
        "implemented_descriptors": IMPLEMENTED_DESCRIPTORS,
    }
    return bytes(_OPERATING_PARAMETERS.build(fields))


_COPY_STATUS = c.Struct(
    "available_data" / c.Int32ub,
    "status" / c.Int8ub,  # HDD 0: no data is held; COPY COMMAND STATUS
    "segments_processed" / c.Int16ub,
    "transfer_count_units" / c.Int8ub,  # powers of 1,024 bytes
    "transfer_count" / c.Int32ub,
)


def copy_status(status: CopyCommandStatus, segments_processed: int, transferred_bytes: int) -> bytes:
    """RECEIVE COPY STATUS(LID1): the count in the smallest unit in which it fits."""
    units = 0
    while transferred_bytes >> 10 * units > 0xFFFFFFFF:
        units += 1
    fields = {
        "available_data": 8,
        "status": status,
        "segments_processed": segments_processed,
        "transfer_count_units": units,
        "transfer_count": transferred_bytes >> 10 * units,
    }
    return bytes(_COPY_STATUS.build(fields))


def failed_segment_details(sense: bytes) -> bytes:
    """RECEIVE COPY FAILURE DETAILS(LID1) of a copy that ended with ``sense``; empty: none failed."""
    if not sense:
        return bytes(60)
    return (
        (56 + len(sense)).to_bytes(4, "big")
        + bytes(52)
        + bytes((CopyCommandStatus.FAILED, 0))
        + len(sense).to_bytes(2, "big")
        + sense
    )


# --- VPD page 8Fh ------------------------------------------------------------------------------------------------


def _descriptor(kind: int, parameters: bytes) -> bytes:
    """A third-party copy descriptor: type, length, parameters, in whole four bytes (SPC-4 7.8.17.2)."""
    padded = parameters.ljust(-(-len(parameters) // 4) * 4, b"\0")
    return kind.to_bytes(2, "big") + len(padded).to_bytes(2, "big") + padded


def _supported_commands(commands: Sequence[tuple[int, Sequence[int]]]) -> bytes:
    listed = b"".join(bytes((code, len(actions), *actions)) for code, actions in commands)
    return bytes((len(listed),)) + listed


def third_party_copy_page(commands: Sequence[tuple[int, Sequence[int]]], block_length: int) -> bytes:
    """The body of the third-party copy VPD page; ``commands``: operation codes with their service actions."""
    granularity = block_length.bit_length() - 1
    parameter_data = (
        bytes(4)
        + MAXIMUM_CSCD_DESCRIPTORS.to_bytes(2, "big")
        + MAXIMUM_SEGMENT_DESCRIPTORS.to_bytes(2, "big")
        + MAXIMUM_DESCRIPTOR_LIST_LENGTH.to_bytes(4, "big")
        + bytes(4 + 12)  # no inline data
    )
    general = (
        MAXIMUM_CONCURRENT_COPIES.to_bytes(4, "big") * 2
        + MAXIMUM_SEGMENT_BYTES.to_bytes(4, "big")
        + bytes((granularity, 0))
        + bytes(18)
    )
    return b"".join(
        (
            _descriptor(0x0001, _supported_commands(commands)),
            _descriptor(0x0004, parameter_data),
            _descriptor(0x0008, bytes((len(IMPLEMENTED_DESCRIPTORS),)) + IMPLEMENTED_DESCRIPTORS),
            _descriptor(0x000C, (2).to_bytes(2, "big") + OWN_UNIT.to_bytes(2, "big")),
            _descriptor(0x8001, general),
            _descriptor(0xC001, bytes(28)),  # held data: none
        )
    )
