"""Commands that move or check blocks (SBC-3 5): READ and WRITE are the data path, few calls and one copy. [C]"""

from collections.abc import Awaitable
from typing import Final

from storage_model.errors import CheckCondition
from storage_model.spec import scsi_pages as pages
from storage_model.spec.scsi_cdb import FUA, cdb_length, decode_block_cdb
from storage_model.spec.scsi_sense import AscAscq, SenseKey
from storage_model.spec.scsi_task import ScsiStatus
from storage_model.volume import Buffer
from target.scsi.command_context import CommandContext, invalid_field
from target.scsi.logical_unit import MAXIMUM_COMPARE_AND_WRITE_BLOCKS, MAXIMUM_TRANSFER_BYTES, LogicalUnit
from target.scsi.task import ScsiTask, TaskOutcome

CHUNK_BYTES = 1 << 20
"""A command without a transfer limit works in pieces of this size, and looks between them whether it was aborted."""

VOLUME_WRITE_BYTES: Final = 4 << 20
"""At most this much in one write of the volume: a mirrored one has to fit a frame of the remote-copy link."""

_GOOD: Final = ScsiStatus.GOOD
_TRANSFER_LENGTH_BYTE = {6: 4, 10: 7, 12: 6, 16: 10}


def check_range(lu: LogicalUnit, lba: int, count: int) -> None:
    """LOGICAL BLOCK ADDRESS OUT OF RANGE, also for no blocks at an address beyond the last (SBC-3 4.5.2)."""
    if lba + count > lu.block_count or lba >= lu.block_count:
        raise CheckCondition(
            SenseKey.ILLEGAL_REQUEST, AscAscq.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE, information=max(lba, lu.block_count)
        )


def check_medium(lu: LogicalUnit) -> None:
    """A unit that is stopped still knows its capacity; one without a medium has none (SBC-3 5.15)."""
    if not lu.loaded:
        raise CheckCondition(SenseKey.NOT_READY, AscAscq.MEDIUM_NOT_PRESENT)


def checked_transfer(context: CommandContext) -> tuple[int, int, int]:
    """Flags, LBA and count of a data transfer, checked against capacity and MAXIMUM TRANSFER LENGTH (SBC-3 6.6.4)."""
    lu = context.lu
    fields = context.row.decode_blocks(context.cdb)
    _, lba, count = fields
    block_count = lu.block_count
    if lba + count > block_count or lba >= block_count:
        check_range(lu, lba, count)
    if count * lu.block_length > MAXIMUM_TRANSFER_BYTES:
        raise invalid_field(_TRANSFER_LENGTH_BYTE[cdb_length(context.cdb[0])])
    return fields


def received_blocks(context: CommandContext, count: int) -> Buffer:
    """The Data-Out that the command may use: whole blocks, at most ``count``.

    An initiator whose Expected Data Transfer Length is less than the CDB asks for has what it sent written, and reads
    the difference in the residual count (RFC 7143 §11.4.5.1).
    """
    data, block_length = context.task.data_out, context.lu.block_length
    if len(data) == count * block_length:
        return data
    usable = min(len(data) // block_length, count) * block_length
    return memoryview(data)[:usable]


async def write_blocks(
    lu: LogicalUnit, task: ScsiTask, lba: int, data: Buffer, transfer_length_bytes: int = 0, *, fua: bool
) -> TaskOutcome:
    """Write whole blocks, outside the range of any COMPARE AND WRITE under way; nothing once the task is aborted.

    The outcome is that of a command that does nothing else, so that a WRITE needs no coroutine of its own.
    """
    if data:
        length, block_length, ranges = len(data), lu.block_length, lu.write_ranges
        end = lba + length // block_length
        epoch: int | None = None
        if ranges.exclusive:
            epoch = lu.pair_epoch
            held = await ranges.share(lba, end)
        else:
            held = ranges.enter(lba, end)
        try:
            if epoch is not None:
                check_same_epoch(lu, epoch)
            if not task.aborted:
                if length <= VOLUME_WRITE_BYTES:
                    await lu.volume.write(lba * block_length, data, fua=fua or lu.write_through)
                else:
                    await _write_pieces(lu, task, lba * block_length, memoryview(data), fua=fua or lu.write_through)
        finally:
            ranges.release(held)
    return TaskOutcome(_GOOD, b"", b"", transfer_length_bytes)


async def _write_pieces(lu: LogicalUnit, task: ScsiTask, offset_bytes: int, data: memoryview, *, fua: bool) -> None:
    for start in range(0, len(data), VOLUME_WRITE_BYTES):
        if task.aborted:
            return
        await lu.volume.write(offset_bytes + start, data[start : start + VOLUME_WRITE_BYTES], fua=fua)


def read(context: CommandContext) -> Awaitable[TaskOutcome] | TaskOutcome:
    """READ 6, 10, 12, 16 (SBC-3 5.9 to 5.12). FUA: what the cache holds of it reaches the medium first."""
    flags, lba, count = checked_transfer(context)
    if not count:
        return TaskOutcome()
    lu = context.lu
    if lu.direct is not None and not flags & FUA and lu.write_ranges.reads_guarded is None:
        length = count * lu.block_length
        if context.task.may_borrow and (lent := lu.direct.lend_now(lba * lu.block_length, length)) is not None:
            return TaskOutcome(_GOOD, b"", b"", length, lent)
        data = lu.direct.read_now(lba * lu.block_length, length)
        if data is not None:
            return TaskOutcome(_GOOD, data, b"", length)
    return _read(lu, flags, lba, count)


async def _read(lu: LogicalUnit, flags: int, lba: int, count: int) -> TaskOutcome:
    block_length = lu.block_length
    length = count * block_length
    if flags & FUA:
        await lu.volume.flush()
    if lu.write_ranges.reads_guarded is None:
        data = await lu.volume.read(lba * block_length, length)
    else:
        data = await read_blocks(lu, lba, count)
    return TaskOutcome(_GOOD, data, b"", length)


async def read_blocks(lu: LogicalUnit, lba: int, count: int) -> Buffer:
    """Read whole blocks; of what a WRITE ATOMIC writes meanwhile, all or nothing (SBC-4 4.29.3.2)."""
    ranges, block_length = lu.write_ranges, lu.block_length
    if ranges.reads_guarded is None:
        return await lu.volume.read(lba * block_length, count * block_length)
    held = await ranges.share(lba, lba + count)
    try:
        return await lu.volume.read(lba * block_length, count * block_length)
    finally:
        ranges.release(held)


def write(context: CommandContext) -> Awaitable[TaskOutcome] | TaskOutcome:
    """WRITE 6, 10, 12, 16 (SBC-3 5.30 to 5.33)."""
    flags, lba, count = checked_transfer(context)
    lu, data = context.lu, received_blocks(context, count)
    direct, offset, length = lu.direct, lba * lu.block_length, count * lu.block_length
    if direct is None or not data or flags & FUA or lu.write_through or lu.write_ranges.exclusive:
        pass
    elif direct.write_now(offset, data):
        return TaskOutcome(_GOOD, b"", b"", length)
    elif lu.mirrored is not None:
        # In no range of the unit: for those who come later it has been made, as READ shows it. COMPARE AND WRITE finds
        # it, too, and miscompares with what the other array may not have yet; what it writes waits for this one.
        outcome = lu.mirrored.write_soon(offset, data, TaskOutcome(_GOOD, b"", b"", length))
        if outcome is not None:
            return outcome
    return write_blocks(lu, context.task, lba, data, length, fua=flags & FUA != 0)


async def write_and_verify(context: CommandContext) -> TaskOutcome:
    """WRITE AND VERIFY 10, 12, 16 (SBC-3 5.34): on the medium, then with BYTCHK 01b read back and compared."""
    flags, lba, count = checked_transfer(context)
    byte_check = flags >> 1 & 0x03
    if byte_check > 1:
        raise invalid_field(1, 2)
    data = received_blocks(context, count)
    await write_blocks(context.lu, context.task, lba, data, fua=True)
    if byte_check == 1 and data:
        await _compare(context.lu, lba, data)
    return TaskOutcome(transfer_length_bytes=count * context.lu.block_length)


async def verify(context: CommandContext) -> TaskOutcome:
    """VERIFY 10, 12, 16 (SBC-3 5.29). BYTCHK: 0 can it be read, 1 equal to the data, 3 each block equal to the one."""
    lu, task = context.lu, context.task
    flags, lba, count = decode_block_cdb(context.cdb)
    byte_check = flags >> 1 & 0x03
    if byte_check == 2:
        raise invalid_field(1, 2)
    check_range(lu, lba, count)
    if byte_check == 1:
        checked_transfer(context)
        data = received_blocks(context, count)
        if data:
            await _compare(lu, lba, data)
        return TaskOutcome(transfer_length_bytes=count * lu.block_length)
    pattern = bytes(received_blocks(context, 1)) if byte_check == 3 and count else b""
    step = CHUNK_BYTES // lu.block_length
    for first in range(lba, lba + count, step):
        if task.aborted:
            break
        blocks = min(step, lba + count - first)
        if pattern:
            await _compare(lu, first, pattern * blocks, wrap=lu.block_length)
        elif await _allocated(lu, first, blocks):  # a hole has no medium that could be bad
            await read_blocks(lu, first, blocks)
    return TaskOutcome(transfer_length_bytes=lu.block_length if byte_check == 3 and count else 0)


async def _allocated(lu: LogicalUnit, lba: int, count: int) -> bool:
    extents = await lu.volume.block_status(lba * lu.block_length, count * lu.block_length)
    return any(extent.mapped for extent in extents)


async def _compare(lu: LogicalUnit, lba: int, expected: Buffer, *, wrap: int = 0) -> None:
    """MISCOMPARE with the offset of the first unequal byte in the Data-Out (SBC-3 5.29); ``wrap``: of its one block."""
    _check_equal(await read_blocks(lu, lba, len(expected) // lu.block_length), expected, wrap)


def _check_equal(actual: Buffer, expected: Buffer, wrap: int = 0) -> None:
    if actual == expected:
        return
    offset = first_difference(actual, expected)
    raise CheckCondition(
        SenseKey.MISCOMPARE,
        AscAscq.MISCOMPARE_DURING_VERIFY_OPERATION,
        information=offset % wrap if wrap else offset,
    )


def first_difference(one: Buffer, other: Buffer) -> int:
    """Index of the first unequal byte of two buffers of one length that are not equal."""
    low, high = 0, len(one)
    one, other = memoryview(one), memoryview(other)
    while high - low > 1:  # halve towards it: comparing slices is far quicker than bytes
        middle = (low + high) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
    return low


async def compare_and_write(context: CommandContext) -> TaskOutcome:
    """SBC-3 5.2: one indivisible step over at most 255 blocks; the Data-Out is what is expected, then what to write."""
    lu, task, cdb = context.lu, context.task, context.cdb
    lba, count = int.from_bytes(cdb[2:10], "big"), cdb[13]
    if count > MAXIMUM_COMPARE_AND_WRITE_BLOCKS:
        raise invalid_field(13)
    check_range(lu, lba, count)
    length = count * lu.block_length
    if len(task.data_out) != 2 * length:
        # What is to be compared ends where what is to be written begins: with less or more data than the count says, it
        # is not known where. Unlike a WRITE with a residual, this is refused.
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, AscAscq.INVALID_FIELD_IN_CDB, field_pointer=13)
    if not count:
        return TaskOutcome()
    data = memoryview(task.data_out)
    epoch = lu.pair_epoch
    held = await lu.write_ranges.exclude(lba, lba + count)
    try:
        _check_equal(await lu.volume.read(lba * lu.block_length, length), data[:length])
        check_same_epoch(lu, epoch)
        if not task.aborted:
            fua = bool(cdb[1] & FUA) or lu.write_through
            await lu.volume.write(lba * lu.block_length, data[length : 2 * length], fua=fua)
    finally:
        lu.write_ranges.release(held)
    return TaskOutcome(transfer_length_bytes=2 * length)


def check_same_epoch(lu: LogicalUnit, epoch: int) -> None:
    """After a wait, before a write: the command was let through in ``epoch``, by the owner and with the data of then.

    In another one the initiator has to ask again.
    """
    if lu.pair_epoch != epoch:
        raise CheckCondition(SenseKey.ABORTED_COMMAND, AscAscq.NO_ADDITIONAL_SENSE)


async def synchronize_cache(context: CommandContext) -> TaskOutcome:
    """SBC-3 5.26: the whole cache, whatever the range. IMMED may be answered late; nothing is promised by it."""
    _, lba, count = decode_block_cdb(context.cdb)
    check_range(context.lu, lba, count)
    await context.lu.volume.flush()
    return TaskOutcome()


async def pre_fetch(context: CommandContext) -> TaskOutcome:
    """SBC-3 5.7: GOOD says that the cache may not hold all of it; the host's page cache decides that better."""
    _, lba, count = decode_block_cdb(context.cdb)
    check_range(context.lu, lba, count)
    return TaskOutcome()


async def read_capacity_10(context: CommandContext) -> TaskOutcome:
    """SBC-3 5.15: FFFFFFFFh sends the initiator to READ CAPACITY(16)."""
    lu = context.lu
    check_medium(lu)
    last = min(lu.block_count - 1, 0xFFFFFFFF)
    return context.data_in(pages.READ_CAPACITY_10.build({"last_lba": last, "block_length": lu.block_length}), 8)


async def read_capacity_16(context: CommandContext) -> TaskOutcome:
    """SBC-3 5.16: no protection information; when thin provisioned, unmapped blocks read as zeros."""
    lu = context.lu
    check_medium(lu)
    data = pages.READ_CAPACITY_16.build(
        {
            "last_lba": lu.block_count - 1,
            "block_length": lu.block_length,
            "protection": 0,
            "exponents": (lu.physical_block_length // lu.block_length).bit_length() - 1,
            "provisioning": pages.LBPME_LBPRZ if lu.thin else 0,
        }
    )
    return context.data_in(data, int.from_bytes(context.cdb[10:14], "big"))


async def read_defect_data_10(context: CommandContext) -> TaskOutcome:
    """SBC-3 5.17: the lists asked for, both empty: a file has no defects."""
    cdb = context.cdb
    return context.data_in(bytes((0, cdb[2] & 0x1F, 0, 0)), cdb[7] << 8 | cdb[8])


async def read_defect_data_12(context: CommandContext) -> TaskOutcome:
    """SBC-3 5.18."""
    cdb = context.cdb
    return context.data_in(bytes((0, cdb[1] & 0x1F)) + b"\0" * 6, int.from_bytes(cdb[6:10], "big"))
