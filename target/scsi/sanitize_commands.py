"""SANITIZE and FORMAT UNIT (SBC-3 4.11, 5.24, 5.3): both change the whole medium, in the background. [C]

A sanitize operation covers the blocks of the unit. OVERWRITE writes each of them, as often as asked, and flushes after
each pass; BLOCK ERASE gives their space back, so that thin units have it. What the file system or the disk below keeps
elsewhere (copies on write, worn flash) is out of reach of both, but not of CRYPTOGRAPHIC ERASE, which encrypted units
have: it replaces the key.
"""

from asyncio import Event
from collections.abc import Awaitable

from storage_model.errors import CheckCondition
from storage_model.medium_operation import MediumOperation, Method
from storage_model.pair_state import PairRole, Refusal
from storage_model.spec.scsi_cdb import OperationCode
from storage_model.spec.scsi_sanitize import (
    FORMAT_CMPLST,
    FORMAT_DEFECT_LIST,
    FORMAT_FMTDATA,
    FORMAT_LONGLIST,
    SANITIZE_AUSE,
    SANITIZE_IMMED,
    Format,
    parse_format,
    parse_overwrite,
)
from storage_model.spec.scsi_sense import AscAscq, SenseKey
from storage_model.spec.scsi_task import TaskAttribute
from storage_model.volume import VolumeError
from target.scsi.background_operation import BackgroundOperation
from target.scsi.command_context import CommandContext, invalid_field
from target.scsi.logical_unit import LogicalUnit, PairPort
from target.scsi.offered_commands import is_offered
from target.scsi.task import ScsiTask, TaskOutcome


async def overwrite(context: CommandContext) -> TaskOutcome:
    """SBC-3 5.24.2.2."""
    lu, cdb = context.lu, context.cdb
    length = cdb[7] << 8 | cdb[8]
    if not 4 < length < lu.block_length + 5:
        raise invalid_field(7)
    request = parse_overwrite(bytes(context.parameter_list(length)), lu.block_length)
    operation = MediumOperation(
        Method.OVERWRITE,
        lu.block_count * lu.block_length,
        request.pattern,
        request.passes,
        request.invert,
        bool(cdb[1] & SANITIZE_AUSE),
    )
    return await _sanitize(context, operation, length)


async def block_erase(context: CommandContext) -> TaskOutcome:
    """SBC-3 5.24.2.3."""
    return await _erase(context, Method.BLOCK_ERASE)


async def cryptographic_erase(context: CommandContext) -> TaskOutcome:
    """SBC-3 5.24.2.4: what is mapped is noise afterwards, and can be read (WACEREQ 01b)."""
    return await _erase(context, Method.CRYPTOGRAPHIC_ERASE)


async def _erase(context: CommandContext, method: Method) -> TaskOutcome:
    """Without a parameter list. Not every unit can be erased in every way."""
    lu, cdb = context.lu, context.cdb
    if not is_offered(context.row, lu):
        raise invalid_field(1, 4)
    if cdb[7] or cdb[8]:
        raise invalid_field(7)
    unrestricted = bool(cdb[1] & SANITIZE_AUSE)
    operation = MediumOperation(method, lu.block_count * lu.block_length, unrestricted=unrestricted)
    return await _sanitize(context, operation, 0)


async def exit_failure_mode(context: CommandContext) -> TaskOutcome:
    """SBC-3 5.24.2.5: only out of a failure in the unrestricted completion mode; without a failure, nothing to do."""
    lu, cdb = context.lu, context.cdb
    if cdb[7] or cdb[8]:
        raise invalid_field(7)
    failed = lu.operation
    if failed is not None and failed.operation.sanitizes:
        if not failed.operation.unrestricted:
            raise invalid_field(1, 4)
        await _noted(lu.operation_notes.save(None))
        if lu.operation is failed:  # a new sanitize operation may have begun meanwhile
            lu.operation = None
    return TaskOutcome()


async def _sanitize(context: CommandContext, operation: MediumOperation, length: int) -> TaskOutcome:
    failed = context.lu.operation
    restricted = failed is not None and failed.operation.sanitizes and not failed.operation.unrestricted
    if restricted and operation.unrestricted:  # that failure must not be left this way (SBC-3 4.11.1)
        raise invalid_field(1, 5)
    return await _perform(context, operation, length, immediate=bool(context.cdb[1] & SANITIZE_IMMED))


async def format_unit(context: CommandContext) -> TaskOutcome:
    """SBC-3 5.3: without an initialization pattern the blocks become zeros, those of a thin unit unmapped."""
    lu, cdb, data = context.lu, context.cdb, bytes(context.task.data_out)
    request = Format()
    if cdb[1] & FORMAT_FMTDATA:
        request = parse_format(data, lu.block_length, long_list=bool(cdb[1] & FORMAT_LONGLIST))
    elif cdb[1] & (FORMAT_CMPLST | FORMAT_DEFECT_LIST):
        raise invalid_field(1)
    operation = MediumOperation(Method.FORMAT, lu.block_count * lu.block_length, request.pattern)
    return await _perform(context, operation, len(data), immediate=request.immediate)


async def _perform(context: CommandContext, operation: MediumOperation, length: int, *, immediate: bool) -> TaskOutcome:
    """Start it; without IMMED wait for its end, or for that of the command: an abort does not stop the operation."""
    lu, task = context.lu, context.task
    if lu.pair is not None:
        _check_unpaired(lu.pair)
    background = BackgroundOperation(lu, operation)
    task.on_abort = background.look_up
    await _noted(background.begin(_others_ended(lu, task)))
    while not immediate and background.running and not task.aborted:
        await background.progressed()
    if not immediate and background.failed:
        raise CheckCondition(SenseKey.MEDIUM_ERROR, operation.failure)
    return TaskOutcome(transfer_length_bytes=length)


def _check_unpaired(pair: PairPort) -> None:
    """With no await before the operation has the unit: from then on the pair does not change."""
    if pair.status().role is not PairRole.SMPL:
        # Whether the other half is erased with it depends on the link: neither answer would be true.
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, AscAscq.INVALID_COMMAND_OPERATION_CODE, field_pointer=0)
    if pair.about_to_change:
        raise CheckCondition(Refusal.BUSY.sense_key, Refusal.BUSY.asc_ascq)


async def _noted(saving: Awaitable[None]) -> None:
    """The medium is not to blame for metadata that cannot be written."""
    try:
        await saving
    except VolumeError as error:
        raise CheckCondition(SenseKey.HARDWARE_ERROR, AscAscq.INTERNAL_TARGET_FAILURE) from error


async def _others_ended(lu: LogicalUnit, task: ScsiTask) -> None:
    """The commands that are at work already may still write, but not behind the back of the operation.

    Younger ones that are not HEAD OF QUEUE either have been refused or wait for this one. PERSISTENT RESERVE OUT writes
    no block, and a PREEMPT AND ABORT may be waiting for this one. What is aborted before it begins does not begin.
    """
    others = []
    older = True
    for other in lu.tasks.all():
        if other is task:
            older = False
        elif other.cdb[0] == OperationCode.PERSISTENT_RESERVE_OUT:
            continue
        elif older or other.attribute is TaskAttribute.HEAD_OF_QUEUE:
            others.append(other)
    ended = Event()
    lu.tasks.when_ended(others, ended.set)
    await ended.wait()
    if task.aborted:
        raise CheckCondition(SenseKey.ABORTED_COMMAND, AscAscq.NO_ADDITIONAL_SENSE)  # not sent: it was aborted
