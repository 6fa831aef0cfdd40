"""GET LBA STATUS of a fully provisioned unit: every block is mapped (SBC-3 4.7.2, 5.4)."""

import pytest


@pytest.mark.parametrize("first", [0, 1, 2047])
async def test_everything_is_mapped_written_or_not(full_bench, first):
    await full_bench.good("2a 00 00000004 00 0001", b"f" * 512)
    data = await full_bench.good(b"\x9e\x12" + first.to_bytes(8, "big") + (1024).to_bytes(4, "big") + b"\0\0")
    assert int.from_bytes(data[:4], "big") == len(data) - 4 == 20
    assert data[8:] == first.to_bytes(8, "big") + (2048 - first).to_bytes(4, "big") + bytes(4)
