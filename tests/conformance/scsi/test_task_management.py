"""Task management functions do their work before they answer (SAM-5 7, RFC 7143 §11.5.1)."""

import asyncio

import pytest

from storage_model.spec.scsi_task import ScsiStatus, TaskAttribute, TaskFunction, TaskFunctionResponse
from tests.conformance.scsi.bench import ABORTING_FUNCTIONS

WRITE = "2a 00 00000000 00 0001"
READ = "28 00 00000000 00 0001"


def start(bench, task):
    return asyncio.create_task(bench.server.execute(task))


@pytest.mark.parametrize("function", ABORTING_FUNCTIONS)
async def test_answers_after_the_aborted_write_has_ended(slow_bench, slow_volume, function):
    task = slow_bench.task(WRITE, b"w" * 512)
    running = start(slow_bench, task)
    await slow_volume.waiting.wait()
    answer = asyncio.create_task(slow_bench.server.manage(slow_bench.nexus_a, function, 0, task.tag))
    await asyncio.sleep(0)
    assert task.aborted and not answer.done()
    slow_volume.let_go.set()
    assert await answer is TaskFunctionResponse.COMPLETE
    assert running.done() or len(slow_bench.lu.tasks) == 0
    await running


async def test_a_write_that_still_waits_its_turn_never_writes(slow_bench, slow_volume):
    first = start(slow_bench, slow_bench.task(WRITE, b"1" * 512))
    await slow_volume.waiting.wait()
    ordered = slow_bench.task(WRITE, b"2" * 512)
    ordered.attribute = TaskAttribute.ORDERED
    second = start(slow_bench, ordered)
    await asyncio.sleep(0)
    answer = asyncio.create_task(slow_bench.server.manage(slow_bench.nexus_a, TaskFunction.ABORT_TASK, 0, ordered.tag))
    await asyncio.sleep(0)
    slow_volume.let_go.set()
    assert await answer is TaskFunctionResponse.COMPLETE
    await asyncio.gather(first, second)
    assert await slow_bench.good(READ) == b"1" * 512


async def test_ordered_waits_for_older_and_holds_younger_back(slow_bench, slow_volume):
    """SAM-5 8.7.3."""
    first = start(slow_bench, slow_bench.task(WRITE, b"1" * 512))
    await slow_volume.waiting.wait()
    ordered = slow_bench.task(READ)
    ordered.attribute = TaskAttribute.ORDERED
    second = start(slow_bench, ordered)
    third = start(slow_bench, slow_bench.task(READ))
    await asyncio.sleep(0)
    assert not second.done() and not third.done()
    head = slow_bench.task(READ)
    head.attribute = TaskAttribute.HEAD_OF_QUEUE
    assert (await slow_bench.server.execute(head)).status is ScsiStatus.GOOD
    slow_volume.let_go.set()
    assert (await second).data_in == (await third).data_in == b"1" * 512
    await first


async def test_abort_task_set_leaves_the_other_nexus_alone(slow_bench, slow_volume):
    mine, theirs = slow_bench.task(WRITE, b"1" * 512), slow_bench.task(WRITE, b"2" * 512, slow_bench.nexus_b)
    running = [start(slow_bench, mine), start(slow_bench, theirs)]
    await slow_volume.waiting.wait()
    await asyncio.sleep(0)
    slow_volume.let_go.set()
    await slow_bench.server.manage(slow_bench.nexus_a, TaskFunction.ABORT_TASK_SET, 0, 0)
    assert mine.aborted and not theirs.aborted
    await asyncio.gather(*running)


async def test_clear_task_set_tells_the_others(slow_bench, slow_volume):
    """SAM-5 5.6: with TAS 0 their tasks end without status, and 2Fh/00h says so."""
    theirs = slow_bench.task(WRITE, b"2" * 512, slow_bench.nexus_b)
    running = start(slow_bench, theirs)
    await slow_volume.waiting.wait()
    slow_volume.let_go.set()
    await slow_bench.server.manage(slow_bench.nexus_a, TaskFunction.CLEAR_TASK_SET, 0, 0)
    await running
    assert theirs.aborted
    assert (await slow_bench.refused("00", nexus=slow_bench.nexus_b)).asc_ascq == 0x2F00
    await slow_bench.good("00")


async def test_the_reservation_falls_after_the_last_write_under_it(slow_bench, slow_volume):
    await slow_bench.good("16")
    running = start(slow_bench, slow_bench.task(WRITE, b"1" * 512))
    await slow_volume.waiting.wait()
    lost = asyncio.create_task(slow_bench.server.nexus_lost(slow_bench.nexus_a))
    await asyncio.sleep(0)
    assert (await slow_bench.run("16", nexus=slow_bench.nexus_b)).status is ScsiStatus.RESERVATION_CONFLICT
    slow_volume.let_go.set()
    await lost
    await slow_bench.good("16", nexus=slow_bench.nexus_b)
    await running


@pytest.mark.parametrize(
    ("function", "lun", "response"),
    [
        (TaskFunction.ABORT_TASK, 0, TaskFunctionResponse.TASK_DOES_NOT_EXIST),
        (TaskFunction.ABORT_TASK, 5, TaskFunctionResponse.LUN_DOES_NOT_EXIST),
        (TaskFunction.LOGICAL_UNIT_RESET, 5, TaskFunctionResponse.LUN_DOES_NOT_EXIST),
        (TaskFunction.CLEAR_ACA, 0, TaskFunctionResponse.NOT_SUPPORTED),
        (TaskFunction.TASK_REASSIGN, 0, TaskFunctionResponse.REASSIGN_NOT_SUPPORTED),
    ],
)
async def test_what_cannot_be_done_is_said(bench, function, lun, response):
    assert await bench.server.manage(bench.nexus_a, function, lun, 99) is response


async def test_a_full_task_set_says_so(bench, monkeypatch):
    monkeypatch.setattr("target.scsi.task_manager.TASK_SET_LIMIT", 0)
    assert (await bench.run("00")).status is ScsiStatus.TASK_SET_FULL


async def test_aca_attribute_is_refused(bench):
    """SAM-5 8.7: there is no ACA condition."""
    task = bench.task("00")
    task.attribute = TaskAttribute.ACA
    assert (await bench.server.execute(task)).status is ScsiStatus.CHECK_CONDITION
    assert len(bench.lu.tasks) == 0
