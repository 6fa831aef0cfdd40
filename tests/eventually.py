"""Waiting, in bounded time, for what cannot be awaited: another process's file, a port, the end of a child's child."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import TypeVar, overload

T = TypeVar("T")

_POLL_INTERVAL = 0.02


@overload
async def eventually(condition: Callable[[], Awaitable[T]], *, within: float = 10.0, what: str = "") -> T: ...
@overload
async def eventually(condition: Callable[[], T], *, within: float = 10.0, what: str = "") -> T: ...
async def eventually(condition: Callable[[], T | Awaitable[T]], *, within: float = 10.0, what: str = "") -> T:
    """Call ``condition`` until it is truthy, and return that value; fail after ``within`` seconds.

    An exception of ``condition`` ends the wait. ``what`` names the condition in the failure.
    """
    give_up_at = time.monotonic() + within
    while True:
        result = condition()
        value: T = await result if isawaitable(result) else result
        if value:
            return value
        assert time.monotonic() < give_up_at, f"not within {within} s: {what or condition}; last value {value!r}"
        await asyncio.sleep(_POLL_INTERVAL)
