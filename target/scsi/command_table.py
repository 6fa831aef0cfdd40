"""One row per operation code and service action: what has no row is refused. [C]

A row drives dispatch, the checks of ``device_server`` and REPORT SUPPORTED OPERATION CODES (SPC-4 6.34).
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import TypeAlias

from storage_model.spec.pair_cdb import PairIn, PairOut
from storage_model.spec.scsi_cdb import (
    MaintenanceIn,
    OperationCode,
    PersistentReserveIn,
    ServiceActionIn16,
    cdb_length,
)
from target.scsi import block_commands as block
from target.scsi import mode_commands as mode
from target.scsi import pair_commands as pair
from target.scsi import primary_commands as primary
from target.scsi import provisioning_commands as provisioning
from target.scsi import reservation_commands as reservation
from target.scsi.command_context import CommandRow, DataDirection, Handler, MediumAccess, UnderReserve

_IN, _OUT, _NO_DATA = DataDirection.IN, DataDirection.OUT, DataDirection.NONE
_NONE, _READ, _WRITE = MediumAccess.NONE, MediumAccess.READ, MediumAccess.WRITE
_ALLOWED, _CONFLICT = UnderReserve.ALLOWED, UnderReserve.CONFLICT

_QUICK, _MEDIUM, _LONG = 10, 30, 120
"""Recommended timeouts, seconds: no medium; the medium, which may be at two sites; up to 1 GiB of it."""

# CDB usage from byte 2 on of the block commands, by CDB length: LBA, TRANSFER LENGTH. READ(6)'s LBA begins in byte 1.
_LBA_AND_LENGTH = {6: "ffff ff", 10: "ffffffff 00 ffff", 12: "ffffffff ffffffff", 16: "ffffffffffffffff ffffffff"}
# GROUP NUMBER is ignored, as no grouping function is supported (SBC-3 4.23).
_GROUP_NUMBER = {6: "", 10: "00000000 3f", 12: "0000000000000000 3f", 16: "000000000000000000000000 3f"}


def _row(
    code: OperationCode,
    handler: Handler,
    usage: str,
    direction: DataDirection,
    medium: MediumAccess,
    under_reserve: UnderReserve,
    timeout_seconds: int,
    *,
    service_action: IntEnum | None = None,
    ignored: str = "",
    unit_attention: bool = True,
) -> CommandRow:
    """``usage`` and ``ignored`` are hexadecimal, from byte 1 on; missing bytes are 0."""
    length = cdb_length(code)
    used = bytearray(bytes((code,)) + bytes.fromhex(usage).ljust(length - 1, b"\0"))
    if service_action is not None:
        used[1] |= service_action
    return CommandRow(
        operation_code=int(code),
        service_action=None if service_action is None else int(service_action),
        name=code.name if service_action is None else service_action.name,
        handler=handler,
        usage=bytes(used),
        ignored=b"\0" + bytes.fromhex(ignored).ljust(length - 1, b"\0"),
        direction=direction,
        medium=medium,
        under_reserve=under_reserve,
        timeout_seconds=timeout_seconds,
        unit_attention=unit_attention,
    )


def _block_row(
    code: OperationCode,
    handler: Handler,
    flags: str,
    direction: DataDirection,
    medium: MediumAccess,
    timeout_seconds: int = _MEDIUM,
    *,
    old_flags: str = "00",
) -> CommandRow:
    """A command on a range of blocks; another nexus's RESERVE forbids them all (SBC-3 table 4)."""
    length = cdb_length(code)
    usage, ignored = flags + _LBA_AND_LENGTH[length], old_flags + _GROUP_NUMBER[length]
    return _row(code, handler, usage, direction, medium, _CONFLICT, timeout_seconds, ignored=ignored)


_C = OperationCode

_PRIMARY = (
    _row(_C.TEST_UNIT_READY, primary.test_unit_ready, "", _NO_DATA, _NONE, _CONFLICT, _QUICK),
    _row(_C.REQUEST_SENSE, primary.request_sense, "01 0000 ff", _IN, _NONE, _ALLOWED, _QUICK, unit_attention=False),
    _row(_C.INQUIRY, primary.inquiry, "01 ff ffff", _IN, _NONE, _ALLOWED, _QUICK, unit_attention=False),
    _row(_C.MODE_SELECT_6, mode.mode_select, "10 0000 ff", _OUT, _NONE, _CONFLICT, _QUICK),
    _row(_C.MODE_SENSE_6, mode.mode_sense, "08 ff ff ff", _IN, _NONE, _CONFLICT, _QUICK),
    _row(_C.MODE_SELECT_10, mode.mode_select, "10 0000000000 ffff", _OUT, _NONE, _CONFLICT, _QUICK),
    _row(_C.MODE_SENSE_10, mode.mode_sense, "18 ff ff 000000 ffff", _IN, _NONE, _CONFLICT, _QUICK),
    _row(
        _C.START_STOP_UNIT,
        primary.start_stop_unit,
        "01 00 0f f7",
        _NO_DATA,
        _NONE,
        UnderReserve.ALLOWED_TO_START,
        _MEDIUM,
    ),
    _row(
        _C.PREVENT_ALLOW_MEDIUM_REMOVAL,
        primary.prevent_allow_medium_removal,
        "00 0000 03",
        _NO_DATA,
        _NONE,
        UnderReserve.ALLOWED_TO_ALLOW_REMOVAL,
        _QUICK,
    ),
    _row(
        _C.REPORT_LUNS, primary.report_luns, "00 ff 000000 ffffffff", _IN, _NONE, _ALLOWED, _QUICK, unit_attention=False
    ),
    _row(
        _C.MAINTENANCE_IN,
        primary.report_supported_operation_codes,
        "00 87 ff ffff ffffffff",
        _IN,
        _NONE,
        _CONFLICT,
        _QUICK,
        service_action=MaintenanceIn.REPORT_SUPPORTED_OPERATION_CODES,
    ),
    _row(
        _C.MAINTENANCE_IN,
        primary.report_supported_task_management_functions,
        "00 80 000000 ffffffff",
        _IN,
        _NONE,
        _CONFLICT,
        _QUICK,
        service_action=MaintenanceIn.REPORT_SUPPORTED_TASK_MANAGEMENT_FUNCTIONS,
    ),
)

# SPC-2 7.18, 7.21: byte 1 has the third-party and extent bits, which are refused; the fields that have a meaning only
# with them are ignored. RESERVE is CONFLICT here as everywhere, so that the handler meets free units and the holder.
_RESERVATION = (
    _row(_C.RESERVE_6, reservation.reserve, "", _NO_DATA, _NONE, _CONFLICT, _QUICK, ignored="00 ff ffff"),
    _row(_C.RELEASE_6, reservation.release, "", _NO_DATA, _NONE, _ALLOWED, _QUICK, ignored="00 ff ffff"),
    _row(_C.RESERVE_10, reservation.reserve, "", _NO_DATA, _NONE, _CONFLICT, _QUICK, ignored="00 ff ff 000000 ffff"),
    _row(_C.RELEASE_10, reservation.release, "", _NO_DATA, _NONE, _ALLOWED, _QUICK, ignored="00 ff ff 000000 ffff"),
    *(
        _row(
            _C.PERSISTENT_RESERVE_IN,
            reservation.persistent_reserve_in,
            "00 0000000000 ffff",
            _IN,
            _NONE,
            _CONFLICT,
            _QUICK,
            service_action=action,
        )
        for action in PersistentReserveIn
    ),
)

# Byte 1 has the flags: those that count, and those that SBC-3 calls obsolete (FUA_NV, SYNC_NV, RELADR) or that say
# nothing to us (RARC). Protection is refused by having no bit in either. SYNCHRONIZE CACHE changes nothing that a
# reader could see: to a pair and to write protection it is a read.
_BLOCKS = (
    _block_row(_C.READ_6, block.read, "1f", _IN, _READ),
    _block_row(_C.READ_10, block.read, "18", _IN, _READ, old_flags="07"),
    _block_row(_C.READ_12, block.read, "18", _IN, _READ, old_flags="07"),
    _block_row(_C.READ_16, block.read, "18", _IN, _READ, old_flags="07"),
    _block_row(_C.WRITE_6, block.write, "1f", _OUT, _WRITE),
    _block_row(_C.WRITE_10, block.write, "18", _OUT, _WRITE, old_flags="03"),
    _block_row(_C.WRITE_12, block.write, "18", _OUT, _WRITE, old_flags="03"),
    _block_row(_C.WRITE_16, block.write, "18", _OUT, _WRITE, old_flags="03"),
    _block_row(_C.WRITE_AND_VERIFY_10, block.write_and_verify, "16", _OUT, _WRITE, old_flags="01"),
    _block_row(_C.WRITE_AND_VERIFY_12, block.write_and_verify, "16", _OUT, _WRITE, old_flags="01"),
    _block_row(_C.WRITE_AND_VERIFY_16, block.write_and_verify, "16", _OUT, _WRITE, old_flags="01"),
    _block_row(_C.VERIFY_10, block.verify, "16", _OUT, _READ, _LONG, old_flags="01"),
    _block_row(_C.VERIFY_12, block.verify, "16", _OUT, _READ, _LONG, old_flags="01"),
    _block_row(_C.VERIFY_16, block.verify, "16", _OUT, _READ, _LONG, old_flags="01"),
    _block_row(_C.PRE_FETCH_10, block.pre_fetch, "02", _NO_DATA, _READ, old_flags="01"),
    _block_row(_C.PRE_FETCH_16, block.pre_fetch, "02", _NO_DATA, _READ, old_flags="01"),
    _block_row(_C.SYNCHRONIZE_CACHE_10, block.synchronize_cache, "02", _NO_DATA, _READ, _LONG, old_flags="05"),
    _block_row(_C.SYNCHRONIZE_CACHE_16, block.synchronize_cache, "02", _NO_DATA, _READ, _LONG, old_flags="05"),
    _block_row(_C.WRITE_SAME_10, provisioning.write_same, "08", _OUT, _WRITE, _LONG),
    _block_row(_C.WRITE_SAME_16, provisioning.write_same, "09", _OUT, _WRITE, _LONG),
    _row(
        _C.COMPARE_AND_WRITE,
        block.compare_and_write,
        "18 ffffffffffffffff 000000 ff",
        _OUT,
        _WRITE,
        _CONFLICT,
        _MEDIUM,
        ignored="02" + _GROUP_NUMBER[16],
    ),
)

_CAPACITY_AND_PROVISIONING = (
    _row(_C.READ_CAPACITY_10, block.read_capacity_10, "", _IN, _NONE, _ALLOWED, _QUICK, ignored="00 ffffffff 0000 01"),
    _row(
        _C.SERVICE_ACTION_IN_16,
        block.read_capacity_16,
        "00 0000000000000000 ffffffff",
        _IN,
        _NONE,
        _ALLOWED,
        _QUICK,
        service_action=ServiceActionIn16.READ_CAPACITY_16,
        ignored="00 ffffffffffffffff 00000000 01",
    ),
    _row(
        _C.SERVICE_ACTION_IN_16,
        provisioning.get_lba_status,
        "00 ffffffffffffffff ffffffff",
        _IN,
        _READ,
        _CONFLICT,
        _MEDIUM,
        service_action=ServiceActionIn16.GET_LBA_STATUS,
    ),
    _row(_C.READ_DEFECT_DATA_10, block.read_defect_data_10, "00 1f 00000000 ffff", _IN, _NONE, _CONFLICT, _QUICK),
    _row(_C.READ_DEFECT_DATA_12, block.read_defect_data_12, "1f ffffffff ffffffff", _IN, _NONE, _CONFLICT, _QUICK),
    _row(
        _C.UNMAP,
        provisioning.unmap,
        "00 0000000000 ffff",
        _OUT,
        _WRITE,
        _CONFLICT,
        _LONG,
        ignored="00" + _GROUP_NUMBER[10],
    ),
)


def _pair_row(
    code: OperationCode, handler: Handler, usage: str, direction: DataDirection, action: IntEnum
) -> CommandRow:
    """Pair control passes reservations and unit attentions by.

    It is how a reservation comes to be decided and given back, and a control session's first command must be answered
    in the time that an arbitration has. The host's own nexus hears its unit attentions all the same.
    """
    return _row(code, handler, usage, direction, _NONE, _ALLOWED, _MEDIUM, service_action=action, unit_attention=False)


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
        (*_PRIMARY, *_RESERVATION, *_BLOCKS, *_CAPACITY_AND_PROVISIONING, *_PAIR),
        key=lambda row: (row.operation_code, row.service_action or 0),
    )
)

OpcodeEntry: TypeAlias = CommandRow | dict[int, CommandRow] | None
"""A row, the rows by service action, or nothing: not supported."""


def _index_rows(rows: Sequence[CommandRow]) -> tuple[OpcodeEntry, ...]:
    index: list[OpcodeEntry] = [None] * 256
    for row in rows:
        entry = index[row.operation_code]
        if row.service_action is None:
            assert entry is None, f"two rows for {row.operation_code:02X}h"
            index[row.operation_code] = row
            continue
        actions = {} if entry is None else entry
        assert isinstance(actions, dict) and row.service_action not in actions, row.name
        actions[row.service_action] = row
        index[row.operation_code] = actions
    return tuple(index)


ROWS_BY_OPCODE = _index_rows(COMMAND_ROWS)
