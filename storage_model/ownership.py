"""How the arrays of a pair agree on one value per epoch: durable votes and a majority, sans-IO.

The array that holds the P-VOL of the decided epoch N leads: it alone proposes the value of epoch N+1, in the order in
which requests reach it. Proposing *is* voting: the leader makes its own vote durable before it tells anybody. A voter
makes its vote durable before it answers. The value is decided when a majority of the voters (both, with two) have
durably voted for it; nobody is told GOOD before that, and nobody ever votes twice in one epoch, so two values cannot
both be decided. A vote is never taken back: after a crash or a lost acknowledgement the leader proposes the same value
again, and whoever knows of a later decided epoch passes it on. When in doubt, nothing is decided.

The machine does no I/O: each call returns :class:`Effect` objects in the order in which they must be carried out.
"""

from dataclasses import dataclass

from storage_model.errors import LocalProtocolError
from storage_model.pair import PairEpoch


@dataclass(frozen=True, slots=True)
class Vote:
    """Make this vote durable, then call :meth:`EpochRegister.voted`."""

    value: PairEpoch


@dataclass(frozen=True, slots=True)
class Propose:
    """Tell the voter: this array leads and has voted for ``value``; ``decided`` is the epoch before it."""

    to: str
    value: PairEpoch
    decided: PairEpoch


@dataclass(frozen=True, slots=True)
class Accepted:
    """Tell the leader: this array has durably voted for the value of ``epoch``."""

    to: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Decide:
    """``value`` is decided: make that durable, then act on it."""

    value: PairEpoch


Effect = Vote | Propose | Accepted | Decide


class EpochRegister:
    """One pair's epochs as one voter knows them.

    ``serial`` is this array, ``voters`` the serial numbers of all; ``decided`` and ``accepted`` are what was durable
    when the array stopped. Raises LocalProtocolError when this array breaks the rules itself.
    """

    def __init__(self, serial: str, voters: tuple[str, ...], decided: PairEpoch, accepted: PairEpoch | None) -> None:
        self.serial = serial
        self.voters = voters
        self.decided = decided
        self.accepted = accepted
        self._votes: set[str] = {serial} if accepted is not None and self.leads else set()

    @property
    def majority(self) -> int:
        """How many votes decide."""
        return len(self.voters) // 2 + 1

    @property
    def leader(self) -> str:
        """The serial number of the array that may propose the next epoch; without a pair, the lowest."""
        return self.decided.p_serial or min(self.voters)

    @property
    def leads(self) -> bool:
        """True if this array serialises the pair's requests."""
        return self.leader == self.serial

    @property
    def in_doubt(self) -> bool:
        """True while a vote is out whose epoch is not known to be decided."""
        return self.accepted is not None

    def propose(self, value: PairEpoch) -> list[Effect]:
        """Start deciding the next epoch; only the leader may, and only with no vote of its own outstanding."""
        if not self.leads or self.in_doubt or value.epoch != self.decided.epoch + 1:
            raise LocalProtocolError(f"array {self.serial} may not propose epoch {value.epoch}")
        return [Vote(value)]

    @property
    def own_vote_decides(self) -> bool:
        """True if this array's vote makes the majority: then vote and decision may become durable as one."""
        others = {self.leader} - {self.serial}
        return len(others) + 1 >= self.majority and bool(others)

    def voted(self, value: PairEpoch) -> list[Effect]:
        """This array's vote for ``value`` is durable."""
        self._expect_free_vote(value)
        self.accepted = value
        self._votes = {self.serial, self.leader}
        effects: list[Effect] = []
        if self.leads:
            effects += [Propose(voter, value, self.decided) for voter in self._others()]
        else:
            effects.append(Accepted(self.leader, value.epoch))
        return effects + self._count()

    def proposed(self, sender: str, value: PairEpoch, decided: PairEpoch) -> list[Effect]:
        """The leader of epoch ``decided`` asks for a vote; no effects when the proposal is stale or unlawful."""
        effects = self.heard_decided(decided)
        if value == self.decided:
            return [*effects, Accepted(sender, value.epoch)]  # asked again after a lost acknowledgement
        if decided != self.decided or sender != self.leader or value.epoch != self.decided.epoch + 1:
            return effects
        if self.accepted is None:
            return [*effects, Vote(value)]
        if self.accepted == value:
            # Voted for before a restart, and asked again: the leader's vote counts here as it did the first time.
            self._votes |= {self.serial, sender}
            return [*effects, Accepted(sender, value.epoch), *self._count()]
        return effects

    def acknowledged(self, sender: str, epoch: int) -> list[Effect]:
        """A voter has durably voted for this array's proposal of ``epoch``."""
        if self.accepted is None or not self.leads or epoch != self.accepted.epoch or sender not in self.voters:
            return []
        self._votes.add(sender)
        return self._count()

    def heard_decided(self, value: PairEpoch) -> list[Effect]:
        """Another array knows that ``value`` was decided; whoever is behind adopts it."""
        if value.epoch <= self.decided.epoch:
            return []
        return self._decide(value)

    def reconnected(self, peer: str) -> list[Effect]:
        """The way to ``peer`` is open again: the leader repeats what is in doubt, to be decided as it was voted."""
        if self.accepted is None or not self.leads or peer not in self.voters:
            return []
        return [Propose(peer, self.accepted, self.decided)]

    def _expect_free_vote(self, value: PairEpoch) -> None:
        if self.accepted not in (None, value) or value.epoch != self.decided.epoch + 1:
            raise LocalProtocolError(f"array {self.serial} has no vote to give in epoch {value.epoch}")

    def _others(self) -> list[str]:
        return [voter for voter in self.voters if voter != self.serial]

    def _count(self) -> list[Effect]:
        if self.accepted is None or len(self._votes) < self.majority:
            return []
        return self._decide(self.accepted)

    def _decide(self, value: PairEpoch) -> list[Effect]:
        self.decided = value
        self.accepted = None
        self._votes = set()
        return [Decide(value)]
