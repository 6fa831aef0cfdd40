"""A unit that tells of physical blocks of several logical ones (SBC-3 4.6, 5.16.2, 6.6.4; SBC-4 6.6.4)."""

from storage_model.spec.scsi_pages import BLOCK_LIMITS

READ_CAPACITY_16 = "9e 10 0000000000000000 000000ff"
PAGE = "12 01 b0 00 40 00"


def write_atomic(lba, count):
    return b"\x9c\0" + lba.to_bytes(8, "big") + b"\0\0" + count.to_bytes(2, "big") + b"\0\0"


async def test_without_it_a_physical_block_is_a_logical_one(bench):
    assert (await bench.good(READ_CAPACITY_16))[13] == 0
    limits = BLOCK_LIMITS.parse((await bench.good(PAGE))[4:])
    assert (limits.atomic_alignment, limits.atomic_transfer_length_granularity) == (0, 0)


async def test_read_capacity_tells_the_exponent(physical_bench):
    assert (await physical_bench.good(READ_CAPACITY_16))[13] == 3


async def test_any_block_can_still_be_written(physical_bench):
    await physical_bench.good("2a 00 00000003 00 0001", b"w" * 512)
    assert await physical_bench.good("28 00 00000003 00 0001") == b"w" * 512


async def test_atomic_writes_are_of_physical_blocks(physical_bench):
    limits = BLOCK_LIMITS.parse((await physical_bench.good(PAGE))[4:])
    assert (limits.atomic_alignment, limits.atomic_transfer_length_granularity) == (8, 8)
    await physical_bench.good(write_atomic(8, 16), b"a" * 512 * 16)
    misaligned = await physical_bench.refused(write_atomic(1, 8), bytes(4096))
    assert (misaligned.asc_ascq, misaligned.field_pointer) == (0x2400, 2)
    partial = await physical_bench.refused(write_atomic(8, 12), bytes(512 * 12))
    assert (partial.asc_ascq, partial.field_pointer) == (0x2400, 12)
    assert await physical_bench.good("28 00 00000008 00 0010") == b"a" * 512 * 16
