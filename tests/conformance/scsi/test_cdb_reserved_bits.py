"""SPC-4 4.2.5.1: a bit that the command does not have is INVALID FIELD IN CDB, with a pointer to its byte."""

import pytest

from target.scsi.command_table import COMMAND_ROWS

STANDARD_ROWS = [row for row in COMMAND_ROWS if row.operation_code < 0xC0]  # the vendor's have tests of their own


@pytest.mark.parametrize("row", STANDARD_ROWS, ids=lambda row: row.name)
async def test_each_forbidden_bit_is_refused(bench, row):
    for bit in range(8 * row.length):
        if not row.forbidden >> bit & 1:
            continue
        cdb = bytearray(row.length)
        cdb[0] = row.operation_code
        cdb[1] = row.service_action or 0
        cdb[row.length - 1 - bit // 8] |= 1 << bit % 8
        sense = await bench.refused(bytes(cdb))
        assert (sense.sense_key, sense.asc_ascq) == (0x5, 0x2400)
        assert sense.field_pointer == row.length - 1 - bit // 8


async def test_naca_is_refused(bench):
    """SAM-5 5.2: NORMACA is 0, so that NACA in the CONTROL byte is an error."""
    assert (await bench.refused("00 00 00 00 00 04")).asc_ascq == 0x2400
