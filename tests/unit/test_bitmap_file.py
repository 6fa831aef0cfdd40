"""A differential bitmap in its file: what was saved is what the next start loads."""

import os
from pathlib import Path

import pytest

from storage_model.differential_bitmap import PAGE_BYTES, REGION_BYTES, DifferentialBitmap
from storage_model.errors import UserError
from storage_model.volume import MediumFailure
from target.volumes.bitmap_file import BitmapFile

SIZE = 10_000 * REGION_BYTES  # three pages


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "quorum0.bitmap"


def loaded(path: Path, size_bytes: int = SIZE, *, paired: bool = False) -> DifferentialBitmap:
    bitmap = DifferentialBitmap(size_bytes)
    file = BitmapFile(path)
    try:
        file.load(bitmap, paired=paired)
    finally:
        file.close()
    return bitmap


async def test_marks_survive_pages_apart(path: Path) -> None:
    bitmap, file = DifferentialBitmap(SIZE), BitmapFile(path)
    file.load(bitmap, paired=False)
    for region in (0, 9_999):
        bitmap.mark(region)
    await file.save(bitmap.take_unsaved())
    file.close()
    assert list(loaded(path)) == [0, 9_999]
    assert path.stat().st_size == 3 * PAGE_BYTES


async def test_saved_is_in_the_file_without_a_close(path: Path) -> None:
    bitmap, file = DifferentialBitmap(SIZE), BitmapFile(path)
    file.load(bitmap, paired=False)
    bitmap.mark(5)
    await file.save(bitmap.take_unsaved())
    assert list(loaded(path)) == [5]
    bitmap.clear(5)
    await file.save(bitmap.take_unsaved())
    assert list(loaded(path)) == []
    file.close()


async def test_save_reaches_the_medium_before_it_returns(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    pwrite, fdatasync = os.pwrite, os.fdatasync

    def noted_pwrite(descriptor: int, data: bytes, offset: int) -> int:
        calls.append("pwrite")
        return pwrite(descriptor, data, offset)

    def noted_fdatasync(descriptor: int) -> None:
        calls.append("fdatasync")
        fdatasync(descriptor)

    monkeypatch.setattr(os, "pwrite", noted_pwrite)
    monkeypatch.setattr(os, "fdatasync", noted_fdatasync)
    bitmap, file = DifferentialBitmap(SIZE), BitmapFile(path)
    file.load(bitmap, paired=False)
    assert calls == ["fdatasync"]  # an array that was killed may have left what it was saving in the page cache
    calls.clear()
    await file.save(bitmap.take_unsaved())
    assert calls == []  # nothing to save costs nothing
    bitmap.mark_all()
    await file.save(bitmap.take_unsaved())
    assert calls == ["pwrite"] * 3 + ["fdatasync"]
    file.close()


def test_new_file_marks_nothing_and_has_its_size(path: Path) -> None:
    assert len(loaded(path)) == 0
    assert path.stat().st_size == 3 * PAGE_BYTES
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("saved", [None, b""])
def test_missing_file_of_a_pair_marks_everything_at_every_start_until_it_is_copied(
    path: Path, saved: bytes | None
) -> None:
    if saved is not None:
        path.write_bytes(saved)
    for _ in range(3):  # the array ends each time before a mark is saved
        assert len(loaded(path, paired=True)) == 10_000


def test_file_has_its_name_when_all_of_it_is_on_the_medium(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync = os.fsync

    def noted_fsync(descriptor: int) -> None:
        synced.append(path.exists())
        fsync(descriptor)

    synced: list[bool] = []
    monkeypatch.setattr(os, "fsync", noted_fsync)
    loaded(path, paired=True)
    assert synced == [False, True]  # the file, then its directory
    assert list(path.parent.iterdir()) == [path]


def test_start_that_ended_before_the_file_was_whole_leaves_none(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match=r"quorum0\.bitmap: No space left"):
            loaded(path, paired=True)
    assert not path.exists()
    assert len(loaded(path, paired=True)) == 10_000


@pytest.mark.parametrize("size_bytes", [SIZE // 4, SIZE * 2])
def test_file_of_a_volume_of_another_size(path: Path, size_bytes: int) -> None:
    loaded(path)
    with pytest.raises(UserError, match=r"quorum0\.bitmap: .*size must not change while it is paired"):
        loaded(path, size_bytes)


def test_file_cut_short(path: Path) -> None:
    path.write_bytes(bytes(PAGE_BYTES + 1))
    with pytest.raises(UserError, match="a bitmap of 513 bytes"):
        loaded(path)


def test_path_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Is a directory"):
        loaded(tmp_path)
    with pytest.raises(UserError, match=r"missing/x\.bitmap: No such file"):
        loaded(tmp_path / "missing" / "x.bitmap")


async def test_failed_save_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bitmap, file = DifferentialBitmap(SIZE), BitmapFile(path)
    file.load(bitmap, paired=False)
    bitmap.mark(1)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(MediumFailure, match="No space left"):
            await file.save(bitmap.take_unsaved())
    file.close()
    assert len(loaded(path)) == 0
