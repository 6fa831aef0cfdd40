"""The processes of both sites, each array with its shim, and the cable between the arrays."""

import asyncio
import resource
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from initiator_shim.pair_client import report_pair_status
from initiator_shim.session_errors import SessionError
from scripts.failover_drill.broker import free_port
from scripts.failover_drill.link_proxy import Cut, LinkProxy
from scripts.failover_drill.processes import ChildProcess, ProcessFailed
from scripts.simulation.arrays import IQN
from scripts.simulation.clients import Client
from scripts.torture_drill.volumes import SERIALS, SITES, VOLUMES, PairedVolume, other
from storage_model.errors import PairvolError
from storage_model.spec.pair_cdb import PairStatus, StatusFlag

ARRAY = (sys.executable, "-m", "target")
_SHIM = (sys.executable, "-m", "initiator_shim")
_START_SECONDS = 20.0
_STOP_SECONDS = 8.0
_POLL_SECONDS = 0.02
_STATUS_SECONDS = 5.0
_OPERATOR = "iqn.2026-11.org.pairvol:pairctl"

T = TypeVar("T")


class NotInTime(PairvolError):
    """What has to happen did not."""


async def until(condition: Callable[[], Awaitable[T]], seconds: float, what: str) -> T:
    """The first true value; an array that cannot be asked is asked again. Raises NotInTime."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    last: object = None
    while loop.time() < end:
        try:
            last = value = await condition()
            if value:
                return value
        except SessionError as error:
            last = error
        await asyncio.sleep(_POLL_SECONDS)
    raise NotInTime(f"not within {seconds:g} s: {what}; last: {last}")


class Site:
    """One array, its shim, and an operator's session with the array. Ports and state stay over restarts."""

    def __init__(self, name: str, directory: Path, program: Sequence[str]) -> None:
        self.name = name
        self.state = directory / f"state-{name}"
        self.array_port, self.shim_port = free_port(), free_port()
        self.array: ChildProcess | None = None
        self.shim: ChildProcess | None = None
        self.operator = Client(_OPERATOR, bytes((0x80, 0, 0, 0, 0, 1)), "127.0.0.1", self.array_port)
        self._directory = directory
        self._program = program
        self._config = directory / f"site-{name}.toml"

    def configure(self, listen: str, peer: str) -> None:
        """Write the configuration file."""
        text = f"""
[array]
iqn = "{IQN}"
serial = "{SERIALS[self.name]}"
state_dir = "{self.state}"
portals = ["127.0.0.1:{self.array_port}"]
[remote_copy]
listen = "{listen}"
peer = "{peer}"
peer_serial = "{SERIALS[other(self.name)]}"
"""
        for volume in VOLUMES:
            text += f"""
[[volumes]]
name = "{volume.name}"
lun = {volume.lun}
size = "{volume.size_bytes}"
file = "{volume.name}.img"
quorum = {str(volume.quorum).lower()}
[[pairs]]
name = "{volume.name}"
volume = "{volume.name}"
fence = "{volume.fence}"
copy_rate = "{volume.copy_rate}"
"""
        self._config.write_text(text)

    async def start_array(self) -> None:
        """Also after a crash, on the state that it left. Raises ProcessFailed."""
        command = [*self._program, "--config", str(self._config)]
        self.array = await self._start(f"array-{self.name}", command)

    async def start_shim(self) -> None:
        """Raises ProcessFailed."""
        listen, array = (f"127.0.0.1:{port}" for port in (self.shim_port, self.array_port))
        command = [*_SHIM, "--listen", listen, "--array", array, "--name", f"shim-{self.name}"]
        self.shim = await self._start(f"shim-{self.name}", command)

    async def _start(self, name: str, command: list[str]) -> ChildProcess:
        child = await ChildProcess.start(name, command, self._directory)
        try:
            await child.until_ready(_START_SECONDS)
        except BaseException:
            await child.kill()
            raise
        return child

    def children(self) -> list[ChildProcess]:
        return [child for child in (self.array, self.shim) if child is not None]

    async def stop(self) -> None:
        """Whatever state they are in."""
        with suppress(SessionError):
            self.operator.close()
        for child in self.children():
            if child.running:
                child.send_signal(signal.SIGCONT)
        for child in reversed(self.children()):
            await child.end(_STOP_SECONDS)

    async def status(self, volume: PairedVolume) -> PairStatus:
        """Raises SessionError."""
        return await report_pair_status(self.operator, volume.lun, _STATUS_SECONDS)

    def content(self, volume: PairedVolume) -> bytes:
        """The volume's file."""
        return (self.state / f"{volume.name}.img").read_bytes()

    def limit_files(self, size_bytes: int) -> None:
        """A write behind that fails with EFBIG; -1 takes the limit away. As a full disk, but of one process."""
        assert self.array is not None
        _, hard = resource.prlimit(self.array.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.array.pid, resource.RLIMIT_FSIZE, (size_bytes, hard))


class Stage:
    """Array A has the lower serial number, so that it dials array B, through ``cable``."""

    def __init__(self, directory: Path, program: Sequence[str] = ARRAY) -> None:
        self.directory = directory
        self.cable = LinkProxy()
        self.sites = {name: Site(name, directory, program) for name in SITES}

    async def start(self) -> None:
        """Both sites serve, and are linked."""
        host, port = await self.cable.listen()
        listen = {name: free_port() for name in SITES}
        self.cable.target = ("127.0.0.1", listen["b"])
        self.sites["a"].configure(f"127.0.0.1:{listen['a']}", f"{host}:{port}")
        self.sites["b"].configure(f"127.0.0.1:{listen['b']}", "127.0.0.1:1")
        await asyncio.gather(*(site.start_array() for site in self.sites.values()))
        await asyncio.gather(*(site.start_shim() for site in self.sites.values()))
        await self.linked()

    async def linked(self) -> None:
        """Raises NotInTime."""
        for site in self.sites.values():

            async def up(site: Site = site) -> bool:
                statuses = [await site.status(volume) for volume in VOLUMES]
                return all(StatusFlag.LINK_UP in status.flags for status in statuses)

            await until(up, _START_SECONDS, f"array {site.name} linked with the other one")

    def children(self) -> list[ChildProcess]:
        return [child for site in self.sites.values() for child in site.children()]

    def check_running(self) -> None:
        """Raises ProcessFailed."""
        for child in self.children():
            if not child.running:
                raise ProcessFailed(f"{child.name} ended by itself with {child.exit_status}:\n{child.log_tail()}")

    async def stop(self) -> None:
        self.cable.cut(Cut.RESET)
        await asyncio.gather(*(site.stop() for site in self.sites.values()), return_exceptions=True)
        await self.cable.close()
