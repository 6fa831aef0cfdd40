"""A volume in memory: sparse, so that a large one costs nothing until it is written. [C]"""

from collections.abc import Sequence

from storage_model.volume import Buffer, Extent

CHUNK_BYTES = 64 << 10


class _Chunk:
    """Storage of one chunk, and a bit for each of its blocks that has been written."""

    __slots__ = ("data", "mapped")

    def __init__(self) -> None:
        self.data = bytearray(CHUNK_BYTES)
        self.mapped = 0


def _bits(first: int, count: int) -> int:
    return ((1 << count) - 1) << first


class MemoryVolume:
    """``size_bytes`` is a multiple of ``block_length``, which divides 64 KiB. Contents end with the process.

    Nothing here waits, and nothing is lost but with everything else: flush and FUA have nothing to do.
    """

    def __init__(self, size_bytes: int, block_length: int = 512) -> None:
        if CHUNK_BYTES % block_length or size_bytes % block_length or size_bytes <= 0:
            raise ValueError(f"{size_bytes} bytes are not a whole number of {block_length}-byte blocks")
        self._size_bytes = size_bytes
        self._block_length = block_length
        self._chunks: dict[int, _Chunk] = {}

    @property
    def size_bytes(self) -> int:
        return self._size_bytes

    @property
    def block_length(self) -> int:
        return self._block_length

    async def grow(self, size_bytes: int) -> None:
        """To a larger size; the new blocks read as zeros."""
        assert size_bytes > self._size_bytes and not size_bytes % self._block_length
        self._size_bytes = size_bytes

    async def read(self, offset_bytes: int, length_bytes: int) -> Buffer:
        index, start = divmod(offset_bytes, CHUNK_BYTES)
        end = start + length_bytes
        if end <= CHUNK_BYTES:  # the usual case
            chunk = self._chunks.get(index)
            return bytes(length_bytes) if chunk is None else bytes(memoryview(chunk.data)[start:end])
        result = bytearray(length_bytes)
        for index, start, done, count in _pieces(offset_bytes, length_bytes):
            chunk = self._chunks.get(index)
            if chunk is not None:
                result[done : done + count] = memoryview(chunk.data)[start : start + count]
        return result

    async def write(self, offset_bytes: int, data: Buffer, *, fua: bool = False) -> None:
        index, start = divmod(offset_bytes, CHUNK_BYTES)
        end = start + len(data)
        if end <= CHUNK_BYTES:  # the usual case
            chunk = self._chunks.get(index)
            if chunk is None:
                chunk = self._chunks[index] = _Chunk()
            chunk.data[start:end] = data
            chunk.mapped |= _bits(start // self._block_length, len(data) // self._block_length)
            return
        source = memoryview(data)
        for index, start, done, count in _pieces(offset_bytes, len(source)):
            chunk = self._chunks.get(index)
            if chunk is None:
                chunk = self._chunks[index] = _Chunk()
            chunk.data[start : start + count] = source[done : done + count]
            chunk.mapped |= _bits(start // self._block_length, count // self._block_length)

    async def write_atomic(self, offset_bytes: int, data: Buffer) -> None:
        """As a write: nobody else runs meanwhile, and there is nothing that could be found after the process."""
        await self.write(offset_bytes, data)

    async def forget_atomic_writes(self) -> None:
        return

    async def flush(self) -> None:
        return

    async def unmap(self, offset_bytes: int, length_bytes: int) -> None:
        first, end = offset_bytes // CHUNK_BYTES, -(-(offset_bytes + length_bytes) // CHUNK_BYTES)
        # Of a range far larger than what is written, only what is written is visited.
        touched = range(first, end) if end - first <= len(self._chunks) else list(self._chunks)
        for index in touched:
            chunk = self._chunks.get(index)
            if chunk is None or not first <= index < end:
                continue
            start = max(offset_bytes - index * CHUNK_BYTES, 0)
            stop = min(offset_bytes + length_bytes - index * CHUNK_BYTES, CHUNK_BYTES)
            chunk.mapped &= ~_bits(start // self._block_length, (stop - start) // self._block_length)
            if chunk.mapped:
                chunk.data[start:stop] = bytes(stop - start)
            else:
                del self._chunks[index]

    async def block_status(self, offset_bytes: int, length_bytes: int) -> Sequence[Extent]:
        end = offset_bytes + length_bytes
        runs: list[tuple[int, int]] = []  # mapped, ascending
        for index in sorted(self._chunks):
            base = index * CHUNK_BYTES
            if base + CHUNK_BYTES <= offset_bytes or base >= end:
                continue
            for start, stop in self._mapped_runs(self._chunks[index].mapped):
                low, high = max(base + start, offset_bytes), min(base + stop, end)
                if low >= high:
                    continue
                if runs and runs[-1][1] == low:
                    runs[-1] = (runs[-1][0], high)
                else:
                    runs.append((low, high))
        return _extents(offset_bytes, end, runs)

    def _mapped_runs(self, mapped: int) -> list[tuple[int, int]]:
        """Runs of set bits, as byte ranges inside a chunk."""
        runs = []
        position = 0
        while mapped:
            skip = (mapped & -mapped).bit_length() - 1
            mapped >>= skip
            count = (~mapped & (mapped + 1)).bit_length() - 1
            mapped >>= count
            start = position + skip
            runs.append((start * self._block_length, (start + count) * self._block_length))
            position = start + count
        return runs

    async def close(self) -> None:
        self._chunks.clear()


def _pieces(offset_bytes: int, length_bytes: int) -> list[tuple[int, int, int, int]]:
    """(chunk index, start in the chunk, start in the transfer, length) for each chunk of a range."""
    pieces = []
    done = 0
    while done < length_bytes:
        index, start = divmod(offset_bytes + done, CHUNK_BYTES)
        count = min(CHUNK_BYTES - start, length_bytes - done)
        pieces.append((index, start, done, count))
        done += count
    return pieces


def _extents(offset_bytes: int, end: int, mapped_runs: list[tuple[int, int]]) -> list[Extent]:
    extents = []
    position = offset_bytes
    for start, stop in mapped_runs:
        if position < start:
            extents.append(Extent(position, start - position, mapped=False))
        extents.append(Extent(start, stop - start, mapped=True))
        position = stop
    if position < end:
        extents.append(Extent(position, end - position, mapped=False))
    return extents
