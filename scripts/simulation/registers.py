"""Checks what hosts read against what they were told of their writes: each block is a register.

A block may read as its last acknowledged write, or as any write that overlapped or followed it and whose outcome is
unknown. Both halves of a pair are one register, until a split opens the S-VOL for writes; a resync makes them one again
with the values of the side that is good.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from scripts.simulation.journal import Journal
from storage_model.pair import PairEpoch
from storage_model.pair_state import PairState, Side

NAMED_SECONDS = 30.0
"""So long an operator's word may take effect."""


class Outcome(Enum):
    """What a host knows of its write."""

    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused before it touched the medium"
    UNKNOWN = "unknown"


@dataclass
class _Block:
    allowed: dict[int, None] = field(default_factory=lambda: {0: None})
    anything: bool = False
    writing: dict[int, None] = field(default_factory=dict)
    readers: dict[int, "Read"] = field(default_factory=dict)
    volatile: dict[int, None] = field(default_factory=dict)
    """What was overwritten, but may be back after a loss of power: nobody has flushed since."""
    volatile_anything: bool = False
    acknowledged_at: int = 0

    def allow(self, value: int) -> None:
        self.allowed[value] = None
        for reader in self.readers.values():
            reader.seen[value] = None

    def acknowledged(self, value: int, overlapping: dict[int, None], now: int) -> None:
        self.volatile_anything |= self.anything
        self.anything = False
        self.acknowledged_at = now
        self.volatile.update(self.allowed)
        self.allowed = {
            other: None for other in self.allowed if other == value or other in self.writing or other in overlapping
        }

    def flushed(self, since: int) -> None:
        if self.acknowledged_at < since and not self.writing:
            self.volatile.clear()
            self.volatile_anything = False

    def lost_power(self) -> None:
        self.anything |= self.volatile_anything
        for value in self.volatile:
            self.allow(value)

    def copy(self) -> "_Block":
        return _Block(
            dict(self.allowed),
            self.anything,
            volatile=dict(self.volatile),
            volatile_anything=self.volatile_anything,
        )


class _Register:
    """All blocks of one side, or of both."""

    def __init__(self, anything: bool = False) -> None:
        self._anything = anything
        self._blocks: dict[int, _Block] = {}

    def block(self, lba: int) -> _Block:
        block = self._blocks.get(lba)
        if block is None:
            block = self._blocks[lba] = _Block(anything=self._anything)
        return block

    def copy(self) -> "_Register":
        other = _Register(self._anything)
        other._blocks = {lba: block.copy() for lba, block in self._blocks.items()}
        return other

    def blocks(self) -> list[_Block]:
        return list(self._blocks.values())

    def lost_power(self, kept: set[int]) -> None:
        """But for the blocks in ``kept``."""
        for lba, block in self._blocks.items():
            if lba not in kept:
                block.lost_power()

    def unite(self, other: "_Register") -> None:
        for lba in sorted({*self._blocks, *other._blocks}):
            block = self.block(lba)
            block.anything |= other.block(lba).anything
            for value in other.block(lba).allowed:
                block.allow(value)


@dataclass
class Write:
    """A write under way: ``blocks`` get ``value``."""

    pair: str
    serial: str
    lbas: range
    value: int
    register: _Register
    overlapping: list[dict[int, None]]
    decisions: int
    """How many epochs of the pair had been decided when it began."""
    power_lost: bool = False
    """The array lost its power meanwhile: an acknowledgement that comes now may be older."""
    moved: bool = False
    """The array's register has changed meanwhile, and maybe changed back."""
    image_lost: bool = False
    """The S-VOL's array did."""


@dataclass
class Read:
    """A read of one block under way; ``seen`` is all that it may find."""

    pair: str
    serial: str
    lba: int
    number: int
    register: _Register
    where: object
    anything: bool
    seen: dict[int, None]


class Registers:
    """Of all pairs. ``where`` tells the role and epoch of an array's half, as far as it runs; ``mirrors`` whether it is
    the P-VOL of a pair in PAIR. ``strict``: after a forced takeover an operator has to name the good
    side, even if it is the one that was taken over."""

    def __init__(
        self,
        journal: Journal,
        serials: tuple[str, str],
        pairs: tuple[str, ...],
        where: Callable[[str, str], object],
        mirrors: Callable[[str, str], bool],
        *,
        strict: bool = False,
    ) -> None:
        self._journal = journal
        self._serials = serials
        self._where = where
        self._mirrors = mirrors
        self._strict = strict
        self._side = {(pair, serial): _Register() for pair in pairs for serial in serials}
        self._writes: dict[int, Write] = {}
        self._unknown: dict[int, Write] = {}
        """Ended for their hosts, but maybe not at the array, until the host writes there again: its next session waits
        for what is left of the one before."""
        self._acknowledged = {(pair, serial): 0 for pair in pairs for serial in serials}
        self._decisions = dict.fromkeys(pairs, 0)
        self._image = {pair: _Register() for pair in pairs}
        """Of the S-VOL, if mirroring stopped now and it is whole: what was acknowledged, and whatever was under way."""
        self._image_behind: set[str] = set()
        """Pairs whose S-VOL's array has lost its power in this epoch, which the P-VOL's may not have noticed."""
        self._kept: dict[str, set[int]] = {}
        """While a swap fetches: the blocks that its P-VOL has acknowledged, which the source's medium has as well."""
        self._named: list[tuple[float, str, str]] = []
        self._parted: set[str] = set()
        """Pairs whose halves both have writes of their own, by force, until an operator has named the good one."""
        self._numbers = 0
        self.checked = 0

    # ----------------------------------------------------------------------------------------------- what hosts do

    def begin_write(self, pair: str, serial: str, lbas: range, value: int) -> Write:
        register = self._side[pair, serial]
        write = Write(
            pair,
            serial,
            lbas,
            value,
            register,
            [dict(register.block(lba).writing) for lba in lbas],
            self._decisions[pair],
        )
        for lba in lbas:
            block = register.block(lba)
            block.allow(value)
            block.writing[value] = None
            if self._mirrors(pair, serial):
                self._image[pair].block(lba).allow(value)
        self._writes[value] = write
        blocks = set(lbas)
        for late in [late for late in self._unknown.values() if late.pair == pair and not blocks.isdisjoint(late.lbas)]:
            del self._unknown[late.value]
        return write

    def landed(self, serial: str, pair: str, value: int) -> None:
        """A host's write has reached the page cache of an array: in a later epoch, if it had to wait so long."""
        late = self._unknown.get(value)
        register = self._side[pair, serial]
        if late is not None and late.register is not register:
            for lba in late.lbas:
                register.block(lba).allow(value)
                self._image[pair].block(lba).allow(value)

    def end_write(self, write: Write, outcome: Outcome) -> None:
        del self._writes[write.value]
        if outcome is Outcome.UNKNOWN:
            self._unknown[write.value] = write
        changed = self._side[write.pair, write.serial] is not write.register or write.moved or write.power_lost
        for lba, overlapping in zip(write.lbas, write.overlapping, strict=True):
            block = write.register.block(lba)
            block.writing.pop(write.value, None)
            if outcome is Outcome.ACKNOWLEDGED and not changed:
                block.acknowledged(write.value, overlapping, self._next())
                if write.decisions == self._decisions[write.pair]:
                    self._kept.get(write.pair, set()).add(lba)
                if self._mirrors(write.pair, write.serial) and not write.image_lost:
                    image = self._image[write.pair].block(lba)
                    image.acknowledged(write.value, {**block.writing, **overlapping}, self._next())
            elif outcome is Outcome.REFUSED and not changed:
                block.allowed.pop(write.value, None)
        if outcome is Outcome.ACKNOWLEDGED and write.decisions == self._decisions[write.pair]:
            self._acknowledged[write.pair, write.serial] += 1

    def begin_flush(self, pair: str, serial: str) -> tuple[int, object]:
        """To be given to :meth:`end_flush`."""
        return self._next(), self._where(pair, serial)

    def end_flush(self, pair: str, serial: str, begun: tuple[int, object]) -> None:
        """What was acknowledged before it began is on both media now; at the S-VOL it means nothing."""
        number, where = begun
        if where is not None and self._where(pair, serial) == where:
            for block in self._side[pair, serial].blocks():
                block.flushed(number)
            if self._mirrors(pair, serial):
                for block in self._image[pair].blocks():
                    block.flushed(number)

    def lost_power(self, serial: str, truth: Callable[[str], PairEpoch], whole: Callable[[str], bool]) -> None:
        """An array's page cache is gone. Of the S-VOL that must not matter, unless it has what nobody else has: after a
        swap, until the P-VOL is ``whole``, what was acknowledged before."""
        for pair, side in self._side:
            if side != serial:
                continue
            value = truth(pair)
            if value.p_serial != serial:
                self._image_behind.add(pair)
                for block in self._image[pair].blocks():
                    block.lost_power()
                for write in self._writes.values():
                    write.image_lost |= write.pair == pair
            register = self._side[pair, serial]
            diverged = len({id(self._side[pair, other]) for other in self._serials}) > 1
            fetched = value.source is Side.S_VOL and not whole(pair)
            alone = value.p_serial in ("", serial) or diverged
            if alone or fetched:
                register.lost_power(set() if alone else self._kept.get(pair, set()))
                for write in self._writes.values():
                    kept = not alone and pair in self._kept and write.decisions == self._decisions[pair]
                    write.power_lost |= write.register is register and not kept

    def _next(self) -> int:
        self._numbers += 1
        return self._numbers

    def begin_read(self, pair: str, serial: str, lbas: range) -> list[Read]:
        register = self._side[pair, serial]
        where = self._where(pair, serial)
        reads = []
        for lba in lbas:
            block = register.block(lba)
            read = Read(pair, serial, lba, self._next(), register, where, block.anything, dict(block.allowed))
            block.readers[read.number] = read
            reads.append(read)
        return reads

    def end_read(self, reads: list[Read], values: list[int] | None) -> None:
        """None: it failed."""
        for read in reads:
            del read.register.block(read.lba).readers[read.number]
        first = reads[0]
        same = self._side[first.pair, first.serial] is first.register
        steady = first.where is not None and self._where(first.pair, first.serial) == first.where
        if values is None or not same or not steady:
            return
        for read, value in zip(reads, values, strict=True):
            self.checked += 1
            if value not in read.seen and not read.anything:
                self._journal.violated(
                    f"{read.pair}: block {read.lba} at array {read.serial} reads {value}, may be {sorted(read.seen)}"
                )

    # ------------------------------------------------------------------------------------------ what becomes of pairs

    def named(self, pair: str, serial: str) -> None:
        """An operator names the array whose data is good."""
        self._named.append((self._journal.clock(), pair, serial))

    def parted(self, pair: str) -> None:
        """See ``Ledger.parted``."""
        self._parted.add(pair)

    def incomplete(self, pair: str, serial: str) -> None:
        """See ``Ledger.incomplete``: what it has may be of any time."""
        self._side[pair, serial] = _Register(anything=True)

    def mirroring(self, pair: str, serial: str) -> None:
        """COPY has become PAIR: the S-VOL has everything."""
        self._image[pair] = self._side[pair, serial].copy()
        if pair in self._image_behind:
            self._image[pair].lost_power(set())
        self._kept.pop(pair, None)

    def decided(self, pair: str, before: PairEpoch, value: PairEpoch) -> None:
        """See ``Ledger.decided``."""
        self._decisions[pair] += 1
        self._image_behind.discard(pair)
        p_vol, s_vol = self._roles(before if before.state is not PairState.SMPL else value)
        old = dict(self._side)
        if value.outdated:  # what an operator has said before was not about this
            self._named = [word for word in self._named if word[1] != pair]
        if value.state is PairState.SMPL:
            if pair not in self._parted:  # else each half keeps what it has
                self._side[pair, s_vol] = _Register(anything=True)
                if pair in self._kept:  # nor had the P-VOL fetched everything
                    self._side[pair, p_vol] = _Register(anything=True)
        elif before.state is PairState.SMPL and not value.outdated:
            # Created; outdated, it is a takeover by an array that has not heard of the deletion.
            self._parted.discard(pair)
            self._side[pair, s_vol] = self._side[pair, p_vol]
        elif value.outdated and not before.outdated:
            if self._side[pair, p_vol] is self._side[pair, s_vol]:
                self._side[pair, s_vol] = self._image[pair].copy()
            if pair in self._kept and value.outdated == p_vol:  # it had not fetched everything, and never will
                self._side[pair, p_vol] = _Register(anything=True)
        elif value.state is PairState.COPY and self._side[pair, p_vol] is not self._side[pair, s_vol]:
            good = self._good(pair, before, value)
            self._parted.discard(pair)
            self._side[pair, p_vol] = self._side[pair, s_vol] = good
        elif value.state is PairState.COPY and self._gives_up(pair, p_vol, value):
            given_up = self._side[pair, p_vol]  # the P-VOL's data since the pair broke off, but maybe nothing is
            self._side[pair, p_vol] = self._side[pair, s_vol] = self._image[pair].copy()
            self._side[pair, p_vol].unite(given_up)
        elif value.state is PairState.PSUS and value.s_vol_writable and not before.s_vol_writable:
            self._side[pair, s_vol] = self._side[pair, p_vol].copy()
            if not self._mirrors(pair, p_vol):  # it broke off after the vote: what was written since is at one array
                self._side[pair, s_vol].unite(self._image[pair])
        fetches = value.state is PairState.COPY and value.source is Side.S_VOL
        if not fetches or before.p_serial != value.p_serial:
            self._kept.pop(pair, None)
        if fetches:
            self._kept.setdefault(pair, set())
        if value.state is not PairState.PSUS or before.state is not PairState.PSUS:
            for serial in self._serials:
                self._acknowledged[pair, serial] = 0
        for write in self._writes.values():  # those may land before or after
            register = self._side[write.pair, write.serial]
            if write.pair == pair and register is not old[write.pair, write.serial]:
                write.moved = True
                for lba in write.lbas:
                    register.block(lba).allow(write.value)
        if fetches:
            self._image[pair] = self._side[pair, self._roles(value)[1]].copy()  # whole from the beginning

    def _roles(self, value: PairEpoch) -> tuple[str, str]:
        return value.p_serial, next(serial for serial in self._serials if serial != value.p_serial)

    def _gives_up(self, pair: str, p_vol: str, value: PairEpoch) -> bool:
        """The P-VOL's data, for that of the other half, which an operator has named."""
        return value.p_serial == p_vol and value.source is Side.S_VOL and bool(self._named_now(pair) - {p_vol})

    def _named_now(self, pair: str) -> set[str]:
        since = self._journal.clock() - NAMED_SECONDS
        return {serial for when, name, serial in self._named if name == pair and when >= since}

    def _good(self, pair: str, before: PairEpoch, value: PairEpoch) -> _Register:
        """After both sides may have been written: whose values hold now."""
        p_vol, s_vol = self._roles(before)
        new_p_vol, new_s_vol = self._roles(value)
        chosen = new_p_vol if value.source is Side.P_VOL else new_s_vol
        named = self._named_now(pair)
        allowed = {p_vol} | named
        if pair in self._parted or (before.outdated and self._strict):
            allowed = named
        elif before.outdated:
            allowed = {p_vol} | named
        elif new_p_vol != p_vol:
            written = {serial for serial in (p_vol, s_vol) if self._acknowledged[pair, serial]}
            allowed = named | (written if len(written) == 1 else set() if written else {p_vol, s_vol})
        if chosen not in allowed and pair in self._parted:
            self._journal.violated(f"{pair}: epoch {value.epoch} ends a split brain of which nobody has named a side")
        elif chosen not in allowed:
            self._journal.violated(f"{pair}: epoch {value.epoch} discards writes that were acknowledged at {p_vol}")
        register = self._side[pair, chosen]
        if not before.outdated and not self._acknowledged[pair, p_vol] and not self._acknowledged[pair, s_vol]:
            register.unite(self._side[pair, p_vol if chosen == s_vol else s_vol])
        return register
