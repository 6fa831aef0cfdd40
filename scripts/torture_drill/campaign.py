"""The cycles: load, a fault or two, healing, and the checks."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

from initiator_shim.pair_client import execute_past_unit_attention
from scripts.simulation.clients import FLUSH, Client
from scripts.torture_drill import second_client
from scripts.torture_drill.checks import Logs, check_descriptors, check_volume, descriptors
from scripts.torture_drill.cluster_hosts import ClusterHost, Witness, short_name
from scripts.torture_drill.faults import FAULTS, Struck, second_fault
from scripts.torture_drill.journal import Journal
from scripts.torture_drill.operator import Operator
from scripts.torture_drill.ownership_history import OwnershipHistory
from scripts.torture_drill.stage import ARRAY, Stage, until
from scripts.torture_drill.volumes import DATA, QUORUM, SITES, VOLUMES
from scripts.torture_drill.writers import COMMAND_SECONDS, Initiator, TorturedVolume, Writer
from storage_model.pair_state import PairRole, PairState
from storage_model.spec.scsi_task import ScsiStatus

_HOSTS = (("a", "host-a"), ("b", "host-b"), ("a", "host-c"))
"""Two of them share a site: there the local RESERVE decides first."""
_UNARMED_SECONDS = (0.0, 0.15)
_BEFORE_SECONDS = (0.1, 0.5)
_AFTER_SECONDS = (0.0, 0.2)
_SETTLE_SECONDS = 20.0
_SECOND_CLIENT = 0.3


class Campaign:
    """``faults``: the kinds, each once before any comes again. ``tell`` is given the lines for the reader."""

    def __init__(
        self,
        directory: Path,
        seed: int,
        cycles: int,
        tell: Callable[[str], None],
        *,
        faults: Sequence[str] = tuple(FAULTS),
        program: Sequence[str] = ARRAY,
    ) -> None:
        self.journal = Journal(directory / "drill.log")
        self.faults: Counter[str] = Counter()
        self._seed = seed
        self._cycles = cycles
        self._tell = tell
        self._kinds = faults
        self._stage = Stage(directory, program)
        self._volumes = {pair.name: TorturedVolume(pair) for pair in VOLUMES}
        self._witness = Witness(OwnershipHistory(), self.journal)
        self._logs = Logs()
        self._writers: list[Writer] = []
        self._hosts: list[tuple[str, Initiator]] = []
        self._most_descriptors = 0
        self._qemu = second_client.installed()
        for site, name in _HOSTS:
            number = len(self._hosts) + 1
            port = self._stage.sites[site].shim_port
            client = Client(f"iqn.2026-11.org.pairvol:{name}", bytes((0, 2, 0x3D, 0, 0, number)), "127.0.0.1", port)
            self._hosts.append((site, Initiator(number, client, self.journal)))
        self._operator = Operator(
            self._stage,
            self._volumes,
            {site: {initiator.number for at, initiator in self._hosts if at == site} for site in SITES},
            self._witness,
            self.journal,
        )

    async def run(self) -> bool:
        """All cycles, or until the first that fails; whether all was well. Leaves no process.

        Raises PairvolError, also in a group.
        """
        try:
            await self._stage.start()
            await self._operator.create_all()
            deck: list[str] = []
            order = Random(f"{self._seed} order")
            for number in range(1, self._cycles + 1):
                deck = deck or order.sample(list(self._kinds), len(self._kinds))
                await self._cycle(number, deck.pop())
                if self.journal.violations:
                    return False
            return True
        finally:
            for _, initiator in self._hosts:
                initiator.client.close()
            await self._stage.stop()
            self.journal.close()

    # ---------------------------------------------------------------------------------------------------- one cycle

    async def _cycle(self, number: int, fault: str) -> None:
        began = asyncio.get_running_loop().time()
        random = Random(f"{self._seed} cycle {number}")
        second = second_fault(fault, random)
        self.journal.note("cycle", number, fault, second or "")
        hosts_stop, writers_stop, operator_stop = asyncio.Event(), asyncio.Event(), asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            load = self._load(number)
            hosts = [tasks.create_task(host.run(hosts_stop)) for host in load[0]]
            writers = [tasks.create_task(writer.run(writers_stop)) for writer in load[1]]
            disturbing = tasks.create_task(self._operator.run(operator_stop, self._random(number, "operator")))
            another = tasks.create_task(self._second_client(random))
            await asyncio.sleep(random.uniform(*_UNARMED_SECONDS))  # while the pair is in PAIR nobody may win
            await self._operator.arm()
            words = await self._faults(random, [fault] if second is None else [fault, second])
            operator_stop.set()
            hosts_stop.set()
            await asyncio.wait([disturbing, *hosts])
            self._stage.check_running()
            await self._stage.linked()
            await self._operator.repair(random)
            writers_stop.set()
            await asyncio.wait(writers)
            another.cancel()
            await asyncio.wait([another])
        await self._check()
        seconds = asyncio.get_running_loop().time() - began
        self._tell(f"cycle {number:{len(str(self._cycles))}}/{self._cycles}  {seconds:5.1f} s  {words}")

    def _random(self, number: int, who: str) -> Random:
        return Random(f"{self._seed} cycle {number} {who}")

    def _load(self, number: int) -> tuple[list[ClusterHost], list[Writer]]:
        hosts, writers = [], []
        for _, initiator in self._hosts:
            name = initiator.client.name
            quorum = self._volumes[QUORUM.name]
            random = self._random(number, name)
            hosts.append(ClusterHost(initiator, quorum, self._witness, self.journal, random))
        for site, initiator in self._hosts[: len(SITES)]:
            for pair in DATA:
                random = self._random(number, f"{initiator.client.name} {pair.name}")
                writers.append(Writer(site, initiator, self._volumes[pair.name], self.journal, random))
        return hosts, writers

    async def _second_client(self, random: Random) -> None:
        chance, pair, site = random.random(), random.choice(DATA), random.choice(SITES)
        if self._qemu is not None and chance < _SECOND_CLIENT:
            self.journal.counts["qemu-img bench runs"] += 1
            if await second_client.run(self._qemu, self._stage.sites[site], pair):
                self.journal.counts["qemu-img bench complete"] += 1

    async def _faults(self, random: Random, kinds: list[str]) -> str:
        """Struck one after the other, undone in the same order; what was done, in words."""
        loop = asyncio.get_running_loop()
        struck: list[tuple[float, Struck]] = []
        try:
            for kind in kinds:
                await asyncio.sleep(random.uniform(*_BEFORE_SECONDS))
                fault = await FAULTS[kind](self._stage, random)
                self.faults[kind] += 1
                self.journal.note("fault:", kind, fault.what, f"for {fault.seconds:.2f} s")
                struck.append((loop.time() + fault.seconds, fault))
            words = "; ".join(
                f"{kind}: {fault.what}, {fault.seconds:.1f} s" for kind, (_, fault) in zip(kinds, struck, strict=True)
            )
            for due in sorted(due for due, _ in struck):
                await asyncio.sleep(due - loop.time())
        finally:
            for _, fault in struck:
                await fault.undo()
                self.journal.note("undone:", fault.what)
        await asyncio.sleep(random.uniform(*_AFTER_SECONDS))
        return words

    # ------------------------------------------------------------------------------------------------------ checks

    async def _check(self) -> None:
        """Nothing is under way any more."""
        await self._operator.repair_one(QUORUM, Random(0))
        await self._settle()
        for volume in self._volumes.values():
            await self._flush(volume)
            for text in check_volume(self._stage, volume):
                self.journal.violated(text)
        self._stage.check_running()
        for text in self._logs.check(self._stage.directory) + check_descriptors(self._stage):
            self.journal.violated(text)
        self._most_descriptors = max(self._most_descriptors, *map(descriptors, self._stage.children()))

    async def _settle(self) -> None:
        """Both arrays say the same of the quorum pair. Raises NotInTime."""

        async def agreed() -> tuple[str | None, bool | None] | None:
            one, other = [await site.status(QUORUM) for site in self._stage.sites.values()]
            same = (one.epoch, one.owner, one.state) == (other.epoch, other.owner, other.state)
            owner = None if one.owner is None else short_name(one.owner.initiator_name)
            # Released in COPY, the pair becomes PAIR, and then arms itself.
            arming = owner is None and one.state is not PairState.PSUS
            return (owner, None if arming else one.state is PairState.PSUS) if same else None

        settled = await until(agreed, _SETTLE_SECONDS, "the arrays agree about the quorum pair")
        assert settled is not None
        self._witness.settle(*settled)

    async def _flush(self, volume: TorturedVolume) -> None:
        async def flushed() -> bool:
            for site in self._stage.sites.values():
                if (await site.status(volume.pair)).role is PairRole.P_VOL:
                    outcome = await execute_past_unit_attention(
                        site.operator, volume.pair.lun, FLUSH, b"", 0, COMMAND_SECONDS
                    )
                    reserved = volume.pair is QUORUM and outcome.status == ScsiStatus.RESERVATION_CONFLICT
                    return reserved or outcome.status == ScsiStatus.GOOD
            return False

        await until(flushed, _SETTLE_SECONDS, f"{volume.pair.name} flushed")

    def summary(self) -> str:
        """Several lines."""
        counts = self.journal.counts

        def listed(prefix: str) -> str:
            chosen = sorted((name, count) for name, count in counts.items() if name.startswith(prefix))
            return ", ".join(f"{name.removeprefix(prefix)} {count}" for name, count in chosen) or "none"

        faults = ", ".join(f"{kind} {count}" for kind, count in sorted(self.faults.items()))
        blocks = sum(volume.blocks.written for volume in self._volumes.values())
        return "\n".join(
            [
                f"faults        {faults or 'none'}",
                f"writes        {counts['writes']}, acknowledged {counts['writes acknowledged']};"
                f" {blocks} blocks checked at both arrays after each cycle; {counts['reads checked']} reads checked",
                f"reservations  {listed('RESERVE ')}; released {counts['RELEASE']}",
                f"operator      {listed('operator ')}",
                f"qemu-img      {listed('qemu-img bench ') if self._qemu else 'not installed'}",
                f"descriptors   at most {self._most_descriptors} of a process",
                f"violations    {len(self.journal.violations) or 'none'}",
            ]
        )
