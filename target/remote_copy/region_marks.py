"""Marks on regions that may differ, durable before the difference can exist. [C]

A mark is *lasting* when the region is known to differ (not copied yet, or written while suspended), and *passing*
while mirrored writes are under way in it, and until both media have been flushed after them: what a machine's crash
takes out of a page cache is then marked, and a region that is written again and again costs one durable mark, not one
a write. After a restart every mark is lasting: the copies are made equal from the marks.
"""

from asyncio import Lock
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Protocol

from storage_model.differential_bitmap import DifferentialBitmap
from storage_model.volume import VolumeError

PASSING_LIMIT = 4096
"""Marked regions beyond which both media are flushed to forget equal ones: what a crash makes a resync copy at most
without need (256 MiB), but for those with writes under way.
"""

AHEAD = 16
"""Regions that are marked together when writes begin to go through the volume in order."""

FURTHER = 64
"""Regions that are marked together when they go on so, before a write comes there: a durable mark per 4 MiB. One write
waits for it, which has been made, and not all those that are under way.
"""


class MarkStore(Protocol):
    """Keeps the bitmap's pages."""

    async def save(self, pages: Mapping[int, bytes]) -> None:
        """Durable on return."""
        ...


class RegionMarks:
    """The differential bitmap of one half, with its way to the medium."""

    def __init__(self, bitmap: DifferentialBitmap, store: MarkStore) -> None:
        self.bitmap = bitmap
        self._store = store
        self._passing: dict[int, int] = {}  # region -> mirrored writes under way in it
        self._forgettable: set[int] = set()  # equal, and not written since the flush under way began
        self._saving = Lock()
        self._asked = 0
        self._saved = 0
        self._fresh: set[int] = set()  # marked, but not on the medium: no save has begun since
        self._under_way: set[int] = set()  # as well, but the save under way has them
        self._renewed = 0  # how many times all of the bitmap was set anew, and is not on the medium
        self._edge = self._turn = -1  # up to where marks were set ahead, and the region from which on more are due
        self.ahead_due = False
        """Time for :meth:`mark_ahead`."""

    def __len__(self) -> int:
        """How many regions have a lasting mark."""
        return len(self.bitmap) - len(self._passing)

    def lasting(self, region: int) -> bool:
        """True if the region is known to differ."""
        return region in self.bitmap and region not in self._passing

    def next_lasting(self, start: int) -> int | None:
        """The first region at or after ``start`` that is known to differ."""
        region = self.bitmap.next_marked(start)
        while region is not None and region in self._passing:
            region = self.bitmap.next_marked(region + 1)
        return region

    async def begin(self, regions: range) -> None:
        """A mirrored write starts in these regions; they are durably marked on return."""
        if self.begin_marked(regions):
            return
        passing = self._passing
        for region in regions:
            count = passing.get(region)
            if count is not None:
                passing[region] = count + 1
                self._forgettable.discard(region)
            elif self._mark(region):
                passing[region] = 1
                if region - 1 in passing:
                    self._mark_on(region + 1, AHEAD - 1)
        try:
            await self.save()
        except BaseException:
            self.end(regions, equal=True)  # the write does not start
            raise

    def begin_marked(self, regions: range) -> bool:
        """As :meth:`begin` where that need not wait, because all is durably marked already; False: nothing was done."""
        passing = self._passing
        for region in regions:
            if region not in passing and region not in self.bitmap:
                return False
        if (self._fresh or self._under_way or self._renewed) and not self._durable(regions):
            return False
        for region in regions:
            count = passing.get(region)
            if count is not None:
                passing[region] = count + 1
        if self._forgettable:
            self._forgettable.difference_update(regions)
        if self._turn in regions:
            self.ahead_due = True
        return True

    def _durable(self, regions: Iterable[int]) -> bool:
        """True if the marks that these regions have are on the medium."""
        return not self._renewed and self._fresh.isdisjoint(regions) and self._under_way.isdisjoint(regions)

    def _mark(self, region: int) -> bool:
        """True if the region was not marked."""
        fresh = self.bitmap.mark(region)
        if fresh:
            self._fresh.add(region)
        return fresh

    def _mark_on(self, start: int, count: int) -> None:
        """The regions that are likely to be written next: equal so far, and durably marked with the next save."""
        end = min(start + count, self.bitmap.region_count)
        for region in range(start, end):
            if self._mark(region):
                self._passing[region] = 0
        self._edge, self._turn = end, end - count // 2 if end < self.bitmap.region_count else -1

    async def mark_ahead(self) -> None:
        """Writes in order have come near the end of what is marked: go on. Whoever calls has no need of it himself."""
        self.ahead_due = False
        self._mark_on(self._edge, FURTHER)
        with suppress(VolumeError):  # a write that needs one of these marks meets it again
            await self.save()

    def end(self, regions: Iterable[int], *, equal: bool) -> None:
        """A mirrored write ended; ``equal`` if both copies have it."""
        passing = self._passing
        for region in regions:
            count = passing.get(region)
            if count is None:
                continue  # lasting already
            if equal:
                passing[region] = count - 1
            else:
                del passing[region]

    @property
    def crowded(self) -> bool:
        """Time to flush both media and to forget what is equal."""
        return len(self._passing) > PASSING_LIMIT

    def begin_forgetting(self) -> None:
        """Both media are about to be flushed; what is equal and idle now will be so on them."""
        self._forgettable = {region for region, count in self._passing.items() if not count}

    def forget(self) -> None:
        """Both media have been flushed since :meth:`begin_forgetting`: clear what nobody has written meanwhile."""
        for region in self._forgettable:
            del self._passing[region]
            self.bitmap.clear(region)  # reaches the medium with the next save: lazily
        self._forgettable = set()

    async def last(self, regions: Iterable[int]) -> None:
        """A write that is not mirrored starts in these regions; they are durably marked on return."""
        regions = list(regions)
        for region in regions:
            self._forgettable.discard(region)
            self._passing.pop(region, None)
            self._mark(region)
        if not self._durable(regions):
            await self.save()

    def copied(self, region: int) -> None:
        """The region is equal now, in the page caches at least; the caller kept writes out of it meanwhile."""
        if region in self.bitmap:
            self._passing.setdefault(region, 0)

    async def merge(self, bits: bytes) -> None:
        """The other half's marks count here as well; durable on return. Raises ValueError on another size."""
        self.bitmap.union(bits)
        self._all_lasting()
        await self.save()

    async def reset(self, *, marked: bool) -> None:
        """Mark everything or nothing; durable on return."""
        if marked:
            self.bitmap.mark_all()
        else:
            self.bitmap.clear_all()
        self._all_lasting()
        await self.save()

    def _all_lasting(self) -> None:
        self._passing.clear()
        self._forgettable = set()
        self._renewed += 1
        self._turn, self.ahead_due = -1, False

    async def save(self) -> None:
        """Everything marked before this call is durable on return; callers that meet share one write."""
        self._asked += 1
        ticket = self._asked
        async with self._saving:
            if self._saved >= ticket:
                return
            covers, renewed = self._asked, self._renewed
            pages = self.bitmap.take_unsaved()
            self._under_way, self._fresh = self._fresh, set()
            try:
                await self._store.save(pages)
            except BaseException:
                self.bitmap.keep_unsaved(pages)
                self._fresh |= self._under_way
                raise
            finally:
                self._under_way = set()
            self._saved = covers
            self._renewed -= renewed
