"""Both copies are compared while hosts write: what differs is found, counted and marked; what is written is not."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from storage_model.differential_bitmap import REGION_BYTES
from storage_model.pair import PairRefused
from storage_model.pair_state import PairState, PairVerb, Refusal
from storage_model.spec.copy_frames import FrameType
from storage_model.spec.pair_cdb import VerifyState
from target.remote_copy.copy_pace import CopyPace
from target.remote_copy.verify_task import CHUNK_REGIONS
from tests.unit.pair_in_memory import BLOCK, REGIONS, Pair, Site, block

PER_REGION = REGION_BYTES // BLOCK


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    pair = Pair()
    await pair.start()
    await pair.mirror()
    yield pair
    await pair.stop()


async def spoil(pair: Pair, *regions: int) -> None:
    for region in regions:
        await pair.b.disk.volume.write(region * REGION_BYTES + 7 * BLOCK, block("rot"))


async def test_equal_copies(pair: Pair) -> None:
    await pair.a.write(5, "mirrored")
    progress = pair.a.control.verify()
    await pair.quiet()
    assert progress.ended and not progress.reason
    assert (progress.compared, progress.differing, progress.busy) == (REGIONS, 0, 0)
    assert len(pair.a.half.marks) == 0
    assert pair.a.half.state is PairState.PAIR


@pytest.mark.parametrize("good", ["P-VOL", "S-VOL"])
async def test_what_differs_is_marked_and_the_next_resync_repairs_it(pair: Pair, good: str) -> None:
    await spoil(pair, 0, 7, REGIONS - 1)
    progress = pair.a.control.verify()
    await pair.quiet()
    assert (progress.compared, progress.differing) == (REGIONS, 3)
    assert [region for region in range(REGIONS) if pair.a.half.marks.lasting(region)] == [0, 7, REGIONS - 1]
    await pair.a.do(PairVerb.SPLIT)
    await pair.until(PairState.PSUS)
    await (pair.a if good == "P-VOL" else pair.b).do(PairVerb.RESYNC if good == "P-VOL" else PairVerb.SWAP_RESYNC)
    await pair.until(PairState.PAIR)
    for region in (0, 7, REGIONS - 1):  # written at neither side: it is the P-VOL of the split that counts
        assert await pair.b.medium(region * PER_REGION + 7) == await pair.a.medium(region * PER_REGION + 7) == ""


async def test_marks_of_a_comparison_survive_the_lazy_clearing(pair: Pair) -> None:
    await spoil(pair, 3)
    pair.a.control.verify()
    await pair.quiet()
    await pair.a.write(3 * PER_REGION, "mirrored")
    await pair.a.control.primary.forget_equal()
    assert list(pair.a.half.marks.bitmap) == [3]


async def test_region_with_a_write_under_way_is_passed_over_and_not_called_different(pair: Pair) -> None:
    pair.b.disk.volume.hold.clear()
    writing = asyncio.create_task(pair.a.write(0, "at the P-VOL, not yet at the S-VOL"))
    await pair.quiet()
    progress = pair.a.control.verify()
    await pair.quiet()
    assert progress.ended
    assert (progress.compared, progress.busy, progress.differing) == (REGIONS - CHUNK_REGIONS, CHUNK_REGIONS, 0)
    pair.b.disk.volume.hold.set()
    assert await writing


async def test_busy_region_is_tried_again(pair: Pair) -> None:
    pair.b.disk.volume.hold.clear()
    writing = asyncio.create_task(pair.a.write(0, "slow"))
    await pair.quiet()
    pair.b.disk.volume.hold_reads.clear()
    progress = pair.a.control.verify()
    await pair.quiet()
    assert not progress.ended
    pair.b.disk.volume.hold.set()
    assert await writing
    pair.b.disk.volume.hold_reads.set()
    await pair.quiet()
    assert (progress.compared, progress.busy, progress.differing) == (REGIONS, 0, 0)


async def test_host_writes_go_on_beside_it(pair: Pair) -> None:
    pair.b.disk.volume.hold_reads.clear()
    progress = pair.a.control.verify()
    await pair.quiet()
    assert await asyncio.wait_for(pair.a.write(CHUNK_REGIONS * PER_REGION, "elsewhere"), 5)
    held = asyncio.create_task(pair.a.write(0, "where it looks"))
    await pair.quiet()
    assert not held.done()
    pair.b.disk.volume.hold_reads.set()
    assert await held
    await pair.quiet()
    assert (progress.compared, progress.differing) == (REGIONS, 0)


async def test_only_one_at_a_time_at_the_p_vol_in_pair(pair: Pair) -> None:
    assert refusal(pair.b) is Refusal.IS_S_VOL
    pair.a.control.verify()
    assert refusal(pair.a) is Refusal.BUSY
    await pair.quiet()
    pair.a.control.verify()
    await pair.quiet()
    await pair.a.do(PairVerb.SPLIT)
    assert refusal(pair.a) is Refusal.ALREADY_SUSPENDED
    await pair.a.do(PairVerb.DELETE)
    assert refusal(pair.a) is Refusal.NOT_PAIRED


def refusal(site: Site) -> Refusal:
    with pytest.raises(PairRefused) as refused:
        site.control.verify()
    return refused.value.refusal


async def test_status_tells_how_far_it_is(pair: Pair) -> None:
    assert pair.a.control.status().verify is VerifyState.NONE
    await spoil(pair, 3)
    pair.b.disk.volume.hold_reads.clear()
    pair.a.control.verify()
    await pair.quiet()
    assert pair.a.control.status().verify is VerifyState.RUNNING
    pair.b.disk.volume.hold_reads.set()
    await pair.quiet()
    status = pair.a.control.status()
    assert (status.verify, status.verified_bytes) == (VerifyState.ENDED, status.size_bytes)
    assert (status.verify_differing_bytes, status.verify_busy_bytes) == (REGION_BYTES, 0)
    assert pair.b.control.status().verify is VerifyState.NONE
    pair.wire.cut_at(lambda frame: frame.type is FrameType.DIGEST, delivered=True)
    pair.a.control.verify()
    await pair.quiet()
    assert pair.a.control.status().verify is VerifyState.BROKEN_OFF


async def test_rate_of_one_pair_is_changed_while_it_is_compared(pair: Pair) -> None:
    now = [100.0]

    async def sleep(seconds: float) -> None:
        now[0] += seconds
        if now[0] >= 105 and pair.a.half.pace is shared:
            pair.a.control.set_copy_rate(4 * REGION_BYTES)
        await asyncio.sleep(0)

    shared = pair.a.half.pace = CopyPace(REGION_BYTES // 100, lambda: now[0], sleep)
    progress = pair.a.control.verify()
    await pair.quiet()
    assert progress.ended and progress.compared == REGIONS
    assert now[0] < 110, "the wait for the old rate was given up"
    assert pair.a.control.status().copy_rate == 4 * REGION_BYTES
    assert shared.bytes_per_second == REGION_BYTES // 100, "others may go by it"


@pytest.mark.parametrize("what", ["link", "split"])
async def test_it_ends_with_what_it_needs(pair: Pair, what: str) -> None:
    if what == "link":
        pair.wire.cut_at(lambda frame: frame.type is FrameType.DIGEST, delivered=True)
    progress = pair.a.control.verify()
    if what == "split":
        await pair.a.do(PairVerb.SPLIT)
    await pair.quiet()
    assert progress.ended and progress.reason
    assert progress.compared < REGIONS and progress.differing == 0
