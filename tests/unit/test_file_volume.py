"""FileVolume: data, holes, locks, and what a user is told."""

import errno
import os
import re

import pytest

from storage_model.errors import UserError
from storage_model.volume import MediumFailure, SpaceExhausted
from target.volumes.file_volume import FileVolume

SIZE = 1 << 20


@pytest.fixture
async def volume(tmp_path):
    volume = FileVolume.open(tmp_path / "v.img", SIZE, create=True)
    yield volume
    await volume.close()


@pytest.mark.parametrize(("offset", "length"), [(0, 512), (4096, 4096), (512, 1024), (8192, 262144), (SIZE - 512, 512)])
@pytest.mark.parametrize("fua", [False, True])
async def test_data_comes_back(volume, offset, length, fua):
    data = os.urandom(length)
    await volume.write(offset, data, fua=fua)
    assert await volume.read(offset, length) == data
    await volume.flush()


async def test_a_new_file_is_sparse_and_unmap_gives_space_back(volume):
    assert os.stat(volume.path).st_blocks == 0 and os.stat(volume.path).st_size == SIZE
    await volume.write(0, b"x" * 65536)
    await volume.flush()
    used = os.stat(volume.path).st_blocks
    await volume.unmap(4096, 32768)
    assert os.stat(volume.path).st_blocks < used
    assert await volume.read(0, 65536) == b"x" * 4096 + bytes(32768) + b"x" * (65536 - 36864)
    extents = await volume.block_status(0, SIZE)
    assert [(e.offset_bytes, e.length_bytes, e.mapped) for e in extents] == [
        (0, 4096, True),
        (4096, 32768, False),
        (36864, 28672, True),
        (65536, SIZE - 65536, False),
    ]


async def test_a_full_file_is_allocated_and_stays_so(tmp_path):
    volume = FileVolume.open(tmp_path / "v.img", SIZE, create=True, thin=False)
    assert os.stat(volume.path).st_blocks * 512 >= SIZE
    await volume.write(0, b"x" * 65536)
    await volume.unmap(4096, 32768)
    await volume.flush()
    assert os.stat(volume.path).st_blocks * 512 >= SIZE
    assert await volume.read(0, 65536) == b"x" * 4096 + bytes(32768) + b"x" * (65536 - 36864)
    await volume.close()


async def test_what_is_sparse_becomes_full_and_keeps_its_data(tmp_path):
    volume = FileVolume.open(tmp_path / "v.img", SIZE, create=True)
    await volume.write(4096, b"k" * 4096)
    await volume.close()
    assert os.stat(volume.path).st_blocks * 512 < SIZE
    volume = FileVolume.open(volume.path, thin=False)
    assert os.stat(volume.path).st_blocks * 512 >= SIZE
    assert await volume.read(0, 12288) == bytes(4096) + b"k" * 4096 + bytes(4096)
    await volume.close()


@pytest.mark.parametrize("thin", [True, False])
async def test_unmap_without_hole_punching_writes_zeros(tmp_path, monkeypatch, thin):
    volume = FileVolume.open(tmp_path / "v.img", SIZE, create=True, thin=thin)
    monkeypatch.setattr(volume, "_can_unmap", False)
    await volume.write(0, b"x" * 8192)
    await volume.unmap(512, 4096)
    assert await volume.read(0, 8192) == b"x" * 512 + bytes(4096) + b"x" * 3584
    await volume.close()


async def test_contents_survive_close_and_open(tmp_path):
    path = tmp_path / "v.img"
    volume = FileVolume.open(path, SIZE, create=True)
    await volume.write(512, b"k" * 512)
    await volume.close()
    await volume.close()
    with pytest.raises(MediumFailure):
        await volume.read(4096 * 7, 512)
    again = FileVolume.open(path)
    assert again.size_bytes == SIZE and await again.read(512, 512) == b"k" * 512
    await again.close()


@pytest.mark.parametrize(
    ("code", "error"), [(errno.ENOSPC, SpaceExhausted), (errno.EDQUOT, SpaceExhausted), (errno.EIO, MediumFailure)]
)
async def test_errors_of_the_host_are_volume_errors(volume, monkeypatch, code, error):
    def fail(*_arguments):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", fail)
        patch.setattr(os, "pwritev", fail)
        patch.setattr(os, "fdatasync", fail)
        for offset, data, fua in ((0, b"x" * 4096, False), (512, b"x" * 512, False), (0, b"x" * 4096, True)):
            with pytest.raises(error):
                await volume.write(offset, data, fua=fua)
        with pytest.raises(error):
            await volume.flush()


async def test_a_read_error_is_never_out_of_space(volume, monkeypatch):
    def fail(*_arguments):
        raise OSError(errno.EIO, "bad")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", fail)
        patch.setattr(os, "preadv", fail)
        with pytest.raises(MediumFailure):
            await volume.read(0, 512)


async def test_a_file_cut_short_is_a_medium_failure(volume):
    os.truncate(volume.path, 4096)
    with pytest.raises(MediumFailure):
        await volume.read(8192, 512)


def refused(message, *arguments, **options):
    with pytest.raises(UserError, match=re.escape(message)) as error:
        FileVolume.open(*arguments, **options)
    assert str(arguments[0]) in str(error.value) and "\n" not in str(error.value)


def test_what_a_user_is_told(tmp_path):
    path = tmp_path / "v.img"
    refused("no such file", path, SIZE)
    refused("no such directory", tmp_path / "none" / "v.img", SIZE, create=True)
    refused("needs a size", path, create=True)
    refused("not whole 512-byte blocks", path, 1000, create=True)
    refused("not a regular file", tmp_path, SIZE)
    os.mkfifo(tmp_path / "fifo")
    refused("not a regular file", tmp_path / "fifo", SIZE)
    path.write_bytes(bytes(4096))
    refused("it has 4096 bytes, not the 1048576", path, SIZE)
    path.write_bytes(bytes(1000))
    refused("not a whole number of 512-byte blocks", path)


def test_no_space_for_a_full_file(tmp_path, monkeypatch):
    """What was taken is given back, and the file is not left behind as one that could be served."""
    path = tmp_path / "v.img"

    def fail(descriptor, offset_bytes, length_bytes):
        os.pwrite(descriptor, b"x" * 65536, offset_bytes)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", fail)
        refused(f"cannot allocate its {SIZE} bytes: No space left on device", path, SIZE, create=True, thin=False)
        assert os.stat(path).st_size == 0
        path.write_bytes(b"d" * SIZE)
        refused("No space left on device", path, thin=False)
        assert os.stat(path).st_size == SIZE


async def test_a_read_only_file(tmp_path):
    path = tmp_path / "v.img"
    path.write_bytes(bytes(4096))
    path.chmod(0o400)
    refused("it is read-only; a write-protected volume can serve it", path)
    refused("no such file", tmp_path / "none.img", 4096, create=True, read_only=True)
    await FileVolume.open(path, read_only=True, thin=False).close()
    assert path.read_bytes() == bytes(4096)
    await FileVolume.open(path, read_only=True).close()


async def test_one_array_at_a_time(tmp_path):
    path = tmp_path / "v.img"
    first = FileVolume.open(path, SIZE, create=True)
    refused("in use by another array", path, SIZE)
    refused("in use by another array", path, SIZE, read_only=True)
    await first.close()
    readers = [FileVolume.open(path, read_only=True) for _ in range(2)]
    refused("in use by another array", path)
    for reader in readers:
        await reader.close()
