"""What SANITIZE and FORMAT UNIT need of the array: a pace, notes that survive a restart, an end in time. [IO]"""

import asyncio
import logging
from dataclasses import replace

from storage_model.medium_operation import MediumOperation
from storage_model.pair_state import PairRole
from target.metadata_store import MetadataStore
from target.scsi.background_operation import BackgroundOperation
from target.scsi.logical_unit import LogicalUnit

log = logging.getLogger("pairvol.array")


class Pace:
    """At most so many bytes per second, of all the operations that share it."""

    def __init__(self, bytes_per_second: int) -> None:
        self._seconds_per_byte = 1 / bytes_per_second
        self._free_at = 0.0

    async def __call__(self, length_bytes: int) -> None:
        now = asyncio.get_running_loop().time()
        self._free_at = max(self._free_at, now) + length_bytes * self._seconds_per_byte
        await asyncio.sleep(self._free_at - now)


class VolumeNotes:
    """One volume's row of the metadata, which names its file, too."""

    def __init__(self, store: MetadataStore, volume_name: str, file: str) -> None:
        self._store = store
        self.volume_name = volume_name
        self.file = file

    async def save(self, operation: MediumOperation | None) -> None:
        noted = None if operation is None else replace(operation, file=self.file)
        await self._store.save_operation(self.volume_name, noted)


class MediumOperations:
    """Of one array; ``bytes_per_second`` bounds what all of them together write."""

    def __init__(self, store: MetadataStore, bytes_per_second: int) -> None:
        self._store = store
        self._pace = Pace(bytes_per_second)
        self._left = store.load_operations()

    def attach(self, unit: LogicalUnit, volume_name: str, file: str | None) -> None:
        """Before the unit serves. What was left undone keeps hosts out from now on; ``resume`` goes on with it.

        ``file`` as it is configured; None: in memory.
        """
        unit.pace = self._pace
        if file is None:
            return  # its data do not survive a restart: neither does what is done to them
        unit.operation_notes = VolumeNotes(self._store, volume_name, file)
        operation = self._left.pop(volume_name, None)
        if operation is None:
            return
        reason = None
        # Another volume by that name, which nobody wanted to erase: names may be those that the command line counts.
        if operation.file != file or operation.size_bytes > unit.block_count * unit.block_length:
            reason = f"was begun on {operation.file} and is not finished: {file}"
        elif unit.pair is not None and unit.pair.status().role is not PairRole.SMPL:
            reason = "is not finished, and the volume is half of a pair now: it"
        if reason is not None:
            log.error("volume %s: %s %s is locked away, not written", volume_name, operation.method.value, reason)
            operation = operation.as_failed()
        unit.operation = BackgroundOperation(unit, operation)

    def resume(self, unit: LogicalUnit) -> None:
        """Once its volume can be written."""
        if unit.operation is not None:
            unit.operation.resume()

    async def detach(self, unit: LogicalUnit) -> None:
        """Before the volume is closed: stop where it is."""
        if unit.operation is not None:
            await unit.operation.stop()
        if unit.operation is not None and isinstance(unit.operation_notes, VolumeNotes):
            notes = unit.operation_notes
            self._left[notes.volume_name] = replace(unit.operation.operation, file=notes.file)
