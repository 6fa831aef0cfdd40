"""What goes wrong: one fault after the other, of the kinds that the run has drawn, each undone after a while."""

import asyncio
import heapq
from collections.abc import Callable
from contextvars import Context
from random import Random

from scripts.simulation.arrays import SimulatedArray
from scripts.simulation.event_loop import Process, VirtualLoop
from scripts.simulation.hosts import Host
from scripts.simulation.network import Network
from storage_model.pair import PairEpoch
from storage_model.pair_state import PairState, Side

Undo = Callable[[], None]


class Faults:
    """``clock_jump`` moves the wall clock by so many seconds; ``lost_power`` hears which array lost it. ``apart``: the
    arrays may be apart for long."""

    def __init__(
        self,
        random: Random,
        loop: VirtualLoop,
        network: Network,
        arrays: tuple[SimulatedArray, SimulatedArray],
        hosts: tuple[Host, ...],
        clock_jump: Callable[[float], None],
        lost_power: Callable[[str], None],
        *,
        apart: bool,
    ) -> None:
        self._random = random
        self._loop = loop
        self._network = network
        self._journal = network.journal
        self._arrays = arrays
        self._hosts = hosts
        self._clock_jump = clock_jump
        self._lost_power = lost_power
        self._undone: list[tuple[float, int, Undo]] = []
        self._busy: set[str] = set()
        self._count = 0
        kinds: dict[str, Callable[[], None]] = {
            "link cut": self._link_cut,
            "link one-way": self._link_one_way,
            "link reset": self._link_reset,
            "link slow": self._link_slow,
            "SAN cut": self._san_cut,
            "SAN reset": self._san_reset,
            "array killed": lambda: self._array_down(random.choice(arrays), power=False),
            "array lost power": lambda: self._array_down(random.choice(arrays), power=True),
            "host lost power": self._host_down,
            "shim killed": self._shim_killed,
            "array paused": self._array_paused,
            "shim paused": self._shim_paused,
            "host paused": self._host_paused,
            "disk stalls": self._disk_stalls,
            "disk fails": self._disk_fails,
            "clock jumps": lambda: self._clock_jump(random.uniform(-1e6, 1e6)),
        }
        self._kinds = {kind: kinds[kind] for kind in kinds if random.random() < 0.55}
        if apart:
            self._kinds["link down"] = self._link_down
        self._at_decisions = random.choice((0.0, 0.1, 0.4))
        self._soon = random.choice((0.002, 0.01, 0.1))
        self._over = False

    async def run(self, seconds: float, mean_pause: float) -> None:
        """Until the time is up; then :meth:`heal`."""
        end = self._loop.time() + seconds
        while self._kinds and self._loop.time() < end:
            next_fault = self._loop.time() + mean_pause * self._random.expovariate(1.0)
            await self._undo_until(min(next_fault, end))
            if self._loop.time() < end:
                self._kinds[self._random.choice(tuple(self._kinds))]()

    async def _undo_until(self, when: float) -> None:
        while self._undone and self._undone[0][0] <= when:
            due, _, undo = heapq.heappop(self._undone)
            await asyncio.sleep(max(0.0, due - self._loop.time()))
            undo()
        await asyncio.sleep(max(0.0, when - self._loop.time()))

    def decided(self, *_: object) -> None:
        """An epoch was decided: the time just after that is when a fault does the most harm."""
        if self._kinds and self._random.random() < self._at_decisions:
            kind = self._random.choice(tuple(self._kinds))
            self._loop.call_later(self._soon * self._random.expovariate(1.0), self._strike, kind, context=Context())

    def _strike(self, kind: str) -> None:
        if not self._over:
            self._kinds[kind]()

    def fetching(self, pair: str, before: PairEpoch, value: PairEpoch) -> None:
        """A swap was decided: the array that is fetched from may lose its power meanwhile."""
        if value.state is PairState.COPY and value.source is Side.S_VOL and self._random.random() < 0.8:
            (source,) = (array for array in self._arrays if array.serial != value.p_serial)
            self._loop.call_later(0.8 * self._random.random(), self._darken, source, context=Context())

    def _darken(self, array: SimulatedArray) -> None:
        if not self._over:
            self._array_down(array, power=True)

    def heal(self) -> None:
        """Undo everything at once; nothing happens any more."""
        self._over = True
        while self._undone:
            heapq.heappop(self._undone)[2]()

    def _begin(self, kind: str, what: str, undo: Undo, longest: float) -> None:
        seconds = longest * self._random.random() ** 2 + 0.01
        self._journal.fault(kind, what, f"for {seconds:.3f} s")
        self._busy.add(what)

        def undone() -> None:
            self._busy.discard(what)
            self._journal.note("undone:", kind, what)
            undo()

        self._count += 1
        heapq.heappush(self._undone, (self._loop.time() + seconds, self._count, undone))

    # ----------------------------------------------------------------------------------------------------- the network

    def _link_cut(self) -> None:
        one, other = (array.name for array in self._arrays)
        if "link" in self._busy:
            return
        self._network.block(one, other)
        self._network.block(other, one)
        self._begin("link cut", "link", lambda: self._link_heal(one, other), 8.0)

    def _link_one_way(self) -> None:
        one, other = self._random.sample([array.name for array in self._arrays], 2)
        if "link" in self._busy:
            return
        self._network.block(one, other)
        self._begin("link one-way", "link", lambda: self._link_heal(one, other), 8.0)

    def _link_down(self) -> None:
        """Both arrays hear of it at once: long enough for an operator to take over at one of them."""
        one, other = (array.name for array in self._arrays)
        if "link" in self._busy:
            return
        self._network.reset_between(one, other)
        self._network.refuse(one, other, refused=True)
        self._begin("link down", "link", lambda: self._network.refuse(one, other, refused=False), 12.0)

    def _link_heal(self, one: str, other: str) -> None:
        if self._random.random() < 0.3:
            self._network.reset_between(one, other)
        self._network.unblock(one, other)
        self._network.unblock(other, one)

    def _link_reset(self) -> None:
        self._journal.fault("link reset")
        self._network.reset_between(*(array.name for array in self._arrays))

    def _link_slow(self) -> None:
        one, other = (array.name for array in self._arrays)
        if "slow" in self._busy:
            return
        paths = self._network.path(one, other), self._network.path(other, one)
        delay = self._random.choice((0.005, 0.05, 0.4))

        def slow(seconds: float) -> None:
            for path in paths:
                path.delay = seconds

        before = paths[0].delay
        slow(delay)
        self._begin("link slow", "slow", lambda: slow(before), 6.0)

    def _san_cut(self) -> None:
        host = self._random.choice(self._hosts)
        if host.name + " SAN" in self._busy:
            return
        self._network.block(host.name, host.array)
        if self._random.random() < 0.5:
            self._network.block(host.array, host.name)

        def undo() -> None:
            self._network.unblock(host.name, host.array)
            self._network.unblock(host.array, host.name)

        self._begin("SAN cut", host.name + " SAN", undo, 8.0)

    def _san_reset(self) -> None:
        host = self._random.choice(self._hosts)
        self._journal.fault("SAN reset", host.name)
        self._network.reset_between(host.name, host.array)

    # --------------------------------------------------------------------------------------------------------- crashes

    def _array_down(self, array: SimulatedArray, *, power: bool) -> None:
        if array.name in self._busy:
            return
        array.kill(power=power)
        if power:
            self._lost_power(array.serial)
        kind = "array lost power" if power else "array killed"
        self._begin(kind, array.name, lambda: array.start(self._loop), 4.0)

    def _host_down(self) -> None:
        host = self._random.choice(self._hosts)
        if host.name in self._busy:
            return
        host.crash()
        self._begin("host lost power", host.name, lambda: host.boot(self._loop), 5.0)

    def _shim_killed(self) -> None:
        host = self._random.choice(self._hosts)
        if host.name in self._busy:
            return
        host.kill_shim()
        self._begin("shim killed", host.name, lambda: host.start_shim(self._loop), 1.0)

    # ---------------------------------------------------------------------------------------------------------- pauses

    def _array_paused(self) -> None:
        array = self._random.choice(self._arrays)
        self._pause("array paused", array.name, array.process)

    def _shim_paused(self) -> None:
        host = self._random.choice(self._hosts)
        self._pause("shim paused", host.name, host.shim)

    def _host_paused(self) -> None:
        host = self._random.choice(self._hosts)
        self._pause("host paused", host.name, host.cluster)

    def _pause(self, kind: str, name: str, process: Process | None) -> None:
        if name in self._busy or process is None:
            return
        process.pause()
        self._begin(kind, name, process.resume, 7.0)

    # ----------------------------------------------------------------------------------------------------------- disks

    def _disk_stalls(self) -> None:
        array = self._random.choice(self._arrays)
        seconds = 5.0 * self._random.random() ** 2
        self._journal.fault("disk stalls", array.name, f"for {seconds:.3f} s")
        array.disk.stalled_until = self._loop.time() + seconds

    def _disk_fails(self) -> None:
        array = self._random.choice(self._arrays)
        name = array.name + " disk"
        if name in self._busy:
            return
        array.disk.failing = True
        self._begin("disk fails", name, lambda: setattr(array.disk, "failing", False), 2.0)
