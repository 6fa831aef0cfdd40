"""FileVolume: what is done on the event loop, and what in a thread because it may wait."""

import asyncio
import errno
import os
import tempfile
import threading
from pathlib import Path

import pytest

from storage_model.volume import MediumFailure
from target.volumes import file_volume
from target.volumes.file_volume import FileVolume
from target.volumes.memory_file_system import lies_in_memory

SIZE = 1 << 20


PREADV = os.preadv


class Calls:
    """System calls on volumes, by name and thread: True on the event loop."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[tuple[str, bool]] = []
        self._patch = monkeypatch
        for name in ("pread", "preadv", "pwrite", "pwritev"):
            self.replace(name, getattr(os, name))

    def replace(self, name, function):
        def noted(*arguments):
            self.made.append((name, threading.current_thread() is threading.main_thread()))
            return function(*arguments)

        self._patch.setattr(os, name, noted)

    def take(self) -> list[tuple[str, bool]]:
        made, self.made = self.made, []
        return made


@pytest.fixture
def calls(monkeypatch):
    return Calls(monkeypatch)


@pytest.fixture
async def disk(tmp_path, monkeypatch):
    """As on a disk, wherever the temporary directory is."""
    monkeypatch.setattr(file_volume, "lies_in_memory", lambda descriptor: False)
    volume = FileVolume.open(tmp_path / "v.img", SIZE, create=True)
    yield volume
    await volume.close()


@pytest.fixture
async def memory(tmp_path, monkeypatch):
    monkeypatch.setattr(file_volume, "lies_in_memory", lambda descriptor: True)
    volume = FileVolume.open(tmp_path / "v.img", SIZE, create=True)
    yield volume
    await volume.close()


def refuse(code):
    def preadv(descriptor, buffers, offset, flags=0):
        if flags & os.RWF_NOWAIT:
            raise OSError(code, os.strerror(code))
        return PREADV(descriptor, buffers, offset, flags)

    return preadv


async def test_a_file_system_that_cannot_tell_is_asked_once(disk, calls):
    await disk.write(0, b"d" * 8192)
    calls.replace("preadv", refuse(errno.EOPNOTSUPP))
    calls.take()
    assert await disk.read(0, 8192) == b"d" * 8192
    assert calls.take() == [("preadv", True), ("preadv", False)]
    assert await disk.read(4096, 4096) == b"d" * 4096
    assert calls.take() == [("pread", False)]


async def test_what_is_not_cached_is_read_in_a_thread_and_asked_for_again(disk, calls):
    calls.replace("preadv", refuse(errno.EAGAIN))
    for _ in range(2):
        assert await disk.read(0, 4096) == bytes(4096)
        assert calls.take() == [("preadv", True), ("preadv", False)]


async def test_what_is_cached_in_part_is_continued(disk, calls):
    await disk.write(0, b"a" * 4096 + b"b" * 4096)
    read: list[tuple[int, int]] = []

    def half(descriptor, buffers, offset, flags=0):
        views = [memoryview(buffer) for buffer in buffers]
        read.append((offset, sum(map(len, views))))
        if flags & os.RWF_NOWAIT:
            return PREADV(descriptor, [views[0][:4096]], offset)
        return PREADV(descriptor, views, offset)

    calls.replace("preadv", half)
    assert await disk.read(0, 8192) == b"a" * 4096 + b"b" * 4096
    assert read == [(0, 8192), (4096, 4096)]


@pytest.mark.parametrize("code", [errno.EAGAIN, errno.EOPNOTSUPP, None])
async def test_a_file_cut_short_is_told_at_the_first_missing_block(disk, calls, code):
    await disk.write(0, b"d" * 8192)
    if code is not None:
        calls.replace("preadv", refuse(code))
        await disk.read(0, 512)
    os.truncate(disk.path, 4096)
    with pytest.raises(MediumFailure) as error:
        await disk.read(0, 8192)
    assert error.value.offset_bytes == 4096


async def test_a_file_in_memory_needs_no_thread(memory, calls):
    await memory.write(512, b"u" * 512)
    await memory.write(4096, b"f" * 4096, fua=True)
    assert await memory.read(0, 8192) == bytes(512) + b"u" * 512 + bytes(3072) + b"f" * 4096
    await memory.flush()
    assert calls.take() == [("pwrite", True), ("pwrite", True), ("pread", True)]
    os.truncate(memory.path, 4096)
    with pytest.raises(MediumFailure) as error:
        await memory.read(0, 8192)
    assert error.value.offset_bytes == 4096


async def test_a_large_transfer_takes_a_thread(disk, calls):
    await _large_transfer(disk, calls)


async def test_a_large_transfer_takes_a_thread_in_memory_too(memory, calls):
    await _large_transfer(memory, calls)


async def _large_transfer(volume, calls):
    data = os.urandom(512 << 10)
    await volume.write(0, data)
    assert await volume.read(0, len(data)) == data
    assert calls.take() == [("pwrite", False), ("pread", False)]


async def test_a_write_that_may_have_to_read_first_takes_a_thread(disk, calls):
    await disk.write(512, b"u" * 512)
    await disk.write(0, b"a" * 4096)
    assert calls.take() == [("pwrite", False), ("pwrite", True)]


async def test_while_the_disk_makes_writers_wait_they_take_threads(disk, calls, monkeypatch):
    monkeypatch.setattr(file_volume, "_STALL_SECONDS", -1.0)  # every write is a slow one
    sleeps = iter(range(100))
    monkeypatch.setattr(file_volume, "_sleeps_of_this_thread", lambda: next(sleeps))
    for _ in range(3):
        await disk.write(0, b"a" * 4096)
    # The first raises suspicion, the second confirms it.
    assert calls.take() == [("pwrite", True), ("pwrite", True), ("pwrite", False)]
    monkeypatch.setattr(file_volume, "monotonic", lambda: float("inf"))
    await disk.write(0, b"a" * 4096)
    assert calls.take() == [("pwrite", True)]


async def test_a_write_that_lost_the_processor_is_no_reason_for_threads(disk, calls, monkeypatch):
    monkeypatch.setattr(file_volume, "_STALL_SECONDS", -1.0)
    monkeypatch.setattr(file_volume, "_sleeps_of_this_thread", lambda: 7)
    for _ in range(4):
        await disk.write(0, b"a" * 4096)
    assert calls.take() == [("pwrite", True)] * 4


async def test_a_write_that_stops_half_way_is_continued(disk, calls):
    pwrite = os.pwrite
    calls.replace("pwrite", lambda descriptor, data, offset: pwrite(descriptor, memoryview(data)[:1000], offset))
    data = os.urandom(8192)
    await disk.write(0, data)
    assert await disk.read(0, 8192) == data


def test_which_file_systems_lie_in_memory():
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, directory, kind, *_ = line.split()
        if kind not in ("tmpfs", "ext4", "proc", "overlay", "xfs", "btrfs") or not os.access(directory, os.R_OK):
            continue
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            # What has been mounted over it since is what is found there.
            if _topmost(directory) == kind:
                assert lies_in_memory(descriptor) is (kind == "tmpfs"), directory
        finally:
            os.close(descriptor)
    assert lies_in_memory(-1) is False


def _topmost(directory: str) -> str:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [fields[2] for fields in map(str.split, lines) if fields[1] == directory][-1]


async def test_commands_at_once_on_a_file_in_memory():
    """On a real one, where there is one: data of many commands, in any order."""
    directory = Path("/dev/shm")
    if not directory.is_dir():
        directory = Path(tempfile.gettempdir())
    with tempfile.TemporaryDirectory(dir=directory) as name:
        volume = FileVolume.open(Path(name) / "v.img", SIZE, create=True)
        blocks = [os.urandom(4096) for _ in range(64)]
        await asyncio.gather(*(volume.write(index * 4096, block) for index, block in enumerate(blocks)))
        assert await asyncio.gather(*(volume.read(index * 4096, 4096) for index in range(64))) == blocks
        await volume.close()
