"""SAM-5 7: when a task management function has answered, an aborted copy writes nothing more."""

import asyncio

import pytest

from storage_model.spec.scsi_sense import decode_sense
from storage_model.spec.scsi_task import ScsiStatus, TaskAttribute, TaskFunction, TaskFunctionResponse
from target.scsi.logical_unit import LogicalUnit, UnitIdentity
from target.volumes.memory_volume import MemoryVolume
from tests.conformance.scsi.bench import NEXUS_A, NEXUS_B, SlowVolume
from tests.conformance.scsi.copy_bench import SIZE, CopyBench, segment, segment_error


class SlowDestination(SlowVolume):
    def __init__(self):
        super().__init__()
        self._size_bytes = SIZE


@pytest.fixture
async def slow():
    """A copy of four pieces whose first write waits; the bench, the volume, the copy's task and its outcome to be."""
    volume = SlowDestination()
    bench = await CopyBench(volume).fill()
    task = bench.task(bench.request(segment(0, 1, SIZE // 512)))
    running = asyncio.create_task(bench.server.execute(task))
    await volume.waiting.wait()
    return bench, volume, task, running


async def finish(volume, running, managing):
    await asyncio.sleep(0)
    assert not managing.done(), "the write that has begun cannot be called back: the function waits for it"
    volume.let_go.set()
    outcome = await running
    writes = volume.waiting
    writes.clear()
    return await managing, outcome


@pytest.mark.parametrize(
    "function", [TaskFunction.ABORT_TASK, TaskFunction.ABORT_TASK_SET, TaskFunction.CLEAR_TASK_SET]
)
async def test_aborted_at_the_unit_of_the_command(slow, function):
    bench, volume, task, running = slow
    managing = asyncio.create_task(bench.server.manage(NEXUS_A, function, 0, task.tag))
    response, _ = await finish(volume, running, managing)
    assert response is TaskFunctionResponse.COMPLETE
    assert (await bench.content(1))[1 << 20 :] == bytes(SIZE - (1 << 20))
    assert not volume.waiting.is_set()


async def test_aborted_while_it_reads():
    """What has been read already is not written."""
    bench = await CopyBench().fill()
    source = bench.units[0].volume
    read, reading, let_go = source.read, asyncio.Event(), asyncio.Event()

    async def slow_read(offset_bytes, length_bytes):
        reading.set()
        await let_go.wait()
        return await read(offset_bytes, length_bytes)

    source.read = slow_read  # type: ignore[method-assign]
    task = bench.task(bench.request(segment(0, 1, 8)))
    running = asyncio.create_task(bench.server.execute(task))
    await reading.wait()
    aborting = asyncio.create_task(bench.server.manage(NEXUS_A, TaskFunction.ABORT_TASK, 0, task.tag))
    await asyncio.sleep(0)
    let_go.set()
    assert await aborting is TaskFunctionResponse.COMPLETE
    await running
    assert await bench.content(1) == bytes(SIZE)


async def test_lost_nexus(slow):
    bench, volume, _, running = slow
    losing = asyncio.create_task(bench.server.nexus_lost(NEXUS_A))
    await finish(volume, running, losing)
    assert (await bench.content(1))[1 << 20 :] == bytes(SIZE - (1 << 20))
    assert not bench.units[0].tasks and not bench.units[1].tasks


async def test_reset_of_the_destination(slow):
    """The copy hears that its command there was aborted, and ends."""
    bench, volume, _, running = slow
    managing = asyncio.create_task(bench.server.manage(NEXUS_B, TaskFunction.LOGICAL_UNIT_RESET, 1, 0))
    _, outcome = await finish(volume, running, managing)
    told = decode_sense(outcome.sense)
    assert str(told) == "Ah 0Dh/01h"
    assert (segment_error(told).at_destination, segment_error(told).status) == (True, ScsiStatus.TASK_ABORTED)
    assert (await bench.content(1))[1 << 20 :] == bytes(SIZE - (1 << 20))


async def test_an_ordered_copy_does_not_wait_for_itself():
    """Its commands to its own unit are younger than it is (SAM-5 8.7.2)."""
    bench = await CopyBench().fill()
    task = bench.task(bench.request(segment(0, 0, 4096, 0, 4096)))
    task.attribute = TaskAttribute.ORDERED
    async with asyncio.timeout(5):
        assert not (await bench.server.execute(task)).status


async def test_an_ordered_command_waits_for_the_copy(slow):
    bench, volume, _, running = slow
    ordered = bench.task(b"")
    ordered.cdb, ordered.attribute = bytes(16), TaskAttribute.ORDERED
    waiting = asyncio.create_task(bench.server.execute(ordered))
    await asyncio.sleep(0)
    assert not waiting.done()
    volume.let_go.set()
    assert not (await running).status
    assert not (await waiting).status


@pytest.mark.parametrize("gone", [0, 1], ids=["the copy manager's own", "the destination"])
async def test_a_unit_that_is_taken_away_and_another_in_its_place(slow, gone):
    """SPC-4 6.4.4: the unit that was named is not reachable; the one that has its LUN by now was named by nobody."""
    bench, volume, _, running = slow
    server = bench.server
    del server.logical_units[gone]
    server.inventory_changed(gone)
    other = LogicalUnit(gone, MemoryVolume(SIZE), UnitIdentity("another"))
    server.logical_units[gone] = other
    server.inventory_changed(gone)
    volume.let_go.set()
    outcome = await running
    assert str(decode_sense(outcome.sense)) == "Ah 0Dh/02h"
    assert await other.volume.read(0, SIZE) == bytes(SIZE)
    assert (await volume.read(1 << 20, SIZE - (1 << 20))) == bytes(SIZE - (1 << 20)), "only the piece under way"
