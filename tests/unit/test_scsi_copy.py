"""The parameter list of EXTENDED COPY: what is built can be read; what cannot be read is refused by the standard."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from storage_model.errors import CheckCondition
from storage_model.spec.scsi_copy import (
    CopyRequest,
    Cscd,
    ListIdUsage,
    Segment,
    copy_status,
    encode_copy_request,
    parse_copy_request,
)
from storage_model.spec.scsi_pages import Designator, DesignatorType
from storage_model.spec.scsi_sense import AscAscq, SenseKey

cscds = st.builds(
    Cscd,
    st.builds(Designator, st.sampled_from([*DesignatorType]), st.binary(max_size=20)),
    st.integers(0, (1 << 24) - 1),
    st.booleans(),
    st.integers(0, 0x1F),
)
segments = st.builds(
    Segment,
    *[st.integers(0, 0xFFFF)] * 3,
    *[st.integers(0, (1 << 64) - 1)] * 2,
    st.booleans(),
)
requests = st.builds(
    CopyRequest,
    st.lists(cscds, max_size=4).map(tuple),
    st.lists(segments, max_size=4).map(tuple),
    st.integers(0, 255),
    st.sampled_from([ListIdUsage.HOLD, ListIdUsage.DISCARD]),
)
REFUSALS = {
    AscAscq.PARAMETER_LIST_LENGTH_ERROR,
    AscAscq.INVALID_FIELD_IN_PARAMETER_LIST,
    AscAscq.TOO_MANY_TARGET_DESCRIPTORS,
    AscAscq.TOO_MANY_SEGMENT_DESCRIPTORS,
    AscAscq.UNSUPPORTED_TARGET_DESCRIPTOR_TYPE_CODE,
    AscAscq.UNSUPPORTED_SEGMENT_DESCRIPTOR_TYPE_CODE,
    AscAscq.INLINE_DATA_LENGTH_EXCEEDED,
}


def refused_or_read(data: bytes) -> None:
    try:
        parse_copy_request(data)
    except CheckCondition as refused:
        error = refused
    else:
        return
    assert error.sense_key == SenseKey.ILLEGAL_REQUEST
    assert error.asc_ascq in REFUSALS
    assert error.field_pointer is None or error.field_pointer < len(data)


@given(requests)
def test_what_is_built_can_be_read(request: CopyRequest) -> None:
    assert parse_copy_request(encode_copy_request(request)) == request


@given(requests, st.data())
def test_every_shorter_one_is_refused(request: CopyRequest, data: st.DataObject) -> None:
    whole = encode_copy_request(request)
    with pytest.raises(CheckCondition) as caught:
        parse_copy_request(whole[: data.draw(st.integers(0, len(whole) - 1))])
    assert caught.value.asc_ascq == AscAscq.PARAMETER_LIST_LENGTH_ERROR


@given(st.binary(max_size=4096))
@example(b"")
def test_any_bytes(data: bytes) -> None:
    refused_or_read(data)


@given(requests, st.data())
def test_any_byte_changed(request: CopyRequest, data: st.DataObject) -> None:
    whole = bytearray(encode_copy_request(request))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    refused_or_read(bytes(whole))


@pytest.mark.parametrize(
    ("transferred", "units", "count"),
    [(0, 0, 0), (0xFFFFFFFF, 0, 0xFFFFFFFF), (1 << 32, 1, 1 << 22), (1 << 42, 2, 1 << 22), (1 << 52, 3, 1 << 22)],
)
def test_the_transfer_count_fits(transferred: int, units: int, count: int) -> None:
    data = copy_status(1, 1, transferred)  # type: ignore[arg-type]
    assert (data[7], int.from_bytes(data[8:], "big")) == (units, count)
