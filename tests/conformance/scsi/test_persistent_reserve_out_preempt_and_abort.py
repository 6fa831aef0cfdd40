"""PREEMPT AND ABORT ends the commands of the preempted before it answers (SPC-4 5.13.11.2.6)."""

import asyncio

import pytest

from storage_model.spec.scsi_task import TaskAttribute
from tests.conformance.scsi.bench import NEXUS_A, NEXUS_B, make_bench
from tests.conformance.scsi.persistent_reserve import (
    GOOD,
    KEY_A,
    KEY_B,
    KEY_C,
    NEXUS_C,
    PREEMPT,
    PREEMPT_AND_ABORT,
    REGISTER,
    REGISTER_AND_IGNORE,
    WE,
    WE_AR,
    WE_RO,
    Reservations,
)
from tests.eventually import eventually

WRITE, READ = "2a 00 00000000 00 0001", "28 00 00000000 00 0001"


class SlowStore:
    """Saves wait for ``let_go``."""

    def __init__(self):
        self.let_go = asyncio.Event()
        self.let_go.set()

    async def save(self, reservation):
        await self.let_go.wait()


@pytest.fixture
def pr(slow_bench):
    return Reservations(slow_bench)


def start(pr, task):
    return asyncio.create_task(pr.bench.server.execute(task))


async def begin_write(pr, slow_volume, nexus=NEXUS_A, data=b"v"):
    task = pr.bench.task(WRITE, data * 512, nexus)
    running = start(pr, task)
    await slow_volume.waiting.wait()
    return task, running


async def test_answers_after_the_writes_of_the_preempted_have_ended(pr, slow_volume):
    await pr.register(NEXUS_A, NEXUS_B)
    await pr.reserve(WE_RO)
    victim, running = await begin_write(pr, slow_volume)
    answer = asyncio.create_task(pr.out(PREEMPT_AND_ABORT, NEXUS_B, KEY_A, kind=WE_RO))
    await eventually(lambda: victim.aborted, what="the abort")
    assert not answer.done()
    slow_volume.let_go.set()
    assert await answer is GOOD
    assert running.done() or not pr.bench.lu.tasks.of_nexus(NEXUS_A)
    await running


async def test_no_late_write(pr, slow_volume):
    """Of the preempted, what has not begun to write when the answer comes never writes."""
    await pr.register(NEXUS_A, NEXUS_B)
    await pr.reserve(WE_RO)
    _, first = await begin_write(pr, slow_volume)
    compare = pr.bench.task("89 00 0000000000000000 000000 01", bytes(512) + b"c" * 512, NEXUS_A)  # waits for the first
    second = start(pr, compare)
    await asyncio.sleep(0)
    answer = asyncio.create_task(pr.out(PREEMPT_AND_ABORT, NEXUS_B, KEY_A, kind=WE_RO))
    await eventually(lambda: compare.aborted, what="the abort")
    slow_volume.let_go.set()
    assert await answer is GOOD
    before = await pr.bench.good(READ, nexus=NEXUS_B)
    await asyncio.gather(first, second)
    assert await pr.bench.good(READ, nexus=NEXUS_B) == before != b"c" * 512


async def test_the_others_go_on(pr, slow_volume):
    await pr.register(NEXUS_A, NEXUS_B, NEXUS_C)
    await pr.reserve(WE_RO)
    task, running = await begin_write(pr, slow_volume, NEXUS_C)
    assert await pr.out(PREEMPT_AND_ABORT, NEXUS_B, KEY_A, kind=WE_RO) is GOOD
    assert not task.aborted
    slow_volume.let_go.set()
    assert (await running).status is GOOD


async def test_preempt_alone_aborts_nothing(pr, slow_volume):
    """SPC-4 5.13.11.2.4.3: completion status is returned for each command."""
    await pr.register(NEXUS_A, NEXUS_B)
    await pr.reserve(WE_RO)
    task, running = await begin_write(pr, slow_volume)
    assert await pr.out(PREEMPT, NEXUS_B, KEY_A, kind=WE_RO) is GOOD
    slow_volume.let_go.set()
    assert not task.aborted and (await running).status is GOOD


async def test_a_command_that_has_begun_does_not_conflict_later(pr, slow_volume):
    """SPC-4 5.13.1: after the check succeeds it is not completed with RESERVATION CONFLICT."""
    await pr.register(NEXUS_B)
    _, running = await begin_write(pr, slow_volume)
    await pr.reserve(WE, NEXUS_B)
    slow_volume.let_go.set()
    assert (await running).status is GOOD


async def test_a_command_that_waits_its_turn_meets_the_reservation(pr, slow_volume):
    """SPC-4 5.13.1: the check is when its processing begins."""
    await pr.register(NEXUS_A, NEXUS_B)
    _, running = await begin_write(pr, slow_volume)
    ordered = pr.bench.task(WRITE, b"o" * 512, NEXUS_A)
    ordered.attribute = TaskAttribute.ORDERED
    waiting = start(pr, ordered)
    await asyncio.sleep(0)
    reserve = pr.task(1, NEXUS_B, kind=WE)
    reserve.attribute = TaskAttribute.HEAD_OF_QUEUE
    assert await pr.execute(reserve) is GOOD
    slow_volume.let_go.set()
    assert (await running).status is GOOD
    assert (await waiting).status == 0x18


@pytest.mark.parametrize("attribute", [TaskAttribute.ORDERED, TaskAttribute.SIMPLE])
async def test_a_preempted_command_that_waits_for_the_preempting_one(pr, slow_volume, attribute):
    """It will not begin: waiting for its end would be waiting for oneself."""
    await pr.register(NEXUS_A, NEXUS_B)
    await pr.reserve(WE_RO)
    _, running = await begin_write(pr, slow_volume)
    preempting = pr.task(PREEMPT_AND_ABORT, NEXUS_B, KEY_A, kind=WE_RO)
    preempting.attribute = attribute
    answer = asyncio.create_task(pr.execute(preempting))
    ordered = pr.bench.task(WRITE, b"o" * 512, NEXUS_C)  # waits for all of them, and the next one waits for it
    ordered.attribute = TaskAttribute.ORDERED
    behind = pr.bench.task(WRITE, b"l" * 512, NEXUS_A)
    waiting = [start(pr, ordered), start(pr, behind)]
    await asyncio.sleep(0)
    slow_volume.let_go.set()
    async with asyncio.timeout(5):
        assert await answer is GOOD
        await asyncio.gather(running, *waiting)
    assert (await pr.bench.good(READ, nexus=NEXUS_B))[:1] != b"l"


async def test_two_that_preempt_each_other(pr, slow_volume):
    """The second finds itself preempted, and aborted: both end."""
    await pr.register(NEXUS_A, NEXUS_B)
    _, running = await begin_write(pr, slow_volume)
    _, other = await begin_write(pr, slow_volume, NEXUS_B)
    both = [
        asyncio.create_task(pr.out(PREEMPT_AND_ABORT, NEXUS_A, KEY_B)),
        asyncio.create_task(pr.out(PREEMPT_AND_ABORT, NEXUS_B, KEY_A)),
    ]
    await asyncio.sleep(0)
    slow_volume.let_go.set()
    async with asyncio.timeout(5):
        await asyncio.gather(*both, running, other)
    assert list(pr.bench.lu.reservation.persistent.registrations) == [NEXUS_A]


async def test_an_aborted_one_that_waits_for_another_does_nothing(pr):
    """Also when it is one that the preempted may send: REGISTER AND IGNORE EXISTING KEY."""
    await pr.register(NEXUS_A, NEXUS_B)
    async with pr.bench.lu.reservation_journal.lock:
        preempting = asyncio.create_task(pr.out(PREEMPT_AND_ABORT, NEXUS_B, KEY_A))
        await asyncio.sleep(0)
        late = asyncio.create_task(pr.out(REGISTER_AND_IGNORE, NEXUS_A, KEY_C))
        await asyncio.sleep(0)
    assert await preempting is GOOD
    await late
    assert await pr.keys() == [KEY_B]


async def test_ones_own_other_commands(pr, slow_volume):
    """Those of every nexus with the key, but not the PERSISTENT RESERVE OUT itself."""
    await pr.register(NEXUS_A, NEXUS_B)
    await pr.reserve(WE_AR)
    task, running = await begin_write(pr, slow_volume, NEXUS_B)
    answer = asyncio.create_task(pr.out(PREEMPT_AND_ABORT, NEXUS_B, 0, kind=WE_AR))
    await eventually(lambda: task.aborted, what="the abort")
    slow_volume.let_go.set()
    assert await answer is GOOD
    await running


async def test_prevention_of_medium_removal_ends_with_it():
    """SPC-4 5.13.11.2.6 h): as if the preempted had allowed it."""
    pr = Reservations(make_bench(removable=True))
    await pr.register(NEXUS_A, NEXUS_B)
    for nexus in (NEXUS_A, NEXUS_B, NEXUS_C):
        await pr.bench.good("1e 00 00 00 01 00", nexus=nexus)
    assert await pr.out(PREEMPT, NEXUS_B, KEY_A) is GOOD
    assert pr.bench.lu.prevents_removal == {NEXUS_A, NEXUS_B, NEXUS_C}
    pr.bench.lu.unit_attentions.take(NEXUS_A)
    await pr.register(NEXUS_A)
    assert await pr.out(PREEMPT_AND_ABORT, NEXUS_B, KEY_A) is GOOD
    assert pr.bench.lu.prevents_removal == {NEXUS_B, NEXUS_C}


async def test_commands_that_no_transport_has_handed_over(pr):
    """What still waits for its data is aborted, too, at the unit of the command and of the preempted only."""
    asked = []

    class Transport:
        def abort_not_running_of(self, nexuses, lun):
            asked.append((set(nexuses), lun))

    pr.bench.server.transports.append(Transport())
    await pr.register(NEXUS_A, NEXUS_B)
    await pr.out(PREEMPT, NEXUS_B, KEY_B)
    assert asked == []
    await pr.register(NEXUS_B)
    await pr.out(PREEMPT_AND_ABORT, NEXUS_B, KEY_A)
    assert asked == [({NEXUS_A}, 0)]


@pytest.mark.parametrize(
    "cdb",
    ["9c 00 0000000000000000 0000 0001", "48 02", "04"],
    ids=["the first WRITE ATOMIC of the unit", "SANITIZE", "FORMAT UNIT"],
)
async def test_a_preempted_command_that_waits_for_older_ones(cdb):
    """Those wait for the commands that were there before: not for the one that waits for them, or neither would end."""
    store = SlowStore()
    pr = Reservations(make_bench(reservation_store=store))
    assert await pr.out(REGISTER, NEXUS_A, KEY_A, aptpl=True) is GOOD
    assert await pr.out(REGISTER, NEXUS_B, KEY_B, aptpl=True) is GOOD
    store.let_go.clear()
    answer = asyncio.create_task(pr.out(PREEMPT_AND_ABORT, NEXUS_B, KEY_A))
    await asyncio.sleep(0)
    victim = pr.bench.task(cdb, b"n" * 512 if cdb.startswith("9c") else b"", NEXUS_A)
    running = start(pr, victim)
    await asyncio.sleep(0)
    store.let_go.set()
    async with asyncio.timeout(5):
        assert await answer is GOOD
        await running
    await eventually(lambda: pr.bench.lu.operation is None, what="the operation's end")
    await pr.bench.good(READ, nexus=NEXUS_B)
