"""WRITE SAME to a fully provisioned unit: it writes, and does not unmap (SBC-3 4.7.2, 5.40)."""

import pytest

from storage_model.spec.scsi_cdb import OperationCode as Code
from storage_model.spec.scsi_cdb import encode_block_cdb

BOTH = pytest.mark.parametrize("code", [Code.WRITE_SAME_10, Code.WRITE_SAME_16], ids=lambda code: code.name)


@BOTH
async def test_writes(full_bench, code):
    await full_bench.good(encode_block_cdb(code, 3, 5), b"s" * 512)
    assert await full_bench.good(encode_block_cdb(Code.READ_10, 3, 5)) == b"s" * 2560


@BOTH
async def test_the_unmap_bit_is_refused(full_bench, code):
    await full_bench.good(encode_block_cdb(Code.WRITE_10, 3, 1), b"d" * 512)
    sense = await full_bench.refused(encode_block_cdb(code, 3, 1, 0x08), bytes(512))
    assert (sense.sense_key, sense.asc_ascq, sense.field_pointer, sense.bit_pointer) == (0x5, 0x2400, 1, 3)
    assert await full_bench.good(encode_block_cdb(Code.READ_10, 3, 1)) == b"d" * 512


@BOTH
async def test_the_unmap_bit_is_reported_as_unused(full_bench, bench, code):
    one_command = bytes((0xA3, 0x0C, 0x01, code, 0, 0, 0, 0, 1, 0))
    usage = (await full_bench.good(one_command))[4:]
    with_unmap = (await bench.good(one_command))[4:]
    assert not usage[1] & 0x08 and with_unmap[1] & 0x08
    assert usage[2:] == with_unmap[2:]
