"""Shared and exclusive ranges."""

import asyncio

from target.scsi.block_range_lock import BlockRangeLock


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


async def test_shared_ranges_overlap():
    lock = BlockRangeLock()
    held = [await lock.share(0, 10), await lock.share(5, 15)]
    for one in held:
        lock.release(one)


async def test_exclusive_waits_only_for_its_own_range():
    lock = BlockRangeLock()
    shared = await lock.share(0, 10)
    elsewhere = await lock.exclude(10, 20)
    here = asyncio.create_task(lock.exclude(9, 10))
    await settle()
    assert not here.done()
    lock.release(shared)
    lock.release(await here)
    lock.release(elsewhere)
    assert not lock.exclusive


async def test_a_waiting_exclusive_is_not_starved():
    lock = BlockRangeLock()
    first = await lock.share(0, 10)
    exclusive = asyncio.create_task(lock.exclude(0, 10))
    await settle()
    later = asyncio.create_task(lock.share(0, 10))
    await settle()
    lock.release(first)
    await settle()
    assert exclusive.done() and not later.done()
    lock.release(exclusive.result())
    lock.release(await later)


async def test_exclusives_queue_in_order():
    lock = BlockRangeLock()
    order = []

    async def hold(name):
        held = await lock.exclude(0, 1)
        order.append(name)
        await asyncio.sleep(0)
        lock.release(held)

    await asyncio.gather(*(hold(name) for name in "abcd"))
    assert order == list("abcd")


async def test_a_cancelled_waiter_leaves_nothing():
    lock = BlockRangeLock()
    shared = await lock.share(0, 1)
    waiter = asyncio.create_task(lock.exclude(0, 1))
    await settle()
    waiter.cancel()
    await asyncio.gather(waiter, return_exceptions=True)
    assert not lock.exclusive
    lock.release(shared)
