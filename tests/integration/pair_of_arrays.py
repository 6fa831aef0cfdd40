"""Two arrays with pairs between them, in processes of their own, and a cable between them that a test can cut."""

import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from initiator_shim.initiator_task import ScsiOutcome
from initiator_shim.initiator_transport import IscsiSession
from initiator_shim.pair_client import pair_control, report_pair_status
from scripts.failover_drill.link_proxy import Cut, LinkProxy
from scripts.failover_drill.processes import ChildProcess
from storage_model.nexus import ITNexus
from storage_model.pair_state import PairState
from storage_model.spec.pair_cdb import PairControlOut, PairOption, PairOut, PairStatus, StatusFlag, encode_claim
from tests.eventually import eventually

SERIALS = {"a": "30095", "b": "30096"}
BLOCK = 512


@dataclass(frozen=True)
class PairSpec:
    """One pair; its number is the LUN at both arrays."""

    name: str
    size: str = "4MiB"
    fence: str = "never"
    quorum: bool = False
    copy_rate: str = "unlimited"
    group: str = ""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ArrayUnderTest:
    """One array: its process, and a session with it."""

    def __init__(self, site: str, directory: Path, pairs: Sequence[PairSpec], listen: str, peer: str) -> None:
        self.site = site
        self.serial = SERIALS[site]
        self.directory = directory
        self.state = directory / f"state-{site}"
        self.config = directory / f"site-{site}.toml"
        self.port = free_port()
        other = SERIALS["b" if site == "a" else "a"]
        text = f"""
            [array]
            iqn = "iqn.2026-11.org.pairvol:{site}"
            serial = "{self.serial}"
            state_dir = "{self.state}"
            portals = ["127.0.0.1:{self.port}"]
            [remote_copy]
            listen = "{listen}"
            peer = "{peer}"
            peer_serial = "{other}"
        """
        for lun, pair in enumerate(pairs):
            text += f"""
            [[volumes]]
            name = "{pair.name}"
            lun = {lun}
            size = "{pair.size}"
            file = "{pair.name}.vol"
            quorum = {str(pair.quorum).lower()}
            [[pairs]]
            name = "{pair.name}"
            volume = "{pair.name}"
            fence = "{pair.fence}"
            copy_rate = "{pair.copy_rate}"
            """
            if pair.group:
                text += f'group = "{pair.group}"\n'
        self.config.write_text(text)
        self.process: ChildProcess | None = None
        self.session: IscsiSession | None = None

    async def start(self) -> None:
        command = [sys.executable, "-m", "target", "--config", str(self.config)]
        self.process = await ChildProcess.start(f"array-{self.site}", command, self.directory)
        await self.process.until_ready(20)
        self.session = await self.connect("iqn.2026-11.org.pairvol:operator")

    async def connect(self, initiator_name: str, isid: bytes = bytes.fromhex("00023d000001")) -> IscsiSession:
        return await IscsiSession.connect(
            "127.0.0.1", self.port, f"iqn.2026-11.org.pairvol:{self.site}", initiator_name, isid
        )

    async def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        await self.process.kill()
        if self.session is not None:
            self.session.close()
            self.session = None

    async def stop(self) -> None:
        if self.session is not None:
            self.session.close()
        if self.process is not None:
            await self.process.end()

    @property
    def log(self) -> str:
        assert self.process is not None
        return self.process.log.read_text()

    def file(self, lun_name: str) -> bytes:
        return (self.state / f"{lun_name}.vol").read_bytes()

    # ------------------------------------------------------------------------------------------------------- commands

    async def execute(self, lun: int, cdb: bytes, data_out: bytes = b"", data_in_length: int = 0) -> ScsiOutcome:
        assert self.session is not None
        outcome = await self.session.execute(lun, cdb, data_out, data_in_length)
        if outcome.status == 2 and outcome.sense[2] & 0xF == 6:  # a unit attention: power on, reset
            outcome = await self.session.execute(lun, cdb, data_out, data_in_length)
        return outcome

    async def write(self, lun: int, lba: int, data: bytes) -> ScsiOutcome:
        blocks = len(data) // BLOCK
        return await self.execute(lun, write_cdb(lba, blocks), data)

    async def read(self, lun: int, lba: int, blocks: int = 1) -> ScsiOutcome:
        cdb = b"\x28\0" + lba.to_bytes(4, "big") + b"\0" + blocks.to_bytes(2, "big") + b"\0"
        return await self.execute(lun, cdb, b"", blocks * BLOCK)

    async def status(self, lun: int) -> PairStatus:
        assert self.session is not None
        return await report_pair_status(self.session, lun, 5.0)

    async def control(
        self,
        lun: int,
        action: PairOut,
        options: PairOption = PairOption.NONE,
        *,
        epoch: int = 0,
        claim: ITNexus | None = None,
    ) -> None:
        """Raises PairRefused."""
        assert self.session is not None
        parameter_list = b"" if claim is None else encode_claim(claim)
        command = PairControlOut(action, options, None, epoch, len(parameter_list))
        await pair_control(self.session, lun, command, parameter_list, 10.0)

    async def until(self, lun: int, state: PairState, within: float = 15.0) -> PairStatus:
        async def reached() -> PairStatus | None:
            status = await self.status(lun)
            return status if status.state is state else None

        status = await eventually(reached, within=within, what=f"array {self.site} lun {lun} in {state.name}")
        assert status is not None
        return status

    async def until_linked(self, lun: int = 0) -> None:
        async def linked() -> bool:
            return StatusFlag.LINK_UP in (await self.status(lun)).flags

        await eventually(linked, within=15, what=f"array {self.site}: link up")


def write_cdb(lba: int, blocks: int) -> bytes:
    return b"\x2a\0" + lba.to_bytes(4, "big") + b"\0" + blocks.to_bytes(2, "big") + b"\0"


def sense_of(outcome: ScsiOutcome) -> tuple[int, int]:
    """Sense key and ASC/ASCQ of fixed-format sense data."""
    assert outcome.status == 2, f"status {outcome.status:02X}h, not CHECK CONDITION"
    return outcome.sense[2] & 0xF, int.from_bytes(outcome.sense[12:14], "big")


class PairOfArrays:
    """Array A has the lower serial number, so that it dials array B, through ``cable``."""

    def __init__(self, directory: Path, pairs: Sequence[PairSpec]) -> None:
        self.pairs = pairs
        self.cable = LinkProxy()
        self._directory = directory
        self.a: ArrayUnderTest
        self.b: ArrayUnderTest

    async def start(self) -> None:
        host, port = await self.cable.listen()
        listen = f"127.0.0.1:{free_port()}"
        self.cable.target = ("127.0.0.1", int(listen.rpartition(":")[2]))
        self.a = ArrayUnderTest("a", self._directory, self.pairs, f"127.0.0.1:{free_port()}", f"{host}:{port}")
        self.b = ArrayUnderTest("b", self._directory, self.pairs, listen, "127.0.0.1:1")
        await self.b.start()
        await self.a.start()
        await self.linked()

    async def linked(self) -> None:
        for lun in range(len(self.pairs)):
            await self.a.until_linked(lun)
            await self.b.until_linked(lun)

    async def cut(self) -> None:
        """Both arrays know that the link is down when this returns."""
        self.cable.cut(Cut.RESET)

        async def down() -> bool:
            both = [await self.a.status(0), await self.b.status(0)]
            return not any(StatusFlag.LINK_UP in status.flags for status in both)

        await eventually(down, what="link down at both arrays")

    async def mend(self) -> None:
        self.cable.restore()
        await self.linked()

    async def create(self, lun: int = 0) -> None:
        """A becomes the P-VOL's array; returns in PAIR."""
        await self.a.control(lun, PairOut.CREATE)
        await self.a.until(lun, PairState.PAIR)
        await self.b.until(lun, PairState.PAIR)

    def equal(self, lun: int = 0) -> bool:
        name = self.pairs[lun].name
        return self.a.file(name) == self.b.file(name)

    async def stop(self) -> None:
        for array in (self.a, self.b):
            await array.stop()
        await self.cable.close()


@asynccontextmanager
async def pair_of_arrays(directory: Path, *pairs: PairSpec) -> AsyncIterator[PairOfArrays]:
    arrays = PairOfArrays(directory, pairs)
    await arrays.start()
    try:
        yield arrays
    finally:
        await arrays.stop()
