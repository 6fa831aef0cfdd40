"""Two sites with shims, and a quorum pair with two data pairs in one group: one site's array is lost (Figure 13)."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from initiator_shim.initiator_transport import IscsiSession
from initiator_shim.pair_client import PairRefused
from storage_model.nexus import ITNexus
from storage_model.pair_state import PairRole, PairState
from storage_model.spec.pair_cdb import PairOption, PairOut, StatusFlag
from storage_model.spec.scsi_persistent_reservation import BasicParameters
from tests.eventually import eventually
from tests.integration.pair_of_arrays import BLOCK, ArrayUnderTest, PairSpec, write_cdb
from tests.integration.shims import CHECK_CONDITION, GOOD, RESERVATION_CONFLICT, RESERVE_6, UNIT_ATTENTION
from tests.integration.test_pair_reservations import (
    REGISTER,
    RESERVE,
    WRITE_EXCLUSIVE_REGISTRANTS_ONLY,
    equal_tables,
)
from tests.integration.test_shim_arbitration import QUORUM, Cluster, cluster

DATA, LOG = 1, 2
KEY_A, KEY_B = 0xA, 0xB
ALL_HERE, ALL_THERE = [PairRole.P_VOL] * 3, [PairRole.S_VOL] * 3


async def status_of(session: IscsiSession, lun: int, cdb: bytes, data: bytes = b"") -> int:
    """Unit attentions are heard first."""
    while True:
        outcome = await session.execute(lun, cdb, data, timeout=15)
        if outcome.status != CHECK_CONDITION or outcome.sense[2] & 0xF != UNIT_ATTENTION:
            return int(outcome.status)


async def register(session: IscsiSession, key: int) -> int:
    return await _reserve_out(session, REGISTER, BasicParameters(0, key))


async def _reserve_out(session: IscsiSession, action: int, parameters: BasicParameters, kind: int = 0) -> int:
    data = parameters.encode()
    return await status_of(session, DATA, bytes((0x5F, action, kind, 0, 0, 0, 0, 0, len(data), 0)), data)


async def reserve(session: IscsiSession) -> int:
    """RESERVE of the quorum volume, as the cluster software does it."""
    return await status_of(session, QUORUM, RESERVE_6)


async def write(session: IscsiSession, lun: int) -> int:
    return await status_of(session, lun, write_cdb(7, 1), bytes(BLOCK))


async def roles(array: ArrayUnderTest) -> list[PairRole]:
    return [(await array.status(lun)).role for lun in range(3)]


async def owner(array: ArrayUnderTest) -> str:
    nexus = (await array.status(QUORUM)).owner
    return "" if nexus is None else nexus.initiator_name.rpartition(":")[2]


async def settled(c: Cluster) -> None:
    """Nothing is in doubt, and both arrays agree. I9: the pairs are at one side."""

    async def agree() -> bool:
        both = [[await array.status(lun) for lun in range(3)] for array in (c.arrays.a, c.arrays.b)]
        flags = [status.flags for side in both for status in side]
        linked = all(StatusFlag.LINK_UP in each and StatusFlag.IN_DOUBT not in each for each in flags)
        return linked and [status.epoch for status in both[0]] == [status.epoch for status in both[1]]

    await eventually(agree, within=20, what="the arrays agree")
    assert [await roles(c.arrays.a), await roles(c.arrays.b)] in ([ALL_HERE, ALL_THERE], [ALL_THERE, ALL_HERE])


async def mirror(c: Cluster) -> None:
    """An operator names the good side; then the quorum pair is armed for the next failure (Figure 10)."""
    p_vols = c.arrays.a if await roles(c.arrays.a) == ALL_HERE else c.arrays.b

    async def armed() -> bool:
        """Refused while copies go on, or while an array has yet to notice that the other one was away."""
        states = [(await p_vols.status(lun)).state for lun in range(3)]
        try:
            if PairState.PSUE in states:
                options = PairOption.GROUP | PairOption.GOOD_P_VOL
                await p_vols.control(states.index(PairState.PSUE), PairOut.RESYNC, options)
            elif states == [PairState.PAIR] * 3:
                await p_vols.control(QUORUM, PairOut.SPLIT)
        except PairRefused:
            return False
        return states == [PairState.PSUS, PairState.PAIR, PairState.PAIR]

    await eventually(armed, within=30, what="mirrored, and armed")
    await settled(c)


@asynccontextmanager
async def owned_by_a(directory: Path) -> AsyncIterator[Cluster]:
    """Host A owns; its data volume is reserved persistently, for both hosts. The quorum pair is armed."""
    data = (PairSpec("data0", "1MiB", group="db"), PairSpec("log0", "1MiB", group="db"))
    async with cluster(directory, *data, group="db") as c:
        assert await reserve(c.host_a) == GOOD
        for array in (c.arrays.a, c.arrays.b):
            await array.until(QUORUM, PairState.PAIR)
        await c.split()
        assert await register(c.host_a, KEY_A) == await register(c.host_b, KEY_B) == GOOD
        held = _reserve_out(c.host_a, RESERVE, BasicParameters(KEY_A), WRITE_EXCLUSIVE_REGISTRANTS_ONLY)
        assert await held == GOOD
        assert await equal_tables(c.arrays, DATA) == (2, {(KEY_A, True), (KEY_B, False)})
        yield c


async def test_the_array_of_the_owner_is_lost(tmp_path: Path) -> None:
    async with owned_by_a(tmp_path) as c:
        table = await equal_tables(c.arrays, DATA)
        await c.arrays.a.kill()
        c.host_a.close()
        assert await reserve(c.host_b) == RESERVATION_CONFLICT, "nobody new without the other array's vote"
        assert await roles(c.arrays.b) == ALL_THERE and await owner(c.arrays.b) == "a"
        host_b = ITNexus("iqn.2026-11.org.example:b", b"\x80" + (1).to_bytes(5), 1)
        await c.arrays.b.control(QUORUM, PairOut.TAKEOVER, PairOption.GROUP, claim=host_b)  # the operator insists
        assert await roles(c.arrays.b) == ALL_HERE and await owner(c.arrays.b) == "b"
        assert await reserve(c.host_b) == GOOD
        assert [await write(c.host_b, lun) for lun in range(3)] == [GOOD] * 3
        assert (await c.arrays.b.write(DATA, 7, bytes(BLOCK))).status == RESERVATION_CONFLICT  # not registered
        await c.arrays.a.start()
        await c.arrays.linked()
        await settled(c)
        c.host_a = await c.shim_a.host("a")
        assert await reserve(c.host_a) == RESERVATION_CONFLICT
        assert await owner(c.arrays.a) == await owner(c.arrays.b) == "b"
        assert await equal_tables(c.arrays, DATA) == table, "what is reserved persistently was taken along"
        await mirror(c)
        assert sorted([await reserve(c.host_a), await reserve(c.host_b)]) == [GOOD, RESERVATION_CONFLICT]
        await settled(c)
        assert await equal_tables(c.arrays, DATA) == table


@pytest.mark.slow
async def test_the_array_of_the_owner_is_lost_while_the_other_host_reserves(tmp_path: Path) -> None:
    """GOOD: all have moved, and it owns them. RESERVATION CONFLICT: it owns nothing, now or later."""
    chance = random.Random(4)
    ends = []
    async with owned_by_a(tmp_path) as c:
        table, taken = await equal_tables(c.arrays, DATA), 0.1
        for _ in range(6):
            began = time.monotonic()
            reserving = asyncio.create_task(reserve(c.host_b))
            await asyncio.wait([reserving], timeout=chance.uniform(0.4, 1.2) * taken)
            if reserving.done():
                taken = time.monotonic() - began
            await c.arrays.a.kill()
            c.host_a.close()
            status = await reserving
            await c.arrays.a.start()
            await c.arrays.linked()
            await settled(c)
            moved = await roles(c.arrays.b) == ALL_HERE
            ends.append((status, moved))
            assert moved or status == RESERVATION_CONFLICT
            name = "b" if status == GOOD else "" if moved else "a"

            async def owned(name: str = name) -> bool:
                """A claim that was given up is released as soon as it is decided."""
                return await owner(c.arrays.a) == await owner(c.arrays.b) == name

            await eventually(owned, what=f"owned by {name or 'nobody'}")
            assert await equal_tables(c.arrays, DATA) == table
            c.host_a = await c.shim_a.host("a")
            await mirror(c)
            statuses = await asyncio.gather(reserve(c.host_a), reserve(c.host_b))
            assert sorted(statuses) == [GOOD, RESERVATION_CONFLICT], "exactly one winner"
            await settled(c)
            await mirror(c)
            if await roles(c.arrays.a) != ALL_HERE:  # back to where the round begins
                assert await reserve(c.host_a) == GOOD
                await settled(c)
                await mirror(c)
    print(f"\n(status, moved) {ends}")
