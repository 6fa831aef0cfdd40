"""The conductor: it takes the stage through Figures 7-13, breaks something in Figure 11, and proves what came of it."""

import asyncio
import random
import time
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from scripts.failover_drill import checks, scenario
from scripts.failover_drill.broker import BrokerKind
from scripts.failover_drill.checks import Check, RaceSeries, Statuses, owner_site
from scripts.failover_drill.link_proxy import Cut
from scripts.failover_drill.node_protocol import Event, Fields, Order
from scripts.failover_drill.proof import Proof
from scripts.failover_drill.races import run_races
from scripts.failover_drill.report import Timeline, Told, told_by_nodes
from scripts.failover_drill.scenario import DATA_PAIRS, NUMBERS, QUORUM, Failure, PairedVolume, Site, Timing
from scripts.failover_drill.stage import Stage
from storage_model.errors import PairvolError
from storage_model.pair_state import PairState
from storage_model.spec.pair_cdb import PairOption, PairOut

_POLL_INTERVAL = 0.02
_START_LEAD = 0.1
_DECIDED = {Event.RESERVE, Event.OWNERSHIP_LOST, Event.QUORUM_LOST, Event.BROKEN}
_OF_THE_RACE = frozenset({*_DECIDED, Event.PEER_LOST, Event.RESET})
_SETTLED = {Event.TAKEOVER_DONE, Event.RETIRED, Event.BROKEN}


class DrillFailed(PairvolError):
    """The drill cannot go on: what it waits for does not come."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line chose. ``races`` 0 walks the figures; ``first`` gives a host a head start in every race.

    Without ``shims`` the hosts talk to their arrays directly, and the drill has to fail.
    """

    failure: Failure = Failure.HEARTBEAT
    races: int = 0
    seed: int = 0
    first: Site | None = None
    broker: BrokerKind | None = None
    shims: bool = True
    timing: Timing = field(default_factory=Timing)


class Drill:
    """One run. ``events_of`` of the last stage outlive it, for the transcript."""

    def __init__(self, options: Options, directory: Path, timeline: Timeline) -> None:
        self._options = options
        self._directory = directory
        self._timeline = timeline
        self._random = random.Random(options.seed)
        self._marks: dict[Site, int] = dict.fromkeys(Site, 0)
        self._untold: list[tuple[int, Fields]] = []
        self._as_in_the_figures: list[Check] = []
        self._checks: list[Check] = []
        self._stage: Stage | None = None

    @property
    def stage(self) -> Stage:
        assert self._stage is not None, "the stage is opened first"
        return self._stage

    def events(self) -> list[tuple[int, Fields]]:
        """Everything that the nodes told, also after the end."""
        return self._stage.events() if self._stage else []

    async def run(self) -> bool:
        """True if every check held. Raises PairvolError when the stage cannot be set up."""
        options = self._options
        async with AsyncExitStack() as stack:
            self._timeline.progress("starting a broker, two arrays, two shims and two cluster nodes")
            self._stage = await Stage.open(
                self._directory,
                options.timing,
                stack,
                broker=options.broker,
                hesitation={site: self._hesitation(site) for site in Site},
                shims=options.shims,
            )
            try:
                await (self._race_series() if options.races else self._figures())
            except PairvolError as error:
                self._checks.append(Check("the drill comes to its end", False, str(error)))
            return self._timeline.proof(self._checks)

    def _hesitation(self, site: Site) -> float:
        first = self._options.first
        return self._options.timing.head_start if first is not None and site is not first else 0.0

    # ----------------------------------------------------------------------------------------------- waiting and asking

    async def _until(self, what: str, condition: Callable[[Statuses], bool], pair: PairedVolume = QUORUM) -> Statuses:
        give_up_at = time.monotonic() + self.stage.timing.step_deadline
        while True:
            statuses = await self.stage.statuses(pair)
            if condition(statuses):
                return statuses
            if time.monotonic() > give_up_at:
                raise DrillFailed(
                    f"{what}: not within {self.stage.timing.step_deadline:g} s; {checks.halves(statuses)}"
                )
            await asyncio.sleep(_POLL_INTERVAL)

    async def _until_state(self, state: PairState, pair: PairedVolume = QUORUM) -> Statuses:
        def reached(statuses: Statuses) -> bool:
            return all(status.state is state for status in statuses.values() if status)

        return await self._until(f"pair {pair.title} {state.name}", reached, pair)

    async def _order(self, site: Site, order: Order, **fields: object) -> Fields:
        return await self.stage.nodes[site].order(order, self.stage.timing.step_deadline, **fields)

    def _news(self, names: frozenset[Event] = frozenset(Event)) -> list[Told]:
        """What the nodes told since the last figure; with ``names`` only such events, the others wait for the next."""
        for site, node in self.stage.nodes.items():
            self._untold += [(NUMBERS[site].host, event) for event in node.events[self._marks[site] :]]
            self._marks[site] = len(node.events)
        now = [told for told in self._untold if told[1]["event"] in names]
        self._untold = [told for told in self._untold if told[1]["event"] not in names]
        return told_by_nodes(now)

    def _show(self, figure: scenario.Figure, quorum: Statuses, told: Iterable[Told] = ()) -> None:
        """A figure whose quorum states do not depend on the failure: shown, and checked."""
        self._timeline.figure(figure, quorum, [*told, *self._news()])
        self._as_in_the_figures.append(checks.figure_holds(figure, quorum))

    # ------------------------------------------------------------------------------------------------------ the figures

    async def _figures(self) -> None:
        await self._figure_7(DATA_PAIRS)
        owner = await self._start()
        await self._figure_8(owner)
        await self._figure_9()
        await self._figure_10(owner)
        before = await self._figure_11()
        self._checks.append(checks.all_held("Figures 7 to 11: the quorum pair is as shown", self._as_in_the_figures))
        proof = Proof(self.stage, self._options.failure, owner, before, await self._fail())
        decided = await self._until_decided(proof)
        title = proof.expectation.outcome.value
        self._timeline.figure(scenario.FIGURE_12, decided, self._news(_OF_THE_RACE), title=title)
        await self._figure_13(proof)
        self._checks += await proof.checks()
        if proof.expectation.repaired is not None:
            await self._repair(proof, proof.expectation.repaired)

    async def _figure_7(self, data_pairs: tuple[PairedVolume, ...]) -> None:
        """The operator creates the pairs and splits the quorum pair; the cluster is stopped."""
        self._timeline.progress("creating the pairs and copying")
        pairs = (QUORUM, *data_pairs)
        for pair in pairs:
            await self._until("the remote-copy link is up", _link_up, pair)
            await self.stage.views[pair.home].pair_control(pair.lun, PairOut.CREATE)
        for pair in pairs:
            await self._until_state(PairState.PAIR, pair)
        await self.stage.views[QUORUM.home].pair_control(QUORUM.lun, PairOut.SPLIT)
        names = ", ".join(pair.title for pair in pairs)
        told = [Told("operator", f"created the pairs {names}"), Told("operator", "split the quorum pair")]
        self._show(scenario.FIGURE_7, await self._until_state(PairState.PSUS), told)

    async def _start(self) -> Site:
        """Both hosts RESERVE at the same moment, give or take the jitter; returns the winner's site."""
        at = time.monotonic() + _START_LEAD
        jitter = self.stage.timing.start_jitter
        orders = {site: at + self._hesitation(site) + self._random.uniform(0.0, jitter) for site in Site}
        answers = await asyncio.gather(*(self._order(site, Order.START, at=moment) for site, moment in orders.items()))
        good = [site for site, answer in zip(orders, answers, strict=True) if answer["good"]]
        statuses = await self.stage.statuses(QUORUM)
        self._show(scenario.START, statuses)
        self._checks.append(checks.one_winner("start", good))
        if len(good) != 1:
            raise DrillFailed(f"the start has {len(good)} winners, so there is no cluster to go on with")
        self._checks.append(
            Check("start: the winner owns the quorum pair", owner_site(statuses) is good[0], checks.halves(statuses))
        )
        return good[0]

    async def _figure_8(self, owner: Site) -> None:
        await self._order(owner, Order.MANAGE)
        self._show(scenario.FIGURE_8, await self._until_state(PairState.PAIR))

    async def _figure_9(self) -> None:
        await asyncio.gather(*(self._order(site, Order.MOUNT) for site in Site))
        self._show(scenario.FIGURE_9, await self.stage.statuses(QUORUM))

    async def _figure_10(self, owner: Site) -> None:
        await self._order(owner, Order.ARM)
        self._show(scenario.FIGURE_10, await self._until_state(PairState.PSUS))

    async def _figure_11(self) -> Statuses:
        """Normal running; returns the quorum pair as it is before anything breaks."""
        deadline = self.stage.timing.step_deadline
        await asyncio.gather(*(node.wait_for({Event.PEER_SEEN}, deadline) for node in self.stage.nodes.values()))
        await asyncio.sleep(self.stage.timing.normal_running)
        statuses = await self.stage.statuses(QUORUM)
        counts = self.stage.acknowledged()
        told = [
            Told(f"host {NUMBERS[pair.home].host}", f"{len(counts.get(pair.p_volume, ()))} records on {pair.p_volume}")
            for pair in DATA_PAIRS
        ]
        self._show(scenario.FIGURE_11, statuses, told)
        return statuses

    # ------------------------------------------------------------------------------------------------------ the failure

    async def _fail(self) -> dict[Site, int]:
        """Break it; returns how many events each node had told before."""
        stage, failure = self.stage, self._options.failure
        marks = {site: len(node.events) for site, node in stage.nodes.items()}
        if failure in (Failure.HEARTBEAT, Failure.LINK):
            for cable in stage.cables.heartbeat.values():
                cable.cut(Cut.SILENT)
        if failure is Failure.LINK:
            for cable in stage.cables.link.values():
                cable.cut(Cut.SILENT)
        if failure.dead_host is not None:
            await stage.kill_host(failure.dead_host)
        if failure.dead_array is not None:
            await stage.arrays[failure.dead_array].kill()
        self._timeline.figure(scenario.FAILURE, await stage.statuses(QUORUM), title=failure.words)
        return marks

    async def _until_decided(self, proof: Proof) -> Statuses:
        """Every host that lives has its answer, and the quorum pair has come to rest."""
        deadline = self.stage.timing.step_deadline
        living = [site for site in Site if self.stage.host_lives(site)]
        await asyncio.gather(
            *(self.stage.nodes[site].wait_for(_DECIDED, deadline, proof.marks[site]) for site in living)
        )
        return await self._until_state(proof.expectation.quorum)

    async def _figure_13(self, proof: Proof) -> None:
        """The winner takes over, the loser stops (¶61); then everybody runs on for a moment."""
        stage, deadline = self.stage, self.stage.timing.step_deadline
        living = [site for site in Site if stage.host_lives(site)]
        await asyncio.gather(*(stage.nodes[site].wait_for(_SETTLED, deadline, proof.marks[site]) for site in living))
        await asyncio.sleep(stage.timing.after_takeover)
        data = [(pair, await self._until_state(proof.expectation.data, pair)) for pair in DATA_PAIRS]
        await proof.quiesce()
        title = "the winner takes over all volumes and applications" if proof.expectation.takeover else "no takeover"
        self._timeline.figure(scenario.FIGURE_13, await stage.statuses(QUORUM), self._news(), data, title)

    async def _repair(self, proof: Proof, quorum_state: PairState) -> None:
        """Mend what broke, and resync from the sides that took the writes; then both arrays have every record."""
        stage, dead = self.stage, self._options.failure.dead_array
        told = []
        if dead is not None:
            await stage.open_array(dead)
            told.append(Told("operator", f"started array {NUMBERS[dead].array} again, on the state that it left"))
        else:
            for cable in stage.cables.link.values():
                cable.restore()
            told.append(Told("operator", "mended the remote-copy link"))
        for pair in DATA_PAIRS:
            await self._until("the remote-copy link is up", _link_up, pair)
            await stage.views[pair.home].pair_control(pair.lun, PairOut.RESYNC, PairOption.GOOD_P_VOL)
            told.append(Told("operator", f"resynced the pair {pair.title}, the P-VOL is good"))
        quorum = await self._until_state(quorum_state)
        data = [(pair, await self._until_state(PairState.PAIR, pair)) for pair in DATA_PAIRS]
        self._timeline.figure(scenario.REPAIR, quorum, [*told, *self._news()], data)
        self._checks += await proof.checks_after_repair(quorum)

    # -------------------------------------------------------------------------------------------------------- the races

    async def _race_series(self) -> None:
        await self._figure_7(())
        self._timeline.progress(f"{self._options.races} start races")
        races = await run_races(self.stage, self._options.races, self._random, self._timeline)
        series = RaceSeries.of(races)
        self._timeline.races(series)
        self._checks += series.checks()


def _link_up(statuses: Statuses) -> bool:
    return all(status is not None and scenario.link_up(status) for status in statuses.values())
