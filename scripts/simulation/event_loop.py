"""An event loop whose clock is virtual: it jumps to the next timer when nothing is ready, and never waits.

Whatever runs belongs to a :class:`Process` by its context, so that a process can be stopped as by SIGSTOP and killed as
by SIGKILL: its callbacks are held or dropped, whoever made them.
"""

import asyncio
import contextlib
import heapq
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextvars import Context, ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from scripts.simulation.network import Machine

T = TypeVar("T")

PROCESS: ContextVar["Process | None"] = ContextVar("PROCESS", default=None)
_CLOSING_TRIES = 8
_PRUNED_EVERY = 128
_HANDLES_MAX = 400_000
"""Of one run: more is a loop without end."""


class Stuck(Exception):
    """Nothing is left to run, or the run does not come to an end."""


class Process:
    """What a kill ends at once. ``context`` is that of everything it runs."""

    def __init__(self, name: str, machine: "Machine", loop: "VirtualLoop") -> None:
        self.name = name
        self.machine = machine
        self.alive = True
        self.paused = False
        self._held: deque[asyncio.Handle] = deque()
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._loop = loop
        self.context = Context()
        self.context.run(PROCESS.set, self)
        machine.processes.append(self)

    def start(self, coroutine: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """A task of this process."""
        return self._loop.create_task(coroutine, context=self.context)

    def keep(self, task: "asyncio.Task[Any]") -> None:
        """Called by the loop for each new task."""
        self._tasks[task] = None
        if len(self._tasks) % _PRUNED_EVERY == 0:
            self._tasks = {task: None for task in self._tasks if not task.done()}

    def hold(self, handle: asyncio.Handle) -> None:
        """A callback that is due while the process does not run."""
        if self.alive:
            self._held.append(handle)

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        """Everything that came due meanwhile is due now."""
        self.paused = False
        self._loop.add_ready(self._held)
        self._held.clear()

    def kill(self) -> None:
        """Nothing of it runs any more. Its coroutines are closed here, in order, and not whenever memory is freed."""
        self.alive = False
        self._held.clear()
        while self._tasks:  # a ``finally`` may begin another one
            task = next(iter(self._tasks))
            del self._tasks[task]
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                self.context.copy().run(_close, task.get_coro())
        self.machine.processes.remove(self)


def _close(coroutine: Any) -> None:
    for _ in range(_CLOSING_TRIES):  # one that waits in a ``finally`` ignores the first ones
        with contextlib.suppress(BaseException):
            coroutine.close()
            return


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs callbacks in the order in which they came due; no threads, no I/O, no wall clock."""

    def __init__(self, connect: Callable[..., Any], listen: Callable[..., Any]) -> None:
        super().__init__()
        self._now = 0.0
        self._queue: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._numbers = 0
        self._connect = connect
        self._listen = listen
        self.handled = 0
        """Callbacks that were run."""

    def time(self) -> float:
        """Virtual seconds since the start."""
        return self._now

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> asyncio.Handle:  # type: ignore[override]
        handle = asyncio.Handle(callback, args, self, context)
        self._queue.append(handle)
        return handle

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self._numbers += 1
        heapq.heappush(self._timers, (when, self._numbers, timer))
        return timer

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It is left where it is until its time."""

    def create_task(
        self,
        coro: Coroutine[Any, Any, T] | Generator[Any, None, T],
        *,
        name: Any = None,
        context: Context | None = None,
    ) -> "asyncio.Task[T]":
        task: asyncio.Task[T] = asyncio.Task(coro, loop=self, name="simulated", context=context)
        process = PROCESS.get() if context is None else context.get(PROCESS)
        if process is not None:
            process.keep(task)
        return task

    @contextlib.contextmanager
    def as_running(self) -> Iterator[None]:
        """For what is ended when the loop no longer runs: what looks for a loop there gets no real one, left open."""
        asyncio._set_running_loop(self)
        try:
            yield
        finally:
            asyncio._set_running_loop(None)

    def add_ready(self, handles: "deque[asyncio.Handle]") -> None:
        self._queue.extend(handles)

    def _run_once(self) -> None:
        queue, timers = self._queue, self._timers
        if not queue:
            while timers and timers[0][2].cancelled():
                heapq.heappop(timers)
            if not timers:
                raise Stuck("nothing is left to wait for")
            self._now = max(self._now, timers[0][0])
            while timers and timers[0][0] <= self._now:
                queue.append(heapq.heappop(timers)[2])
        for _ in range(len(queue)):
            handle = queue.popleft()
            if handle.cancelled():
                continue
            process: Process | None = handle._context.get(PROCESS)  # type: ignore[attr-defined]
            if process is not None and (process.paused or not process.alive):
                process.hold(handle)
                continue
            self.handled += 1
            handle._run()
        if self.handled > _HANDLES_MAX:
            raise Stuck(f"more than {_HANDLES_MAX} callbacks")

    async def create_connection(  # type: ignore[override]
        self, protocol_factory: Callable[[], asyncio.BaseProtocol], host: str, port: int, **_: Any
    ) -> Any:
        return await self._connect(protocol_factory, host, port)

    async def create_server(  # type: ignore[override]
        self, protocol_factory: Callable[[], asyncio.BaseProtocol], host: str, port: int, **_: Any
    ) -> Any:
        return self._listen(protocol_factory, host, port)

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:  # type: ignore[override]
        raise AssertionError("a simulated process has no threads")
