"""Marks on regions that may differ, durable before the difference can exist. [C]

A mark is *lasting* when the region is known to differ (not copied yet, or written while suspended), and *passing*
while mirrored writes are under way in it, and until both media have been flushed after them: what a machine's crash
takes out of a page cache is then marked, and a region that is written again and again costs one durable mark, not one
a write. After a restart every mark is lasting: the copies are made equal from the marks.
"""

from asyncio import Lock
from collections.abc import Iterable, Mapping
from typing import Protocol

from storage_model.differential_bitmap import DifferentialBitmap

PASSING_LIMIT = 4096
"""Marked regions beyond which both media are flushed to forget equal ones: what a crash makes a resync copy at most
without need (256 MiB), but for those with writes under way.
"""

AHEAD = 16
"""Regions that are marked together when writes go through the volume in order: one durable mark per MiB."""


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
            elif self.bitmap.mark(region):
                passing[region] = 1
                if region - 1 in passing:
                    self._mark_ahead(region)
        try:
            await self.save()
        except BaseException:
            self.end(regions, equal=True)  # the write does not start
            raise

    def begin_marked(self, regions: range) -> bool:
        """As :meth:`begin` where that need not wait, because all is durably marked already; False: nothing was done."""
        passing = self._passing
        if self._saved != self._asked:
            return False
        for region in regions:
            if region not in passing and region not in self.bitmap:
                return False
        for region in regions:
            count = passing.get(region)
            if count is not None:
                passing[region] = count + 1
        if self._forgettable:
            self._forgettable.difference_update(regions)
        return True

    def _mark_ahead(self, region: int) -> None:
        """The regions that are likely to be written next: equal so far, and durably marked with the same save."""
        for following in range(region + 1, min(region + AHEAD, self.bitmap.region_count)):
            if self.bitmap.mark(following):
                self._passing[following] = 0

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
        fresh = False
        for region in regions:
            self._forgettable.discard(region)
            self._passing.pop(region, None)
            fresh |= self.bitmap.mark(region)
        if fresh or self._saved != self._asked:
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

    async def save(self) -> None:
        """Everything marked before this call is durable on return; callers that meet share one write."""
        self._asked += 1
        ticket = self._asked
        async with self._saving:
            if self._saved >= ticket:
                return
            covers = self._asked
            pages = self.bitmap.take_unsaved()
            try:
                await self._store.save(pages)
            except BaseException:
                self.bitmap.keep_unsaved(pages)
                raise
            self._saved = covers
