"""SANITIZE and FORMAT UNIT at work: a task of the logical unit, not of a command (SBC-3 4.11.2). [C]

No abort, reset or lost nexus ends it; a restart of the array continues it from the last checkpoint.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol, TypeAlias

from storage_model.errors import CheckCondition
from storage_model.medium_operation import MediumOperation, Method
from storage_model.spec.scsi_cdb import MaintenanceIn, OperationCode
from storage_model.spec.scsi_sense import SenseKey
from storage_model.volume import AtomicVolume, KeyedVolume, VolumeError

if TYPE_CHECKING:
    from target.scsi.command_row import CommandRow
    from target.scsi.logical_unit import LogicalUnit

log = logging.getLogger("pairvol.scsi")

WRITE_BYTES = 1 << 20
"""Of one write: other units are served between two."""
UNMAP_BYTES = 256 << 20
"""Of one unmap, which moves no data."""
CHECKPOINT_BYTES = 256 << 20
"""How much of the work a restart may have to repeat."""

Pace: TypeAlias = Callable[[int], Awaitable[None]]
"""Waits until so many bytes more may be written."""


class OperationNotes(Protocol):
    """Where a unit's operation survives a restart."""

    async def save(self, operation: MediumOperation | None) -> None:
        """Durable on return; None: there is none any more. Raises a ``VolumeError``."""
        ...


class NoNotes:
    """Of a volume whose data do not survive a restart either."""

    async def save(self, operation: MediumOperation | None) -> None:
        return


async def unpaced(length_bytes: int) -> None:
    """Full speed, but everything else has its turn in between."""
    await asyncio.sleep(0)


_C = OperationCode
# SBC-3 5.3.1
_DURING_FORMAT = {(_C.INQUIRY, None), (_C.REPORT_LUNS, None), (_C.REQUEST_SENSE, None)}
# SBC-3 4.11.2 and what tells nothing of the medium.
_DURING_SANITIZE = _DURING_FORMAT | {
    (_C.MAINTENANCE_IN, MaintenanceIn.REPORT_SUPPORTED_OPERATION_CODES),
    (_C.MAINTENANCE_IN, MaintenanceIn.REPORT_SUPPORTED_TASK_MANAGEMENT_FUNCTIONS),
    (_C.MAINTENANCE_IN, MaintenanceIn.REPORT_TARGET_PORT_GROUPS),
}


class BackgroundOperation:
    """One operation of ``lu``; it is ``lu.operation`` from before its first write until it has succeeded."""

    def __init__(self, lu: "LogicalUnit", operation: MediumOperation) -> None:
        self._lu = lu
        self.operation = operation
        self._done_bytes = operation.done_bytes
        self._task: asyncio.Task[None] | None = None
        self._step = asyncio.Event()

    @property
    def running(self) -> bool:
        return self._task is not None and not self._task.done()

    @property
    def failed(self) -> bool:
        return self.operation.failed

    # --- what commands meet

    def condition(self) -> CheckCondition:
        """What a command that has to wait ends with, and what REQUEST SENSE tells (SBC-3 4.11.2, 4.11.3, 5.3.1)."""
        operation = self.operation
        if operation.failed:
            return CheckCondition(SenseKey.MEDIUM_ERROR, operation.corrupt)
        progress = operation.progress(self._done_bytes)
        return CheckCondition(SenseKey.NOT_READY, operation.in_progress, progress=progress)

    def check(self, row: "CommandRow") -> None:
        """Raises ``CheckCondition`` for a command that this operation, or its failure, keeps out."""
        if row.operation_code == _C.PAIR_CONTROL_IN:  # ours: a pair's hosts and its other array always get an answer
            return
        operation = self.operation
        if operation.failed and row.operation_code in (_C.SANITIZE, _C.FORMAT_UNIT):
            # After a failed sanitize operation only another one helps, not a format (SBC-3 4.11.3).
            if row.operation_code == _C.SANITIZE or not operation.sanitizes:
                return
        elif operation.failed and not operation.sanitizes:
            if not row.touches_medium:
                return
        elif (row.operation_code, row.service_action) in (
            _DURING_SANITIZE if operation.sanitizes else _DURING_FORMAT
        ) or (operation.sanitizes and row.operation_code == _C.LOG_SENSE):
            return
        raise self.condition()

    async def progressed(self) -> None:
        """Returns when it has come a step further, has ended, or shall be looked at."""
        if self.running:
            await self._step.wait()

    def look_up(self) -> None:
        """Let go of whoever waits in :meth:`progressed`: a step may take long, at a low rate or beside others."""
        self._step.set()
        self._step = asyncio.Event()

    # --- its life

    async def begin(self, blockers: Awaitable[None]) -> None:
        """Note it, and start it once ``blockers`` lets go: the commands that were there before.

        Raises a ``VolumeError`` when it cannot be noted; then nothing has begun.
        """
        lu, before = self._lu, self._lu.operation
        lu.operation = self  # first: no command comes in any more
        try:
            await blockers
            await lu.operation_notes.save(self.operation)
        except BaseException:
            lu.operation = before
            raise
        self.resume()

    def resume(self) -> None:
        """Go on where the record is; after a failure, stay there."""
        self._lu.operation = self
        if self.failed:
            log.error("LUN %d: %s has failed before", self._lu.lun, self.operation.method.value)
            return
        log.info("LUN %d: %s begins%s", self._lu.lun, self.operation.method.value, self._percent())
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """The array ends, or serves the volume no longer; the notes say where to go on."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        lu = self._lu
        try:
            await self._work()
            await lu.operation_notes.save(None)
            lu.operation = None
            log.info("LUN %d: %s is done", lu.lun, self.operation.method.value)
        except Exception as error:  # of the volume, of the pair, or a bug of ours: in none of them is it done
            await self._fail(error)
        finally:
            self._step.set()

    async def _fail(self, error: Exception) -> None:
        self.operation = self.operation.as_failed()
        log.error("LUN %d: %s has failed%s: %r", self._lu.lun, self.operation.method.value, self._percent(), error)
        try:
            await self._lu.operation_notes.save(self.operation)
        except VolumeError as again:
            # The older note is still there: after a restart it is tried once more, which is no less safe.
            log.error("LUN %d: the failure cannot be noted: %s", self._lu.lun, again)

    async def _work(self) -> None:
        lu, operation = self._lu, self.operation
        if operation.sanitizes and isinstance(lu.volume, AtomicVolume):
            await lu.volume.forget_atomic_writes()
        noted = told = self._done_bytes
        while self._done_bytes < operation.total_bytes:
            number_of_pass, position = divmod(self._done_bytes, operation.size_bytes)
            length = await self._step_at(number_of_pass, position)
            self._done_bytes += length
            # Each pass has to be on the medium before the next: a cache would make one of both.
            end_of_pass = self._done_bytes % operation.size_bytes == 0
            if end_of_pass or self._done_bytes - noted >= CHECKPOINT_BYTES:
                await lu.volume.flush()
                noted = self._done_bytes
                self.operation = operation.at(noted)
                await lu.operation_notes.save(self.operation)
            if (self._done_bytes - told) * 10 >= operation.total_bytes:
                told = self._done_bytes
                log.info("LUN %d: %s%s", lu.lun, operation.method.value, self._percent())
            self.look_up()

    async def _step_at(self, number_of_pass: int, position: int) -> int:
        lu, operation = self._lu, self.operation
        left = operation.size_bytes - position
        if operation.method is Method.CRYPTOGRAPHIC_ERASE:
            assert isinstance(lu.volume, KeyedVolume)  # only then it is offered
            await lu.volume.replace_key()
            return left
        if not operation.pattern:
            length = min(UNMAP_BYTES, left)
            await lu.volume.unmap(position, length)
            await unpaced(length)
            return length
        length = min(WRITE_BYTES, left)
        block = operation.block(number_of_pass, lu.block_length)
        await lu.volume.write(position, block * (length // lu.block_length))
        await lu.pace(length)
        return length

    def _percent(self) -> str:
        return f" at {100 * self._done_bytes // self.operation.total_bytes} %" if self._done_bytes else ""
