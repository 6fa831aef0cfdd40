"""READ and WRITE 6, 10, 12, 16: what is written is read (SBC-3 5.9 to 5.12, 5.30 to 5.33)."""

import pytest

from storage_model.spec.scsi_cdb import OperationCode, encode_block_cdb

PAIRS = [
    (OperationCode.READ_6, OperationCode.WRITE_6),
    (OperationCode.READ_10, OperationCode.WRITE_10),
    (OperationCode.READ_12, OperationCode.WRITE_12),
    (OperationCode.READ_16, OperationCode.WRITE_16),
]


@pytest.mark.parametrize(("read", "write"), PAIRS)
@pytest.mark.parametrize(("lba", "count"), [(0, 1), (5, 3), (120, 16), (2047, 1), (0, 255)])
async def test_data_comes_back(bench, read, write, lba, count):
    data = bytes(range(256)) * (2 * count)
    outcome = await bench.run(encode_block_cdb(write, lba, count), data)
    assert outcome.transfer_length_bytes == len(data)
    assert await bench.good(encode_block_cdb(read, lba, count)) == data


async def test_six_byte_length_zero_is_256_blocks(bench):
    """SBC-3 5.9."""
    assert len(await bench.good("08 000000 00 00")) == 256 * 512


@pytest.mark.parametrize("code", [OperationCode.READ_10, OperationCode.READ_12, OperationCode.READ_16])
async def test_no_blocks_is_no_error(bench, code):
    assert await bench.good(encode_block_cdb(code, 0, 0)) == b""


@pytest.mark.parametrize("flags", [0x10, 0x08, 0x18, 0x02])
async def test_dpo_fua_and_obsolete_fua_nv_are_taken(bench, flags):
    await bench.good(encode_block_cdb(OperationCode.WRITE_10, 1, 1, flags), b"x" * 512)
    assert await bench.good(encode_block_cdb(OperationCode.READ_10, 1, 1, flags)) == b"x" * 512


@pytest.mark.parametrize("code", [code for pair in PAIRS[1:] for code in pair])
@pytest.mark.parametrize("protect", range(1, 8))
async def test_protection_is_refused(bench, code, protect):
    """SBC-3 5.10 table 71: without protection information only 000b is valid."""
    sense = await bench.refused(encode_block_cdb(code, 0, 1, protect << 5), b"x" * 512)
    assert (sense.sense_key, sense.asc_ascq, sense.field_pointer) == (0x5, 0x2400, 1)
