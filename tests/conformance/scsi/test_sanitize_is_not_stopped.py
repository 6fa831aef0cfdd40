"""SBC-3 4.11.2: no task management function, reset or lost nexus stops a sanitize operation."""

import asyncio

import pytest

from storage_model.spec.scsi_sense import decode_sense
from storage_model.spec.scsi_task import ScsiStatus, TaskAttribute, TaskFunction, TaskFunctionResponse
from target.scsi.task import ScsiTask
from tests.conformance.scsi.bench import ABORTING_FUNCTIONS, NEXUS_A, NEXUS_B, SlowVolume
from tests.conformance.scsi.sanitize_bench import REQUEST_SENSE, SIZE, STEPS, SanitizeBench


async def goes_on(unit):
    unit.lu.unit_attentions.pending.clear()
    assert str(decode_sense(await unit.bench.good(REQUEST_SENSE, nexus=NEXUS_B))) == "2h 04h/1Bh"
    unit.steps.let_on(STEPS)
    await unit.done()
    assert await unit.content() == b"\xaa" * SIZE


@pytest.mark.parametrize("function", ABORTING_FUNCTIONS)
async def test_task_management(function):
    """The command ends at once, its operation does not."""
    unit = await SanitizeBench().fill()
    running = asyncio.create_task(unit.overwrite(immed=False))
    await unit.at_step()
    managing = asyncio.create_task(unit.bench.server.manage(NEXUS_A, function, 0, unit.bench.tag))
    async with asyncio.timeout(5):
        assert await managing is TaskFunctionResponse.COMPLETE
        await running
    assert not unit.lu.tasks
    await goes_on(unit)


async def test_lost_nexus():
    unit = await SanitizeBench().fill()
    await unit.overwrite()
    await unit.at_step()
    await unit.bench.server.nexus_lost(NEXUS_A)
    await goes_on(unit)


async def test_stop_and_start_do_not_make_it_accessible():
    unit = await SanitizeBench().fill()
    await unit.overwrite()
    await unit.at_step()
    for started in (False, True):
        unit.lu.started = started
        assert not unit.lu.accessible
    await goes_on(unit)
    assert unit.lu.accessible


async def test_it_waits_for_the_writes_that_were_there_before():
    """What an older write puts on the medium is sanitized, too."""
    volume = SlowVolume()
    unit = SanitizeBench(volume)
    write = asyncio.create_task(unit.bench.run("2a 00 00000000 00 0001", b"k" * 512))
    await volume.waiting.wait()
    volume.waiting.clear()
    sanitize = asyncio.create_task(unit.overwrite(immed=False))
    await asyncio.sleep(0)
    assert str(decode_sense((await unit.bench.run("2a 00 00000000 00 0001", b"l" * 512)).sense)) == "2h 04h/1Bh"
    assert not volume.waiting.is_set(), "nothing is written before the older write has ended"
    unit.steps.let_on(STEPS)
    volume.let_go.set()
    assert (await write).status is ScsiStatus.GOOD
    assert (await sanitize).status is ScsiStatus.GOOD
    assert bytes(await volume.read(0, 512)) == b"\xaa" * 512


async def test_an_ordered_command_behind_it_does_not_hold_it_up():
    unit = await SanitizeBench().fill()
    sanitize = asyncio.create_task(unit.overwrite(immed=False))
    await unit.at_step()
    ordered = ScsiTask(NEXUS_B, 0, 99, bytes(16), attribute=TaskAttribute.ORDERED)
    waiting = asyncio.create_task(unit.bench.server.execute(ordered))
    await asyncio.sleep(0)
    assert not waiting.done()
    unit.steps.let_on(STEPS)
    async with asyncio.timeout(5):
        assert (await sanitize).status is ScsiStatus.GOOD
        assert (await waiting).status is ScsiStatus.GOOD


async def test_younger_commands_that_wait_for_it_are_not_waited_for():
    """Between two ORDERED commands: the first has to end before it begins, the second waits for its end."""
    volume = SlowVolume()
    unit = SanitizeBench(volume)
    bench = unit.bench
    first = bench.task("2a 00 00000000 00 0001", b"k" * 512)
    second = bench.task("00", nexus=NEXUS_B)
    first.attribute = second.attribute = TaskAttribute.ORDERED
    writing = asyncio.create_task(bench.server.execute(first))
    await volume.waiting.wait()
    sanitize = asyncio.create_task(unit.overwrite(immed=False))
    await asyncio.sleep(0)
    waiting = asyncio.create_task(bench.server.execute(second))
    await asyncio.sleep(0)
    assert unit.lu.operation is None
    unit.steps.let_on(STEPS)
    volume.let_go.set()
    async with asyncio.timeout(5):
        for running in (writing, sanitize, waiting):
            assert (await running).status is ScsiStatus.GOOD
    assert bytes(await volume.read(0, 512)) == b"\xaa" * 512


async def test_what_is_aborted_before_it_begins_does_not_begin():
    """SAM-5 7.2: nothing is changed once the abort is confirmed."""
    volume = SlowVolume()
    unit = SanitizeBench(volume)
    write = asyncio.create_task(unit.bench.run("2a 00 00000000 00 0001", b"k" * 512))
    await volume.waiting.wait()
    sanitize = asyncio.create_task(unit.overwrite(immed=False))
    await asyncio.sleep(0)
    aborting = asyncio.create_task(unit.bench.server.manage(NEXUS_A, TaskFunction.ABORT_TASK, 0, unit.bench.tag))
    await asyncio.sleep(0)
    volume.let_go.set()
    assert await aborting is TaskFunctionResponse.COMPLETE
    await asyncio.gather(write, sanitize)
    assert unit.lu.operation is None and unit.lu.accessible and unit.notes.kept is None
    assert bytes(await volume.read(0, 512)) == b"k" * 512
