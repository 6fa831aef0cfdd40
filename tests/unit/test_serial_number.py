"""Serial number arithmetic, over the wrap."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage_model.spec.serial_number import in_window, serial_add, serial_le, serial_lt

NUMBERS = st.integers(0, 2**32 - 1)


@given(NUMBERS, st.integers(1, 2**31 - 1))
def test_a_later_number_is_greater_wherever_the_circle_starts(start: int, count: int) -> None:
    later = serial_add(start, count)
    assert serial_lt(start, later) and serial_le(start, later)
    assert not serial_lt(later, start) and not serial_le(later, start)
    assert serial_add(later, -count) == start


@given(NUMBERS)
def test_equal_and_opposite_numbers(number: int) -> None:
    assert serial_le(number, number) and not serial_lt(number, number)
    opposite = serial_add(number, 2**31)
    assert not serial_lt(number, opposite) and not serial_lt(opposite, number)


@pytest.mark.parametrize(
    ("number", "first", "last", "inside"),
    [
        (5, 5, 5, True),
        (5, 5, 4, False),  # an empty window
        (4, 5, 9, False),
        (9, 5, 9, True),
        (10, 5, 9, False),
        (0, 0xFFFFFFFE, 2, True),
        (3, 0xFFFFFFFE, 2, False),
        (0xFFFFFFFD, 0xFFFFFFFE, 2, False),
    ],
)
def test_window(number: int, first: int, last: int, inside: bool) -> None:
    assert in_window(number, first, last) is inside
