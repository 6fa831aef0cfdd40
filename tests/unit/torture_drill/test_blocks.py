"""What a block may contain, by what its writer was told."""

import pytest

from scripts.torture_drill.blocks import VolumeBlocks, decode, encode
from scripts.torture_drill.volumes import BLOCK

LUN, WRITER, OTHER = 1, 2, 3
LBAS = range(4, 6)


def volume_with(number: int, writer: int = WRITER) -> bytes:
    blocks = [encode(LUN, writer, lba, number) if lba in LBAS and number else bytes(BLOCK) for lba in range(8)]
    return b"".join(blocks)


def possible(blocks: VolumeBlocks, numbers: range = range(6)) -> list[int]:
    return [number for number in numbers if not blocks.check(volume_with(number))]


@pytest.fixture
def blocks() -> VolumeBlocks:
    return VolumeBlocks(LUN)


def write(blocks: VolumeBlocks, number: int, outcome: str) -> None:
    blocks.begin(WRITER, LBAS, number)
    if outcome == "GOOD":
        blocks.acknowledge(LBAS, number)
    elif outcome == "refused":
        blocks.refuse(LBAS, number)


def test_a_block_says_what_it_is() -> None:
    block = encode(LUN, WRITER, 4, 77)
    assert len(block) == BLOCK and decode(block) == (LUN, WRITER, 4, 77)
    assert decode(block[:-1] + b"\0") is None
    assert decode(bytes(BLOCK)) == (0, 0, 0, 0)


def test_the_last_acknowledged_write_or_one_after_it(blocks: VolumeBlocks) -> None:
    write(blocks, 1, "unknown")
    assert possible(blocks) == [0, 1]
    write(blocks, 2, "GOOD")
    assert possible(blocks) == [2]
    write(blocks, 3, "refused")
    write(blocks, 4, "unknown")
    assert possible(blocks) == [2, 4]


def test_what_is_in_the_wrong_place(blocks: VolumeBlocks) -> None:
    write(blocks, 1, "GOOD")
    assert "writer 3" in blocks.wrong(4, encode(LUN, OTHER, 4, 1))
    assert "to block 5" in blocks.wrong(4, encode(LUN, WRITER, 5, 1))
    assert "LUN 7" in blocks.wrong(4, encode(7, WRITER, 4, 1))
    assert "damaged" in blocks.wrong(4, b"\1" * BLOCK)


def test_what_an_operator_gives_up_falls_back_to_the_split(blocks: VolumeBlocks) -> None:
    write(blocks, 1, "GOOD")
    blocks.split_for_writes()
    write(blocks, 2, "GOOD")  # may be before the split or after it
    blocks.is_split()
    write(blocks, 3, "GOOD")
    assert possible(blocks) == [3]
    blocks.discard([OTHER])
    assert possible(blocks) == [3]
    blocks.discard([WRITER])
    assert possible(blocks) == [1, 2, 3]
    blocks.reunited()
    assert not blocks.diverged
