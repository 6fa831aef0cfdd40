"""SPC-4 6.34, 6.36."""

import pytest

from target.scsi.command_table import COMMAND_ROWS

ROWS = [row for row in COMMAND_ROWS if row.name != "CRYPTOGRAPHIC_ERASE"]
"""Of a unit that is not encrypted; for one that is, see test_sanitize_cryptographic_erase.py."""


def cdb(options, code=0, action=0, rctd=False, allocation=0xFFFF):
    byte_2 = options | (0x80 if rctd else 0)
    return bytes((0xA3, 0x0C, byte_2, code)) + action.to_bytes(2, "big") + allocation.to_bytes(4, "big") + b"\0\0"


@pytest.mark.parametrize("rctd", [False, True])
async def test_all_commands(bench, rctd):
    data = await bench.good(cdb(0, rctd=rctd))
    size = 20 if rctd else 8
    assert int.from_bytes(data[:4], "big") == len(data) - 4 == size * len(ROWS)
    for index, row in enumerate(ROWS):
        descriptor = data[4 + index * size :][:size]
        assert descriptor[0] == row.operation_code
        assert int.from_bytes(descriptor[2:4], "big") == (row.service_action or 0)
        assert descriptor[5] == (2 if rctd else 0) | (row.service_action is not None)
        assert int.from_bytes(descriptor[6:8], "big") == row.length
        if rctd:
            assert descriptor[8:10] == b"\0\x0a" and int.from_bytes(descriptor[16:20], "big") == row.timeout_seconds


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_one_command(bench, row):
    options = 1 if row.service_action is None else 2
    for option in (options, 3):
        data = await bench.good(cdb(option, row.operation_code, row.service_action or 0, rctd=True))
        assert data[1] == 0x83 and int.from_bytes(data[2:4], "big") == row.length
        assert data[4 : 4 + row.length] == row.usage and data[4] == row.operation_code
        assert len(data) == 4 + row.length + 12
    assert (await bench.refused(cdb(3 - options, row.operation_code, row.service_action or 0))).asc_ascq == 0x2400


async def test_unsupported_commands(bench):
    assert (await bench.good(cdb(1, 0xFF)))[:2] == b"\x00\x01"
    assert (await bench.good(cdb(3, 0x28, 1)))[:2] == b"\x00\x01"
    assert (await bench.good(cdb(2, 0x9E, 0x1F)))[:2] == b"\x00\x01"


@pytest.mark.parametrize("options", [4, 5, 6, 7])
async def test_reserved_options(bench, options):
    assert (await bench.refused(cdb(options))).field_pointer == 2


async def test_task_management_functions(bench):
    assert await bench.good("a3 0d 00 00 00 00 00 00 00 ff") == b"\xda\0\0\0"
    assert len(await bench.good("a3 0d 80 00 00 00 00 00 00 ff")) == 16
    assert (await bench.refused("a3 0d 00 00 00 00 00 00 00 03")).asc_ascq == 0x2400
