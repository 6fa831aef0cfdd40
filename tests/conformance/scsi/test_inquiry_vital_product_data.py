"""SPC-4 7.8, SBC-3 6.6."""

import pytest

from storage_model.spec.scsi_pages import BLOCK_LIMITS, Association, DesignatorType, decode_designators


async def page(bench, code):
    data = await bench.good(bytes((0x12, 1, code, 0xFF, 0xFF, 0)))
    assert data[0] == 0 and data[1] == code
    assert int.from_bytes(data[2:4], "big") == len(data) - 4
    return data


async def test_supported_pages_are_sorted_and_all_answer(bench):
    codes = (await page(bench, 0x00))[4:]
    assert codes == bytes((0x00, 0x80, 0x83, 0x86, 0x88, 0x8F, 0xB0, 0xB1, 0xB2))
    for code in codes:
        await page(bench, code)


@pytest.mark.parametrize("code", [0x01, 0x81, 0x84, 0x8E, 0xB3, 0xFF])
async def test_other_pages_are_refused(bench, code):
    assert (await bench.refused(bytes((0x12, 1, code, 0, 0xFF, 0)))).asc_ascq == 0x2400


async def test_serial_number(bench):
    assert (await page(bench, 0x80))[4:] == b"30095-0"


async def test_designators_name_unit_port_and_device(bench):
    designators = decode_designators(await page(bench, 0x83))
    unit = {d.designator_type: d.value for d in designators if d.association == Association.LOGICAL_UNIT}
    assert len(unit[DesignatorType.NAA]) == 8 and unit[DesignatorType.NAA][0] >> 4 == 3
    assert unit[DesignatorType.T10_VENDOR_ID].startswith(b"PAIRVOL ")
    name = unit[DesignatorType.SCSI_NAME_STRING]
    assert name.rstrip(b"\0").lower() == b"naa." + unit[DesignatorType.NAA].hex().encode() and len(name) % 4 == 0
    port = {d.designator_type: d.value for d in designators if d.association == Association.TARGET_PORT}
    assert port[DesignatorType.RELATIVE_TARGET_PORT] == b"\0\0\0\x01"
    assert port[DesignatorType.SCSI_NAME_STRING].rstrip(b"\0").endswith(b",t,0x0001")


async def test_equal_identities_give_equal_unit_designators(bench):
    before = decode_designators(await page(bench, 0x83))
    bench.lu.identity = type(bench.lu.identity)("30095-0")
    assert decode_designators(await page(bench, 0x83)) == before
    bench.lu.identity = type(bench.lu.identity)("30095-1")
    assert decode_designators(await page(bench, 0x83)) != before


async def test_block_limits_are_those_that_are_enforced(bench):
    limits = BLOCK_LIMITS.parse((await page(bench, 0xB0))[4:])
    assert len(await page(bench, 0xB0)) == 64
    assert limits.wsnz == 1
    too_long = limits.maximum_transfer_length + 1
    bench.lu.block_count = 1 << 32
    assert (await bench.refused(b"\x88\0" + bytes(8) + too_long.to_bytes(4, "big"))).asc_ascq == 0x2400


async def test_provisioning_page(bench):
    assert (await page(bench, 0xB2))[4:8] == b"\x00\xe6\x02\x00"
