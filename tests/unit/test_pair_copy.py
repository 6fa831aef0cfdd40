"""What a copy sends: what differs and not more, runs in one frame, holes as holes; what a crash leaves to do."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from storage_model.differential_bitmap import REGION_BYTES
from storage_model.pair_state import PairState, PairVerb
from storage_model.spec.copy_frames import FrameType, WriteFlag
from storage_model.volume import NotReady
from target.remote_copy import copy_task, primary_volume, secondary_volume
from tests.unit.pair_in_memory import BLOCK, REGIONS, Pair, Site, is_type

PER_REGION = REGION_BYTES // BLOCK


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    pair = Pair()
    await pair.start()
    yield pair
    await pair.stop()


def data_sent(pair: Pair) -> int:
    """Bytes of volume data that went over the wire in either direction."""
    kinds = (FrameType.WRITE, FrameType.ANSWER)
    return sum(len(frame.payload) for frame in pair.wire.carried if frame.type in kinds and len(frame.payload) > 512)


async def write_regions(site: Site, *regions: int) -> None:
    for region in regions:
        assert await site.write(region * PER_REGION, f"region {region}")


def stop_after(chunks: int, site: Site) -> asyncio.Event:
    """A copy of this array's stands still after so many chunks, until the event."""
    turns, going_on = iter(range(chunks)), asyncio.Event()

    async def spend(count: int) -> None:
        if next(turns, None) is None:
            await going_on.wait()

    site.half.spend = spend  # type: ignore[method-assign]
    return going_on


async def equal(pair: Pair) -> bool:
    a, b = [await site.disk.volume.read(0, REGIONS * REGION_BYTES) for site in (pair.a, pair.b)]
    return bytes(a) == bytes(b)


@pytest.mark.parametrize("direction", [PairVerb.RESYNC, PairVerb.SWAP_RESYNC])
@pytest.mark.parametrize("regions", [(), (5,), (0, 3, 11), tuple(range(REGIONS))])
async def test_a_resync_costs_what_changed(pair: Pair, direction: PairVerb, regions: tuple[int, ...]) -> None:
    await pair.arm()
    await write_regions(pair.a, *regions)
    pair.wire.carried.clear()
    await (pair.b if direction is PairVerb.SWAP_RESYNC else pair.a).do(direction)
    await pair.until(PairState.PAIR)
    assert data_sent(pair) == len(regions) * REGION_BYTES
    assert await equal(pair)
    progress = pair.p_vol.half.progress
    assert progress is not None
    assert progress.regions == len(regions)
    assert progress.sent_bytes + progress.fetched_bytes == len(regions) * REGION_BYTES


async def test_neighbours_travel_together_and_holes_as_holes(pair: Pair) -> None:
    await write_regions(pair.a, 2, 3, 4, 9)
    await pair.a.do(PairVerb.CREATE)
    await pair.until(PairState.PAIR)
    sent = [frame for frame in pair.wire.carried if frame.type is FrameType.WRITE]
    runs = {(f.offset_bytes // REGION_BYTES, f.length_bytes // REGION_BYTES): f for f in sent}
    assert list(runs) == [(0, 2), (2, 3), (5, 4), (9, 1), (10, 2)]
    assert [run for run, frame in runs.items() if frame.flags & WriteFlag.ZEROS] == [(0, 2), (5, 4), (10, 2)]
    assert [run for run, frame in runs.items() if len(frame.payload)] == [(2, 3), (9, 1)]
    assert pair.a.half.progress is not None and pair.a.half.progress.hole_regions == 8
    assert await equal(pair)


async def test_what_the_s_vol_has_is_replaced_by_the_p_vols_holes(pair: Pair) -> None:
    await write_regions(pair.b, 0, 7)
    await pair.a.do(PairVerb.CREATE)
    await pair.until(PairState.PAIR)
    assert await equal(pair) and await pair.b.medium(0) == ""


async def test_hole_at_the_s_vol_is_fetched_as_a_hole(pair: Pair) -> None:
    await pair.arm()
    await write_regions(pair.a, 4)
    await pair.a.volume.unmap(4 * REGION_BYTES, REGION_BYTES)
    pair.wire.carried.clear()
    await pair.b.do(PairVerb.SWAP_RESYNC)
    await pair.until(PairState.PAIR)
    assert data_sent(pair) == 0 and await equal(pair)


async def test_run_that_is_read_from_the_peer_comes_in_frames_of_bounded_length(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the peer reads no more at once, whatever is asked for."""
    turn = asyncio.Event()

    async def spend(count: int) -> None:
        await turn.wait()

    pair.b.half.spend = spend  # type: ignore[method-assign]
    for module in (primary_volume, secondary_volume):
        monkeypatch.setattr(module, "MAX_READ_LENGTH", 2 * REGION_BYTES)
    await pair.arm()
    await write_regions(pair.a, *range(8))
    await pair.b.do(PairVerb.SWAP_RESYNC)
    pair.wire.carried.clear()
    assert await pair.b.volume.read(0, 5 * REGION_BYTES) == await pair.a.disk.volume.read(0, 5 * REGION_BYTES)
    reads = [frame.length_bytes // REGION_BYTES for frame in pair.wire.carried if frame.type is FrameType.READ]
    assert reads == [2, 2, 1]
    monkeypatch.setattr(secondary_volume, "MAX_READ_LENGTH", REGION_BYTES)
    with pytest.raises(NotReady):
        await pair.b.volume.read(5 * REGION_BYTES, 2 * REGION_BYTES)
    turn.set()


async def test_hole_that_is_written_before_its_turn_is_not_sent_as_a_hole(pair: Pair) -> None:
    """The copy has looked at the volume; a host writes; the copy must not punch the S-VOL's new data away."""
    pair.a.half.pace.bytes_per_second = 1
    turn = asyncio.Event()

    async def spend(count: int) -> None:
        await turn.wait()

    pair.a.half.spend = spend  # type: ignore[method-assign]
    await write_regions(pair.a, 0)
    await pair.a.do(PairVerb.CREATE)
    await pair.quiet()
    assert pair.a.half.state is PairState.COPY
    await write_regions(pair.a, 5)
    turn.set()
    await pair.until(PairState.PAIR)
    assert await pair.b.medium(5 * PER_REGION) == "region 5" and await equal(pair)


@pytest.mark.parametrize("victim", ["a", "b"])
async def test_a_crash_in_mid_resync_repeats_only_what_was_left(
    pair: Pair, victim: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copy_task, "CHECKPOINT_SECONDS", 0.0)
    await pair.arm()
    changed = range(0, REGIONS, 2)  # no neighbours: a frame each
    await write_regions(pair.a, *changed)
    never = stop_after(4, pair.a)
    await pair.a.do(PairVerb.RESYNC)
    await pair.quiet()
    pair.wire.cut()
    never.set()
    await pair.quiet()
    assert pair.a.half.state is PairState.PSUE
    left = len(pair.a.half.marks)
    assert 2 <= left < len(changed)
    assert len(pair.b.half.marks) == 0
    left = len(pair.a.half.marks.bitmap)
    assert left < len(changed)
    site = pair.a if victim == "a" else pair.b
    await site.crash()
    await site.start()
    await pair.connect()
    pair.wire.carried.clear()
    await pair.recover()
    assert data_sent(pair) == left * REGION_BYTES
    assert await equal(pair)


async def test_host_writes_do_not_wait_for_the_limit(pair: Pair) -> None:
    await pair.arm()
    await write_regions(pair.a, *range(REGIONS))
    stop_after(0, pair.a)
    await pair.a.do(PairVerb.RESYNC)
    await pair.quiet()
    await asyncio.wait_for(write_regions(pair.a, 0, 5, 11), 5)
    await asyncio.wait_for(pair.a.do(PairVerb.SPLIT), 5)
    assert pair.a.half.state is PairState.PSUS


async def test_copy_that_the_limit_holds_back_can_be_read_where_it_has_not_been(pair: Pair) -> None:
    await pair.arm()
    await write_regions(pair.a, *range(REGIONS))
    never = stop_after(0, pair.b)
    await pair.b.do(PairVerb.SWAP_RESYNC)
    await pair.quiet()
    assert await asyncio.wait_for(pair.b.read(7 * PER_REGION), 5) == "region 7"
    assert is_type(FrameType.READ)(pair.wire.carried[-2])
    never.set()
    await pair.until(PairState.PAIR)
    assert await equal(pair)


async def test_end_of_a_copy_says_in_the_log_what_it_cost(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    await pair.arm()
    await write_regions(pair.a, 3)
    caplog.clear()
    await pair.a.do(PairVerb.RESYNC)
    await pair.until(PairState.PAIR)
    assert "pair quorum0: copied 1 regions, 65536 bytes sent, 0 fetched, in 0.000 s" in caplog.text


@pytest.mark.parametrize("turns", [4, 6, 9, 12])
async def test_last_flush_that_a_change_overtakes_suspends_no_epoch(pair: Pair, turns: int) -> None:
    """The other array calls it stale: behind its vote, with which the copy that flushes is over."""
    await pair.arm()
    await write_regions(pair.a, 3)
    primary = pair.b.control.primary
    forget_equal, begun = primary.forget_equal, asyncio.Event()

    async def forget_late() -> None:
        begun.set()
        for _ in range(turns):
            await asyncio.sleep(0)
        await forget_equal()

    primary.forget_equal = forget_late  # type: ignore[method-assign]
    await pair.b.claim()
    await begun.wait()
    pair.wire.carried.clear()
    await pair.b.control.released(pair.b.nexus())
    await pair.until(PairState.PSUS)
    assert PairState.PSUE not in [record.state for site in (pair.a, pair.b) for record in site.disk.records]


async def test_the_copied_medium_is_flushed_all_along_and_marks_go_with_a_checkpoint(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Less than a second: flushes of the S-VOL, but no checkpoint before the end, so that the marks are still there."""
    monkeypatch.setattr(copy_task, "FLUSH_REGIONS", 2)
    await pair.arm()
    changed = range(0, REGIONS, 2)  # no neighbours: a chunk each
    await write_regions(pair.a, *changed)
    never = stop_after(4, pair.a)
    pair.wire.carried.clear()
    await pair.a.do(PairVerb.RESYNC)
    await pair.quiet()
    assert len([frame for frame in pair.wire.carried if frame.type is FrameType.FLUSH]) >= 1
    assert len(pair.a.half.marks) == len(changed) - 4
    assert len(pair.a.half.marks.bitmap) == len(changed)
    never.set()
    await pair.until(PairState.PAIR)
    assert len(pair.a.half.marks.bitmap) == 0 and await equal(pair)


@pytest.mark.parametrize("ends", ["flushed", "cut"])
async def test_copy_does_not_run_away_from_a_flush(pair: Pair, ends: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is copied beside it is limited, so that the next one does not take longer than the link waits for it."""
    monkeypatch.setattr(copy_task, "UNFLUSHED_REGIONS", 1)
    monkeypatch.setattr(copy_task, "CHUNK_REGIONS", 1)
    monkeypatch.setattr(copy_task, "WINDOW", 1)
    flushed = asyncio.Event()
    flush = pair.b.disk.volume.flush

    async def slow_flush() -> None:
        await flushed.wait()
        await flush()

    await pair.arm()
    await write_regions(pair.a, *range(REGIONS))
    monkeypatch.setattr(pair.b.disk.volume, "flush", slow_flush)
    await pair.a.do(PairVerb.RESYNC)
    await pair.quiet()
    assert REGIONS - 2 <= len(pair.a.half.marks) < REGIONS
    if ends == "cut":
        pair.wire.cut()
    flushed.set()
    await pair.until(PairState.PAIR if ends == "flushed" else PairState.PSUE)
    assert pair.a.half.copying is not None and pair.a.half.copying.done()


async def test_chunks_are_small_while_a_host_writes(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copy_task, "CHUNK_REGIONS", 3)
    monkeypatch.setattr(copy_task, "BUSY_CHUNK_REGIONS", 1)
    await pair.arm()
    await write_regions(pair.a, *range(REGIONS))
    chunks: list[int] = []

    async def spend(count: int) -> None:
        chunks.append(count // REGION_BYTES)
        if len(chunks) == 1:
            pair.a.half.gate.enter_now()  # as a host's write does
        if len(chunks) == 4:
            pair.a.half.gate.leave()

    pair.a.half.spend = spend  # type: ignore[method-assign]
    await pair.a.do(PairVerb.RESYNC)
    await pair.until(PairState.PAIR)
    assert chunks == [3, 1, 1, 1, 3, 3]
