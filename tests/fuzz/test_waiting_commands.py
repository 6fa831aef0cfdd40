"""Commands that wait for one another: WRITE ATOMIC, SANITIZE, ORDERED, PREEMPT AND ABORT, copies, aborts, lost nexuses.

Each waits for something else (blocks, all older commands, what it has aborted), on media that let others run in the
middle of everything. A ring of them would hang for ever; none may, and nothing of them may be left behind.
"""

import asyncio
import random
from collections.abc import Callable

import pytest

from storage_model.nexus import ITNexus
from storage_model.persistent_reservation import PersistentReservation
from storage_model.spec.scsi_persistent_reservation import BasicParameters
from storage_model.spec.scsi_sanitize import Overwrite
from storage_model.spec.scsi_task import ScsiStatus, TaskAttribute, TaskFunction
from storage_model.volume import Buffer
from target.scsi.device_server import DeviceServer
from target.scsi.logical_unit import LogicalUnit, UnitIdentity
from target.scsi.task import ScsiTask
from target.volumes.memory_volume import MemoryVolume
from tests.conformance.scsi.copy_bench import CopyBench, segment
from tests.conformance.scsi.persistent_reserve import (
    KEYS,
    PREEMPT,
    PREEMPT_AND_ABORT,
    REGISTER,
    REGISTER_AND_IGNORE,
    RELEASE,
    RESERVE,
    TYPES,
    out_cdb,
)

BLOCK = 512
SIZE = 64 * BLOCK
NEXUSES = tuple(KEYS)
STEPS = 40
ATTRIBUTES = (TaskAttribute.SIMPLE, TaskAttribute.ORDERED, TaskAttribute.HEAD_OF_QUEUE)
FUNCTIONS = (
    TaskFunction.ABORT_TASK,
    TaskFunction.ABORT_TASK_SET,
    TaskFunction.CLEAR_TASK_SET,
    TaskFunction.LOGICAL_UNIT_RESET,
)
ACTIONS = (REGISTER, REGISTER_AND_IGNORE, RESERVE, RELEASE, PREEMPT, PREEMPT_AND_ABORT)
Request = tuple[bytes, bytes]
"""CDB and parameter data."""


class Turns:
    """Lets others run, a random number of times."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    async def __call__(self) -> None:
        for _ in range(self._chance.randint(0, 6)):
            await asyncio.sleep(0)


class SlowVolume(MemoryVolume):
    """Others run before and after each access, and in the middle of an atomic write."""

    def __init__(self, turns: Turns) -> None:
        super().__init__(SIZE, BLOCK)
        self._turns = turns

    async def read(self, offset_bytes: int, length_bytes: int) -> Buffer:
        await self._turns()
        data = await super().read(offset_bytes, length_bytes)
        await self._turns()
        return data

    async def write(self, offset_bytes: int, data: Buffer, *, fua: bool = False) -> None:
        await self._turns()
        await super().write(offset_bytes, data, fua=fua)
        await self._turns()

    async def write_atomic(self, offset_bytes: int, data: Buffer) -> None:
        half = len(data) // 2 // BLOCK * BLOCK
        await super().write(offset_bytes, data[:half])
        await self._turns()
        await super().write(offset_bytes + half, data[half:])

    async def unmap(self, offset_bytes: int, length_bytes: int) -> None:
        await self._turns()
        await super().unmap(offset_bytes, length_bytes)


class SlowStore:
    """Slower than a medium: what has asked for the change may be preempted, or a SANITIZE may come, meanwhile."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns

    async def save(self, reservation: PersistentReservation | None) -> None:
        for _ in range(4):
            await self._turns()


class Crowd(CopyBench):
    """Two units, three nexuses, and requests of every kind that waits, drawn by ``chance``."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self.chance = chance
        turns = Turns(chance)
        self.units = [
            LogicalUnit(
                lun,
                SlowVolume(turns),
                UnitIdentity(f"fuzz-{lun}"),
                reservation_store=SlowStore(turns),
            )
            for lun in range(2)
        ] + self.units[2:]  # the third is only named, in copies
        self.server = DeviceServer(dict(enumerate(self.units[:2])))
        self.tag = 0
        for nexus in NEXUSES:
            self.log_in(nexus)
        self._draws: tuple[tuple[int, Callable[[ITNexus, int], Request]], ...] = (
            (4, lambda nexus, lun: self._on_blocks(0x88, 0)),
            (4, lambda nexus, lun: self._on_blocks(0x8A, 1)),
            (3, self._write_atomic),
            (2, self._compare_and_write),
            (2, lambda nexus, lun: self._on_blocks(0x8B, 1)),
            (8, self._persistent_reserve_out),
            (1, lambda nexus, lun: (b"\x48\x02", b"")),
            (4, self._overwrite),
            (2, self._copy),
            (1, lambda nexus, lun: (bytes((chance.choice((0x16, 0x17, 0x00, 0x35)),)), b"")),
        )

    def draw(self) -> ScsiTask:
        self.tag += 1
        nexus, lun = self.chance.choice(NEXUSES), self.chance.choice((0, 0, 0, 1))
        weights, draws = zip(*self._draws, strict=True)
        cdb, data = self.chance.choices(draws, weights)[0](nexus, lun)
        attribute = self.chance.choices(ATTRIBUTES, (8, 2, 1))[0]
        return ScsiTask(nexus, lun, self.tag, cdb.ljust(16, b"\0"), data, 1 << 20, attribute)

    def _extent(self) -> tuple[bytes, int]:
        return self.chance.randint(0, 40).to_bytes(8, "big"), self.chance.randint(1, 16)

    def _on_blocks(self, operation_code: int, blocks_of_data: int) -> Request:
        lba, count = self._extent()
        data = bytes((self.tag & 0xFF,)) * (BLOCK * count * blocks_of_data)
        return bytes((operation_code, 0)) + lba + count.to_bytes(4, "big"), data

    def _write_atomic(self, nexus: ITNexus, lun: int) -> Request:
        lba, count = self._extent()
        return b"\x9c\0" + lba + b"\0\0" + count.to_bytes(2, "big"), bytes((self.tag & 0xFF,)) * (BLOCK * count)

    def _compare_and_write(self, nexus: ITNexus, lun: int) -> Request:
        lba, count = self._extent()
        return b"\x89\0" + lba + b"\0\0\0" + bytes((count,)), bytes(2 * BLOCK * count)

    def _persistent_reserve_out(self, nexus: ITNexus, lun: int) -> Request:
        action = self.chance.choices(ACTIONS, (1, 2, 1, 1, 1, 3))[0]
        if action in (PREEMPT, PREEMPT_AND_ABORT):
            action_key = self.chance.choice(tuple(KEYS.values()))
        else:
            action_key = KEYS[nexus] if self.chance.random() < 0.75 else 0
        key = 0 if action == REGISTER_AND_IGNORE else KEYS[nexus]
        data = BasicParameters(key, action_key, False, False, self.chance.random() < 0.6, b"").encode()
        return out_cdb(action, len(data), self.chance.choice(TYPES)), data

    def _overwrite(self, nexus: ITNexus, lun: int) -> Request:
        data = Overwrite(b"z").encode()
        immed = self.chance.choice((0x00, 0x80))
        return bytes((0x48, 0x01 | immed, 0, 0, 0, 0, 0, 0, len(data), 0)), data

    def _copy(self, nexus: ITNexus, lun: int) -> Request:
        there = segment(
            lun, 1 - lun, self.chance.randint(1, 20), self.chance.randint(0, 40), self.chance.randint(0, 40)
        )
        data = self.request(there, segment(0, 1, 3))
        return b"\x83" + bytes(9) + len(data).to_bytes(4, "big") + b"\0\0", data

    async def register(self) -> None:
        """Whoever is registered from the beginning can be preempted."""
        for nexus in NEXUSES:
            data = BasicParameters(0, KEYS[nexus], False, False, False, b"").encode()
            outcome = await self.server.execute(ScsiTask(nexus, 0, 0, out_cdb(REGISTER, len(data)), data))
            assert outcome.status is ScsiStatus.GOOD

    async def manage(self) -> None:
        tag = self.chance.randint(1, self.tag + 1)
        nexus, function, lun = (self.chance.choice(of) for of in (NEXUSES, FUNCTIONS, (0, 1)))
        await self.server.manage(nexus, function, lun, tag)  # type: ignore[arg-type]

    async def lose_a_nexus(self) -> None:
        nexus = self.chance.choice(NEXUSES)
        await self.server.nexus_lost(nexus)
        self.server.nexus_established(nexus)

    def assert_at_rest(self) -> None:
        for lun, unit in enumerate(self.units):
            assert not unit.tasks and not unit.tasks.ordered and not unit.tasks.waiting_for_turn, lun
            assert not unit.tasks._watchers, lun
            assert not unit.write_ranges.exclusive and not unit.write_ranges._shared, lun
            assert not unit.reservation_journal.lock.locked(), lun


async def one_crowd(seed: int) -> None:
    chance = random.Random(seed)
    crowd = Crowd(chance)
    if seed % 2:
        await crowd.register()
    running: list[asyncio.Task[object]] = []
    for _ in range(STEPS):
        kind = chance.random()
        if kind < 0.06:
            running.append(asyncio.create_task(crowd.manage()))
        elif kind < 0.08:
            running.append(asyncio.create_task(crowd.lose_a_nexus()))
        else:
            running.append(asyncio.create_task(crowd.server.execute(crowd.draw())))
        if chance.random() < 0.5:
            await asyncio.sleep(0)
    _, stuck = await asyncio.wait(running, timeout=10)
    left = [(task.cdb.hex(), task.attribute.name, task.aborted) for unit in crowd.units for task in unit.tasks.all()]
    for task in stuck:
        task.cancel()
    assert not stuck, (seed, left)
    await asyncio.gather(*running)
    crowd.assert_at_rest()
    for unit in crowd.units:
        if unit.operation is not None:
            await unit.operation.stop()


@pytest.mark.parametrize("first_seed", range(0, 400, 100))
async def test_no_ring_of_waiting_commands(first_seed: int) -> None:
    for seed in range(first_seed, first_seed + 100):
        await one_crowd(seed)
