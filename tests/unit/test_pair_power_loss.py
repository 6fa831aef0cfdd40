"""An array loses what it had in its page cache: nothing that the other one has is replaced by older data."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from storage_model.differential_bitmap import REGION_BYTES
from storage_model.errors import CheckCondition
from storage_model.pair_state import FenceLevel, PairState, PairVerb, Refusal, Side
from storage_model.volume import MediumFailure, NotReady, ReplicationRefused, VolumeError
from tests.unit.group_in_memory import Group
from tests.unit.pair_in_memory import BLOCK, Pair, Site, block, refusal
from tests.unit.reserving_hosts import GOOD, WRITE, host
from tests.unit.volatile_volume import VolatilePair, VolatileVolume

WRITE_SAME_UNMAP = bytes.fromhex("41080000000000000100")
PER_REGION = REGION_BYTES // BLOCK
FETCHED, LEFT = 0, 5 * PER_REGION
"""Blocks in a region that is fetched, and in one that the limit to the rate holds back."""


@pytest.fixture
async def pair() -> AsyncIterator[VolatilePair]:
    pair = VolatilePair()
    await pair.start()
    yield pair
    await pair.stop()


@pytest.fixture
async def group() -> AsyncIterator[Group]:
    group = Group({"data": False, "log": False})
    yield group
    await group.stop()


def hold_copies_back(site: Site) -> asyncio.Event:
    """Until the event is set."""
    turn = asyncio.Event()

    async def spend(count: int) -> None:
        await turn.wait()

    site.half.spend = spend  # type: ignore[method-assign]
    return turn


async def swap_that_still_fetches(pair: VolatilePair) -> asyncio.Event:
    """B has the P-VOL, and of what A wrote alone only what its hosts ask for."""
    await pair.arm()
    assert await pair.a.write(FETCHED, "old")
    await pair.a.volume.flush()
    assert await pair.a.write(LEFT, "left")
    turn = hold_copies_back(pair.b)
    await pair.b.do(PairVerb.SWAP_RESYNC)
    await pair.until(PairState.COPY)
    return turn


async def fetch_the_rest(pair: Pair, turn: asyncio.Event) -> None:
    """Out of PSUE, as an operator does it: nobody but the old P-VOL has everything."""
    assert pair.b.half.state is PairState.PSUE
    turn.set()
    assert await refusal(pair.b.do(PairVerb.RECOVER, good_side=Side.P_VOL)) is Refusal.SUSPENDED_BY_ERROR
    await pair.b.do(PairVerb.RECOVER, good_side=Side.S_VOL)
    await pair.until(PairState.PAIR)


async def check_equal(pair: VolatilePair) -> None:
    assert await pair.volumes["a"].cached() == await pair.volumes["b"].cached()


@pytest.mark.parametrize("turns", [0, 50])
@pytest.mark.parametrize("victims", ["a", "b", "ab"])
async def test_write_acknowledged_while_a_swap_fetches_survives(pair: VolatilePair, victims: str, turns: int) -> None:
    turn = await swap_that_still_fetches(pair)
    assert await pair.b.read(FETCHED) == "old"
    assert await pair.b.write(FETCHED, "acknowledged")
    assert await pair.b.write(3 * PER_REGION, "where nothing differed")
    for _ in range(turns):
        await asyncio.sleep(0)
    for victim in victims:
        await pair.lose_power(victim)
    await fetch_the_rest(pair, turn)
    assert await pair.b.read(FETCHED) == "acknowledged"
    assert await pair.b.read(3 * PER_REGION) == "where nothing differed"
    await check_equal(pair)


async def test_hole_acknowledged_while_a_swap_fetches_survives_the_sources_loss_of_power(pair: VolatilePair) -> None:
    turn = await swap_that_still_fetches(pair)
    await pair.b.volume.unmap(0, REGION_BYTES)
    await pair.lose_power("a")
    await fetch_the_rest(pair, turn)
    assert await pair.b.read(FETCHED) == ""
    await check_equal(pair)


async def test_what_was_read_after_a_swap_is_not_older_when_the_source_has_lost_power(pair: VolatilePair) -> None:
    """A host has seen it at the new P-VOL, which has not failed."""
    turn = await swap_that_still_fetches(pair)
    assert await pair.b.read(LEFT) == "left"  # never flushed by a host
    await pair.lose_power("a")
    assert await pair.b.read(LEFT) == "left"
    await fetch_the_rest(pair, turn)
    assert await pair.b.read(LEFT) == "left"


async def test_a_flush_is_refused_while_what_was_acknowledged_is_only_at_an_array_out_of_reach(
    pair: VolatilePair,
) -> None:
    """It is in the page cache there, or was (seed 500000309 of the simulator)."""
    turn = await swap_that_still_fetches(pair)
    await pair.b.volume.flush()
    pair.wire.cut()
    await pair.quiet()
    assert pair.b.half.state is PairState.PSUE
    with pytest.raises(NotReady, match="resync it first"):
        await pair.b.volume.flush()
    await pair.connect()
    await fetch_the_rest(pair, turn)
    await pair.b.volume.flush()


async def test_halves_taken_for_equal_are_so_on_their_media(pair: VolatilePair) -> None:
    for site in (pair.a, pair.b):
        assert await site.write(FETCHED, "the same")
    await pair.a.do(PairVerb.CREATE, no_copy=True)
    await pair.until(PairState.PAIR)
    await pair.lose_power("b")
    await pair.recover()
    assert await pair.b.read(FETCHED) == await pair.a.read(FETCHED) == "the same"
    await check_equal(pair)


async def test_fence_level_data_a_flush_that_the_other_array_has_missed_is_refused_again_and_again() -> None:
    """Else what was acknowledged is at the P-VOL alone, and not at the S-VOL that another host may take over."""
    pair = VolatilePair(FenceLevel.DATA)
    await pair.start()
    await pair.mirror()
    assert await pair.a.write(FETCHED, "acknowledged")
    await pair.lose_power("b")
    for _ in range(2):
        with pytest.raises(ReplicationRefused):
            await pair.a.volume.flush()
    await pair.recover()
    await pair.a.volume.flush()
    await pair.lose_power("b")
    assert await pair.b.medium(FETCHED) == "acknowledged"
    await pair.stop()


async def test_a_local_flush_that_fails_once_leaves_its_marks(
    pair: VolatilePair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operating system tells it once; what could not be written is gone, and the next flush is without it."""

    async def fails(self: VolatileVolume) -> None:
        raise MediumFailure("simulated")

    await pair.mirror()
    assert await pair.a.write(FETCHED, "acknowledged")
    with monkeypatch.context() as medium:
        medium.setattr(VolatileVolume, "flush", fails)
        with pytest.raises(MediumFailure):
            await pair.a.volume.flush()
    await pair.a.volume.flush()
    assert pair.a.half.state is PairState.PSUE and 0 in pair.a.half.marks.bitmap


@pytest.mark.parametrize("victim", "ab")
async def test_a_hole_that_is_written_through_survives_a_loss_of_power(pair: VolatilePair, victim: str) -> None:
    await pair.mirror()
    pair.a.lu.write_through = True
    hosts = host(pair.a, "host", 1)
    assert await hosts.answer(WRITE, block("old")) is GOOD
    assert await hosts.answer(WRITE_SAME_UNMAP, bytes(BLOCK)) is GOOD
    await pair.lose_power(victim)
    await pair.recover()
    assert await pair.a.read(0) == await pair.b.read(0) == ""


async def test_source_flushes_once_before_it_is_fetched_from(pair: VolatilePair) -> None:
    await pair.arm()
    for region in range(4):
        assert await pair.a.write(region * PER_REGION, f"region {region}")
    volume = pair.volumes["a"]
    volume.hold_flush.clear()
    volume.flushing.clear()
    hold_copies_back(pair.b)
    await pair.b.do(PairVerb.SWAP_RESYNC)
    reads = [asyncio.create_task(pair.b.read(region * PER_REGION)) for region in range(4)]
    await pair.quiet()
    assert volume.flushing.is_set() and not any(read.done() for read in reads)
    volume.hold_flush.set()
    assert await asyncio.gather(*reads) == [f"region {region}" for region in range(4)]
    volume.hold_flush.clear()
    assert await asyncio.wait_for(pair.b.read(0), 5) == "region 0"


async def test_write_under_way_as_the_last_region_is_fetched_survives(pair: VolatilePair) -> None:
    """It began while B fetched, and is acknowledged when the pair is equal: then B is as good as A."""
    turn = await swap_that_still_fetches(pair)
    pair.volumes["b"].hold.clear()
    writing = asyncio.create_task(pair.b.write(3 * PER_REGION, "acknowledged"))
    await pair.quiet()
    pair.volumes["b"].hold.set()
    turn.set()
    assert await writing
    await pair.until(PairState.PAIR)
    assert await pair.b.write(4 * PER_REGION, "mirrored")
    await pair.lose_power("a")
    await pair.b.do(PairVerb.RECOVER, good_side=Side.P_VOL)
    await pair.until(PairState.PAIR)
    assert await pair.b.read(3 * PER_REGION) == "acknowledged"
    assert await pair.b.read(4 * PER_REGION) == "mirrored"
    await check_equal(pair)


async def test_write_that_the_source_missed_is_not_acknowledged(pair: VolatilePair) -> None:
    turn = await swap_that_still_fetches(pair)
    pair.volumes["a"].hold.clear()
    writing = asyncio.create_task(pair.b.write(FETCHED, "in doubt"))
    await pair.volumes["a"].writing.wait()
    await pair.lose_power("a")
    with pytest.raises((CheckCondition, VolumeError)):
        await writing
    pair.volumes["a"].hold.set()
    await fetch_the_rest(pair, turn)
    await check_equal(pair)


async def split_before_the_last_flush(pair: VolatilePair) -> None:
    """Everything is copied, and a block that was written after the last flush began is in the page caches only."""
    await pair.arm()
    assert await pair.a.write(FETCHED, "old")
    pair.volumes["b"].hold_flush.clear()
    await pair.a.do(PairVerb.RESYNC)
    await pair.quiet()
    assert pair.a.half.state is PairState.COPY and not len(pair.a.half.marks)
    assert await pair.a.write(FETCHED, "acknowledged")
    splitting = asyncio.create_task(pair.a.do(PairVerb.SPLIT, s_vol_writable=True))
    await pair.quiet()
    pair.volumes["b"].hold_flush.set()
    await splitting
    await pair.until(PairState.PSUS)
    assert len(pair.a.half.marks) == 0 and len(pair.a.half.marks.bitmap) == 1
    await pair.lose_power("b")
    assert await pair.b.medium(FETCHED) == "old"


async def test_swap_after_a_split_out_of_copy_does_not_discard_what_the_s_vol_has_lost(pair: VolatilePair) -> None:
    await split_before_the_last_flush(pair)
    assert await pair.b.write(LEFT, "elsewhere")
    assert await refusal(pair.b.do(PairVerb.SWAP_RESYNC)) is Refusal.BOTH_WRITTEN
    assert await refusal(pair.b.do(PairVerb.SWAP_RECOVER, good_side=Side.S_VOL)) is Refusal.OUTDATED
    await pair.b.do(PairVerb.SWAP_RECOVER, good_side=Side.P_VOL)
    await pair.until(PairState.PAIR)
    assert await pair.b.read(FETCHED) == "acknowledged"
    await check_equal(pair)


async def test_swap_after_a_split_out_of_copy_fetches_what_the_s_vol_has_lost(pair: VolatilePair) -> None:
    await split_before_the_last_flush(pair)
    await pair.b.do(PairVerb.SWAP_RESYNC)
    await pair.until(PairState.PAIR)
    assert await pair.b.read(FETCHED) == "acknowledged"
    await check_equal(pair)


async def test_swap_after_a_split_of_equal_halves_takes_what_the_s_vol_has_written(pair: VolatilePair) -> None:
    await pair.mirror()
    assert await pair.a.write(FETCHED, "mirrored")
    await pair.a.do(PairVerb.SPLIT, s_vol_writable=True)
    await pair.until(PairState.PSUS)
    await pair.lose_power("b")
    assert await pair.b.write(FETCHED, "by the S-VOL")
    await pair.b.do(PairVerb.SWAP_RESYNC)
    await pair.until(PairState.PAIR)
    assert await pair.b.read(FETCHED) == "by the S-VOL"
    await check_equal(pair)


async def test_swap_of_a_group_after_a_split_out_of_copy_does_not_discard_either(group: Group) -> None:
    a, b = group.a.members["data"], group.b.members["data"]
    volume = b.disk.volume = VolatileVolume()
    await group.start()
    await group.suspend()
    assert await a.write(FETCHED, "old")
    volume.hold_flush.clear()
    await a.do(PairVerb.RESYNC)
    await group.quiet()
    assert a.half.state is PairState.COPY and not len(a.half.marks)
    assert await a.write(FETCHED, "acknowledged")
    splitting = asyncio.create_task(group.a.do(PairVerb.SPLIT, s_vol_writable=True))
    await group.quiet()
    volume.hold_flush.set()
    await splitting
    assert len(a.half.marks) == 0
    assert await b.write(LEFT, "elsewhere")
    assert await refusal(group.b.do(PairVerb.SWAP_RESYNC)) is Refusal.BOTH_WRITTEN
