"""Which regions of a volume may differ from the other array's copy.

One bit per region, set before a write may make the copies differ and cleared when they are known equal. The bitmap is
plain data; ``target.remote_copy.region_marks`` makes its pages durable.
"""

from collections.abc import Iterable, Iterator

REGION_BYTES = 64 * 1024
PAGE_BYTES = 512
"""The bitmap is saved in pages: one page covers 4,096 regions, 256 MiB of volume."""


class DifferentialBitmap:
    """A set of regions, with the pages that changed since they were last saved.

    Bit ``r & 7`` of byte ``r >> 3`` is region ``r``, which covers bytes ``r * REGION_BYTES`` up to the next region.
    """

    __slots__ = ("_bits", "_count", "_unsaved", "region_count")

    def __init__(self, size_bytes: int) -> None:
        self.region_count = -(-size_bytes // REGION_BYTES)
        page_count = -(-self.region_count // (PAGE_BYTES * 8))
        self._bits = bytearray(page_count * PAGE_BYTES)
        self._count = 0
        self._unsaved: set[int] = set()

    def __len__(self) -> int:
        """How many regions are marked."""
        return self._count

    def __contains__(self, region: int) -> bool:
        return bool(self._bits[region >> 3] & (1 << (region & 7)))

    @staticmethod
    def regions(offset_bytes: int, length_bytes: int) -> range:
        """The regions that a range of bytes touches; none when it is empty."""
        if length_bytes <= 0:
            return range(0)
        return range(offset_bytes // REGION_BYTES, (offset_bytes + length_bytes - 1) // REGION_BYTES + 1)

    def mark(self, region: int) -> bool:
        """Set one region's bit; True if it was clear."""
        byte, bit = region >> 3, 1 << (region & 7)
        if self._bits[byte] & bit:
            return False
        self._bits[byte] |= bit
        self._count += 1
        self._unsaved.add(byte // PAGE_BYTES)
        return True

    def clear(self, region: int) -> bool:
        """Clear one region's bit; True if it was set."""
        byte, bit = region >> 3, 1 << (region & 7)
        if not self._bits[byte] & bit:
            return False
        self._bits[byte] &= ~bit
        self._count -= 1
        self._unsaved.add(byte // PAGE_BYTES)
        return True

    def mark_all(self) -> None:
        """Set every region's bit."""
        self._replace(((1 << self.region_count) - 1).to_bytes(len(self._bits), "little"))

    def clear_all(self) -> None:
        """Clear every region's bit."""
        self._replace(bytes(len(self._bits)))

    def union(self, bits: bytes) -> None:
        """Set the bits of another bitmap, given as :meth:`to_bytes`; raises ValueError on another size."""
        if len(bits) != len(self._bits):
            raise ValueError(f"a bitmap of {len(bits)} bytes for a volume that has {len(self._bits)}")
        merged = int.from_bytes(self._bits, "little") | int.from_bytes(bits, "little")
        self._replace(merged.to_bytes(len(self._bits), "little"))

    def to_bytes(self) -> bytes:
        """All bits, a whole number of pages."""
        return bytes(self._bits)

    def load(self, bits: bytes) -> None:
        """Take over saved bits; nothing is left to save. Raises ValueError on another size."""
        if len(bits) != len(self._bits):
            raise ValueError(f"a bitmap of {len(bits)} bytes for a volume that needs {len(self._bits)}")
        self._replace(bits)
        self._unsaved.clear()

    def next_marked(self, start: int) -> int | None:
        """The first marked region at or after ``start``."""
        region = start
        while region < self.region_count:
            if not region & 7:
                region = self._skip_clear_bytes(region)
                if region >= self.region_count:
                    return None
            if region in self:
                return region
            region += 1
        return None

    def _skip_clear_bytes(self, region: int) -> int:
        byte = region >> 3
        rest = memoryview(self._bits)[byte : byte + PAGE_BYTES]
        while len(rest) and not any(rest):
            byte += len(rest)
            rest = memoryview(self._bits)[byte : byte + PAGE_BYTES]
        while byte < len(self._bits) and not self._bits[byte]:
            byte += 1
        return byte << 3

    def __iter__(self) -> Iterator[int]:
        region = self.next_marked(0)
        while region is not None:
            yield region
            region = self.next_marked(region + 1)

    def take_unsaved(self) -> dict[int, bytes]:
        """The pages that changed since the last call: page number to its bytes."""
        pages = {page: bytes(self._bits[page * PAGE_BYTES : (page + 1) * PAGE_BYTES]) for page in self._unsaved}
        self._unsaved.clear()
        return pages

    def keep_unsaved(self, pages: Iterable[int]) -> None:
        """These pages could not be saved after all."""
        self._unsaved.update(pages)

    def _replace(self, bits: bytes) -> None:
        for page in range(len(bits) // PAGE_BYTES):
            start, end = page * PAGE_BYTES, (page + 1) * PAGE_BYTES
            if self._bits[start:end] != bits[start:end]:
                self._unsaved.add(page)
        self._bits[:] = bits
        self._count = int.from_bytes(bits, "little").bit_count()
