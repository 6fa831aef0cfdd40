"""Hosts that race for the quorum volume with RESERVE, through their shims, and write to it when they have it."""

import asyncio
from random import Random

from initiator_shim.pair_client import execute_past_unit_attention
from initiator_shim.session_errors import SessionError
from scripts.simulation.clients import RELEASE, RESERVE
from scripts.torture_drill.journal import Journal
from scripts.torture_drill.ownership_history import Answer, OwnershipHistory, Request
from scripts.torture_drill.volumes import QUORUM
from scripts.torture_drill.writers import COMMAND_SECONDS, Initiator, TorturedVolume, refused_untouched
from storage_model.spec.scsi_task import ScsiStatus, TaskFunction

_THINK_SECONDS = 0.02
_BLOCKS_EACH = 8
_RESETS = 0.005
"""Few: a command that another host's reset aborts is never answered (SAM-5 5.6, TAS 0), and waited for in vain."""


def short_name(initiator_name: str) -> str:
    """What the history and the journal call a host."""
    return initiator_name.rpartition(":")[2]


class Witness:
    """Tells the history of each request, and the journal of what does not fit."""

    def __init__(self, history: OwnershipHistory, journal: Journal) -> None:
        self._history = history
        self._journal = journal

    def begin(self, request: Request, who: str) -> int:
        number = self._history.begin(request, who)
        self._journal.note(f"#{number}", who, request.name)
        return number

    def end(self, number: int, request: Request, who: str, answer: Answer) -> None:
        self._journal.note(f"#{number}", who, request.name, answer.name)
        self._judge(self._history.end(number, request, who, answer))

    def settle(self, owner: str | None, armed: bool | None) -> None:
        """See ``OwnershipHistory``."""
        self._judge(self._history.settle(owner, armed))

    def _judge(self, wrong: str) -> None:
        if wrong:
            self._journal.violated(f"ownership: {wrong}")


class ClusterHost:
    """A host of the cluster; its blocks of the quorum volume are its own."""

    def __init__(
        self, initiator: Initiator, volume: TorturedVolume, witness: Witness, journal: Journal, random: Random
    ) -> None:
        self.name = short_name(initiator.client.name)
        self._initiator = initiator
        self._volume = volume
        self._witness = witness
        self._journal = journal
        self._random = random
        self._owner = False
        self._blocks = range(initiator.number * _BLOCKS_EACH, (initiator.number + 1) * _BLOCKS_EACH)

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop``; what is under way then is finished."""
        while not stop.is_set():
            try:
                await self._one()
            except SessionError as error:
                self._journal.note(self.name, "fails:", error)
                self._owner = False
            await asyncio.sleep(_THINK_SECONDS * self._random.uniform(0, 2))

    async def _one(self) -> None:
        chance = self._random.random()
        if chance < _RESETS:
            await self._reset()
        elif chance < (0.25 if self._owner else 0.7):
            await self._reserve()
        elif self._owner and chance < 0.4:
            await self._release()
        else:
            await self._write()

    async def _reset(self) -> None:
        session = await self._initiator.client.session()
        self._journal.note(self.name, "LOGICAL UNIT RESET")
        await session.task_management(TaskFunction.LOGICAL_UNIT_RESET, QUORUM.lun, timeout=COMMAND_SECONDS)

    async def _ask(self, request: Request, cdb: bytes) -> int:
        """The status. Raises SessionError."""
        client = self._initiator.client
        await client.session()
        number, answer = self._witness.begin(request, self.name), Answer.UNKNOWN
        try:
            outcome = await execute_past_unit_attention(client, QUORUM.lun, cdb, b"", 0, COMMAND_SECONDS)
            answer = Answer.DONE if outcome.status == ScsiStatus.GOOD else Answer.REFUSED
        finally:
            self._witness.end(number, request, self.name, answer)
        return outcome.status

    async def _reserve(self) -> None:
        self._owner = False
        status = await self._ask(Request.RESERVE, RESERVE)
        self._owner = status == ScsiStatus.GOOD
        self._journal.counts["RESERVE GOOD" if self._owner else "RESERVE refused"] += 1

    async def _release(self) -> None:
        self._owner = False
        await self._ask(Request.RELEASE, RELEASE)
        self._journal.counts["RELEASE"] += 1

    async def _write(self) -> None:
        lba = self._random.choice(self._blocks)
        await self._initiator.client.session()
        number, answer = self._witness.begin(Request.WRITE, self.name), Answer.UNKNOWN
        try:
            outcome = await self._initiator.write(self._volume, range(lba, lba + 1))
            if outcome.status == ScsiStatus.GOOD:
                answer = Answer.DONE
            elif refused_untouched(outcome):
                answer = Answer.REFUSED
        finally:
            self._witness.end(number, Request.WRITE, self.name, answer)
        self._owner = self._owner and outcome.status != ScsiStatus.RESERVATION_CONFLICT
