"""Freed memory is kept while it is of use, and given back once for all sessions that end within a second."""

import asyncio
import ctypes
import gc
import weakref
from pathlib import Path

import pytest

from target import freed_memory
from target.freed_memory import Trimming
from tests.eventually import eventually


class Library:
    def __init__(self) -> None:
        self.trims = 0

    def malloc_trim(self, pad: int) -> int:
        self.trims += 1
        return 1


async def test_sessions_that_end_together_cost_one_trim(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library()
    monkeypatch.setattr(freed_memory, "_libc", lambda: library)
    monkeypatch.setattr(freed_memory, "_TRIM_SECONDS", 0.01)
    trimming = Trimming()
    for _ in range(3):
        trimming.session_ended()
    await eventually(lambda: library.trims)
    trimming.session_ended()
    await eventually(lambda: library.trims > 1)
    assert library.trims == 2
    trimming.session_ended()
    trimming.stop()
    await asyncio.sleep(0)
    assert library.trims == 2


async def test_what_was_freed_leaves_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes are those of transfers; every second block stays, so that no end of the heap could fall off by itself."""
    monkeypatch.setattr(freed_memory, "_TRIM_SECONDS", 0.01)
    if not hasattr(ctypes.CDLL(None), "malloc_trim"):
        pytest.skip("the C library is not glibc")
    freed_memory.keep_freed_memory()
    blocks = [bytearray(b"x" * (256 << 10)) for _ in range(256)]
    kept = blocks[::2]
    del blocks
    before = _resident_bytes()
    trimming = Trimming()
    trimming.session_ended()
    await eventually(lambda: before - _resident_bytes() > 16 << 20, what="a smaller process")
    assert len(kept) == 128


def _resident_bytes() -> int:
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * 4096


class Cycle:
    def __init__(self) -> None:
        self.itself = self


def test_cycles_are_found_though_rarely() -> None:
    thresholds = gc.get_threshold()
    try:
        freed_memory.look_rarely_for_cycles()
        lost = weakref.ref(Cycle())
        young: list[list[int]] = [[] for _ in range(thresholds[0] * 2)]
        assert lost() is not None, "a few commands under way set nothing off"
        young += [[] for _ in range(10_000)]
        assert lost() is None
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()
