"""The stage: everything that the drill runs on, set up in order and always taken down again."""

import asyncio
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from initiator_shim.session_errors import SessionError
from scripts.failover_drill.broker import BrokerKind, free_port, start_broker
from scripts.failover_drill.checks import Statuses
from scripts.failover_drill.link_proxy import Cut, LinkProxy
from scripts.failover_drill.node_protocol import Fields, NodeSettings
from scripts.failover_drill.processes import ChildProcess, end_all
from scripts.failover_drill.records import read_acknowledgements
from scripts.failover_drill.scenario import NUMBERS, QUORUM, PairedVolume, Site, Timing
from scripts.failover_drill.sites import (
    ArrayView,
    CopyPorts,
    NodeHandle,
    Portal,
    start_array,
    start_shim,
    state_directory,
)
from storage_model.spec.pair_cdb import PairStatus


@dataclass(frozen=True, slots=True)
class Cables:
    """What can be cut: the remote-copy link (one proxy per direction of dialling) and each host's way to the broker."""

    link: dict[Site, LinkProxy]
    heartbeat: dict[Site, LinkProxy]


class Stage:
    """Use :meth:`open`. Sites' parts are dictionaries by site; a killed part stays in them, no longer running."""

    def __init__(self, directory: Path, timing: Timing, stack: AsyncExitStack) -> None:
        self.directory = directory
        self.timing = timing
        self.cables = Cables({site: LinkProxy() for site in Site}, {site: LinkProxy() for site in Site})
        self.arrays: dict[Site, ChildProcess] = {}
        self.portals: dict[Site, Portal] = {}
        self.shims: dict[Site, ChildProcess] = {}
        self.nodes: dict[Site, NodeHandle] = {}
        self.views: dict[Site, ArrayView] = {}
        self.broker_port = 0
        self._copy_ports: dict[Site, CopyPorts] = {}
        self._children: list[ChildProcess] = []
        self._stack = stack

    @classmethod
    async def open(
        cls,
        directory: Path,
        timing: Timing,
        stack: AsyncExitStack,
        *,
        broker: BrokerKind | None,
        hesitation: dict[Site, float],
        shims: bool,
    ) -> "Stage":
        """All processes up, the sessions logged in, nothing paired yet. ``stack`` takes them down."""
        stage = cls(directory, timing, stack)
        stack.push_async_callback(stage._close)
        await stage._open_broker(broker)
        await stage._open_link()
        await asyncio.gather(*(stage.open_array(site) for site in Site))
        await asyncio.gather(*(stage._open_host(site, hesitation[site], shims) for site in Site))
        return stage

    async def _open_broker(self, kind: BrokerKind | None) -> None:
        broker, self.broker_port = await start_broker(self.directory, self.timing.start_up_deadline, kind)
        self._children.append(broker)
        for cable in self.cables.heartbeat.values():
            cable.target = ("127.0.0.1", self.broker_port)
            await cable.listen()

    async def _open_link(self) -> None:
        """``link[A]`` is what array A dials to reach array B."""
        for site in Site:
            self._copy_ports[site] = CopyPorts(("127.0.0.1", free_port()), await self.cables.link[site].listen())
        for site in Site:
            self.cables.link[site].target = self._copy_ports[site.other].listen

    async def open_array(self, site: Site) -> None:
        """Start the array, or start it again on the state that it left."""
        ports, broker = self._copy_ports[site], ("127.0.0.1", self.broker_port)
        known = self.portals.get(site)
        address = known.address if known else ("127.0.0.1", 0)  # its shim knows the old one
        child, portal = await start_array(site, self.directory, ports, broker, self.timing.start_up_deadline, address)
        self._children.append(child)
        self.arrays[site], self.portals[site] = child, portal
        self.views[site] = await ArrayView.open(child.name, portal)

    async def _open_host(self, site: Site, hesitation: float, through_shim: bool) -> None:
        timing = self.timing
        shim, portal = await start_shim(
            site, self.directory, self.portals[site], self.cables.heartbeat[site].address, timing.start_up_deadline
        )
        self._children.append(shim)
        self.shims[site] = shim
        portal = portal if through_shim else self.portals[site]
        settings = NodeSettings(
            site=site.value,
            shim=portal.address,
            target_name=portal.target_name,
            broker=self.cables.heartbeat[site].address,
            acknowledgements=str(self._acknowledgements(site)),
            heartbeat_interval=timing.heartbeat_interval,
            heartbeat_timeout=timing.heartbeat_timeout,
            renewal_interval=timing.renewal_interval,
            record_interval=timing.record_interval,
            hesitation=hesitation,
        )
        self.nodes[site] = await NodeHandle.start(settings, self.directory, timing.start_up_deadline)

    def _acknowledgements(self, site: Site) -> Path:
        return self.directory / f"acknowledged-by-{NUMBERS[site].host}.log"

    def volume_file(self, site: Site, pair: PairedVolume) -> Path:
        """The file behind the pair's volume at this site, as the example configuration names it."""
        kind = "quorum" if pair is QUORUM else "data"
        return state_directory(self.directory, site) / f"{kind}-{pair.number_at(site)}.img"

    def acknowledged(self) -> dict[int, set[int]]:
        """Every acknowledged record so far, by volume, of both hosts."""
        return read_acknowledgements(path for site in Site if (path := self._acknowledgements(site)).exists())

    def events(self) -> list[tuple[int, Fields]]:
        """Everything that the nodes told, each with its host."""
        return [(NUMBERS[site].host, event) for site, node in self.nodes.items() for event in node.events]

    def array_lives(self, site: Site) -> bool:
        return self.arrays[site].running

    def host_lives(self, site: Site) -> bool:
        return self.nodes[site].child.running

    async def statuses(self, pair: PairedVolume) -> Statuses:
        """The pair at both arrays, asked of each."""
        return {site: await self._status(site, pair) for site in Site}

    async def _status(self, site: Site, pair: PairedVolume) -> PairStatus | None:
        return await self.views[site].status(pair.lun) if self.array_lives(site) else None

    async def kill_host(self, site: Site) -> None:
        """The host dies: its cluster node and its pair-control software with it."""
        await asyncio.gather(self.nodes[site].child.kill(), self.shims[site].kill())

    async def _close(self) -> None:
        """Hosts before arrays before the broker, so that nobody complains in a log about the others' going."""
        for view in self.views.values():
            with suppress(SessionError):
                await view.close()
        # Whoever waits for an answer through a cut cable learns now that none will come.
        for cable in self.cables.heartbeat.values():
            cable.cut(Cut.RESET)
        await asyncio.gather(*(node.end() for node in self.nodes.values()), return_exceptions=True)
        await end_all(self._children)
        for cable in (*self.cables.link.values(), *self.cables.heartbeat.values()):
            await cable.close()
