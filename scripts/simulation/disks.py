"""What an array keeps: volumes, metadata and bitmaps on a simulated disk, with everything that a crash does to them.

A write reaches the page cache, and the medium by a flush or FUA. When the power fails, of what was not flushed any
blocks may be there or not, in any combination; of a transaction or a page that was being saved, all or nothing. When
only the process is killed, the page cache stays.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from scripts.simulation.journal import Journal
from storage_model.differential_bitmap import PAGE_BYTES, REGION_BYTES, DifferentialBitmap
from storage_model.medium_operation import MediumOperation
from storage_model.pair import PairEpoch, PairRecord, decode_nexuses, encode_nexuses
from storage_model.pair_reservation import ReservationRecord
from storage_model.pair_state import PairState
from storage_model.persistent_reservation import PersistentReservation
from storage_model.volume import Extent, MediumFailure, SpaceExhausted

BLOCK = 512


def numbered(value: int, count: int) -> bytes:
    """The data of a write: its number in each block."""
    return value.to_bytes(8).ljust(BLOCK, b"\0") * count


def number_of(block: bytes) -> int:
    """The reverse."""
    return int.from_bytes(block[:8])


@dataclass
class _Save:
    """One transaction or page write, on its way."""

    apply: Callable[[], None]
    torn: Callable[[Random], None]
    done: "asyncio.Future[None]"
    begun: bool = False


class Disk:
    """One array's disk. It outlives the array's processes."""

    def __init__(self, name: str, random: Random, journal: Journal) -> None:
        self.name = name
        self.random = random
        self.journal = journal
        self.volumes: dict[str, SimulatedVolume] = {}
        self.bitmaps: dict[str, bytearray] = {}
        self.records: dict[str, PairRecord] = {}
        self.reservations: dict[str, ReservationRecord] = {}
        self.peers: dict[str, str] = {}
        self.identity = f"{random.getrandbits(64):016x}"
        self.writers: list[_Writer] = []
        self.stalled_until = 0.0
        self.failing = False
        self.slowness = 1.0
        self.tardy = 0.0
        """The chance of a write to need retries inside of the drive, while others pass it."""
        self.saved: Callable[[Mapping[str, PairRecord]], None] = lambda records: None
        """Told of the pair records of each transaction at the moment when it is durable."""
        self.saved_table: Callable[[str, ReservationRecord], None] = lambda pair, record: None
        """The same of each table of persistent reservations."""
        self.landed: Callable[[str, int], None] = lambda volume, value: None
        """Told of each write of a host that reaches the page cache: the volume, the write's number."""

    def delay(self, seconds: float) -> float:
        """How long an operation takes that usually takes so many seconds."""
        now = asyncio.get_running_loop().time()
        return max(0.0, self.stalled_until - now) + seconds * self.slowness * self.random.expovariate(1.0)

    def crash(self, *, power: bool) -> None:
        """The array's process is gone, and with ``power`` the page cache as well."""
        for writer in self.writers:
            writer.crash()
        self.writers.clear()
        for volume in self.volumes.values():
            volume.crash(power=power)


class _Writer:
    """A thread that makes one thing after the other durable."""

    def __init__(self, disk: Disk, seconds: float) -> None:
        self._disk = disk
        self._seconds = seconds
        self._queue: deque[_Save] = deque()
        disk.writers.append(self)

    async def save(self, apply: Callable[[], None], torn: Callable[[Random], None]) -> None:
        save = _Save(apply, torn, asyncio.get_running_loop().create_future())
        self._queue.append(save)
        if len(self._queue) == 1:
            self._begin()
        await save.done

    def _begin(self) -> None:
        while self._queue and self._queue[0].done.cancelled():
            self._queue.popleft()
        if self._queue:
            self._queue[0].begun = True
            asyncio.get_running_loop().call_later(self._disk.delay(self._seconds), self._end)

    def _end(self) -> None:
        save = self._queue.popleft()
        if self._disk.failing and self._disk.random.random() < 0.3:
            if not save.done.done():
                save.done.set_exception(MediumFailure("simulated"))
        else:
            save.apply()
            if not save.done.done():
                save.done.set_result(None)
        self._begin()

    def crash(self) -> None:
        for save in self._queue:
            if save.begun:
                save.torn(self._disk.random)


class SimulatedVolume:
    """Implements ``storage_model.volume.Volume``, and of ``DirectVolume`` the writes: about every other one."""

    def __init__(self, disk: Disk, name: str, size_bytes: int) -> None:
        self._disk = disk
        self._name = name
        self.size_bytes = size_bytes
        self.block_length = BLOCK
        self.live = bytearray(size_bytes)
        self._durable = bytearray(size_bytes)
        self._mapped = [False] * -(-size_bytes // REGION_BYTES)
        self._unflushed: deque[tuple[int, int, bytes]] = deque()
        self._under_way: dict[int, tuple[int, bytes]] = {}
        self._count = 0

    @property
    def idle(self) -> bool:
        """No write is under way."""
        return not self._under_way

    async def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        if self._disk.random.random() < 0.3 or self._disk.stalled_until > asyncio.get_running_loop().time():
            await asyncio.sleep(self._disk.delay(0.0003))
        self._may_fail()
        return bytes(memoryview(self.live)[offset_bytes : offset_bytes + length_bytes])

    async def write(self, offset_bytes: int, data: Any, *, fua: bool = False) -> None:
        await self._write(offset_bytes, bytes(data), fua=fua)

    def write_now(self, offset_bytes: int, data: Any) -> bool:
        disk, count = self._disk, len(data)
        waits = disk.stalled_until > asyncio.get_running_loop().time() or disk.tardy
        if waits or disk.failing or count >= REGION_BYTES or number_of(bytes(data[:BLOCK])) & 1:
            return False
        self._put(offset_bytes, bytes(data))
        self._count += 1
        self._unflushed.append((self._count, offset_bytes, bytes(data)))
        return True

    def read_now(self, offset_bytes: int, length_bytes: int) -> None:
        """Reads always wait."""

    def lend_now(self, offset_bytes: int, length_bytes: int) -> None:
        """There is no file."""

    async def unmap(self, offset_bytes: int, length_bytes: int) -> None:
        await self._write(offset_bytes, bytes(length_bytes), fua=False)

    async def _write(self, offset: int, data: bytes, *, fua: bool) -> None:
        self._count += 1
        number = self._count
        self._under_way[number] = (offset, data)
        try:
            late = self._disk.random.random() < self._disk.tardy
            await asyncio.sleep(self._disk.delay(0.0002) + (2.0 * self._disk.random.random() if late else 0.0))
            self._may_fail()
            self._put(offset, data)
            self._count += 1
            self._unflushed.append((self._count, offset, data))
        finally:
            self._under_way.pop(number, None)
        if fua:
            await self.flush()

    def _put(self, offset: int, data: bytes, whole_bytes: int = 0) -> None:
        """``whole_bytes``: of the write that it is a part of."""
        if max(len(data), whole_bytes) < REGION_BYTES:  # what is copied comes in whole regions
            self._disk.landed(self._name, number_of(data))
        self.live[offset : offset + len(data)] = data
        if any(data):
            for region in range(offset // REGION_BYTES, (offset + len(data) - 1) // REGION_BYTES + 1):
                self._mapped[region] = True

    async def flush(self) -> None:
        last = self._count
        await asyncio.sleep(self._disk.delay(0.002))
        self._may_fail()
        while self._unflushed and self._unflushed[0][0] <= last:
            _, offset, data = self._unflushed.popleft()
            self._durable[offset : offset + len(data)] = data

    def _may_fail(self) -> None:
        if self._disk.failing and self._disk.random.random() < 0.3:
            raise SpaceExhausted("simulated") if self._disk.random.random() < 0.3 else MediumFailure("simulated")

    async def block_status(self, offset_bytes: int, length_bytes: int) -> Sequence[Extent]:
        extents = []
        end = offset_bytes + length_bytes
        for region in range(offset_bytes // REGION_BYTES, (end - 1) // REGION_BYTES + 1):
            start, stop = max(offset_bytes, region * REGION_BYTES), min(end, (region + 1) * REGION_BYTES)
            extents.append(Extent(start, stop - start, self._mapped[region]))
        return extents

    async def close(self) -> None:
        await self.flush()

    def crash(self, *, power: bool) -> None:
        """Writes under way leave some of their blocks, and the power takes any blocks that were not flushed."""
        random = self._disk.random
        for offset, data in self._under_way.values():
            for start in range(0, len(data), BLOCK):
                if random.random() < 0.5:
                    piece = data[start : start + BLOCK]
                    self._put(offset + start, piece, len(data))
                    self._unflushed.append((self._count, offset + start, piece))
        self._under_way.clear()
        if not power:
            return
        for _, offset, data in self._unflushed:
            for start in range(0, len(data), BLOCK):
                if random.random() < 0.5:
                    self._durable[offset + start : offset + start + BLOCK] = data[start : start + BLOCK]
        self._unflushed.clear()
        self.live[:] = self._durable
        for region in range(len(self._mapped)):
            self._mapped[region] = any(self.live[region * REGION_BYTES : (region + 1) * REGION_BYTES])


@dataclass(frozen=True)
class Place:
    """A file's name on a disk; what ``Path`` is to an array on a real one."""

    disk: Disk
    parts: tuple[str, ...] = field(default=())

    def __truediv__(self, name: str) -> "Place":
        return Place(self.disk, (*self.parts, name))


class SimulatedBitmapFile:
    """Stands for ``target.volumes.bitmap_file.BitmapFile``."""

    def __init__(self, place: Place) -> None:
        self._disk = place.disk
        self._name = "/".join(place.parts)
        self._writer = _Writer(place.disk, 0.001)

    def load(self, bitmap: DifferentialBitmap, *, paired: bool) -> bool:
        saved = self._disk.bitmaps.get(self._name)
        if saved is None:
            assert not paired, "no bitmap is ever lost here"
            self._disk.bitmaps[self._name] = bytearray(len(bitmap.to_bytes()))
            return False
        bitmap.load(bytes(saved))
        return True

    async def save(self, pages: Mapping[int, bytes]) -> None:
        saved = self._disk.bitmaps.setdefault(self._name, bytearray())

        def apply() -> None:
            for page in sorted(pages):
                saved[page * PAGE_BYTES : (page + 1) * PAGE_BYTES] = pages[page]

        def torn(random: Random) -> None:
            for page in sorted(pages):
                if random.random() < 0.5:
                    saved[page * PAGE_BYTES : (page + 1) * PAGE_BYTES] = pages[page]

        if pages:
            await self._writer.save(apply, torn)

    def close(self) -> None:
        """Nothing is left to do."""


class SimulatedMetadata:
    """Stands for ``target.metadata_store.MetadataStore``, as far as an array with pairs asks it."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._writer = _Writer(disk, 0.003)
        self.identity = disk.identity

    def load_peer(self, serial: str) -> str | None:
        return self._disk.peers.get(serial)

    async def save_peer(self, serial: str, identity: str) -> None:
        await self._commit(lambda: self._disk.peers.__setitem__(serial, identity))

    def load_operations(self) -> dict[str, MediumOperation]:
        return {}

    async def save_operation(self, volume_name: str, operation: MediumOperation | None) -> None:
        raise AssertionError("nobody sanitizes here")

    def load_pair(self, name: str) -> PairRecord:
        return self._disk.records.get(name, PairRecord())

    async def save_pair(self, name: str, record: PairRecord) -> None:
        await self.save_pairs({name: record})

    async def save_pairs(self, records: Mapping[str, PairRecord]) -> None:
        kept = {
            name: PairRecord(
                PairEpoch.decode(record.decided.encode()),
                record.state,
                None if record.accepted is None else PairEpoch.decode(record.accepted.encode()),
                record.equal,
                decode_nexuses(encode_nexuses(record.withdrawn)),
                record.swap_in_doubt,
            )
            for name, record in records.items()
        }

        def apply() -> None:
            self._disk.records.update(kept)
            for name, record in kept.items():
                if record.state is PairState.SMPL:
                    self._disk.reservations.pop(name, None)
            self._disk.saved(kept)

        await self._commit(apply)

    def load_pair_reservation(self, name: str) -> ReservationRecord:
        return self._disk.reservations.get(name, ReservationRecord())

    async def save_pair_reservation(self, name: str, record: ReservationRecord) -> None:
        def apply() -> None:
            self._disk.reservations[name] = record
            self._disk.saved_table(name, record)

        await self._commit(apply)

    async def _commit(self, apply: Callable[[], None]) -> None:
        def torn(random: Random) -> None:
            if random.random() < 0.5:
                apply()

        await self._writer.save(apply, torn)

    def load_reservation(self, volume: str, file: str = "") -> PersistentReservation:
        return PersistentReservation()

    async def save_reservation(self, volume: str, reservation: PersistentReservation | None, file: str = "") -> None:
        raise AssertionError("there are no persistent reservations here")

    def close(self) -> None:
        """Nothing is left to do."""


def as_path(place: Place) -> Path:
    """For the types: an array only appends names to it."""
    path: Any = place
    result: Path = path
    return result
