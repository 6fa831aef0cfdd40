"""VERIFY and WRITE AND VERIFY (SBC-3 5.29, 5.34)."""

import pytest

from storage_model.spec.scsi_cdb import OperationCode as Code
from storage_model.spec.scsi_cdb import encode_block_cdb

VERIFY = [Code.VERIFY_10, Code.VERIFY_12, Code.VERIFY_16]


@pytest.fixture
def data():
    return bytes(i % 251 for i in range(2048))


@pytest.mark.parametrize("code", VERIFY, ids=lambda code: code.name)
async def test_byte_check(bench, data, code):
    await bench.good(encode_block_cdb(Code.WRITE_10, 8, 4), data)
    await bench.good(encode_block_cdb(code, 8, 4, 0x02), data)
    wrong = bytearray(data)
    wrong[1234] ^= 0xFF
    sense = await bench.refused(encode_block_cdb(code, 8, 4, 0x02), bytes(wrong))
    assert (sense.sense_key, sense.asc_ascq, sense.information) == (0xE, 0x1D00, 1234)
    await bench.good(encode_block_cdb(code, 8, 4, 0x00), bytes(wrong))


@pytest.mark.parametrize("code", VERIFY, ids=lambda code: code.name)
async def test_one_block_against_each(bench, code):
    await bench.good(encode_block_cdb(Code.WRITE_10, 0, 4), b"z" * 2048)
    await bench.good(encode_block_cdb(code, 0, 4, 0x06), b"z" * 512)
    await bench.good(encode_block_cdb(Code.WRITE_10, 3, 1), b"z" * 511 + b"!")
    sense = await bench.refused(encode_block_cdb(code, 0, 4, 0x06), b"z" * 512)
    assert (sense.sense_key, sense.asc_ascq, sense.information) == (0xE, 0x1D00, 511)


@pytest.mark.parametrize("code", [*VERIFY, Code.WRITE_AND_VERIFY_10], ids=lambda code: code.name)
async def test_reserved_byte_check(bench, code):
    assert (await bench.refused(encode_block_cdb(code, 0, 1, 0x04), b"z" * 512)).asc_ascq == 0x2400


@pytest.mark.parametrize(
    "code",
    [Code.WRITE_AND_VERIFY_10, Code.WRITE_AND_VERIFY_12, Code.WRITE_AND_VERIFY_16],
    ids=lambda code: code.name,
)
@pytest.mark.parametrize("byte_check", [0b10, 0b11])
async def test_write_and_verify_compares_all_or_nothing(bench, code, byte_check):
    """SBC-3 table 96: there is no single block to compare with, unlike in VERIFY. Nothing is written."""
    sense = await bench.refused(encode_block_cdb(code, 0, 1, byte_check << 1), b"z" * 512)
    assert (sense.asc_ascq, sense.field_pointer, sense.bit_pointer) == (0x2400, 1, 2)
    assert not any(await bench.good(encode_block_cdb(Code.READ_10, 0, 1)))


async def test_write_and_verify_writes(bench, data):
    for code in (Code.WRITE_AND_VERIFY_10, Code.WRITE_AND_VERIFY_12, Code.WRITE_AND_VERIFY_16):
        for flags in (0x00, 0x02):
            await bench.good(encode_block_cdb(code, 16, 4, flags), data)
            assert await bench.good(encode_block_cdb(Code.READ_10, 16, 4)) == data
