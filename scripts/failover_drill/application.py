"""An application: it writes numbered records to one data volume, one after another, and says so only after GOOD."""

import asyncio
from collections.abc import Callable

from initiator_shim.session_errors import SessionError
from scripts.failover_drill.disk import Disk, describe
from scripts.failover_drill.records import LABEL, AcknowledgementLog, Record, records_in
from storage_model.spec.scsi_task import ScsiStatus

_SCAN_BLOCKS = 512


class Application:
    """``failed`` is called with a sentence when the volume no longer takes writes; the application has then ended."""

    def __init__(
        self,
        volume: int,
        host: int,
        disk: Disk,
        log: AcknowledgementLog,
        interval: float,
        failed: Callable[[int, str], None],
    ) -> None:
        self.volume = volume
        self.last_acknowledged = LABEL
        self._host = host
        self._disk = disk
        self._log = log
        self._interval = interval
        self._failed = failed
        self._next = LABEL
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    async def mount(self) -> int:
        """Find the last record on the volume, and label it if it is new; the number of the last record.

        A record that was written but never acknowledged counts: its number is taken. Raises CommandFailed.
        """
        size = await self._disk.size_blocks()
        end = LABEL
        while end < size:
            count = min(_SCAN_BLOCKS, size - end)
            found = [record is not None for record in records_in(await self._disk.read(end, count), self.volume, end)]
            if not all(found):
                end += found.index(False)
                break
            end += count
        self._next = end
        if end == LABEL:
            await self._disk.write(LABEL, Record(self.volume, self._host, LABEL).encode())
            self._next = LABEL + 1
        return self._next - 1

    def start(self) -> int:
        """Begin to write; the number of the first record to come."""
        assert self._task is None, "an application starts once"
        self._task = asyncio.create_task(self._run())
        return self._next

    @property
    def running(self) -> bool:
        return self._task is not None and not self._task.done()

    async def stop(self) -> None:
        """A write in flight is waited for, so that its acknowledgement is not lost to the count."""
        if self._task is not None:
            self._stopping = True
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        size = await self._disk.size_blocks()
        while self._next < size and not self._stopping:
            record = Record(self.volume, self._host, self._next)
            try:
                outcome = await self._disk.try_write(record.sequence, record.encode())
            except SessionError as error:
                self._failed(self.volume, str(error))
                return
            if outcome.status != ScsiStatus.GOOD:
                self._failed(self.volume, f"WRITE of record {record.sequence}: {describe(outcome)}")
                return
            self._log.acknowledge(record)
            self.last_acknowledged = record.sequence
            self._next += 1
            await asyncio.sleep(self._interval)
