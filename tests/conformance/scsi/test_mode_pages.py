"""MODE SENSE and MODE SELECT (SPC-4 6.9 to 6.12; caching SBC-3 6.5.5, control SPC-4 7.5.8)."""

import pytest

from storage_model.spec.scsi_sense import DESCRIPTOR_CURRENT
from storage_model.spec.scsi_task import ScsiStatus
from tests.conformance.scsi.bench import record_writes

SENSE_6_ALL = "1a 00 3f 00 ff 00"
SENSE_6_CONTROL = "1a 08 0a 00 ff 00"
SENSE_6_CACHING = "1a 08 08 00 ff 00"


def select(page, *, pf=0x10):
    return bytes((0x15, pf, 0, 0, 4 + len(page), 0)), bytes(4) + page


async def control(bench, byte, bit):
    page = bytearray((await bench.good(SENSE_6_CONTROL))[4:])
    page[byte] ^= bit
    await bench.good(*select(bytes(page)))


async def test_all_pages(bench):
    data = await bench.good(SENSE_6_ALL)
    assert data[0] == len(data) - 1 and data[2] == 0x10 and data[3] == 8
    assert data[4:12] == (2048).to_bytes(4, "big") + (512).to_bytes(4, "big")
    assert data[12] == 0x01


async def test_ten_bytes_with_long_lba(bench):
    data = await bench.good("5a 10 3f 00 00 00 00 00 ff 00")
    assert int.from_bytes(data[:2], "big") == len(data) - 2
    assert data[4] == 1 and data[8:24] == (2048).to_bytes(8, "big") + bytes(4) + (512).to_bytes(4, "big")


@pytest.mark.parametrize("cdb", ["1a 00 02 00 ff", "1a 00 0a 02 ff", "5a 00 3e 00 00 00 00 00 ff"])
async def test_unknown_pages(bench, cdb):
    assert (await bench.refused(cdb)).asc_ascq == 0x2400


async def test_saved_values(bench):
    assert (await bench.refused("1a 00 ff 00 ff")).asc_ascq == 0x3900


async def test_allocation_length(bench):
    for length in range(0, 80, 7):
        outcome = await bench.run(bytes((0x1A, 0, 0x3F, 0, length, 0)))
        assert len(outcome.data_in) == min(length, 4 + 8 + 12 + 20 + 12 + 12)


async def test_d_sense_changes_the_format_and_the_others_hear_of_it(bench):
    await control(bench, 2, 0x04)
    outcome = await bench.run("ff")
    assert outcome.sense[0] == DESCRIPTOR_CURRENT
    assert (await bench.refused("00", nexus=bench.nexus_b)).asc_ascq == 0x2A01
    await bench.good("00")


async def test_software_write_protect(bench):
    await control(bench, 4, 0x08)
    assert (await bench.good(SENSE_6_CONTROL))[2] & 0x80
    sense = await bench.refused("2a 00 00000000 00 0001", b"x" * 512)
    assert (sense.sense_key, sense.asc_ascq) == (0x7, 0x2702)
    await bench.good("28 00 00000000 00 0001")
    await control(bench, 4, 0x08)
    await bench.good("2a 00 00000000 00 0001", b"x" * 512)


async def test_write_cache_off_makes_writes_durable(bench, monkeypatch):
    seen = record_writes(bench.volume, monkeypatch)
    await bench.good("2a 00 00000000 00 0001", b"x" * 512)
    page = bytearray((await bench.good(SENSE_6_CACHING))[4:])
    page[2] &= ~0x04
    await bench.good(*select(bytes(page)))
    await bench.good("2a 00 00000000 00 0001", b"x" * 512)
    assert seen == [(512, False), (512, True)]


async def test_what_is_not_changeable_is_refused_and_nothing_changes(bench):
    page = bytearray((await bench.good(SENSE_6_CONTROL))[4:])
    page[2] ^= 0x04
    page[8] ^= 0xFF
    sense = await bench.refused(*select(bytes(page)))
    assert (sense.asc_ascq, sense.field_pointer, sense.in_parameter_list) == (0x2600, 12, True)
    assert not bench.lu.descriptor_sense


@pytest.mark.parametrize(
    ("cdb", "data", "code"),
    [
        ("15 00 00 00 10", bytes(16), 0x2400),  # PF 0
        ("15 11 00 00 10", bytes(16), 0x2400),  # SP: nothing can be saved
        ("15 10 00 00 03", bytes(3), 0x1A00),
        ("15 10 00 00 10", bytes(15), 0x1A00),
        ("15 10 00 00 05", bytes(4) + b"\x0a", 0x1A00),
        ("15 10 00 00 06", bytes(4) + b"\x0a\x0b", 0x2600),
        ("15 10 00 00 08", bytes(4) + b"\x02\x0a\0\0", 0x2600),
        ("15 10 00 00 08", b"\0\0\0\x07" + bytes(4), 0x2600),
        ("15 10 00 00 0c", b"\0\0\0\x08" + bytes(5) + b"\x00\x10\x00", 0x2600),  # another block length
        ("55 10 00000000 00 0007", bytes(7), 0x1A00),
    ],
)
async def test_bad_parameter_lists(bench, cdb, data, code):
    assert (await bench.refused(cdb, data)).asc_ascq == code


async def test_every_cut_of_a_good_list_is_answered(bench):
    page = (await bench.good(SENSE_6_ALL))[4:]
    parameters = b"\0\0\0\x08" + page
    for length in range(len(parameters) + 1):
        outcome = await bench.run(bytes((0x15, 0x10, 0, 0, length, 0)), parameters[:length])
        assert outcome.status in (ScsiStatus.GOOD, ScsiStatus.CHECK_CONDITION)


async def test_a_reset_restores_the_defaults(bench):
    await control(bench, 2, 0x04)
    bench.lu.reset(0x2903)
    assert not bench.lu.descriptor_sense


async def test_hardware_write_protection(write_protected_bench):
    bench = write_protected_bench
    assert (await bench.good(SENSE_6_ALL))[2] & 0x80
    for cdb in ("2a 00 00000000 00 0001", "42 00 0000000000 0008", "41 00 00000000 00 0001", "89"):
        sense = await bench.refused(cdb, b"x" * 512)
        assert (sense.sense_key, sense.asc_ascq) == (0x7, 0x2700)
    await bench.good("35")
