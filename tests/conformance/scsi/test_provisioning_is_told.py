"""What the pages and READ CAPACITY(16) say of provisioning, for each kind of unit (SBC-3 4.7, 5.16, 6.6.4, 6.6.5)."""

from storage_model.spec.scsi_pages import BLOCK_LIMITS

READ_CAPACITY_16 = "9e 10 0000000000000000 000000ff"


async def page(bench, code):
    return (await bench.good(bytes((0x12, 1, code, 0, 0xFF, 0))))[4:]


async def test_read_capacity_of_a_thin_unit(bench):
    assert (await bench.good(READ_CAPACITY_16))[14] == 0xC0  # LBPME, LBPRZ


async def test_read_capacity_of_a_full_unit(full_bench):
    assert (await full_bench.good(READ_CAPACITY_16))[14] == 0


async def test_provisioning_page_of_a_thin_unit(bench):
    assert await page(bench, 0xB2) == b"\x00\xe6\x02\x00"  # LBPU, LBPWS, LBPWS10, LBPRZ, ANC_SUP; thin


async def test_provisioning_page_of_a_full_unit(full_bench):
    assert await page(full_bench, 0xB2) == bytes(4)


async def test_limits_of_a_thin_unit(bench):
    limits = BLOCK_LIMITS.parse(await page(bench, 0xB0))
    assert limits.maximum_unmap_lba_count and limits.maximum_unmap_block_descriptor_count
    assert (limits.optimal_unmap_granularity, limits.unmap_granularity_alignment) == (8, 0x80000000)
    assert limits.wsnz == 1


async def test_limits_of_a_full_unit(full_bench):
    limits = BLOCK_LIMITS.parse(await page(full_bench, 0xB0))
    assert limits.maximum_unmap_lba_count == limits.maximum_unmap_block_descriptor_count == 0
    assert limits.optimal_unmap_granularity == limits.unmap_granularity_alignment == 0
    assert limits.maximum_write_same_length and limits.wsnz == 0
