"""One row per operation code and service action: what has no row is refused. [C]

A row drives dispatch, the checks of ``device_server`` and REPORT SUPPORTED OPERATION CODES (SPC-4 6.34).
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import TypeAlias

from storage_model.spec.pair_cdb import PairIn, PairOut
from storage_model.spec.scsi_cdb import (
    MaintenanceIn,
    MaintenanceOut,
    OperationCode,
    PersistentReserveIn,
    PersistentReserveOut,
    ServiceActionIn16,
)
from storage_model.spec.scsi_copy import ExtendedCopy, ReceiveCopyResults
from storage_model.spec.scsi_sanitize import Sanitize
from target.scsi import atomic_commands as atomic
from target.scsi import block_commands as block
from target.scsi import buffer_commands as buffer
from target.scsi import copy_commands as copy
from target.scsi import log_commands as log
from target.scsi import mode_commands as mode
from target.scsi import pair_commands as pair
from target.scsi import persistent_reserve_commands as persistent_reserve
from target.scsi import primary_commands as primary
from target.scsi import provisioning_commands as provisioning
from target.scsi import reservation_commands as reservation
from target.scsi import sanitize_commands as sanitize
from target.scsi import target_port_group_commands as port_groups
from target.scsi.command_row import (
    GROUP_NUMBER,
    LONG,
    MEDIUM,
    QUICK,
    WHOLE_MEDIUM,
    CommandRow,
    DataDirection,
    Handler,
    MediumAccess,
    UnderReservation,
    block_row,
    row,
)

_C = OperationCode
_IN, _OUT, _NO_DATA = DataDirection.IN, DataDirection.OUT, DataDirection.NONE
_READ, _WRITE = MediumAccess.READ, MediumAccess.WRITE
_BY_ANYBODY, _STATUS = UnderReservation.ANYBODY, UnderReservation.STATUS
_AS_READ, _AS_WRITE = UnderReservation.READ, UnderReservation.WRITE
_REPORT_OPCODES = MaintenanceIn.REPORT_SUPPORTED_OPERATION_CODES
_REPORT_FUNCTIONS = MaintenanceIn.REPORT_SUPPORTED_TASK_MANAGEMENT_FUNCTIONS

_PRIMARY = (
    row(_C.TEST_UNIT_READY, primary.test_unit_ready, "", _NO_DATA, _STATUS),
    row(_C.REQUEST_SENSE, primary.request_sense, "01 0000 ff", _IN, _BY_ANYBODY, unit_attention=False),
    row(_C.INQUIRY, primary.inquiry, "01 ff ffff", _IN, _BY_ANYBODY, unit_attention=False),
    row(_C.REPORT_LUNS, primary.report_luns, "00 ff 000000 ffffffff", _IN, _BY_ANYBODY, unit_attention=False),
    row(_C.MODE_SELECT_6, mode.mode_select, "10 0000 ff", _OUT, _AS_WRITE),
    row(_C.MODE_SENSE_6, mode.mode_sense, "08 ff ff ff", _IN, _AS_READ),
    row(_C.MODE_SELECT_10, mode.mode_select, "10 0000000000 ffff", _OUT, _AS_WRITE),
    row(_C.MODE_SENSE_10, mode.mode_sense, "18 ff ff 000000 ffff", _IN, _AS_READ),
    row(_C.LOG_SELECT, log.log_select, "02 ff ff 000000 ffff", _OUT, _AS_WRITE),
    row(_C.LOG_SENSE, log.log_sense, "00 ff ff 00 ffff ffff", _IN, _BY_ANYBODY),
    row(_C.WRITE_BUFFER, buffer.write_buffer, "1f ff ffffff ffffff", _OUT, _AS_WRITE),
    row(_C.READ_BUFFER_10, buffer.read_buffer, "1f ff ffffff ffffff", _IN, _AS_READ),
    row(_C.START_STOP_UNIT, primary.start_stop_unit, "01 00 0f f7", _NO_DATA, UnderReservation.START, MEDIUM),
    row(
        _C.PREVENT_ALLOW_MEDIUM_REMOVAL,
        primary.prevent_allow_medium_removal,
        "00 0000 03",
        _NO_DATA,
        UnderReservation.ALLOW_REMOVAL,
    ),
    row(
        _C.MAINTENANCE_IN,
        primary.report_supported_operation_codes,
        "00 87 ff ffff ffffffff",
        _IN,
        _AS_READ,
        action=_REPORT_OPCODES,
    ),
    row(
        _C.MAINTENANCE_IN,
        primary.report_supported_task_management_functions,
        "00 80 000000 ffffffff",
        _IN,
        _AS_READ,
        action=_REPORT_FUNCTIONS,
    ),
    # PARAMETER DATA FORMAT: 000b and 001b, so that bits 7:6 must be 0 (SPC-4 table 307).
    row(
        _C.MAINTENANCE_IN,
        port_groups.report_target_port_groups,
        "20 00000000 ffffffff",
        _IN,
        _BY_ANYBODY,
        action=MaintenanceIn.REPORT_TARGET_PORT_GROUPS,
    ),
    row(
        _C.MAINTENANCE_OUT,
        port_groups.set_target_port_groups,
        "00 00000000 ffffffff",
        _OUT,
        _AS_WRITE,
        action=MaintenanceOut.SET_TARGET_PORT_GROUPS,
    ),
)

_WITH_SCOPE_AND_TYPE = (
    PersistentReserveOut.RESERVE,
    PersistentReserveOut.RELEASE,
    PersistentReserveOut.PREEMPT,
    PersistentReserveOut.PREEMPT_AND_ABORT,
)
"""The others ignore the SCOPE and TYPE fields (SPC-4 table 216)."""

# SPC-2 7.18, 7.21: byte 1 has the third-party and extent bits, which are refused; the fields that have a meaning only
# with them are ignored. RESERVE conflicts here as everything does, so that the handler meets free units and the holder.
_RESERVATION = (
    row(_C.RESERVE_6, reservation.reserve, "", _NO_DATA, _AS_WRITE, ignored="00 ff ffff"),
    row(_C.RELEASE_6, reservation.release, "", _NO_DATA, _BY_ANYBODY, ignored="00 ff ffff"),
    row(_C.RESERVE_10, reservation.reserve, "", _NO_DATA, _AS_WRITE, ignored="00 ff ff 000000 ffff"),
    row(_C.RELEASE_10, reservation.release, "", _NO_DATA, _BY_ANYBODY, ignored="00 ff ff 000000 ffff"),
    *(
        row(
            _C.PERSISTENT_RESERVE_IN,
            persistent_reserve.persistent_reserve_in,
            "00 0000000000 ffff",
            _IN,
            _STATUS,
            action=action,
        )
        for action in PersistentReserveIn
    ),
    # What conflicts under a persistent reservation is the handler's decision, by nexus and key (SPC-4 table 66).
    *(
        row(
            _C.PERSISTENT_RESERVE_OUT,
            persistent_reserve.persistent_reserve_out,
            "00 ff 0000 ffffffff" if action in _WITH_SCOPE_AND_TYPE else "00 00 0000 ffffffff",
            _OUT,
            _STATUS,
            MEDIUM,
            action=action,
            ignored="" if action in _WITH_SCOPE_AND_TYPE else "00 ff",
        )
        for action in PersistentReserveOut
    ),
)


def _flush_row(code: OperationCode) -> CommandRow:
    """SYNCHRONIZE CACHE changes nothing that a reader could see: to a pair and to write protection it is a read.

    Under a reservation the standard takes it for a write (SBC-3 table 13).
    """
    return block_row(
        code, block.synchronize_cache, "02", _NO_DATA, _READ, LONG, old_flags="05", under_reservation=_AS_WRITE
    )


# Byte 1 has the flags: those that count, and those that SBC-3 calls obsolete (FUA_NV, SYNC_NV, RELADR) or that say
# nothing to us (RARC). Protection is refused by having no bit in either.
_BLOCKS = (
    block_row(_C.READ_6, block.read, "1f", _IN, _READ),
    block_row(_C.READ_10, block.read, "18", _IN, _READ, old_flags="07"),
    block_row(_C.READ_12, block.read, "18", _IN, _READ, old_flags="07"),
    block_row(_C.READ_16, block.read, "18", _IN, _READ, old_flags="07"),
    block_row(_C.WRITE_6, block.write, "1f", _OUT, _WRITE),
    block_row(_C.WRITE_10, block.write, "18", _OUT, _WRITE, old_flags="03"),
    block_row(_C.WRITE_12, block.write, "18", _OUT, _WRITE, old_flags="03"),
    block_row(_C.WRITE_16, block.write, "18", _OUT, _WRITE, old_flags="03"),
    block_row(_C.WRITE_AND_VERIFY_10, block.write_and_verify, "16", _OUT, _WRITE, old_flags="01"),
    block_row(_C.WRITE_AND_VERIFY_12, block.write_and_verify, "16", _OUT, _WRITE, old_flags="01"),
    block_row(_C.WRITE_AND_VERIFY_16, block.write_and_verify, "16", _OUT, _WRITE, old_flags="01"),
    block_row(_C.ORWRITE_16, atomic.orwrite, "18", _OUT, _WRITE, old_flags="02"),
    # ATOMIC BOUNDARY stays 0: everything is written as one, whatever its length.
    row(
        _C.WRITE_ATOMIC_16,
        atomic.write_atomic,
        "18 ffffffffffffffff 0000 ffff",
        _OUT,
        _AS_WRITE,
        MEDIUM,
        medium=_WRITE,
        ignored="00" + GROUP_NUMBER[16],
    ),
    block_row(_C.VERIFY_10, block.verify, "16", _OUT, _READ, LONG, old_flags="01"),
    block_row(_C.VERIFY_12, block.verify, "16", _OUT, _READ, LONG, old_flags="01"),
    block_row(_C.VERIFY_16, block.verify, "16", _OUT, _READ, LONG, old_flags="01"),
    block_row(_C.PRE_FETCH_10, block.pre_fetch, "02", _NO_DATA, _READ, old_flags="01"),
    block_row(_C.PRE_FETCH_16, block.pre_fetch, "02", _NO_DATA, _READ, old_flags="01"),
    _flush_row(_C.SYNCHRONIZE_CACHE_10),
    _flush_row(_C.SYNCHRONIZE_CACHE_16),
    block_row(_C.WRITE_SAME_10, provisioning.write_same, "18", _OUT, _WRITE, LONG),
    block_row(_C.WRITE_SAME_16, provisioning.write_same, "19", _OUT, _WRITE, LONG),
    row(
        _C.COMPARE_AND_WRITE,
        block.compare_and_write,
        "18 ffffffffffffffff 000000 ff",
        _OUT,
        _AS_WRITE,
        MEDIUM,
        medium=_WRITE,
        ignored="02" + GROUP_NUMBER[16],
    ),
)

_CAPACITY_AND_PROVISIONING = (
    row(_C.READ_CAPACITY_10, block.read_capacity_10, "", _IN, _BY_ANYBODY, ignored="00 ffffffff 0000 01"),
    row(
        _C.SERVICE_ACTION_IN_16,
        block.read_capacity_16,
        "00 0000000000000000 ffffffff",
        _IN,
        _BY_ANYBODY,
        action=ServiceActionIn16.READ_CAPACITY_16,
        ignored="00 ffffffffffffffff 00000000 01",
    ),
    row(
        _C.SERVICE_ACTION_IN_16,
        provisioning.get_lba_status,
        "00 ffffffffffffffff ffffffff",
        _IN,
        _AS_READ,
        MEDIUM,
        action=ServiceActionIn16.GET_LBA_STATUS,
        medium=_READ,
    ),
    row(_C.READ_DEFECT_DATA_10, block.read_defect_data_10, "00 1f 00000000 ffff", _IN, _AS_READ),
    row(_C.READ_DEFECT_DATA_12, block.read_defect_data_12, "1f ffffffff ffffffff", _IN, _AS_READ),
    row(
        _C.UNMAP,
        provisioning.unmap,
        "01 0000000000 ffff",
        _OUT,
        _AS_WRITE,
        LONG,
        medium=_WRITE,
        ignored="00" + GROUP_NUMBER[10],
    ),
)


# SBC-3 5.3, 5.24. FMTPINFO is refused: there is no protection information; so is SBC-4's ZNR.
_WHOLE_MEDIUM = (
    row(_C.FORMAT_UNIT, sanitize.format_unit, "3f", _OUT, _AS_WRITE, WHOLE_MEDIUM, medium=_WRITE),
    *(
        row(
            _C.SANITIZE,
            handler,
            "a0 0000000000 ffff",
            direction,
            _AS_WRITE,
            timeout_seconds,
            action=action,
            medium=_WRITE,
        )
        for action, handler, direction, timeout_seconds in (
            (Sanitize.OVERWRITE, sanitize.overwrite, _OUT, WHOLE_MEDIUM),
            (Sanitize.BLOCK_ERASE, sanitize.block_erase, _NO_DATA, WHOLE_MEDIUM),
            (Sanitize.CRYPTOGRAPHIC_ERASE, sanitize.cryptographic_erase, _NO_DATA, LONG),
            (Sanitize.EXIT_FAILURE_MODE, sanitize.exit_failure_mode, _NO_DATA, QUICK),
        )
    ),
)

# SPC-4 6.3, 6.4. The copy's own reads and writes meet the reservations of the units that they are for.
_COPY = (
    row(
        _C.EXTENDED_COPY,
        copy.extended_copy,
        "00 0000000000000000 ffffffff",
        _OUT,
        _AS_WRITE,
        LONG,
        action=ExtendedCopy.EXTENDED_COPY_LID1,
    ),
    *(
        row(_C.RECEIVE_COPY_RESULTS, handler, "00 ff 00000000000000 ffffffff", _IN, _STATUS, action=action)
        for action, handler in (
            (ReceiveCopyResults.COPY_STATUS, copy.receive_copy_status),
            (ReceiveCopyResults.RECEIVE_DATA, copy.receive_copy_data),
            (ReceiveCopyResults.FAILED_SEGMENT_DETAILS, copy.receive_copy_failure_details),
        )
    ),
    row(
        _C.RECEIVE_COPY_RESULTS,
        copy.receive_copy_operating_parameters,
        "00 00 00000000000000 ffffffff",
        _IN,
        _STATUS,
        action=ReceiveCopyResults.OPERATING_PARAMETERS,
        ignored="00 ff",
    ),
)


def _pair_row(
    code: OperationCode, handler: Handler, usage: str, direction: DataDirection, action: IntEnum
) -> CommandRow:
    """Pair control passes reservations and unit attentions by.

    It is how a reservation comes to be decided and given back, and a control session's first command must be answered
    in the time that an arbitration has. The host's own nexus hears its unit attentions all the same.
    """
    return row(code, handler, usage, direction, _BY_ANYBODY, MEDIUM, action=action, unit_attention=False)


_PAIR = (
    *(
        _pair_row(_C.PAIR_CONTROL_IN, pair.pair_control_in, "00 0000000000000000 ffffffff", _IN, action)
        for action in PairIn
    ),
    *(
        _pair_row(_C.PAIR_CONTROL_OUT, pair.pair_control_out, "00 ff ff ffffffff 0000 ffffffff", _OUT, action)
        for action in PairOut
    ),
)

COMMAND_ROWS: Sequence[CommandRow] = tuple(
    sorted(
        (*_PRIMARY, *_RESERVATION, *_BLOCKS, *_CAPACITY_AND_PROVISIONING, *_WHOLE_MEDIUM, *_COPY, *_PAIR),
        key=lambda command: (command.operation_code, command.service_action or 0),
    )
)

OpcodeEntry: TypeAlias = CommandRow | dict[int, CommandRow] | None
"""A row, the rows by service action, or nothing: not supported."""


def _index_rows(rows: Sequence[CommandRow]) -> tuple[OpcodeEntry, ...]:
    index: list[OpcodeEntry] = [None] * 256
    for command in rows:
        entry = index[command.operation_code]
        if command.service_action is None:
            assert entry is None, f"two rows for {command.operation_code:02X}h"
            index[command.operation_code] = command
            continue
        actions = {} if entry is None else entry
        assert isinstance(actions, dict) and command.service_action not in actions, command.name
        actions[command.service_action] = command
        index[command.operation_code] = actions
    return tuple(index)


ROWS_BY_OPCODE = _index_rows(COMMAND_ROWS)
