"""A disk as a host sees it: one logical unit through one iSCSI session, with a host driver's patience.

UNIT ATTENTION is what a driver expects after a login or a reset, and BUSY what it waits out: both are tried again. All
else is the caller's to judge.
"""

import asyncio

from initiator_shim.initiator_task import ScsiOutcome
from initiator_shim.initiator_transport import IscsiSession
from scripts.failover_drill.records import RECORD_BYTES
from storage_model.errors import PairvolError
from storage_model.pair_state import Refusal
from storage_model.spec.pair_cdb import PairControlOut, PairOption, PairOut, PairStatus, encode_report_status
from storage_model.spec.scsi_cdb import OperationCode, encode_block_cdb
from storage_model.spec.scsi_sense import SenseKey, decode_sense
from storage_model.spec.scsi_task import ScsiStatus, TaskFunction
from storage_model.volume import Buffer

BLOCK_BYTES = RECORD_BYTES
_ATTEMPTS = 8
_BUSY_WAIT = 0.05
_STATUS_BYTES = 4096
_STATUSES = frozenset(int(status) for status in ScsiStatus)
_REFUSALS = {(refusal.sense_key, refusal.asc_ascq): refusal for refusal in Refusal}


class CommandFailed(PairvolError):
    """A command ended, but not with GOOD; ``outcome`` has its status and sense, ``refusal`` the array's reason."""

    def __init__(self, what: str, outcome: ScsiOutcome) -> None:
        self.outcome = outcome
        self.refusal = refusal_of(outcome)
        super().__init__(f"{what}: {describe(outcome)}")


def refusal_of(outcome: ScsiOutcome) -> Refusal | None:
    """Why the array ended a pair-control command abnormally; None when the sense data says something else."""
    if outcome.status != ScsiStatus.CHECK_CONDITION:
        return None
    try:
        sense = decode_sense(outcome.sense)
    except ValueError:
        return None
    return _REFUSALS.get((sense.sense_key, sense.asc_ascq))


def describe(outcome: ScsiOutcome) -> str:
    """The status, and what the sense data says, for a person."""
    name = (
        ScsiStatus(outcome.status).name.replace("_", " ") if outcome.status in _STATUSES else f"{outcome.status:02X}h"
    )
    if outcome.status != ScsiStatus.CHECK_CONDITION:
        return name
    refusal = refusal_of(outcome)
    if refusal is not None:
        return f"{name}, {refusal.text}"
    try:
        return f"{name} {decode_sense(outcome.sense)}"
    except ValueError:
        return name


def _try_again(outcome: ScsiOutcome) -> bool:
    if outcome.status in (ScsiStatus.BUSY, ScsiStatus.TASK_SET_FULL):
        return True
    if outcome.status != ScsiStatus.CHECK_CONDITION:
        return False
    try:
        return decode_sense(outcome.sense).sense_key == SenseKey.UNIT_ATTENTION
    except ValueError:
        return False


class Disk:
    """``deadline`` bounds each command in seconds. Every method raises SessionError when the session fails."""

    def __init__(self, session: IscsiSession, lun: int, deadline: float = 10.0) -> None:
        self._session = session
        self._lun = lun
        self._deadline = deadline

    async def execute(self, cdb: bytes, data_out: Buffer = b"", data_in_length: int = 0) -> ScsiOutcome:
        """One command, tried again after UNIT ATTENTION and BUSY."""
        for attempt in range(_ATTEMPTS):
            outcome = await self._session.execute(self._lun, cdb, data_out, data_in_length, timeout=self._deadline)
            if not _try_again(outcome):
                break
            if outcome.status != ScsiStatus.CHECK_CONDITION:
                await asyncio.sleep(_BUSY_WAIT * attempt)
        return outcome

    async def _expect_good(self, what: str, cdb: bytes, data_out: Buffer = b"", data_in_length: int = 0) -> bytes:
        outcome = await self.execute(cdb, data_out, data_in_length)
        if outcome.status != ScsiStatus.GOOD:
            raise CommandFailed(what, outcome)
        return bytes(outcome.data_in)

    async def ready(self) -> bool:
        """TEST UNIT READY; False on any status but GOOD."""
        return (await self.execute(bytes(6))).status == ScsiStatus.GOOD

    async def reserve(self) -> ScsiOutcome:
        """RESERVE(6) of the whole unit (SPC-2 7.21); the caller looks at the status."""
        return await self.execute(bytes((OperationCode.RESERVE_6, 0, 0, 0, 0, 0)))

    async def release(self) -> ScsiOutcome:
        """RELEASE(6) (SPC-2 7.16)."""
        return await self.execute(bytes((OperationCode.RELEASE_6, 0, 0, 0, 0, 0)))

    async def reset(self) -> int:
        """LOGICAL UNIT RESET, iSCSI's form of the bus device reset; the response code of RFC 7143 §11.6.1."""
        return await self._session.task_management(TaskFunction.LOGICAL_UNIT_RESET, self._lun, timeout=self._deadline)

    async def read(self, block: int, count: int) -> bytes:
        """``count`` blocks. Raises CommandFailed."""
        cdb = encode_block_cdb(OperationCode.READ_10, block, count)
        return await self._expect_good(f"READ of block {block}", cdb, data_in_length=count * BLOCK_BYTES)

    async def try_write(self, block: int, data: Buffer) -> ScsiOutcome:
        """A write whose refusal is as interesting as its success."""
        return await self.execute(encode_block_cdb(OperationCode.WRITE_10, block, len(data) // BLOCK_BYTES), data)

    async def write(self, block: int, data: Buffer) -> None:
        """Raises CommandFailed."""
        outcome = await self.try_write(block, data)
        if outcome.status != ScsiStatus.GOOD:
            raise CommandFailed(f"WRITE of block {block}", outcome)

    async def size_blocks(self) -> int:
        """READ CAPACITY(10)."""
        data = await self._expect_good("READ CAPACITY", bytes((OperationCode.READ_CAPACITY_10, *bytes(9))), b"", 8)
        return int.from_bytes(data[:4], "big") + 1

    async def pair_status(self) -> PairStatus:
        """REPORT PAIR STATUS. Raises CommandFailed."""
        data = await self._expect_good(
            "REPORT PAIR STATUS", encode_report_status(_STATUS_BYTES), data_in_length=_STATUS_BYTES
        )
        return PairStatus.decode(data)

    async def pair_control(self, verb: PairOut, options: PairOption = PairOption.NONE, expected_epoch: int = 0) -> None:
        """A pair-control command, in-band. Raises CommandFailed with the array's reason."""
        cdb = PairControlOut(verb, options, expected_epoch=expected_epoch).encode()
        await self._expect_good(verb.name.replace("_", " "), cdb)
