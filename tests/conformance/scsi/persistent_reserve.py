"""PERSISTENT RESERVE IN and OUT as a bench sends them."""

from dataclasses import dataclass

from storage_model.nexus import ITNexus
from storage_model.spec.scsi_persistent_reservation import BasicParameters, MoveParameters, TransportId
from storage_model.spec.scsi_sense import SenseData, decode_sense
from storage_model.spec.scsi_task import ScsiStatus
from target.scsi.task import ScsiTask
from tests.conformance.scsi.bench import NEXUS_A, NEXUS_B, Bench

REGISTER, RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_AND_ABORT, REGISTER_AND_IGNORE, REGISTER_AND_MOVE = range(8)
WE, EA, WE_RO, EA_RO, WE_AR, EA_AR = 1, 3, 5, 6, 7, 8
TYPES = (WE, EA, WE_RO, EA_RO, WE_AR, EA_AR)
RO, AR = (WE_RO, EA_RO), (WE_AR, EA_AR)

NEXUS_C = ITNexus("iqn.2026-11.org.example:c", b"\x80\0\0\0\0\x03")
OBSERVER = ITNexus("iqn.2026-11.org.example:observer", b"\x80\0\0\0\0\x0e")
"""Never registered: whoever reads through it hears no unit attention that is meant for another."""
NEXUS_A_OTHER_ISID = ITNexus(NEXUS_A.initiator_name, b"\x80\0\0\0\0\x0a")
KEY_A, KEY_B, KEY_C = 0xA, 0xB, 0xC
KEYS = {NEXUS_A: KEY_A, NEXUS_B: KEY_B, NEXUS_C: KEY_C}

CONFLICT = ScsiStatus.RESERVATION_CONFLICT
GOOD = ScsiStatus.GOOD


def transport_id(nexus: ITNexus) -> bytes:
    return TransportId(nexus.initiator_name, nexus.isid).encode()


def out_cdb(action: int, length: int, kind: int = 0, scope: int = 0) -> bytes:
    return bytes((0x5F, action, scope << 4 | kind, 0, 0)) + length.to_bytes(4, "big") + b"\0"


@dataclass
class Reservations:
    """One bench, with three nexuses logged in; ``out`` answers the status, or the sense data of a CHECK CONDITION."""

    bench: Bench

    def __post_init__(self) -> None:
        for nexus in (NEXUS_C, NEXUS_A_OTHER_ISID, OBSERVER):
            self.log_in(nexus)

    def log_in(self, nexus: ITNexus) -> None:
        self.bench.server.nexus_established(nexus)
        self.bench.lu.unit_attentions.take(nexus)

    def task(
        self,
        action: int,
        nexus: ITNexus = NEXUS_A,
        action_key: int = 0,
        *,
        key: int | None = None,
        kind: int = 0,
        scope: int = 0,
        named: tuple[ITNexus, ...] | None = None,
        aptpl: bool = False,
        every_port: bool = False,
    ) -> ScsiTask:
        """``key``: by default the one that the nexus has registered, or 0."""
        if key is None:
            registration = self.bench.lu.reservation.persistent.registrations.get(nexus)
            key = registration.key if registration else 0
        ids = b"".join(map(transport_id, named or ()))
        data = BasicParameters(key, action_key, named is not None, every_port, aptpl, ids).encode()
        return self.bench.task(out_cdb(action, len(data), kind, scope), data, nexus)

    async def out(self, action: int, nexus: ITNexus = NEXUS_A, action_key: int = 0, **more) -> ScsiStatus | SenseData:
        return await self.execute(self.task(action, nexus, action_key, **more))

    async def refused(self, action: int, nexus: ITNexus = NEXUS_A, action_key: int = 0, **more) -> SenseData:
        answer = await self.out(action, nexus, action_key, **more)
        assert isinstance(answer, SenseData)
        return answer

    async def execute(self, task: ScsiTask) -> ScsiStatus | SenseData:
        outcome = await self.bench.server.execute(task)
        return decode_sense(outcome.sense) if outcome.status is ScsiStatus.CHECK_CONDITION else outcome.status

    async def move(
        self,
        nexus: ITNexus,
        to: ITNexus | bytes,
        action_key: int = 0x99,
        *,
        key: int | None = None,
        port: int = 1,
        unregister: bool = False,
        aptpl: bool = False,
    ) -> ScsiStatus | SenseData:
        registration = self.bench.lu.reservation.persistent.registrations.get(nexus)
        own = registration.key if registration else 0
        identity = to if isinstance(to, bytes) else transport_id(to)
        data = MoveParameters(own if key is None else key, action_key, port, identity, unregister, aptpl).encode()
        return await self.execute(self.bench.task(out_cdb(REGISTER_AND_MOVE, len(data)), data, nexus))

    async def register(self, *nexuses: ITNexus) -> None:
        """Each with the key that it has in ``KEYS``."""
        for nexus in nexuses:
            assert await self.out(REGISTER, nexus, KEYS[nexus]) is GOOD

    async def reserve(self, kind: int, nexus: ITNexus = NEXUS_A) -> None:
        assert await self.out(RESERVE, nexus, kind=kind) is GOOD

    async def hears(self, nexus: ITNexus) -> list[int]:
        """The unit attentions that wait for the nexus, by TEST UNIT READY."""
        heard = []
        while (outcome := await self.bench.run("00", nexus=nexus)).status is ScsiStatus.CHECK_CONDITION:
            sense = decode_sense(outcome.sense)
            assert sense.sense_key == 6
            heard.append(sense.asc_ascq)
        assert outcome.status is GOOD
        return heard

    async def read(self, action: int, allocation: int = 0xFFFF) -> bytes:
        cdb = bytes((0x5E, action, 0, 0, 0, 0, 0, *allocation.to_bytes(2, "big")))
        return await self.bench.good(cdb, nexus=OBSERVER)

    async def keys(self) -> list[int]:
        data = await self.read(0)
        assert int.from_bytes(data[4:8], "big") == len(data) - 8
        return [int.from_bytes(data[at : at + 8], "big") for at in range(8, len(data), 8)]

    async def generation(self) -> int:
        return int.from_bytes((await self.read(0))[:4], "big")

    async def reservation(self) -> tuple[int, int] | None:
        """Key and type, as READ RESERVATION tells them."""
        data = await self.read(1)
        return (int.from_bytes(data[8:16], "big"), data[21]) if len(data) > 8 else None


async def write_status(bench: Bench, nexus: ITNexus) -> ScsiStatus:
    return (await bench.run("2a 00 00000000 00 0001", b"w" * 512, nexus)).status


async def read_status(bench: Bench, nexus: ITNexus) -> ScsiStatus:
    return (await bench.run("28 00 00000000 00 0001", nexus=nexus)).status
