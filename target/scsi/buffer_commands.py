"""READ BUFFER and WRITE BUFFER (SPC-4 6.18, 6.49): they test the way of the data. No microcode is taken. [C]"""

from enum import IntEnum

from storage_model.errors import CheckCondition
from storage_model.spec.scsi_sense import AscAscq, SenseKey
from target.scsi.command_context import CommandContext, invalid_field
from target.scsi.diagnostic_buffers import DATA_BUFFER_BYTES, ECHO_BUFFER_BYTES
from target.scsi.task import TaskOutcome


class BufferMode(IntEnum):
    """The MODE field (SPC-4 tables 228 and 300)."""

    DATA = 0x02
    DESCRIPTOR = 0x03
    ECHO = 0x0A
    ECHO_DESCRIPTOR = 0x0B


_ECHO_SUPPORTED_EBOS = 0x01
"""EBOS 1: what another nexus overwrites is told, never handed out (SPC-4 6.18.8)."""


async def read_buffer(context: CommandContext) -> TaskOutcome:
    cdb, buffers, nexus = context.cdb, context.lu.diagnostic_buffers, context.task.nexus
    mode, allocation_length = cdb[1] & 0x1F, int.from_bytes(cdb[6:9], "big")
    match mode:
        case BufferMode.DATA:
            offset = _offset(context)
            return context.data_in(buffers.read_data(offset, allocation_length), allocation_length)
        case BufferMode.DESCRIPTOR:
            # A buffer that is not there has a descriptor of zeros, which is no error (SPC-4 6.18.5).
            descriptor = b"\0" + DATA_BUFFER_BYTES.to_bytes(3, "big") if cdb[2] == 0 else bytes(4)
            return context.data_in(descriptor, allocation_length)
        case BufferMode.ECHO:
            echo = buffers.read_echo(nexus)
            if echo is not None:
                return context.data_in(echo, allocation_length)
            if buffers.echo_overwritten(nexus):
                raise CheckCondition(SenseKey.ABORTED_COMMAND, AscAscq.ECHO_BUFFER_OVERWRITTEN)
            raise CheckCondition(SenseKey.ILLEGAL_REQUEST, AscAscq.COMMAND_SEQUENCE_ERROR)
        case BufferMode.ECHO_DESCRIPTOR:
            descriptor = bytes((_ECHO_SUPPORTED_EBOS, 0)) + ECHO_BUFFER_BYTES.to_bytes(2, "big")
            return context.data_in(descriptor, allocation_length)
    raise invalid_field(1, 4)


async def write_buffer(context: CommandContext) -> TaskOutcome:
    cdb, buffers = context.cdb, context.lu.diagnostic_buffers
    mode, length = cdb[1] & 0x1F, int.from_bytes(cdb[6:9], "big")
    match mode:
        case BufferMode.DATA:
            offset = _offset(context)
            if offset + length > DATA_BUFFER_BYTES:
                raise invalid_field(6)
            buffers.write_data(offset, bytes(context.parameter_list(length)))
        case BufferMode.ECHO:  # BUFFER ID and BUFFER OFFSET say nothing here (SPC-4 6.49.9)
            if length > ECHO_BUFFER_BYTES:
                raise invalid_field(6)
            buffers.write_echo(context.task.nexus, bytes(context.parameter_list(length)))
        case _:
            raise invalid_field(1, 4)
    return TaskOutcome(transfer_length_bytes=length)


def _offset(context: CommandContext) -> int:
    """BUFFER OFFSET into buffer 0, the only one; every byte is a boundary."""
    cdb = context.cdb
    if cdb[2]:
        raise invalid_field(2)
    offset = int.from_bytes(cdb[3:6], "big")
    if offset >= DATA_BUFFER_BYTES:
        raise invalid_field(3)
    return offset
