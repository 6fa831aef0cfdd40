"""One run: everything put together out of one seed, disturbed, healed, and checked."""

import asyncio
import gc
import itertools
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from typing import Any

from scripts.simulation.arrays import SERIALS, SimulatedArray, substituted
from scripts.simulation.copies import Copies
from scripts.simulation.disks import BLOCK, Disk, number_of
from scripts.simulation.event_loop import PROCESS, Process, Stuck, VirtualLoop
from scripts.simulation.faults import Faults
from scripts.simulation.groups import LOG, Groups
from scripts.simulation.hosts import Host, Workload
from scripts.simulation.journal import Journal
from scripts.simulation.ledger import Ledger
from scripts.simulation.network import Network
from scripts.simulation.operator import Habits, Operator
from scripts.simulation.registers import Registers
from scripts.simulation.reservers import Fencing
from scripts.simulation.tables import Tables
from storage_model.pair import PairRecord
from storage_model.pair_state import FenceLevel, PairRole, PairState, Side
from target.remote_copy.pair_half import MIRRORED

_HEALING_SECONDS = 120.0
_HOSTS = (("host-a", "array-a"), ("host-b", "array-b"), ("host-c", "array-b"))


@dataclass(frozen=True)
class Features:
    """What only some worlds have. Drawn apart: what is new in one world leaves the others as they were."""

    fencing: Fencing | None
    pairs: tuple[str, ...]
    group: tuple[str, ...]
    force: float
    split_brain: float
    tardy: float | None
    """Writes that are late are those that a preemption must not leave behind."""
    fetched_in_the_dark: bool
    """After many a swap the array that is fetched from loses its power before all is fetched."""

    @classmethod
    def drawn(cls, seed: int) -> "Features":
        random = Random(f"features of {seed}")  # a text: as it is the same under every hash seed
        fencing = Fencing("data0", random.choice((0.02, 0.06)), random.choice((0.15, 0.5)))
        reserved = random.random() < 0.3
        apart, tardy = random.random() < 0.5, random.choice((0.02, 0.1, 0.3))
        force = random.choice((0.5, 1.0)) if random.random() < 0.3 else 0.0
        pairs: tuple[str, ...] = ("quorum0", "data0")
        group = pairs
        if random.random() < 0.3:
            pairs = ("quorum0", "data0", LOG)
            group = random.choice((("data0", LOG), pairs))
        elif reserved and apart:
            group = ()
        split_brain = random.choice((0.3, 1.0)) if force and not reserved and random.random() < 0.5 else 0.0
        dark = random.random() < 0.15
        return cls(fencing if reserved else None, pairs, group, force, split_brain, tardy if reserved else None, dark)


@dataclass
class Result:
    """Of one seed."""

    seed: int
    violations: list[str]
    events: int
    virtual_seconds: float
    checked: int
    explained: int
    faults: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    digest: str = ""
    tail: list[str] = field(default_factory=list)


class World:
    """All parts of a run, and their life."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.features = features = Features.drawn(seed)
        self.random = random = Random(seed)
        self.journal = Journal()
        self.network = Network(random, self.journal)
        self.loop = VirtualLoop(self.network.connect, self.network.listen)
        self.network.loop = self.loop
        self.journal.clock = self.loop.time
        self.wall_offset = 1.7e9
        serials = (SERIALS["array-a"], SERIALS["array-b"])
        fence, copy_rate = random.choice(tuple(FenceLevel)), random.choice((0, 0, 1 << 20, 1 << 18))
        copy_rate = 1 << 16 if features.fetched_in_the_dark else 0 if LOG in features.pairs else copy_rate
        self.arrays = tuple(
            SimulatedArray(
                name,
                self.network,
                Disk(name, random, self.journal),
                fence,
                copy_rate,
                pairs=features.pairs,
                group=features.group,
            )
            for name in SERIALS
        )
        a, b = self.arrays
        self.ledger = Ledger(self.journal, serials, features.pairs)
        self.registers = Registers(
            self.journal, serials, features.pairs, self._where, self._mirrors, strict=features.split_brain > 0
        )
        self.ledger.parted.append(self.registers.parted)
        self.ledger.incomplete.append(self.registers.incomplete)
        self.tables = Tables(self.journal, serials, ("data0",))
        self.ledger.decided += [self.registers.decided, self.tables.decided]
        self.copies = Copies(self.journal, (a, b), features.pairs)
        for array in self.arrays:
            array.disk.saved = self._saved(array.serial)
            array.disk.saved_table = partial(self.tables.saved, array.serial)
            array.disk.landed = partial(self._landed, array.serial)
        self.groups = Groups(self.journal, self.ledger, serials, features.group, self._number_at, self._mirrors)
        numbers = itertools.count(1)
        workload = self._workload()
        self.hosts = tuple(
            Host(
                name,
                array,
                index,
                self.network,
                random,
                self.ledger,
                self.registers,
                self.tables,
                workload,
                numbers,
                features.fencing,
                self.groups if LOG in features.pairs else None,
            )
            for index, (name, array) in enumerate(_HOSTS)
        )
        self.operator = Operator(
            random, self.journal, self.registers, self.ledger, self._habits(features.force), features.pairs
        )
        self.faults = Faults(
            random, self.loop, self.network, (a, b), self.hosts, self._jump, self._lost_power, apart=features.force > 0
        )
        self.ledger.decided.append(self.faults.decided)
        if features.fetched_in_the_dark:
            self.ledger.decided.append(self.faults.fetching)
        self.network.machine("operator")
        self._set_the_pace(features.tardy)

    def _set_the_pace(self, tardy: float | None) -> None:
        """Slow links and disks leave more time for something to happen in between."""
        for path in (self.network.path(*SERIALS), self.network.path(*reversed(SERIALS))):
            path.delay = self.random.choice((0.0003, 0.0003, 0.005, 0.05))
        for array in self.arrays:
            array.disk.slowness = self.random.choice((1.0, 1.0, 10.0, 40.0))
            drawn = self.random.choice((0.0, 0.0, 0.02))
            array.disk.tardy = drawn if tardy is None else tardy

    def _workload(self) -> Workload:
        random = self.random
        return Workload(
            think=random.choice((0.01, 0.05, 0.3)),
            cluster_think=random.choice((0.2, 0.6, 1.5)),
            flush=random.choice((0.0, 0.05)),
            release=random.choice((0.0, 0.1, 0.3)),
            stray=random.choice((0.05, 0.2)),
            reset=random.choice((0.0, 0.05)),
        )

    def _habits(self, force: float) -> Habits:
        random = self.random
        habits = Habits(
            think=random.choice((0.05, 0.15, 0.4)),
            split=random.choice((0.05, 0.3, 0.8)),
            writable=random.choice((0.0, 0.5, 1.0)),
            resync=random.choice((0.0, 0.1)),
            swap=random.choice((0.2, 0.6, 1.0)),
            delete=random.choice((0.0, 0.0, 0.03)),
            repair=random.choice((0.3, 1.0)),
            group=0.3,
            force=force,
            split_brain=self.features.split_brain,
        )
        if LOG in self.features.pairs:  # of a group that is never whole nothing can be seen
            habits = replace(habits, think=0.05, split=0.1, writable=0.0, delete=0.0, repair=1.0, group=0.9)
        if self.features.fetched_in_the_dark:  # few swaps have anything to fetch
            habits = replace(habits, think=0.1, split=0.8, writable=0.0, swap=0.6, delete=0.0, repair=1.0)
        return habits

    def _saved(self, serial: str) -> Callable[[Mapping[str, PairRecord]], None]:
        def saved(records: Mapping[str, PairRecord]) -> None:
            before = {pair: self.ledger.record(pair, serial) for pair in self.features.pairs}
            for pair, record in records.items():
                self.ledger.saved(serial, pair, record)
                if record.state is PairState.SMPL:
                    self.tables.forgotten(serial, pair)
                was = before[pair].decided, before[pair].state
                now = record.decided, record.state
                if record.state is PairState.PAIR and record.decided.p_serial == serial and now != was:
                    self.registers.mirroring(pair, serial)
            self.groups.saved(serial, before, records)

        return saved

    def _landed(self, serial: str, pair: str, value: int) -> None:
        self.tables.landed(serial, pair, value)
        self.registers.landed(serial, pair, value)

    def _number_at(self, serial: str, pair: str, lba: int) -> int:
        array = next(array for array in self.arrays if array.serial == serial)
        return number_of(bytes(array.disk.volumes[pair].live[lba * BLOCK : (lba + 1) * BLOCK]))

    def _jump(self, seconds: float) -> None:
        self.journal.fault("clock jumps", f"by {seconds:.0f} s")
        self.wall_offset += seconds

    def _lost_power(self, serial: str) -> None:
        self.registers.lost_power(serial, self.ledger.truth, self.ledger.whole)

    def _where(self, pair: str, serial: str) -> object:
        """What makes reads there promise the latest data; None if they do not, or nobody knows."""
        array = next(array for array in self.arrays if array.serial == serial)
        control = array.controls.get(pair)
        if control is None or control.half.role is PairRole.S_VOL:
            return None
        truth = self.ledger.truth(pair)
        if control.half.role is PairRole.P_VOL:
            # Until it hears that the other half's data is good, it serves its own, in the place of which that will be.
            unheard = control.half.record.decided.epoch < truth.epoch and truth.source is Side.S_VOL
            return None if unheard and truth.p_serial == serial else control.half.role
        epoch = control.half.record.decided.epoch
        return epoch if epoch == truth.epoch else None  # it may be half of a pair already

    def _mirrors(self, pair: str, serial: str) -> bool:
        """The P-VOL of a pair in COPY or PAIR: what is acknowledged is at both arrays."""
        control = next(array for array in self.arrays if array.serial == serial).controls.get(pair)
        return control is not None and control.half.role is PairRole.P_VOL and control.half.state in MIRRORED

    # ------------------------------------------------------------------------------------------------------- a run

    async def _main(self) -> None:
        random = self.random
        for array in self.arrays:
            array.start(self.loop)
        for host in self.hosts:
            host.start_shim(self.loop)
            host.start_cluster(self.loop)
        _ = Process("operator", self.network.machines["operator"], self.loop).start(self.operator.run())
        watcher = self.loop.create_task(self._watch())
        heartbeat = self.loop.create_task(self._lose_heartbeats())
        await asyncio.sleep(random.choice((0.5, 2.0)))
        seconds, pause = random.choice((2.0, 4.0)), random.choice((0.2, 0.5, 1.0))
        await self.faults.run(seconds, pause if LOG not in self.features.pairs else 2 * pause)
        self.faults.heal()
        heartbeat.cancel()
        self.operator.calm = True
        for host in self.hosts:
            host.working = False
        await self._settle()
        watcher.cancel()
        self.copies.check_equal()
        await self._clear_reservations()
        await self._read_everything()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(0.4 * self.random.random())
            self.copies.check()
            self.groups.check()

    async def _lose_heartbeats(self) -> None:
        """Figure 12: every node takes the others for dead, and tries for the quorum volume."""
        mean = self.random.choice((2.0, 6.0))
        while True:
            await asyncio.sleep(mean * self.random.expovariate(1.0))
            self.journal.note("the heartbeat is lost")
            for host in self.hosts:
                host.challenge()

    async def _settle(self) -> None:
        """Everything works again: the pairs must come to PAIR, and stay there without anything under way."""
        self.journal.note("everything is healed")
        end = self.loop.time() + _HEALING_SECONDS
        quiet = 0
        while quiet < 3:
            await asyncio.sleep(1.0)
            quiet = quiet + 1 if self._mirroring() else 0
            if self.loop.time() > end:
                states = {name: {p: c.half.state.name for p, c in a.controls.items()} for name, a in self._named()}
                self.journal.violated(f"nothing is broken any more, but the pairs do not mirror: {states}")
                return

    def _named(self) -> Iterator[tuple[str, SimulatedArray]]:
        return ((array.name, array) for array in self.arrays)

    def _mirroring(self) -> bool:
        controls = [control for array in self.arrays for control in array.controls.values()]
        idle = all(volume.idle for array in self.arrays for volume in array.disk.volumes.values())
        return (
            idle
            and len(controls) == 2 * len(self.features.pairs)
            and all(
                control.half.state is PairState.PAIR and not control.half.register.in_doubt and control.half.connected
                for control in controls
            )
        )

    async def _clear_reservations(self) -> None:
        for host in self.hosts:
            if host.reserver is not None and host.cluster is not None:
                await host.cluster.start(host.reserver.clear())
        await asyncio.sleep(1.0)
        self.tables.check_equal()

    async def _read_everything(self) -> None:
        for host in self.hosts:
            for pair in self.features.pairs:
                if self._where(pair, host.serial) is not None and host.cluster is not None:
                    await host.cluster.start(host.read_all(pair))

    def run(self) -> None:
        """Until the end, or the first violation."""
        loop = self.loop

        def wrong(_: object, context: dict[str, Any]) -> None:
            error = context.get("exception")
            task = context.get("future") or context.get("task")
            where = getattr(task.get_coro(), "__qualname__", "?") if isinstance(task, asyncio.Task) else ""
            self.journal.violated(f"an error that nobody handles: {context['message']}: {where} {error!r}")

        loop.set_exception_handler(wrong)
        main = loop.create_task(self._main())
        self.journal.ended = lambda: _ignore(main.cancel())
        try:
            loop.run_until_complete(main)
        except asyncio.CancelledError:
            assert self.journal.violations
        except Stuck as stuck:
            self.journal.violated(str(stuck))
        except Exception as error:  # the seed is told, and what led to it
            self.journal.violated(f"the run could not be ended: {error!r}")
        finally:
            self._close()

    def _close(self) -> None:
        self.journal.ended = lambda: None
        machines = self.network.machines.values()
        with self.loop.as_running():
            for process in [process for machine in machines for process in machine.processes]:
                process.kill()
            for task in asyncio.all_tasks(self.loop):
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                task.get_coro().close()
        self.loop.set_exception_handler(lambda loop, context: None)
        self.loop.close()


def _ignore(_: object) -> None:
    """For a callback whose answer nobody wants."""


class _LogToJournal(logging.Handler):
    """Errors are violations: nothing that is injected here is worth more than a warning to an array."""

    def __init__(self, journal: Journal) -> None:
        super().__init__()
        self._journal = journal

    def emit(self, record: logging.LogRecord) -> None:
        process = PROCESS.get()
        name = process.name if process is not None else "?"
        self._journal.note("log", name, record.levelname, record.getMessage())


@contextmanager
def _surroundings(world: World, verbose: bool) -> Iterator[None]:
    """Logging, clocks, chance and the garbage collector are the simulator's while a seed runs."""
    root, wall_clock, monotonic, chance = logging.getLogger(), time.time, time.monotonic, random.getstate()
    handler, level, disabled = _LogToJournal(world.journal), root.level, logging.root.manager.disable
    root.addHandler(handler)
    root.setLevel(logging.INFO if verbose else logging.ERROR)
    logging.disable(logging.NOTSET)
    time.time = lambda: world.wall_offset + world.loop.time()
    time.monotonic = world.loop.time
    random.seed(world.seed)
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        random.setstate(chance)
        time.time, time.monotonic = wall_clock, monotonic
        logging.disable(disabled)
        root.setLevel(level)
        root.removeHandler(handler)


def run_seed(seed: int, *, verbose: bool = False, digest: bool = False, tail: int = 0) -> Result:
    """One whole run. ``verbose``: the arrays' and shims' own logs are in the tail of what happened."""
    world = World(seed)
    with substituted(world.random), _surroundings(world, verbose):
        world.run()
    journal = world.journal
    return Result(
        seed,
        journal.violations,
        world.loop.handled,
        world.loop.time(),
        world.registers.checked,
        world.tables.checked,
        journal.faults,
        journal.outcomes,
        journal.digest() if digest else "",
        journal.tail(tail),
    )
