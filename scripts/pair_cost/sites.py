"""Two arrays on loopback, as processes, with one pair between them and one volume without a pair at the first."""

import asyncio
import os
import re
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from initiator_shim.initiator_transport import IscsiSession
from initiator_shim.pair_client import pair_control, report_pair_status
from scripts.benchmark.servers import BenchmarkError, free_port
from scripts.failover_drill.processes import ChildProcess
from storage_model.pair_state import PairState
from storage_model.spec.pair_cdb import PairControlOut, PairOption, PairOut, PairStatus, StatusFlag

PAIRED, SIMPLE = 0, 1
"""LUNs."""
_SERIALS = {"a": "30095", "b": "30096"}
_COPIED = re.compile(r"copied (\d+) regions, (\d+) bytes sent, (\d+) fetched, in ([\d.]+) s")
_POLL_SECONDS = 0.02
_START_SECONDS = 20.0


class Site:
    """One array and an operator's session with it."""

    def __init__(self, name: str, directory: Path, size_bytes: int, ports: dict[str, int], quorum: bool) -> None:
        self.name = name
        self.directory = directory
        self.state = directory / f"state-{name}"
        self.port = free_port()
        self.iqn = f"iqn.2026-11.org.pairvol:{name}"
        other = "b" if name == "a" else "a"
        self.config = directory / f"{name}.toml"
        self.config.write_text(f"""
[array]
iqn = "{self.iqn}"
serial = "{_SERIALS[name]}"
state_dir = "{self.state}"
portals = ["127.0.0.1:{self.port}"]
[remote_copy]
listen = "127.0.0.1:{ports[name]}"
peer = "127.0.0.1:{ports[other]}"
peer_serial = "{_SERIALS[other]}"
[[volumes]]
name = "paired"
lun = {PAIRED}
size = "{size_bytes}"
file = "paired.img"
quorum = {str(quorum).lower()}
[[volumes]]
name = "simple"
lun = {SIMPLE}
size = "{size_bytes}"
file = "simple.img"
[[pairs]]
name = "pair"
volume = "paired"
""")
        self.process: ChildProcess
        self.session: IscsiSession

    async def start(self) -> None:
        """Returns when it serves."""
        command = [sys.executable, "-m", "target", "--config", str(self.config)]
        self.process = await ChildProcess.start(f"array-{self.name}", command, self.directory)
        await self.process.until_ready(_START_SECONDS)
        self.session = await IscsiSession.connect(
            "127.0.0.1", self.port, self.iqn, "iqn.2026-11.org.pairvol:operator", bytes.fromhex("00023d000001")
        )

    async def stop(self) -> None:
        """Ends the session and the process."""
        if hasattr(self, "session"):
            self.session.close()
        if hasattr(self, "process"):
            await self.process.end()

    def cpu_seconds(self) -> float:
        """User and system time of the array so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def url(self, lun: int) -> str:
        return f"iscsi://127.0.0.1:{self.port}/{self.iqn}/{lun}"

    def file(self, lun: int) -> Path:
        return self.state / ("paired.img" if lun == PAIRED else "simple.img")

    def copies(self) -> list[tuple[int, int, float]]:
        """Of each copy that has ended, by the log: regions, bytes over the link, seconds."""
        said = _COPIED.findall(self.process.log.read_text())
        return [(int(regions), int(sent) + int(fetched), float(took)) for regions, sent, fetched, took in said]


class Sites:
    """``a`` is the P-VOL's array."""

    def __init__(self, directory: Path, size_bytes: int, *, quorum: bool) -> None:
        ports = {"a": free_port(), "b": free_port()}
        self.a, self.b = (Site(name, directory, size_bytes, ports, quorum) for name in "ab")

    async def status(self) -> PairStatus:
        return await report_pair_status(self.a.session, PAIRED, 10.0)

    async def control(self, action: PairOut, options: PairOption = PairOption.NONE) -> None:
        """One verb, at the first array."""
        await pair_control(self.a.session, PAIRED, PairControlOut(action, options, None, 0, 0), b"", 10.0)

    async def until(self, state: PairState, seconds: float = 600.0) -> float:
        """The seconds until the pair is in that state."""
        started = time.monotonic()
        while (status := await self.status()).state is not state:
            if time.monotonic() - started > seconds or (status.state is PairState.PSUE and state is PairState.PAIR):
                raise BenchmarkError(f"the pair is in {status.state.name}, not in {state.name}")
            await asyncio.sleep(_POLL_SECONDS)
        return time.monotonic() - started

    async def resync(self) -> tuple[int, int, float]:
        """Out of PSUS; regions, bytes over the link and seconds."""
        return await self.copy(PairOut.RESYNC)

    async def copy(self, action: PairOut) -> tuple[int, int, float]:
        """CREATE or RESYNC, to its end."""
        before = len(self.a.copies())
        await self.control(action)
        await self.until(PairState.PAIR)
        copies = self.a.copies()
        if len(copies) != before + 1:
            raise BenchmarkError("the array's log does not say what was copied")
        return copies[-1]


@asynccontextmanager
async def two_sites(directory: Path, size_bytes: int, *, quorum: bool = False) -> AsyncIterator[Sites]:
    """Started and linked; ended with the block."""
    directory.mkdir(parents=True, exist_ok=True)
    sites = Sites(directory, size_bytes, quorum=quorum)
    try:
        await sites.b.start()
        await sites.a.start()
        started = time.monotonic()
        while StatusFlag.LINK_UP not in (await sites.status()).flags:
            if time.monotonic() - started > _START_SECONDS:
                raise BenchmarkError("the link between the arrays does not come up")
            await asyncio.sleep(_POLL_SECONDS)
        yield sites
    finally:
        await sites.a.stop()
        await sites.b.stop()
