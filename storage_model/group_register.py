"""How the arrays agree on the next epochs of all pairs of a group at once (I9): one decision, sans-IO.

``ownership`` decides one pair; a consistency group is split, resynced, swapped and taken over as one: either all its
pairs enter their next epoch, or none does. The rules are those of one pair, applied to the group as a whole:

- One array leads: it holds the P-VOL of every pair that is decided (without pairs: the lowest serial number). What
  would change pairs whose P-VOLs are at both arrays is refused, and they are changed one by one.
- A vote is for the values of all pairs, and it is one durable record: one transaction of the metadata store has the
  vote of each pair, so that a crash leaves all or none. The same holds for a decision.
- An array votes only if it has a vote to give for every pair. With two arrays, the other one's vote is the decision.
- After a crash or a lost acknowledgement the arrays tell each other what is decided for *every* pair of the group. Had
  the other array decided the group, it has all of it, as its transaction was one. If a pair went another way there (an
  operator's force, in the place of our vote), the group's vote can never be decided any more: what is left of it is
  void. That is the one case in which a vote ends undecided, and it needs no guess.
- Locks are taken in :func:`lock_order`, by pair name, which is the same order at both arrays: their LDEV numbers are
  not. Only the leader holds its locks while it waits for the other array, whose voter waits for nobody.

Each call returns :class:`GroupEffect` objects in the order in which they must be carried out.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from storage_model.errors import LocalProtocolError
from storage_model.pair import PairEpoch

Values = Mapping[str, PairEpoch]
"""By pair name, of every pair of the group."""

MAX_GROUP_PAIRS = 256
"""Pairs in one decision: their values travel in one frame."""


@dataclass(frozen=True, slots=True)
class VoteGroup:
    """Make the vote for all ``values`` durable as one, then call :meth:`GroupRegister.voted`."""

    values: Values


@dataclass(frozen=True, slots=True)
class ProposeGroup:
    """Tell the voter: this array leads and has voted for ``values``; ``decided`` is what came before."""

    to: str
    values: Values
    decided: Values


@dataclass(frozen=True, slots=True)
class AcceptedGroup:
    """Tell the leader: this array has durably voted for these ``values``."""

    to: str
    values: Values


@dataclass(frozen=True, slots=True)
class DecideGroup:
    """These pairs' values are decided: make that durable as one, every vote of the group gone; then act on it.

    ``void`` names the pairs whose vote went undecided, as it can never be decided any more.
    """

    values: Values
    void: tuple[str, ...] = ()


GroupEffect = VoteGroup | ProposeGroup | AcceptedGroup | DecideGroup


def lock_order(names: Iterable[str]) -> list[str]:
    """In which order whoever changes several pairs takes their locks, at either array."""
    return sorted(set(names))


class GroupRegister:
    """The next epochs of a group's pairs as one voter knows them.

    ``decided`` and ``accepted`` are what was durable when the array stopped; ``accepted`` has all pairs or is None.
    Raises LocalProtocolError when this array breaks the rules itself.
    """

    def __init__(self, serial: str, voters: tuple[str, ...], decided: Values, accepted: Values | None) -> None:
        self.serial = serial
        self.voters = voters
        self.decided = dict(decided)
        self.accepted = None if accepted is None else dict(accepted)
        self._votes: set[str] = {serial} if accepted is not None and self.leader == serial else set()

    @property
    def majority(self) -> int:
        """How many votes decide."""
        return len(self.voters) // 2 + 1

    @property
    def leader(self) -> str | None:
        """The array that may propose; None when the group's P-VOLs are not all at one array."""
        leaders = {value.p_serial or min(self.voters) for value in self.decided.values()}
        return leaders.pop() if len(leaders) == 1 else None

    @property
    def in_doubt(self) -> bool:
        """True while a vote is out that is not known to be decided."""
        return self.accepted is not None

    def propose(self, values: Values) -> list[GroupEffect]:
        """Start deciding; only the leader may, for every pair, and with no vote of its own outstanding."""
        if self.leader != self.serial or self.in_doubt or not self._follows(values):
            raise LocalProtocolError(f"array {self.serial} may not propose for the group")
        return [VoteGroup(dict(values))]

    def voted(self, values: Values) -> list[GroupEffect]:
        """This array's vote for ``values`` is durable."""
        leader = self.leader
        if self.accepted not in (None, values) or not self._follows(values) or leader is None:
            raise LocalProtocolError(f"array {self.serial} has no vote to give for the group")
        self.accepted = dict(values)
        self._votes = {self.serial, leader}
        effects: list[GroupEffect] = []
        if leader == self.serial:
            others = (voter for voter in self.voters if voter != self.serial)
            effects += [ProposeGroup(voter, dict(values), dict(self.decided)) for voter in others]
        else:
            effects.append(AcceptedGroup(leader, dict(values)))
        return effects + self._count()

    def proposed(self, sender: str, values: Values, decided: Values) -> list[GroupEffect]:
        """The leader asks for a vote; no effects when the proposal is stale, unlawful or not for every pair."""
        if dict(values) == self.decided:
            return [AcceptedGroup(sender, dict(values))]  # asked again after a lost acknowledgement
        if dict(decided) != self.decided or sender != self.leader or not self._follows(values):
            return []
        if self.accepted is None:
            return [VoteGroup(dict(values))]
        if self.accepted != values:
            return []
        self._votes |= {self.serial, sender}
        return [AcceptedGroup(sender, dict(values)), *self._count()]

    def acknowledged(self, sender: str, values: Values) -> list[GroupEffect]:
        """A voter has durably voted for this array's proposal."""
        if self.accepted is None or self.leader != self.serial or values != self.accepted or sender not in self.voters:
            return []
        self._votes.add(sender)
        return self._count()

    def heard(self, sender: str, told: Values) -> list[GroupEffect]:
        """The link is back: ``told`` is what ``sender`` knows to be decided, of every pair."""
        if set(told) != set(self.decided) or sender not in self.voters:
            return []
        if self.accepted is None:
            return self._adopt(told)
        accepted = self.accepted
        as_voted = any(told[name] == value for name, value in accepted.items())
        if as_voted or all(told[name].epoch > value.epoch for name, value in accepted.items()):
            newest = {name: max(told[name], value, key=lambda each: each.epoch) for name, value in accepted.items()}
            return self._adopt(newest)
        if any(told[name].epoch >= value.epoch for name, value in accepted.items()):
            if self.majority < len(self.voters):
                return []  # the third may have decided it with us
            rest = tuple(name for name in lock_order(accepted) if told[name].epoch <= self.decided[name].epoch)
            return self._adopt(told, rest)
        if self.leader == self.serial:
            return [ProposeGroup(sender, dict(accepted), dict(self.decided))]
        return []

    def _follows(self, values: Values) -> bool:
        same = set(values) == set(self.decided)
        return same and all(value.epoch == self.decided[name].epoch + 1 for name, value in values.items())

    def _count(self) -> list[GroupEffect]:
        if self.accepted is None or len(self._votes) < self.majority:
            return []
        return self._adopt(self.accepted)

    def _adopt(self, values: Values, void: tuple[str, ...] = ()) -> list[GroupEffect]:
        news = {name: value for name, value in values.items() if value.epoch > self.decided[name].epoch}
        if not news:
            return []
        self.decided |= news
        self.accepted = None
        self._votes = set()
        return [DecideGroup(news, void)]
