"""WRITE ATOMIC(16) (SBC-4 5.48) and the limits that the block limits page tells (SBC-4 6.6.4)."""

import pytest

from storage_model.spec.scsi_cdb import OperationCode as Code
from storage_model.spec.scsi_cdb import encode_block_cdb
from storage_model.spec.scsi_pages import BLOCK_LIMITS
from storage_model.spec.scsi_task import ScsiStatus
from target.scsi.device_server import DeviceServer
from target.scsi.logical_unit import LogicalUnit, UnitIdentity
from target.volumes.memory_volume import MemoryVolume

READ = encode_block_cdb(Code.READ_16, 8, 4)


def write_atomic(lba, count, flags=0, boundary=0):
    return (
        bytes((0x9C, flags)) + lba.to_bytes(8, "big") + boundary.to_bytes(2, "big") + count.to_bytes(2, "big") + b"\0\0"
    )


async def limits_of(bench):
    return BLOCK_LIMITS.parse((await bench.good("12 01 b0 00 40"))[4:])


async def test_writes(bench):
    outcome = await bench.run(write_atomic(9, 2), b"a" * 1024)
    assert outcome.status is ScsiStatus.GOOD and outcome.transfer_length_bytes == 1024
    assert await bench.good(READ) == bytes(512) + b"a" * 1024 + bytes(512)


async def test_no_blocks_is_no_error(bench):
    await bench.good(write_atomic(0, 0))


@pytest.mark.parametrize(("lba", "count"), [(2047, 2), (2048, 0x100), (1 << 63, 1), ((1 << 64) - 1, 2)])
async def test_beyond_the_end(bench, lba, count):
    sense = await bench.refused(write_atomic(lba, count), bytes(512 * count))
    assert (sense.sense_key, sense.asc_ascq) == (0x5, 0x2100)


@pytest.mark.parametrize("flags", [0x20, 0x40, 0x80, 0xE0])
async def test_protection_is_refused(bench, flags):
    assert (await bench.refused(write_atomic(0, 1, flags), bytes(512))).asc_ascq == 0x2400


@pytest.mark.parametrize("block_length", [512, 4096])
async def test_the_maximum_is_what_the_block_limits_page_tells(bench, block_length):
    """SBC-4 6.6.4: MAXIMUM ATOMIC TRANSFER LENGTH, at most MAXIMUM TRANSFER LENGTH; one more is an invalid field."""
    volume = MemoryVolume(4 << 20, block_length)
    bench.server = DeviceServer({0: LogicalUnit(0, volume, UnitIdentity("limits"))})
    limits = await limits_of(bench)
    most = limits.maximum_atomic_transfer_length
    assert 256 <= most <= limits.maximum_transfer_length
    await bench.good(write_atomic(1, most), b"m" * (most * block_length))
    sense = await bench.refused(write_atomic(1, most + 1), b"n" * ((most + 1) * block_length))
    assert (sense.asc_ascq, sense.field_pointer) == (0x2400, 12)
    assert await bench.good(encode_block_cdb(Code.READ_16, most, 1)) == b"m" * block_length


async def test_any_alignment_and_granularity(bench):
    """SBC-4 6.6.4: ATOMIC ALIGNMENT and ATOMIC TRANSFER LENGTH GRANULARITY 0 mean that there is no requirement."""
    limits = await limits_of(bench)
    assert (limits.atomic_alignment, limits.atomic_transfer_length_granularity) == (0, 0)
    for lba, count in ((1, 1), (7, 3), (2047, 1)):
        await bench.good(write_atomic(lba, count), b"x" * (512 * count))


async def test_a_boundary_is_refused(bench):
    """SBC-4 6.6.4: MAXIMUM ATOMIC BOUNDARY SIZE 0; ATOMIC BOUNDARY has to be 0."""
    limits = await limits_of(bench)
    assert limits.maximum_atomic_boundary_size == limits.maximum_atomic_transfer_length_with_atomic_boundary == 0
    sense = await bench.refused(write_atomic(0, 4, boundary=2), bytes(2048))
    assert (sense.asc_ascq, sense.field_pointer) == (0x2400, 11)


@pytest.mark.parametrize("sent", [0, 512, 1023, 1025, 1536])
async def test_less_or_more_data_than_the_cdb_says(bench, sent):
    """Half of an atomic write is no atomic write: nothing is written, unlike a WRITE with a residual."""
    assert (await bench.refused(write_atomic(8, 2), b"s" * sent)).asc_ascq == 0x2400
    assert await bench.good(READ) == bytes(2048)


class _OrdinaryVolume:
    """A volume without atomic writes, as the half of a pair is."""

    def __init__(self, inner):
        self.size_bytes, self.block_length = inner.size_bytes, inner.block_length
        self.read, self.write, self.flush = inner.read, inner.write, inner.flush


async def test_a_volume_that_cannot_do_it_does_not_promise_it(bench):
    """SBC-4 6.6.4: MAXIMUM ATOMIC TRANSFER LENGTH 0 and no such command."""
    bench.lu.volume = _OrdinaryVolume(bench.volume)
    assert (await limits_of(bench)).maximum_atomic_transfer_length == 0
    sense = await bench.refused(write_atomic(0, 1), bytes(512))
    assert (sense.asc_ascq, sense.field_pointer) == (0x2000, 0)
    assert (await bench.good("a3 0c 01 9c 0000 000000ff"))[1] & 0x07 == 0x01


async def test_write_protected(write_protected_bench):
    assert (await write_protected_bench.refused(write_atomic(0, 1), bytes(512))).asc_ascq == 0x2700
