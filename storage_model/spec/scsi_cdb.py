"""Command descriptor blocks: operation codes, service actions and the fields that block commands share.

The four sizes of block CDB (SBC-3 5) put the same fields in different places, so one decoder per size yields the
same three numbers; ``construct`` declares the layouts and is what the struct decoders are tested against.
"""

from collections.abc import Callable
from enum import IntEnum
from struct import Struct
from typing import Final, TypeAlias

import construct as c


class OperationCode(IntEnum):
    """SPC-4 annex F.3, SBC-3 annex; C0h and C1h are this project's vendor commands (see ``pair_cdb``)."""

    TEST_UNIT_READY = 0x00
    REQUEST_SENSE = 0x03
    FORMAT_UNIT = 0x04
    READ_6 = 0x08
    WRITE_6 = 0x0A
    INQUIRY = 0x12
    MODE_SELECT_6 = 0x15
    RESERVE_6 = 0x16
    RELEASE_6 = 0x17
    MODE_SENSE_6 = 0x1A
    START_STOP_UNIT = 0x1B
    PREVENT_ALLOW_MEDIUM_REMOVAL = 0x1E
    READ_CAPACITY_10 = 0x25
    READ_10 = 0x28
    WRITE_10 = 0x2A
    WRITE_AND_VERIFY_10 = 0x2E
    VERIFY_10 = 0x2F
    PRE_FETCH_10 = 0x34
    SYNCHRONIZE_CACHE_10 = 0x35
    READ_DEFECT_DATA_10 = 0x37
    WRITE_BUFFER = 0x3B
    READ_BUFFER_10 = 0x3C
    WRITE_SAME_10 = 0x41
    UNMAP = 0x42
    SANITIZE = 0x48
    LOG_SELECT = 0x4C
    LOG_SENSE = 0x4D
    MODE_SELECT_10 = 0x55
    RESERVE_10 = 0x56
    RELEASE_10 = 0x57
    MODE_SENSE_10 = 0x5A
    PERSISTENT_RESERVE_IN = 0x5E
    PERSISTENT_RESERVE_OUT = 0x5F
    EXTENDED_COPY = 0x83
    RECEIVE_COPY_RESULTS = 0x84
    READ_16 = 0x88
    COMPARE_AND_WRITE = 0x89
    WRITE_16 = 0x8A
    ORWRITE_16 = 0x8B
    WRITE_AND_VERIFY_16 = 0x8E
    VERIFY_16 = 0x8F
    PRE_FETCH_16 = 0x90
    SYNCHRONIZE_CACHE_16 = 0x91
    WRITE_SAME_16 = 0x93
    WRITE_ATOMIC_16 = 0x9C
    SERVICE_ACTION_IN_16 = 0x9E
    REPORT_LUNS = 0xA0
    MAINTENANCE_IN = 0xA3
    MAINTENANCE_OUT = 0xA4
    READ_12 = 0xA8
    WRITE_12 = 0xAA
    WRITE_AND_VERIFY_12 = 0xAE
    VERIFY_12 = 0xAF
    READ_DEFECT_DATA_12 = 0xB7
    PAIR_CONTROL_IN = 0xC0
    PAIR_CONTROL_OUT = 0xC1


class ServiceActionIn16(IntEnum):
    """SERVICE ACTION IN(16), byte 1 bits 4:0 (SBC-3 5.1)."""

    READ_CAPACITY_16 = 0x10
    GET_LBA_STATUS = 0x12


class PersistentReserveIn(IntEnum):
    """PERSISTENT RESERVE IN, byte 1 bits 4:0 (SPC-4 6.15.1)."""

    READ_KEYS = 0x00
    READ_RESERVATION = 0x01
    REPORT_CAPABILITIES = 0x02
    READ_FULL_STATUS = 0x03


class PersistentReserveOut(IntEnum):
    """PERSISTENT RESERVE OUT, byte 1 bits 4:0 (SPC-4 6.16.2). REPLACE LOST RESERVATION (08h) is not there: nothing is
    ever lost that is not an error of the whole array, so that RLR_C is 0 (SPC-4 6.15.4)."""

    REGISTER = 0x00
    RESERVE = 0x01
    RELEASE = 0x02
    CLEAR = 0x03
    PREEMPT = 0x04
    PREEMPT_AND_ABORT = 0x05
    REGISTER_AND_IGNORE_EXISTING_KEY = 0x06
    REGISTER_AND_MOVE = 0x07


class MaintenanceIn(IntEnum):
    """MAINTENANCE IN, byte 1 bits 4:0 (SPC-4 6.1)."""

    REPORT_TARGET_PORT_GROUPS = 0x0A
    REPORT_SUPPORTED_OPERATION_CODES = 0x0C
    REPORT_SUPPORTED_TASK_MANAGEMENT_FUNCTIONS = 0x0D


class MaintenanceOut(IntEnum):
    """MAINTENANCE OUT, byte 1 bits 4:0 (SPC-4 6.1)."""

    SET_TARGET_PORT_GROUPS = 0x0A


def cdb_length(operation_code: int) -> int:
    """Bytes in a CDB by its group code (SPC-4 4.2.5.1); vendor groups are taken as the 16 bytes that iSCSI carries."""
    return (6, 10, 10, 16, 16, 12, 16, 16)[operation_code >> 5]


BlockFields: TypeAlias = tuple[int, int, int]
"""(flags, lba, transfer_length): what READ, WRITE, VERIFY and their kin have in common; flags is byte 1 of the CDB, 0
for six bytes. A plain tuple, as it is made once per read and write."""
BlockDecoder: TypeAlias = Callable[[bytes], BlockFields]

# Byte 1 of the block commands (SBC-3 5.10 and following).
FUA: Final = 0x08
ANCHOR = 0x10  # WRITE SAME only
UNMAP_BIT = 0x08  # WRITE SAME only
NDOB = 0x01  # WRITE SAME(16) only
UNMAP_ANCHOR = 0x01  # UNMAP only
IMMED = 0x02  # SYNCHRONIZE CACHE, PRE-FETCH

BLOCK_CDB_6 = c.BitStruct(
    "operation_code" / c.BitsInteger(8),
    c.Padding(3),
    "lba" / c.BitsInteger(21),
    "transfer_length" / c.BitsInteger(8),
    "control" / c.BitsInteger(8),
)
BLOCK_CDB_10 = c.Struct(
    "operation_code" / c.Int8ub,
    "flags" / c.Int8ub,
    "lba" / c.Int32ub,
    "group_number" / c.Int8ub,
    "transfer_length" / c.Int16ub,
    "control" / c.Int8ub,
)
BLOCK_CDB_12 = c.Struct(
    "operation_code" / c.Int8ub,
    "flags" / c.Int8ub,
    "lba" / c.Int32ub,
    "transfer_length" / c.Int32ub,
    "group_number" / c.Int8ub,
    "control" / c.Int8ub,
)
BLOCK_CDB_16 = c.Struct(
    "operation_code" / c.Int8ub,
    "flags" / c.Int8ub,
    "lba" / c.Int64ub,
    "transfer_length" / c.Int32ub,
    "group_number" / c.Int8ub,
    "control" / c.Int8ub,
)


def decode_block_6(cdb: bytes) -> BlockFields:
    """READ(6), WRITE(6): 21-bit LBA, and a length of 0 means 256 blocks (SBC-3 5.9)."""
    return 0, (cdb[1] & 0x1F) << 16 | cdb[2] << 8 | cdb[3], cdb[4] or 256


# The structs yield the three fields as they are wanted: a function around each would double the time.
decode_block_10: BlockDecoder = Struct(">xBIxH").unpack_from
decode_block_12: BlockDecoder = Struct(">xBII").unpack_from
decode_block_16: BlockDecoder = Struct(">xBQI").unpack_from

_DECODE_BY_GROUP: tuple[BlockDecoder, ...] = (
    decode_block_6,
    decode_block_10,
    decode_block_10,
    decode_block_16,
    decode_block_16,
    decode_block_12,
    decode_block_16,
    decode_block_16,
)


def block_decoder(operation_code: int) -> BlockDecoder:
    return _DECODE_BY_GROUP[operation_code >> 5]


def decode_block_cdb(cdb: bytes) -> BlockFields:
    """Decode by the group code in bits 7:5 of the operation code."""
    return _DECODE_BY_GROUP[cdb[0] >> 5](cdb)


def encode_block_cdb(operation_code: int, lba: int, transfer_length: int, flags: int = 0) -> bytes:
    """A block command's CDB in the size that the operation code implies, CONTROL and GROUP NUMBER zero."""
    length = cdb_length(operation_code)
    if length == 6:
        return bytes((operation_code, lba >> 16 & 0x1F, lba >> 8 & 0xFF, lba & 0xFF, transfer_length & 0xFF, 0))
    layout = {10: BLOCK_CDB_10, 12: BLOCK_CDB_12, 16: BLOCK_CDB_16}[length]
    fields = {"flags": flags, "lba": lba, "group_number": 0, "transfer_length": transfer_length, "control": 0}
    return bytes(layout.build({"operation_code": operation_code, **fields}))
