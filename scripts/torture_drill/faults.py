"""What goes wrong: kinds of faults, each struck, left for a while and undone."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random

from scripts.failover_drill.link_proxy import Cut, Direction
from scripts.failover_drill.processes import ChildProcess
from scripts.torture_drill.stage import Site, Stage
from scripts.torture_drill.volumes import SITES
from target.remote_copy.link import SILENCE_LIMIT

Undo = Callable[[], Awaitable[None]]
_SHORT_SECONDS = (0.05, 0.6)
_LONG_SECONDS = (SILENCE_LIMIT + 0.2, SILENCE_LIMIT + 0.8)
_SLOW_SECONDS = (0.002, 0.02, 0.1)
_FULL_BYTES = (1 << 20, 256 << 10)


@dataclass(frozen=True)
class Struck:
    """``what`` was hit, in words, and is left like that for ``seconds``."""

    what: str
    seconds: float
    undo: Undo


def _site(stage: Stage, random: Random) -> Site:
    return stage.sites[random.choice(SITES)]


async def _array_killed(stage: Stage, random: Random) -> Struck:
    site = _site(stage, random)
    assert site.array is not None
    await site.array.kill()
    return Struck(site.array.name, random.uniform(*_SHORT_SECONDS), site.start_array)


async def _both_arrays_killed(stage: Stage, random: Random) -> Struck:
    order = random.sample(list(stage.sites.values()), 2)
    for site in order:
        assert site.array is not None
        await site.array.kill()

    async def undo() -> None:
        await asyncio.gather(*(site.start_array() for site in order))

    return Struck("both arrays", random.uniform(*_SHORT_SECONDS), undo)


async def _array_restarted(stage: Stage, random: Random) -> Struck:
    """SIGTERM, as a service is stopped: its initiators are asked to log out."""
    site = _site(stage, random)
    assert site.array is not None
    await site.array.end(grace=8.0)
    return Struck(site.array.name, random.uniform(*_SHORT_SECONDS), site.start_array)


async def _shim_killed(stage: Stage, random: Random) -> Struck:
    site = _site(stage, random)
    assert site.shim is not None
    await site.shim.kill()
    return Struck(site.shim.name, random.uniform(*_SHORT_SECONDS), site.start_shim)


def _pause(child: ChildProcess | None, seconds: float) -> Struck:
    assert child is not None
    child.send_signal(signal.SIGSTOP)

    async def undo() -> None:
        child.send_signal(signal.SIGCONT)

    return Struck(child.name, seconds, undo)


async def _array_paused(stage: Stage, random: Random) -> Struck:
    return _pause(_site(stage, random).array, random.uniform(*_SHORT_SECONDS))


async def _array_paused_long(stage: Stage, random: Random) -> Struck:
    """Longer than the other array believes in it."""
    return _pause(_site(stage, random).array, random.uniform(*_LONG_SECONDS))


async def _shim_paused(stage: Stage, random: Random) -> Struck:
    return _pause(_site(stage, random).shim, random.uniform(*_SHORT_SECONDS))


async def _link_cut(stage: Stage, random: Random) -> Struck:
    stage.cable.cut(Cut.RESET)

    async def undo() -> None:
        stage.cable.restore()

    return Struck("both ends see a reset", random.uniform(*_SHORT_SECONDS), undo)


def _hold(stage: Stage, random: Random, *directions: Direction) -> Struck:
    stage.cable.hold(*directions)
    lasting = random.random() < 0.35
    late = random.random() < 0.5

    async def undo() -> None:
        if late:
            stage.cable.release()
        else:
            stage.cable.cut(Cut.RESET)
            stage.cable.restore()

    words = " and ".join(direction.value for direction in directions)
    fate = "delivered late" if late else "lost"
    return Struck(f"nothing {words}, {fate}", random.uniform(*(_LONG_SECONDS if lasting else _SHORT_SECONDS)), undo)


async def _link_half_open(stage: Stage, random: Random) -> Struck:
    return _hold(stage, random, random.choice(list(Direction)))


async def _link_silent(stage: Stage, random: Random) -> Struck:
    return _hold(stage, random, *Direction)


async def _link_slow(stage: Stage, random: Random) -> Struck:
    stage.cable.delay = random.choice(_SLOW_SECONDS)

    async def undo() -> None:
        stage.cable.delay = 0.0

    return Struck(f"{stage.cable.delay:g} s a piece", random.uniform(0.3, 1.0), undo)


async def _disk_full(stage: Stage, random: Random) -> Struck:
    site = _site(stage, random)
    limit = random.choice(_FULL_BYTES)
    site.limit_files(limit)

    async def undo() -> None:
        if site.array is not None and site.array.running:
            site.limit_files(-1)

    return Struck(f"array {site.name}, behind {limit >> 10} KiB of a file", random.uniform(0.2, 0.8), undo)


FAULTS: dict[str, Callable[[Stage, Random], Awaitable[Struck]]] = {
    "array killed": _array_killed,
    "both arrays killed": _both_arrays_killed,
    "array restarted": _array_restarted,
    "array paused": _array_paused,
    "array paused long": _array_paused_long,
    "shim killed": _shim_killed,
    "shim paused": _shim_paused,
    "link cut": _link_cut,
    "link half open": _link_half_open,
    "link silent": _link_silent,
    "link slow": _link_slow,
    "disk full": _disk_full,
}

_SECOND = ("link cut", "link half open", "link silent", "link slow")
"""Beside a fault that does not concern the link; two of processes would get in each other's way."""


def second_fault(first: str, random: Random) -> str | None:
    """Now and then two things go wrong together."""
    if first in _SECOND or random.random() > 0.25:
        return None
    return random.choice(_SECOND)
