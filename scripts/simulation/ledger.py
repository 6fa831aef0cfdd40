"""Checks what the arrays make durable: one value per epoch, votes that are kept, decisions that both have voted for.

It sees each pair record at the moment when it is durable, and so knows better than any array what is decided: an
epoch is decided from the moment when both arrays have it durably, as a vote or as a decision.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from scripts.simulation.journal import Journal
from storage_model.nexus import ITNexus
from storage_model.pair import PairEpoch, PairRecord
from storage_model.pair_state import PairState, Side


@dataclass
class Span:
    """While the arrays are apart; ``end`` is when they were no longer."""

    end: float = inf


@dataclass(frozen=True)
class Decided:
    """From ``since`` on, this is the latest epoch."""

    since: float
    value: PairEpoch


class Ledger:
    """``decided`` is told of each epoch in its order: the pair, the epoch before, the new one."""

    def __init__(self, journal: Journal, serials: tuple[str, str], pairs: tuple[str, ...]) -> None:
        self._journal = journal
        self._serials = serials
        self._records = {(pair, serial): PairRecord() for pair in pairs for serial in serials}
        self._values: dict[tuple[str, int], PairEpoch] = {}
        self._votes: set[tuple[str, str, int]] = set()
        self._words: dict[tuple[str, str], bool] = {}
        self._deletions: set[tuple[str, str]] = set()
        self._by_force: dict[tuple[str, int], list[PairEpoch]] = {}
        self._alone: dict[tuple[str, str], PairEpoch] = {}
        self._apart: dict[str, list[Span]] = {pair: [] for pair in pairs}
        self.history: dict[str, list[Decided]] = {pair: [Decided(0.0, PairEpoch())] for pair in pairs}
        self.decided: list[Callable[[str, PairEpoch, PairEpoch], None]] = []
        self.parted: list[Callable[[str], None]] = []
        """Told of each pair of which both arrays have gone on alone: a split brain."""
        self.incomplete: list[Callable[[str, str], None]] = []
        """Told of each half that is promoted although it never had everything: the pair, and the array."""

    def truth(self, pair: str) -> PairEpoch:
        """The latest decided epoch."""
        return self.history[pair][-1].value

    def record(self, pair: str, serial: str) -> PairRecord:
        """What an array durably knows."""
        return self._records[pair, serial]

    def whole(self, pair: str) -> bool:
        """True once the P-VOL has durably everything: its halves have been equal since the latest epoch began."""
        value = self.truth(pair)
        record = self._records.get((pair, value.p_serial), PairRecord())
        return record.decided == value and record.equal

    def forced(self, pair: str, serial: str, *, incomplete: bool = False) -> None:
        """An operator takes a pair over by force: from here on the word counts as the other array's vote.

        ``incomplete``: also where the half is known to be outdated, or was never complete.
        """
        self._words[pair, serial] = incomplete

    def given_up(self, pair: str, serial: str) -> None:
        """An operator deletes a pair by force: as with :meth:`forced`."""
        self._deletions.add((pair, serial))

    def apart(self, pair: str) -> bool:
        """True while both arrays have gone on alone, and know of different epochs."""
        spans = self._apart[pair]
        return bool(spans) and spans[-1].end == inf

    def left_behind(self, pair: str, serial: str, begin: float) -> bool:
        """True if an array was outdated by force at some moment since ``begin``: nobody has told it, maybe.

        Both are while the arrays are apart: each was told by an operator that the other one does not count.
        """
        apart = any(span.end >= begin for span in self._apart[pair])
        return apart or any(value.outdated == serial for value in self._during(pair, begin, self._journal.clock()))

    def saved(self, serial: str, pair: str, record: PairRecord) -> None:
        """An array's record is durable."""
        before = self._records[pair, serial]
        accepted = f", vote {record.accepted.epoch}" if record.accepted is not None else ""
        self._journal.note(serial, pair, _words(record.decided), "now", record.state.name + accepted)
        if record.decided.epoch < before.decided.epoch:
            self._journal.violated(f"{pair}: array {serial} goes back to epoch {record.decided.epoch}")
        self._records[pair, serial] = record
        if record.decided.epoch > before.decided.epoch:
            if self._is_forced(serial, pair, record.decided):
                self._force(serial, pair, before, record.decided)
            elif self._is_deletion(serial, pair, record.decided):
                self._go_alone(serial, pair, record.decided)
        self._join(pair)
        self._votes_of(serial, pair, record)
        if record.decided.epoch > self.truth(pair).epoch:
            self._journal.violated(
                f"{pair}: array {serial} holds epoch {record.decided.epoch} for decided, without the other one's vote"
            )

    def _is_forced(self, serial: str, pair: str, value: PairEpoch) -> bool:
        alone = (pair, serial) in self._words and value.p_serial == serial and value.outdated not in ("", serial)
        return alone and self._values.get((pair, value.epoch)) != value

    def _force(self, serial: str, pair: str, before: PairRecord, value: PairEpoch) -> None:
        """An outdated half that has not heard of it may be taken over as well: there is nobody who could forbid it."""
        incomplete = self._words.pop((pair, serial))
        own_side = Side.P_VOL if before.decided.p_serial == serial else Side.S_VOL
        whole = before.equal or before.decided.source is own_side
        if (before.decided.outdated == serial or not whole) and not incomplete:
            what = "which is outdated" if whole else "whose half was never complete"
            self._journal.violated(f"{pair}: epoch {value.epoch} promotes array {serial}, {what}")
        self._go_alone(serial, pair, value)
        if not whole:
            self._journal.outcomes["incomplete half promoted"] += 1
            for listener in self.incomplete:
                listener(pair, serial)

    def _is_deletion(self, serial: str, pair: str, value: PairEpoch) -> bool:
        """Not where it hears of that of the other array, or votes for one."""
        alone = (pair, serial) in self._deletions and value.state is PairState.SMPL
        return alone and self._values.get((pair, value.epoch)) != value

    def _go_alone(self, serial: str, pair: str, value: PairEpoch) -> None:
        """It needs no other vote. What the array left behind has voted for alone can never be decided any more."""
        self._by_force.setdefault((pair, value.epoch), []).append(value)
        other = next(each for each in self._serials if each != serial)
        self._alone[pair, serial] = value
        theirs = self._records[pair, other].decided
        if theirs == self._alone.get((pair, other)) and not self.apart(pair):
            self._apart[pair].append(Span())
            self._journal.note(pair, "SPLIT BRAIN", _words(theirs), "and", _words(value))
            self._journal.outcomes["split brain"] += 1
            for listener in self.parted:
                listener(pair)
        self._values[pair, value.epoch] = value
        if value.epoch >= self.truth(pair).epoch:
            self._decide(pair, value)

    def _join(self, pair: str) -> None:
        """One of them has heard of the other's epoch, and follows."""
        one, other = (self._records[pair, serial] for serial in self._serials)
        if not self.apart(pair) or one.decided != other.decided:
            return
        self._apart[pair][-1].end = self._journal.clock()
        self._journal.note(pair, "no longer apart:", _words(one.decided))
        for serial in self._serials:
            self._votes_of(serial, pair, self._records[pair, serial])

    def _votes_of(self, serial: str, pair: str, record: PairRecord) -> None:
        if self.apart(pair):
            return  # nobody counts them
        for value in (record.decided, record.accepted):
            if value is not None:
                self._vote(serial, pair, value)
        self._count(pair, record)

    def _vote(self, serial: str, pair: str, value: PairEpoch) -> None:
        """Only the leader proposes, and never two values: so nobody can vote for another one, but one left behind."""
        alone = self._by_force.get((pair, value.epoch), ())
        if value in alone or (alone and value != self._records[pair, serial].decided):
            return
        known = self._values.setdefault((pair, value.epoch), value)
        if known != value and known.group and self._by_force and known.epoch > self.truth(pair).epoch:
            # A vote of a group, of which another pair was taken over by force, is void (``group_register``).
            self._votes -= {(pair, each, known.epoch) for each in self._serials}
            known = self._values[pair, value.epoch] = value
        self._votes.add((pair, serial, value.epoch))
        if known != value:
            self._journal.violated(f"{pair}: epoch {value.epoch} has two values: {_words(known)} and {_words(value)}")

    def _count(self, pair: str, record: PairRecord) -> None:
        for value in (record.decided, record.accepted):
            if value is None or value.epoch <= self.truth(pair).epoch:
                continue
            if all((pair, serial, value.epoch) in self._votes for serial in self._serials):
                outdated = self.truth(pair).outdated
                if outdated and value.p_serial == outdated and value.state is not PairState.COPY:
                    self._journal.violated(f"{pair}: epoch {value.epoch} promotes array {outdated}, which is outdated")
                self._decide(pair, value)

    def _decide(self, pair: str, value: PairEpoch) -> None:
        before = self.truth(pair)
        self.history[pair].append(Decided(self._journal.clock(), value))
        self._journal.note(pair, "DECIDED", _words(value))
        for listener in self.decided:
            listener(pair, before, value)

    # --------------------------------------------------------------------------------------------- what hosts were told

    def _during(self, pair: str, begin: float, end: float) -> list[PairEpoch]:
        history = self.history[pair]
        last = len(history) - 1
        return [
            entry.value
            for index, entry in enumerate(history)
            if entry.since <= end and (index == last or history[index + 1].since >= begin)
        ]

    def reserved(self, pair: str, serial: str, nexus: ITNexus, begin: float, end: float) -> None:
        """A host was told GOOD by its shim: it was the decided owner at some moment since it had asked."""
        if self.left_behind(pair, serial, begin):
            return
        epochs = self._during(pair, begin, end)
        if not any(value.owned_by(serial, nexus) for value in epochs):
            self._journal.violated(
                f"{pair}: {nexus.initiator_name} was told GOOD, but the owner was {[str(v.owner) for v in epochs]}"
            )

    def written(self, pair: str, serial: str, nexus: ITNexus, begin: float, end: float) -> None:
        """A write to the quorum volume was acknowledged: nobody else owned it all the time."""
        if self.left_behind(pair, serial, begin):
            return
        epochs = self._during(pair, begin, end)
        if not any(value.owner is None or value.owned_by(serial, nexus) for value in epochs):
            self._journal.violated(
                f"{pair}: a write by {nexus.initiator_name} was acknowledged while {epochs[0].owner} owned the volume"
            )


def _words(value: PairEpoch) -> str:
    owner = f" owner {value.owner.nexus.initiator_name}" if value.owner is not None else ""
    good = f" good {value.source.name}"
    left = f" outdated {value.outdated}" if value.outdated else ""
    return f"epoch {value.epoch} P {value.p_serial or '-'} {value.state.name}{good}{owner}{left}"
