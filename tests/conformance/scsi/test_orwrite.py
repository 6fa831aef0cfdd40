"""ORWRITE(16) (SBC-3 5.6)."""

import asyncio

import pytest

from storage_model.spec.scsi_cdb import OperationCode as Code
from storage_model.spec.scsi_cdb import encode_block_cdb
from storage_model.spec.scsi_task import ScsiStatus
from target.scsi.block_commands import CHUNK_BYTES
from target.scsi.device_server import DeviceServer
from target.scsi.logical_unit import LogicalUnit, UnitIdentity
from target.volumes.memory_volume import MemoryVolume
from tests.conformance.scsi.bench import record_writes

READ = encode_block_cdb(Code.READ_16, 8, 4)


def orwrite(lba, count, flags=0):
    return encode_block_cdb(Code.ORWRITE_16, lba, count, flags)


async def test_a_bit_is_set_where_either_has_it(bench):
    await bench.good(encode_block_cdb(Code.WRITE_16, 8, 4), b"\x0c\xf0" * 1024)
    outcome = await bench.run(orwrite(9, 2), b"\x0a\x0f" * 512)
    assert outcome.status is ScsiStatus.GOOD and outcome.transfer_length_bytes == 1024
    assert await bench.good(READ) == b"\x0c\xf0" * 256 + b"\x0e\xff" * 512 + b"\x0c\xf0" * 256


async def test_no_blocks_is_no_error(bench):
    await bench.good(orwrite(0, 0))


@pytest.mark.parametrize("flags", [0x20, 0x40, 0x80, 0xE0])
async def test_protection_is_refused(bench, flags):
    """SBC-3 table 37: without protection information ORPROTECT has to be 000b."""
    assert (await bench.refused(orwrite(0, 1, flags), bytes(512))).asc_ascq == 0x2400


async def test_force_unit_access(bench, monkeypatch):
    """SBC-3 5.6: FUA makes what was written durable before the status."""
    seen = record_writes(bench.volume, monkeypatch)
    await bench.good(orwrite(0, 1), bytes(512))
    await bench.good(orwrite(0, 1, 0x08), bytes(512))
    assert seen == [(512, False), (512, True)]


async def test_less_data_than_the_cdb_asks_for(bench):
    """RFC 7143 §11.4.5.1: the whole blocks that came are used, the rest is the residual."""
    outcome = await bench.run(orwrite(8, 3), b"\xff" * 1000)
    assert outcome.status is ScsiStatus.GOOD and outcome.transfer_length_bytes == 1536
    assert await bench.good(READ) == b"\xff" * 512 + bytes(1536)


async def test_of_two_at_once_no_bit_is_lost(slow_bench, slow_volume):
    """SBC-3 5.6: an uninterrupted series of actions; neither reads what the other is about to change."""
    first = asyncio.create_task(slow_bench.run(orwrite(8, 1), b"\x01" * 512))
    await slow_volume.waiting.wait()
    second = asyncio.create_task(slow_bench.run(orwrite(8, 1), b"\x80" * 512, slow_bench.nexus_b))
    await asyncio.sleep(0)
    slow_volume.let_go.set()
    for outcome in await asyncio.gather(first, second):
        assert outcome.status is ScsiStatus.GOOD
    assert await slow_bench.good(encode_block_cdb(Code.READ_16, 8, 1)) == b"\x81" * 512


async def test_a_long_one_goes_in_pieces(bench, monkeypatch):
    volume = MemoryVolume(4 * CHUNK_BYTES)
    bench.server = DeviceServer({0: LogicalUnit(0, volume, UnitIdentity("large"))})
    seen = record_writes(volume, monkeypatch)
    data = bytes(range(256)) * (5 * CHUNK_BYTES // 512)
    await bench.good(orwrite(3, len(data) // 512), data)
    sizes = [length for length, _ in seen]
    assert sum(sizes) == len(data) and max(sizes) == CHUNK_BYTES
    assert await bench.good(encode_block_cdb(Code.READ_16, 3, len(data) // 512)) == data


async def test_nothing_is_written_once_it_is_aborted(bench, monkeypatch):
    """SAM-5 5.6: an abort may come between the read and the write."""
    task = bench.task(orwrite(8, 1), b"\xff" * 512)
    original = bench.volume.read

    async def read(offset_bytes, length_bytes):
        task.aborted = True
        return await original(offset_bytes, length_bytes)

    monkeypatch.setattr(bench.volume, "read", read)
    await bench.server.execute(task)
    assert await bench.good(encode_block_cdb(Code.READ_16, 8, 1)) == bytes(512)
