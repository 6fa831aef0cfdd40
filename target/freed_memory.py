"""What the C library does with freed memory: keep it for the next transfers, give it back when sessions end. [IO]

Every read and write of 256 KiB needs a buffer. By glibc's own rules most of these are mapped, cleared page by page and
given back at once, which took a fifth of an array's CPU time. Other C libraries are left alone.

Python frees what nobody refers to by itself, and looks for cycles besides.
"""

import asyncio
import ctypes
import gc
from collections.abc import Callable
from functools import cache
from typing import Any

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_KEPT_BYTES = 64 << 20
_MAPPED_BYTES = 4 << 20  # what is larger goes back at once when it is freed
_TRIM_SECONDS = 1.0
_YOUNG_OBJECTS = 5_000
"""So many objects more than before, and Python looks for cycles among them. By its own rule (700) a few dozen commands
that wait for another array set it off again and again, which took a fifth of the time of a mirrored write. Not more: a
TLS connection that was refused is such a cycle, of 50 objects and 256 KiB.
"""


@cache
def _libc() -> Any:
    return ctypes.CDLL(None)


def keep_freed_memory() -> None:
    """To be called once, at the start."""
    mallopt: Callable[[int, int], int] | None = getattr(_libc(), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)


def look_rarely_for_cycles() -> None:
    """To be called once, when the array serves: what there is by then stays, and is not looked through again."""
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, 20, 100)


class Trimming:
    """Gives freed memory back a second after the end of a session, once for all that end until then."""

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None

    def session_ended(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_TRIM_SECONDS, self._trim)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _trim(self) -> None:
        self._timer = None
        trim: Callable[[int], int] | None = getattr(_libc(), "malloc_trim", None)
        if trim is not None:
            trim(0)
