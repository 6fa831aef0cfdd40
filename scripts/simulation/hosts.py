"""A cluster node: the real shim, and in the place of cluster software and applications a random workload."""

import asyncio
import itertools
from dataclasses import dataclass
from random import Random

from initiator_shim.config import Address
from initiator_shim.control_session import ControlSession
from initiator_shim.initiator_task import ScsiOutcome
from initiator_shim.pair_client import execute_past_unit_attention
from initiator_shim.portal import ShimPortal
from initiator_shim.session_errors import SessionError
from scripts.simulation.arrays import IQN, LUNS, PORTAL, REGIONS, SERIALS
from scripts.simulation.clients import FLUSH, RELEASE, RESERVE, Client, read_cdb, write_cdb
from scripts.simulation.dependents import Dependents
from scripts.simulation.disks import BLOCK, number_of, numbered
from scripts.simulation.event_loop import Process, VirtualLoop
from scripts.simulation.groups import Groups
from scripts.simulation.journal import Journal
from scripts.simulation.ledger import Ledger
from scripts.simulation.network import Machine, Network
from scripts.simulation.registers import Outcome, Registers
from scripts.simulation.reservers import Fencing, Reserver
from scripts.simulation.tables import Tables
from storage_model.differential_bitmap import REGION_BYTES
from storage_model.errors import PairvolError
from storage_model.spec.scsi_task import ScsiStatus, TaskFunction

SHIM = 3261
WORKERS = 2
_WRITERS = 3 * WORKERS
_DEADLINE = 3.0
_REFUSED_WRITES = 0.15  # the S-VOL is tried now and then
_READ_ATTEMPTS = 3
_REGION = REGION_BYTES // BLOCK
_SHARED = range(4)  # blocks of the quorum volume that the owner writes
_CONFLICT = ScsiStatus.RESERVATION_CONFLICT


@dataclass
class Workload:
    """How often what is done; seconds are means."""

    think: float
    cluster_think: float
    flush: float
    release: float
    stray: float
    reset: float


class Host:
    """One machine; ``challenge`` makes its cluster software try for the quorum volume at once."""

    def __init__(
        self,
        name: str,
        array: str,
        index: int,
        network: Network,
        random: Random,
        ledger: Ledger,
        registers: Registers,
        tables: Tables,
        workload: Workload,
        numbers: "itertools.count[int]",
        fencing: Fencing | None,
        groups: Groups | None,
    ) -> None:
        self.name = name
        self.array = array
        self.serial = SERIALS[array]
        self.machine: Machine = network.machine(name)
        self.shim: Process | None = None
        self.cluster: Process | None = None
        self.working = True
        self._index = index
        self._network = network
        self._journal: Journal = network.journal
        self._random = random
        self._ledger = ledger
        self._registers = registers
        self._tables = tables
        self._workload = workload
        self._numbers = numbers
        self._challenged: asyncio.Event
        self._client: Client
        self._owner = False
        self._groups = groups
        self._dependents = Dependents(index, self.serial, random, groups) if groups is not None else None
        self.reserver = Reserver(fencing, index + 1, self.serial, random, self._journal, tables) if fencing else None

    # -------------------------------------------------------------------------------------------------------- processes

    def start_shim(self, loop: VirtualLoop) -> None:
        self.shim = Process(f"shim of {self.name}", self.machine, loop)
        _ = self.shim.start(self._run_shim())

    def start_cluster(self, loop: VirtualLoop) -> None:
        self.cluster = Process(self.name, self.machine, loop)
        self._owner = False
        _ = self.cluster.start(self._run_cluster())

    def kill_shim(self) -> None:
        if self.shim is not None:
            self._network.kill(self.shim, power=False)
        self.shim = None

    def crash(self) -> None:
        """The machine loses its power."""
        for process in list(self.machine.processes):
            self._network.kill(process, power=True)
        self.machine.up = False
        self.shim = self.cluster = None

    def boot(self, loop: VirtualLoop) -> None:
        self._network.boot(self.machine)
        self.start_shim(loop)
        self.start_cluster(loop)

    async def _run_shim(self) -> None:
        """As the command composes it; one that cannot reach its array at the start is started again."""
        array = Address(self.array, PORTAL)
        isid = b"\x80" + self._random.randbytes(5)

        def new_control(target_name: str) -> ControlSession:
            return ControlSession(array, target_name, f"iqn.2026-11.org.pairvol:{self.name}.pairvol-shim", isid)

        control = new_control(IQN)
        while True:
            try:
                await control.start(must_connect=True)
                break
            except PairvolError:
                await asyncio.sleep(0.5)
        await ShimPortal(array, _DEADLINE, {IQN: control}, new_control).listen(Address(self.name, SHIM))

    async def _run_cluster(self) -> None:
        name = f"iqn.2026-11.org.pairvol:{self.name}"
        self._client = Client(name, bytes.fromhex("00023d000001"), self.name, SHIM)
        self._challenged = asyncio.Event()
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(self._work(worker)) for worker in range(WORKERS)]
        tasks.append(loop.create_task(self._compete()))
        if self.reserver is not None:
            tasks.append(loop.create_task(self.reserver.run(self._client, lambda: self.working)))
        if self._dependents is not None:
            tasks.append(loop.create_task(self._dependents.run(self._write_step, lambda: self.working)))
        await asyncio.gather(*tasks)

    # -------------------------------------------------------------------------------------------------- the data volume

    @staticmethod
    def _units(index: int) -> list[range]:
        """Blocks that only one worker writes; one of the ranges lies across two regions."""
        units = [range(region * _REGION + 8 * index + 1, region * _REGION + 8 * index + 3) for region in range(5)]
        if index < REGIONS["data0"] - 1:
            border = (index + 1) * _REGION
            units.append(range(border - 1, border + 1))
        return units

    async def _work(self, worker: int) -> None:
        random, units = self._random, self._units(self._index * WORKERS + worker)
        everything = [unit for index in range(_WRITERS) for unit in self._units(index)]
        writes = 0.7
        while True:
            await asyncio.sleep(self._workload.think * random.expovariate(1.0))
            if not self.working:
                continue
            try:
                chance = random.random()
                if chance < writes:
                    outcome = await self.write("data0", random.choice(units), fua=random.random() < 0.1)
                    writes = 0.7 if outcome.status == ScsiStatus.GOOD else _REFUSED_WRITES
                elif chance < writes + self._workload.flush:
                    await self._flush("data0")
                else:
                    await self.read("data0", random.choice(everything))
                    await asyncio.sleep(0.1 * random.random() if writes == _REFUSED_WRITES else 0.0)
            except SessionError:
                await asyncio.sleep(0.3 * random.random())

    async def _write_step(self, pair: str, lbas: range, step: int) -> ScsiOutcome:
        return await self.write(pair, lbas, fua=True, step=step)

    async def write(self, pair: str, lbas: range, *, fua: bool = False, step: int | None = None) -> ScsiOutcome:
        """A numbered write, checked. Raises SessionError."""
        await self._client.session()
        value, begin = next(self._numbers), self._journal.clock()
        write = self._registers.begin_write(pair, self.serial, lbas, value)
        nexus = self._tables.nexus(self.serial, self._client.nexus)
        self._tables.begin_write(value, nexus)
        if self._groups is not None and step is not None:
            self._groups.step(value, step)
        outcome = Outcome.UNKNOWN
        try:
            cdb = write_cdb(lbas.start, len(lbas), fua=fua)
            result = await self._client.execute(LUNS[pair], cdb, numbered(value, len(lbas)))
            if result.status == ScsiStatus.GOOD:
                outcome = Outcome.ACKNOWLEDGED
            elif result.status == _CONFLICT:
                outcome = Outcome.REFUSED
        finally:
            self._registers.end_write(write, outcome)
            self._journal.note(self.name, "writes", pair, lbas.start, "value", value, outcome.name)
            self._journal.outcomes[f"write {outcome.value}"] += 1
        if outcome is not Outcome.UNKNOWN:
            self._tables.accessed(pair, self.serial, nexus, begin, writes=True, good=outcome is Outcome.ACKNOWLEDGED)
        if outcome is Outcome.ACKNOWLEDGED and pair == "quorum0":
            self._ledger.written(pair, self.serial, self._client.nexus, begin, self._journal.clock())
        return result

    async def _flush(self, pair: str) -> None:
        await self._client.session()
        begun = self._registers.begin_flush(pair, self.serial)
        outcome = await self._client.execute(LUNS[pair], FLUSH)
        if outcome.status == ScsiStatus.GOOD:
            self._registers.end_flush(pair, self.serial, begun)
            self._journal.note(self.name, "has flushed", pair)

    async def read(self, pair: str, lbas: range) -> None:
        """Raises SessionError."""
        await self._client.session()
        reads = self._registers.begin_read(pair, self.serial, lbas)
        data, begin = None, self._journal.clock()
        try:
            result = await self._client.execute(
                LUNS[pair], read_cdb(lbas.start, len(lbas)), data_in_length=len(lbas) * BLOCK
            )
            if result.status == ScsiStatus.GOOD and len(result.data_in) == len(lbas) * BLOCK:
                data = result.data_in
                self._journal.outcomes["read"] += 1
        finally:
            values = None if data is None else [number_of(data[at : at + 8]) for at in range(0, len(data), BLOCK)]
            self._journal.note(self.name, "reads", pair, lbas.start, "values", values)
            self._registers.end_read(reads, values)
        if data is not None or result.status == _CONFLICT:
            nexus = self._tables.nexus(self.serial, self._client.nexus)
            self._tables.accessed(pair, self.serial, nexus, begin, writes=False, good=data is not None)

    async def read_all(self, pair: str) -> None:
        """At the end: every block that anybody may have written."""
        regions = range(REGIONS[pair])
        for first in (region * _REGION for region in regions):
            for attempt in range(_READ_ATTEMPTS):
                try:
                    await self.read(pair, range(first, first + _REGION))
                    break
                except SessionError:  # it was shared with a command of before the healing, whose time is up only now
                    if attempt == _READ_ATTEMPTS - 1:
                        raise

    # ------------------------------------------------------------------------------------------------ the quorum volume

    def challenge(self) -> None:
        """The heartbeat is lost."""
        if self.cluster is not None and self.cluster.alive and hasattr(self, "_challenged"):
            self._challenged.set()

    async def _compete(self) -> None:
        random, workload = self._random, self._workload
        while True:
            try:
                async with asyncio.timeout(workload.cluster_think * random.expovariate(1.0) + 0.01):
                    await self._challenged.wait()
            except TimeoutError:
                pass
            challenged = self._challenged.is_set()
            self._challenged.clear()
            if not self.working:
                continue
            try:
                if challenged:
                    await self._reset()
                    await self._reserve()
                else:
                    await self._one_step()
            except SessionError:
                await asyncio.sleep(0.3 * random.random())

    async def _one_step(self) -> None:
        random, workload = self._random, self._workload
        chance = random.random()
        if chance < workload.stray:
            await self.write("quorum0", range(16 + self._index, 17 + self._index))
        elif chance < workload.stray + workload.reset:
            await self._reset()
        elif not self._owner or chance < workload.stray + workload.reset + 0.3:
            await self._reserve()
        elif chance > 1 - workload.release:
            self._owner = False
            await self._client.execute(LUNS["quorum0"], RELEASE)
            self._journal.note(self.name, "releases")
        elif random.random() < 0.7:
            result = await self.write("quorum0", random.choice([range(lba, lba + 1) for lba in _SHARED]))
            self._owner = self._owner and result.status != _CONFLICT
        else:
            lba = random.choice(_SHARED)
            await self.read("quorum0", range(lba, lba + 1))

    async def _reset(self) -> None:
        session = await self._client.session()
        await session.task_management(TaskFunction.LOGICAL_UNIT_RESET, LUNS["quorum0"], timeout=5.0)
        self._journal.note(self.name, "resets the quorum volume")
        self._journal.outcomes["LUN reset"] += 1

    async def _reserve(self) -> None:
        await self._client.session()
        begin = self._journal.clock()
        self._owner = False
        outcome = await execute_past_unit_attention(self._client, LUNS["quorum0"], RESERVE, b"", 0, 8.0)
        words = "GOOD" if outcome.status == ScsiStatus.GOOD else f"status {outcome.status:02X}h"
        self._journal.note(self.name, "reserves:", words)
        self._journal.outcomes[f"RESERVE {words}"] += 1
        if outcome.status == ScsiStatus.GOOD:
            self._owner = True
            self._ledger.reserved("quorum0", self.serial, self._client.nexus, begin, self._journal.clock())
