"""Child processes: started with their output in hand, ended by process id, and never left behind."""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from storage_model.errors import PairvolError

ROOT = Path(__file__).resolve().parents[2]
_PR_SET_PDEATHSIG = 1
_LINE_LIMIT = 65536


class ProcessFailed(PairvolError):
    """A child did not come up, or ended when it should not have."""


def die_with_parent() -> None:
    """In the child, before exec: Linux ends it when the conductor is killed in a way that lets it clean up nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class ChildProcess:
    """One child. Its standard error goes to ``<log_directory>/<name>.log``, its standard output to whoever reads it."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.log = log
        self._process = process
        self._drain: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, name: str, command: Sequence[str], log_directory: Path) -> "ChildProcess":
        """Run ``command`` from the project's root, in a session of its own: a Ctrl-C is the conductor's to handle."""
        log = log_directory / f"{name}.log"
        with log.open("ab") as log_file:
            process = await asyncio.create_subprocess_exec(
                *command,
                cwd=ROOT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log_file,
                start_new_session=True,
                preexec_fn=die_with_parent,
                limit=_LINE_LIMIT,
            )
        return cls(name, process, log)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.returncode is None

    @property
    def exit_status(self) -> int | None:
        return self._process.returncode

    async def read_line(self) -> bytes:
        """The next line of standard output, b"" at its end."""
        assert self._process.stdout is not None
        return await self._process.stdout.readline()

    async def write_line(self, line: bytes) -> None:
        """Raises ProcessFailed when nobody reads any more."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line)
            await self._process.stdin.drain()
        except (ConnectionError, RuntimeError) as error:
            raise ProcessFailed(f"{self.name} no longer listens: {error}") from None

    async def until_ready(self, deadline: float) -> list[str]:
        """The lines before ``ready``; from then on the output goes to the log. Raises ProcessFailed."""
        lines: list[str] = []
        try:
            async with asyncio.timeout(deadline):
                while (line := (await self.read_line()).decode().strip()) != "ready":
                    if not line and not await self._still_running():
                        raise ProcessFailed(f"{self.name} ended before it was ready:\n{self.log_tail()}")
                    lines.append(line)
        except TimeoutError:
            raise ProcessFailed(f"{self.name} was not ready within {deadline:g} s:\n{self.log_tail()}") from None
        self._drain = asyncio.create_task(self._drain_output())
        return lines

    async def _still_running(self) -> bool:
        """At an empty line: end of output means that the process is ending."""
        assert self._process.stdout is not None
        if self._process.stdout.at_eof():
            await self._process.wait()
            return False
        return True

    async def _drain_output(self) -> None:
        with self.log.open("ab", buffering=0) as log_file:
            while line := await self.read_line():
                log_file.write(line)

    def log_tail(self, lines: int = 12) -> str:
        """The end of what it wrote to standard error, indented."""
        with contextlib.suppress(OSError):
            tail = self.log.read_text(errors="replace").splitlines()[-lines:]
            return "\n".join(f"    {line}" for line in tail)
        return ""

    def send_signal(self, number: signal.Signals) -> None:
        """One that has ended is left alone."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def kill(self) -> None:
        """kill -9, and wait until it is gone: the failure that a host or an array may suffer."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._finish()

    async def end(self, grace: float = 3.0) -> None:
        """SIGTERM, and SIGKILL for one that does not obey within ``grace`` seconds."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            try:
                async with asyncio.timeout(grace):
                    await self._process.wait()
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()
        await self._finish()

    async def _finish(self) -> None:
        await self._process.wait()
        if self._drain is not None:
            self._drain.cancel()
            await asyncio.gather(self._drain, return_exceptions=True)


async def end_all(children: Iterable[ChildProcess]) -> None:
    """End them together, whatever happens to one of them."""
    await asyncio.gather(*(child.end() for child in children), return_exceptions=True)
