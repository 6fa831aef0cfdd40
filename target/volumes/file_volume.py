"""A volume in a regular file on the host's page cache: thin with real holes, or allocated from end to end. [IO]

What may block goes to threads. A read is first tried with RWF_NOWAIT, which succeeds exactly when the page cache has
all of it. An aligned write is done on the event loop: it is a copy into the page cache, of which a thread's round trip
would cost several times over. An unaligned one may have to read the rest of its page first, and takes a thread; so do
all while the disk is slower than what is written, which is when the kernel makes a writer wait. A file in memory has
no device to wait for. The file is never mapped: a full disk must be an ENOSPC that becomes a sense code, not a SIGBUS.
"""

import asyncio
import ctypes
import errno
import fcntl
import os
import resource
import stat
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Final, TypeVar

from storage_model.errors import UserError
from storage_model.volume import Buffer, Extent, FileRange, MediumFailure, SpaceExhausted, VolumeError
from target.volumes.atomic_write_log import AtomicWriteLog, finish_atomic_write
from target.volumes.file_extents import FileExtents
from target.volumes.memory_file_system import lies_in_memory
from target.volumes.page_cache import PageCache
from target.volumes.worker_threads import WorkerThreads

_THREADS = 4
_DIRECT_BYTES: Final = 256 << 10
"""Of a read or write on the event loop. At 256 KiB that costs an array 25 to 50 % less CPU per command than a thread,
and half the latency of one alone; at 1 MiB threads cost no more, and others on the loop would notice the copy."""
_LENT_BYTES_MAX: Final = 1 << 20
"""Of a read that the kernel sends from the page cache: what the socket does not take at once is copied on the loop."""
_LONG_BYTES: Final = 32 << 10
"""Of a read that is worth the question whether it is cached: then it needs no memory that was filled with zeros before,
and its data digest no copy: with that, 25 µs instead of 33 at 256 KiB."""
_STALL_SECONDS: Final = 0.02
"""A copy into the page cache that takes longer has waited for the disk: the kernel throttles who writes too fast."""
_AFTER_STALL_SECONDS = 1.0
_WITHIN_PAGE: Final = 4095
_NOWAIT: Final = os.RWF_NOWAIT
_ZERO_CHUNK_BYTES = 1 << 20

_FALLOC_FL_KEEP_SIZE = 0x01
_FALLOC_FL_PUNCH_HOLE = 0x02
_FALLOC_FL_ZERO_RANGE = 0x10
_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_longlong, ctypes.c_longlong)

_T = TypeVar("_T")


class FileVolume:
    """Made by :meth:`open`. Errors of the host arrive as ``VolumeError``; ``OSError`` never leaves.

    A thin one gives the space of an unmapped range back; one that is not keeps it, so that no write of it can ever
    meet a full disk.
    """

    def __init__(
        self, descriptor: int, path: Path, size_bytes: int, block_length: int, read_only: bool, thin: bool
    ) -> None:
        self._descriptor = descriptor
        self.path = path
        self.read_only = read_only
        self._thin = thin
        self._unmap_mode = _FALLOC_FL_KEEP_SIZE | (_FALLOC_FL_PUNCH_HOLE if thin else _FALLOC_FL_ZERO_RANGE)
        self._size_bytes = size_bytes
        self._block_length = block_length
        self._workers = WorkerThreads(_THREADS, f"volume-{path.name}")
        self._in_memory = lies_in_memory(descriptor)
        self._cache = PageCache(descriptor)
        self._can_tell_cached = not self._in_memory  # by RWF_NOWAIT, as far as is known
        self._write_in_threads_until = self._stalls_watched_until = 0.0  # of the monotonic clock
        self._extents = FileExtents(descriptor, block_length)
        self._can_unmap = True
        self._atomic_log: AtomicWriteLog | None = None

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        size_bytes: int | None = None,
        block_length: int = 512,
        create: bool = False,
        read_only: bool = False,
        thin: bool = True,
    ) -> "FileVolume":
        """Open, or with ``create`` make, the file at ``path`` and lock it against other arrays.

        ``size_bytes`` None takes the size that the file has; ``thin`` false allocates what is not allocated yet, which
        keeps the data. A read-only file is served as it is, together with other readers. Raises ``UserError`` with one
        line that names the path.
        """
        path = Path(path)
        if size_bytes is not None and (size_bytes <= 0 or size_bytes % block_length):
            raise UserError(f"volume file {path}: {size_bytes} bytes are not whole {block_length}-byte blocks")
        if create and size_bytes is None and not path.exists():
            raise UserError(f"volume file {path}: a new file needs a size")
        descriptor = _open_descriptor(path, create and not read_only, read_only)
        try:
            new = os.fstat(descriptor).st_size == 0
            size_bytes = _check_file(descriptor, path, size_bytes, block_length, create and not read_only, read_only)
            if not thin and not read_only:
                _allocate(descriptor, path, size_bytes, new)
            # A log beside a file that is new is that of one which was there before: it does not belong into this one.
            finish_atomic_write(descriptor, path, 0 if new else size_bytes, read_only=read_only)
        except BaseException:
            os.close(descriptor)
            raise
        return cls(descriptor, path, size_bytes, block_length, read_only, thin)

    @property
    def size_bytes(self) -> int:
        return self._size_bytes

    @property
    def block_length(self) -> int:
        return self._block_length

    def file_bytes(self) -> int:
        """What the file has now: more than the volume when somebody has made it larger."""
        return os.fstat(self._descriptor).st_size

    async def grow(self, size_bytes: int) -> None:
        """To a larger size, the file with it if that is smaller. Raises UserError; then nothing has changed."""
        assert size_bytes > self._size_bytes and not size_bytes % self._block_length
        await self._workers.run(lambda: self._grow_file(size_bytes))
        self._size_bytes = size_bytes

    def read_now(self, offset_bytes: int, length_bytes: int) -> Buffer | None:
        """``DirectVolume``: when the page cache has all of it."""
        if length_bytes > _LENT_BYTES_MAX or not (self._can_tell_cached or self._in_memory):
            return None
        if self._in_memory or (length_bytes >= _LONG_BYTES and self._cache.has(offset_bytes, length_bytes)):
            try:
                data = os.pread(self._descriptor, length_bytes, offset_bytes)
            except OSError:
                return None
            return data if len(data) == length_bytes else None
        buffer = bytearray(length_bytes)
        try:
            if os.preadv(self._descriptor, (buffer,), offset_bytes, _NOWAIT) == length_bytes:
                return buffer
        except OSError:
            pass  # whatever it is: ``read`` meets it again
        return None

    def lend_now(self, offset_bytes: int, length_bytes: int) -> FileRange | None:
        """``DirectVolume``: as ``read_now``, but with nothing copied."""
        if length_bytes > _LENT_BYTES_MAX or not (self._in_memory or self._cache.has(offset_bytes, length_bytes)):
            return None
        return FileRange(self._descriptor, offset_bytes, length_bytes)

    def write_now(self, offset_bytes: int, data: Buffer) -> bool:
        """``DirectVolume``: whole pages, while the disk makes nobody wait."""
        length = len(data)
        if length > _DIRECT_BYTES or (offset_bytes | length) & _WITHIN_PAGE or self._in_memory:
            return False
        if monotonic() < self._write_in_threads_until:
            return False
        self._write_to_cache(data, offset_bytes)
        return True

    async def read(self, offset_bytes: int, length_bytes: int) -> Buffer:
        if length_bytes <= _DIRECT_BYTES:
            if self._can_tell_cached:
                buffer = bytearray(length_bytes)
                try:
                    done = os.preadv(self._descriptor, (buffer,), offset_bytes, _NOWAIT)
                    if done == length_bytes:
                        return buffer
                except OSError as error:  # EAGAIN: nothing of it is cached. Whatever else: the thread finds it again.
                    done = 0
                    if error.errno == errno.EOPNOTSUPP:  # it cannot tell: then it is not asked for every read
                        self._can_tell_cached = False
                rest = partial(self._read_all, memoryview(buffer)[done:], offset_bytes + done)
                await self._in_thread(rest, writes=False)
                return buffer
            if self._in_memory and self._descriptor >= 0:
                return self._read_bytes(offset_bytes, length_bytes)
        return await self._in_thread(partial(self._read_bytes, offset_bytes, length_bytes), writes=False)

    async def write(self, offset_bytes: int, data: Buffer, *, fua: bool = False) -> None:
        length = len(data)
        if length <= _DIRECT_BYTES:
            if self._in_memory:
                self._write_all(data, offset_bytes, 0)
                return
            if not fua and not (offset_bytes | length) & _WITHIN_PAGE:
                if monotonic() >= self._write_in_threads_until:
                    self._write_to_cache(data, offset_bytes)
                else:
                    await self._in_thread(partial(self._write_to_cache, data, offset_bytes), writes=True)
                return
        flags = os.RWF_DSYNC if fua else 0
        await self._in_thread(partial(self._write_all, data, offset_bytes, flags), writes=True)

    def _write_to_cache(self, data: Buffer, offset_bytes: int) -> None:
        """On the event loop until the kernel makes that wait, then in threads until it does not."""
        started = monotonic()
        sleeps = _sleeps_of_this_thread() if started < self._stalls_watched_until else None
        self._write_all(data, offset_bytes, 0)
        ended = monotonic()
        if ended - started > _STALL_SECONDS:
            # It may only have lost the processor to others, which a thread would not help: the next one is watched.
            self._stalls_watched_until = ended + _AFTER_STALL_SECONDS
            if sleeps is not None and _sleeps_of_this_thread() > sleeps:
                self._write_in_threads_until = ended + _AFTER_STALL_SECONDS

    async def write_atomic(self, offset_bytes: int, data: Buffer) -> None:
        """Written twice, durable each time (see ``atomic_write_log``)."""
        if self._atomic_log is None:
            self._atomic_log = AtomicWriteLog(self.path)
        log, descriptor = self._atomic_log, self._descriptor
        await self._in_thread(lambda: log.write(descriptor, offset_bytes, data), writes=True, executor=log.executor)

    async def forget_atomic_writes(self) -> None:
        log = self._atomic_log
        if log is not None:
            await self._in_thread(log.erase, writes=True, executor=log.executor)

    async def flush(self) -> None:
        if self._in_memory:  # nothing to do, and no need of a thread for that
            return
        if not self.read_only:
            await self._in_thread(lambda: os.fdatasync(self._descriptor), writes=True)

    async def unmap(self, offset_bytes: int, length_bytes: int) -> None:
        def punch() -> None:
            with self._extents.changing():
                self._punch(offset_bytes, length_bytes)

        await self._in_thread(punch, writes=True)

    async def block_status(self, offset_bytes: int, length_bytes: int) -> Sequence[Extent]:
        return await self._in_thread(lambda: self._extents.of(offset_bytes, length_bytes), writes=False)

    async def close(self) -> None:
        """Flush and close; a second time does nothing. Waits for what is under way in threads."""
        if self._descriptor < 0:
            return
        try:
            await self.flush()
        finally:
            # Threads are idle now but for commands that nobody waits for any more; they end by themselves.
            await asyncio.to_thread(self._workers.shut_down)
            if self._atomic_log is not None:
                await asyncio.to_thread(self._atomic_log.close)
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    async def _in_thread(
        self, work: Callable[[], _T], *, writes: bool, executor: ThreadPoolExecutor | None = None
    ) -> _T:
        if self._descriptor < 0:
            raise MediumFailure(f"{self.path} is closed")
        try:
            if executor is None:
                return await self._workers.run(work)
            return await asyncio.get_running_loop().run_in_executor(executor, work)
        except OSError as error:
            raise _volume_error(error, self.path, writes=writes) from error

    # --- in threads

    def _grow_file(self, size_bytes: int) -> None:
        before = self.file_bytes()
        if before >= size_bytes and (self._thin or self.read_only):
            return
        if self.read_only:
            raise UserError(
                f"volume file {self.path}: {before} bytes, and it is read-only: it cannot have {size_bytes}"
            )
        try:
            if before < size_bytes:
                os.ftruncate(self._descriptor, size_bytes)
            if not self._thin:
                _allocate(self._descriptor, self.path, size_bytes, False)
        except OSError as error:
            raise UserError(f"volume file {self.path}: cannot make it {size_bytes} bytes: {error.strerror}") from error
        except UserError:
            os.ftruncate(self._descriptor, before)
            raise

    def _read_bytes(self, offset_bytes: int, length_bytes: int) -> Buffer:
        """One system call into memory that nobody has filled with zeros before, when it gives everything at once."""
        try:
            data = os.pread(self._descriptor, length_bytes, offset_bytes)
        except OSError as error:
            raise MediumFailure(f"{self.path}: {error.strerror}", offset_bytes=offset_bytes) from error
        if len(data) == length_bytes:
            return data
        buffer = bytearray(length_bytes)
        buffer[: len(data)] = data
        self._read_all(memoryview(buffer)[len(data) :], offset_bytes + len(data))
        return buffer

    def _read_all(self, view: memoryview, offset_bytes: int) -> None:
        done = 0
        while done < len(view):
            try:
                count = os.preadv(self._descriptor, [view[done:]], offset_bytes + done)
            except OSError as error:
                raise MediumFailure(f"{self.path}: {error.strerror}", offset_bytes=offset_bytes + done) from error
            if count == 0:  # somebody has cut the file short: blocks that were there are gone
                raise MediumFailure(f"{self.path} is shorter than the volume", offset_bytes=offset_bytes + done)
            done += count

    def _write_all(self, data: Buffer, offset_bytes: int, flags: int) -> None:
        done = 0
        try:
            if not flags:
                done = os.pwrite(self._descriptor, data, offset_bytes)  # less work for Python than a vector
                if done == len(data):
                    return
            view = memoryview(data)
            while done < len(view):
                done += os.pwritev(self._descriptor, [view[done:]], offset_bytes + done, flags)
        except OSError as error:
            raise _volume_error(error, self.path, writes=True, offset_bytes=offset_bytes + done) from error

    def _punch(self, offset_bytes: int, length_bytes: int) -> None:
        if self._can_unmap:
            if _LIBC.fallocate(self._descriptor, self._unmap_mode, offset_bytes, length_bytes) == 0:
                return
            code = ctypes.get_errno()
            if code not in (errno.EOPNOTSUPP, errno.ENOSYS):
                raise OSError(code, os.strerror(code))
            self._can_unmap = False
        zeros = memoryview(bytes(min(length_bytes, _ZERO_CHUNK_BYTES)))
        for done in range(0, length_bytes, _ZERO_CHUNK_BYTES):
            self._write_all(zeros[: length_bytes - done], offset_bytes + done, 0)


def _sleeps_of_this_thread() -> int:
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


def _volume_error(error: OSError, path: Path, *, writes: bool, offset_bytes: int | None = None) -> VolumeError:
    if writes and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return SpaceExhausted(f"{path}: {error.strerror}")
    return MediumFailure(f"{path}: {error.strerror}", offset_bytes=offset_bytes)


def _open_descriptor(path: Path, create: bool, read_only: bool) -> int:
    flags = os.O_CLOEXEC | os.O_NONBLOCK | (os.O_RDONLY if read_only else os.O_RDWR) | (os.O_CREAT if create else 0)
    try:
        return os.open(path, flags, 0o600)
    except FileNotFoundError as error:
        missing = "no such directory" if create else "no such file"
        raise UserError(f"volume file {path}: {missing}") from error
    except IsADirectoryError as error:
        raise UserError(f"volume file {path}: not a regular file") from error
    except PermissionError as error:
        refused = "no permission to read it" if read_only else "it is read-only, or not ours to write"
        raise UserError(f"volume file {path}: {refused}") from error
    except OSError as error:
        reason = "read-only file system" if error.errno == errno.EROFS else error.strerror
        raise UserError(f"volume file {path}: {reason}") from error


def _check_file(
    descriptor: int, path: Path, size_bytes: int | None, block_length: int, create: bool, read_only: bool
) -> int:
    """Lock the file and settle its size, in that order: a file that another array serves is not touched."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"volume file {path}: not a regular file")
    if not read_only and not status.st_mode & 0o222:  # root could write it; its owner said that nobody should
        raise UserError(f"volume file {path}: it is read-only; a write-protected volume can serve it")
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if read_only else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        raise UserError(f"volume file {path}: in use by another array, or by another volume of this one") from error
    current = os.fstat(descriptor).st_size
    if current == 0 and create and size_bytes is not None:
        try:
            os.ftruncate(descriptor, size_bytes)
        except OSError as error:
            raise UserError(f"volume file {path}: cannot make it {size_bytes} bytes: {error.strerror}") from error
        return size_bytes
    if size_bytes is not None and current != size_bytes:
        raise UserError(f"volume file {path}: it has {current} bytes, not the {size_bytes} of the volume")
    if current == 0 or current % block_length:
        raise UserError(f"volume file {path}: {current} bytes are not a whole number of {block_length}-byte blocks")
    return current


def _allocate(descriptor: int, path: Path, size_bytes: int, new: bool) -> None:
    """Take all the space that the volume will ever need, so that a full disk is met now and not by a write."""
    try:
        os.posix_fallocate(descriptor, 0, size_bytes)
    except OSError as error:
        if new:
            os.ftruncate(descriptor, 0)  # gives back what was taken; with a size, it would pass for a good file later
        raise UserError(f"volume file {path}: cannot allocate its {size_bytes} bytes: {error.strerror}") from error
