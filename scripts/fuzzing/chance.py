"""Random values as fuzzing wants them: near the edges more often than in the middle."""

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

_MOST_DAMAGE = 8


def number(chance: random.Random, bits: int, *landmarks: int) -> int:
    """An unsigned number of so many bits: small, a power of two or one beside it, a landmark, or anything."""
    largest = (1 << bits) - 1
    kind = chance.randrange(6)
    if kind == 0:
        value = chance.randrange(4)
    elif kind == 1:
        value = (1 << chance.randrange(bits + 1)) + chance.randint(-1, 1)
    elif kind == 2:
        value = largest - chance.randrange(3)
    elif kind < 5 and landmarks:
        value = chance.choice(landmarks) + chance.choice((0, 0, 0, -1, 1))
    else:
        value = chance.getrandbits(bits)
    return min(max(value, 0), largest)


def content(chance: random.Random, length: int) -> bytes:
    """Data whose bytes do not matter much: all alike as often as not, since those are quick to make and to compare."""
    if chance.random() < 0.7:
        return bytes((chance.choice((0, 0, 0xFF, chance.randrange(256))),)) * length
    return chance.randbytes(length)


def damaged(chance: random.Random, data: bytes) -> bytes:
    """The data with a few things wrong: bits, bytes, numbers, pieces lost, doubled or strange."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, _MOST_DAMAGE if chance.random() < 0.2 else 2)):
        position = chance.randrange(len(changed) + 1)
        match chance.randrange(7):
            case 0 if position < len(changed):
                changed[position] ^= 1 << chance.randrange(8)
            case 1 if position < len(changed):
                changed[position] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
            case 2:
                width = chance.choice((2, 3, 4))
                changed[position : position + width] = number(chance, 8 * width, len(data)).to_bytes(width, "big")
            case 3:
                del changed[position : position + chance.randrange(1, 9)]
            case 4:
                del changed[position:]
            case 5:
                changed[position:position] = chance.randbytes(chance.randrange(1, 9))
            case _:
                changed[position:position] = changed[max(0, position - 16) : position]
    return bytes(changed)


def some(chance: random.Random, things: Sequence[T], most: int) -> list[T]:
    """From none to ``most`` of the things, in any order, with repetitions."""
    return [chance.choice(things) for _ in range(chance.randrange(most + 1))]
