"""Two arrays with a quorum pair between them, in the guests' network, and pairctl for whoever operates them."""

import asyncio
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

from scripts.failover_drill.processes import ChildProcess, end_all
from tests.eventually import eventually
from tests.linux.linux_array import READY_SECONDS
from tests.linux.network import HOST_ADDRESS, Network

PAIR = "quorum0"
TARGETS = ("iqn.2026-11.org.pairvol:site-a", "iqn.2026-11.org.pairvol:site-b")
_SERIALS = ("30095", "30096")
_PORTS = (3360, 3370)
_COPY_PORTS = (3362, 3372)

CONFIGURATION = """
[array]
iqn = "{target}"
serial = "{serial}"
state_dir = "{directory}"
portals = ["{portal}"]

[remote_copy]
listen = "127.0.0.1:{copy_port}"
peer = "127.0.0.1:{peer_port}"
peer_serial = "{peer_serial}"

[[volumes]]
name = "quorum"
lun = 0
size = "16MiB"
file = "quorum.img"
quorum = true

[[pairs]]
name = "quorum0"
volume = "quorum"
fence = "data"
"""


def portal(site: int) -> str:
    return f"{HOST_ADDRESS}:{_PORTS[site]}"


@dataclass
class PairInNetwork:
    """Sites are 0 and 1."""

    network: Network
    directory: Path
    _arrays: list[ChildProcess] = field(default_factory=list)

    async def start(self) -> None:
        for site in (0, 1):
            directory = self.directory / f"site-{'ab'[site]}"
            directory.mkdir(parents=True)
            configuration = directory / "array.toml"
            configuration.write_text(_configuration(site, directory))
            command = self.network.inside(sys.executable, "-m", "target", "--config", str(configuration))
            array = await ChildProcess.start(directory.name, command, self.directory)
            self._arrays.append(array)
            await array.until_ready(READY_SECONDS)
        await eventually(self._linked, within=READY_SECONDS, what="the arrays' link")

    async def _linked(self) -> bool:
        return all(unit["link_up"] for unit in json.loads(await self.pairctl(0, "status", "--json")))

    async def stop(self) -> None:
        await end_all(self._arrays)

    async def pairctl(self, site: int, *words: str) -> str:
        """Ask that site's array; the output. Fails on a status other than 0."""
        url = f"iscsi://{portal(site)}"
        return await self.network.run(sys.executable, "-m", "initiator_shim.pairctl", "-a", url, *words)

    async def both_wait(self, state: str) -> None:
        """Until the pair is in that state at both arrays. Fails when it takes too long."""
        await asyncio.gather(*(self.pairctl(site, "wait", PAIR, state) for site in (0, 1)))

    def logs(self) -> str:
        return "\n".join(f"{array.name}:\n{array.log_tail(30)}" for array in self._arrays)


def _configuration(site: int, directory: Path) -> str:
    return CONFIGURATION.format(
        target=TARGETS[site],
        serial=_SERIALS[site],
        directory=directory,
        portal=portal(site),
        copy_port=_COPY_PORTS[site],
        peer_port=_COPY_PORTS[1 - site],
        peer_serial=_SERIALS[1 - site],
    )
