"""Logical block provisioning: UNMAP, WRITE SAME, GET LBA STATUS (SBC-3 4.7, 5.28, 5.40, 5.4). [C]

A fully provisioned unit has no management of provisioning (LBPME 0): no UNMAP at all, no UNMAP bit in WRITE SAME, and
every block of it is mapped (SBC-3 4.7.2).
"""

from collections.abc import Iterable, Iterator
from struct import Struct

from storage_model.errors import CheckCondition
from storage_model.spec import scsi_pages as pages
from storage_model.spec.scsi_cdb import ANCHOR, NDOB, UNMAP_ANCHOR, UNMAP_BIT, OperationCode, decode_block_cdb
from storage_model.spec.scsi_sense import AscAscq, SenseKey
from target.scsi.block_commands import CHUNK_BYTES, check_range, check_same_epoch, write_blocks
from target.scsi.command_context import CommandContext, invalid_field, invalid_parameter
from target.scsi.logical_unit import (
    MAXIMUM_UNMAP_BYTES,
    MAXIMUM_UNMAP_DESCRIPTORS,
    MAXIMUM_WRITE_SAME_BYTES,
    LogicalUnit,
)
from target.scsi.offered_commands import check_offered
from target.scsi.task import ScsiTask, TaskOutcome

_UNMAP_DESCRIPTOR = Struct(">QI4x")  # SBC-3 5.28.2: LBA, number of blocks
_MAXIMUM_STATUS_DESCRIPTORS = 1024


async def _unmap_blocks(lu: LogicalUnit, task: ScsiTask, lba: int, count: int) -> None:
    """Like a write of zeros, so that a COMPARE AND WRITE keeps it out too."""
    ranges, epoch = lu.write_ranges, lu.pair_epoch
    held = await ranges.share(lba, lba + count)
    try:
        check_same_epoch(lu, epoch)
        if not task.aborted:
            await lu.volume.unmap(lba * lu.block_length, count * lu.block_length)
            if lu.write_through:
                await lu.volume.flush()
    finally:
        ranges.release(held)


async def _anchor_blocks(lu: LogicalUnit, task: ScsiTask, lba: int, count: int) -> None:
    """The blocks read as zeros and keep their space, so that a later write cannot find the medium full.

    Blocks that shall be anchored may as well be mapped (SBC-3 4.7.3.2), which is what a file can promise: an extent
    that is allocated and yet unwritten looks like a hole to whoever asks for the state of a block.
    """
    await _fill(lu, task, lba, count, bytes(lu.block_length))


async def unmap(context: CommandContext) -> TaskOutcome:
    """All descriptors are checked before the first takes effect (SBC-3 5.28)."""
    lu, cdb = context.lu, context.cdb
    check_offered(context.row, lu)
    length = cdb[7] << 8 | cdb[8]
    if length == 0:
        return TaskOutcome()
    parameters = bytes(context.parameter_list(length))
    if length < 8:
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, AscAscq.PARAMETER_LIST_LENGTH_ERROR)
    descriptors_length = min(parameters[2] << 8 | parameters[3], length - 8)
    whole = descriptors_length // _UNMAP_DESCRIPTOR.size  # a partial last one is ignored (SBC-3 5.28.2)
    if whole > MAXIMUM_UNMAP_DESCRIPTORS:
        raise invalid_parameter(2)
    ranges = list(_UNMAP_DESCRIPTOR.iter_unpack(parameters[8 : 8 + whole * _UNMAP_DESCRIPTOR.size]))
    for lba, blocks in ranges:
        if blocks or lba > lu.block_count:  # none at the very end is none (SBC-3 5.28.2)
            check_range(lu, lba, blocks)
    if sum(blocks for _, blocks in ranges) * lu.block_length > MAXIMUM_UNMAP_BYTES:
        raise invalid_parameter(8)
    for lba, blocks in _joined(ranges):
        if cdb[1] & UNMAP_ANCHOR:
            await _anchor_blocks(lu, context.task, lba, blocks)
        elif not context.task.aborted:
            await _unmap_blocks(lu, context.task, lba, blocks)
    return TaskOutcome(transfer_length_bytes=length)


def _joined(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Ranges that follow each other as one: each is a call of the file system, which can only free whole pages."""
    lba, count = 0, 0
    for next_lba, next_count in ranges:
        if next_lba == lba + count:
            count += next_count
            continue
        if count:
            yield lba, count
        lba, count = next_lba, next_count
    if count:
        yield lba, count


async def write_same(context: CommandContext) -> TaskOutcome:
    """WRITE SAME 10, 16 (SBC-3 5.40). With UNMAP, zeros become a hole, which reads the same; other data is written.

    With ANCHOR as well, zeros are written: see ``_anchor_blocks``.

    No blocks mean all to the end, which a thin unit refuses (WSNZ 1): hosts discard with WRITE SAME, and a discard of
    nothing must not become one of everything.
    """
    lu, task = context.lu, context.task
    flags, lba, count = decode_block_cdb(context.cdb)
    no_data = context.cdb[0] == OperationCode.WRITE_SAME_16 and bool(flags & NDOB)
    if flags & UNMAP_BIT and not lu.thin:
        raise invalid_field(1, 3)
    if flags & ANCHOR and not flags & UNMAP_BIT:
        raise invalid_field(1, 4)
    check_range(lu, lba, count)
    to_the_end = not count
    if to_the_end:
        count = lu.block_count - lba
    if (to_the_end and lu.thin) or count * lu.block_length > MAXIMUM_WRITE_SAME_BYTES:
        raise invalid_field(7 if context.cdb[0] == OperationCode.WRITE_SAME_10 else 10)
    if not no_data and len(task.data_out) != lu.block_length:
        # Exactly one block is the pattern: with less or more it is not known what to write (SBC-3 5.40).
        raise invalid_field(1)
    pattern = bytes(lu.block_length) if no_data else bytes(task.data_out)
    if flags & UNMAP_BIT and not flags & ANCHOR and not any(pattern):
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
    if not lu.thin:
        return context.data_in(pages.lba_status([(lba, blocks, pages.LBA_STATUS_MAPPED)]), allocation_length)
    extents = await lu.volume.block_status(lba * lu.block_length, blocks * lu.block_length)
    descriptors: list[tuple[int, int, int]] = []
    for extent in extents[:wanted]:
        status = pages.LBA_STATUS_MAPPED if extent.mapped else pages.LBA_STATUS_DEALLOCATED
        descriptors.append((extent.offset_bytes // lu.block_length, extent.length_bytes // lu.block_length, status))
    return context.data_in(pages.lba_status(descriptors), allocation_length)
