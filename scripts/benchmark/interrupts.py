"""Ctrl-C and SIGTERM of a command that measures: KeyboardInterrupt, wherever the signal meets the interpreter."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = signal.SIGINT, signal.SIGTERM
_came: list[int] = []
"""Those that came: one may come where it can raise nothing, as in the end of an object or at a fork."""


@contextmanager
def as_keyboard_interrupts() -> Iterator[None]:
    """The first of them is ignored in a shell's background else."""
    _came.clear()
    before = [(number, signal.signal(number, _interrupt)) for number in _SIGNALS]
    tell, sys.unraisablehook = sys.unraisablehook, _tell_of_unraisable
    try:
        yield
    finally:
        sys.unraisablehook = tell
        for number, handler in before:
            signal.signal(number, handler)


def check() -> None:
    """Raises KeyboardInterrupt when one came that could not."""
    if _came:
        raise KeyboardInterrupt


def _interrupt(number: int, frame: FrameType | None) -> None:
    _came.append(number)
    raise KeyboardInterrupt


def _tell_of_unraisable(what: "sys.UnraisableHookArgs") -> None:
    if not isinstance(what.exc_value, KeyboardInterrupt):
        sys.__unraisablehook__(what)
