"""READ CAPACITY 10 and 16 (SBC-3 5.15, 5.16)."""

from target.scsi.device_server import DeviceServer
from target.scsi.logical_unit import LogicalUnit, UnitIdentity
from target.volumes.memory_volume import MemoryVolume

READ_CAPACITY_16 = "9e 10 0000000000000000 000000ff"


async def test_small_unit(bench):
    assert await bench.good("25") == (2047).to_bytes(4, "big") + (512).to_bytes(4, "big")
    data = await bench.good(READ_CAPACITY_16)
    assert len(data) == 32 and data[:12] == (2047).to_bytes(8, "big") + (512).to_bytes(4, "big")
    assert data[12:16] == b"\x00\x00\xc0\x00"


async def test_sixteen_tebibytes_cost_nothing_and_send_to_sixteen_bytes(bench):
    lu = LogicalUnit(0, MemoryVolume(16 << 40, 512), UnitIdentity("big"))
    bench.server = DeviceServer({0: lu})
    assert (await bench.good("25"))[:4] == b"\xff" * 4
    last = (await bench.good(READ_CAPACITY_16))[:8]
    assert int.from_bytes(last, "big") == (16 << 40) // 512 - 1
    await bench.good(b"\x8a\0" + last + (1).to_bytes(4, "big"), b"e" * 512)
    assert await bench.good(b"\x88\0" + last + (1).to_bytes(4, "big")) == b"e" * 512


async def test_4096_byte_blocks(bench):
    bench.server = DeviceServer({0: LogicalUnit(0, MemoryVolume(1 << 20, 4096), UnitIdentity("4k"))})
    assert await bench.good("25") == (255).to_bytes(4, "big") + (4096).to_bytes(4, "big")
    assert (await bench.good(READ_CAPACITY_16))[13] == 0
