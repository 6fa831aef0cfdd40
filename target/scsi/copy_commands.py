"""EXTENDED COPY(LID1) and RECEIVE COPY RESULTS (SPC-4 6.4): blocks from one unit of the array to another. [C]

The copy manager is an initiator to the units it copies between: it sends READ and WRITE commands through the device
server, for the I_T nexus that asked for the copy. So a copy can do nothing that this nexus could not do itself:
LUN masks, reservations, write protection, pairs and access states hold for it, and hold anew for every piece.
"""

import logging
from dataclasses import dataclass

from storage_model.errors import CheckCondition
from storage_model.spec.scsi_cdb import OperationCode, encode_block_cdb
from storage_model.spec.scsi_copy import (
    HEADER_LENGTH,
    MAXIMUM_DESCRIPTOR_LIST_LENGTH,
    OWN_UNIT,
    CopyCommandStatus,
    CopyRequest,
    Cscd,
    Segment,
    copy_status,
    failed_segment_details,
    operating_parameters,
    parse_copy_request,
)
from storage_model.spec.scsi_pages import PERIPHERAL_DISK, DesignatorType
from storage_model.spec.scsi_sense import AscAscq, CopyAborted, SegmentError, SenseKey, encode_sense, sense_of
from storage_model.spec.scsi_task import ScsiStatus, TaskAttribute
from storage_model.volume import Buffer
from target.scsi.block_commands import CHUNK_BYTES
from target.scsi.command_context import CommandContext, invalid_field
from target.scsi.copy_operations import CopyOperation
from target.scsi.logical_unit import LogicalUnit
from target.scsi.task import CopyManagerTask, TaskOutcome

log = logging.getLogger("pairvol.scsi")

_NO_TAG = -1
"""No ABORT TASK can name the copy manager's own commands: they end with the copy."""


@dataclass(slots=True)
class _Piece:
    """A segment that is being copied, and how many bytes of it have been."""

    number: int
    source: LogicalUnit
    destination: LogicalUnit
    segment: Segment
    length_bytes: int
    done_bytes: int = 0

    def offsets(self) -> tuple[int, int]:
        """Where in the segment the next piece is, and its length; in bytes.

        From the end when the destination overlaps what of the source is yet to be read.
        """
        length = min(CHUNK_BYTES, self.length_bytes - self.done_bytes)
        segment = self.segment
        ahead = segment.destination_lba > segment.source_lba
        if self.source is self.destination and ahead:
            return self.length_bytes - self.done_bytes - length, length
        return self.done_bytes, length


async def extended_copy(context: CommandContext) -> TaskOutcome:
    """SPC-4 6.4. One piece of at most 1 MiB is in memory at a time."""
    length = int.from_bytes(context.cdb[10:14], "big")
    if not length:
        return TaskOutcome()
    if length > HEADER_LENGTH + MAXIMUM_DESCRIPTOR_LIST_LENGTH:
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, AscAscq.PARAMETER_LIST_LENGTH_ERROR)
    request = parse_copy_request(bytes(context.parameter_list(length)))
    copies = context.lu.copies
    if copies.full:
        return TaskOutcome(ScsiStatus.BUSY)
    copy = copies.begin(context.task.nexus, request)
    if copy is None:
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, AscAscq.OPERATION_IN_PROGRESS)
    try:
        for number in range(len(request.segments)):
            if context.task.aborted:
                break
            await _copy_segment(context, copy, request, number)
            copy.segments_processed += 1
        copy.status = CopyCommandStatus.FAILED if context.task.aborted else CopyCommandStatus.COMPLETED
    except CheckCondition as error:
        copy.sense = encode_sense(sense_of(error), descriptor_format=context.lu.descriptor_sense)
        raise
    finally:
        if copy.status is CopyCommandStatus.IN_PROGRESS:
            copy.status = CopyCommandStatus.FAILED
        copies.end(copy)
        log.debug("LUN %d: %d bytes copied for %s", context.lu.lun, copy.transferred_bytes, copy.nexus)
    return TaskOutcome(transfer_length_bytes=length)


async def _copy_segment(context: CommandContext, copy: CopyOperation, request: CopyRequest, number: int) -> None:
    segment = request.segments[number]
    error = SegmentError(number)
    source = _unit(context, request, segment.source, error, 4)
    destination = _unit(context, request, segment.destination, error, 6)
    length = segment.blocks * (destination if segment.counts_destination else source).block_length
    if length % source.block_length or length % destination.block_length:
        # Neither padding nor concatenation is done: what does not come out even is refused, whatever PAD and CAT say.
        raise CopyAborted(AscAscq.UNEXPECTED_INEXACT_SEGMENT, error)
    for unit, lba, pointer in ((source, segment.source_lba, 12), (destination, segment.destination_lba, 20)):
        if lba + length // unit.block_length > unit.block_count:
            # Seen before anything is copied, by the copy manager itself: no failure of a device, so not 0Dh/01h.
            raise CopyAborted(AscAscq.NO_ADDITIONAL_SENSE, error, field_pointer=pointer)
    piece = _Piece(number, source, destination, segment, length)
    while piece.done_bytes < length:
        offset, size = piece.offsets()
        data = await _read(context, piece, offset, size)
        if context.task.aborted:  # nothing is written once the abort is confirmed, and that waits for this task
            return
        await _write(context, piece, offset, data)
        piece.done_bytes += size
        copy.transferred_bytes += size


def _unit(context: CommandContext, request: CopyRequest, index: int, error: SegmentError, byte: int) -> LogicalUnit:
    """The unit that a CSCD descriptor ID of a segment means; only one that the nexus may see (SPC-4 6.4.6.1)."""
    if index == OWN_UNIT:
        return context.lu
    if index >= len(request.cscds):
        raise CopyAborted(AscAscq.UNREACHABLE_COPY_TARGET, error, field_pointer=byte)
    cscd = request.cscds[index]
    unit = None if cscd.null else _find(context, cscd)
    if unit is None:
        raise CopyAborted(AscAscq.COPY_TARGET_DEVICE_NOT_REACHABLE, error, field_pointer=byte)
    if cscd.peripheral_type != PERIPHERAL_DISK or cscd.block_length not in (0, unit.block_length):
        raise CopyAborted(AscAscq.INCORRECT_COPY_TARGET_DEVICE_TYPE, error, field_pointer=byte)
    return unit


def _find(context: CommandContext, cscd: Cscd) -> LogicalUnit | None:
    wanted = cscd.designator
    for unit in context.server.units_of(context.task.nexus).values():
        for designator in unit.identity.unit_designators():
            if designator == wanted:
                return unit
            if (
                wanted.designator_type == designator.designator_type == DesignatorType.SCSI_NAME_STRING
                and wanted.value.rstrip(b"\0") == designator.value.rstrip(b"\0")  # 20 bytes have no room for its NULs
            ):
                return unit
    return None


async def _read(context: CommandContext, piece: _Piece, offset: int, size: int) -> Buffer:
    unit = piece.source
    lba = piece.segment.source_lba + offset // unit.block_length
    cdb = encode_block_cdb(OperationCode.READ_16, lba, size // unit.block_length)
    return (await _send(context, piece, unit, cdb)).data_in


async def _write(context: CommandContext, piece: _Piece, offset: int, data: Buffer) -> None:
    unit = piece.destination
    lba = piece.segment.destination_lba + offset // unit.block_length
    cdb = encode_block_cdb(OperationCode.WRITE_16, lba, len(data) // unit.block_length)
    await _send(context, piece, unit, cdb, data)


async def _send(
    context: CommandContext, piece: _Piece, unit: LogicalUnit, cdb: bytes, data_out: Buffer | None = None
) -> TaskOutcome:
    """One command of the copy manager; raises ``CopyAborted`` with its answer when that is not GOOD.

    HEAD OF QUEUE: behind an ORDERED command that waits for this very copy it would wait for ever.
    """
    nexus, length = context.task.nexus, 0 if data_out is not None else CHUNK_BYTES
    units = context.server.units_of(nexus)
    if units.get(unit.lun) is not unit or units.get(context.lu.lun) is not context.lu:
        # It went while the copy was under way. Its LUN may be another unit's by now, which nobody has named here.
        error = SegmentError(piece.number, data_out is not None)
        pointer = 6 if data_out is not None else 4
        raise CopyAborted(AscAscq.COPY_TARGET_DEVICE_NOT_REACHABLE, error, field_pointer=pointer)
    task = CopyManagerTask(nexus, unit.lun, _NO_TAG, cdb, data_out or b"", length, TaskAttribute.HEAD_OF_QUEUE)
    outcome = await context.server.execute(task)
    status, sense = outcome.status, bytes(outcome.sense)
    if task.aborted:  # a reset of that unit, or another's PREEMPT AND ABORT
        status, sense = ScsiStatus.TASK_ABORTED, b""
    if status is not ScsiStatus.GOOD:
        remaining = (piece.length_bytes - piece.done_bytes) // piece.destination.block_length
        error = SegmentError(piece.number, data_out is not None, status, sense)
        raise CopyAborted(AscAscq.THIRD_PARTY_DEVICE_FAILURE, error, information=remaining)
    return outcome


# --- what became of it


def _identified(context: CommandContext) -> CopyOperation:
    copy = context.lu.copies.find(context.task.nexus, context.cdb[2])
    if copy is None:
        raise invalid_field(2)
    return copy


async def receive_copy_status(context: CommandContext) -> TaskOutcome:
    """RECEIVE COPY STATUS(LID1): how far a copy of this nexus is, or how it ended."""
    copy = _identified(context)
    data = copy_status(copy.status, copy.segments_processed, copy.transferred_bytes)
    return context.data_in(data, int.from_bytes(context.cdb[10:14], "big"))


async def receive_copy_data(context: CommandContext) -> TaskOutcome:
    """RECEIVE COPY DATA(LID1): no segment descriptor that is supported holds data, so there is none."""
    if _identified(context).status is CopyCommandStatus.IN_PROGRESS:
        raise invalid_field(2)
    return context.data_in(bytes(4), int.from_bytes(context.cdb[10:14], "big"))


async def receive_copy_operating_parameters(context: CommandContext) -> TaskOutcome:
    """RECEIVE COPY OPERATING PARAMETERS: the limits, all of which are enforced."""
    data = operating_parameters(context.lu.block_length)
    return context.data_in(data, int.from_bytes(context.cdb[10:14], "big"))


async def receive_copy_failure_details(context: CommandContext) -> TaskOutcome:
    """RECEIVE COPY FAILURE DETAILS(LID1): told once, then the copy is forgotten."""
    copy = _identified(context)
    if copy.status is CopyCommandStatus.IN_PROGRESS:
        raise invalid_field(2)
    context.lu.copies.forget(copy)
    return context.data_in(failed_segment_details(copy.sense), int.from_bytes(context.cdb[10:14], "big"))
