"""SBC-4 4.29.3.2: no read and no write comes between an atomic write's blocks; nobody sees a part of it."""

import asyncio

import pytest

from storage_model.spec.scsi_cdb import OperationCode as Code
from storage_model.spec.scsi_cdb import encode_block_cdb
from storage_model.spec.scsi_task import ScsiStatus, TaskAttribute
from target.volumes.memory_volume import MemoryVolume
from tests.conformance.scsi.bench import BLOCK, BLOCKS, make_bench

READ = encode_block_cdb(Code.READ_16, 0, 4)
OLD, NEW = b"o" * 2048, b"n" * 2048
WRITE_ATOMIC = bytes((0x9C, 0)) + bytes(8) + b"\0\0\0\x04\0\0"


class TornVolume(MemoryVolume):
    """Reads and atomic writes go in halves, and let everybody else run so many times in between."""

    def __init__(self) -> None:
        super().__init__(BLOCKS * BLOCK, BLOCK)
        self.read_turns = self.write_turns = 1
        self.half = asyncio.Event()
        """An atomic write has done the first half."""

    async def read(self, offset_bytes, length_bytes):
        first = bytes(await super().read(offset_bytes, length_bytes // 2))
        for _ in range(self.read_turns):
            await asyncio.sleep(0)
        return first + await super().read(offset_bytes + len(first), length_bytes - len(first))

    async def write_atomic(self, offset_bytes, data):
        half = len(data) // 2
        await super().write(offset_bytes, data[:half])
        self.half.set()
        for _ in range(self.write_turns):
            await asyncio.sleep(0)
        await super().write(offset_bytes + half, data[half:])


SLOW = 20


@pytest.fixture
def volume():
    return TornVolume()


@pytest.fixture
def bench(volume):
    return make_bench(volume)


async def test_a_read_that_comes_while_it_runs(bench, volume):
    volume.write_turns = SLOW
    await bench.good(encode_block_cdb(Code.WRITE_16, 0, 4), OLD)
    writing = asyncio.create_task(bench.run(WRITE_ATOMIC, NEW))
    await volume.half.wait()
    assert await bench.good(READ, nexus=bench.nexus_b) == NEW
    assert (await writing).status is ScsiStatus.GOOD


async def test_a_read_that_was_there_before_the_first_one(bench, volume):
    """It does not know yet that reads are to be kept apart: the first atomic write of a unit waits for it."""
    volume.read_turns = SLOW
    await bench.good(encode_block_cdb(Code.WRITE_16, 0, 4), OLD)
    reading = asyncio.create_task(bench.good(READ))
    await asyncio.sleep(0)
    await bench.good(WRITE_ATOMIC, NEW, nexus=bench.nexus_b)
    assert await reading == OLD


async def test_a_read_that_was_there_before_another_one(bench, volume):
    volume.read_turns = SLOW
    await bench.good(WRITE_ATOMIC, OLD)
    reading = asyncio.create_task(bench.good(READ))
    await asyncio.sleep(0)
    await bench.good(WRITE_ATOMIC, NEW, nexus=bench.nexus_b)
    assert await reading == OLD


async def test_a_compare_that_comes_while_it_runs(bench, volume):
    volume.write_turns = SLOW
    await bench.good(encode_block_cdb(Code.WRITE_16, 0, 4), OLD)
    writing = asyncio.create_task(bench.run(WRITE_ATOMIC, NEW))
    await volume.half.wait()
    await bench.good(encode_block_cdb(Code.VERIFY_16, 0, 4, 0x02), NEW)
    await writing


async def test_a_write_that_comes_while_it_runs(bench, volume):
    volume.write_turns = SLOW
    writing = asyncio.create_task(bench.run(WRITE_ATOMIC, NEW))
    await volume.half.wait()
    await bench.good(encode_block_cdb(Code.WRITE_16, 0, 4), OLD, nexus=bench.nexus_b)
    assert writing.done()
    assert await bench.good(READ) == OLD


async def test_two_at_once_do_not_mix(bench):
    """Also with the first atomic writes of a unit, which settle among themselves who waits for whom."""
    outcomes = await asyncio.gather(
        bench.run(WRITE_ATOMIC, OLD), bench.run(WRITE_ATOMIC, NEW, bench.nexus_b), bench.good(READ), bench.good(READ)
    )
    assert [outcome.status for outcome in outcomes[:2]] == [ScsiStatus.GOOD] * 2
    for seen in outcomes[2:]:
        assert seen in (bytes(2048), OLD, NEW)
    assert await bench.good(READ) in (OLD, NEW)


async def test_an_ordered_one_does_not_wait_for_those_behind_it(bench, volume):
    """SAM-5 8.7: the tasks after an ORDERED one wait for it, so that it must not wait for them."""
    volume.read_turns = SLOW
    reading = asyncio.create_task(bench.good(READ))
    await asyncio.sleep(0)
    ordered = bench.task(WRITE_ATOMIC, NEW)
    ordered.attribute = TaskAttribute.ORDERED
    writing = asyncio.create_task(bench.server.execute(ordered))
    await asyncio.sleep(0)
    behind = asyncio.create_task(bench.good(READ, nexus=bench.nexus_b))
    async with asyncio.timeout(5):
        assert await reading == bytes(2048)
        assert (await writing).status is ScsiStatus.GOOD
        assert await behind == NEW


async def test_it_writes_nothing_once_it_is_aborted(bench, volume):
    """SAM-5 5.6: aborted while it waits for its turn."""
    volume.write_turns = SLOW
    first = asyncio.create_task(bench.run(WRITE_ATOMIC, OLD))
    await volume.half.wait()
    second = bench.task(WRITE_ATOMIC, NEW)
    waiting = asyncio.create_task(bench.server.execute(second))
    await asyncio.sleep(0)
    second.aborted = True
    await asyncio.gather(first, waiting)
    assert await bench.good(READ) == OLD


async def test_a_younger_one_that_overtakes_does_not_wait_for_an_older_one(bench, volume):
    """SAM-5 8.7: HEAD OF QUEUE passes by the tasks behind an ORDERED one, among them another atomic write."""
    volume.read_turns = SLOW
    before, ordered = bench.task(READ), bench.task(READ)
    ordered.attribute = TaskAttribute.ORDERED
    older, younger = bench.task(WRITE_ATOMIC, OLD), bench.task(WRITE_ATOMIC, NEW)
    younger.attribute = TaskAttribute.HEAD_OF_QUEUE
    async with asyncio.timeout(5):
        outcomes = await asyncio.gather(*(bench.server.execute(task) for task in (before, ordered, older, younger)))
    assert [outcome.status for outcome in outcomes] == [ScsiStatus.GOOD] * 4
    assert await bench.good(READ) in (OLD, NEW)


async def test_a_younger_one_does_not_wait_for_an_ordered_command_behind_an_older_one(bench, volume):
    """SAM-5 8.7: it waits for the older atomic write, and that for all that the younger one waits for."""
    volume.read_turns = SLOW
    first, older = bench.task(READ), bench.task(WRITE_ATOMIC, OLD)
    ordered, younger = bench.task(READ), bench.task(WRITE_ATOMIC, NEW)
    first.attribute = ordered.attribute = TaskAttribute.ORDERED
    younger.attribute = TaskAttribute.HEAD_OF_QUEUE
    async with asyncio.timeout(5):
        outcomes = await asyncio.gather(*(bench.server.execute(task) for task in (first, older, ordered, younger)))
    assert [outcome.status for outcome in outcomes] == [ScsiStatus.GOOD] * 4
    assert outcomes[2].data_in in (OLD, NEW), "the ordered command finds what the older one, at least, has written"
