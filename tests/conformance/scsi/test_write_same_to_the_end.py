"""WRITE SAME with NUMBER OF LOGICAL BLOCKS 0: to the end of the medium, where WSNZ is 0 (SBC-3 5.40, 6.6.4)."""

import pytest

from storage_model.spec.scsi_cdb import OperationCode as Code
from storage_model.spec.scsi_cdb import encode_block_cdb
from storage_model.spec.scsi_pages import BLOCK_LIMITS
from target.scsi.device_server import DeviceServer
from target.scsi.logical_unit import LogicalUnit, UnitIdentity
from target.volumes.memory_volume import MemoryVolume

BOTH = pytest.mark.parametrize("code", [Code.WRITE_SAME_10, Code.WRITE_SAME_16], ids=lambda code: code.name)


@BOTH
async def test_a_full_unit_writes_to_its_end(full_bench, code):
    await full_bench.good(encode_block_cdb(code, 2040, 0), b"e" * 512)
    assert await full_bench.good(encode_block_cdb(Code.READ_10, 2039, 9)) == bytes(512) + b"e" * 512 * 8


@BOTH
async def test_a_thin_unit_refuses_it(bench, code):
    for flags in (0, 0x08):
        sense = await bench.refused(encode_block_cdb(code, 2040, 0, flags), bytes(512))
        assert (sense.sense_key, sense.asc_ascq) == (0x5, 0x2400)


@BOTH
async def test_from_beyond_the_end(full_bench, code):
    assert (await full_bench.refused(encode_block_cdb(code, 2048, 0), bytes(512))).asc_ascq == 0x2100


@BOTH
async def test_maximum_write_same_length_holds(full_bench, code):
    limits = BLOCK_LIMITS.parse((await full_bench.good("12 01 b0 00 40 00"))[4:])
    blocks = limits.maximum_write_same_length + 2
    volume = MemoryVolume(blocks * 512)
    full_bench.server = DeviceServer({0: LogicalUnit(0, volume, UnitIdentity("large"), thin=False)})
    assert (await full_bench.refused(encode_block_cdb(code, 1, 0), bytes(512))).asc_ascq == 0x2400
    assert not (await volume.block_status(0, 512))[0].mapped
    await full_bench.good(encode_block_cdb(code, blocks - 1, 0), b"e" * 512)
