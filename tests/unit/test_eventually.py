"""Polling in bounded time."""

import asyncio

import pytest

from tests.eventually import eventually


async def test_returns_the_first_truthy_value() -> None:
    values = iter([0, None, 7, 8])
    assert await eventually(lambda: next(values)) == 7


async def test_awaits_a_coroutine_condition() -> None:
    done = asyncio.Event()
    asyncio.get_running_loop().call_soon(done.set)

    async def condition() -> bool:
        return done.is_set()

    assert await eventually(condition) is True


async def test_gives_up_and_names_the_condition() -> None:
    with pytest.raises(AssertionError, match=r"not within 0\.05 s: the moon; last value 0"):
        await eventually(lambda: 0, within=0.05, what="the moon")
