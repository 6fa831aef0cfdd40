"""SANITIZE, service action BLOCK ERASE (SBC-3 5.24.2.3)."""

from storage_model.spec.scsi_sense import decode_sense
from tests.conformance.scsi.sanitize_bench import SIZE, SanitizeBench


async def test_every_block_is_unmapped_and_reads_as_zeros():
    """What LBPRZ and WABEREQ 01b promise of it."""
    unit = await SanitizeBench().fill()
    await unit.bench.good("48 02")
    assert await unit.content() == bytes(SIZE)
    status = await unit.bench.good("9e 12 0000000000000000 00000100 00 00")
    assert len(status) == 24 and status[8:] == bytes(8) + (SIZE // 512).to_bytes(4, "big") + b"\x01\0\0\0"


async def test_waberq_tells_that_reads_are_good():
    unit = SanitizeBench()
    assert (await unit.bench.good("12 01 b1 00 ff 00"))[7] == 0x40


async def test_there_is_no_parameter_list():
    unit = await SanitizeBench().fill()
    told = await unit.bench.refused("48 02 0000000000 0008", bytes(8))
    assert (str(told), told.field_pointer) == ("5h 24h/00h", 7)
    assert await unit.content() == b"k" * SIZE


async def test_a_fully_provisioned_unit_has_no_such_command():
    """Its blocks stay where they are, so it does not list the command, and its WABEREQ is 00b."""
    unit = await SanitizeBench(thin=False).fill()
    assert str(await unit.bench.refused("48 02")) == "5h 24h/00h"
    assert await unit.content() == b"k" * SIZE
    assert (await unit.bench.good("a3 0c 02 48 0002 000000ff 00 00"))[1] & 0x07 == 0x01
    assert (await unit.bench.good("a3 0c 02 48 0001 000000ff 00 00"))[1] & 0x07 == 0x03
    assert (await unit.bench.good("12 01 b1 00 ff 00"))[7] == 0x00


async def test_write_protected():
    unit = await SanitizeBench(write_protected=True).fill()
    assert str(decode_sense((await unit.bench.run("48 02")).sense)) == "7h 27h/00h"
