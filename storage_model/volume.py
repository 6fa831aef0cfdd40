"""The Volume port: what the SCSI side needs of storage, and the errors storage may answer with.

Everything that holds blocks (memory, a file, a replicated half of a pair) is a Volume, so that filters stack: the
SCSI block commands do not know whether a write crosses a link. Offsets and lengths are in bytes and always a multiple
of ``block_length``; the caller has checked them against ``size_bytes``.
"""

from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar, runtime_checkable

Buffer: TypeAlias = bytes | bytearray | memoryview
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class FileRange:
    """Data that lies in a file: whoever wants it reads it from there, or has the kernel send it from there."""

    descriptor: int
    offset_bytes: int
    length_bytes: int

    def __len__(self) -> int:
        return self.length_bytes

    def part(self, start: int, end: int) -> "FileRange":
        """The bytes from ``start`` to before ``end`` of it."""
        return FileRange(self.descriptor, self.offset_bytes + start, end - start)


class VolumeError(Exception):
    """Base of what a Volume raises; the device server turns each into its sense code."""


class MediumFailure(VolumeError):
    """The medium failed: MEDIUM ERROR. ``offset_bytes`` is where, when it is known: it becomes the LBA in the sense."""

    def __init__(self, *args: object, offset_bytes: int | None = None) -> None:
        super().__init__(*args)
        self.offset_bytes = offset_bytes


class SpaceExhausted(VolumeError):
    """The backing store is full: DATA PROTECT, SPACE ALLOCATION FAILED WRITE PROTECT (27h/07h)."""


class ReplicationRefused(VolumeError):
    """A write that the fence level does not allow to go unmirrored: DATA PROTECT / WRITE PROTECTED (27h/00h)."""


class NotReady(VolumeError):
    """The data exists but cannot be had now (a region lives only at an unreachable peer): NOT READY (04h/00h)."""


@dataclass(frozen=True, slots=True)
class Extent:
    """A run of bytes that is either allocated (``mapped``) or a hole that reads as zeros."""

    offset_bytes: int
    length_bytes: int
    mapped: bool


class Volume(Protocol):
    """Random access to blocks. A write is visible to the next read when it returns; durable after flush or ``fua``."""

    @property
    def size_bytes(self) -> int: ...

    @property
    def block_length(self) -> int: ...

    async def read(self, offset_bytes: int, length_bytes: int) -> Buffer: ...

    async def write(self, offset_bytes: int, data: Buffer, *, fua: bool = False) -> None: ...

    async def flush(self) -> None: ...

    async def unmap(self, offset_bytes: int, length_bytes: int) -> None:
        """Make the range a hole; it reads as zeros afterwards."""
        ...

    async def block_status(self, offset_bytes: int, length_bytes: int) -> Sequence[Extent]: ...

    async def close(self) -> None: ...


@runtime_checkable
class DirectVolume(Protocol):
    """A volume that can often read or write without waiting: then a command needs no coroutine at all."""

    def read_now(self, offset_bytes: int, length_bytes: int) -> Buffer | None:
        """As ``read``; None: it would have to wait."""
        ...

    def lend_now(self, offset_bytes: int, length_bytes: int) -> FileRange | None:
        """Where the data can be read without waiting, to be used at once; None: it would have to wait, or is no file.

        Who sends it from there sends what the file has when it leaves, which may be later than now.
        """
        ...

    def write_now(self, offset_bytes: int, data: Buffer) -> bool:
        """As ``write`` without ``fua``; False: nothing was written, since it would have to wait."""
        ...


@runtime_checkable
class MirroredVolume(Protocol):
    """A volume of which there is a copy elsewhere, which is often all that a write has to wait for."""

    def write_soon(self, offset_bytes: int, data: Buffer, result: T) -> Coroutine[Any, Any, T] | None:
        """As ``write`` without ``fua``: every read finds it from now on. What has to be awaited to its end gives
        ``result``, so that a command needs no coroutine of its own; it raises VolumeError. None: nothing was begun.
        """
        ...


@runtime_checkable
class AtomicVolume(Protocol):
    """A volume that can also write all or nothing (SBC-4 4.29): whatever ends it, no mixture is ever found there."""

    async def write_atomic(self, offset_bytes: int, data: Buffer) -> None:
        """Durable on return. After an error, or the loss of power or of the process, all of ``data`` is there or none.

        The caller keeps every other access to the range out meanwhile.
        """
        ...

    async def forget_atomic_writes(self) -> None:
        """Overwrite what past atomic writes left outside the blocks of the volume (SBC-3 4.11: SANITIZE)."""
        ...


@runtime_checkable
class KeyedVolume(Protocol):
    """A volume whose medium holds its data encrypted."""

    async def replace_key(self) -> None:
        """Another key for all that is written from now on; what was written before cannot be read by anybody again.

        Durable on return. The caller keeps every other access out meanwhile.
        """
        ...
