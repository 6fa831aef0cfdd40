"""Cluster software that fences by persistent reservations: registers, reserves, preempts, reads what there is."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from initiator_shim.initiator_task import ScsiOutcome
from initiator_shim.pair_client import execute_past_unit_attention
from initiator_shim.session_errors import SessionError
from scripts.simulation.arrays import LUNS
from scripts.simulation.clients import Client, reserve_in_cdb, reserve_out_cdb
from scripts.simulation.journal import Journal
from scripts.simulation.tables import Answer, Tables
from storage_model.persistent_reservation import ReservationType
from storage_model.reservation_order import ReservationOrder
from storage_model.spec.scsi_cdb import PersistentReserveIn, PersistentReserveOut
from storage_model.spec.scsi_persistent_reservation import BasicParameters
from storage_model.spec.scsi_sense import SenseKey, decode_sense
from storage_model.spec.scsi_task import ScsiStatus

_SECONDS = 8.0
_REPORT_BYTES = 1024
_CLEARING_TRIES = 20
_TYPES = (*[ReservationType.WRITE_EXCLUSIVE_REGISTRANTS_ONLY] * 4, *ReservationType)
_Out = PersistentReserveOut


@dataclass(frozen=True)
class Fencing:
    """How hosts use persistent reservations of a pair. ``think`` in seconds is a mean, ``preempt`` a chance."""

    pair: str
    think: float
    preempt: float


class Reserver:
    """One host's. ``client`` is its port, whose nexus is also the one that writes."""

    def __init__(
        self,
        fencing: Fencing,
        number: int,
        serial: str,
        random: Random,
        journal: Journal,
        tables: Tables,
    ) -> None:
        self._fencing = fencing
        self._number = number
        self._serial = serial
        self._random = random
        self._journal = journal
        self._tables = tables
        self._made = 0
        self._key = 0
        """Registered as far as is known; 0: not."""
        self._others: list[int] = []
        self._client: Client

    async def run(self, client: Client, may_work: Callable[[], bool]) -> None:
        """While ``may_work()``."""
        self._client, self._key = client, 0
        while True:
            await asyncio.sleep(self._fencing.think * self._random.expovariate(1.0))
            if not may_work():
                continue
            try:
                await self._step()
            except SessionError:
                self._key = 0  # nobody knows
                await asyncio.sleep(0.3 * self._random.random())

    async def _step(self) -> None:
        random = self._random
        if not self._key:
            await self._register()
            return
        chance = random.random()
        if chance < self._fencing.preempt:
            await self._preempt()
        elif chance < 0.55:
            answer = await self._order(_Out.RESERVE, self._key, kind=random.choice(_TYPES))
            if answer is Answer.CONFLICT and self._key and random.random() < 0.5:
                await self._preempt()
        elif chance < 0.60:
            held = await self._read_reservation()
            await self._order(_Out.RELEASE, self._key, kind=held[1] if held is not None else 1)
        elif chance < 0.63:
            await self._order(random.choice((_Out.CLEAR, _Out.REGISTER)), self._key)
            self._key = 0
        elif chance < 0.70:
            await self._register()
        else:
            await self._read_keys()

    async def _register(self) -> None:
        """With a key that nobody has had."""
        self._made += 1
        key = self._number << 32 | self._made
        ignoring = not self._key or self._random.random() < 0.3
        action = _Out.REGISTER_AND_IGNORE_EXISTING_KEY if ignoring else _Out.REGISTER
        old, self._key = self._key, 0
        if await self._order(action, old, key) is Answer.GOOD:
            self._key = key

    async def _preempt(self) -> None:
        victims = self._others or await self._read_keys()
        if victims and self._key:
            self._others = []
            action = _Out.PREEMPT_AND_ABORT if self._random.random() < 0.8 else _Out.PREEMPT
            await self._order(action, self._key, self._random.choice(victims), self._random.choice(_TYPES))

    async def _order(self, action: PersistentReserveOut, key: int, action_key: int = 0, kind: int = 0) -> Answer:
        """PERSISTENT RESERVE OUT, checked. Raises SessionError."""
        await self._client.session()
        data = BasicParameters(key, action_key).encode()
        order = ReservationOrder(self._client.nexus, 0, action, kind, data, (1,))
        begun = self._tables.begin_order(self._fencing.pair, self._serial, order)
        answer = Answer.NONE
        try:
            outcome = await self._execute(reserve_out_cdb(action, kind, len(data)), data, 0)
            answer = _answer(outcome)
        finally:
            self._journal.note(self._client.name, action.name, f"{key:x} {action_key:x} type {kind}:", answer.value)
            self._journal.outcomes[f"{action.name} {answer.name}"] += 1
            self._tables.end_order(begun, answer)
        if answer is Answer.CONFLICT:
            await self._read_keys()  # it may be preempted, or another one reserves
        elif answer is not Answer.GOOD:
            await asyncio.sleep(0.3 * self._random.random())
        return answer

    async def _execute(self, cdb: bytes, data: bytes, length: int) -> ScsiOutcome:
        lun = LUNS[self._fencing.pair]
        return await execute_past_unit_attention(self._client, lun, cdb, data, length, _SECONDS)

    async def _read(self, action: PersistentReserveIn) -> bytes | None:
        cdb = reserve_in_cdb(action, _REPORT_BYTES)
        outcome = await self._execute(cdb, b"", _REPORT_BYTES)
        good = outcome.status == ScsiStatus.GOOD
        self._journal.outcomes[f"{action.name} {'GOOD' if good else 'NONE'}"] += 1
        return outcome.data_in if good else None

    async def _read_keys(self) -> list[int]:
        """The others' keys, checked."""
        await self._client.session()
        begin = self._journal.clock()
        data = await self._read(PersistentReserveIn.READ_KEYS)
        if data is None:
            return []
        keys = [int.from_bytes(data[at : at + 8]) for at in range(8, len(data), 8)]
        self._journal.note(self._client.name, "reads keys", [f"{key:x}" for key in keys])
        self._tables.read_keys(self._fencing.pair, self._serial, begin, int.from_bytes(data[:4]), keys)
        self._others = [key for key in keys if key >> 32 != self._number]
        self._key = self._key if self._key in keys else 0
        return self._others

    async def _read_reservation(self) -> tuple[int, int] | None:
        await self._client.session()
        begin = self._journal.clock()
        data = await self._read(PersistentReserveIn.READ_RESERVATION)
        if data is None:
            return None
        held = (int.from_bytes(data[8:16]), data[21] & 0x0F) if len(data) > 8 else None
        self._tables.read_reservation(self._fencing.pair, self._serial, begin, held)
        return held

    async def clear(self) -> None:
        """At the end, when nothing is broken: keys are read, and anybody can register and clear."""
        for _ in range(_CLEARING_TRIES):
            self._key = 0
            try:
                await self._read_keys()
                await self._register()
                if self._key and await self._order(_Out.CLEAR, self._key) is Answer.GOOD:
                    return
            except SessionError:
                pass
            await asyncio.sleep(0.5)
        self._journal.violated(f"nothing is broken any more, but reservations of {self._fencing.pair} do not change")


def _answer(outcome: ScsiOutcome) -> Answer:
    if outcome.status == ScsiStatus.GOOD:
        return Answer.GOOD
    if outcome.status == ScsiStatus.RESERVATION_CONFLICT:
        return Answer.CONFLICT
    if outcome.status == ScsiStatus.CHECK_CONDITION and outcome.sense:
        return Answer.REFUSED if decode_sense(outcome.sense).sense_key == SenseKey.ILLEGAL_REQUEST else Answer.NONE
    return Answer.NONE
