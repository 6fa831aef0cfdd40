"""A volume in memory with a page cache before its medium: a loss of power takes what was not flushed."""

import asyncio

from storage_model.differential_bitmap import REGION_BYTES
from storage_model.pair_state import FenceLevel
from storage_model.volume import Buffer
from target.volumes.memory_volume import MemoryVolume
from tests.unit.pair_in_memory import HeldVolume, Pair


class VolatileVolume(HeldVolume):
    """Flushes wait while ``hold_flush`` is clear; they keep what was written before they began."""

    def __init__(self) -> None:
        super().__init__()
        self._medium = bytearray(self.size_bytes)
        self.hold_flush = asyncio.Event()
        self.hold_flush.set()
        self.flushing = asyncio.Event()

    async def write(self, offset_bytes: int, data: Buffer, *, fua: bool = False) -> None:
        await super().write(offset_bytes, data, fua=fua)
        if fua:
            self._medium[offset_bytes : offset_bytes + len(data)] = data

    async def flush(self) -> None:
        cached = await self.cached()
        self.flushing.set()
        await self.hold_flush.wait()
        self._medium[:] = cached

    async def cached(self) -> bytes:
        """What is read here."""
        return bytes(await super().read(0, self.size_bytes))

    async def lose_power(self) -> None:
        """What the medium has is all that there is; while the array is down."""
        await self.unmap(0, self.size_bytes)
        for start in range(0, self.size_bytes, REGION_BYTES):
            region = bytes(self._medium[start : start + REGION_BYTES])
            if any(region):
                await MemoryVolume.write(self, start, region)  # whatever is held


class VolatilePair(Pair):
    """Both sites have such a volume."""

    def __init__(self, fence: FenceLevel = FenceLevel.NEVER) -> None:
        super().__init__(fence, quorum=False)
        self.volumes = {}
        for site in (self.a, self.b):
            self.volumes[site.name] = site.disk.volume = VolatileVolume()

    async def lose_power(self, name: str) -> None:
        """Of one array, which starts again."""
        site = self.a if name == "a" else self.b
        await site.crash()
        await self.volumes[name].lose_power()
        await site.start()
        await self.connect()
