"""Which rows of the command table a unit does not have: the one place that says so."""

from collections.abc import Iterable
from dataclasses import replace

from storage_model.errors import CheckCondition
from storage_model.spec.scsi_cdb import UNMAP_BIT, OperationCode
from storage_model.spec.scsi_sanitize import Sanitize
from storage_model.spec.scsi_sense import AscAscq, SenseKey
from storage_model.volume import AtomicVolume, KeyedVolume
from target.scsi.command_row import CommandRow
from target.scsi.logical_unit import LogicalUnit


def is_offered(row: CommandRow, lu: LogicalUnit) -> bool:
    """A unit that belongs to a pair has no atomic writes: the other half writes in pieces of its own.

    A fully provisioned unit has nothing to unmap (SBC-3 4.7.2) or to block erase: its blocks stay where they are. Only
    an encrypted one has a key to change.
    """
    block_erase = (row.operation_code, row.service_action) == (OperationCode.SANITIZE, Sanitize.BLOCK_ERASE)
    if block_erase or row.operation_code == OperationCode.UNMAP:
        return lu.thin
    if (row.operation_code, row.service_action) == (OperationCode.SANITIZE, Sanitize.CRYPTOGRAPHIC_ERASE):
        return isinstance(lu.volume, KeyedVolume)
    if row.operation_code == OperationCode.WRITE_ATOMIC_16:
        return isinstance(lu.volume, AtomicVolume)
    return True


def offered_rows(rows: Iterable[CommandRow], lu: LogicalUnit) -> list[CommandRow]:
    """What REPORT SUPPORTED OPERATION CODES tells of the unit."""
    return [_without_unmap(row) if not lu.thin else row for row in rows if is_offered(row, lu)]


def _without_unmap(row: CommandRow) -> CommandRow:
    """WRITE SAME of a fully provisioned unit, which refuses the UNMAP bit."""
    if row.operation_code not in (OperationCode.WRITE_SAME_10, OperationCode.WRITE_SAME_16):
        return row
    return replace(row, usage=bytes((row.usage[0], row.usage[1] & ~UNMAP_BIT, *row.usage[2:])))


def check_offered(row: CommandRow, lu: LogicalUnit) -> None:
    """Raises CheckCondition as for an operation code that is not in the table at all."""
    if not is_offered(row, lu):
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, AscAscq.INVALID_COMMAND_OPERATION_CODE, field_pointer=0)
