"""Thin provisioning: UNMAP, WRITE SAME, GET LBA STATUS (SBC-3 4.7, 5.28, 5.40, 5.4). [C]"""

from storage_model.errors import CheckCondition
from storage_model.spec import scsi_pages as pages
from storage_model.spec.scsi_cdb import NDOB, UNMAP_BIT, OperationCode, decode_block_cdb
from storage_model.spec.scsi_sense import AscAscq, SenseKey
from target.scsi.block_commands import CHUNK_BYTES, check_range, write_blocks
from target.scsi.command_context import CommandContext, invalid_field, invalid_parameter
from target.scsi.logical_unit import (
    MAXIMUM_UNMAP_BYTES,
    MAXIMUM_UNMAP_DESCRIPTORS,
    MAXIMUM_WRITE_SAME_BYTES,
    LogicalUnit,
)
from target.scsi.task import ScsiTask, TaskOutcome

_UNMAP_DESCRIPTOR_LENGTH = 16
_MAXIMUM_STATUS_DESCRIPTORS = 1024


async def _unmap_blocks(lu: LogicalUnit, task: ScsiTask, lba: int, count: int) -> None:
    """Like a write of zeros, so that a COMPARE AND WRITE keeps it out too."""
    ranges = lu.write_ranges
    held = await ranges.share(lba, lba + count)
    try:
        if not task.aborted:
            await lu.volume.unmap(lba * lu.block_length, count * lu.block_length)
    finally:
        ranges.release(held)


async def unmap(context: CommandContext) -> TaskOutcome:
    """All descriptors are checked before the first takes effect (SBC-3 5.28)."""
    lu, cdb = context.lu, context.cdb
    length = cdb[7] << 8 | cdb[8]
    if length == 0:
        return TaskOutcome()
    parameters = bytes(context.parameter_list(length))
    if length < 8:
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, AscAscq.PARAMETER_LIST_LENGTH_ERROR)
    descriptors_length = min(parameters[2] << 8 | parameters[3], length - 8)
    whole = descriptors_length // _UNMAP_DESCRIPTOR_LENGTH  # a partial last one is ignored (SBC-3 5.28.2)
    if whole > MAXIMUM_UNMAP_DESCRIPTORS:
        raise invalid_parameter(2)
    ranges = []
    for index in range(whole):
        descriptor = pages.UNMAP_DESCRIPTOR.parse(parameters[8 + index * _UNMAP_DESCRIPTOR_LENGTH :])
        if descriptor.blocks or descriptor.lba > lu.block_count:  # none at the very end is none (SBC-3 5.28.2)
            check_range(lu, descriptor.lba, descriptor.blocks)
        ranges.append((int(descriptor.lba), int(descriptor.blocks)))
    if sum(blocks for _, blocks in ranges) * lu.block_length > MAXIMUM_UNMAP_BYTES:
        raise invalid_parameter(8)
    for lba, blocks in ranges:
        if blocks and not context.task.aborted:
            await _unmap_blocks(lu, context.task, lba, blocks)
    return TaskOutcome(transfer_length_bytes=length)


async def write_same(context: CommandContext) -> TaskOutcome:
    """WRITE SAME 10, 16 (SBC-3 5.40). With UNMAP, zeros become a hole, which reads the same; other data is written."""
    lu, task = context.lu, context.task
    flags, lba, count = decode_block_cdb(context.cdb)
    no_data = context.cdb[0] == OperationCode.WRITE_SAME_16 and bool(flags & NDOB)
    check_range(lu, lba, count)
    if count == 0 or count * lu.block_length > MAXIMUM_WRITE_SAME_BYTES:  # WSNZ, MAXIMUM WRITE SAME LENGTH
        raise invalid_field(7 if context.cdb[0] == OperationCode.WRITE_SAME_10 else 10)
    if not no_data and len(task.data_out) != lu.block_length:
        # Exactly one block is the pattern: with less or more it is not known what to write (SBC-3 5.40).
        raise invalid_field(1)
    pattern = bytes(lu.block_length) if no_data else bytes(task.data_out)
    if flags & UNMAP_BIT and not any(pattern):
        await _unmap_blocks(lu, task, lba, count)
    else:
        await _fill(lu, task, lba, count, pattern)
    return TaskOutcome(transfer_length_bytes=0 if no_data else lu.block_length)


async def _fill(lu: LogicalUnit, task: ScsiTask, lba: int, count: int, pattern: bytes) -> None:
    step = CHUNK_BYTES // lu.block_length
    chunk = memoryview(pattern * min(step, count))
    for first in range(lba, lba + count, step):
        if task.aborted:
            return
        blocks = min(step, lba + count - first)
        await write_blocks(lu, task, first, chunk[: blocks * lu.block_length], fua=False)


async def get_lba_status(context: CommandContext) -> TaskOutcome:
    """From the starting LBA on, as far as the allocation length and the volume's answer reach (SBC-3 5.4)."""
    lu, cdb = context.lu, context.cdb
    lba, allocation_length = int.from_bytes(cdb[2:10], "big"), int.from_bytes(cdb[10:14], "big")
    check_range(lu, lba, 1)
    wanted = min(max((allocation_length - 8) // 16, 1), _MAXIMUM_STATUS_DESCRIPTORS)
    blocks = min(lu.block_count - lba, 0xFFFFFFFF)
    extents = await lu.volume.block_status(lba * lu.block_length, blocks * lu.block_length)
    descriptors: list[tuple[int, int, int]] = []
    for extent in extents[:wanted]:
        status = pages.LBA_STATUS_MAPPED if extent.mapped else pages.LBA_STATUS_DEALLOCATED
        descriptors.append((extent.offset_bytes // lu.block_length, extent.length_bytes // lu.block_length, status))
    return context.data_in(pages.lba_status(descriptors), allocation_length)
