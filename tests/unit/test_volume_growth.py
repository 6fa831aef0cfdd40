"""Volumes that become larger while they are served."""

import errno
import os
from pathlib import Path

import pytest

from storage_model.errors import UserError
from target.volumes.file_volume import FileVolume
from target.volumes.memory_volume import MemoryVolume

MIB = 1 << 20


async def test_a_thin_file_grows_with_a_hole(tmp_path: Path) -> None:
    volume = FileVolume.open(tmp_path / "v", MIB, create=True)
    await volume.write(0, b"x" * 4096)
    await volume.grow(2 * MIB)
    assert volume.size_bytes == volume.file_bytes() == os.path.getsize(tmp_path / "v") == 2 * MIB
    assert bytes(await volume.read(2 * MIB - 512, 512)) == bytes(512)
    assert os.stat(tmp_path / "v").st_blocks * 512 < MIB
    assert bytes(await volume.read(0, 4096)) == b"x" * 4096
    await volume.close()


async def test_a_file_that_somebody_has_made_larger_is_not_touched(tmp_path: Path) -> None:
    volume = FileVolume.open(tmp_path / "v", MIB, create=True)
    os.truncate(tmp_path / "v", 3 * MIB)
    assert (volume.size_bytes, volume.file_bytes()) == (MIB, 3 * MIB)
    await volume.grow(3 * MIB)
    assert volume.size_bytes == volume.file_bytes() == 3 * MIB
    await volume.close()


async def test_a_full_volume_has_the_space_when_it_has_grown(tmp_path: Path) -> None:
    volume = FileVolume.open(tmp_path / "v", MIB, create=True, thin=False)
    await volume.grow(2 * MIB)
    assert os.stat(tmp_path / "v").st_blocks * 512 >= 2 * MIB
    await volume.close()


async def test_a_read_only_file_grows_only_by_itself(tmp_path: Path) -> None:
    (tmp_path / "v").write_bytes(bytes(MIB))
    volume = FileVolume.open(tmp_path / "v", read_only=True)
    with pytest.raises(UserError, match="read-only"):
        await volume.grow(2 * MIB)
    assert volume.size_bytes == MIB
    os.truncate(tmp_path / "v", 2 * MIB)
    await volume.grow(2 * MIB)
    assert volume.size_bytes == 2 * MIB
    await volume.close()


@pytest.mark.parametrize("thin", [True, False])
async def test_a_growth_that_fails_changes_nothing(tmp_path: Path, thin: bool) -> None:
    """No file system has files of 2**63 bytes less one block."""
    volume = FileVolume.open(tmp_path / "v", MIB, create=True, thin=thin)
    with pytest.raises(UserError, match=f"{tmp_path / 'v'}: cannot"):
        await volume.grow((1 << 63) - 512)
    assert volume.size_bytes == volume.file_bytes() == MIB
    await volume.close()


async def test_a_growth_that_the_disk_has_no_space_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(descriptor: int, offset: int, length: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    volume = FileVolume.open(tmp_path / "v", MIB, create=True, thin=False)
    monkeypatch.setattr(os, "posix_fallocate", no_space)
    with pytest.raises(UserError, match="No space left"):
        await volume.grow(2 * MIB)
    assert volume.size_bytes == volume.file_bytes() == MIB
    await volume.close()


async def test_memory_grows() -> None:
    volume = MemoryVolume(MIB)
    await volume.write(MIB - 512, b"y" * 512)
    await volume.grow(2 * MIB)
    assert volume.size_bytes == 2 * MIB
    assert bytes(await volume.read(MIB - 512, 1024)) == b"y" * 512 + bytes(512)
