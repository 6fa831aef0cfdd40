"""The scenario as data: who is where, the figures, and what must come out of each failure.

Numbers are those of the patent: sites 100 and 101, hosts 10 and 11, arrays 20 and 21, quorum pair 60/61, data pairs
70 -> 71 and 73 -> 72 (replication runs both ways at once, Figure 2).
"""

from dataclasses import dataclass
from enum import Enum, StrEnum

from storage_model.pair_state import PairRole, PairState
from storage_model.spec.pair_cdb import PairStatus, StatusFlag


class Site(StrEnum):
    """A site by the letter it has in the configuration files."""

    A = "A"
    B = "B"

    @property
    def other(self) -> "Site":
        return Site.B if self is Site.A else Site.A


@dataclass(frozen=True, slots=True)
class SiteNumbers:
    """The patent's reference numerals for one site."""

    site: int
    host: int
    array: int
    shim: int


NUMBERS = {Site.A: SiteNumbers(100, 10, 20, 84), Site.B: SiteNumbers(101, 11, 21, 85)}
SITE_OF_HOST = {numbers.host: site for site, numbers in NUMBERS.items()}
INITIATOR_NAME_PREFIX = "iqn.2026-11.org.pairvol:host-"


def initiator_name(site: Site) -> str:
    """The iSCSI name of the site's host."""
    return f"{INITIATOR_NAME_PREFIX}{NUMBERS[site].host}"


def site_of_initiator(name: str) -> Site | None:
    """The site whose host has this iSCSI name; None for anybody else's."""
    return next((site for site in Site if initiator_name(site) == name), None)


@dataclass(frozen=True, slots=True)
class PairedVolume:
    """One pair: its LUN, the same at both arrays, its volume number at each, and where the P-VOL starts."""

    lun: int
    volumes: tuple[int, int]
    home: Site

    def number_at(self, site: Site) -> int:
        return self.volumes[0] if site is Site.A else self.volumes[1]

    @property
    def p_volume(self) -> int:
        """The number of the volume that starts as P-VOL; the application's records carry it."""
        return self.number_at(self.home)

    @property
    def title(self) -> str:
        return f"{self.p_volume}/{self.number_at(self.home.other)}"


QUORUM = PairedVolume(lun=0, volumes=(60, 61), home=Site.A)
DATA_PAIRS = (
    PairedVolume(lun=1, volumes=(70, 71), home=Site.A),
    PairedVolume(lun=2, volumes=(72, 73), home=Site.B),
)


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. MSCS repeats RESERVE every 3 s and gives a silent peer several seconds; here all is scaled down."""

    heartbeat_interval: float = 0.1
    heartbeat_timeout: float = 1.0
    renewal_interval: float = 0.5
    record_interval: float = 0.005
    normal_running: float = 1.0
    after_takeover: float = 1.2
    start_jitter: float = 0.005
    head_start: float = 1.0
    """With ``--first``: how long the other host hesitates in every race."""
    start_up_deadline: float = 30.0
    step_deadline: float = 20.0


class Failure(StrEnum):
    """What breaks in normal running (Figure 11)."""

    HEARTBEAT = "heartbeat"
    HOST_A = "host-a"
    HOST_B = "host-b"
    LINK = "link"
    ARRAY_A = "array-a"
    ARRAY_B = "array-b"

    @property
    def dead_host(self) -> Site | None:
        return {Failure.HOST_A: Site.A, Failure.HOST_B: Site.B}.get(self)

    @property
    def dead_array(self) -> Site | None:
        return {Failure.ARRAY_A: Site.A, Failure.ARRAY_B: Site.B}.get(self)

    @property
    def words(self) -> str:
        return _FAILURE_WORDS[self]


_FAILURE_WORDS = {
    Failure.HEARTBEAT: "the heartbeat network (50) is cut",
    Failure.HOST_A: "host 10 and its pair-control software (84) are killed",
    Failure.HOST_B: "host 11 and its pair-control software (85) are killed",
    Failure.LINK: "the sites are cut apart: remote-copy link (40) and heartbeat network (50)",
    Failure.ARRAY_A: "array 20 is killed",
    Failure.ARRAY_B: "array 21 is killed",
}


class Outcome(Enum):
    """How the race after a failure may end."""

    ONE_WINS = "exactly one host wins the next epoch"
    OWNER_KEEPS = "nobody new may win; the present owner keeps running"
    NOBODY = "nobody may win"


@dataclass(frozen=True, slots=True)
class Expectation:
    """What must hold after a failure.

    ``repaired`` is the quorum pair's state once a cut link or a dead array is back; None when nothing can be mended.
    ``good`` are the sites whose RESERVE may be answered GOOD; with NOBODY it is empty. ``takeover`` says whether the
    winner continues both applications. ``quorum`` and ``data`` are the pair states at every array that lives.
    """

    outcome: Outcome
    good: frozenset[Site]
    takeover: bool
    quorum: PairState
    data: PairState
    why: str
    repaired: PairState | None = None


_EITHER = frozenset(Site)
_ONLY_A = frozenset({Site.A})
_ONLY_B = frozenset({Site.B})

_RACE = Expectation(
    Outcome.ONE_WINS,
    _EITHER,
    takeover=True,
    quorum=PairState.PAIR,
    data=PairState.PAIR,
    why="both hosts and both arrays live: the first claim to be agreed wins (Figure 12)",
)
_SURVIVOR_A = Expectation(
    Outcome.ONE_WINS,
    _ONLY_A,
    takeover=True,
    quorum=PairState.PAIR,
    data=PairState.PAIR,
    why="only host 10 is left to claim, and both arrays can vote",
)
_SURVIVOR_B = Expectation(
    Outcome.ONE_WINS,
    _ONLY_B,
    takeover=True,
    quorum=PairState.PAIR,
    data=PairState.PAIR,
    why="only host 11 is left to claim, and both arrays can vote",
)
_OWNER_A = Expectation(
    Outcome.OWNER_KEEPS,
    _ONLY_A,
    takeover=False,
    quorum=PairState.PSUS,
    data=PairState.PSUE,
    why="no array has the other's vote; nobody else can have won, so the owner's renewal is GOOD",
    repaired=PairState.PAIR,
)
_OWNER_B = Expectation(
    Outcome.OWNER_KEEPS,
    _ONLY_B,
    takeover=False,
    quorum=PairState.PSUS,
    data=PairState.PSUE,
    why="no array has the other's vote; nobody else can have won, so the owner's renewal is GOOD",
    repaired=PairState.PAIR,
)
_NOBODY = Expectation(
    Outcome.NOBODY,
    frozenset(),
    takeover=False,
    quorum=PairState.PSUS,
    data=PairState.PSUE,
    why="the owner's array is gone and the other lacks its vote: zero winners is safe, two never are",
    repaired=PairState.PSUS,
)

EXPECTATIONS: dict[tuple[Failure, Site], Expectation] = {
    (Failure.HEARTBEAT, Site.A): _RACE,
    (Failure.HEARTBEAT, Site.B): _RACE,
    (Failure.HOST_A, Site.A): _SURVIVOR_B,
    (Failure.HOST_A, Site.B): _SURVIVOR_B,
    (Failure.HOST_B, Site.A): _SURVIVOR_A,
    (Failure.HOST_B, Site.B): _SURVIVOR_A,
    (Failure.LINK, Site.A): _OWNER_A,
    (Failure.LINK, Site.B): _OWNER_B,
    (Failure.ARRAY_A, Site.A): _NOBODY,
    (Failure.ARRAY_A, Site.B): _OWNER_B,
    (Failure.ARRAY_B, Site.A): _OWNER_A,
    (Failure.ARRAY_B, Site.B): _NOBODY,
}
"""By what broke and which site owned the quorum pair when it did; who owns is itself the result of a real race."""


@dataclass(frozen=True, slots=True)
class Figure:
    """``quorum`` are the states of the quorum pair that the figure allows; None: as the failure's expectation says."""

    name: str
    title: str
    quorum: frozenset[PairState] | None


_COPY_OR_PAIR = frozenset({PairState.COPY, PairState.PAIR})
_PAIR = frozenset({PairState.PAIR})
_PSUS = frozenset({PairState.PSUS})

FIGURE_7 = Figure("Figure 7", "cluster stopped, quorum pair suspended", _PSUS)
START = Figure("Start", "both hosts RESERVE at once, one wins", _COPY_OR_PAIR)
FIGURE_8 = Figure("Figure 8", "the winner writes the cluster management data", _PAIR)
FIGURE_9 = Figure("Figure 9", "both hosts mount their volumes and start applications", _PAIR)
FIGURE_10 = Figure("Figure 10", "quorum pair split, ready for the next failure", _PSUS)
FIGURE_11 = Figure("Figure 11", "normal running", _PSUS)
FAILURE = Figure("Failure", "", None)
FIGURE_12 = Figure("Figure 12", "who won", None)
FIGURE_13 = Figure("Figure 13", "takeover", None)
REPAIR = Figure("Repair", "what broke is mended, the operator resyncs the data pairs", None)
FIGURES = (FIGURE_7, START, FIGURE_8, FIGURE_9, FIGURE_10, FIGURE_11, FAILURE, FIGURE_12, FIGURE_13, REPAIR)


def link_up(status: PairStatus) -> bool:
    """The array has its peer on the line."""
    return bool(status.flags & StatusFlag.LINK_UP)


def shown_state(role: PairRole, state: PairState) -> str:
    """As the operators of real arrays write it: a suspended S-VOL shows SSUS."""
    return "SSUS" if (role, state) == (PairRole.S_VOL, PairState.PSUS) else state.name
