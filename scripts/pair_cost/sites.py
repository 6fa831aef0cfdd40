"""Two arrays on loopback, as processes, with one pair between them and one volume without a pair at the first."""

import asyncio
import contextlib
import os
import re
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypeVar

from initiator_shim.initiator_transport import IscsiSession
from initiator_shim.pair_client import pair_control, report_pair_status
from initiator_shim.session_errors import SessionError
from scripts.benchmark import arrays
from scripts.benchmark.own_login import Unit
from scripts.benchmark.servers import READY_SECONDS, BenchmarkError, Server, free_port
from storage_model.pair_state import PairState
from storage_model.spec.pair_cdb import PairControlOut, PairOption, PairOut, PairStatus, StatusFlag

PAIRED, SIMPLE = 0, 1
"""LUNs, and places among the URLs."""
_NAMES = {PAIRED: "paired", SIMPLE: "simple"}
P_VOL, S_VOL = ("a", PAIRED), ("b", PAIRED)
"""The volumes of the pair: array and LUN."""
_SERIALS = {"a": "30095", "b": "30096"}
_COPIED = re.compile(r"copied (\d+) regions, (\d+) bytes sent, (\d+) fetched, in ([\d.]+) s")
_POLL_SECONDS = 0.01
_PATIENT_POLL_SECONDS = 0.1
"""Of a copy, whose time is in the log: asked more often, the array would have the less of it for the copy."""
_ANSWER_SECONDS = 10.0
_COPY_SECONDS = 600.0
_CONFIGURATION = """
[array]
iqn = "iqn.2026-11.org.pairvol:{name}"
serial = "{serial}"
state_dir = "{state}"
[remote_copy]
listen = "127.0.0.1:{port}"
peer = "127.0.0.1:{peer_port}"
peer_serial = "{peer_serial}"
[[pairs]]
name = "pair"
volume = "paired"
"""
_VOLUME = """
[[volumes]]
name = "{name}"
lun = {lun}
size = "{size_bytes}"
file = "{name}.img"
quorum = {quorum}
"""
T = TypeVar("T")


class Copied(NamedTuple):
    """What a copy came to, by the array's log. ``sent_bytes``: over the link, in both directions."""

    regions: int
    sent_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Sites:
    """``a`` is the P-VOL's array. Each call is a session of its own, so that none is idle while clients work."""

    a: Server
    b: Server

    def volume_file(self) -> Path:
        """Of the paired volume, at the first array."""
        return _volume_file(self.a.directory, "a", PAIRED)

    def status(self) -> PairStatus:
        return self._ask(_status)

    def control(self, action: PairOut) -> None:
        """One verb, at the first array."""
        out = PairControlOut(action, PairOption.NONE, None, 0, 0)
        self._ask(lambda session: pair_control(session, PAIRED, out, b"", _ANSWER_SECONDS))

    def until(self, state: PairState) -> None:
        """Until the pair is in that state."""
        self._ask(lambda session: until(session, state, _COPY_SECONDS, _PATIENT_POLL_SECONDS))

    def copy(self, action: PairOut) -> Copied:
        """CREATE or RESYNC, to its end."""
        before = len(self._copies())
        self.control(action)
        self.until(PairState.PAIR)
        copies = self._copies()
        if len(copies) != before + 1:
            raise BenchmarkError("the array's log does not say what was copied")
        return copies[-1]

    def _copies(self) -> list[Copied]:
        said = _COPIED.findall((self.a.directory / f"{self.a.name}.log").read_text())
        return [Copied(int(regions), int(sent) + int(fetched), float(took)) for regions, sent, fetched, took in said]

    def _ask(self, what: Callable[[IscsiSession], Awaitable[T]]) -> T:
        async def ask() -> T:
            async with operator(self.a) as session:
                return await what(session)

        return asyncio.run(ask())


def operator(array: Server) -> contextlib.AbstractAsyncContextManager[IscsiSession]:
    """A session that no host has."""
    return logged_in(array.urls[PAIRED], "iqn.2026-11.org.pairvol:operator", bytes.fromhex("00023d000001"))


@contextlib.asynccontextmanager
async def logged_in(url: str, initiator: str, isid: bytes) -> AsyncIterator[IscsiSession]:
    """A session; what goes wrong in it is a BenchmarkError."""
    unit = Unit.of(url)
    try:
        session = await IscsiSession.connect(unit.host, unit.port, unit.target, initiator, isid)
        try:
            yield session
        finally:
            session.close()
    except SessionError as error:
        raise BenchmarkError(str(error)) from None


async def until(session: IscsiSession, state: PairState, seconds: float, poll: float = _POLL_SECONDS) -> None:
    """Raises BenchmarkError when the pair is not in that state in time, or is in PSUE on its way to PAIR."""
    end = time.monotonic() + seconds
    while (now := (await _status(session)).state) is not state:
        if time.monotonic() > end or (now is PairState.PSUE and state is PairState.PAIR):
            raise BenchmarkError(f"the pair is in {now.name}, not in {state.name}")
        await asyncio.sleep(poll)


async def _status(session: IscsiSession) -> PairStatus:
    return await report_pair_status(session, PAIRED, _ANSWER_SECONDS)


@contextlib.contextmanager
def two_sites(
    directory: Path, root: Path, size_bytes: int, *, quorum: bool = False, full: Collection[tuple[str, int]] = ()
) -> Iterator[Sites]:
    """Arrays of the checkout ``root``, started and linked; with the block they end, and their files go.

    The volumes of ``full`` hold data from end to end, in the page cache and on the disk; the others are sparse.
    """
    ports = {name: free_port() for name in _SERIALS}
    with tempfile.TemporaryDirectory(prefix="sites-", dir=directory) as made, contextlib.ExitStack() as stack:
        place = Path(made)
        for name in _SERIALS:
            (place / f"state-{name}").mkdir()
        for name, lun in full:
            fill(_volume_file(place, name, lun), size_bytes)
        b, a = (stack.enter_context(_array(place, root, name, ports, size_bytes, quorum)) for name in "ba")
        sites = Sites(a, b)
        end = time.monotonic() + READY_SECONDS
        while StatusFlag.LINK_UP not in sites.status().flags:
            if time.monotonic() > end:
                raise BenchmarkError("the link between the arrays does not come up")
            time.sleep(_POLL_SECONDS)
        yield sites


@contextlib.contextmanager
def pair_and_simple(directory: Path, root: Path, size_bytes: int) -> Iterator[Server]:
    """The first array: a volume in PAIR and one in SMPL, full of data. Its ``relay`` is the S-VOL's array."""
    with two_sites(directory, root, size_bytes, full=(P_VOL, ("a", SIMPLE))) as sites:
        sites.copy(PairOut.CREATE)
        yield replace(sites.a, relay=sites.b.pid)


def _array(
    place: Path, root: Path, name: str, ports: dict[str, int], size_bytes: int, quorum: bool
) -> contextlib.AbstractContextManager[Server]:
    other = "b" if name == "a" else "a"
    configuration = place / f"{name}.toml"
    head = _CONFIGURATION.format(
        name=name, serial=_SERIALS[name], state=place / f"state-{name}", port=ports[name],
        peer_port=ports[other], peer_serial=_SERIALS[other],
    )  # fmt: skip
    volumes = (
        _VOLUME.format(name=volume, lun=lun, size_bytes=size_bytes, quorum=str(quorum and lun == PAIRED).lower())
        for lun, volume in _NAMES.items()
    )
    configuration.write_text(head + "".join(volumes))
    return arrays.array(place, root, ["--config", str(configuration)], name, log_level="info")


def fill(file: Path, size_bytes: int) -> None:
    """With random data, which is on the disk on return: what is measured next shares the disk with nobody."""
    arrays.write_volume(file, size_bytes)
    with file.open("rb") as volume:
        os.fsync(volume.fileno())


def _volume_file(place: Path, name: str, lun: int) -> Path:
    return place / f"state-{name}" / f"{_NAMES[lun]}.img"
