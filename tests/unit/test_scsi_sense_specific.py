"""Sense data that say how far something is, and where a copy went wrong: as the standard lays it out, and back."""

import pytest

from storage_model.errors import CheckCondition
from storage_model.spec.scsi_sense import (
    AscAscq,
    CopyAborted,
    SegmentError,
    SenseData,
    SenseKey,
    decode_sense,
    encode_sense,
    sense_of,
)

SANITIZING = AscAscq.LOGICAL_UNIT_NOT_READY_SANITIZE_IN_PROGRESS
FORWARDED = encode_sense(SenseData(SenseKey.DATA_PROTECT, AscAscq.WRITE_PROTECTED))


def test_progress_in_fixed_format() -> None:
    """SPC-4 4.5.2.4.4: SKSV, then the progress indication."""
    data = encode_sense(sense_of(CheckCondition(SenseKey.NOT_READY, SANITIZING, progress=0x1234)))
    assert data[2] == 0x02 and data[12:14] == b"\x04\x1b"
    assert data[15:18] == b"\x80\x12\x34"


def test_progress_in_descriptor_format() -> None:
    data = encode_sense(SenseData(SenseKey.NOT_READY, SANITIZING, progress=0x1234), descriptor_format=True)
    assert data[8:] == b"\x02\x06\x00\x00\x80\x12\x34\x00"


@pytest.mark.parametrize("descriptor_format", [False, True])
@pytest.mark.parametrize(
    "sense",
    [
        SenseData(SenseKey.NOT_READY, SANITIZING, progress=0),
        SenseData(SenseKey.NOT_READY, SANITIZING, progress=0xFFFF),
        SenseData(SenseKey.COPY_ABORTED, AscAscq.UNREACHABLE_COPY_TARGET, segment=SegmentError(3)),
        SenseData(
            SenseKey.COPY_ABORTED,
            AscAscq.THIRD_PARTY_DEVICE_FAILURE,
            information=9,
            segment=SegmentError(0xFFFF, True, 0x18),
        ),
        SenseData(
            SenseKey.COPY_ABORTED,
            AscAscq.THIRD_PARTY_DEVICE_FAILURE,
            segment=SegmentError(1, False, 0x02, FORWARDED + b"\0\0"),
        ),
    ],
)
def test_there_and_back(sense: SenseData, descriptor_format: bool) -> None:
    assert decode_sense(encode_sense(sense, descriptor_format=descriptor_format)) == sense


def test_where_the_forwarded_answer_is_in_fixed_format() -> None:
    """SPC-4 6.4.3.3: byte 8 points to the source's status and sense data, byte 9 to the destination's."""
    at_source = CopyAborted(AscAscq.THIRD_PARTY_DEVICE_FAILURE, SegmentError(2, False, 0x02, FORWARDED))
    data = encode_sense(sense_of(at_source))
    assert data[8:12] == b"\x12\x00\x00\x02" and data[18] == 0x02 and data[19:] == FORWARDED
    assert data[7] == len(data) - 8
    at_destination = CopyAborted(AscAscq.THIRD_PARTY_DEVICE_FAILURE, SegmentError(2, True, 0x18))
    assert encode_sense(sense_of(at_destination))[8:12] == b"\x00\x12\x00\x02"
