"""SPC-4 6.4, 6.4.6.5: EXTENDED COPY moves the blocks that its segment descriptors name, and no others."""

from dataclasses import replace

import pytest

from storage_model.spec.scsi_copy import CopyRequest, encode_copy_request
from storage_model.spec.scsi_pages import Designator, DesignatorType
from tests.conformance.scsi.copy_bench import OWN_UNIT, PATTERN, SIZE, CopyBench, segment


async def test_blocks_of_one_unit_to_another():
    bench = await CopyBench().fill()
    await bench.good(segment(0, 1, blocks=5, source_lba=3, destination_lba=10))
    assert await bench.content(1) == bytes(5120) + PATTERN[1536:4096] + bytes(SIZE - 5120 - 2560)
    assert await bench.content(0) == PATTERN


async def test_more_than_one_piece():
    bench = await CopyBench().fill()
    await bench.good(segment(0, 1, blocks=SIZE // 512))
    assert await bench.content(1) == PATTERN


async def test_segments_in_their_order():
    bench = await CopyBench().fill()
    await bench.good(segment(0, 1, 1, 0, 0), segment(1, 1, 1, 0, 1), segment(1, 2, 8, 0, 0))
    assert (await bench.content(1))[:1024] == PATTERN[:512] * 2
    assert (await bench.content(2))[:1024] == PATTERN[:512] * 2


async def test_512_byte_blocks_to_4096_byte_blocks():
    bench = await CopyBench().fill()
    await bench.good(segment(0, 2, blocks=16, source_lba=1, destination_lba=2))
    assert (await bench.content(2))[8192:16384] == PATTERN[512 : 512 + 8192]


async def test_dc_counts_blocks_of_the_destination():
    """SPC-4 6.4.6.5: with DC 1, BLOCK DEVICE NUMBER OF BLOCKS are the destination's."""
    bench = await CopyBench().fill()
    await bench.good(replace(segment(0, 2, blocks=2), counts_destination=True))
    assert await bench.content(2) == PATTERN[:8192] + bytes(SIZE - 8192)


async def test_an_inexact_segment_is_not_begun():
    """Neither PAD nor CAT: 26h/0Ah, UNEXPECTED INEXACT SEGMENT."""
    bench = await CopyBench().fill()
    assert str(await bench.refused(segment(0, 2, blocks=9))) == "Ah 26h/0Ah"
    assert await bench.content(2) == bytes(SIZE)


@pytest.mark.parametrize(("source_lba", "destination_lba"), [(0, 1), (1, 0), (0, 2049), (2049, 0)])
async def test_overlapping_blocks_of_one_unit(source_lba, destination_lba):
    """What is copied is what was there before, also where the ranges overlap by more than a piece."""
    bench = await CopyBench().fill()
    await bench.units[0].volume.write(0, b"".join(bytes((lba % 251,)) * 512 for lba in range(SIZE // 512)))
    before, blocks = await bench.content(0), 5000
    await bench.good(segment(0, 0, blocks, source_lba, destination_lba))
    wanted = bytearray(before)
    wanted[destination_lba * 512 : (destination_lba + blocks) * 512] = before[
        source_lba * 512 : (source_lba + blocks) * 512
    ]
    assert await bench.content(0) == wanted


async def test_the_unit_that_processes_the_command():
    """CSCD descriptor ID FFFFh (SPC-4 table 150)."""
    bench = await CopyBench().fill()
    await bench.good(segment(OWN_UNIT, 1, blocks=2))
    assert (await bench.content(1))[:1024] == PATTERN[:1024]


async def test_no_parameter_list_is_no_error():
    outcome = await CopyBench().copy(b"")
    assert not outcome.status and not outcome.sense


async def test_no_segments_and_no_blocks_are_no_error():
    bench = await CopyBench().fill()
    await bench.good()
    await bench.good(segment(0, 1, blocks=0))
    assert await bench.content(1) == bytes(SIZE)


@pytest.mark.parametrize("kind", [DesignatorType.NAA, DesignatorType.SCSI_NAME_STRING])
async def test_a_designator_that_fits_names_the_unit(kind):
    """Those of VPD page 83h that 20 bytes have room for: the SCSI name has it without its NULs."""
    bench = await CopyBench().fill()
    designators = bench.units[1].identity.unit_designators()
    value = next(one.value for one in designators if one.designator_type == kind)
    assert len(value.rstrip(b"\0")) <= 20
    named = bench.cscd(1, designator=Designator(kind, value[:20]))
    request = CopyRequest([bench.cscd(0), named], [segment(0, 1, 1)])
    assert not (await bench.copy(encode_copy_request(request))).status
    assert (await bench.content(1))[:512] == PATTERN[:512]
