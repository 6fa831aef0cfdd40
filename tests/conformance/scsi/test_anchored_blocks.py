"""ANCHOR in UNMAP and WRITE SAME: the blocks read as zeros and keep their space (SBC-3 4.7.3.2, 5.28, 5.40)."""

import pytest

from storage_model.spec.scsi_pages import unmap_parameter_list
from tests.conformance.scsi.test_provisioning import fill, read, status

PARAMETERS = unmap_parameter_list([(8, 16)])
UNMAP = "42 {flags} 00000000 00 0018 00"
WRITE_SAME_10 = "41 {flags} 00000008 00 0010 00"
WRITE_SAME_16 = "93 {flags} 0000000000000008 00000010 00 00"
ZERO_BLOCK = bytes(512)


@pytest.mark.parametrize(
    ("cdb", "anchored", "deallocated", "data"),
    [
        (UNMAP, "01", "00", PARAMETERS),
        (WRITE_SAME_10, "18", "08", ZERO_BLOCK),
        (WRITE_SAME_16, "18", "08", ZERO_BLOCK),
        (WRITE_SAME_16, "19", "09", b""),  # NDOB
    ],
    ids=["unmap", "write-same-10", "write-same-16", "no-data"],
)
async def test_they_are_zeros_and_mapped_where_the_others_are_deallocated(bench, cdb, anchored, deallocated, data):
    await fill(bench)
    await bench.good(cdb.format(flags=anchored), data)
    assert await read(bench, 7, 18) == b"f" * 512 + bytes(512 * 16) + b"f" * 512
    assert (await status(bench, 8))[0] == (8, 56, 0)
    await bench.good(cdb.format(flags=deallocated), data)
    assert await read(bench, 7, 18) == b"f" * 512 + bytes(512 * 16) + b"f" * 512
    assert (await status(bench, 8))[0] == (8, 16, 1)


async def test_unallocated_blocks_get_their_space(bench):
    await bench.good(UNMAP.format(flags="01"), PARAMETERS)
    assert await status(bench, 0) == [(0, 8, 1), (8, 16, 0), (24, 2024, 1)]


@pytest.mark.parametrize("cdb", [WRITE_SAME_10, WRITE_SAME_16])
async def test_without_unmap_it_is_an_invalid_field(bench, cdb):
    sense = await bench.refused(cdb.format(flags="10"), ZERO_BLOCK)
    assert (sense.sense_key, sense.asc_ascq, sense.field_pointer, sense.bit_pointer) == (0x5, 0x2400, 1, 4)


async def test_a_fully_provisioned_unit_has_none(full_bench):
    sense = await full_bench.refused(WRITE_SAME_16.format(flags="18"), ZERO_BLOCK)
    assert (sense.sense_key, sense.asc_ascq) == (0x5, 0x2400)
