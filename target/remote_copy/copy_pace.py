"""How fast a copy or a comparison may go, and how far it is. [C]

The limit is a number that may change while a copy runs. Waiting is the array's business: a port with a clock.
"""

from asyncio import Lock
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

Sleep = Callable[[float], Awaitable[None]]
Clock = Callable[[], float]

BURST_SECONDS = 0.25
"""Of what a copy has not used it may make up for so much: a slow chunk does not lower the rate."""
NAP_SECONDS = 0.25
"""The longest wait before the limit is looked at again: so soon a change of it counts."""
SPEED_SECONDS = 2.0
"""How far a speed looks back at least, once there is so much."""


async def _never_sleeps(seconds: float) -> None:
    raise AssertionError("a limit needs a clock")


class CopyPace:
    """Bytes per second of all copies that share this object; ``bytes_per_second`` 0: no limit."""

    def __init__(self, bytes_per_second: int = 0, clock: Clock = lambda: 0.0, sleep: Sleep = _never_sleeps) -> None:
        self.bytes_per_second = bytes_per_second
        """May be changed at any time."""
        self.clock = clock
        self._sleep = sleep
        self._turn = Lock()
        self._earned = 0.0
        self._since = clock()

    async def spend(self, count: int, wanted: Callable[[], bool] = lambda: True) -> bool:
        """Returns when ``count`` bytes may be sent; those who wait go one after the other. False: not ``wanted`` now.

        Called with nothing held, so that nobody waits for a copy that waits here.
        """
        if not self.bytes_per_second:
            return True
        async with self._turn:
            while (rate := self.bytes_per_second) and (owed := self._owed(rate)) >= 1:
                if not wanted():
                    return False
                await self._sleep(min(owed / rate, NAP_SECONDS))
            self._earned -= count
        return True

    def alike(self, bytes_per_second: int) -> "CopyPace":
        """Another one, with this one's clock."""
        return CopyPace(bytes_per_second, self.clock, self._sleep)

    def _owed(self, rate: int) -> float:
        """The bytes that earlier calls have had in advance."""
        now = self.clock()
        self._earned = min(self._earned + (now - self._since) * rate, rate * BURST_SECONDS)
        self._since = now
        return -self._earned


@dataclass(slots=True)
class Speed:
    """Of something that counts upwards: over the last one or two windows, so that it tells of a change soon."""

    since: float
    """Now, when the count was 0."""
    count: int = 0
    _before: float = field(init=False)
    _count_before: int = 0
    _count_since: int = 0

    def __post_init__(self) -> None:
        self._before = self.since

    def add(self, count: int, now: float) -> None:
        self.count += count
        if now - self.since >= SPEED_SECONDS:
            self._before, self._count_before = self.since, self._count_since
            self.since, self._count_since = now, self.count

    def per_second(self, now: float) -> float:
        """0 when nothing is known yet."""
        return (self.count - self._count_before) / (now - self._before) if now > self._before else 0.0


@dataclass(slots=True)
class CopyProgress:
    """Of one run of a copy; bytes are of volume data over the link, a hole has none."""

    to_copy: int
    """Regions that differed when it began."""
    started: float
    regions: int = 0
    """Copied so far; those that hosts' writes made equal do not count."""
    sent_bytes: int = 0
    fetched_bytes: int = 0
    hole_regions: int = 0
    """Of ``regions``, those that travelled as holes."""
    speed: Speed = field(init=False)
    """Of what has become equal, in bytes."""

    def __post_init__(self) -> None:
        self.speed = Speed(self.started)

    def percent(self, differing: int) -> int:
        """Of what differed when the copy began; ``differing`` regions are left."""
        if not self.to_copy or not differing:
            return 100
        return max(0, min(99, 100 * (self.to_copy - differing) // self.to_copy))

    def rate(self, now: float) -> float:
        """Bytes per second over the link since the start."""
        passed = now - self.started
        return (self.sent_bytes + self.fetched_bytes) / passed if passed > 0 else 0.0

    def line(self, now: float) -> str:
        """For the log."""
        return (
            f"copied {self.regions} regions, {self.sent_bytes} bytes sent, {self.fetched_bytes} fetched,"
            f" in {now - self.started:.3f} s ({self.hole_regions} regions were holes)"
        )


@dataclass(slots=True)
class VerifyProgress:
    """Counts of regions; ``reason`` says why it ended early, if it did."""

    regions: int
    started: float = 0.0
    compared: int = 0
    differing: int = 0
    busy: int = 0
    """Not compared, because they were being written at both times."""
    ended: bool = False
    reason: str = ""
    speed: Speed = field(init=False)
    """Of the comparison, in bytes."""

    def __post_init__(self) -> None:
        self.speed = Speed(self.started)

    def line(self) -> str:
        """For the log."""
        counts = f"{self.compared} of {self.regions} regions compared, {self.differing} differ, {self.busy} were busy"
        return f"{counts}; ended early: {self.reason}" if self.reason else counts
