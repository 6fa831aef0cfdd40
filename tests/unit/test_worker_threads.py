"""WorkerThreads: results, failures, how many there are, and what is left after the end."""

import asyncio
import threading
from functools import partial

import pytest

from target.volumes.worker_threads import WorkerThreads


@pytest.fixture
async def workers():
    workers = WorkerThreads(2, "test")
    yield workers
    await asyncio.to_thread(workers.shut_down)


async def test_work_is_done_in_a_thread_and_its_result_comes_back(workers):
    assert await workers.run(threading.get_ident) != threading.get_ident()


async def test_what_the_work_raises_is_raised_where_it_is_awaited(workers):
    with pytest.raises(ZeroDivisionError):
        await workers.run(lambda: 1 // 0)
    assert await workers.run(lambda: "next") == "next"


async def test_threads_come_with_the_work_and_stay_under_the_limit(workers):
    assert len(workers) == 0
    for _ in range(5):
        await workers.run(int)
    assert len(workers) == 1  # one after the other needs no second thread
    gate = threading.Event()
    waiting = [workers.run(gate.wait) for _ in range(5)]
    begun = len(workers)
    gate.set()
    assert begun == 2
    assert await asyncio.gather(*waiting) == [True] * 5


async def test_a_cancelled_wait_does_not_disturb_the_others(workers):
    complaints: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
    gate = threading.Event()
    given_up, waited_for = workers.run(gate.wait), workers.run(gate.wait)
    given_up.cancel()
    gate.set()
    assert await waited_for
    assert await workers.run(lambda: 5) == 5
    assert not complaints


async def test_shutting_down_waits_for_what_was_handed_over_and_refuses_more():
    workers = WorkerThreads(1, "test")
    done: list[int] = []
    futures = [workers.run(partial(done.append, number)) for number in range(20)]
    await asyncio.to_thread(workers.shut_down)
    assert done == list(range(20))
    await asyncio.gather(*futures)
    with pytest.raises(OSError, match="Bad file descriptor"):
        _ = workers.run(int)


def test_a_loop_that_is_gone_stops_no_thread():
    workers = WorkerThreads(1, "test")
    gate = threading.Event()

    async def leave_work_behind() -> None:
        _ = workers.run(gate.wait)

    asyncio.run(leave_work_behind())
    gate.set()

    async def more() -> int:
        return await workers.run(lambda: 7)

    assert asyncio.run(more()) == 7
    workers.shut_down()
