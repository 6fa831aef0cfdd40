"""What one exploration covers: who is there, how it begins, and how often each misfortune may happen."""

from dataclasses import dataclass, field, fields

from scripts.exploration.array_machine import SERIALS, DiskImage, nexus_of
from storage_model.pair import Owner, PairEpoch, PairRecord
from storage_model.pair_state import FenceLevel, PairState, Side

FIRST_EPOCH = 2


@dataclass(frozen=True, slots=True)
class Budget:
    """How many of each event one run may have: what bounds the exploration. Deliveries are not bounded."""

    reserves: int = 0
    releases: int = 0
    writes: int = 0
    resets: int = 0
    """LOGICAL UNIT RESET by a host."""
    splits: int = 0
    recovers: int = 0
    """An operator resyncs and names the P-VOL as the good side."""
    crashes: int = 0
    """Of an array; it starts again at once."""
    cuts: int = 0
    """Of the remote-copy link."""
    deaths: int = 0
    """Of a shim; it starts again at once."""
    late: int = 0
    """A command of a shim is not answered in time."""
    impatient: int = 0
    """An array gives up waiting for a decision."""
    abandoned: int = 0
    """A host aborts its RESERVE."""

    def counts(self) -> tuple[int, ...]:
        return tuple(getattr(self, name) for name in KINDS)


KINDS = tuple(spec.name for spec in fields(Budget))
PLACES = {name: place for place, name in enumerate(KINDS)}


@dataclass(frozen=True, slots=True)
class Scope:
    """``sites`` has the site of each host, 0 for A, which holds the P-VOL at first. ``owner`` is who won last."""

    name: str
    about: str
    sites: tuple[int, ...]
    budget: Budget
    owner: int | None = None
    state: PairState = PairState.PSUS
    fence: FenceLevel = FenceLevel.DATA
    written: bool = False
    """The P-VOL took writes since the split."""
    split_writable: bool = False
    own_reserves: int = 1
    """How many RESERVEs one host sends at most."""
    hosts: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "hosts", tuple(range(len(self.sites))))

    def image(self, site: int) -> DiskImage:
        """What lies on an array's disk at the beginning."""
        owner = None
        if self.owner is not None:
            owner = Owner(SERIALS[self.sites[self.owner]], nexus_of(self.owner, self.sites[self.owner]))
        epoch = PairEpoch(
            FIRST_EPOCH, SERIALS[0], self.state, Side.P_VOL, self.fence, self.split_writable, owner
        )
        return DiskImage(PairRecord(epoch, self.state, equal=self.state is PairState.PAIR))


SCOPES = {
    scope.name: scope
    for scope in (
        Scope(
            "start",
            "Figure 7: a suspended pair without an owner, a host at each site",
            (0, 1),
            Budget(reserves=2, crashes=1, cuts=1, impatient=1),
        ),
        Scope(
            "shims",
            "a host at each site; shims die, answers are late, hosts give up",
            (0, 1),
            Budget(reserves=3, deaths=1, late=1, abandoned=1, resets=1),
            own_reserves=2,
        ),
        Scope(
            "failure",
            "Figure 12: the host at A owns the suspended pair, the host at B wants it, both go on",
            (0, 1),
            Budget(reserves=3, releases=1, splits=1, crashes=1, cuts=1),
            owner=0,
            own_reserves=2,
        ),
        Scope(
            "three-hosts",
            "two hosts at A and one at B",
            (0, 0, 1),
            Budget(reserves=3, releases=1, cuts=1),
        ),
        Scope(
            "writes",
            "the owner writes while suspended and mirrored, a swap comes in between",
            (0, 1),
            Budget(reserves=2, writes=2, splits=1, crashes=1, cuts=1, recovers=1),
            owner=0,
        ),
    )
}
