"""SBC-3 4.5.2: every command on blocks refuses what lies beyond the last one."""

import pytest

from storage_model.spec.scsi_cdb import OperationCode as Code
from storage_model.spec.scsi_cdb import cdb_length, encode_block_cdb

CODES = [
    *(Code.READ_6, Code.READ_10, Code.READ_12, Code.READ_16, Code.WRITE_6, Code.WRITE_10, Code.WRITE_12, Code.WRITE_16),
    *(Code.WRITE_AND_VERIFY_10, Code.WRITE_AND_VERIFY_12, Code.WRITE_AND_VERIFY_16),
    *(Code.VERIFY_10, Code.VERIFY_12, Code.VERIFY_16, Code.PRE_FETCH_10, Code.PRE_FETCH_16),
    *(Code.SYNCHRONIZE_CACHE_10, Code.SYNCHRONIZE_CACHE_16, Code.WRITE_SAME_10, Code.WRITE_SAME_16, Code.ORWRITE_16),
]


@pytest.mark.parametrize("code", CODES, ids=lambda code: code.name)
async def test_beyond_the_end(bench, code):
    top = {6: (1 << 21) - 1, 10: (1 << 32) - 1, 12: (1 << 32) - 1, 16: (1 << 64) - 1}[cdb_length(code)]
    for lba, count in ((2047, 2), (2048, 1), (2049, 1), (top, 2)):
        sense = await bench.refused(encode_block_cdb(code, lba, count), b"x" * 1024)
        assert (sense.sense_key, sense.asc_ascq) == (0x5, 0x2100), (lba, count)


@pytest.mark.parametrize("code", [Code.READ_10, Code.WRITE_16, Code.VERIFY_12, Code.PRE_FETCH_10], ids=lambda c: c.name)
async def test_no_blocks_beyond_the_end(bench, code):
    assert (await bench.refused(encode_block_cdb(code, 2049, 0))).asc_ascq == 0x2100


async def test_nothing_is_written_when_only_the_end_is_beyond(bench):
    await bench.refused(encode_block_cdb(Code.WRITE_10, 2047, 2), b"x" * 1024)
    assert not any(await bench.good(encode_block_cdb(Code.READ_10, 2047, 1)))
