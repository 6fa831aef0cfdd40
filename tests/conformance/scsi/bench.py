"""A device server with one memory volume and two nexuses, driven by CDBs."""

import asyncio
from dataclasses import dataclass, field

import pytest

from storage_model.nexus import ITNexus
from storage_model.spec.scsi_sense import SenseData, decode_sense
from storage_model.spec.scsi_task import ScsiStatus, TaskFunction
from storage_model.volume import Buffer
from target.scsi.device_server import DeviceServer
from target.scsi.logical_unit import LogicalUnit, UnitIdentity
from target.scsi.task import ScsiTask, TaskOutcome
from target.volumes.memory_volume import MemoryVolume

BLOCK = 512
BLOCKS = 2048
NEXUS_A = ITNexus("iqn.2026-11.org.example:a", b"\x80\0\0\0\0\x01")
NEXUS_B = ITNexus("iqn.2026-11.org.example:b", b"\x80\0\0\0\0\x02")
ABORTING_FUNCTIONS = (
    TaskFunction.ABORT_TASK,
    TaskFunction.ABORT_TASK_SET,
    TaskFunction.CLEAR_TASK_SET,
    TaskFunction.LOGICAL_UNIT_RESET,
    TaskFunction.TARGET_WARM_RESET,
    TaskFunction.TARGET_COLD_RESET,
)
"""The task management functions that end tasks (SAM-5 7), from the narrowest to the widest."""


@dataclass
class Bench:
    """``run`` sends one command and returns its outcome; ``sense`` decodes what came with it."""

    server: DeviceServer
    lu: LogicalUnit
    volume: MemoryVolume
    nexus_a: ITNexus = NEXUS_A
    nexus_b: ITNexus = NEXUS_B
    block: int = BLOCK
    blocks: int = BLOCKS
    tag: int = field(default=0)

    def task(self, cdb: bytes | str, data_out: bytes = b"", nexus: ITNexus = NEXUS_A, lun: int = 0) -> ScsiTask:
        self.tag += 1
        raw = bytes.fromhex(cdb) if isinstance(cdb, str) else cdb
        return ScsiTask(nexus, lun, self.tag, raw.ljust(16, b"\0"), data_out, 1 << 24)

    async def run(self, cdb: bytes | str, data_out: bytes = b"", nexus: ITNexus = NEXUS_A, lun: int = 0) -> TaskOutcome:
        return await self.server.execute(self.task(cdb, data_out, nexus, lun))

    async def good(self, cdb: bytes | str, data_out: bytes = b"", nexus: ITNexus = NEXUS_A) -> bytes:
        outcome = await self.run(cdb, data_out, nexus)
        assert outcome.status is ScsiStatus.GOOD, outcome
        return bytes(outcome.data_in)

    async def refused(self, cdb: bytes | str, data_out: bytes = b"", nexus: ITNexus = NEXUS_A) -> SenseData:
        outcome = await self.run(cdb, data_out, nexus)
        assert outcome.status is ScsiStatus.CHECK_CONDITION, outcome
        assert not outcome.data_in
        return decode_sense(outcome.sense)


def make_bench(volume: MemoryVolume | None = None, **options: object) -> Bench:
    volume = volume or MemoryVolume(BLOCKS * BLOCK, BLOCK)
    lu = LogicalUnit(0, volume, UnitIdentity("30095-0"), **options)  # type: ignore[arg-type]
    server = DeviceServer({0: lu})
    for nexus in (NEXUS_A, NEXUS_B):
        server.nexus_established(nexus)
        lu.unit_attentions.take(nexus)
    return Bench(server, lu, volume)


class SlowVolume(MemoryVolume):
    """Writes wait for ``let_go``; ``waiting`` is set when one does."""

    def __init__(self) -> None:
        super().__init__(BLOCKS * BLOCK, BLOCK)
        self.let_go = asyncio.Event()
        self.waiting = asyncio.Event()

    async def write(self, offset_bytes: int, data: Buffer, *, fua: bool = False) -> None:
        self.waiting.set()
        await self.let_go.wait()
        await super().write(offset_bytes, data, fua=fua)


def record_writes(volume: MemoryVolume, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """Length in bytes and FUA of each write that reaches the volume from now on; they are carried out all the same."""
    seen: list[tuple[int, bool]] = []
    original = volume.write

    async def write(offset_bytes: int, data: Buffer, *, fua: bool = False) -> None:
        seen.append((len(data), fua))
        await original(offset_bytes, data, fua=fua)

    monkeypatch.setattr(volume, "write", write)
    return seen
