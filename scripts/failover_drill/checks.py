"""The proof, as pure functions: from what was seen to checks that hold or do not."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median

from scripts.failover_drill.scenario import NUMBERS, Expectation, Figure, Outcome, Site, shown_state, site_of_initiator
from storage_model.pair_state import PairRole, PairState
from storage_model.spec.pair_cdb import PairStatus

Statuses = Mapping[Site, PairStatus | None]
"""What each array says of one pair; None from an array that cannot be asked."""

REFUSED = "RESERVATION CONFLICT"
PATIENCE_SECONDS = 2.0
"""The arrays wait that long for each other's vote, the shims a little longer."""
BOTH_SITES_FROM = 20
"""A series this long must have been won by each site at least once."""


@dataclass(frozen=True, slots=True)
class Check:
    """One sentence that must be true; ``detail`` says what was seen."""

    name: str
    held: bool
    detail: str


def owner_site(statuses: Statuses) -> Site | None:
    """The site that owns the pair, by the word of the arrays that live; None when nobody does or they disagree."""
    owners = {status.owner.initiator_name if status.owner else "" for status in statuses.values() if status}
    return site_of_initiator(owners.pop()) if len(owners) == 1 else None


def owner_words(owner: Site | None) -> str:
    """The owner, for a person."""
    return f"host {NUMBERS[owner].host} (site {owner})" if owner else "nobody"


def _half(site: Site, status: PairStatus | None) -> str:
    array = f"array {NUMBERS[site].array}"
    return f"{array} {status.role.label} {shown_state(status.role, status.state)}" if status else f"{array} down"


def halves(statuses: Statuses) -> str:
    """Both halves in words."""
    return ", ".join(_half(site, statuses[site]) for site in Site)


def states_are(name: str, allowed: frozenset[PairState], statuses: Statuses) -> Check:
    """The pair is in one of these states at every array that lives."""
    states = {status.state for status in statuses.values() if status}
    words = " or ".join(state.name for state in sorted(allowed))
    return Check(f"{name}: {words} at every array that lives", bool(states) and states <= allowed, halves(statuses))


def figure_holds(figure: Figure, statuses: Statuses) -> Check:
    """The quorum pair is as the figure shows it."""
    assert figure.quorum is not None, "this figure depends on the failure"
    return states_are(f"{figure.name}, quorum pair", figure.quorum, statuses)


def all_held(name: str, checks: Iterable[Check]) -> Check:
    """Many checks told as one; its detail is about those that failed, if any did."""
    every = list(checks)
    failed = [f"{check.name}: {check.detail}" for check in every if not check.held]
    return Check(name, not failed, "; ".join(failed) or f"{len(every)} figures, at both arrays")


def one_winner(race: str, good: Iterable[Site]) -> Check:
    """Exactly one RESERVE was answered GOOD."""
    winners = sorted(good)
    seen = " and ".join(f"host {NUMBERS[site].host}" for site in winners) or "nobody"
    return Check(f"{race}: exactly one host won", len(winners) == 1, f"{seen} got GOOD")


def failure_outcome(expectation: Expectation, owner_before: Site, good: Iterable[Site]) -> Check:
    """Who got GOOD after the failure is among those who may have it, and as many as may have it."""
    winners = set(good)
    match expectation.outcome:
        case Outcome.ONE_WINS:
            held = len(winners) == 1 and winners <= expectation.good
        case Outcome.OWNER_KEEPS:
            held = winners == {owner_before} and winners <= expectation.good
        case Outcome.NOBODY:
            held = not winners
    seen = " and ".join(f"host {NUMBERS[site].host}" for site in sorted(winners)) or "nobody"
    return Check(f"after the failure: {expectation.outcome.value}", held, f"{seen} got GOOD; {expectation.why}")


def arrays_agree(statuses: Statuses) -> Check:
    """Both arrays name the same owner and epoch, and one half is the P-VOL, the other the S-VOL."""
    known = [status for status in statuses.values() if status]
    owners = {str(status.owner) for status in known}
    epochs = {status.epoch for status in known}
    roles = sorted(status.role for status in known)
    held = len(known) == 2 and len(owners) == len(epochs) == 1 and roles == [PairRole.P_VOL, PairRole.S_VOL]
    detail = f"epoch {' / '.join(map(str, sorted(epochs)))}, {halves(statuses)}"
    return Check("both arrays agree on owner, epoch and roles", held, detail)


def ownership_after(expectation: Expectation, before: Statuses, after: Statuses, winner: Site | None) -> Check:
    """A new epoch with the winner as its owner, or the old epoch with the old owner."""
    old = max(status.epoch for status in before.values() if status)
    new = {status.epoch for status in after.values() if status}
    owner = owner_site(after)
    detail = f"epoch {old} before, {' / '.join(map(str, sorted(new)))} after"
    if expectation.outcome is Outcome.ONE_WINS:
        return Check("the winner owns a later epoch", owner is not None and owner is winner and min(new) > old, detail)
    held = owner is owner_site(before) and new == {old}
    return Check("owner and epoch are the old ones at every array that lives", held, detail)


def refused(who: str, status: str) -> Check:
    """A write to the quorum volume by somebody who does not own it."""
    return Check(f"a write to the quorum volume by {who} is refused", status == REFUSED, status)


def records_readable(volume: int, acknowledged: set[int], found: set[int], where: str) -> Check:
    """Every acknowledged record was read back, whole and in its place."""
    missing = sorted(acknowledged - found)
    detail = f"{len(acknowledged)} acknowledged, {len(acknowledged) - len(missing)} of them read back at {where}"
    if missing:
        detail += f"; missing {missing[:5]}{'…' if len(missing) > 5 else ''}"
    held = bool(acknowledged) and not missing
    return Check(f"every acknowledged record of volume {volume} is readable", held, detail)


@dataclass(frozen=True, slots=True)
class Race:
    """One race: who got GOOD, how long each RESERVE took in seconds (None: no answer in time)."""

    good: frozenset[Site]
    seconds: Mapping[Site, float | None]

    @property
    def timed_out(self) -> bool:
        """A host had no answer, or one that only the end of somebody's patience brought about."""
        return any(value is None or value >= PATIENCE_SECONDS for value in self.seconds.values())

    @property
    def longest(self) -> float:
        """Until the last host had its answer, of those that got one."""
        return max((value for value in self.seconds.values() if value is not None), default=0.0)


@dataclass(frozen=True, slots=True)
class RaceSeries:
    """What a series of races came to; latencies in seconds."""

    races: int
    won: Mapping[Site, int]
    both: int
    nobody: int
    timed_out: int
    refused: int
    latency_median: float
    latency_max: float

    @classmethod
    def of(cls, races: list[Race]) -> "RaceSeries":
        longest = [race.longest for race in races]
        return cls(
            races=len(races),
            won={site: sum(race.good == {site} for race in races) for site in Site},
            both=sum(len(race.good) > 1 for race in races),
            nobody=sum(not race.good for race in races),
            timed_out=sum(race.timed_out for race in races),
            refused=sum(len(race.seconds) - len(race.good) for race in races),
            latency_median=median(longest),
            latency_max=max(longest),
        )

    def checks(self) -> list[Check]:
        """What must hold of every series, and of every long one."""
        decided = sum(self.won.values())
        wins = ", ".join(f"site {site} won {count}" for site, count in self.won.items())
        checks = [
            Check(
                f"exactly one winner in each of {self.races} races",
                decided == self.races,
                f"{wins}, both {self.both}, nobody {self.nobody}",
            ),
            Check("no race timed out", self.timed_out == 0, f"{self.timed_out} timed out"),
        ]
        if self.races >= BOTH_SITES_FROM:
            checks.append(Check("each site won some races", all(self.won.values()), wins))
        return checks
