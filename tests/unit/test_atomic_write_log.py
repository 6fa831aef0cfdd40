"""A crash at any byte of a WRITE ATOMIC leaves all of it or none (SBC-4 4.29); a full or broken disk leaves none."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from storage_model.errors import UserError
from storage_model.volume import AtomicVolume, MediumFailure, SpaceExhausted
from target.volumes.atomic_write_log import log_path
from target.volumes.file_volume import FileVolume
from target.volumes.memory_volume import MemoryVolume

SIZE = 64 << 10
OLD, NEW, OFFSET = b"o" * 4608, b"n" * 4608, 1024


class PowerFailure(BaseException):
    """Nothing after it runs: what the process would still do is not done."""


class Disk:
    """Counts the bytes that are written and stops at one of them, in the middle of a write if need be."""

    def __init__(self, monkeypatch, after=None, fault=None):
        self.written = 0
        self._after, self._fault, self._down = after, fault or PowerFailure(), False
        self._pwritev = os.pwritev
        monkeypatch.setattr(os, "pwritev", self.pwritev)

    def pwritev(self, descriptor, buffers, offset, flags=0):
        if self._down:
            raise self._fault
        (data,) = (memoryview(buffer) for buffer in buffers)
        room = len(data) if self._after is None else self._after - self.written
        if room < len(data):
            self._down = isinstance(self._fault, PowerFailure)
            self._after = None
            self._pwritev(descriptor, [data[:room]], offset)
            raise self._fault
        self.written += len(data)
        return self._pwritev(descriptor, [data], offset)


def opened(path, **options):
    volume = FileVolume.open(path, **options)
    assert isinstance(volume, AtomicVolume)
    return volume


@pytest.fixture
async def path(tmp_path):
    path = tmp_path / "v.img"
    volume = opened(path, size_bytes=SIZE, create=True)
    await volume.write(OFFSET, OLD)
    await volume.close()
    return path


async def contents(path):
    volume = opened(path)
    data = bytes(await volume.read(0, SIZE))
    await volume.close()
    assert not log_path(path).exists()
    return data


def whole(middle):
    return bytes(OFFSET) + middle + bytes(SIZE - OFFSET - len(middle))


async def test_it_is_written_and_the_log_goes_with_the_volume(path):
    volume = opened(path)
    await volume.write_atomic(OFFSET, NEW)
    assert log_path(path).exists()
    assert await volume.read(OFFSET, len(NEW)) == NEW
    await volume.close()
    assert not log_path(path).exists()
    assert await contents(path) == whole(NEW)


async def bytes_of_one_write(path, monkeypatch):
    with monkeypatch.context() as patch:
        disk = Disk(patch)
        volume = opened(path)
        await volume.write_atomic(OFFSET, OLD)
        await volume.close()
    return disk.written


async def crash(path, monkeypatch, after):
    """The power fails when so many bytes have reached the disk; the descriptors of the dead process are closed."""
    with monkeypatch.context() as patch:
        Disk(patch, after)
        volume = opened(path)
        with pytest.raises(PowerFailure):
            await volume.write_atomic(OFFSET, NEW)
    descriptor, volume._descriptor = volume._descriptor, -1
    volume._workers.shut_down()
    volume._atomic_log.executor.shutdown()
    os.close(volume._atomic_log._descriptor)
    os.close(descriptor)


async def test_a_power_failure_at_any_point(path, monkeypatch):
    """Every byte near the borders of the steps, and every 97th between them."""
    length = await bytes_of_one_write(path, monkeypatch)
    record = length - 24 - len(NEW)
    borders = {at + near for at in (0, 24, record, record + len(NEW), length - 24) for near in range(-3, 4)}
    points = sorted(point for point in borders | set(range(0, length, 97)) if 0 <= point < length)
    seen = set()
    for point in points:
        await crash(path, monkeypatch, point)
        found = await contents(path)
        assert found in (whole(OLD), whole(NEW)), point
        assert found == (whole(OLD) if point < record else whole(NEW)), point
        seen.add(found)
        volume = opened(path)
        await volume.write(OFFSET, OLD)
        await volume.close()
    assert len(seen) == 2


async def test_a_torn_write_is_finished_before_anybody_reads(path, monkeypatch):
    length = await bytes_of_one_write(path, monkeypatch)
    await crash(path, monkeypatch, length - 24 - 1000)
    assert path.read_bytes() not in (whole(OLD), whole(NEW))
    assert await contents(path) == whole(NEW)


async def test_a_write_that_came_later_is_not_undone(path):
    """The log is cleared, durably, before the status."""
    volume = opened(path)
    await volume.write_atomic(OFFSET, NEW)
    await volume.write(OFFSET, OLD)
    left_behind = log_path(path).read_bytes()
    await volume.close()
    log_path(path).write_bytes(left_behind)
    assert await contents(path) == whole(OLD)


@pytest.mark.parametrize(("code", "error"), [(errno.ENOSPC, SpaceExhausted), (errno.EIO, MediumFailure)])
async def test_a_disk_that_fails_on_the_way_leaves_what_was_there(path, monkeypatch, code, error):
    length = await bytes_of_one_write(path, monkeypatch)
    for point in (0, 20, 4000, length - 24 - len(NEW) + 700):
        volume = opened(path)
        with monkeypatch.context() as patch:
            Disk(patch, point, OSError(code, os.strerror(code)))
            with pytest.raises(error):
                await volume.write_atomic(OFFSET, NEW)
        assert await volume.read(0, SIZE) == whole(OLD), point
        await volume.write_atomic(OFFSET, OLD)
        await volume.close()
    assert await contents(path) == whole(OLD)


async def test_a_full_disk_is_noticed_before_anything_changes(path, monkeypatch):
    def full(*_arguments):
        raise OSError(errno.ENOSPC, "full")

    volume = opened(path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(SpaceExhausted):
            await volume.write_atomic(OFFSET, NEW)
    assert not log_path(path).exists()
    await volume.close()
    assert await contents(path) == whole(OLD)


async def test_a_log_that_cannot_be_cleared_is_removed(path, monkeypatch):
    length = await bytes_of_one_write(path, monkeypatch)
    volume = opened(path)
    with monkeypatch.context() as patch:
        Disk(patch, length - 24, OSError(errno.EIO, "bad"))
        await volume.write_atomic(OFFSET, NEW)
    assert not log_path(path).exists()
    await volume.write_atomic(OFFSET, OLD)
    await volume.close()
    assert await contents(path) == whole(OLD)


async def test_a_read_only_volume_is_not_served_half_written(path, monkeypatch):
    length = await bytes_of_one_write(path, monkeypatch)
    await crash(path, monkeypatch, length - 24 - 1000)
    with pytest.raises(UserError, match="serve it writable once"):
        FileVolume.open(path, read_only=True)
    assert await contents(path) == whole(NEW)


async def test_a_file_of_that_name_that_is_not_ours(path):
    log_path(path).write_bytes(b"my own notes")
    volume = opened(path)
    with pytest.raises(MediumFailure):
        await volume.write_atomic(OFFSET, NEW)
    await volume.close()
    assert log_path(path).read_bytes() == b"my own notes"
    log_path(path).unlink()
    assert await contents(path) == whole(OLD)


@pytest.mark.parametrize(
    "left", [b"", b"PV", b"PVATOMIC", b"PVATOMIC" + b"\xff" * 100, bytes(24), b"\0\0\0TOMIC" + bytes(99)]
)
async def test_a_log_that_was_never_whole(path, left):
    log_path(path).write_bytes(left)
    assert await contents(path) == whole(OLD)


async def test_what_was_written_is_forgotten(path):
    """SBC-3 4.11: SANITIZE leaves nothing of the data anywhere."""
    volume = opened(path)
    await volume.forget_atomic_writes()
    await volume.write_atomic(OFFSET, NEW)
    assert b"nnnn" in log_path(path).read_bytes()
    await volume.forget_atomic_writes()
    assert not any(log_path(path).read_bytes())
    await volume.write_atomic(OFFSET, OLD)
    await volume.close()
    assert await contents(path) == whole(OLD)


async def test_a_closed_volume(path):
    volume = opened(path)
    await volume.close()
    with pytest.raises(MediumFailure):
        await volume.write_atomic(OFFSET, NEW)


async def test_memory():
    volume = MemoryVolume(SIZE)
    assert isinstance(volume, AtomicVolume)
    await volume.write_atomic(512, b"m" * 1024)
    assert await volume.read(0, 2048) == bytes(512) + b"m" * 1024 + bytes(512)


KILLED = """
import asyncio, sys
from target.volumes.file_volume import FileVolume
async def main():
    volume = FileVolume.open(sys.argv[1])
    print("ready", flush=True)
    letter = 0
    while True:
        letter = (letter + 1) % 26
        await volume.write_atomic(512, bytes((97 + letter,)) * (1 << 20))
asyncio.run(main())
"""


async def test_kill_9_in_the_middle(tmp_path):
    """The kernel ends a write between two pages when its process is killed: here it is all of one letter."""
    path = tmp_path / "v.img"
    await opened(path, size_bytes=2 << 20, create=True).close()
    for round_ in range(5):
        root = Path(__file__).parents[2]
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], cwd=root, stdout=subprocess.PIPE)
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.05 + 0.013 * round_)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        volume = opened(path)
        data = bytes(await volume.read(512, 1 << 20))
        await volume.close()
        assert len(set(data)) == 1, f"round {round_}: {sorted(set(data))}"


async def test_a_new_file_is_not_given_what_an_older_one_had(path, monkeypatch):
    """The file was lost, or deleted, after the crash; its log was not."""
    length = await bytes_of_one_write(path, monkeypatch)
    await crash(path, monkeypatch, length - 24 - 1000)
    path.unlink()
    volume = opened(path, size_bytes=SIZE, create=True)
    assert await volume.read(0, SIZE) == bytes(SIZE)
    await volume.close()
    assert await contents(path) == bytes(SIZE)


async def test_the_log_is_found_by_way_of_a_link(path, monkeypatch):
    """Else it would be found later, by the other name, and undo what was written meanwhile."""
    length = await bytes_of_one_write(path, monkeypatch)
    await crash(path, monkeypatch, length - 24 - 1000)
    link = path.with_name("link.img")
    link.symlink_to(path)
    assert await contents(link) == whole(NEW)
    assert not log_path(path).exists()
