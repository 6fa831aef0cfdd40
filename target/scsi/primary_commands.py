"""Commands that every device type has (SPC-4 6), and START STOP UNIT with PREVENT ALLOW (SBC-3 5.23, 5.13). [C]"""

from storage_model.errors import CheckCondition
from storage_model.spec import scsi_pages as pages
from storage_model.spec.scsi_cdb import OperationCode
from storage_model.spec.scsi_copy import third_party_copy_page
from storage_model.spec.scsi_sense import AscAscq, SenseData, SenseKey, encode_sense, sense_of
from storage_model.volume import AtomicVolume, KeyedVolume
from target.scsi.command_context import CommandContext, invalid_field
from target.scsi.command_row import CommandRow
from target.scsi.logical_unit import (
    MAXIMUM_ATOMIC_WRITE_BYTES,
    MAXIMUM_COMPARE_AND_WRITE_BLOCKS,
    MAXIMUM_TRANSFER_BYTES,
    MAXIMUM_UNMAP_BYTES,
    MAXIMUM_UNMAP_DESCRIPTORS,
    MAXIMUM_WRITE_SAME_BYTES,
    LogicalUnit,
)
from target.scsi.offered_commands import offered_rows
from target.scsi.task import TaskOutcome

_PAGE_BYTES = 4096
"""What the page cache works in: less has to be read before it can be written."""
_UNMAP_GRANULARITY_BYTES = 4096
"""What file systems punch holes in; a smaller range is zeroed and stays allocated."""


def check_ready(lu: LogicalUnit) -> None:
    """NOT READY while the medium is out or stopped (SBC-3 4.4)."""
    if not lu.loaded:
        raise CheckCondition(SenseKey.NOT_READY, AscAscq.MEDIUM_NOT_PRESENT)
    if not lu.started:
        raise CheckCondition(SenseKey.NOT_READY, AscAscq.LOGICAL_UNIT_NOT_READY_INITIALIZING_COMMAND_REQUIRED)


def _check_usable(lu: LogicalUnit) -> None:
    if lu.operation is not None:  # SANITIZE or FORMAT UNIT
        raise lu.operation.condition()
    check_ready(lu)


async def test_unit_ready(context: CommandContext) -> TaskOutcome:
    _check_usable(context.lu)
    return TaskOutcome()


async def request_sense(context: CommandContext) -> TaskOutcome:
    """A pending unit attention is reported here as data, and cleared (SPC-4 6.39)."""
    lu, cdb = context.lu, context.cdb
    condition = lu.unit_attentions.take(context.task.nexus)
    if condition is not None:
        sense = SenseData(SenseKey.UNIT_ATTENTION, condition)
    else:
        try:
            _check_usable(lu)
            sense = SenseData(SenseKey.NO_SENSE, AscAscq.NO_ADDITIONAL_SENSE)
        except CheckCondition as not_ready:
            sense = sense_of(not_ready)
    return context.data_in(encode_sense(sense, descriptor_format=bool(cdb[1] & 0x01)), cdb[4])


async def inquiry(context: CommandContext) -> TaskOutcome:
    """Standard data, or one vital product data page when EVPD is 1 (SPC-4 6.4)."""
    lu, cdb = context.lu, context.cdb
    allocation_length = cdb[3] << 8 | cdb[4]
    if not cdb[1] & 0x01:
        if cdb[2]:
            raise invalid_field(2)
        identity = lu.identity
        data = pages.standard_inquiry(
            identity.vendor,
            identity.product,
            identity.revision,
            removable=lu.removable,
            ports=len(context.server.port_groups),
        )
        return context.data_in(data, allocation_length)
    body = _vpd_body(context, cdb[2])
    return context.data_in(pages.vpd_page(cdb[2], body), allocation_length)


def _vpd_body(context: CommandContext, page_code: int) -> bytes:
    lu = context.lu
    match page_code:
        case pages.VpdPage.SUPPORTED_PAGES:
            return bytes(sorted(pages.VpdPage))
        case pages.VpdPage.UNIT_SERIAL_NUMBER:
            return lu.identity.serial.encode("ascii", "replace")
        case pages.VpdPage.DEVICE_IDENTIFICATION:
            port = context.server.port_designators(context.task.nexus.target_port)
            return b"".join(designator.encode() for designator in (*lu.identity.unit_designators(), *port))
        case pages.VpdPage.EXTENDED_INQUIRY:
            return pages.EXTENDED_INQUIRY_BODY
        case pages.VpdPage.SCSI_PORTS:
            return context.server.scsi_ports()
        case pages.VpdPage.THIRD_PARTY_COPY:
            return third_party_copy_page(_copy_commands(context), lu.block_length)
        case pages.VpdPage.BLOCK_LIMITS:
            return _block_limits(lu)
        case pages.VpdPage.BLOCK_DEVICE_CHARACTERISTICS:
            keyed = isinstance(lu.volume, KeyedVolume)
            return pages.block_device_characteristics(block_erase=lu.thin, cryptographic_erase=keyed)
        case pages.VpdPage.LOGICAL_BLOCK_PROVISIONING:
            return pages.THIN_PROVISIONING_BODY if lu.thin else pages.FULL_PROVISIONING_BODY
    raise invalid_field(2)


def _copy_commands(context: CommandContext) -> list[tuple[int, list[int]]]:
    actions: dict[int, list[int]] = {OperationCode.EXTENDED_COPY: [], OperationCode.RECEIVE_COPY_RESULTS: []}
    for row in context.server.command_rows:
        if row.service_action is not None and row.operation_code in actions:
            actions[row.operation_code].append(row.service_action)
    return list(actions.items())


def _block_limits(lu: LogicalUnit) -> bytes:
    """SBC-3 6.6.4. A fully provisioned unit has no UNMAP, and hence no limits of it."""
    block_length = lu.block_length
    atomic = isinstance(lu.volume, AtomicVolume)
    # With physical blocks of several logical ones, atomic writes are of whole ones; 0 is no restriction (SBC-4 6.6.4).
    alignment = lu.physical_block_length // block_length if lu.physical_block_length > block_length else 0
    unmap = {
        "maximum_unmap_lba_count": MAXIMUM_UNMAP_BYTES // block_length,
        "maximum_unmap_block_descriptor_count": MAXIMUM_UNMAP_DESCRIPTORS,
        "optimal_unmap_granularity": max(_UNMAP_GRANULARITY_BYTES // block_length, 1),
        "unmap_granularity_alignment": 0x80000000,  # UGAVALID, alignment 0
    }
    return bytes(
        pages.BLOCK_LIMITS.build(
            {
                "wsnz": int(lu.thin),
                "maximum_compare_and_write_length": MAXIMUM_COMPARE_AND_WRITE_BLOCKS,
                "optimal_transfer_length_granularity": max(lu.physical_block_length, _PAGE_BYTES) // block_length,
                "maximum_transfer_length": MAXIMUM_TRANSFER_BYTES // block_length,
                "optimal_transfer_length": (1 << 20) // block_length,
                "maximum_prefetch_length": MAXIMUM_TRANSFER_BYTES // block_length,
                **(unmap if lu.thin else dict.fromkeys(unmap, 0)),
                "maximum_write_same_length": MAXIMUM_WRITE_SAME_BYTES // block_length,
                # Any length up to this one, from any block on, is written whole (SBC-4 4.29); no boundaries inside.
                "maximum_atomic_transfer_length": MAXIMUM_ATOMIC_WRITE_BYTES // block_length if atomic else 0,
                "atomic_alignment": alignment if atomic else 0,
                "atomic_transfer_length_granularity": alignment if atomic else 0,
                "maximum_atomic_transfer_length_with_atomic_boundary": 0,
                "maximum_atomic_boundary_size": 0,
            }
        )
    )


async def report_luns(context: CommandContext) -> TaskOutcome:
    """SPC-4 6.35: no well known logical units, so that SELECT REPORT 01h finds none."""
    cdb = context.cdb
    allocation_length = int.from_bytes(cdb[6:10], "big")
    if cdb[2] > 0x02:
        raise invalid_field(2)
    if allocation_length < 16:
        raise invalid_field(6)
    luns = [] if cdb[2] == 0x01 else sorted(context.server.units_of(context.task.nexus))
    context.lu.unit_attentions.forget(context.task.nexus, AscAscq.REPORTED_LUNS_DATA_HAS_CHANGED)
    return context.data_in(pages.report_luns(luns), allocation_length)


async def start_stop_unit(context: CommandContext) -> TaskOutcome:
    """SBC-3 5.23. A POWER CONDITION other than START_VALID is granted: a file has one power condition.

    A removable unit is taken out of use by an eject, so that a stop only flushes it (as libiscsi's NoLoej test asks).
    """
    lu, cdb = context.lu, context.cdb
    if cdb[4] & 0xF0:
        return TaskOutcome()
    start, load_eject = bool(cdb[4] & 0x01), bool(cdb[4] & 0x02)
    if not start and not cdb[4] & 0x04:  # NO_FLUSH
        await lu.volume.flush()
    if lu.removable:
        if load_eject:
            _move_medium(context, start)
        elif start:
            check_ready(lu)
    elif not load_eject:
        lu.started = start
    return TaskOutcome()


def _move_medium(context: CommandContext, loaded: bool) -> None:
    """Eject or load, if that changes anything. While removal is prevented the medium stays where it is, in or out.

    What is loaded may be another medium: every nexus hears of it but the one that asked for it (SBC-3 4.4).
    """
    lu = context.lu
    if lu.loaded == loaded:
        return
    if lu.prevents_removal:
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, AscAscq.MEDIUM_REMOVAL_PREVENTED)
    lu.loaded = loaded
    if loaded:
        changed = AscAscq.NOT_READY_TO_READY_CHANGE_MEDIUM_MAY_HAVE_CHANGED
        lu.unit_attentions.establish(changed, but=context.task.nexus)


async def prevent_allow_medium_removal(context: CommandContext) -> TaskOutcome:
    """SBC-3 5.13: per nexus; removal is allowed when nobody prevents it. 10b and 11b are obsolete."""
    prevent = context.cdb[4] & 0x03
    if prevent > 1:
        raise invalid_field(4)
    if prevent:
        context.lu.prevents_removal.add(context.task.nexus)
    else:
        context.lu.prevents_removal.discard(context.task.nexus)
    return TaskOutcome()


_RCTD = 0x80


async def report_supported_operation_codes(context: CommandContext) -> TaskOutcome:
    """All commands, or one, as REPORTING OPTIONS says (SPC-4 6.34)."""
    cdb = context.cdb
    with_timeouts = bool(cdb[2] & _RCTD)
    options, operation_code = cdb[2] & 0x07, cdb[3]
    service_action = cdb[4] << 8 | cdb[5]
    allocation_length = int.from_bytes(cdb[6:10], "big")
    rows = offered_rows(context.server.command_rows, context.lu)
    if options == 0:
        body = b"".join(_command_descriptor(row, with_timeouts) for row in rows)
        return context.data_in(len(body).to_bytes(4, "big") + body, allocation_length)
    if options > 3:
        raise invalid_field(2)
    same_opcode = [row for row in rows if row.operation_code == operation_code]
    has_actions = any(row.service_action is not None for row in same_opcode)
    if (options == 1 and has_actions) or (options == 2 and same_opcode and not has_actions):
        raise invalid_field(2)
    # Option 3 takes both kinds; without service actions the field has to be 0.
    wanted = None if options == 1 or not has_actions else service_action
    found = next((row for row in same_opcode if row.service_action == wanted), None)
    if options == 3 and not has_actions and service_action:
        found = None
    return context.data_in(_one_command(found, with_timeouts), allocation_length)


def _timeouts(row: CommandRow) -> bytes:
    """Command timeouts descriptor (SPC-4 6.34.4): nominal processing time not said, recommended timeout in seconds."""
    return (10).to_bytes(2, "big") + b"\0\0" + b"\0\0\0\0" + row.timeout_seconds.to_bytes(4, "big")


def _command_descriptor(row: CommandRow, with_timeouts: bool) -> bytes:
    flags = (0x02 if with_timeouts else 0) | (0x01 if row.service_action is not None else 0)
    return (
        bytes((row.operation_code, 0))
        + (row.service_action or 0).to_bytes(2, "big")
        + bytes((0, flags))
        + row.length.to_bytes(2, "big")
        + (_timeouts(row) if with_timeouts else b"")
    )


def _one_command(row: CommandRow | None, with_timeouts: bool) -> bytes:
    """SPC-4 6.34.3: SUPPORT 001b is "not supported", 011b "as the standard says"; no CDB usage data for the former."""
    if row is None:
        return b"\x00\x01\x00\x00"
    flags = 0x03 | (0x80 if with_timeouts else 0)
    return bytes((0, flags)) + row.length.to_bytes(2, "big") + row.usage + (_timeouts(row) if with_timeouts else b"")


_REPD = 0x80
_TASK_MANAGEMENT_FUNCTIONS = 0xDA
"""ATS, ATSS, CTSS, LURS and TRS (SPC-4 6.36): ABORT TASK, ABORT TASK SET, CLEAR TASK SET, LU RESET, TARGET RESET."""


async def report_supported_task_management_functions(context: CommandContext) -> TaskOutcome:
    """SPC-4 6.36. The extended form adds the timeouts descriptors, in 100 ms units."""
    cdb = context.cdb
    allocation_length = int.from_bytes(cdb[6:10], "big")
    if allocation_length < 4:
        raise invalid_field(6)
    if not cdb[2] & _REPD:
        return context.data_in(bytes((_TASK_MANAGEMENT_FUNCTIONS, 0, 0, 0)), allocation_length)
    extended = bytes((_TASK_MANAGEMENT_FUNCTIONS, 0, 0, 0x0C)) + b"\0" * 12
    return context.data_in(extended, allocation_length)
