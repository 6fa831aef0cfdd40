"""Hosts that send PERSISTENT RESERVE IN and OUT to the two arrays of a pair in memory, and what must hold of both."""

import asyncio
from dataclasses import dataclass
from typing import Protocol

from storage_model.nexus import ITNexus
from storage_model.pair_reservation import ReservationEntry, first_port, seen_from
from storage_model.persistent_reservation import PersistentReservation
from storage_model.reservation import Exclusion
from storage_model.spec.scsi_persistent_reservation import BasicParameters
from storage_model.spec.scsi_sense import decode_sense
from storage_model.spec.scsi_task import ScsiStatus
from target.scsi.task import ScsiTask, TaskOutcome
from tests.unit.pair_in_memory import Site

REGISTER, RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_AND_ABORT, REGISTER_AND_IGNORE = range(7)
WRITE_EXCLUSIVE, EXCLUSIVE_ACCESS, WRITE_EXCLUSIVE_REGISTRANTS_ONLY = 1, 3, 5
GOOD, CONFLICT = ScsiStatus.GOOD, ScsiStatus.RESERVATION_CONFLICT
UNREACHABLE, IN_DOUBT, NO_VOTE = (2, 0x8010), (2, 0x8011), (2, 0x8012)
READ, WRITE = bytes.fromhex("28000000000000000100"), bytes.fromhex("2a000000000000000100")

Answer = ScsiStatus | tuple[int, int]
"""A status, or the sense key and ASC/ASCQ of a CHECK CONDITION."""


class Halves(Protocol):
    """Both halves of one pair."""

    @property
    def a(self) -> Site: ...

    @property
    def b(self) -> Site: ...


@dataclass
class Host:
    """A host with a session at one array. Its key is its own unless it says another."""

    site: Site
    nexus: ITNexus
    key: int
    tag: int = 0

    def log_in(self) -> None:
        """Anew after the array's start."""
        self.site.server.nexus_established(self.nexus)
        self.site.lu.unit_attentions.take(self.nexus)

    def task(self, cdb: bytes, data: bytes = b"") -> ScsiTask:
        self.tag += 1
        return ScsiTask(self.nexus, 0, self.tag, cdb.ljust(16, b"\0"), data, 1 << 16)

    async def run(self, cdb: bytes, data: bytes = b"") -> TaskOutcome:
        return await self.site.server.execute(self.task(cdb, data))

    async def answer(self, cdb: bytes, data: bytes = b"") -> Answer:
        outcome = await self.run(cdb, data)
        if outcome.status is not ScsiStatus.CHECK_CONDITION:
            return outcome.status
        sense = decode_sense(outcome.sense)
        return sense.sense_key, sense.asc_ascq

    async def out(
        self, action: int, action_key: int = 0, kind: int = 0, *, key: int | None = None, all_ports: bool = False
    ) -> Answer:
        data = BasicParameters(self.key if key is None else key, action_key, all_tg_pt=all_ports).encode()
        return await self.answer(bytes((0x5F, action, kind, 0, 0)) + len(data).to_bytes(4, "big"), data)

    async def register(self) -> Answer:
        return await self.out(REGISTER, self.key, key=0)

    async def reserve(self, kind: int = EXCLUSIVE_ACCESS) -> Answer:
        return await self.out(RESERVE, kind=kind)

    async def preempt(self, victim: "Host", kind: int = EXCLUSIVE_ACCESS, action: int = PREEMPT) -> Answer:
        return await self.out(action, victim.key, kind)

    async def hears(self) -> list[int]:
        """The unit attentions that wait for it, by TEST UNIT READY."""
        heard = []
        while isinstance(answer := await self.answer(bytes(6)), tuple):
            heard.append(answer[1])
        return heard

    @property
    def let_in(self) -> bool:
        """True if its array would not keep it from anything."""
        return self.site.lu.reservation.excludes(self.nexus) is Exclusion.NOTHING

    async def keys(self) -> tuple[int, list[int]] | tuple[int, int]:
        """PRGENERATION and the keys; or a sense."""
        answer = await self.answer(read := bytes.fromhex("5e0000000000000fff"))
        if isinstance(answer, tuple):
            return answer
        data = bytes((await self.run(read)).data_in)
        return int.from_bytes(data[:4], "big"), sorted(
            int.from_bytes(data[at : at + 8], "big") for at in range(8, len(data), 8)
        )


def host(site: Site, name: str, key: int, port: int = 1) -> Host:
    made = Host(site, ITNexus(f"iqn.2026-11.org.pairvol:{name}", bytes.fromhex("00023d000001"), port), key)
    made.log_in()
    return made


def table(site: Site) -> PersistentReservation:
    """What commands at the site obey, in the numbers of the pair; it is what is durable there, without doubt."""
    decided = site.disk.reservations.decided
    base = first_port(site.serial, site.peer_serial)
    assert site.lu.reservation.persistent == seen_from(decided.state, base)
    assert site.disk.reservations == site.reservations.record
    assert site.lu.reservation.doubtful is None and site.disk.reservations.accepted is None
    return decided.state


def equal_tables(pair: Halves) -> PersistentReservation:
    assert pair.a.disk.reservations == pair.b.disk.reservations
    assert table(pair.a) == table(pair.b)
    return table(pair.a)


def check_entries(pair: Halves) -> None:
    """I7: tables are identical at equal entry number, in all that was ever in force at either array."""
    entries: dict[tuple[int, int], ReservationEntry] = {}
    for site in (pair.a, pair.b):
        for record in site.disk.entries:
            assert entries.setdefault(record.decided.order, record.decided) == record.decided


async def watch(*hosts: Host) -> None:
    """With exclusive access, at every turn of the loop at most one host is let in, at whichever array. Until cancelled.

    Hosts that have never been kept out by a reservation in force do not count: there was none yet.
    """
    while True:
        reserved = all(each.site.lu.reservation.held for each in hosts)
        assert not reserved or sum(each.let_in for each in hosts) <= 1, [each.nexus for each in hosts if each.let_in]
        await asyncio.sleep(0)
