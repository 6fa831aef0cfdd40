"""What can leave through a socket: bytes in memory, or a range of a file in their place."""

from typing import TypeAlias

from storage_model.volume import Buffer, FileRange

Sendable: TypeAlias = Buffer | FileRange


def part_of(data: Sendable, start: int, end: int) -> Sendable:
    """The bytes from ``start`` to before ``end``, not copied."""
    return data.part(start, end) if isinstance(data, FileRange) else memoryview(data)[start:end]
