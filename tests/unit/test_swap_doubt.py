"""A swap asked of the other array by one whose S-VOL a split had opened: no write there is lost with what comes of it.

The request says whether the S-VOL was written. Until it is known what becomes of it the S-VOL takes no writes, also
after a crash; once nothing can come of it any more, it takes them again.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest

from storage_model.errors import CheckCondition
from storage_model.pair_state import PairRole, PairState, PairVerb, Refusal
from storage_model.spec.copy_frames import FrameType
from storage_model.spec.pair_cdb import StatusFlag
from storage_model.volume import MediumFailure
from target.scsi.block_range_lock import BlockRange
from tests.unit.group_in_memory import Group
from tests.unit.pair_in_memory import Pair, Site, is_type, refusal


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    """Suspended, the S-VOL at B open for writes."""
    pair = Pair(quorum=False)
    await pair.start()
    await pair.mirror()
    await pair.a.do(PairVerb.SPLIT, s_vol_writable=True)
    await pair.until(PairState.PSUS)
    yield pair
    await pair.stop()


@pytest.fixture
async def group() -> AsyncIterator[Group]:
    """As ``pair``, with several."""
    group = Group()
    await group.start()
    await group.mirror()
    await group.a.do(PairVerb.SPLIT, s_vol_writable=True)
    await group.until(PairState.PSUS)
    yield group
    await group.stop()


async def is_open(site: Site) -> bool:
    assert site.half.role is PairRole.S_VOL
    try:
        return await site.write(900, "a probe")
    except CheckCondition:
        return False


async def write_under_way(stage: Pair | Group, site: Site) -> tuple[BlockRange, "asyncio.Task[bool]"]:
    """Inside the gate; it goes on when the range is released."""
    held = site.half.ranges.exclude_now(0, 1 << 20)
    assert held is not None
    writing = asyncio.create_task(site.write(6, "at A"))
    await stage.quiet()
    return held, writing


def doubts(site: Site) -> bool:
    return bool(site.control.status().flags & StatusFlag.IN_DOUBT)


@pytest.mark.parametrize("crashed", [False, True])
async def test_no_write_is_lost_with_a_swap_that_is_voted_for(pair: Pair, crashed: bool) -> None:
    a, b = pair.a, pair.b
    pair.wire.cut_at(is_type(FrameType.PROPOSE), delivered=False)
    assert await refusal(b.do(PairVerb.SWAP_RESYNC)) is Refusal.NO_VOTE
    if crashed:
        await b.crash()
        await b.start()
    assert not await is_open(b) and doubts(b)
    await pair.connect()
    await pair.until(PairState.PAIR)
    assert b.half.role is PairRole.P_VOL and not doubts(b) and not a.half.register.in_doubt
    assert await b.write(1, "as the P-VOL") and await a.medium(900) == ""


@pytest.mark.parametrize("crashed", [False, True])
async def test_no_write_is_lost_with_a_swap_of_a_group_that_is_voted_for(group: Group, crashed: bool) -> None:
    group.wire.cut_at(is_type(FrameType.PROPOSE_GROUP), delivered=False)
    assert await refusal(group.b.do(PairVerb.SWAP_RESYNC)) is Refusal.NO_VOTE
    if crashed:
        await group.b.crash()
        await group.b.start()
    for member in group.b.members.values():
        assert not await is_open(member)
    await group.connect()
    await group.until(PairState.PAIR)
    group.check_p_vols(group.b)


async def test_the_doubt_is_durable_before_the_swap_is_asked_for(pair: Pair, group: Group) -> None:
    pair.wire.cut_at(is_type(FrameType.REQUEST), delivered=False)
    pair.b.disk.running.clear()
    asking = asyncio.create_task(refusal(pair.b.do(PairVerb.SWAP_RESYNC)))
    await pair.quiet()
    assert pair.wire.up, "nothing was sent"
    pair.b.disk.running.set()
    assert await asking is Refusal.NO_VOTE
    assert pair.b.disk.record.swap_in_doubt
    before = len(group.b.transactions)
    group.wire.cut_at(is_type(FrameType.GROUP_REQUEST), delivered=False)
    assert await refusal(group.b.do(PairVerb.SWAP_RESYNC)) is Refusal.NO_VOTE
    (saved,) = [each for each in group.b.transactions[before:] if any(r.swap_in_doubt for r in each.values())]
    assert all(record.swap_in_doubt for record in saved.values()) and len(saved) == 3, "in one transaction"


async def test_an_s_vol_that_takes_no_writes_saves_nothing(pair: Pair) -> None:
    await pair.a.do(PairVerb.RESYNC)
    await pair.until(PairState.PAIR)
    await pair.a.do(PairVerb.SPLIT)
    await pair.until(PairState.PSUS)
    before = len(pair.b.disk.records)
    pair.wire.cut_at(is_type(FrameType.REQUEST), delivered=False)
    assert await refusal(pair.b.do(PairVerb.SWAP_RESYNC)) is Refusal.NO_VOTE
    assert len(pair.b.disk.records) == before and not doubts(pair.b)


@pytest.mark.parametrize("crashed", ["", "a", "b"])
async def test_the_s_vol_is_open_again_when_the_request_has_not_arrived(pair: Pair, crashed: str) -> None:
    pair.wire.cut_at(is_type(FrameType.REQUEST), delivered=False)
    assert await refusal(pair.b.do(PairVerb.SWAP_RESYNC)) is Refusal.NO_VOTE
    if crashed:
        site = pair.a if crashed == "a" else pair.b
        await site.crash()
        await site.start()
    assert not await is_open(pair.b), "nobody has told B"
    await pair.connect()
    assert await is_open(pair.b) and not doubts(pair.b)
    await pair.b.crash()
    await pair.b.start()
    assert await is_open(pair.b), "that is durable, too"


async def test_a_groups_s_vols_are_open_again_when_the_request_has_not_arrived(group: Group) -> None:
    group.wire.cut_at(is_type(FrameType.GROUP_REQUEST), delivered=False)
    assert await refusal(group.b.do(PairVerb.SWAP_RESYNC)) is Refusal.NO_VOTE
    members = group.b.members.values()
    assert [await is_open(member) for member in members] == [False] * 3
    await group.connect()
    assert [await is_open(member) for member in members] == [True] * 3


async def test_a_request_of_an_earlier_connection_is_not_voted_for(pair: Pair) -> None:
    """It says that the S-VOL was not written, and it was, as soon as A had told that it had no vote out."""
    a, b = pair.a, pair.b
    held, writing = await write_under_way(pair, a)
    asking = asyncio.create_task(refusal(b.do(PairVerb.SWAP_RESYNC)))
    await pair.quiet()  # it waits at A for the write inside the gate
    pair.wire.cut()
    assert await asking is Refusal.NO_VOTE
    await pair.connect()
    assert await is_open(b)
    a.half.ranges.release(held)
    await pair.quiet()
    assert await writing and b.half.role is PairRole.S_VOL
    assert await b.read(900) == "a probe" and await a.read(6) == "at A"
    assert await refusal(b.do(PairVerb.SWAP_RESYNC)) is Refusal.BOTH_WRITTEN


async def test_a_groups_request_of_an_earlier_connection_is_not_voted_for(group: Group) -> None:
    a, b = group.a.members["index"], group.b.members["index"]
    held, writing = await write_under_way(group, a)
    asking = asyncio.create_task(refusal(group.b.do(PairVerb.SWAP_RESYNC)))
    await group.quiet()
    group.wire.cut()
    assert await asking is Refusal.NO_VOTE
    await group.connect()
    assert not group.a.in_doubt
    assert await is_open(b)
    a.half.ranges.release(held)
    await group.quiet()
    assert await writing and b.half.role is PairRole.S_VOL and await b.read(900) == "a probe"
    assert not group.a.in_doubt


async def test_an_answer_that_nobody_waits_for_any_more_opens_the_s_vol(pair: Pair) -> None:
    a, b = pair.a, pair.b
    held, writing = await write_under_way(pair, a)
    asking = asyncio.create_task(refusal(b.do(PairVerb.SWAP_RESYNC)))
    await pair.quiet()
    b.impatient.set()
    assert await asking is Refusal.NO_VOTE
    assert not await is_open(b), "A may vote for it yet"
    a.impatient.set()
    await pair.quiet()
    assert await is_open(b) and not doubts(b), "A has given up before its vote"
    a.half.ranges.release(held)
    assert await writing


async def test_a_refusal_does_not_open_it_while_another_request_is_unanswered(pair: Pair) -> None:
    a, b = pair.a, pair.b
    held = a.half.ranges.exclude_now(0, 1 << 20)
    assert held is not None
    async with a.half.changing:
        refused = asyncio.create_task(refusal(b.do(PairVerb.SWAP_RESYNC, expected_epoch=1)))
        waiting = asyncio.create_task(refusal(b.do(PairVerb.SWAP_RESYNC)))
        writing = asyncio.create_task(a.write(6, "at A"))
        await pair.quiet()
    assert await refused is Refusal.EPOCH_MOVED
    b.impatient.set()
    assert await waiting is Refusal.NO_VOTE
    b.impatient.clear()
    assert not await is_open(b)
    a.half.ranges.release(held)
    assert await writing
    await pair.until(PairState.PAIR)
    assert b.half.role is PairRole.P_VOL and await b.read(6) == "at A"


async def test_a_vote_that_could_not_be_saved_leaves_no_doubt() -> None:
    """As the link opened it might have become durable yet: the owner's claim needs nobody else's vote meanwhile."""
    pair = Pair()
    a, b = pair.a, pair.b
    await pair.start()
    await pair.arm()
    await a.claim()
    await pair.until(PairState.PAIR)
    await a.do(PairVerb.SPLIT, s_vol_writable=True)
    await pair.until(PairState.PSUS)
    pair.wire.cut_at(is_type(FrameType.REQUEST), delivered=False)
    assert await refusal(b.claim()) is Refusal.NO_VOTE
    a.disk.running.clear()
    claiming = asyncio.create_task(a.claim())
    await pair.connect()
    assert not b.half.s_vol_open
    a.disk.fails = MediumFailure("the metadata cannot be written")
    a.disk.running.set()
    with pytest.raises(MediumFailure):
        await claiming
    a.disk.fails = None
    await pair.quiet()
    assert b.half.s_vol_open and not a.half.register.in_doubt
    await pair.stop()


async def test_a_swap_is_for_the_epoch_in_which_it_was_asked_for(pair: Pair) -> None:
    a, b = pair.a, pair.b
    a.disk.running.clear()
    resyncing = asyncio.create_task(refusal(a.do(PairVerb.RESYNC)))
    await pair.quiet()
    swapping = asyncio.create_task(refusal(b.do(PairVerb.SWAP_RESYNC)))
    await pair.quiet()
    a.disk.running.set()
    assert await resyncing is None
    assert await swapping is Refusal.EPOCH_MOVED
    await pair.until(PairState.PAIR)
    assert b.half.role is PairRole.S_VOL and not doubts(b)


async def test_a_request_that_cannot_be_noted_is_not_sent(pair: Pair) -> None:
    b = pair.b
    pair.wire.cut_at(is_type(FrameType.REQUEST), delivered=False)
    b.disk.fails = MediumFailure("the metadata cannot be written")
    with pytest.raises(MediumFailure):
        await b.do(PairVerb.SWAP_RESYNC)
    b.disk.fails = None
    assert pair.wire.up and await is_open(b)
