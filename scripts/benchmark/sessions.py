"""Measures of one array alone, without a peer: a storm of logins, idle sessions, the start with many volumes."""

import contextlib
import resource
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from scripts.benchmark import arrays
from scripts.benchmark.own_login import LoginTexts, Unit, log_in, storm
from scripts.benchmark.samples import Value
from scripts.benchmark.servers import BenchmarkError, Server, resident_bytes

STORM = 1000
_WARM_SESSIONS = 50
_SESSIONS_OPTION = "--max-sessions"
_WANTED_SESSIONS = STORM + 2 * _WARM_SESSIONS
_LEAVING = 20
"""Room for sessions that we have left and the array has not done away with yet."""
_VOLUMES = 1000


@dataclass(frozen=True, slots=True)
class SingleMeasure:
    """``take(directory, root, repetitions)`` starts what it needs and ends it. ``quick``: part of a short run."""

    name: str
    take: Callable[[Path, Path, int], Value]
    quick: bool = True


def login_storm(directory: Path, root: Path, repetitions: int) -> Value:
    """Logins per second of 1,000 hosts that come at once, 16 at a time, and stay when the array takes so many."""
    figures = []
    with _array_for_sessions(directory, root) as (server, limit):
        for number in range(repetitions):
            seconds, held = storm(Unit.of(server.urls[0]), STORM, min(STORM, limit - _LEAVING), number * STORM)
            figures.append(STORM / seconds)
            _close(held)
            _wait_for_quiet(server)
    stays = "they stay" if limit >= STORM + _LEAVING else f"each leaves again, {limit - _LEAVING} at once"
    return Value(tuple(figures), "logins/s", stays)


def idle_sessions(directory: Path, root: Path, repetitions: int) -> Value:
    """KiB of resident memory that each further idle session takes, after 50 of them."""
    figures = []
    for _ in range(repetitions):  # a fresh array each: memory that was given back may be taken again unseen
        with _array_for_sessions(directory, root) as (server, limit), contextlib.ExitStack() as cleanup:
            unit, count = Unit.of(server.urls[0]), min(STORM, limit - _WARM_SESSIONS)
            _, warm = storm(unit, _WARM_SESSIONS, limit)
            cleanup.callback(_close, warm)
            before = resident_bytes(server.pid)
            _, idle = storm(unit, count, limit, _WARM_SESSIONS)
            cleanup.callback(_close, idle)
            figures.append((resident_bytes(server.pid) - before) / count / 1024)
    return Value(tuple(figures), "KiB", f"{count} sessions")


def start_of_many_volumes(directory: Path, root: Path, repetitions: int) -> Value:
    """Seconds from the command to ``ready``, of an array with 1,000 volumes that exist, in its state directory."""
    state = directory / "many"
    state.mkdir(exist_ok=True)
    configuration = directory / "many.toml"
    lines = ["[array]", f'state_dir = "{state}"']
    for lun in range(_VOLUMES):
        lines += ["[[volumes]]", f'name = "volume{lun}"', f"lun = {lun}", 'size = "64MiB"', f'file = "{lun}.img"']
    configuration.write_text("\n".join(lines))
    figures = []
    for _ in range(1 + repetitions):
        started = time.perf_counter()
        with arrays.array(directory, root, ["--config", str(configuration)], "many-volumes"):
            figures.append(time.perf_counter() - started)
    return Value(tuple(figures[1:]), "s", f"when it makes the files: {figures[0]:.2f} s")


SINGLE_MEASURES = (
    SingleMeasure("login-storm", login_storm),
    SingleMeasure("idle-sessions", idle_sessions),
    SingleMeasure("start-1000-volumes", start_of_many_volumes),
)


@contextlib.contextmanager
def _array_for_sessions(directory: Path, root: Path) -> Iterator[tuple[Server, int]]:
    """An array of one small volume in memory, and how many sessions it takes."""
    _raise_descriptor_limit()
    words = _words(root)
    limit = _session_limit(directory, root)
    with arrays.array(directory, root, words, "sessions") as server:
        yield server, limit


@cache
def _words(root: Path) -> tuple[str, ...]:
    more = (_SESSIONS_OPTION, str(_WANTED_SESSIONS)) if arrays.offers_option(root, _SESSIONS_OPTION) else ()
    return "--volume", "1MiB", *more


@cache
def _session_limit(directory: Path, root: Path) -> int:
    """By trying, with an array of its own: how many sessions are let in, as far as we need them."""
    with arrays.array(directory, root, _words(root), "limit") as server, contextlib.ExitStack() as cleanup:
        unit = Unit.of(server.urls[0])
        texts = LoginTexts(unit.target)
        for number in range(_WANTED_SESSIONS):
            try:
                cleanup.callback(log_in(unit, texts, number)[0].close)
            except (BenchmarkError, OSError):
                return number
    return _WANTED_SESSIONS


def _raise_descriptor_limit() -> None:
    """One descriptor per session, in the array as well, which inherits the limit; 1,024 are usual."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = STORM + 512
    if soft < wanted:
        if hard < wanted:
            raise BenchmarkError(f"a process may open only {hard} files here (ulimit -n)")
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _close(connections: list[socket.socket]) -> None:
    for connection in connections:
        connection.close()


def _wait_for_quiet(server: Server) -> None:
    """Until the array has done away with the sessions that were left: it uses no CPU time any more."""
    end = time.monotonic() + 10
    before = server.cpu_seconds()
    while time.monotonic() < end:
        time.sleep(0.1)
        now = server.cpu_seconds()
        if now - before < 0.005:
            return
        before = now
