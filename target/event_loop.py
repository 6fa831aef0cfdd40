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
LONG_PATIENCE_SECONDS: Final = 200e-6
"""After a wait that ended soon after the look had: so long take the other array of a pair and the way there. Mirrored
4 KiB writes at queue depth 1 took half the time with it.
"""
_SOON_SECONDS: Final = 2 * LONG_PATIENCE_SECONDS  # with what it took to sleep and to be woken
_LOST_SECONDS: Final = 500e-6
_CREDIT: Final = 16
_GAIN: Final = 4
_PROBE_EVERY: Final = 32


class PatientSelector(selectors.EpollSelector):
    """Looks for ``PATIENCE_SECONDS`` before it blocks, or for ``LONG_PATIENCE_SECONDS``, as long as that pays.

    An event that came meanwhile earns credit, a look in vain costs some, and all of it and more goes when another
    process took the processor. Without credit it sleeps, but for one wait in 32, and earns some by sleeps that end so
    soon that the long look might have been enough: an array with little to do, or on a machine that has much to do,
    sleeps as any other. Between two looks whoever else is ready has the processor: the initiator may share it with us.
    """

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        super().__init__()
        self._clock = clock
        self._patience = PATIENCE_SECONDS
        self._credit = 0
        self._waits = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """As ``Selector.select``."""
        if timeout is not None and timeout <= 0:
            return super().select(0)
        self._waits += 1
        begun = self._clock()
        if self._credit <= 0 and self._waits % _PROBE_EVERY:
            return self._sleep(timeout, begun)
        if ready := super().select(0):
            return ready
        passed = 0.0
        while not ready and passed <= self._patience:
            os.sched_yield()
            ready = super().select(0)
            passed = self._clock() - begun
        if passed >= _LOST_SECONDS:  # who sleeps is woken sooner than one who lets others have their whole slice
            self._credit = -_CREDIT
        elif ready:
            self._credit = min(self._credit + _GAIN, _CREDIT)
        else:  # a long look in vain is dear: where events come a little later than that, few waits may try it
            cost = 1 if self._patience <= PATIENCE_SECONDS else _GAIN
            self._credit = max(self._credit - cost, -_CREDIT)
        if ready:
            return ready
        return self._sleep(None if timeout is None else max(timeout - passed, 0), begun)

    def _sleep(self, timeout: float | None, begun: float) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(timeout)
        soon = bool(ready) and self._clock() - begun <= _SOON_SECONDS
        self._patience = LONG_PATIENCE_SECONDS if soon else PATIENCE_SECONDS
        if soon and self._credit <= 0:
            self._credit += 1
        return ready


def new_event_loop() -> asyncio.AbstractEventLoop:
    """For ``asyncio.Runner``."""
    return asyncio.SelectorEventLoop(PatientSelector())
