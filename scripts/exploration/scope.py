"""What one exploration covers: who is there, how it begins, how often each misfortune may happen, how far it goes."""

from collections.abc import Sequence
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
    resyncs: int = 0
    """An operator resyncs without a claim."""
    swaps: int = 0
    """An operator swap-resyncs without a claim."""
    recovers: int = 0
    """An operator resyncs and names the P-VOL as the good side."""
    takeovers: int = 0
    """An operator at the S-VOL takes over by force, without the other array."""
    openings: int = 0
    """An operator at the P-VOL does, where a fault has stopped mirroring: it is as good as promoted there."""
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
    early: int = 0
    """An array's next input comes before it is at rest from the last one."""

    def counts(self) -> tuple[int, ...]:
        return tuple(getattr(self, name) for name in KINDS)


KINDS = tuple(spec.name for spec in fields(Budget))
PLACES = {name: place for place, name in enumerate(KINDS)}


@dataclass(frozen=True, slots=True)
class Scope:
    """``sites`` has the site of each host, 0 for A, which holds the P-VOL at first. ``owner`` is who won last.

    Its bound: every order of up to ``depth`` events within the budget; 0: of all that the budget allows.
    """

    name: str
    about: str
    sites: tuple[int, ...]
    budget: Budget
    depth: int = 0
    owner: int | None = None
    state: PairState = PairState.PSUS
    fence: FenceLevel = FenceLevel.DATA
    own_reserves: int = 1
    """How many RESERVEs one host sends at most."""
    s_vol_writable: bool = False
    """Split so that the S-VOL takes writes of its own."""
    hosts: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "hosts", tuple(range(len(self.sites))))

    @property
    def spent(self) -> list[tuple[str, int]]:
        """What the budget allows at all."""
        return [(name, count) for name, count in zip(KINDS, self.budget.counts(), strict=True) if count]

    @property
    def bound(self) -> str:
        return f"every order of up to {self.depth} events" if self.depth else "every order of all events"

    def is_end(self, heard: Sequence[str]) -> bool:
        """Of a race, by what each host was told last: one has won, and another one has lost where several may reserve.

        A bound that is reached before any race has ended would prove little. Without a RESERVE there is none.
        """
        several = len(self.sites) > 1 and self.budget.reserves > 1
        return "GOOD" in heard and ("CONFLICT" in heard or not several)

    def image(self, site: int) -> DiskImage:
        """What lies on an array's disk at the beginning."""
        owner = None
        if self.owner is not None:
            owner = Owner(SERIALS[self.sites[self.owner]], nexus_of(self.owner, self.sites[self.owner]))
        epoch = PairEpoch(FIRST_EPOCH, SERIALS[0], self.state, Side.P_VOL, self.fence, self.s_vol_writable, owner)
        return DiskImage(PairRecord(epoch, self.state, equal=self.state is PairState.PAIR))


# What is small enough goes to its end. The depths of the others were chosen by measurement, for about 100,000 states
# each: a race of two sites is won and lost after 16 to 18 events, and what may follow or come between needs a few more.
_WHOLE = (
    Scope("one-write", "the owner writes while suspended, the other one swaps", (0, 1),
          Budget(reserves=1, writes=1), owner=0),
    Scope("again", "the owner aborts its RESERVE and sends another", (0,),
          Budget(reserves=2, abandoned=1), owner=0, own_reserves=2),
    Scope("impatient", "an array does not wait for the decision", (0, 1), Budget(reserves=1, impatient=1)),
    Scope("race", "Figure 7: a suspended pair without an owner, and a host at each site", (0, 1), Budget(reserves=2)),
    Scope("release", "Figure 7, and the winner releases", (0, 1), Budget(reserves=2, releases=1)),
    Scope("swap", "a host at B reserves twice, and the link breaks", (1,),
          Budget(reserves=2, cuts=1), own_reserves=2),
    Scope("released", "the owner releases in PAIR, and both want it then", (0, 1),
          Budget(reserves=3, releases=1, cuts=1), owner=0, state=PairState.PAIR, own_reserves=2),
    Scope("start-early", "Figure 7, and inputs come while an array is still busy with the one before", (0, 1),
          Budget(reserves=2, early=2)),
    Scope("takeover-vote", "a host reserves, and an operator takes over by force what may still be in doubt", (0, 1),
          Budget(reserves=1, takeovers=1, cuts=1), owner=0),
    Scope("takeovers", "cut off, an operator takes over by force at B; later another one tries it at A, left behind",
          (0, 1), Budget(reserves=1, takeovers=2, cuts=2), owner=0, state=PairState.PAIR),
    Scope("both-by-force", "a vote is out, the link breaks, and operators take over by force at both arrays", (0,),
          Budget(splits=1, takeovers=1, openings=2, cuts=1, recovers=1), state=PairState.PAIR),
    Scope("open-s-vol", "a host writes at the S-VOL, which is open for it, and an operator swaps without a claim", (1,),
          Budget(writes=1, swaps=1, cuts=1, crashes=1), s_vol_writable=True),
    Scope("open-s-vol-late", "as before, and arrays do not wait for the decision", (1,),
          Budget(writes=1, swaps=2, impatient=1), s_vol_writable=True),
    Scope("forgotten", "a host at B is refused, and an array crashes", (1,),
          Budget(reserves=1, cuts=1, crashes=1)),
    Scope("cut", "Figure 12: the host at A owns the suspended pair, both want it, the link breaks", (0, 1),
          Budget(reserves=2, cuts=1), owner=0),
)  # fmt: skip
_START = (
    Scope("start", "Figure 7, and the link breaks", (0, 1), Budget(reserves=2, cuts=1), 25),
    Scope("start-crash", "Figure 7, and an array crashes", (0, 1), Budget(reserves=2, crashes=1), 24),
    Scope("start-impatient", "Figure 7, the link breaks and the arrays do not wait", (0, 1),
          Budget(reserves=2, cuts=1, impatient=1), 20),
    Scope("start-crashes", "Figure 7, and arrays crash twice", (0, 1), Budget(reserves=2, crashes=2), 19),
    Scope("three-hosts", "Figure 7 with two hosts at A; one may release, the link breaks", (0, 0, 1),
          Budget(reserves=3, releases=1, cuts=1), 19),
)  # fmt: skip
_SHIMS = (
    Scope("shims", "shims die, answers are late, hosts give up", (0, 1),
          Budget(reserves=3, deaths=1, late=1, abandoned=1), 18, own_reserves=2),
    Scope("late-answers", "answers are late while the link breaks", (0, 1), Budget(reserves=2, late=2, cuts=1), 17),
    Scope("late-crash", "answers are late while an array crashes", (0, 1), Budget(reserves=2, late=1, crashes=1), 19),
    Scope("resets", "hosts reset the logical unit, as clusters do before they reserve", (0, 0, 1),
          Budget(reserves=3, resets=1), 25),
    Scope("resets-late", "resets abort what a shim waits for", (0, 1), Budget(reserves=2, resets=2, late=1), 22),
)  # fmt: skip
_FAILURE = (
    Scope("failure", "Figure 12, and one of both reserves again", (0, 1),
          Budget(reserves=3, cuts=1), 22, owner=0, own_reserves=2),
    Scope("failure-early", "Figure 12, and inputs come while an array is still busy with the one before", (0, 1),
          Budget(reserves=2, cuts=1, early=1), 19, owner=0),
    Scope("failure-crash", "Figure 12, and both the link and an array fail", (0, 1),
          Budget(reserves=2, crashes=1, cuts=1), 19, owner=0),
    Scope("rearmed", "the pair is split again, so that there are several races", (0, 1),
          Budget(reserves=3, splits=1, cuts=1), 20, owner=0, own_reserves=2),
)  # fmt: skip
_WRITES = (
    Scope("writes", "the owner writes while suspended, the other one swaps, the link breaks", (0, 1),
          Budget(reserves=2, writes=2, cuts=1), 20, owner=0),
    Scope("writes-crash", "the owner writes while suspended, and an array crashes", (0, 1),
          Budget(reserves=1, writes=2, crashes=1), 21, owner=0),
    Scope("mirrored-writes", "the owner writes in PAIR, fence level never, and the operator recovers", (0, 1),
          Budget(reserves=1, writes=2, cuts=1, recovers=1), 17, owner=0, state=PairState.PAIR,
          fence=FenceLevel.NEVER),
    Scope("operators", "operators split, resync and swap without a claim, a host writes", (0,),
          Budget(reserves=1, writes=1, splits=1, resyncs=1, swaps=1), 20),
)  # fmt: skip

SCOPES = {scope.name: scope for scope in (*_WHOLE, *_START, *_SHIMS, *_FAILURE, *_WRITES)}
"""Small ones first: with a limit of time, what they leave of theirs is for the others."""
