"""Server processes under measurement: started, waited for, ended, and how much CPU time each has used."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scripts.failover_drill.processes import die_with_parent
from storage_model.errors import PairvolError

READY_SECONDS = 20.0
END_SECONDS = 5.0
_POLL_SECONDS = 0.01


class BenchmarkError(PairvolError):
    """A server or a client did not do what the measure needs."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server. ``urls`` has one per LUN.

    ``relay`` is the process id of a shim in front of it, or of the other array that has its S-VOLs.
    """

    name: str
    pid: int
    urls: tuple[str, ...]
    relay: int | None = None
    directory: Path = field(default_factory=Path)

    def cpu_seconds(self) -> float:
        return cpu_seconds(self.pid)

    def relay_cpu_seconds(self) -> float:
        return cpu_seconds(self.relay) if self.relay is not None else 0.0


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads of another process, those that have ended included, in nanosecond steps.

    /proc/PID/stat counts in steps of 10 ms. Every process has a CPU clock, whose number Linux makes of the process
    id (clock_getcpuclockid(3)); Python has only the one of its own process and of threads.
    """
    clock = (~pid << 3) | 2  # CPUCLOCK_SCHED
    try:
        return time.clock_gettime(clock)
    except OSError:
        raise BenchmarkError(f"process {pid} is gone") from None


def resident_bytes(pid: int) -> int:
    """VmRSS of another process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise BenchmarkError(f"process {pid} has no memory")


def free_port() -> int:
    """A port that was free a moment ago; who takes it must notice when it is not any more."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(
    command: Sequence[str],
    log: Path,
    *,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
    output: int | None = None,
    end: signal.Signals = signal.SIGTERM,
) -> Iterator["subprocess.Popen[bytes]"]:
    """The command as a process in a session of its own, until the block ends; then ``end``, and SIGKILL after 5 s."""
    with log.open("wb") as log_file:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output if output is not None else log_file,
            stderr=log_file,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(end)
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def wait_until(ready: Callable[[], bool], process: "subprocess.Popen[bytes]", name: str, log: Path) -> None:
    """Raises BenchmarkError with the end of the server's log when it is not ready in time."""
    end = time.monotonic() + READY_SECONDS
    while not ready():
        if process.poll() is not None or time.monotonic() > end:
            raise BenchmarkError(f"{name} did not come up: {tail(log)}")
        time.sleep(_POLL_SECONDS)


def tail(log: Path, lines: int = 5) -> str:
    """The last lines of a log as one line."""
    return " / ".join(log.read_text(errors="replace").splitlines()[-lines:]) or "it said nothing"


def python_command(module: str, *words: str) -> list[str]:
    return [sys.executable, "-m", module, *words]
