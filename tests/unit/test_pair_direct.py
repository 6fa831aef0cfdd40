"""Reads and writes of a paired volume that end at once: only where nothing has to be asked, fetched or marked."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import replace
from typing import Any

import pytest

from storage_model.differential_bitmap import REGION_BYTES
from storage_model.pair_state import PairRole, PairState, PairVerb
from storage_model.spec.copy_frames import Frame, FrameType, WriteFlag
from storage_model.volume import Buffer, Extent, FileRange, MediumFailure
from tests.unit.pair_in_memory import BLOCK, REGIONS, HeldVolume, Pair, block, is_type


class DirectHeldVolume(HeldVolume):
    """One that never waits for its medium, as a file in the page cache; ``lent`` counts what it lends."""

    def __init__(self) -> None:
        super().__init__()
        self.contents = bytearray(REGIONS * REGION_BYTES)

    def read_now(self, offset_bytes: int, length_bytes: int) -> Buffer | None:
        return bytes(self.contents[offset_bytes : offset_bytes + length_bytes])

    def lend_now(self, offset_bytes: int, length_bytes: int) -> FileRange | None:
        return FileRange(-1, offset_bytes, length_bytes)

    def write_now(self, offset_bytes: int, data: Buffer) -> bool:
        self.contents[offset_bytes : offset_bytes + len(data)] = data
        return True

    async def read(self, offset_bytes: int, length_bytes: int) -> Buffer:
        await self.hold_reads.wait()
        return bytes(self.contents[offset_bytes : offset_bytes + length_bytes])

    async def write(self, offset_bytes: int, data: Buffer, *, fua: bool = False) -> None:
        await self.hold.wait()
        self.write_now(offset_bytes, data)

    async def block_status(self, offset_bytes: int, length_bytes: int) -> Sequence[Extent]:
        return [Extent(offset_bytes, length_bytes, mapped=True)]

    async def unmap(self, offset_bytes: int, length_bytes: int) -> None:
        self.write_now(offset_bytes, bytes(length_bytes))


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    pair = Pair(quorum=False)
    for site in (pair.a, pair.b):
        site.disk.volume = DirectHeldVolume()
    await pair.start()
    yield pair
    await pair.stop()


def written_now(pair: Pair, text: str) -> bool:
    return pair.a.volume.write_now(0, block(text))


async def test_without_a_pair_the_volume_is_as_direct_as_its_own(pair: Pair) -> None:
    assert written_now(pair, "simplex")
    assert pair.a.volume.read_now(0, BLOCK) == block("simplex")
    assert pair.a.volume.lend_now(0, BLOCK) == FileRange(-1, 0, BLOCK)


async def test_a_mirrored_write_is_never_made_without_the_other_array(pair: Pair) -> None:
    await pair.mirror()
    assert not written_now(pair, "here only")
    assert pair.a.volume.read_now(0, BLOCK) == bytes(BLOCK)


async def test_a_suspended_pair_marks_before_it_writes(pair: Pair) -> None:
    await pair.mirror()
    await pair.a.do(PairVerb.SPLIT)
    await pair.until(PairState.PSUS)
    assert not written_now(pair, "unmarked")


async def test_nothing_passes_a_closed_gate(pair: Pair) -> None:
    await pair.a.half.gate.close()
    assert not written_now(pair, "past the gate")
    pair.a.half.gate.open()
    assert written_now(pair, "after it")


async def test_what_only_the_other_half_has_is_not_read_from_this_one(pair: Pair) -> None:
    await pair.mirror()
    await pair.a.do(PairVerb.SPLIT)
    await pair.until(PairState.PSUS)
    assert await pair.a.write(1, "newer")
    pair.a.disk.volume.hold_reads.clear()  # what the new P-VOL lacks does not come yet
    await pair.b.do(PairVerb.SWAP_RESYNC)
    await pair.quiet()
    assert (pair.b.half.role, pair.b.half.state) == (PairRole.P_VOL, PairState.COPY)
    assert pair.b.volume.read_now(BLOCK, BLOCK) is None
    assert pair.b.volume.lend_now(BLOCK, BLOCK) is None
    pair.a.disk.volume.hold_reads.set()
    await pair.until(PairState.PAIR)
    assert pair.b.volume.read_now(BLOCK, BLOCK) == block("newer")


async def test_a_vote_that_is_out_ends_direct_reads(pair: Pair) -> None:
    """The P-VOL may have moved, and newer data with it: from the vote until its outcome is known."""
    await pair.mirror()
    await pair.a.do(PairVerb.SPLIT)
    await pair.until(PairState.PSUS)
    pair.wire.cut_at(is_type(FrameType.PROPOSE), delivered=True)
    claim = asyncio.create_task(pair.b.do(PairVerb.SWAP_RESYNC))
    await pair.quiet()
    in_doubt = [site for site in (pair.a, pair.b) if site.half.register.in_doubt]
    assert in_doubt
    for site in in_doubt:
        assert site.volume.read_now(0, BLOCK) is None
        assert site.volume.lend_now(0, BLOCK) is None
    await pair.connect()
    await asyncio.gather(claim, return_exceptions=True)
    await pair.quiet()
    for site in in_doubt:
        assert site.volume.read_now(0, BLOCK) is not None


@pytest.fixture
async def marked(pair: Pair) -> Pair:
    """In PAIR, with the mark of the first region on the medium."""
    await pair.mirror()
    assert await pair.a.write(0, "first")
    return pair


def soon(pair: Pair, text: str) -> Coroutine[Any, Any, str] | None:
    return pair.a.volume.write_soon(0, block(text), "written")


async def test_a_settled_write_is_made_here_at_once_and_waits_for_the_other_array_only(marked: Pair) -> None:
    pair = marked
    pair.b.disk.volume.hold.clear()
    rest = soon(pair, "second")
    assert rest is not None and pair.a.volume.read_now(0, BLOCK) == block("second")
    ended = asyncio.create_task(rest)
    await pair.quiet()
    assert not ended.done() and pair.a.half.gate.inside == 1
    assert soon(pair, "over the first") is None, "its blocks are taken"
    pair.b.disk.volume.hold.set()
    assert await ended == "written"
    assert pair.b.volume.read_now(0, BLOCK) == block("second")
    assert not pair.a.half.gate.inside and not len(pair.a.half.marks)


@pytest.mark.parametrize("without", ["mark", "pair", "link", "medium"])
async def test_a_write_that_has_more_to_wait_for_is_not_begun(
    pair: Pair, without: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if without != "pair":
        await pair.mirror()
    if without not in ("pair", "mark"):
        assert await pair.a.write(0, "first")
    if without == "link":
        pair.wire.cut()
        await pair.quiet()
    if without == "medium":
        monkeypatch.setattr(DirectHeldVolume, "write_now", lambda *ignored: False)
    before = pair.a.volume.read_now(0, BLOCK)
    assert soon(pair, "second") is None
    assert pair.a.volume.read_now(0, BLOCK) == before
    assert not pair.a.half.gate.inside and not pair.a.half.ranges.exclusive


async def test_a_settled_write_that_the_medium_refuses_suspends_the_pair(
    marked: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some of it may be there, and whoever asked need not try again: a retry that succeeds would leave the mark."""

    def fails(*ignored: object) -> bool:
        raise MediumFailure("simulated")

    half = marked.a.half
    with monkeypatch.context() as medium:
        medium.setattr(DirectHeldVolume, "write_now", fails)
        rest = soon(marked, "second")
    assert rest is not None
    with pytest.raises(MediumFailure):
        await rest
    assert half.state is PairState.PSUE and half.marks.lasting(0)
    assert not half.gate.inside and not half.ranges.exclusive


async def test_a_settled_write_that_cannot_be_sent_leaves_nothing_held(
    marked: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*ignored: object) -> None:
        raise MemoryError

    half = marked.a.half
    monkeypatch.setattr(half.link, "request", fails)
    with pytest.raises(MemoryError):
        soon(marked, "second")
    assert half.marks.lasting(0), "it is at this half only"
    assert not half.gate.inside and not half.ranges.exclusive


async def test_a_settled_write_whose_answer_is_lost_suspends_the_pair(marked: Pair) -> None:
    pair = marked
    rest = soon(pair, "second")
    assert rest is not None
    pair.wire.cut()
    assert await rest == "written", "fence level never"
    assert pair.a.half.state is PairState.PSUE and pair.a.half.marks.lasting(0)
    assert not pair.a.half.gate.inside and not pair.a.half.ranges.exclusive


async def test_a_settled_write_waits_for_whoever_has_its_blocks(pair: Pair) -> None:
    """The quick way of a mirrored write gives way to the slow one; order and data are those of the hosts."""
    await pair.mirror()
    assert await pair.a.write(0, "first")  # marks the region
    held = pair.a.half.ranges.exclude_now(0, BLOCK)
    assert held is not None
    second = asyncio.create_task(pair.a.write(0, "second"))
    await pair.quiet()
    assert pair.a.volume.read_now(0, BLOCK) == block("first")
    pair.a.half.ranges.release(held)
    assert await second
    for site in (pair.a, pair.b):
        assert site.volume.read_now(0, BLOCK) == block("second")


async def test_a_settled_write_waits_at_a_closed_gate(pair: Pair) -> None:
    await pair.mirror()
    assert await pair.a.write(0, "first")
    await pair.a.half.gate.close()
    second = asyncio.create_task(pair.a.write(0, "second"))
    await pair.quiet()
    assert not second.done()
    pair.a.half.gate.open()
    assert await second
    assert not len(pair.a.half.marks)


def replicated(pair: Pair, **fields: Any) -> Frame:
    """A WRITE as the P-VOL's array sends it."""
    data = block("replicated")
    frame = Frame(FrameType.WRITE, 10, 1, pair.b.half.record.decided.epoch, 0, len(data), payload=data)
    return replace(frame, **fields)


async def test_the_s_vol_takes_a_write_at_once(pair: Pair) -> None:
    await pair.mirror()
    assert pair.b.control.secondary.write_now(replicated(pair))
    assert pair.b.volume.read_now(0, BLOCK) == block("replicated")


@pytest.mark.parametrize(
    "fields",
    [
        {"flags": WriteFlag.FUA},
        {"flags": WriteFlag.ZEROS, "payload": b""},
        {"length_bytes": BLOCK - 1},
        {"length_bytes": 0, "payload": b""},
        {"offset_bytes": REGIONS * REGION_BYTES},
        {"offset_bytes": REGIONS * REGION_BYTES - BLOCK + 1},
    ],
    ids=str,
)
async def test_the_s_vol_takes_at_once_what_needs_no_second_look(pair: Pair, fields: dict[str, Any]) -> None:
    await pair.mirror()
    assert not pair.b.control.secondary.write_now(replicated(pair, **fields))
    assert await pair.b.volume.read(0, BLOCK) == bytes(BLOCK)


@pytest.mark.parametrize("ahead", [-1, 1])
async def test_the_s_vol_takes_no_write_of_another_epoch(pair: Pair, ahead: int) -> None:
    await pair.mirror()
    epoch = pair.b.half.record.decided.epoch + ahead
    assert not pair.b.control.secondary.write_now(replicated(pair, epoch=epoch))


async def test_a_suspended_s_vol_takes_no_write(pair: Pair) -> None:
    await pair.mirror()
    await pair.a.do(PairVerb.SPLIT)
    await pair.until(PairState.PSUS)
    assert not pair.b.control.secondary.write_now(replicated(pair))


async def test_a_p_vol_takes_no_write_of_the_other_array(pair: Pair) -> None:
    await pair.mirror()
    assert not pair.a.control.secondary.write_now(replicated(pair))


async def test_the_s_vol_takes_no_write_past_a_closed_gate(pair: Pair) -> None:
    await pair.mirror()
    await pair.b.half.replicated.close()
    assert not pair.b.control.secondary.write_now(replicated(pair))
    pair.b.half.replicated.open()
    assert pair.b.control.secondary.write_now(replicated(pair))
