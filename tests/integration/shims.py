"""A shim in a process of its own, and hosts that log in through it."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from initiator_shim.initiator_transport import IscsiSession
from scripts.failover_drill.processes import ChildProcess

RESERVE_6, RELEASE_6, RESERVE_10 = b"\x16" + bytes(5), b"\x17" + bytes(5), b"\x56" + bytes(9)
TEST_UNIT_READY = bytes(6)
GOOD, CHECK_CONDITION, RESERVATION_CONFLICT = 0x00, 0x02, 0x18
UNIT_ATTENTION = 6
PLAIN_TARGET = "iqn.2026-11.org.pairvol:plain"


@asynccontextmanager
async def plain_array(directory: Path) -> AsyncIterator[int]:
    """An array without pairs; its port."""
    arguments = ["--portal", "127.0.0.1:0", "--volume", "64MiB", "--volume", "16MiB,block=4096", "--iqn", PLAIN_TARGET]
    process = await ChildProcess.start("array", [sys.executable, "-m", "target", *arguments], directory)
    try:
        (first, *_) = await process.until_ready(20)
        yield int(first.split("/")[2].rpartition(":")[2])
    finally:
        await process.end()


class ShimUnderTest:
    """``pairvol-shim`` in front of the array at ``array_port``; it listens on a port of its own choice."""

    def __init__(self, process: ChildProcess, urls: list[str]) -> None:
        self.process = process
        self.urls = urls
        self.port = int(urls[0].split("/")[2].rpartition(":")[2])
        self.target_name = urls[0].split("/")[3]

    async def host(self, name: str = "host", number: int = 1, *, digests: bool = False) -> IscsiSession:
        """A host's session through the shim, unit attentions cleared; ``number`` makes it another initiator port."""
        initiator_name = f"iqn.2026-11.org.example:{name}"
        isid = b"\x80" + number.to_bytes(5)
        session = await IscsiSession.connect(
            "127.0.0.1", self.port, self.target_name, initiator_name, isid, 5.0, digests=digests
        )
        for lun in range(len(self.urls)):
            while (outcome := await session.execute(lun, TEST_UNIT_READY)).status == CHECK_CONDITION:
                if outcome.sense[2] & 0xF != UNIT_ATTENTION:
                    break
        return session

    @property
    def log(self) -> str:
        return self.process.log.read_text()


@asynccontextmanager
async def shim(directory: Path, array_port: int, *options: str, name: str = "shim") -> AsyncIterator[ShimUnderTest]:
    arguments = ["--listen", "127.0.0.1:0", "--array", f"127.0.0.1:{array_port}", "--name", name, *options]
    process = await ChildProcess.start(name, [sys.executable, "-m", "initiator_shim", *arguments], directory)
    try:
        yield ShimUnderTest(process, await process.until_ready(20))
    finally:
        await process.end(grace=8.0)
