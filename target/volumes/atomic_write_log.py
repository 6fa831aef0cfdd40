"""Writes all or nothing in a file that can only be written in place (SBC-4 4.29). [IO]

No file system promises that a write survives whole: the kernel stops between two pages when the process is killed, and
the disk between two sectors when its power fails. So an atomic write goes into a small file beside the volume first,
and into the volume when it is durable there; a record that is found whole at the next start is written again.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from struct import Struct
from typing import BinaryIO
from zlib import crc32

from storage_model.errors import UserError
from storage_model.volume import Buffer
from target.volumes.directory_sync import sync_parent_directory

_MAGIC = b"PVATOMIC"
_HEADER = Struct(">8sQII")  # magic, offset and length of the data in the volume, checksum of both and of the data
_PLACE = Struct(">QI")
_CLEARED = bytes(_HEADER.size)


def log_path(volume: Path) -> Path:
    """Beside the volume, so that it is on the same disk.

    The same one by whatever symbolic link the volume is opened: a log that was missed would undo later writes.
    """
    volume = volume.resolve()
    return volume.with_name(volume.name + ".atomic-write")


class AtomicWriteLog:
    """Has room for one write, so that its ``executor`` has one thread. The file exists from the first write on."""

    def __init__(self, volume: Path) -> None:
        self._path = log_path(volume)
        self._descriptor = -1
        self.executor = ThreadPoolExecutor(1, thread_name_prefix=f"atomic-{volume.name}")

    def write(self, volume: int, offset_bytes: int, data: Buffer) -> None:
        """Durable on return; after an ``OSError`` the volume has what it had before. Runs in ``executor``."""
        before = _read_exactly(volume, offset_bytes, len(data))
        os.posix_fallocate(volume, offset_bytes, len(data))  # a full disk is noticed before anything has changed
        if self._descriptor < 0:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._descriptor = os.open(self._path, flags, 0o600)
            sync_parent_directory(self._path)
        try:
            _write_durably(self._descriptor, 0, _record(offset_bytes, data))
            try:
                _write_durably(volume, offset_bytes, data)
            except OSError:
                with suppress(OSError):  # a disk that takes neither the new nor the old data: a medium error, told so
                    _write_durably(volume, offset_bytes, before)
                raise
        finally:
            self._clear()

    def _clear(self) -> None:
        """Durable too: a later write of the same blocks must not be undone by what is written here."""
        try:
            _write_durably(self._descriptor, 0, _CLEARED)
        except OSError:
            self._path.unlink()
            sync_parent_directory(self._path)
            os.close(self._descriptor)
            self._descriptor = -1

    def erase(self) -> None:
        """Nothing of what was written is left in the file. Runs in ``executor``."""
        if self._descriptor >= 0:
            _write_durably(self._descriptor, 0, bytes(os.fstat(self._descriptor).st_size))

    def close(self) -> None:
        """Waits for the write under way."""
        self.executor.shutdown()
        if self._descriptor >= 0:
            self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = -1


def finish_atomic_write(volume: int, path: Path, size_bytes: int, *, read_only: bool) -> None:
    """Finish the write that a crash has interrupted, before anybody reads. ``volume`` is open and locked.

    Raises ``UserError`` with one line that names the volume.
    """
    log = log_path(path)
    try:
        with log.open("rb") as file:
            header = file.read(_HEADER.size)
            if any(byte not in (0, ours) for byte, ours in zip(header, _MAGIC, strict=False)):
                return  # somebody else's; ours may have been cut short, or half cleared
            found = _decode(header, file)
        if found is not None and found[0] + len(found[1]) <= size_bytes:
            if read_only:
                raise UserError(f"volume file {path}: {log.name} has a write to finish: serve it writable once")
            _write_durably(volume, *found)
        if not read_only:
            log.unlink()
            sync_parent_directory(log)
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"volume file {path}: cannot finish the write in {log.name}: {error.strerror}") from error


def _record(offset_bytes: int, data: Buffer) -> bytes:
    checksum = crc32(data, crc32(_PLACE.pack(offset_bytes, len(data))))
    return b"".join((_HEADER.pack(_MAGIC, offset_bytes, len(data), checksum), data))


def _decode(header: bytes, file: BinaryIO) -> tuple[int, bytes] | None:
    """Offset and data; None when it was not written to its end: then the volume was not touched."""
    if len(header) < _HEADER.size:
        return None
    magic, offset_bytes, length, checksum = _HEADER.unpack(header)
    data = file.read(length)
    expected = crc32(data, crc32(_PLACE.pack(offset_bytes, length)))
    return (offset_bytes, data) if magic == _MAGIC and len(data) == length and checksum == expected else None


def _write_durably(descriptor: int, offset_bytes: int, data: Buffer) -> None:
    view = memoryview(data)
    done = 0
    while done < len(view):
        done += os.pwritev(descriptor, [view[done:]], offset_bytes + done, os.RWF_DSYNC)


def _read_exactly(descriptor: int, offset_bytes: int, length: int) -> bytes:
    data = b""
    while len(data) < length:
        piece = os.pread(descriptor, length - len(data), offset_bytes + len(data))
        if not piece:
            raise OSError(5, "the file is shorter than the volume")
        data += piece
    return data
