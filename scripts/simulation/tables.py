"""Checks persistent reservations of pairs: one table at both arrays, and every answer explained by its history.

As the :class:`Ledger` does of epochs, it sees each array's record of a table at the moment when it is durable, and so
knows when an entry is decided: both arrays have it, as a vote or in force. What hosts are told must have been so at
some moment while they waited; an entry must be what one of their orders made of the table before it.
"""

from dataclasses import dataclass, field, replace
from enum import Enum

from scripts.simulation.journal import Journal
from storage_model.errors import CheckCondition
from storage_model.nexus import ITNexus
from storage_model.pair import PairEpoch
from storage_model.pair_reservation import ReservationEntry, ReservationRecord, first_port
from storage_model.pair_state import PairState
from storage_model.persistent_reservation import Change, PersistentReservation
from storage_model.reservation_order import ReservationOrder
from storage_model.spec.scsi_cdb import PersistentReserveOut


class Answer(Enum):
    """To a PERSISTENT RESERVE OUT."""

    GOOD = "GOOD"
    CONFLICT = "RESERVATION CONFLICT"
    REFUSED = "ILLEGAL REQUEST"
    NONE = "nothing that says what became of it"


@dataclass(frozen=True)
class _Moment:
    """From ``since`` on, this is the table."""

    since: float
    entry: ReservationEntry


@dataclass
class _Doubt:
    """A vote of one array: there hosts are kept out by either table until it knows that the vote is decided."""

    before: ReservationEntry
    entry: ReservationEntry
    since: float
    until: float = float("inf")


@dataclass
class Order:
    """A PERSISTENT RESERVE OUT of a host. ``made`` are the entries that it may have made, ``sole`` that it must have:
    no other order can be their reason."""

    pair: str
    serial: str
    order: ReservationOrder
    begin: float
    made: list[ReservationEntry] = field(default_factory=list)
    sole: ReservationEntry | None = None
    victims: frozenset[ITNexus] = frozenset()
    """Of PREEMPT AND ABORT, by the entry that it made."""

    def change(self, state: PersistentReservation) -> Change | None:
        """What it makes of a table; None if nothing, as it conflicts or is wrong."""
        try:
            return self.order.decision(lambda name: ())[0](state)
        except CheckCondition:
            return None


@dataclass(frozen=True)
class _Fence:
    """PREEMPT AND ABORT was answered GOOD at ``good``, and excludes ``nexus`` since the moment numbered ``first``."""

    nexus: ITNexus
    first: int
    good: float


class Tables:
    """Of the pairs ``pairs``; nexuses by the ports of the pair's table."""

    def __init__(self, journal: Journal, serials: tuple[str, str], pairs: tuple[str, ...]) -> None:
        self._journal = journal
        self._serials = serials
        self._records = {(pair, serial): ReservationRecord() for pair in pairs for serial in serials}
        self._history = {pair: [_Moment(0.0, ReservationEntry())] for pair in pairs}
        self._entries: dict[tuple[str, tuple[int, int]], ReservationEntry] = {}
        self._doubts: dict[str, list[_Doubt]] = {pair: [] for pair in pairs}
        self._orders: dict[str, list[Order]] = {pair: [] for pair in pairs}
        self._fences: dict[str, list[_Fence]] = {pair: [] for pair in pairs}
        self._writers: dict[int, ITNexus] = {}
        self._alone = dict.fromkeys(pairs, "")
        """The array that a takeover by force left behind."""
        self._met = {(pair, serial): -1.0 for pair in pairs for serial in serials}
        """Until then it was left behind: what it told meanwhile may be the past."""
        self.checked = 0
        """Answers that were compared with the table's history."""

    def nexus(self, serial: str, nexus: ITNexus) -> ITNexus:
        """As the pair's table knows a nexus of one array."""
        return replace(nexus, target_port=first_port(serial, self._other(serial)) + nexus.target_port)

    def _other(self, serial: str) -> str:
        return next(other for other in self._serials if other != serial)

    # --------------------------------------------------------------------------------------- what arrays make durable

    def saved(self, serial: str, pair: str, record: ReservationRecord) -> None:
        """An array's record of a table is durable."""
        before = self._records[pair, serial]
        self._records[pair, serial] = record
        entry, vote = record.decided, record.accepted
        if vote is not None:
            self._journal.note(serial, pair, "votes for", *vote.entry.order, vote.entry.state)
        if entry != before.decided:
            self._journal.note(serial, pair, "has reservations", *entry.order, entry.state)
        self._doubt(pair, before, record)
        if entry.order < before.decided.order and self._alone[pair] != serial:
            self._journal.violated(f"{pair}: array {serial} goes back to reservations {entry.order}")
        known = self._entries.setdefault((pair, entry.order), entry)
        if known != entry:
            self._journal.violated(
                f"{pair}: two tables are entry {entry.order}: at array {serial} {entry.state}, before {known.state}"
            )
        if entry.order > self._latest(pair).order:
            self._decide(pair, serial, entry)

    def _doubt(self, pair: str, before: ReservationRecord, record: ReservationRecord) -> None:
        now = self._journal.clock()
        if before.accepted is not None and record.accepted != before.accepted:
            for doubt in self._doubts[pair]:
                if doubt.entry == before.accepted.entry:
                    doubt.until = min(doubt.until, now)
        if record.accepted is not None and record.accepted != before.accepted:
            self._doubts[pair].append(_Doubt(record.decided, record.accepted.entry, now))

    def _latest(self, pair: str) -> ReservationEntry:
        return self._history[pair][-1].entry

    def _decide(self, pair: str, serial: str, entry: ReservationEntry) -> None:
        """The second of the two has it. It is one order's work, done to the table before it."""
        other = self._records[pair, self._other(serial)]
        voted = entry in (other.decided, other.accepted and other.accepted.entry)
        if not voted and self._alone[pair] != self._other(serial):
            self._journal.violated(
                f"{pair}: array {serial} holds reservations {entry.order} for decided, without the other one's vote"
            )
        before = self._latest(pair).state
        made = [(order, order.change(before)) for order in self._orders[pair]]
        reasons = [(order, change) for order, change in made if change and change.state == entry.state]
        if not reasons:
            self._journal.violated(f"{pair}: reservations {entry.order}, {entry.state}: no host's order makes these")
        for order, change in reasons:
            order.made.append(entry)
            order.victims = change.preempted
        if len(reasons) == 1:
            reasons[0][0].sole = entry
            self._orders[pair].remove(reasons[0][0])  # it does not act again
        self._history[pair].append(_Moment(self._journal.clock(), entry))

    def decided(self, pair: str, before: PairEpoch, value: PairEpoch) -> None:
        """See ``Ledger.decided``: without a pair there is no table."""
        if pair not in self._history:
            return
        if before.outdated and not value.outdated:
            self._met[pair, before.outdated] = self._journal.clock()
        self._alone[pair] = value.outdated
        if value.state is PairState.SMPL and self._latest(pair) != ReservationEntry():
            if self._latest(pair).state.registrations:
                self._journal.violated(f"{pair}: epoch {value.epoch} deletes the pair while hosts are registered")
            self._history[pair].append(_Moment(self._journal.clock(), ReservationEntry()))

    def forgotten(self, serial: str, pair: str) -> None:
        """An array's record of the pair is SMPL, durably."""
        if (pair, serial) in self._records:
            self._doubt(pair, self._records[pair, serial], ReservationRecord())
            self._records[pair, serial] = ReservationRecord()

    # ---------------------------------------------------------------------------------------------- what hosts are told

    def _during(self, pair: str, begin: float) -> list[PersistentReservation]:
        """The tables from ``begin`` until now."""
        history = self._history[pair]
        first = len(history) - 1
        while first > 0 and history[first].since >= begin:
            first -= 1
        return [moment.entry.state for moment in history[first:]]

    def _may_be_past(self, pair: str, serial: str, begin: float) -> bool:
        return self._alone[pair] == serial or self._met[pair, serial] >= begin

    def begin_order(self, pair: str, serial: str, order: ReservationOrder) -> Order:
        placed = replace(order, first_port=first_port(serial, self._other(serial)))
        begun = Order(pair, serial, placed, self._journal.clock())
        self._orders[pair].append(begun)
        return begun

    def end_order(self, order: Order, answer: Answer) -> None:
        """Whoever gets no answer may find it carried out later."""
        if self._may_be_past(order.pair, order.serial, order.begin):
            return
        self.checked += answer is not Answer.NONE
        words = f"{order.pair}: {order.order.service_action.name} by {order.order.requester.initiator_name}"
        if answer in (Answer.CONFLICT, Answer.REFUSED):
            if order in self._orders[order.pair]:
                self._orders[order.pair].remove(order)
            if order.sole is not None:
                self._journal.violated(f"{words} ended with {answer.value}, but has made {order.sole.order}")
        changes = [(state, order.change(state)) for state in self._during(order.pair, order.begin)]
        if answer is Answer.CONFLICT and all(change is not None for _, change in changes):
            self._journal.violated(f"{words} conflicts with none of the tables meanwhile")
        if answer is not Answer.GOOD:
            return
        if order in self._orders[order.pair]:
            self._orders[order.pair].remove(order)
        if not order.made and not any(change is not None and change.state is state for state, change in changes):
            self._journal.violated(f"{words} was answered GOOD, but has made no entry")
        self._check_at_both(order, words)
        if order.order.service_action is PersistentReserveOut.PREEMPT_AND_ABORT and order.sole is not None:
            self._fence(order, order.sole)

    def _check_at_both(self, order: Order, words: str) -> None:
        for serial in self._serials:
            if self._may_be_past(order.pair, serial, order.begin):
                continue
            at = self._records[order.pair, serial].decided.order
            if order.sole is not None and at < order.sole.order and self._latest(order.pair).order >= order.sole.order:
                self._journal.violated(f"{words} was answered GOOD, but array {serial} has reservations {at}")

    def _fence(self, order: Order, entry: ReservationEntry) -> None:
        history = self._history[order.pair]
        first = next(index for index, moment in enumerate(history) if moment.entry is entry)
        for nexus in sorted(order.victims - {order.order.requester}, key=str):
            self._fences[order.pair].append(_Fence(nexus, first, self._journal.clock()))

    def read_keys(self, pair: str, serial: str, begin: float, generation: int, keys: list[int]) -> None:
        """What READ KEYS answered."""
        if self._may_be_past(pair, serial, begin):
            return
        self.checked += 1
        states = self._during(pair, begin)
        told = [(state.generation, [made.key for made in state.registrations.values()]) for state in states]
        if not any(sorted(keys) == sorted(each) and (generation == g or not keys) for g, each in told):
            self._journal.violated(f"{pair}: READ KEYS gives {generation}: {keys}, the tables meanwhile: {told}")

    def read_reservation(self, pair: str, serial: str, begin: float, held: tuple[int, int] | None) -> None:
        """What READ RESERVATION answered: key and type."""
        if self._may_be_past(pair, serial, begin):
            return
        self.checked += 1
        states = self._during(pair, begin)
        told = [None if (kind := state.reservation_type) is None else (state.held_key, int(kind)) for state in states]
        if held not in told:
            self._journal.violated(f"{pair}: READ RESERVATION gives {held}, the tables meanwhile: {told}")

    # ----------------------------------------------------------------------------------------------- what is let in

    def accessed(self, pair: str, serial: str, nexus: ITNexus, begin: float, *, writes: bool, good: bool) -> None:
        """A read or write by a nexus was answered GOOD, or else RESERVATION CONFLICT."""
        if pair not in self._history or self._may_be_past(pair, serial, begin):
            return
        self.checked += 1
        states = self._during(pair, begin)
        if not good:
            doubts = [doubt for doubt in self._doubts[pair] if doubt.until >= begin]
            states = states + [entry.state for doubt in doubts for entry in (doubt.before, doubt.entry)]
        if not any(_keeps_out(state, nexus, writes=writes) is not good for state in states):
            what = "writes" if writes else "reads"
            how = "GOOD, but is excluded" if good else "RESERVATION CONFLICT, but nothing excludes it"
            self._journal.violated(f"{pair}: {nexus.initiator_name} {what} with {how} by {states[-1]}")

    def begin_write(self, value: int, nexus: ITNexus) -> None:
        """The number of a write, and who makes it."""
        self._writers[value] = nexus

    def landed(self, serial: str, pair: str, value: int) -> None:
        """A host's write has reached the page cache of an array."""
        if self._alone.get(pair) == serial:
            return
        for fence in self._fences.get(pair, ()):
            if fence.nexus != self._writers.get(value):
                continue
            since = self._history[pair][fence.first :]
            if all(_keeps_out(moment.entry.state, fence.nexus, writes=True) for moment in since):
                self._journal.violated(
                    f"{pair}: write {value} of {fence.nexus.initiator_name} lands at array {serial}, although"
                    f" PREEMPT AND ABORT was answered GOOD {self._journal.clock() - fence.good:.3f} s ago"
                )

    # ----------------------------------------------------------------------------------------------- at the end

    def check_equal(self) -> None:
        """When all is healed and quiet."""
        for pair in self._history:
            one, other = (self._records[pair, serial] for serial in self._serials)
            if one != other or one.accepted is not None or one.decided != self._latest(pair):
                self._journal.violated(f"{pair}: when all is healed the tables are {one} and {other}")


def _keeps_out(state: PersistentReservation, nexus: ITNexus, *, writes: bool) -> bool:
    kind = state.reservation_type
    if kind is None or state.takes_in(nexus):
        return False
    return writes or kind.exclusive_access
