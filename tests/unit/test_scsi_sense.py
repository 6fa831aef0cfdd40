"""Sense data in both formats (SPC-4 4.5)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage_model.spec.scsi_sense import SenseData, SenseKey, decode_sense, encode_sense

ILLEGAL = st.builds(
    SenseData,
    st.just(int(SenseKey.ILLEGAL_REQUEST)),
    st.integers(0, 0xFFFF),
    st.none() | st.integers(0, 0xFFFFFFFF),
    st.integers(0, 0xFFFF),
    st.booleans(),
)
OTHERS = st.builds(
    SenseData,
    # COPY ABORTED always has a segment: see test_scsi_sense_specific.py.
    st.integers(0, 0xF).filter(lambda key: key not in (SenseKey.ILLEGAL_REQUEST, SenseKey.COPY_ABORTED)),
    st.integers(0, 0xFFFF),
    st.none() | st.integers(0, 0xFFFFFFFF),
)


@given(ILLEGAL | OTHERS, st.booleans())
def test_decode_is_the_inverse_of_encode(sense, descriptor_format):
    assert decode_sense(encode_sense(sense, descriptor_format=descriptor_format)) == sense


def test_fixed_format_bytes():
    """SPC-4 table 53."""
    sense = SenseData(0x5, 0x2400, field_pointer=2)
    assert encode_sense(sense).hex() == "700005000000000a00000000240000c00002"
    assert encode_sense(SenseData(0xE, 0x1D00, 0x1234)).hex() == "f0000e000012340a000000001d0000000000"


def test_descriptor_format_bytes():
    """SPC-4 table 27, 31, 35."""
    sense = SenseData(0x5, 0x2600, 7, field_pointer=9, in_parameter_list=True)
    assert encode_sense(sense, descriptor_format=True).hex() == (
        "7205260000000014000a800000000000000000070206000080000900"
    )


def test_information_beyond_four_bytes_needs_descriptor_format():
    sense = SenseData(0x3, 0x1100, 1 << 40)
    assert decode_sense(encode_sense(sense)).information is None
    assert decode_sense(encode_sense(sense, descriptor_format=True)).information == 1 << 40


@given(st.binary(max_size=64))
def test_any_bytes_decode_or_are_refused(data):
    try:
        decode_sense(data)
    except ValueError:
        assert len(data) < 8 or data[0] & 0x7F not in range(0x70, 0x74)


def test_text():
    assert str(SenseData(0x5, 0x2400)) == "5h 24h/00h"
    with pytest.raises(ValueError, match="not sense data"):
        decode_sense(b"")
