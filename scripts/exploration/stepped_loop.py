"""An event loop without a selector and without a clock: it runs what is ready, in order, until nothing is.

One loop is one process of the system. Everything that takes time in the real one (a medium, a message, a timer) is a
future of the machine around the loop, which the explorer resolves when it pleases; so the same inputs always make the
same run, and a state can be reached again by repeating them.
"""

import asyncio
import weakref
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any

TURNS_MAX = 10_000
"""Of one run: a machine that never comes to rest is an error of its own."""


class Restless(AssertionError):
    """The machine does not come to rest."""


class SteppedLoop(asyncio.AbstractEventLoop):
    """What asyncio's futures, tasks and locks need of a loop; ``tasks`` are those that live, the oldest first."""

    @classmethod
    def make(cls) -> "SteppedLoop":
        """Of all that a loop may be asked, only what is below is asked of this one."""
        return cls()

    def __init__(self) -> None:
        self.now = 0.0
        self.errors: list[str] = []
        self.timers: list[asyncio.TimerHandle] = []
        self.ready: deque[asyncio.Handle] = deque()
        self._tasks: dict[int, weakref.ref[asyncio.Task[Any]]] = {}
        self._task_number = 0

    def run_until_quiet(self) -> None:
        """Until nothing is ready any more."""
        self.turn(TURNS_MAX)
        if self.ready:
            raise Restless(f"{TURNS_MAX} turns of the loop were not enough")

    def turn(self, turns: int) -> None:
        """So many turns, if there is as much to do: in each, what was ready when it began. Then asyncio would look for
        new input.
        """
        events._set_running_loop(self)
        try:
            for _ in range(turns):
                if not self.ready:
                    return
                for _ in range(len(self.ready)):
                    handle = self.ready.popleft()
                    if not handle.cancelled():
                        handle._run()
        finally:
            events._set_running_loop(None)

    @property
    def tasks(self) -> list[asyncio.Task[Any]]:
        living = {}
        for number, reference in self._tasks.items():
            task = reference()
            if task is not None and not task.done():
                living[number] = reference
        self._tasks = living
        return [task for reference in living.values() if (task := reference()) is not None]

    def abandon(self) -> None:
        """The machine is not needed any more: its tasks end, and what they do meanwhile matters to nobody."""
        for task in self.tasks:
            task.cancel()
        self.run_until_quiet()
        assert not self.tasks, "a task survives its cancellation"

    # -------------------------------------------------------------------------------------- what asyncio asks of a loop

    def time(self) -> float:
        return self.now

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Coroutine[Any, Any, Any], **options: Any) -> asyncio.Task[Any]:  # type: ignore[override]
        task = asyncio.Task(coro, loop=self, name="task")
        self._task_number += 1
        self._tasks[self._task_number] = weakref.ref(task)
        return task

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self.ready.append(handle)
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(self.now + delay, callback, args, self, context)
        self.timers.append(handle)
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_later(when - self.now, callback, *args, context=context)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        self.timers = [other for other in self.timers if other is not handle]

    def fire_timer(self) -> None:
        """The oldest timer is due."""
        handle = self.timers.pop(0)
        self.now = max(self.now, handle.when())
        self.ready.append(handle)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.errors.append(f"{context.get('message')}: {context.get('exception')!r}")
