"""The array's event loop: asyncio's, but for a moment's patience before it sleeps. [IO]"""

import asyncio
import os
import selectors
from collections.abc import Callable
from time import perf_counter
from typing import Final

PATIENCE_SECONDS: Final = 50e-6
"""How long the loop looks for the next event before it sleeps. To sleep and to be woken costs a virtual machine about
100 µs of latency, and more processor time than to look: 4 KiB reads at queue depth 1 took half the time with it, and
0.8 x the CPU time of the array.
"""
_LOST_SECONDS: Final = 500e-6
_CREDIT: Final = 16
_GAIN: Final = 4
_PROBE_EVERY: Final = 32


class PatientSelector(selectors.EpollSelector):
    """Looks for ``PATIENCE_SECONDS`` before it blocks, as long as that pays.

    An event that came meanwhile earns credit, a look in vain costs some, and all of it goes when another process took
    the processor: without credit only one wait in 32 tries again, so that an array with little to do, or on a machine
    that has much to do, sleeps as any other. Between two looks whoever else is ready has the processor: the initiator
    may share it with us.
    """

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        super().__init__()
        self._clock = clock
        self._credit = 0
        self._waits = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """As ``Selector.select``."""
        if timeout is not None and timeout <= 0:
            return super().select(0)
        self._waits += 1
        if not self._credit and self._waits % _PROBE_EVERY:
            return super().select(timeout)
        if ready := super().select(0):
            return ready
        begun = self._clock()
        passed = 0.0
        while not ready and passed <= PATIENCE_SECONDS:
            os.sched_yield()
            ready = super().select(0)
            passed = self._clock() - begun
        if passed >= _LOST_SECONDS:  # who sleeps is woken sooner than one who lets others have their whole slice
            self._credit = 0
        else:
            self._credit = min(self._credit + _GAIN, _CREDIT) if ready else max(self._credit - 1, 0)
        if ready:
            return ready
        return super().select(None if timeout is None else max(timeout - passed, 0))


def new_event_loop() -> asyncio.AbstractEventLoop:
    """For ``asyncio.Runner``."""
    return asyncio.SelectorEventLoop(PatientSelector())
