"""One zero-configuration array in a process of its own, and what every test wants to know of it."""

import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from initiator_shim.initiator_transport import DEFAULT_ISID, IscsiSession
from scripts.failover_drill.processes import ChildProcess
from tests.eventually import eventually

READY_SECONDS = 20.0
STOP_SECONDS = 2.0
"""What a signal may take to end an array, whatever it is doing."""
HOST = "iqn.2026-11.org.example:host"


@dataclass
class ArrayProcess:
    """A running array and the URLs that it printed."""

    process: ChildProcess
    urls: list[str]

    @classmethod
    async def start(cls, directory: Path, *words: str, name: str = "array") -> "ArrayProcess":
        process = await ChildProcess.start(name, [sys.executable, "-m", "target", *words], directory)
        try:
            return cls(process, await process.until_ready(READY_SECONDS))
        except BaseException:
            await process.kill()
            raise

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the first portal."""
        parts = urlsplit(self.urls[0])
        assert parts.hostname is not None and parts.port is not None
        return parts.hostname, parts.port

    @property
    def iqn(self) -> str:
        return urlsplit(self.urls[0]).path.split("/")[1]

    @property
    def log(self) -> str:
        """What it wrote to standard error so far."""
        return self.process.log.read_text(errors="replace")

    def log_of(self, port: int) -> list[str]:
        """The log's lines about the connection from this local port, but for its regular beginning and end."""
        about = re.compile(rf" (INFO|WARNING|ERROR|CRITICAL) \S+ 127\.0\.0\.1:{port}\b")
        regular = (": logged in", ": connection closed")
        return [line for line in self.log.splitlines() if about.search(line) and not any(w in line for w in regular)]

    async def connect(self, name: str = HOST, isid: bytes = DEFAULT_ISID) -> IscsiSession:
        """A session that has heard of the power on already."""
        session = await IscsiSession.connect(*self.address, self.iqn, name, isid)
        await session.execute(0, bytes(6))
        return session

    async def assert_serving(self) -> None:
        """A new initiator logs in and gets a GOOD status."""
        session = await self.connect("iqn.2026-11.org.example:healthy", bytes.fromhex("00023d0000fe"))
        assert (await session.execute(0, bytes(6))).status == 0
        await session.logout()

    async def end_by(self, number: signal.Signals) -> float:
        """Send the signal; the seconds until the process is gone. Its status must be 0, its log free of tracebacks."""
        started = time.monotonic()
        os.kill(self.process.pid, number)
        await eventually(lambda: not self.process.running, within=10, what=f"the array's end by {number.name}")
        seconds = time.monotonic() - started
        assert self.process.exit_status == 0, self.log
        assert "Traceback" not in self.log, self.log
        return seconds


@asynccontextmanager
async def running_array(directory: Path, *words: str, name: str = "array") -> AsyncIterator[ArrayProcess]:
    """An array for a ``with`` block; at its end a SIGTERM must do, and the log must show no traceback."""
    array = await ArrayProcess.start(directory, *(words or ("--portal", "127.0.0.1:0", "--volume", "64MiB")), name=name)
    try:
        yield array
        if array.process.running:
            await array.end_by(signal.SIGTERM)
    finally:
        await array.process.end()
