"""A unit whose SANITIZE and FORMAT UNIT go step by step: each waits for ``let_on``."""

import asyncio

from storage_model.medium_operation import MediumOperation
from storage_model.nexus import ITNexus
from storage_model.spec.scsi_sanitize import Overwrite
from storage_model.volume import MediumFailure, Volume
from target.scsi.task import TaskOutcome
from target.volumes.memory_volume import MemoryVolume
from tests.conformance.scsi.bench import BLOCK, NEXUS_A, Bench, make_bench
from tests.eventually import eventually

STEPS = 4
SIZE = STEPS << 20
READ_ONE = "28 00 00000000 00 0001"
WRITE_ONE = "2a 00 00000000 00 0001"
REQUEST_SENSE = "03 00 00 00 fc 00"


class Notes:
    """Keeps the last note, as the array's metadata do; ``broken``: it cannot be written."""

    def __init__(self) -> None:
        self.kept: MediumOperation | None = None
        self.saved: list[MediumOperation | None] = []
        self.broken = False

    async def save(self, operation: MediumOperation | None) -> None:
        if self.broken:
            raise MediumFailure("metadata")
        self.kept = operation
        self.saved.append(operation)


class Steps:
    """A pace of one step (1 MiB) for each permission."""

    def __init__(self) -> None:
        self._permits = asyncio.Semaphore(0)
        self.waiting = 0

    async def __call__(self, length_bytes: int) -> None:
        self.waiting += 1
        await self._permits.acquire()
        self.waiting -= 1

    def let_on(self, steps: int) -> None:
        for _ in range(steps):
            self._permits.release()


class SanitizeBench:
    """``bench`` with one unit of four steps, full of ``k``."""

    def __init__(self, volume: Volume | None = None, **options: object) -> None:
        self.bench: Bench = make_bench(volume or MemoryVolume(SIZE, BLOCK), **options)  # type: ignore[arg-type]
        self.lu = self.bench.lu
        self.notes, self.steps = Notes(), Steps()
        self.lu.operation_notes, self.lu.pace = self.notes, self.steps

    async def fill(self) -> "SanitizeBench":
        await self.bench.volume.write(0, b"k" * SIZE)
        return self

    async def overwrite(
        self, request: Overwrite | None = None, *, immed: bool = True, ause: bool = False, nexus: ITNexus = NEXUS_A
    ) -> TaskOutcome:
        data = (request or Overwrite(b"\xaa")).encode()
        flags = (0x80 if immed else 0) | (0x20 if ause else 0) | 0x01
        cdb = bytes((0x48, flags, 0, 0, 0, 0, 0)) + len(data).to_bytes(2, "big") + b"\0"
        return await self.bench.run(cdb, data, nexus)

    async def at_step(self) -> None:
        """Returns when the operation waits for its next step."""
        await eventually(lambda: self.steps.waiting > 0, within=5, what="a step of the operation")

    async def done(self) -> None:
        await eventually(lambda: self.lu.operation is None, within=5, what="the operation's end")

    async def failed(self) -> None:
        def has_failed() -> bool:
            return self.lu.operation is not None and self.lu.operation.failed

        await eventually(has_failed, within=5, what="the operation's failure")

    async def content(self) -> bytes:
        return bytes(await self.bench.volume.read(0, SIZE))
