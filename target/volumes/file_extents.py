"""Which parts of a file are data and which are holes. [IO]"""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from storage_model.volume import Extent

MAXIMUM_EXTENTS = 4096
"""An answer stops after this many: one that ends early is continued by asking from its end."""


class FileExtents:
    """For threads. Whoever makes holes says so (:meth:`changing`).

    To say where data ends, the kernel looks at all of it, which may be the whole file. Whoever asks for a long run part
    by part has it looked at once.
    """

    def __init__(self, descriptor: int, block_length: int) -> None:
        self._descriptor = descriptor
        self._block_length = block_length
        self._lock = Lock()
        self._changes = 0
        self._data = range(0)  # found to be data, with no hole made since

    @contextmanager
    def changing(self) -> Iterator[None]:
        """A hole is made inside."""
        self._forget()
        try:
            yield
        finally:
            self._forget()  # what was found meanwhile may be from before

    def _forget(self) -> None:
        with self._lock:
            self._changes += 1
            self._data = range(0)

    def of(self, offset_bytes: int, length_bytes: int) -> list[Extent]:
        """In order, without gaps, as far as they are told."""
        extents: list[Extent] = []
        position, end = offset_bytes, offset_bytes + length_bytes
        while position < end and len(extents) < MAXIMUM_EXTENTS:
            data = min(self._next_data(position), end)
            # A block that is partly allocated counts as mapped: a hole is only what is a hole from end to end.
            data -= data % self._block_length
            if data > position:
                extents.append(Extent(position, data - position, mapped=False))
                position = data
                continue
            hole = min(self._next_hole(position), end)
            hole = min(-(-hole // self._block_length) * self._block_length, end)
            if extents and extents[-1].mapped:  # the next data begins inside the block where the last ended
                first = extents.pop().offset_bytes
                extents.append(Extent(first, hole - first, mapped=True))
            else:
                extents.append(Extent(position, hole - position, mapped=True))
            position = hole
        return extents

    def _next_data(self, position: int) -> int:
        return position if position in self._data else self._seek(position, os.SEEK_DATA)

    def _next_hole(self, position: int) -> int:
        known = self._data
        if position in known:
            return known.stop
        changes = self._changes
        hole = self._seek(position, os.SEEK_HOLE)
        with self._lock:
            if changes == self._changes:
                self._data = range(position, hole)
        return hole

    def _seek(self, position: int, whence: int) -> int:
        """The descriptor's own position is otherwise unused."""
        try:
            return os.lseek(self._descriptor, position, whence)
        except OSError as error:
            if error.errno == errno.ENXIO:  # no data after this
                return sys.maxsize
            raise
