"""An application whose writes depend on one another: a database's log, and its data, on two volumes of one group."""

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

from initiator_shim.initiator_task import ScsiOutcome
from initiator_shim.session_errors import SessionError
from scripts.simulation.groups import DATA, LOG, Epochs, Groups, lba_of
from storage_model.spec.scsi_task import ScsiStatus

_THINK = 0.02

WriteStep = Callable[[str, range, int], Awaitable[ScsiOutcome]]
"""Write a step of it to a pair's blocks, past the caches; raises SessionError."""


class Dependents:
    """One host's. A step that is not acknowledged is written again: nothing that depends on it may come before."""

    def __init__(self, writer: int, serial: str, random: Random, groups: Groups) -> None:
        self._writer = writer
        self._serial = serial
        self._random = random
        self._groups = groups
        self._step = 1
        self._logged = False
        self._epochs: Epochs | None = None

    async def run(self, write: WriteStep, may_work: Callable[[], bool]) -> None:
        """While ``may_work()``."""
        while True:
            await asyncio.sleep(_THINK * self._random.expovariate(1.0))
            if not may_work():
                continue
            pair = DATA if self._logged else LOG
            try:
                lba = lba_of(self._writer)
                outcome = await write(pair, range(lba, lba + 1), self._step)
            except SessionError:
                outcome = None
            if outcome is None or outcome.status != ScsiStatus.GOOD:
                await asyncio.sleep(0.3 * self._random.random())
                continue
            if self._logged:
                self._groups.done(self._writer, self._step, self._serial, self._epochs)
                self._step += 1
            else:
                self._epochs = self._groups.mirroring(self._serial)
            self._logged = not self._logged
