"""Data and holes of a file, asked for part by part while holes are made."""

import os
from pathlib import Path

import pytest

from storage_model.volume import Extent
from target.volumes.file_extents import FileExtents
from target.volumes.file_volume import FileVolume

PIECE = 64 << 10
SIZE = 8 * PIECE


@pytest.fixture(name="seeks")
def counted_seeks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How each search of the kernel was asked for."""
    seeks: list[int] = []
    seek = os.lseek

    def counting(descriptor: int, position: int, whence: int) -> int:
        seeks.append(whence)
        return seek(descriptor, position, whence)

    monkeypatch.setattr(os, "lseek", counting)
    return seeks


async def test_a_full_file_is_searched_once(tmp_path: Path, seeks: list[int]) -> None:
    """The kernel would look at all that follows, for each part anew."""
    volume = FileVolume.open(tmp_path / "volume.img", SIZE, create=True)
    for offset in range(0, SIZE, PIECE):
        await volume.write(offset, bytes([1]) * PIECE)
    for offset in range(0, SIZE, PIECE):
        assert await volume.block_status(offset, PIECE) == [Extent(offset, PIECE, mapped=True)]
    assert seeks == [os.SEEK_DATA, os.SEEK_HOLE]
    await volume.close()


async def test_a_hole_that_is_made_is_found_in_what_was_data(tmp_path: Path) -> None:
    volume = FileVolume.open(tmp_path / "volume.img", SIZE, create=True)
    await volume.write(0, bytes([1]) * SIZE)
    await volume.block_status(0, PIECE)
    await volume.unmap(2 * PIECE, PIECE)
    expected = [(0, 2, True), (2, 1, False), (3, 5, True)]
    extents = [Extent(first * PIECE, count * PIECE, mapped) for first, count, mapped in expected]
    assert await volume.block_status(0, SIZE) == extents
    assert await volume.block_status(2 * PIECE, PIECE) == extents[1:2]
    await volume.write(2 * PIECE, bytes([1]) * PIECE)
    assert await volume.block_status(0, SIZE) == [Extent(0, SIZE, mapped=True)]
    await volume.close()


def test_what_is_found_while_a_hole_is_made_is_not_kept(tmp_path: Path, seeks: list[int]) -> None:
    file = tmp_path / "volume.img"
    file.write_bytes(bytes([1]) * SIZE)
    descriptor = os.open(file, os.O_RDONLY)
    extents = FileExtents(descriptor, 512)
    with extents.changing():
        extents.of(0, SIZE)
    extents.of(0, SIZE)
    assert len(seeks) == 4
    os.close(descriptor)


def test_the_end_of_a_file_that_was_cut_short_is_a_hole(tmp_path: Path) -> None:
    file = tmp_path / "volume.img"
    file.write_bytes(bytes([1]) * PIECE)
    descriptor = os.open(file, os.O_RDONLY)
    extents = FileExtents(descriptor, 512).of(2 * PIECE, PIECE)
    assert extents == [Extent(2 * PIECE, PIECE, mapped=False)]
    os.close(descriptor)
