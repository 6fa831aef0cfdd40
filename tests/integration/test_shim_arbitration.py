"""RESERVE through two shims, in front of two arrays, as in Figures 5 and 6."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from initiator_shim.initiator_transport import IscsiSession
from initiator_shim.session_errors import SessionError
from scripts.failover_drill.link_proxy import Cut
from storage_model.pair_state import PairRole, PairState
from storage_model.spec.pair_cdb import PairOut
from storage_model.spec.scsi_task import TaskFunction
from tests.eventually import eventually
from tests.integration.pair_of_arrays import BLOCK, PairOfArrays, PairSpec, pair_of_arrays, write_cdb
from tests.integration.shims import GOOD, RELEASE_6, RESERVATION_CONFLICT, RESERVE_6, RESERVE_10, ShimUnderTest, shim

DEADLINE = 1.5
QUORUM, DATA = 0, 1


@dataclass
class Cluster:
    """Two sites: array, shim and one host each."""

    arrays: PairOfArrays
    shim_a: ShimUnderTest
    shim_b: ShimUnderTest
    host_a: IscsiSession
    host_b: IscsiSession

    async def race(self, cdb: bytes = RESERVE_6) -> tuple[int, int]:
        """Both hosts RESERVE the quorum volume at once."""
        a, b = await asyncio.gather(self.host_a.execute(QUORUM, cdb), self.host_b.execute(QUORUM, cdb))
        return a.status, b.status

    async def split(self) -> None:
        await self.arrays.a.control(QUORUM, PairOut.SPLIT)
        for array in (self.arrays.a, self.arrays.b):
            await array.until(QUORUM, PairState.PSUS)


@asynccontextmanager
async def cluster(directory: Path, *data: PairSpec, group: str = "") -> AsyncIterator[Cluster]:
    """The quorum pair in PSUS (Figure 7), the data pairs in PAIR."""
    pairs = (PairSpec("quorum0", quorum=True, fence="data", group=group), *(data or [PairSpec("data0")]))
    deadline = ("--deadline", str(DEADLINE))
    async with (
        pair_of_arrays(directory, *pairs) as arrays,
        shim(directory, arrays.a.port, *deadline, name="shim-a") as shim_a,
        shim(directory, arrays.b.port, *deadline, name="shim-b") as shim_b,
    ):
        for lun in range(len(pairs)):
            await arrays.create(lun)
        host_a, host_b = await shim_a.host("a"), await shim_b.host("b")
        running = Cluster(arrays, shim_a, shim_b, host_a, host_b)
        await running.split()
        try:
            yield running
        finally:
            host_a.close()
            host_b.close()


async def test_one_host_wins_each_race(tmp_path: Path) -> None:
    async with cluster(tmp_path) as c:
        for cdb in (RESERVE_6, RESERVE_10, RESERVE_6):
            statuses = await c.race(cdb)
            assert sorted(statuses) == [GOOD, RESERVATION_CONFLICT]
            winner, loser = (c.host_a, c.host_b) if statuses[0] == GOOD else (c.host_b, c.host_a)
            array = c.arrays.a if winner is c.host_a else c.arrays.b
            status = await array.until(QUORUM, PairState.PAIR)
            assert status.role is PairRole.P_VOL
            assert status.owner is not None
            assert status.owner.initiator_name == "iqn.2026-11.org.example:" + ("a" if winner is c.host_a else "b")
            # The owner reserves again, as MSCS does every three seconds; the loser's attempt changes nothing.
            assert (await loser.execute(QUORUM, RESERVE_6)).status == RESERVATION_CONFLICT
            assert (await winner.execute(QUORUM, RESERVE_6)).status == GOOD
            assert (await winner.execute(QUORUM, write_cdb(0, 1), bytes(BLOCK))).status == GOOD
            assert (await loser.execute(QUORUM, write_cdb(0, 1), bytes(BLOCK))).status == RESERVATION_CONFLICT
            assert (await winner.execute(QUORUM, RELEASE_6)).status == GOOD  # and the pair is free for the next race
            for array in (c.arrays.a, c.arrays.b):
                assert (await array.until(QUORUM, PairState.PSUS)).owner is None


async def test_the_reset_before_the_reserve_does_not_disturb_it(tmp_path: Path) -> None:
    async with cluster(tmp_path) as c:
        for host in (c.host_a, c.host_b):
            assert await host.task_management(TaskFunction.LOGICAL_UNIT_RESET, QUORUM) == 0
            assert (await host.execute(QUORUM, bytes(6))).status == 0x02  # unit attention
        assert sorted(await c.race()) == [GOOD, RESERVATION_CONFLICT]


async def test_other_volumes_are_not_arbitrated(tmp_path: Path) -> None:
    async with cluster(tmp_path) as c:
        before = await c.arrays.a.status(DATA)
        assert (await c.host_a.execute(DATA, RESERVE_6)).status == GOOD
        assert (await c.host_b.execute(DATA, RESERVE_6)).status == GOOD  # each at its own array
        assert await c.arrays.a.status(DATA) == before


async def test_without_the_other_arrays_vote_nobody_wins(tmp_path: Path) -> None:
    async with cluster(tmp_path) as c:
        await c.arrays.cut()
        assert await c.race() == (RESERVATION_CONFLICT, RESERVATION_CONFLICT)
        await c.arrays.mend()
        assert sorted(await c.race()) == [GOOD, RESERVATION_CONFLICT]


async def test_the_deadline_bounds_a_silent_link(tmp_path: Path) -> None:
    async with cluster(tmp_path) as c:
        c.arrays.cable.cut(Cut.SILENT)
        started = time.monotonic()
        assert (await c.host_b.execute(QUORUM, RESERVE_6)).status == RESERVATION_CONFLICT
        assert time.monotonic() - started < DEADLINE + 1.0 + 1.0  # and the time to give back
        c.arrays.cable.restore()


async def test_a_host_that_leaves_while_it_is_arbitrated_owns_nothing(tmp_path: Path) -> None:
    async with cluster(tmp_path) as c:
        other = await c.shim_b.host("b2")
        c.arrays.cable.cut(Cut.SILENT)
        reserve = asyncio.create_task(c.host_b.execute(QUORUM, RESERVE_6))

        async def under_way() -> bool:
            """The provisional reservation shows: another host of the site cannot have it."""
            assert not reserve.done()
            return (await other.execute(QUORUM, bytes(6))).status == RESERVATION_CONFLICT

        await eventually(under_way, what="RESERVE at the array")
        c.host_b.close()
        with pytest.raises(SessionError):
            await reserve
        c.arrays.cable.restore()
        await c.arrays.linked()

        async def given_back() -> bool:
            return (await other.execute(QUORUM, RESERVE_6)).status == GOOD

        await eventually(given_back, what="the reservation of the host that left is given back")
        status = await c.arrays.b.until(QUORUM, PairState.PAIR)
        assert status.owner is not None and status.owner.initiator_name.endswith(":b2")
        other.close()


async def test_the_shim_outlives_its_array(tmp_path: Path) -> None:
    async with cluster(tmp_path) as c:
        await c.arrays.b.kill()
        with pytest.raises(SessionError):
            await c.host_b.execute(QUORUM, RESERVE_6)
        await c.arrays.b.start()
        await c.arrays.linked()
        c.host_b = await c.shim_b.host("b")
        assert c.shim_b.process.running

        async def reserved() -> bool:
            return (await c.host_b.execute(QUORUM, RESERVE_6)).status == GOOD

        await eventually(reserved, what="RESERVE after the array's restart")
