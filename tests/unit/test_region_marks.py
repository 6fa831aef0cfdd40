"""Marks are durable before the write that they announce, in few saves; what may be forgotten and what may not."""

import asyncio
from collections.abc import Mapping

import pytest

from storage_model.differential_bitmap import PAGE_BYTES, REGION_BYTES, DifferentialBitmap
from storage_model.volume import MediumFailure
from target.remote_copy import region_marks
from target.remote_copy.region_marks import RegionMarks


class Medium:
    """Saves when it is let; counts."""

    def __init__(self) -> None:
        self.pages: dict[int, bytes] = {}
        self.saves = 0
        self.let = asyncio.Event()
        self.let.set()
        self.fails = False

    async def save(self, pages: Mapping[int, bytes]) -> None:
        await asyncio.sleep(0)
        await self.let.wait()
        self.saves += 1
        if self.fails:
            raise MediumFailure("full")
        self.pages.update(pages)

    def restarted(self, size_bytes: int) -> RegionMarks:
        bitmap = DifferentialBitmap(size_bytes)
        saved = bytearray(bitmap.to_bytes())
        for page, data in self.pages.items():
            saved[page * PAGE_BYTES : (page + 1) * PAGE_BYTES] = data
        bitmap.load(bytes(saved))
        return RegionMarks(bitmap, self)


SIZE = 5000 * REGION_BYTES


@pytest.fixture
def medium() -> Medium:
    return Medium()


@pytest.fixture(autouse=True)
def nothing_ahead(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "ahead" not in request.node.name:
        monkeypatch.setattr(region_marks, "AHEAD", 1)


@pytest.fixture
def marks(medium: Medium) -> RegionMarks:
    return RegionMarks(DifferentialBitmap(SIZE), medium)


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("kind", ["begin", "last"])
async def test_mark_is_durable_on_return_and_not_before(marks: RegionMarks, medium: Medium, kind: str) -> None:
    medium.let.clear()
    marking = asyncio.create_task(getattr(marks, kind)(range(3, 5)))
    await turns()
    assert not marking.done()
    medium.let.set()
    await marking
    assert list(medium.restarted(SIZE).bitmap) == [3, 4]


async def test_after_a_restart_every_mark_is_lasting(marks: RegionMarks, medium: Medium) -> None:
    await marks.begin(range(1))
    await marks.last(range(7, 8))
    assert len(marks) == 1 and not marks.lasting(0)
    again = medium.restarted(SIZE)
    assert len(again) == 2 and again.lasting(0) and again.lasting(7)


async def test_writes_that_meet_share_a_save(marks: RegionMarks, medium: Medium) -> None:
    medium.let.clear()
    writes = [asyncio.create_task(marks.begin(range(region, region + 1))) for region in range(50)]
    await turns()
    medium.let.set()
    await asyncio.gather(*writes)
    assert medium.saves <= 2  # the first one's, and one for all that came while it was under way
    assert len(medium.restarted(SIZE)) == 50


async def test_write_that_joins_a_mark_being_saved_waits_for_it(marks: RegionMarks, medium: Medium) -> None:
    medium.let.clear()
    first = asyncio.create_task(marks.begin(range(1)))
    await turns()
    second = asyncio.create_task(marks.begin(range(1)))
    await turns()
    assert not second.done()
    medium.let.set()
    await asyncio.gather(first, second)


async def test_region_written_again_costs_no_save(marks: RegionMarks, medium: Medium) -> None:
    for _ in range(10):
        await marks.begin(range(3))
        marks.end(range(3), equal=True)
    assert medium.saves == 1
    assert len(marks) == 0 and len(marks.bitmap) == 3


async def test_write_that_one_half_missed_leaves_a_lasting_mark(marks: RegionMarks) -> None:
    await marks.begin(range(2))
    await marks.begin(range(1))  # another one in region 0, at the same time
    marks.end(range(2), equal=False)
    marks.end(range(1), equal=True)  # it cannot make equal again what the first one left unequal
    assert [region for region in range(3) if marks.lasting(region)] == [0, 1]
    marks.begin_forgetting()
    marks.forget()
    assert list(marks.bitmap) == [0, 1]


async def test_mirrored_write_in_a_region_that_differs_keeps_the_mark(marks: RegionMarks) -> None:
    await marks.last(range(1))
    await marks.begin(range(1))
    marks.end(range(1), equal=True)
    assert marks.lasting(0)


async def test_unmirrored_write_makes_a_passing_mark_lasting_and_durable(marks: RegionMarks, medium: Medium) -> None:
    await marks.begin(range(1))
    marks.end(range(1), equal=True)
    await marks.last(range(1))
    assert marks.lasting(0)
    assert medium.restarted(SIZE).lasting(0)


async def test_copied_region_is_equal(marks: RegionMarks) -> None:
    await marks.last(range(2))
    marks.copied(0)
    assert not marks.lasting(0) and marks.lasting(1) and len(marks) == 1


async def test_flush_of_both_media_lets_forget_what_is_equal(marks: RegionMarks) -> None:
    await marks.last(range(5, 6))
    await marks.begin(range(2))
    marks.end(range(2), equal=True)
    marks.begin_forgetting()
    marks.forget()
    assert list(marks.bitmap) == [5]
    await marks.begin(range(1))
    assert 0 in marks.bitmap


async def test_next_lasting_passes_over_what_is_passing(marks: RegionMarks) -> None:
    await marks.begin(range(2))
    await marks.last(range(2, 3))
    await marks.begin(range(3, 4))
    assert marks.next_lasting(0) == 2
    assert marks.next_lasting(3) is None


async def test_crowd_of_passing_marks_is_forgotten_but_for_those_under_way(
    marks: RegionMarks, medium: Medium, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(region_marks, "PASSING_LIMIT", 8)
    await marks.begin(range(3))  # under way for as long as the test
    for region in range(10, 16):
        assert not marks.crowded
        await marks.begin(range(region, region + 1))
        marks.end(range(region, region + 1), equal=True)
    assert marks.crowded
    marks.begin_forgetting()
    marks.forget()
    assert list(marks.bitmap) == [0, 1, 2]
    assert len(marks) == 0
    await marks.begin(range(10, 11))  # forgotten meanwhile: marked, and saved, anew
    assert 10 in medium.restarted(SIZE).bitmap


@pytest.mark.parametrize("meanwhile", ["mirrored", "alone"])
async def test_region_written_while_the_media_are_flushed_keeps_its_mark(marks: RegionMarks, meanwhile: str) -> None:
    for region in range(3):
        await marks.begin(range(region, region + 1))
        marks.end(range(region, region + 1), equal=True)
    marks.begin_forgetting()
    if meanwhile == "mirrored":
        await marks.begin(range(1, 2))
        marks.end(range(1, 2), equal=True)
    else:
        await marks.last(range(1, 2))
        marks.copied(1)
    marks.forget()
    assert list(marks.bitmap) == [1]  # the flush under way may have come too early for it


async def test_copied_region_stays_marked_until_the_media_are_flushed(marks: RegionMarks) -> None:
    await marks.last(range(1))
    marks.copied(0)
    assert list(marks.bitmap) == [0]
    marks.begin_forgetting()
    marks.forget()
    assert list(marks.bitmap) == []


async def test_merge_and_reset_are_durable(marks: RegionMarks, medium: Medium) -> None:
    other = DifferentialBitmap(SIZE)
    other.mark(4999)
    await marks.begin(range(1))
    await marks.merge(other.to_bytes())
    assert [region for region in (0, 4999) if marks.lasting(region)] == [0, 4999]
    assert len(medium.restarted(SIZE)) == 2
    await marks.reset(marked=True)
    assert len(medium.restarted(SIZE)) == 5000
    await marks.reset(marked=False)
    assert len(medium.restarted(SIZE)) == 0
    with pytest.raises(ValueError, match="bytes"):
        await marks.merge(b"")


@pytest.mark.parametrize("kind", ["begin", "last"])
async def test_failed_save_is_told_and_made_up_for_by_the_next(marks: RegionMarks, medium: Medium, kind: str) -> None:
    medium.fails = True
    with pytest.raises(MediumFailure):
        await getattr(marks, kind)(range(1))
    medium.fails = False
    assert medium.restarted(SIZE).bitmap.next_marked(0) is None
    await getattr(marks, kind)(range(1))  # already marked here, yet not on the medium
    assert 0 in medium.restarted(SIZE).bitmap


async def test_failed_save_fails_everybody_who_waits_for_it_or_is_repeated(marks: RegionMarks, medium: Medium) -> None:
    medium.let.clear()
    writes = [asyncio.create_task(marks.begin(range(region, region + 1))) for region in range(3)]
    await turns()
    medium.fails = True
    medium.let.set()
    ends = await asyncio.gather(*writes, return_exceptions=True)
    assert all(isinstance(end, MediumFailure) for end in ends)


async def test_write_that_never_started_does_not_count_as_under_way(marks: RegionMarks, medium: Medium) -> None:
    medium.fails = True
    with pytest.raises(MediumFailure):
        await marks.begin(range(1))
    medium.fails = False
    assert not marks.lasting(0)
    await marks.begin(range(1))
    marks.end(range(1), equal=True)
    marks.begin_forgetting()
    marks.forget()
    assert len(marks.bitmap) == 0


async def test_cancelled_write_lets_the_next_one_save(marks: RegionMarks, medium: Medium) -> None:
    medium.let.clear()
    cancelled = asyncio.create_task(marks.begin(range(1)))
    await turns()
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    medium.let.set()
    await asyncio.wait_for(marks.begin(range(1)), 5)
    assert 0 in medium.restarted(SIZE).bitmap


async def test_writes_in_order_mark_ahead(marks: RegionMarks, medium: Medium) -> None:
    for region in range(100, 164):
        await marks.begin(range(region, region + 1))
        marks.end(range(region, region + 1), equal=True)
        assert medium.restarted(SIZE).lasting(region)
    assert medium.saves == 5  # the first region alone, then 16 at a time
    assert len(marks) == 0


async def test_what_is_marked_ahead_is_equal_until_it_is_written_alone(marks: RegionMarks, medium: Medium) -> None:
    await marks.begin(range(2))
    marks.end(range(2), equal=True)
    assert 10 in medium.restarted(SIZE).bitmap
    assert not marks.lasting(10)
    await marks.last(range(10, 11))
    assert marks.lasting(10) and medium.saves == 1
    marks.begin_forgetting()
    marks.forget()
    assert list(marks.bitmap) == [10]


async def test_scattered_writes_and_the_end_of_the_volume_mark_nothing_ahead_of_them(marks: RegionMarks) -> None:
    for region in (5, 100, 4998, 4999):
        await marks.begin(range(region, region + 1))
    assert list(marks.bitmap) == [5, 100, 4998, 4999]


async def test_begin_marked_does_not_trust_a_mark_that_is_being_saved(marks: RegionMarks, medium: Medium) -> None:
    medium.let.clear()
    first = asyncio.create_task(marks.begin(range(1)))
    await turns()
    assert not marks.begin_marked(range(1))
    medium.let.set()
    await first
    assert marks.begin_marked(range(1)) and not marks.begin_marked(range(2))


async def test_a_durable_mark_is_trusted_while_another_is_being_saved(marks: RegionMarks, medium: Medium) -> None:
    await marks.begin(range(1))
    medium.let.clear()
    other = asyncio.create_task(marks.begin(range(7, 8)))
    await turns()
    assert marks.begin_marked(range(1)) and not marks.begin_marked(range(7, 8))
    third = asyncio.create_task(marks.last(range(1)))
    await turns()
    assert third.done(), "its mark is on the medium"
    medium.let.set()
    await other


async def test_no_mark_is_trusted_while_all_of_them_are_being_saved(marks: RegionMarks, medium: Medium) -> None:
    await marks.begin(range(1))
    medium.let.clear()
    renewing = asyncio.create_task(marks.reset(marked=True))
    await turns()
    assert not marks.begin_marked(range(1)) and not marks.begin_marked(range(9, 10))
    medium.let.set()
    await renewing
    assert marks.begin_marked(range(1)) and marks.begin_marked(range(9, 10))


async def test_a_mark_whose_save_failed_is_trusted_after_the_next(marks: RegionMarks, medium: Medium) -> None:
    medium.fails = True
    for attempt in (marks.begin(range(1)), marks.reset(marked=True)):
        with pytest.raises(MediumFailure):
            await attempt
        assert not marks.begin_marked(range(1))
    medium.fails = False
    await marks.save()
    assert marks.begin_marked(range(1)) and medium.restarted(SIZE).lasting(0)


async def written(marks: RegionMarks, region: int) -> bool:
    """A mirrored write of one region; True if it did not have to wait for a mark."""
    one = range(region, region + 1)
    ready = marks.begin_marked(one)
    if not ready:
        await marks.begin(one)
    marks.end(one, equal=True)
    if marks.ahead_due:
        await marks.mark_ahead()
    return ready


async def test_writes_that_go_on_in_order_find_their_marks_ahead(marks: RegionMarks, medium: Medium) -> None:
    waited = [region for region in range(100, 1000) if not await written(marks, region)]
    assert waited == [100, 101]
    assert medium.saves == 17  # of the first two, the third nine regions later, and then one for each 64 regions
    assert len(marks) == 0 and 1040 in medium.restarted(SIZE).bitmap


async def test_no_mark_ahead_beyond_the_volume_and_none_trusted_that_failed(marks: RegionMarks, medium: Medium) -> None:
    assert not await written(marks, 4900) and not await written(marks, 4901)
    medium.fails = True
    for region in range(4902, 4917):
        assert await written(marks, region)
    with pytest.raises(MediumFailure):
        await written(marks, 4917)
    medium.fails = False
    assert not await written(marks, 4917)
    waited = [region for region in range(4918, 5000) if not await written(marks, region)]
    assert waited == [] and max(marks.bitmap) == 4999
