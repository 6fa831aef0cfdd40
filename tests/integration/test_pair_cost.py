"""What ``scripts/pair-cost`` and ``scripts/bench`` measure of pairs: counts and roles, never the speed."""

from pathlib import Path

import pytest

from scripts.benchmark.arrays import ROOT
from scripts.pair_cost.__main__ import main
from scripts.pair_cost.copies import Copier, delta_resyncs, initial_copies, writes_beside_resync
from scripts.pair_cost.reserve import RESYNC, SWAP_RESYNC, reserve_times
from storage_model.differential_bitmap import REGION_BYTES

SIZE_BYTES = 8 << 20
REGIONS = SIZE_BYTES // REGION_BYTES


def test_a_delta_resync_sends_what_has_changed(tmp_path: Path) -> None:
    one, tenth, every = delta_resyncs(tmp_path, ROOT, SIZE_BYTES, (0.001, 0.1, 1.0))
    for done, regions in ((one, 1), (tenth, REGIONS // 10), (every, REGIONS)):
        assert done.copied.regions == regions and done.changed_bytes == regions * REGION_BYTES
        assert 1 <= done.ratio < 1.2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("onto_data", [False, True])
def test_an_initial_copy_sends_every_byte_of_a_full_volume(tmp_path: Path, onto_data: bool) -> None:
    """The other copier has the same file, and a target like ours."""
    files = []

    def rate(source: Path, target: Path) -> float:
        files.append((source.read_bytes(), target.read_bytes()))
        assert target.is_relative_to(tmp_path)
        return 1.0

    (rates,) = initial_copies(tmp_path, ROOT, SIZE_BYTES, 1, Copier("other", rate), onto_data=onto_data)
    assert rates.ratio == rates.ours > 0
    ((source, target),) = files
    assert len(source) == len(target) == SIZE_BYTES and all(map(any, _regions(source)))
    assert source != target and any(target) is onto_data
    assert list(tmp_path.iterdir()) == []


def _regions(data: bytes) -> list[bytes]:
    return [data[offset : offset + REGION_BYTES] for offset in range(0, len(data), REGION_BYTES)]


def test_writes_beside_a_resync(tmp_path: Path) -> None:
    pairs, longer = writes_beside_resync(tmp_path, ROOT, SIZE_BYTES, 1, 64)
    assert [pair.ours.operations for pair in pairs] == [pair.other.operations for pair in pairs] == [64]
    assert longer in (0, 1)
    assert list(tmp_path.iterdir()) == []


def test_half_of_the_reserves_exchange_the_roles(tmp_path: Path) -> None:
    times = reserve_times(tmp_path, ROOT, 4)
    assert {way: len(figures) for way, figures in times.items()} == {RESYNC: 2, SWAP_RESYNC: 2}
    assert all(figure > 0 for figures in times.values() for figure in figures)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("speed",), "speed: no measure is called so (write, copy, load, resync, reserve)"),
        (("--copy-size", "0"), "--copy-size 0 is out of range"),
        (("reserve", "--directory", "/nowhere"), "/nowhere"),
    ],
)
def test_wrong_arguments(words: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert told in capsys.readouterr().err
