"""The bitmap behaves as a set of regions, and what is saved of it loads as the same set."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from storage_model.differential_bitmap import PAGE_BYTES, REGION_BYTES, DifferentialBitmap

REGIONS = 2 * PAGE_BYTES * 8 + 13  # two whole pages and a part of a third


class BitmapAgainstSet(RuleBasedStateMachine):
    regions = st.integers(0, REGIONS - 1) | st.sampled_from([0, 7, 8, 4095, 4096, 8191, 8192, REGIONS - 1])

    def __init__(self) -> None:
        super().__init__()
        self.bitmap = DifferentialBitmap(REGIONS * REGION_BYTES - 512)
        self.model: set[int] = set()
        self.medium = bytearray(3 * PAGE_BYTES)

    @rule(region=regions)
    def mark(self, region: int) -> None:
        assert self.bitmap.mark(region) is (region not in self.model)
        self.model.add(region)

    @rule(region=regions)
    def clear(self, region: int) -> None:
        assert self.bitmap.clear(region) is (region in self.model)
        self.model.discard(region)

    @rule()
    def mark_all(self) -> None:
        self.bitmap.mark_all()
        self.model = set(range(REGIONS))

    @rule()
    def clear_all(self) -> None:
        self.bitmap.clear_all()
        self.model.clear()

    @rule(others=st.sets(regions, max_size=5))
    def union(self, others: set[int]) -> None:
        other = DifferentialBitmap(REGIONS * REGION_BYTES)
        for region in others:
            other.mark(region)
        self.bitmap.union(other.to_bytes())
        self.model |= others

    @rule(kept=st.booleans())
    def save(self, kept: bool) -> None:
        pages = self.bitmap.take_unsaved()
        assert self.bitmap.take_unsaved() == {}
        if kept:
            for page, data in pages.items():
                self.medium[page * PAGE_BYTES : (page + 1) * PAGE_BYTES] = data
        else:
            self.bitmap.keep_unsaved(pages)

    @rule()
    def restart(self) -> None:
        """Everything that was taken for saving, and only that, is on the medium."""
        for page, data in self.bitmap.take_unsaved().items():
            self.medium[page * PAGE_BYTES : (page + 1) * PAGE_BYTES] = data
        assert bytes(self.medium) == self.bitmap.to_bytes()
        self.bitmap = DifferentialBitmap(REGIONS * REGION_BYTES)
        self.bitmap.load(bytes(self.medium))
        assert self.bitmap.take_unsaved() == {}

    @rule(start=regions)
    def next_marked(self, start: int) -> None:
        assert self.bitmap.next_marked(start) == min((r for r in self.model if r >= start), default=None)

    @rule(region=regions)
    def contains(self, region: int) -> None:
        assert (region in self.bitmap) is (region in self.model)

    @invariant()
    def count(self) -> None:
        assert len(self.bitmap) == len(self.model)
        if len(self.model) < 50:
            assert list(self.bitmap) == sorted(self.model)


TestBitmapAgainstSet = BitmapAgainstSet.TestCase


@given(st.integers(0, 1 << 44), st.integers(0, 1 << 24))
def test_regions_of_a_range_are_those_it_touches(offset: int, length: int) -> None:
    regions = DifferentialBitmap.regions(offset, length)
    if not length:
        assert len(regions) == 0
        return
    assert regions[0] * REGION_BYTES <= offset < (regions[0] + 1) * REGION_BYTES
    assert regions[-1] * REGION_BYTES < offset + length <= (regions[-1] + 1) * REGION_BYTES


@pytest.mark.parametrize(
    ("size_bytes", "regions", "pages"),
    [
        (1, 1, 1),
        (REGION_BYTES, 1, 1),
        (REGION_BYTES + 1, 2, 1),
        (4096 * REGION_BYTES, 4096, 1),
        (1 << 42, 1 << 26, 16384),
    ],
)
def test_size(size_bytes: int, regions: int, pages: int) -> None:
    bitmap = DifferentialBitmap(size_bytes)
    assert bitmap.region_count == regions
    assert len(bitmap.to_bytes()) == pages * PAGE_BYTES
    bitmap.mark_all()
    assert len(bitmap) == regions
    assert bitmap.next_marked(regions - 1) == regions - 1
    assert bitmap.next_marked(regions) is None


def test_bit_order_is_documented() -> None:
    bitmap = DifferentialBitmap(100 * REGION_BYTES)
    bitmap.mark(0)
    bitmap.mark(11)
    assert bitmap.to_bytes()[:3] == b"\x01\x08\x00"


@pytest.mark.parametrize("length", [0, PAGE_BYTES - 1, 2 * PAGE_BYTES])
def test_bits_of_another_size_are_refused_and_change_nothing(length: int) -> None:
    bitmap = DifferentialBitmap(REGION_BYTES)
    bitmap.mark(0)
    with pytest.raises(ValueError, match=f"{length} bytes"):
        bitmap.load(bytes(length))
    with pytest.raises(ValueError, match=f"{length} bytes"):
        bitmap.union(bytes(length))
    assert list(bitmap) == [0]


def test_only_pages_that_changed_are_saved() -> None:
    bitmap = DifferentialBitmap(REGIONS * REGION_BYTES)
    bitmap.mark(4096)
    assert list(bitmap.take_unsaved()) == [1]
    bitmap.clear_all()
    assert list(bitmap.take_unsaved()) == [1]
    bitmap.clear(4096)
    assert bitmap.take_unsaved() == {}
