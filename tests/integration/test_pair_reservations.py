"""Persistent reservations of a pair of real arrays: one table, over loss of the link, kill -9 and libiscsi's suites."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from initiator_shim.initiator_transport import IscsiSession
from initiator_shim.session_errors import SessionError
from storage_model.nexus import ITNexus
from storage_model.pair_state import PairRole, PairState
from storage_model.spec.pair_cdb import PairOption, PairOut
from storage_model.spec.scsi_persistent_reservation import BasicParameters, FullStatus, decode_full_status
from storage_model.spec.scsi_task import ScsiStatus
from tests.eventually import eventually
from tests.integration.pair_of_arrays import (
    BLOCK,
    ArrayUnderTest,
    PairOfArrays,
    PairSpec,
    pair_of_arrays,
    sense_of,
    write_cdb,
)
from tests.integration.test_persistent_reservations import SUITES, run_suite

REGISTER, RESERVE, PREEMPT, PREEMPT_AND_ABORT, REGISTER_AND_IGNORE = 0, 1, 4, 5, 6
EXCLUSIVE_ACCESS, WRITE_EXCLUSIVE_REGISTRANTS_ONLY = 3, 5
GOOD, CONFLICT, CHECK = ScsiStatus.GOOD, ScsiStatus.RESERVATION_CONFLICT, ScsiStatus.CHECK_CONDITION
READ = bytes.fromhex("28000000000000000100")
UNIT_ATTENTION, NOT_READY = 6, 2


@dataclass
class Host:
    """A host at one array, with a key of its own."""

    array: ArrayUnderTest
    name: str
    key: int
    good: int = 0
    attempts: int = 0
    session: IscsiSession | None = field(default=None)

    async def connect(self) -> None:
        self.session = await self.array.connect(f"iqn.2026-11.org.pairvol:{self.name}")
        await self.session.execute(0, bytes(6))

    async def run(self, cdb: bytes, data_out: bytes = b"", data_in_length: int = 0) -> tuple[int, bytes]:
        """Status and sense; a unit attention is heard and the command repeated."""
        assert self.session is not None
        while True:
            outcome = await self.session.execute(0, cdb, data_out, data_in_length, timeout=15)
            if outcome.status != CHECK or outcome.sense[2] & 0xF != UNIT_ATTENTION:
                return int(outcome.status), bytes(outcome.sense or outcome.data_in)

    async def out(self, action: int, action_key: int = 0, kind: int = 0, *, key: int | None = None) -> int:
        """Counts what PRGENERATION counts."""
        data = BasicParameters(self.key if key is None else key, action_key).encode()
        counts = action != RESERVE
        self.attempts += counts
        status, _ = await self.run(bytes((0x5F, action, kind, 0, 0)) + len(data).to_bytes(4, "big") + b"\0", data)
        self.good += counts and status == GOOD
        return status

    async def reads(self) -> int:
        return (await self.run(READ, data_in_length=BLOCK))[0]

    async def writes(self) -> int:
        return (await self.run(write_cdb(0, 1), bytes(BLOCK)))[0]


async def full_status(array: ArrayUnderTest, lun: int = 0) -> tuple[int, list[FullStatus]]:
    """PRGENERATION and the descriptors, in an order of their own."""
    outcome = await array.execute(lun, bytes((0x5E, 3, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0)), data_in_length=0xFFFF)
    assert outcome.status == GOOD, sense_of(outcome)
    data = bytes(outcome.data_in)
    return int.from_bytes(data[:4], "big"), sorted(decode_full_status(data), key=lambda status: status.key)


async def equal_tables(arrays: PairOfArrays, lun: int = 0) -> tuple[int, set[tuple[int, bool]]]:
    """PRGENERATION, and each key with whether its nexus holds the reservation; the same at both."""
    found = []
    for array in (arrays.a, arrays.b):
        generation, descriptors = await full_status(array, lun)
        found.append((generation, {(status.key, status.holder) for status in descriptors}))
    assert found[0] == found[1]
    return found[0]


@pytest.fixture
async def arrays(tmp_path: Path) -> AsyncIterator[PairOfArrays]:
    async with pair_of_arrays(tmp_path, PairSpec("data0", "64MiB")) as made:
        await made.create()
        yield made


async def two_hosts(arrays: PairOfArrays) -> tuple[Host, Host]:
    hosts = Host(arrays.a, "host-a", 0xA), Host(arrays.b, "host-b", 0xB)
    for each in hosts:
        await each.connect()
        assert await each.out(REGISTER, each.key, key=0) == GOOD
    return hosts


async def test_reserved_at_one_array_and_enforced_at_both(arrays: PairOfArrays) -> None:
    a, b = await two_hosts(arrays)
    assert await a.out(RESERVE, kind=EXCLUSIVE_ACCESS) == GOOD
    assert [await a.reads(), await b.reads()] == [GOOD, CONFLICT]
    assert await equal_tables(arrays) == (2, {(0xA, True), (0xB, False)})
    _, descriptors = await full_status(arrays.b)
    assert [status.relative_target_port for status in descriptors] == [0x8001, 1]  # B's own is as its INQUIRY says
    assert await b.out(PREEMPT_AND_ABORT, 0xA, EXCLUSIVE_ACCESS) == GOOD
    assert [await a.reads(), await b.reads()] == [CONFLICT, GOOD]
    assert await a.writes() == CONFLICT
    assert await equal_tables(arrays) == (3, {(0xB, True)})


async def test_split_swap_and_restart_keep_it(arrays: PairOfArrays) -> None:
    """Also what no initiator asked to be kept with APTPL: the pair is not without power while it is somewhere."""
    a, b = await two_hosts(arrays)
    assert await a.out(RESERVE, kind=WRITE_EXCLUSIVE_REGISTRANTS_ONLY) == GOOD
    before = await equal_tables(arrays)
    await arrays.a.control(0, PairOut.SPLIT)
    await arrays.b.until(0, PairState.PSUS)
    await arrays.b.control(0, PairOut.SWAP_RESYNC)
    for array in (arrays.a, arrays.b):
        await array.until(0, PairState.PAIR)
    assert await equal_tables(arrays) == before
    assert await b.writes() == GOOD
    for array in (arrays.a, arrays.b):
        await array.kill()
    await arrays.b.start()
    await arrays.a.start()
    await arrays.linked()
    assert await equal_tables(arrays) == before
    await a.connect()
    await b.connect()
    assert await b.writes() == GOOD
    stranger = Host(arrays.b, "stranger", 0xC)
    await stranger.connect()
    assert await stranger.writes() == CONFLICT


async def test_a_group_takes_its_tables_along(tmp_path: Path) -> None:
    data, quorum = PairSpec("data0", "1MiB", group="db"), PairSpec("quorum0", "1MiB", quorum=True, group="db")
    async with pair_of_arrays(tmp_path, data, quorum) as arrays:
        for lun in range(2):
            await arrays.create(lun)
        a, b = await two_hosts(arrays)
        assert await a.out(RESERVE, kind=EXCLUSIVE_ACCESS) == GOOD
        before = await equal_tables(arrays)
        await arrays.b.control(1, PairOut.SWAP_RESYNC, PairOption.GROUP)
        for lun in range(2):
            await arrays.a.until(lun, PairState.PAIR)
            assert (await arrays.b.status(lun)).role is PairRole.P_VOL
        assert await equal_tables(arrays) == before
        await arrays.a.kill()
        await arrays.a.start()
        await arrays.linked()
        assert await equal_tables(arrays) == before
        await arrays.b.control(1, PairOut.RESYNC, PairOption.GROUP | PairOption.GOOD_P_VOL)
        await arrays.b.until(1, PairState.PAIR)
        await arrays.b.control(1, PairOut.SPLIT)
        await arrays.a.until(1, PairState.PSUS)
        claimant = ITNexus("iqn.2026-11.org.pairvol:host-c", bytes.fromhex("00023d00000c"), 1)
        await arrays.a.control(1, PairOut.SWAP_RESYNC, claim=claimant)  # takes data0 along
        assert [(await arrays.a.status(lun)).role for lun in range(2)] == [PairRole.P_VOL] * 2
        assert await equal_tables(arrays) == before
        assert await b.out(PREEMPT, 0xA, EXCLUSIVE_ACCESS) == GOOD
        assert await equal_tables(arrays) == (3, {(0xB, True)})


async def test_without_the_link_nobody_new(arrays: PairOfArrays) -> None:
    a, b = await two_hosts(arrays)
    assert await a.out(RESERVE, kind=EXCLUSIVE_ACCESS) == GOOD
    await arrays.cut()
    for each, other in ((a, b), (b, a)):
        assert each.session is not None
        data = BasicParameters(each.key, other.key).encode()
        preempt = bytes((0x5F, PREEMPT, EXCLUSIVE_ACCESS, 0, 0, 0, 0, 0, len(data), 0))
        assert sense_of(await each.session.execute(0, preempt, data)) == (NOT_READY, 0x8010)
    assert await a.out(RESERVE, kind=EXCLUSIVE_ACCESS) == GOOD
    assert await b.reads() == CONFLICT
    assert await equal_tables(arrays) == (2, {(0xA, True), (0xB, False)})
    await arrays.mend()
    assert await b.out(PREEMPT, 0xA, EXCLUSIVE_ACCESS) == GOOD
    assert await equal_tables(arrays) == (3, {(0xB, True)})


async def stream(mine: Host, other: Host) -> None:
    """Preempt the other host for ever; register anew when it has preempted this one. Until its array is gone."""
    try:
        while True:
            status = await mine.out(PREEMPT, other.key, EXCLUSIVE_ACCESS)
            if status == CONFLICT:  # not registered, or nothing is there to be preempted
                await mine.out(REGISTER_AND_IGNORE, mine.key)
                await mine.out(RESERVE, kind=EXCLUSIVE_ACCESS)
    except SessionError:
        return


@pytest.mark.parametrize("victims", ["a", "b", "ab"])
async def test_kill_9_in_a_stream_of_preempts(arrays: PairOfArrays, victims: str) -> None:
    """Both tables are equal afterwards, no GOOD is missing in PRGENERATION, and nothing was done twice."""
    a, b = await two_hosts(arrays)
    for name in victims:
        goal = a.good + b.good + 60
        streams = [asyncio.create_task(stream(a, b)), asyncio.create_task(stream(b, a))]
        await eventually(lambda: a.good + b.good >= goal, within=30, what="a stream of preempts")  # noqa: B023
        victim, host = (arrays.a, a) if name == "a" else (arrays.b, b)
        await victim.kill()
        await victim.start()
        await arrays.linked()
        for task in streams:
            task.cancel()
        await asyncio.gather(*streams, return_exceptions=True)
        # A command that was cancelled here may still be under way there: the streams' sessions end with it.
        for each in (a, b):
            assert each.session is not None
            each.session.close()
        await eventually(lambda: settled(arrays), what="equal tables")
        await a.connect()
        await b.connect()
        generation, holders = await equal_tables(arrays)
        assert a.good + b.good <= generation <= a.attempts + b.attempts
        assert sum(holder for _, holder in holders) <= 1
        assert await host.out(REGISTER_AND_IGNORE, host.key) == GOOD
        assert (await equal_tables(arrays))[0] == generation + 1


async def settled(arrays: PairOfArrays) -> bool:
    """The same twice in a row: nothing is under way any more."""
    before = [await full_status(array) for array in (arrays.a, arrays.b)]
    return before == [await full_status(array) for array in (arrays.a, arrays.b)]


@pytest.mark.slow
async def test_libiscsi_suites(arrays: PairOfArrays, require_tool: Callable[[str], str]) -> None:
    """One URL at each array. Split for reading and writing at both, since the suites write through either: the table is
    that of the pair all the same."""
    tool = require_tool("iscsi-test-cu")
    await arrays.a.control(0, PairOut.SPLIT, PairOption.S_VOL_WRITABLE)
    await arrays.b.until(0, PairState.PSUS)
    a, b = (f"iscsi://127.0.0.1:{array.port}/iqn.2026-11.org.pairvol:{array.site}/0" for array in (arrays.a, arrays.b))
    for suite in SUITES:
        await run_suite(tool, suite, a, b)
        await run_suite(tool, suite, b, a)
    for array in (arrays.a, arrays.b):
        assert "Traceback" not in array.log and "internal error" not in array.log
    assert (await equal_tables(arrays))[1] == set()
