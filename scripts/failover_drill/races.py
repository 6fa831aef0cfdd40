"""The start race, again and again: sessions stay open, only RESERVE and its answer are timed."""

import asyncio
import contextlib
import random
import time

from scripts.failover_drill.checks import Race, owner_site
from scripts.failover_drill.node_protocol import Order
from scripts.failover_drill.report import Timeline
from scripts.failover_drill.scenario import QUORUM, Site
from scripts.failover_drill.sites import NodeFailed
from scripts.failover_drill.stage import Stage
from storage_model.errors import PairvolError
from storage_model.pair_state import PairState
from storage_model.spec.pair_cdb import PairOut

_LEAD = 0.004
"""Seconds between the orders and the moment they name: enough for both pipes."""
_PROGRESS_SECONDS = 2.0
_POLL_INTERVAL = 0.005


async def run_races(stage: Stage, count: int, jitter: random.Random, timeline: Timeline) -> list[Race]:
    """``count`` races; the pair is PSUS and without an owner before each of them."""
    races: list[Race] = []
    said_at = time.monotonic()
    for number in range(1, count + 1):
        race = await _race(stage, jitter)
        races.append(race)
        await _stop_cluster(stage, race)
        if time.monotonic() - said_at > _PROGRESS_SECONDS:
            said_at = time.monotonic()
            timeline.progress(f"race {number} of {count}")
    return races


async def _race(stage: Stage, jitter: random.Random) -> Race:
    at = time.monotonic() + _LEAD
    deadline = stage.timing.step_deadline
    moments = {site: at + jitter.uniform(0.0, stage.timing.start_jitter) for site in Site}
    answers = await asyncio.gather(
        *(stage.nodes[site].order(Order.RACE, deadline, at=moments[site]) for site in Site), return_exceptions=True
    )
    good: set[Site] = set()
    seconds: dict[Site, float | None] = {}
    for site, answer in zip(Site, answers, strict=True):
        if isinstance(answer, NodeFailed):
            seconds[site] = None
        elif isinstance(answer, BaseException):
            raise answer
        else:
            seconds[site] = float(answer["seconds"])
            if answer["good"]:
                good.add(site)
    return Race(frozenset(good), seconds)


async def _stop_cluster(stage: Stage, race: Race) -> None:
    """RELEASE by whoever got GOOD, and by the owner if that is somebody else; then the pair is armed again."""
    owner = owner_site(await stage.statuses(QUORUM))
    for site in sorted(race.good | ({owner} if owner else set())):
        await stage.nodes[site].order(Order.RELEASE, stage.timing.step_deadline)
    give_up_at = time.monotonic() + stage.timing.step_deadline
    while True:
        statuses = await stage.statuses(QUORUM)
        known = [status for status in statuses.values() if status]
        if len(known) == len(Site) and all(s.state is PairState.PSUS and s.owner is None for s in known):
            return
        if time.monotonic() > give_up_at:
            words = "; ".join(f"array {s.serial}: {s.state.name}, owner {s.owner}" for s in known)
            raise PairvolError(f"the cluster did not stop after a RELEASE: {words}")
        # A RELEASE while the pair was copying arms it; a pair still mirroring is split by the operator.
        if len(known) == len(Site) and all(s.state is PairState.PAIR and s.owner is None for s in known):
            with contextlib.suppress(PairvolError):  # the state has moved since: look again
                await stage.views[Site.A].pair_control(QUORUM.lun, PairOut.SPLIT)
        await asyncio.sleep(_POLL_INTERVAL)
