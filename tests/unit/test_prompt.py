"""A future that wakes, without a Task, whoever runs without one."""

import asyncio

import pytest

from target.eager import Prompt


async def wait(prompt: Prompt[int]) -> int:
    return await prompt + 1


async def test_who_waits_goes_on_within_the_answer() -> None:
    prompt: Prompt[int] = Prompt()
    coroutine = wait(prompt)
    assert coroutine.send(None) is prompt
    ended: list[int] = []

    def resume() -> None:
        with pytest.raises(StopIteration) as end:
            coroutine.send(None)
        ended.append(end.value.value)

    prompt.resume = resume
    prompt.answer(41)
    assert ended == [42]


async def test_failure_is_told_in_the_next_turn_of_the_loop() -> None:
    prompt: Prompt[int] = Prompt()
    coroutine = wait(prompt)
    coroutine.send(None)
    resumed = asyncio.Event()
    prompt.resume = resumed.set
    prompt.fail(ValueError("down"))
    assert not resumed.is_set(), "whoever fails it is in the middle of something"
    await asyncio.wait_for(resumed.wait(), 5)
    with pytest.raises(ValueError, match="down"):
        coroutine.send(None)


async def test_to_a_task_it_is_a_future() -> None:
    answered: Prompt[int] = Prompt()
    failed: Prompt[int] = Prompt()
    tasks = [asyncio.create_task(wait(prompt)) for prompt in (answered, failed)]
    await asyncio.sleep(0)
    answered.answer(1)
    failed.fail(ValueError("down"))
    first, second = await asyncio.gather(*tasks, return_exceptions=True)
    assert first == 2 and isinstance(second, ValueError)
