"""The processes of one site, and the conductor's own view of its array and its node."""

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from initiator_shim.initiator_transport import IscsiSession
from initiator_shim.session_errors import SessionError
from scripts.failover_drill.disk import CommandFailed, Disk
from scripts.failover_drill.link_proxy import Address
from scripts.failover_drill.node_protocol import Event, Fields, NodeSettings, Order, decode_line, encode_line
from scripts.failover_drill.processes import ROOT, ChildProcess, ProcessFailed
from scripts.failover_drill.scenario import DATA_PAIRS, NUMBERS, QUORUM, Site
from storage_model.errors import PairvolError
from storage_model.spec.pair_cdb import PairOption, PairOut, PairStatus

_CONDUCTOR_NAME = "iqn.2026-11.org.pairvol:drill-conductor"
_EVENTS_MAX = 20000
_LUNS = (QUORUM.lun, *(pair.lun for pair in DATA_PAIRS))


@dataclass(frozen=True, slots=True)
class Portal:
    """Where a target listens: the first URL that it printed."""

    address: Address
    target_name: str

    @classmethod
    def from_urls(cls, name: str, lines: list[str]) -> "Portal":
        """``lines`` are what ``name`` printed before ``ready``. Raises ProcessFailed when there is no iscsi:// URL."""
        for line in lines:
            url = urlsplit(line)
            if url.scheme == "iscsi" and url.hostname and url.port:
                return cls((url.hostname, url.port), url.path.split("/")[1])
        raise ProcessFailed(f"{name} printed no iscsi:// URL: {lines}")


@dataclass(frozen=True, slots=True)
class CopyPorts:
    """The remote-copy addresses of one array: where it listens, and what it dials to reach the other."""

    listen: Address
    peer: Address


def _text(address: Address) -> str:
    return f"{address[0]}:{address[1]}"


def state_directory(directory: Path, site: Site) -> Path:
    """Where the array of the site keeps its metadata and its volume files."""
    return directory / f"state-{site.lower()}"


async def start_array(
    site: Site, directory: Path, ports: CopyPorts, broker: Address, deadline: float, portal: Address
) -> tuple[ChildProcess, Portal]:
    """``pairvol-array`` with the site's example configuration; state and logs under ``directory``."""
    name = f"array-{NUMBERS[site].array}"
    command = [sys.executable, "-m", "target"]
    command += ["--config", str(ROOT / "scripts" / "examples" / f"site-{site.lower()}.toml")]
    command += ["--portal", _text(portal), "--state-dir", str(state_directory(directory, site))]
    command += ["--copy-listen", _text(ports.listen), "--copy-peer", _text(ports.peer)]
    command += ["--broker", f"mqtt://{_text(broker)}"]
    child = await ChildProcess.start(name, command, directory)
    return child, Portal.from_urls(name, await _ready(child, deadline))


async def start_shim(
    site: Site, directory: Path, array: Portal, broker: Address, deadline: float
) -> tuple[ChildProcess, Portal]:
    """``pairvol-shim`` in front of the site's array."""
    name = f"shim-{NUMBERS[site].shim}"
    command = [sys.executable, "-m", "initiator_shim", "--listen", "127.0.0.1:0", "--array", _text(array.address)]
    command += ["--broker", f"mqtt://{_text(broker)}", "--name", name]
    child = await ChildProcess.start(name, command, directory)
    return child, Portal.from_urls(name, await _ready(child, deadline))


async def _ready(child: ChildProcess, deadline: float) -> list[str]:
    try:
        return await child.until_ready(deadline)
    except BaseException:
        await child.end()
        raise


class ArrayView:
    """The conductor's session with an array: it asks for pair status and acts as the operator."""

    def __init__(self, name: str, session: IscsiSession) -> None:
        self._name = name
        self._session = session
        self.disks = {lun: Disk(session, lun) for lun in _LUNS}

    @classmethod
    async def open(cls, name: str, portal: Portal) -> "ArrayView":
        return cls(name, await IscsiSession.connect(*portal.address, portal.target_name, _CONDUCTOR_NAME))

    async def status(self, lun: int) -> PairStatus | None:
        """The array's word on one pair; None when the array cannot be asked."""
        try:
            return await self.disks[lun].pair_status()
        except SessionError:
            return None

    async def pair_control(self, lun: int, verb: PairOut, options: PairOption = PairOption.NONE) -> None:
        """What an operator asks for. Raises PairvolError that names the array."""
        try:
            await self.disks[lun].pair_control(verb, options)
        except (SessionError, CommandFailed) as error:
            raise PairvolError(f"{self._name}, LUN {lun}, {verb.name.replace('_', ' ')}: {error}") from None

    async def close(self) -> None:
        await self._session.logout()


class NodeFailed(ProcessFailed):
    """A cluster node did not answer, or answered with an error."""


class NodeHandle:
    """The conductor's end of a cluster node: its orders go out, its answers and events come in."""

    def __init__(self, site: Site, child: ChildProcess) -> None:
        self.site = site
        self.child = child
        self.events: list[Fields] = []
        self._answers: dict[int, asyncio.Future[Fields]] = {}
        self._last_id = 0
        self._news = asyncio.Condition()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, settings: NodeSettings, directory: Path, deadline: float) -> "NodeHandle":
        site = Site(settings.site)
        command = [sys.executable, "-m", "scripts.failover_drill.cluster_node", settings.to_json()]
        handle = cls(site, await ChildProcess.start(f"node-{NUMBERS[site].host}", command, directory))
        try:
            await handle.wait_for({Event.READY}, deadline)
        except BaseException:
            await handle.end()
            raise
        return handle

    async def _read(self) -> None:
        while line := await self.child.read_line():
            fields = decode_line(line)
            async with self._news:
                if "answer" in fields:
                    waiting = self._answers.pop(fields["answer"], None)
                    if waiting is not None and not waiting.done():
                        waiting.set_result(fields)
                else:
                    assert len(self.events) < _EVENTS_MAX, "a node tells too much"
                    self.events.append(fields)
                self._news.notify_all()
        for waiting in self._answers.values():
            if not waiting.done():
                waiting.set_exception(NodeFailed(f"{self.child.name} ended:\n{self.child.log_tail()}"))
        async with self._news:
            self._news.notify_all()

    async def order(self, order: Order, deadline: float, **fields: object) -> Fields:
        """Its answer. Raises NodeFailed when the answer is an error, or does not come in time."""
        self._last_id += 1
        answer: asyncio.Future[Fields] = asyncio.get_running_loop().create_future()
        self._answers[self._last_id] = answer
        await self.child.write_line(encode_line({"order": order, "id": self._last_id, **fields}))
        try:
            async with asyncio.timeout(deadline):
                result = await answer
        except TimeoutError:
            raise NodeFailed(f"{self.child.name} did not answer '{order}' within {deadline:g} s") from None
        if "error" in result:
            raise NodeFailed(f"{self.child.name}: {order}: {result['error']}")
        return result

    def seen(self, names: set[Event], since: int = 0) -> Fields | None:
        """The first such event from number ``since`` on."""
        return next((event for event in self.events[since:] if event["event"] in names), None)

    async def wait_for(self, names: set[Event], deadline: float, since: int = 0) -> Fields:
        """The first such event, waiting for it if need be. Raises NodeFailed."""
        try:
            async with asyncio.timeout(deadline), self._news:
                while (event := self.seen(names, since)) is None:
                    if self._reading.done():
                        raise NodeFailed(f"{self.child.name} ended:\n{self.child.log_tail()}")
                    await self._news.wait()
                return event
        except TimeoutError:
            wanted = " or ".join(sorted(names))
            raise NodeFailed(f"{self.child.name}: no '{wanted}' within {deadline:g} s") from None

    async def end(self) -> None:
        await self.child.end()
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
