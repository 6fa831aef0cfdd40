"""WRITE ATOMIC(16) (SBC-4 5.48, 4.29) and ORWRITE(16) (SBC-3 5.6): steps that nothing comes between. [C]

WRITE ATOMIC keeps reads and writes of its blocks out while it runs (SBC-4 4.29.3.2), and leaves all of its data or none
behind, whatever ends it: that is the volume's work, and only of a volume that can do it. The half of a pair cannot:
its other half writes in pieces of its own.
"""

from asyncio import Event

from storage_model.spec.scsi_cdb import FUA, OperationCode
from storage_model.volume import AtomicVolume
from target.scsi.block_commands import CHUNK_BYTES, check_range, check_same_epoch, checked_transfer, received_blocks
from target.scsi.command_context import CommandContext, invalid_field
from target.scsi.logical_unit import MAXIMUM_ATOMIC_WRITE_BYTES, LogicalUnit
from target.scsi.offered_commands import check_offered
from target.scsi.task import ScsiTask, TaskOutcome

_READS_NOTHING = (
    OperationCode.WRITE_ATOMIC_16,
    OperationCode.EXTENDED_COPY,  # the reads of a copy are commands of their own
    OperationCode.PERSISTENT_RESERVE_OUT,
    OperationCode.SANITIZE,
    OperationCode.FORMAT_UNIT,
)
"""No need to wait for these, of which some wait for others: PREEMPT AND ABORT for the commands that it aborts."""


async def write_atomic(context: CommandContext) -> TaskOutcome:
    """ATOMIC BOUNDARY has been refused by the usage mask; alignment and granularity are those of a physical block."""
    lu, task, cdb = context.lu, context.task, context.cdb
    check_offered(context.row, lu)
    volume = lu.volume
    assert isinstance(volume, AtomicVolume)  # only then it is offered
    lba, count = int.from_bytes(cdb[2:10], "big"), cdb[12] << 8 | cdb[13]
    check_range(lu, lba, count)
    length = count * lu.block_length
    if length > MAXIMUM_ATOMIC_WRITE_BYTES:
        raise invalid_field(12)
    if lu.physical_block_length != lu.block_length:
        _check_aligned(lu, lba, count)
    if not count:
        return TaskOutcome()
    if len(task.data_out) != length:
        # With less than all there is nothing that could be written whole: unlike a WRITE's, this residual is an error.
        raise invalid_field(12)
    await _guard_reads(lu, task)
    held = await lu.write_ranges.exclude(lba, lba + count)
    try:
        if not task.aborted:
            await volume.write_atomic(lba * lu.block_length, task.data_out)
    finally:
        lu.write_ranges.release(held)
    return TaskOutcome(transfer_length_bytes=length)


def _check_aligned(lu: LogicalUnit, lba: int, count: int) -> None:
    """ATOMIC ALIGNMENT and ATOMIC TRANSFER LENGTH GRANULARITY of the block limits page (SBC-4 6.6.4)."""
    unit = lu.physical_block_length // lu.block_length
    if lba % unit:
        raise invalid_field(2)
    if count % unit:
        raise invalid_field(12)


async def _guard_reads(lu: LogicalUnit, task: ScsiTask) -> None:
    """From the first WRITE ATOMIC of a unit on, its reads enter their ranges, which costs them time.

    The first one waits for the commands that were here before it and may be reading without; who waits for whom is
    settled by age, and what reads nothing is left out, so that nobody waits in a ring.
    """
    ranges = lu.write_ranges
    if ranges.reads_guarded is None:
        ranges.reads_guarded = Event()
        older = []
        for other in lu.tasks.all():
            if other is task:
                break
            # What waits for its turn has not begun, and enters its range when it does.
            if other.cdb[0] not in _READS_NOTHING and not lu.tasks.waits_for_turn(other):
                older.append(other)
        lu.tasks.when_ended(older, ranges.reads_guarded.set)
    await ranges.reads_guarded.wait()


async def orwrite(context: CommandContext) -> TaskOutcome:
    """Each bit of the blocks becomes 1 where the Data-Out has a 1; an uninterrupted series of actions (SBC-3 5.6)."""
    lu, task = context.lu, context.task
    flags, lba, count = checked_transfer(context)
    data = received_blocks(context, count)
    if data:
        epoch = lu.pair_epoch
        held = await lu.write_ranges.exclude(lba, lba + len(data) // lu.block_length)
        try:
            fua = bool(flags & FUA) or lu.write_through
            await _set_bits(lu, task, lba * lu.block_length, memoryview(data), epoch, fua=fua)
        finally:
            lu.write_ranges.release(held)
    return TaskOutcome(transfer_length_bytes=count * lu.block_length)


async def _set_bits(
    lu: LogicalUnit, task: ScsiTask, offset_bytes: int, data: memoryview, epoch: int, *, fua: bool
) -> None:
    for start in range(0, len(data), CHUNK_BYTES):
        ones = data[start : start + CHUNK_BYTES]
        before = await lu.volume.read(offset_bytes + start, len(ones))
        if task.aborted:
            return
        check_same_epoch(lu, epoch)
        either = int.from_bytes(before, "big") | int.from_bytes(ones, "big")
        await lu.volume.write(offset_bytes + start, either.to_bytes(len(ones), "big"), fua=fua)
