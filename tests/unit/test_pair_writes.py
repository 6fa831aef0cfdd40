"""What hosts wrote and were told GOOD for is never lost, whatever breaks; what is refused or aborted lands nowhere.

The data path of a pair whose two arrays are joined by a wire that breaks where it hurts most: I4, I5, I8, I10; ¶26.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest

from storage_model.errors import CheckCondition
from storage_model.pair import PairRequest
from storage_model.pair_state import FenceLevel, PairRole, PairState, PairVerb, Refusal, Side
from storage_model.spec.copy_frames import Frame, FrameType
from storage_model.volume import NotReady, ReplicationRefused
from target.remote_copy.copy_link import LinkDown
from tests.unit.pair_in_memory import Pair, is_type, refusal


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    pair = Pair()
    await pair.start()
    yield pair
    await pair.stop()


# ---------------------------------------------------------------------------------------------------- writes


@pytest.mark.parametrize("direction", ["swap", "resync"])
@pytest.mark.parametrize("cut_after", range(12))
async def test_link_lost_anywhere_in_a_resync_loses_no_acknowledged_write(
    pair: Pair, direction: str, cut_after: int
) -> None:
    await pair.mirror()
    assert await pair.a.write(1, "mirrored")
    await pair.a.do(PairVerb.SPLIT)
    await pair.quiet()
    for lba in (2, 200, 400):
        assert await pair.a.write(lba, f"suspended {lba}")
    frames = iter(range(cut_after))
    pair.wire.cut_at(lambda frame: next(frames, None) is None, delivered=bool(cut_after % 2))
    await refusal(pair.b.claim() if direction == "swap" else pair.a.claim())
    await pair.quiet()
    for site in (pair.a, pair.b):  # whoever may write meanwhile: what is acknowledged counts
        try:
            if await site.write(201, f"meanwhile at {site.name}"):
                assert await site.read(201) == f"meanwhile at {site.name}"
                latest = f"meanwhile at {site.name}"
        except (CheckCondition, NotReady):
            pass
    await pair.quiet()
    await pair.connect()
    if pair.p_vol.half.state is PairState.PSUE:
        await pair.recover()
    await pair.quiet()
    p_vol = pair.p_vol
    assert await p_vol.read(1) == "mirrored"
    for lba in (2, 200, 400):
        assert await p_vol.read(lba) == f"suspended {lba}"
    if "latest" in locals():
        assert await p_vol.read(201) == latest
    if p_vol.half.state is PairState.PAIR:
        for lba in (1, 2, 200, 201, 400):
            assert await pair.a.medium(lba) == await pair.b.medium(lba)


async def test_new_owner_never_reads_stale_data(pair: Pair) -> None:
    await pair.arm()
    await pair.a.write(7, "acknowledged by A")
    pair.a.disk.volume.hold.clear()
    await pair.b.claim()
    assert await pair.b.read(7) == "acknowledged by A"


@pytest.mark.parametrize("released", [False, True])
async def test_unfinished_copy_is_neither_read_nor_written_nor_forgotten(pair: Pair, released: bool) -> None:
    """A swap's copy breaks off: only the new S-VOL has the region. A RELEASE in PSUE must not hide that."""
    await pair.arm()
    await pair.a.write(7, "acknowledged by A")
    pair.wire.cut_at(lambda frame: frame.type is FrameType.READ, delivered=False)
    await pair.b.claim()
    await pair.quiet()
    await pair.connect()
    assert pair.b.half.role is PairRole.P_VOL and pair.b.half.state is PairState.PSUE
    if released:
        await pair.b.control.released(pair.b.nexus())
        await pair.quiet()
        assert pair.b.owner is None and pair.a.owner is None
    with pytest.raises(NotReady):
        await pair.b.read(7)
    with pytest.raises(NotReady):
        await pair.b.write(7, "over it")
    assert await refusal(pair.b.do(PairVerb.RECOVER, good_side=Side.P_VOL)) is Refusal.SUSPENDED_BY_ERROR
    assert await refusal(pair.b.do(PairVerb.RECOVER, good_side=Side.S_VOL)) is None
    assert await pair.b.read(7) == "acknowledged by A"


async def test_after_a_finished_swap_the_p_vol_writes_alone_by_fence_level_never(pair: Pair) -> None:
    """It has everything: the loss of the link is an ordinary PSUE, also after a restart."""
    await pair.arm()
    await pair.a.write(7, "by A")
    await pair.b.claim()
    await pair.until(PairState.PAIR)
    pair.wire.cut()
    await pair.quiet()
    assert await pair.b.write(7, "by B, alone")
    await pair.b.crash()
    await pair.b.start()
    assert await pair.b.read(7) == "by B, alone"
    assert await pair.b.write(8, "after the restart")
    await pair.connect()
    await pair.recover()
    assert await pair.a.medium(7) == "by B, alone"
    assert await pair.a.medium(8) == "after the restart"


async def test_open_s_vol_takes_no_write_that_a_swap_in_doubt_would_discard(pair: Pair) -> None:
    await pair.mirror()
    await pair.a.do(PairVerb.SPLIT, s_vol_writable=True)
    await pair.quiet()
    assert await pair.a.write(200, "at the P-VOL")
    pair.wire.cut_at(is_type(FrameType.PROPOSE), delivered=False)
    assert await refusal(pair.b.claim()) is Refusal.NO_VOTE
    with pytest.raises(CheckCondition):
        await pair.b.write(1, "would be lost")
    await pair.quiet()
    await pair.connect()  # A proposes again what it voted for
    await pair.until(PairState.PAIR)
    assert pair.p_vol is pair.b
    assert await pair.b.read(200) == "at the P-VOL"
    assert await pair.b.write(1, "as the P-VOL")


async def test_refused_swap_leaves_the_s_vol_open(pair: Pair) -> None:
    await pair.mirror()
    await pair.a.do(PairVerb.SPLIT, s_vol_writable=True)
    await pair.quiet()
    assert await pair.a.write(200, "at the P-VOL")
    assert await pair.b.write(1, "at the S-VOL")
    assert await refusal(pair.b.claim()) is Refusal.BOTH_WRITTEN
    assert await pair.b.write(2, "still open")


async def test_write_that_waits_inside_the_gate_counts(pair: Pair) -> None:
    """It is neither made nor marked yet when the swap is asked for, and acknowledged before it is decided."""
    await pair.mirror()
    await pair.a.do(PairVerb.SPLIT, s_vol_writable=True)
    await pair.until(PairState.PSUS)
    assert await pair.b.write(5, "at B")
    held = pair.a.half.ranges.exclude_now(0, 1 << 20)
    assert held is not None
    writing = asyncio.create_task(pair.a.write(6, "at A"))
    await pair.quiet()
    claiming = asyncio.create_task(refusal(pair.b.claim()))
    await pair.quiet()
    pair.a.half.ranges.release(held)
    assert await writing
    assert await claiming is Refusal.BOTH_WRITTEN
    assert await pair.a.read(6) == "at A"


async def test_write_frozen_while_the_roles_move_is_refused(pair: Pair) -> None:
    await pair.arm()
    pair.a.disk.running.clear()
    claiming = asyncio.create_task(refusal(pair.b.claim()))
    await pair.quiet()
    frozen = asyncio.create_task(pair.a.write(0, "too late"))
    await pair.quiet()
    assert not frozen.done()
    pair.a.disk.running.set()
    assert await claiming is None
    with pytest.raises(CheckCondition):
        await frozen
    assert await pair.a.medium(0) == await pair.b.medium(0) == ""


async def test_write_frozen_while_another_host_of_the_site_wins_is_aborted(pair: Pair) -> None:
    await pair.arm()
    await pair.a.claim("one")
    await pair.until(PairState.PAIR)
    await pair.a.do(PairVerb.SPLIT)
    await pair.quiet()
    pair.a.disk.running.clear()
    claiming = asyncio.create_task(refusal(pair.a.claim("two")))
    await pair.quiet()
    frozen = asyncio.create_task(pair.a.write(0, "too late", host="one"))
    await pair.quiet()
    pair.a.disk.running.set()
    assert await claiming is None
    with pytest.raises(CheckCondition) as error:
        await frozen
    assert error.value.sense_key == 0xB
    assert await pair.a.medium(0) == ""


async def test_write_frozen_by_a_change_that_fails_goes_on(pair: Pair) -> None:
    await pair.mirror()
    pair.wire.cut_at(is_type(FrameType.PROPOSE), delivered=False)
    pair.a.disk.running.clear()
    splitting = asyncio.create_task(refusal(pair.a.do(PairVerb.SPLIT)))
    await pair.quiet()
    frozen = asyncio.create_task(pair.a.write(0, "waited"))
    await pair.quiet()
    assert not frozen.done()
    pair.a.disk.running.set()
    assert await splitting is Refusal.NO_VOTE
    assert await frozen
    await pair.connect()
    assert (pair.a.half.state, pair.b.half.state) == (PairState.PSUS, PairState.PSUS)
    assert await refusal(pair.b.claim()) is None
    await pair.quiet()
    assert await pair.b.read(0) == "waited"


async def test_writes_under_way_end_before_the_vote(pair: Pair) -> None:
    await pair.mirror()
    pair.b.disk.volume.hold.clear()
    writing = asyncio.create_task(pair.a.write(0, "under way"))
    await pair.quiet()
    splitting = asyncio.create_task(refusal(pair.a.do(PairVerb.SPLIT)))
    before = len(pair.wire.carried)
    await pair.quiet()
    assert len(pair.wire.carried) == before
    pair.b.disk.volume.hold.set()
    assert await writing and await splitting is None
    assert await pair.b.medium(0) == "under way"


async def test_write_of_a_lost_connection_does_not_land_in_a_later_epoch(pair: Pair) -> None:
    """B's medium is slow; the link breaks and comes back, B becomes the P-VOL. The old write must not come on top."""
    await pair.mirror()
    pair.b.disk.volume.hold.clear()
    pair.b.disk.volume.writing.clear()
    writing = asyncio.create_task(pair.a.write(0, "old, never acknowledged"))
    await asyncio.wait_for(pair.b.disk.volume.writing.wait(), 5)
    pair.wire.cut()
    assert await writing  # fence level never: A has it, alone
    await pair.connect()
    swapping = asyncio.create_task(refusal(pair.b.do(PairVerb.SWAP_RECOVER, good_side=Side.S_VOL)))
    await pair.quiet()
    assert not swapping.done() and pair.b.half.role is PairRole.S_VOL
    pair.b.disk.volume.hold.set()
    assert await swapping is None
    await pair.quiet()
    assert await pair.b.write(0, "new")
    await pair.until(PairState.PAIR)
    assert await pair.a.medium(0) == await pair.b.medium(0) == "new"


async def test_fetched_region_does_not_land_after_the_pair_is_gone(pair: Pair) -> None:
    await pair.arm()
    await pair.a.write(7, "by A")
    pair.b.disk.volume.hold.clear()
    await pair.b.do(PairVerb.SWAP_RESYNC)
    reading = asyncio.create_task(pair.b.read(7))
    await pair.quiet()
    deleting = asyncio.create_task(refusal(pair.b.do(PairVerb.DELETE, force=True)))
    await pair.quiet()
    assert not deleting.done()
    pair.b.disk.volume.hold.set()
    assert await reading == "by A"
    assert await deleting is None


async def test_flush_does_not_meet_a_split_half_way() -> None:
    """Its FLUSH would be of an epoch that is over at B: refused by fence level data, or the pair suspended."""
    pair = Pair(FenceLevel.DATA)
    await pair.start()
    await pair.mirror()
    pair.b.disk.running.clear()
    splitting = asyncio.create_task(refusal(pair.a.do(PairVerb.SPLIT)))
    await pair.quiet()
    pair.a.disk.running.clear()
    pair.b.disk.running.set()
    await pair.quiet()
    assert (pair.a.half.state, pair.b.half.state) == (PairState.PAIR, PairState.PSUS)  # B is an epoch ahead
    flushing = asyncio.create_task(pair.a.volume.flush())
    await pair.quiet()
    pair.a.disk.running.set()
    assert await splitting is None
    await flushing
    assert pair.a.half.state is PairState.PSUS
    await pair.stop()


async def test_write_that_the_s_vol_refuses_is_not_taken_for_mirrored(pair: Pair) -> None:
    await pair.mirror()
    await pair.b.half.suspend("for a reason of its own")
    assert await pair.a.write(0, "alone")
    assert pair.a.half.state is PairState.PSUE
    assert await pair.b.medium(0) == ""
    await pair.recover()
    assert await pair.b.medium(0) == "alone"


async def test_copy_does_not_overtake_a_write_with_what_was_there_before(pair: Pair) -> None:
    await pair.a.write(0, "before")
    pair.a.disk.volume.hold_reads.clear()
    await pair.a.do(PairVerb.CREATE)
    await pair.quiet()  # the copy task has read the region, and not sent it
    writing = asyncio.create_task(pair.a.write(0, "written meanwhile"))
    await pair.quiet()
    pair.a.disk.volume.hold_reads.set()
    assert await writing
    await pair.until(PairState.PAIR)
    assert await pair.a.medium(0) == await pair.b.medium(0) == "written meanwhile"


@pytest.mark.parametrize("fence", FenceLevel)
async def test_write_without_the_link_by_fence_level(fence: FenceLevel) -> None:
    pair = Pair(fence)
    await pair.start()
    await pair.mirror()
    pair.wire.cut_at(is_type(FrameType.WRITE), delivered=False)
    if fence is FenceLevel.NEVER:
        assert await pair.a.write(0, "alone")
    else:
        with pytest.raises(ReplicationRefused):
            await pair.a.write(0, "alone")
    await pair.until(PairState.PSUE)
    await pair.connect()
    if fence is FenceLevel.DATA:
        with pytest.raises(ReplicationRefused):
            await pair.a.write(0, "later")
    else:
        assert await pair.a.write(0, "later")
    await pair.stop()


async def test_write_that_does_not_fit_its_frame_is_refused_by_the_s_vol(pair: Pair) -> None:
    await pair.mirror()
    epoch = pair.a.half.record.decided.epoch
    frame = Frame(FrameType.WRITE, 20, 0, epoch, 0, 512, payload=b"x" * 1024)
    reply = await pair.a.end.request(frame)
    assert reply.flags != 0
    assert await pair.b.medium(0) == ""


async def test_request_in_anothers_name_cuts_the_link(pair: Pair) -> None:
    await pair.arm()
    frame = Frame(FrameType.REQUEST, 10)
    frame.payload = PairRequest(PairVerb.RESYNC, pair.a.serial, claim=pair.a.nexus()).encode().encode()
    with pytest.raises(LinkDown):
        await pair.b.end.request(frame)
    assert len(pair.wire.errors) == 1
    pair.wire.errors.clear()
    await pair.quiet()
    assert pair.a.owner is None


# --------------------------------------------------------------------------------------------- the pair's life


async def test_forced_delete_without_the_link_is_learned_at_reconnection(pair: Pair) -> None:
    await pair.arm()
    pair.wire.cut()
    await pair.quiet()
    assert await refusal(pair.b.do(PairVerb.DELETE)) is Refusal.PEER_UNREACHABLE
    assert await refusal(pair.b.do(PairVerb.DELETE, force=True)) is None
    assert pair.b.half.role is PairRole.SMPL
    await pair.connect()
    assert pair.a.half.role is PairRole.SMPL
    assert pair.a.half.record.decided == pair.b.half.record.decided


async def test_release_in_mid_copy_arms_the_pair_when_it_is_equal(pair: Pair) -> None:
    await pair.arm()
    lbas = range(0, 6 * 256, 256)  # more regions apart from each other than the copy task has under way at once
    for lba in lbas:
        await pair.a.write(lba, "by A")
    pair.b.disk.volume.hold.clear()
    await pair.b.claim()
    releasing = asyncio.create_task(pair.b.control.released(pair.b.nexus()))
    await pair.quiet()
    epoch = pair.b.half.record.decided.epoch
    pair.b.disk.volume.hold.set()
    await releasing
    await pair.until(PairState.PSUS)
    values = {record.decided.epoch: record.decided for record in pair.a.disk.records}
    assert (values[epoch + 1].state, values[epoch + 1].arm) == (PairState.COPY, True)
    assert pair.a.owner is None
    for lba in lbas:
        assert await pair.b.medium(lba) == "by A"


async def test_split_decided_across_a_break_leaves_the_s_vol_without_marks_of_its_own(pair: Pair) -> None:
    """Else its next swap resync would be refused: both sides written, although only one was."""
    await pair.arm()
    await pair.a.write(300, "changed")
    pair.b.disk.volume.hold.clear()
    await pair.a.do(PairVerb.RESYNC)
    await pair.quiet()
    pair.wire.cut_at(is_type(FrameType.PROPOSE), delivered=False)
    splitting = asyncio.create_task(refusal(pair.a.do(PairVerb.SPLIT)))
    await pair.quiet()
    pair.b.disk.volume.hold.set()
    assert await splitting is Refusal.NO_VOTE
    await pair.connect()
    await pair.until(PairState.PSUS)
    assert len(pair.b.half.marks) == 0
    assert await refusal(pair.b.claim()) is None
    await pair.quiet()
    assert await pair.b.read(300) == "changed"


async def test_decision_made_while_the_link_goes_down_ends_in_psue(pair: Pair) -> None:
    await pair.arm()
    pair.b.disk.running.clear()
    claiming = asyncio.create_task(refusal(pair.b.claim()))
    await pair.quiet()
    pair.wire.cut()
    await pair.quiet()
    pair.b.disk.running.set()
    assert await claiming is Refusal.NO_VOTE
    await pair.quiet()
    assert pair.b.half.state is PairState.PSUE
    await pair.connect()
    assert (pair.a.half.state, pair.b.half.state) == (PairState.PSUE, PairState.PSUE)
    await pair.recover()


@pytest.mark.parametrize("at", ["a", "b"])
async def test_deletion_by_force_that_takes_too_long_is_not_called_back(pair: Pair, at: str) -> None:
    """It may be durable by then: memory, which whatever is saved next is made of, has to follow."""
    await pair.mirror()
    pair.wire.cut()
    await pair.quiet()
    site = {"a": pair.a, "b": pair.b}[at]
    site.disk.running.clear()
    deleting = asyncio.create_task(refusal(site.do(PairVerb.DELETE, force=True)))
    await pair.quiet()
    site.impatient.set()
    assert await deleting is Refusal.NO_VOTE
    site.disk.running.set()
    await pair.quiet()
    assert site.half.state is PairState.SMPL and site.disk.record == site.half.record
