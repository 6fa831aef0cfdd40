"""32-bit serial number arithmetic (RFC 1982), as CmdSN, StatSN and DataSN need it (RFC 7143 §4.2.2.1).

Numbers wrap at 2**32; ``a`` is before ``b`` when the way up from ``a`` to ``b`` is shorter than half of the circle. Two
numbers exactly half a circle apart are not ordered: both comparisons answer False.
"""

MODULUS = 1 << 32
_HALF = 1 << 31


def serial_add(number: int, count: int) -> int:
    """``number`` moved on by ``count`` (which may be negative)."""
    return (number + count) % MODULUS


def serial_lt(left: int, right: int) -> bool:
    """True when ``left`` comes before ``right``."""
    return 0 < (right - left) % MODULUS < _HALF


def serial_le(left: int, right: int) -> bool:
    """True when ``left`` equals ``right`` or comes before it."""
    return (right - left) % MODULUS < _HALF


def in_window(number: int, first: int, last: int) -> bool:
    """True when ``first <= number <= last``; an empty window is written ``last == first - 1`` (RFC 7143 §4.2.2.1)."""
    return serial_le(first, number) and serial_le(number, last)
