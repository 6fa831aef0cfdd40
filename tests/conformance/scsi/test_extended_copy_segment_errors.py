"""SPC-4 6.4.3.3: an error inside a segment is COPY ABORTED, and says which segment, which unit and why."""

from dataclasses import replace

import pytest

from storage_model.spec.scsi_copy import CopyRequest, encode_copy_request
from storage_model.spec.scsi_pages import Designator, DesignatorType
from storage_model.spec.scsi_sense import decode_sense
from storage_model.volume import MediumFailure, SpaceExhausted
from target.volumes.memory_volume import MemoryVolume
from tests.conformance.scsi.copy_bench import PATTERN, SIZE, CopyBench, segment, segment_error, sense

LAST = SIZE // 512
GOOD = segment(0, 1, 4)


@pytest.mark.parametrize(
    ("bad", "code", "byte"),
    [
        (segment(3, 1, 1), "08h/04h", 4),  # an index of no CSCD descriptor: UNREACHABLE COPY TARGET
        (segment(0, 0x07FF, 1), "08h/04h", 6),
        (segment(0, 1, 2, LAST - 1, 0), "00h/00h", 12),  # beyond the last block of the source
        (segment(0, 1, 2, 0, LAST - 1), "00h/00h", 20),
        (segment(0, 1, 1, (1 << 64) - 1, 0), "00h/00h", 12),
    ],
)
async def test_of_the_segment(bad, code, byte):
    bench = await CopyBench().fill()
    told = await bench.refused(GOOD, bad)
    assert (str(told), segment_error(told).number) == (f"Ah {code}", 1)
    assert (await bench.content(1))[:2048] == PATTERN[:2048], "the segment before was copied"
    raw = (await bench.copy(bench.request(GOOD, bad))).sense
    assert raw[15] == 0xA0 and raw[16:18] == byte.to_bytes(2, "big"), "SKSV, SD: a byte of the segment descriptor"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"designator": Designator(DesignatorType.NAA, b"\x30" + bytes(7))}, "0Dh/02h"),  # no such unit
        ({"null": True}, "0Dh/02h"),
        ({"peripheral_type": 1}, "0Dh/03h"),  # it is no tape
        ({"block_length": 4096}, "0Dh/03h"),  # nor has it such blocks
    ],
)
async def test_of_the_cscd(changes, code):
    bench = await CopyBench().fill()
    request = CopyRequest([bench.cscd(0), bench.cscd(1, **changes)], [segment(0, 1, 1)])
    assert str(sense(await bench.copy(encode_copy_request(request)))) == f"Ah {code}"
    request = CopyRequest([bench.cscd(0, **changes), bench.cscd(1)], [segment(0, 1, 1)])
    assert str(sense(await bench.copy(encode_copy_request(request)))) == f"Ah {code}"


async def test_a_block_length_that_is_not_told_is_not_checked():
    bench = await CopyBench().fill()
    request = CopyRequest([bench.cscd(0), bench.cscd(1, block_length=0)], [segment(0, 1, 1)])
    assert not (await bench.copy(encode_copy_request(request))).status


class FullAfter(MemoryVolume):
    def __init__(self, writes: int) -> None:
        super().__init__(SIZE, 512)
        self.writes = writes

    async def write(self, offset_bytes, data, *, fua=False):
        if not self.writes:
            raise SpaceExhausted("full")
        self.writes -= 1
        await super().write(offset_bytes, data, fua=fua)


@pytest.mark.parametrize("descriptor_format", [False, True])
async def test_of_the_destination(descriptor_format):
    """THIRD-PARTY DEVICE FAILURE with the destination's status and sense data, and the blocks not written."""
    bench = await CopyBench(FullAfter(2)).fill()
    bench.units[0].descriptor_sense = descriptor_format
    told = await bench.refused(segment(0, 1, LAST))
    assert str(told) == "Ah 0Dh/01h"
    assert told.information == LAST - 2 * 2048
    assert (segment_error(told).number, segment_error(told).at_destination, segment_error(told).status) == (
        0,
        True,
        0x02,
    )
    assert str(decode_sense(segment_error(told).sense)) == "7h 27h/07h"


async def test_of_the_source():
    bench = await CopyBench().fill()

    async def fails(offset_bytes, length_bytes):
        raise MediumFailure("scratched")

    bench.units[0].volume.read = fails  # type: ignore[method-assign]
    told = await bench.refused(replace(segment(0, 1, 8), source_lba=1))
    assert (str(told), told.information) == ("Ah 0Dh/01h", 8)
    assert (segment_error(told).at_destination, segment_error(told).status) == (False, 0x02)
    assert str(decode_sense(segment_error(told).sense)) == "3h 11h/00h"
