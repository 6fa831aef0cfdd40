"""Searches in processes of their own, as many at a time as there are processors."""

import logging
import math
import multiprocessing
import queue
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing.context import SpawnProcess

from scripts.exploration.scope import Scope
from scripts.exploration.search import Limits, Outcome, Search

_PROGRESS_SECONDS = 10.0
_POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Line:
    """Progress of one search, in words."""

    text: str


class WorkerDied(Exception):
    """A search ended without an outcome."""


def searched(scope: Scope, limits: Limits, tell: Callable[[str], None] = lambda text: None) -> Outcome:
    """In this process."""
    told_at = 0.0

    def progress(search: Search) -> None:
        nonlocal told_at
        if search.seconds - told_at >= _PROGRESS_SECONDS:
            told_at = search.seconds
            tell(
                f"{scope.name}: {search.states:,} states, {search.states / search.seconds:,.0f}/s,"
                f" depth {search.depth}, frontier {search.frontier:,}"
            )

    logging.disable(logging.CRITICAL)  # what the arrays have to say of link losses would fill the disk
    try:
        return Search(scope, limits, progress).run()
    finally:
        logging.disable(logging.NOTSET)


def _work(scope: Scope, limits: Limits, results: "multiprocessing.Queue[Line | Outcome]") -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us
    results.put(Line(f"{scope.name}: {scope.about}; {scope.bound}"))
    results.put(searched(scope, limits, lambda text: results.put(Line(text))))


def search_all(
    scopes: Sequence[Scope],
    limits: Limits,
    processes: int,
    tell: Callable[[str], None],
    found: Callable[[Outcome], None],
) -> None:
    """``limits.seconds``, if any, is for all of them together; what one scope leaves over is for those after it.

    Calls ``found`` with each outcome. Raises WorkerDied; leaves no process, whatever it ends with.
    """
    spawning = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[Line | Outcome] = spawning.Queue()
    deadline = time.monotonic() + limits.seconds if limits.seconds else math.inf
    waiting, running = list(scopes), dict[str, SpawnProcess]()
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                scope = waiting.pop(0)
                share = (deadline - time.monotonic()) * processes / (len(waiting) + len(running) + 1)
                seconds = max(1.0, min(share, deadline - time.monotonic()))
                own = replace(limits, seconds=seconds) if limits.seconds else limits
                running[scope.name] = spawning.Process(target=_work, args=(scope, own, results), daemon=True)
                running[scope.name].start()
            message = _next(results, running)
            if isinstance(message, Line):
                tell(message.text)
            elif message is not None:
                running.pop(message.scope.name).join()
                found(message)
    finally:
        for process in running.values():
            process.terminate()
            process.join()


def _next(results: "multiprocessing.Queue[Line | Outcome]", running: dict[str, SpawnProcess]) -> Line | Outcome | None:
    dead = [name for name, process in running.items() if not process.is_alive()]
    try:
        return results.get(timeout=_POLL_SECONDS)
    except queue.Empty:
        if dead:
            raise WorkerDied(f"the search of scope {dead[0]} ended without a result") from None
        return None
