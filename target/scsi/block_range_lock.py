"""Keeps other writes out of the blocks of a COMPARE AND WRITE, ORWRITE or WRITE ATOMIC (SBC-3 5.2, SBC-4 4.29). [C]

Ordinary writes share: they run beside each other whatever they overlap, as simple commands may. Those three are
exclusive in their range: one waits for the writes under way there, and later ones wait for it. Reads stay outside
until the unit sees its first WRITE ATOMIC, whose parts nobody may see.
"""

from asyncio import Event


class BlockRange:
    """Blocks ``first`` up to, not including, ``end``, held until :meth:`BlockRangeLock.release`."""

    __slots__ = ("end", "exclusive", "first", "released")

    def __init__(self, first: int, end: int, exclusive: bool) -> None:
        self.first = first
        self.end = end
        self.exclusive = exclusive
        self.released: Event | None = None  # made by the first one who waits: nearly never

    def overlaps(self, first: int, end: int) -> bool:
        return first < self.end and self.first < end


class BlockRangeLock:
    """The ranges being written in one logical unit. As many as there are tasks in its task set at most."""

    __slots__ = ("_shared", "exclusive", "reads_guarded")

    def __init__(self) -> None:
        self._shared: set[BlockRange] = set()
        self.exclusive: list[BlockRange] = []
        """Empty but for the moments of an exclusive command: then :meth:`enter` needs no waiting."""
        self.reads_guarded: Event | None = None
        """Made by the unit's first WRITE ATOMIC: from then on reads enter their ranges too. Set when all of them do."""

    def enter(self, first: int, end: int) -> BlockRange:
        """Enter a range for an ordinary write, when ``exclusive`` is empty."""
        held = BlockRange(first, end, False)
        self._shared.add(held)
        return held

    async def share(self, first: int, end: int) -> BlockRange:
        """Enter a range for an ordinary write, after the exclusive holders of it."""
        while self.exclusive:  # again after each wait: another may have come
            holder = next((held for held in self.exclusive if held.overlaps(first, end)), None)
            if holder is None:
                break
            await _released(holder)
        return self.enter(first, end)

    async def exclude(self, first: int, end: int) -> BlockRange:
        """Enter a range alone, after everybody who is in it."""
        # Registered before it waits: later writes queue behind it, so that it cannot starve.
        before = self._overlapping(first, end)
        mine = BlockRange(first, end, True)
        self.exclusive.append(mine)
        try:
            for held in before:
                if held in self._shared or held in self.exclusive:
                    await _released(held)
        except BaseException:
            self.release(mine)
            raise
        return mine

    def exclude_now(self, first: int, end: int) -> BlockRange | None:
        """As :meth:`exclude` when nobody is in the range; None: it would have to wait."""
        for held in self.exclusive:
            if first < held.end and held.first < end:
                return None
        if self._shared and self._overlapping(first, end):
            return None
        mine = BlockRange(first, end, True)
        self.exclusive.append(mine)
        return mine

    def _overlapping(self, first: int, end: int) -> list[BlockRange]:
        before = [held for held in self.exclusive if first < held.end and held.first < end]
        if self._shared:
            before += [held for held in self._shared if first < held.end and held.first < end]
        return before

    def release(self, held: BlockRange) -> None:
        if held.exclusive:
            self.exclusive.remove(held)
        else:
            self._shared.discard(held)
        if held.released is not None:
            held.released.set()


async def _released(held: BlockRange) -> None:
    if held.released is None:
        held.released = Event()
    await held.released.wait()
