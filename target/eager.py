"""Runs a coroutine up to its first wait without a Task, and only the rest of it, if any, in one. [IO]

Most SCSI commands never wait; a Task each would cost as much as the command. Python 3.12's eager tasks do the same.
"""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Prompt(asyncio.Future[T]):
    """What a coroutine that runs without a Task may wait for at no more cost: it goes on within :meth:`answer`.

    A Task that is woken costs two turns of the loop and four callbacks, as much as the rest of a mirrored write. To
    everybody else this is a Future.
    """

    resume: Callable[[], None] | None = None
    """What goes on; called once, outside of any task."""

    def answer(self, result: T) -> None:
        """Called in a callback of the loop, with nothing half done: whoever waited runs now."""
        self.set_result(result)
        if self.resume is not None:
            self.resume()

    def fail(self, error: Exception) -> None:
        """Called anywhere: whoever waited runs in the next turn of the loop."""
        self.set_exception(error)
        self.exception()  # retrieved: whoever waits may have failed for a reason of its own
        if self.resume is not None:
            self.get_loop().call_soon(self.resume)


class _Rest(Generic[T]):
    """What is left of a coroutine that has yielded ``waits_for``."""

    def __init__(self, coroutine: Coroutine[Any, Any, T], waits_for: Any) -> None:
        self._coroutine = coroutine
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, T]:
        waits_for = self._waits_for
        while True:
            try:
                try:
                    sent = yield waits_for
                except GeneratorExit:
                    self._coroutine.close()
                    raise
                except BaseException as error:
                    waits_for = self._coroutine.throw(error)
                else:
                    waits_for = self._coroutine.send(sent)
            except StopIteration as end:
                result: T = end.value
                return result


async def _finish(rest: _Rest[T], done: Callable[[T], None]) -> None:
    done(await rest)


def start(coroutine: Coroutine[Any, Any, T], done: Callable[[T], None]) -> asyncio.Task[None] | None:
    """Calls ``done`` with the result, now if the coroutine does not wait; else answers the Task that will.

    Whatever the coroutine raises before its first wait is raised here, later it is the Task's exception.
    """
    try:
        waits_for = coroutine.send(None)
    except StopIteration as end:
        done(end.value)
        return None
    return go_on(coroutine, waits_for, done)


def go_on(coroutine: Coroutine[Any, Any, T], waits_for: Any, done: Callable[[T], None]) -> asyncio.Task[None]:
    """The Task for the rest of a coroutine that has yielded ``waits_for`` to ``send(None)``."""
    return asyncio.get_running_loop().create_task(_finish(_Rest(coroutine, waits_for), done))
