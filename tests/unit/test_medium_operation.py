"""What is noted of a SANITIZE or FORMAT UNIT: there and back, and what follows from it."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage_model.medium_operation import MediumOperation, Method

operations = st.builds(
    MediumOperation,
    st.sampled_from(Method),
    st.integers(1, 1 << 60),
    st.binary(max_size=4096),
    st.integers(1, 31),
    st.booleans(),
    st.booleans(),
    st.integers(0, 1 << 60),
    st.booleans(),
)


@given(operations)
def test_there_and_back(operation: MediumOperation) -> None:
    assert MediumOperation.decode(operation.encode()) == operation


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", "{}", "7", json.dumps({"method": "WISH"}), '{"method": "FORMAT", "size_bytes": null}', "{" * 9],
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a medium operation|Expecting|delimiter|is not a valid|'WISH'|column"):
        MediumOperation.decode(text)


@given(operations, st.integers(0, 1 << 66))
def test_progress_has_16_bits(operation: MediumOperation, done: int) -> None:
    assert 0 <= operation.progress(done) <= 0xFFFF


@given(st.binary(min_size=1, max_size=512), st.integers(1, 31))
def test_consecutive_passes_are_inverted_and_the_last_is_not(pattern: bytes, passes: int) -> None:
    operation = MediumOperation(Method.OVERWRITE, 4096, pattern, passes, invert=True)
    blocks = [operation.block(number, 512) for number in range(passes)]
    assert blocks[-1][: len(pattern)] == pattern and len(blocks[-1]) == 512
    for one, next_one in pairwise(blocks):
        assert all(a ^ b == 0xFF for a, b in zip(one, next_one, strict=True))
