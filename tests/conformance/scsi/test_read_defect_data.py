"""READ DEFECT DATA 10 and 12 (SBC-3 5.17, 5.18): a file has no defects."""

import pytest


@pytest.mark.parametrize("lists", range(0, 0x20, 0x08), ids=["none", "GLIST", "PLIST", "both"])
@pytest.mark.parametrize("defect_format", [0b000, 0b011, 0b100, 0b101])
async def test_empty_lists_as_they_were_asked_for(bench, lists, defect_format):
    asked = lists | defect_format
    assert await bench.good(bytes((0x37, 0, asked, 0, 0, 0, 0, 0, 0xFF, 0))) == bytes((0, asked, 0, 0))
    assert await bench.good(bytes((0xB7, asked, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0, 0))) == bytes((0, asked)) + bytes(6)
