"""Checks what the arrays make durable: one value per epoch, votes that are kept, decisions that both have voted for.

It sees each pair record at the moment when it is durable, and so knows better than any array what is decided: an
epoch is decided from the moment when both arrays have it durably, as a vote or as a decision.
"""

from collections.abc import Callable
from dataclasses import dataclass

from scripts.simulation.journal import Journal
from storage_model.nexus import ITNexus
from storage_model.pair import PairEpoch, PairRecord
from storage_model.pair_state import PairState


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
        self._words: set[tuple[str, str]] = set()
        self._by_force: set[tuple[str, int]] = set()
        self.history: dict[str, list[Decided]] = {pair: [Decided(0.0, PairEpoch())] for pair in pairs}
        self.decided: list[Callable[[str, PairEpoch, PairEpoch], None]] = []

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

    def forced(self, pair: str, serial: str) -> None:
        """An operator takes a pair over by force: from here on the word counts as the other array's vote."""
        self._words.add((pair, serial))

    def left_behind(self, pair: str, serial: str, begin: float) -> bool:
        """True if an array was outdated by force at some moment since ``begin``: nobody has told it, maybe."""
        return any(value.outdated == serial for value in self._during(pair, begin, self._journal.clock()))

    def saved(self, serial: str, pair: str, record: PairRecord) -> None:
        """An array's record is durable."""
        before = self._records[pair, serial]
        accepted = f", vote {record.accepted.epoch}" if record.accepted is not None else ""
        self._journal.note(serial, pair, _words(record.decided), "now", record.state.name + accepted)
        if record.decided.epoch < before.decided.epoch:
            self._journal.violated(f"{pair}: array {serial} goes back to epoch {record.decided.epoch}")
        self._records[pair, serial] = record
        if self._is_forced(serial, pair, record.decided):
            self._force(serial, pair, record.decided)
        for value in (record.decided, record.accepted):
            if value is not None:
                self._vote(serial, pair, value)
        self._count(pair, record)
        if record.decided.epoch > self.truth(pair).epoch:
            self._journal.violated(
                f"{pair}: array {serial} holds epoch {record.decided.epoch} for decided, without the other one's vote"
            )

    def _is_forced(self, serial: str, pair: str, value: PairEpoch) -> bool:
        new = value.epoch > self.truth(pair).epoch and (pair, serial) in self._words
        return new and value.p_serial == serial and value.outdated not in ("", serial)

    def _force(self, serial: str, pair: str, value: PairEpoch) -> None:
        """It needs no other vote. What the array left behind has voted for alone can never be decided any more."""
        if self.truth(pair).outdated == serial:
            self._journal.violated(f"{pair}: epoch {value.epoch} promotes array {serial}, which is outdated")
        self._words.discard((pair, serial))
        self._by_force.add((pair, value.epoch))
        self._values[pair, value.epoch] = value
        self._decide(pair, value)

    def _vote(self, serial: str, pair: str, value: PairEpoch) -> None:
        """Only the leader proposes, and never two values: so nobody can vote for another one, but one left behind."""
        if (pair, value.epoch) in self._by_force and value != self._records[pair, serial].decided:
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
                self._decide(pair, value)

    def _decide(self, pair: str, value: PairEpoch) -> None:
        before = self.truth(pair)
        if before.outdated and value.p_serial == before.outdated and value.state is not PairState.COPY:
            self._journal.violated(f"{pair}: epoch {value.epoch} promotes array {value.p_serial}, which is outdated")
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
