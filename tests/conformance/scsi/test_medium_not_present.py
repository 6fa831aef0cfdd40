"""Commands to a removable unit whose medium is out (SBC-3 4.4, table 4): those that need it end with 3Ah/00h."""

import pytest

EJECT, LOAD, START = "1b 00 00 00 02", "1b 00 00 00 03", "1b 00 00 00 01"

NEED_THE_MEDIUM = {
    "TEST UNIT READY": "00",
    "READ(10)": "28 00 00000000 00 0001",
    "WRITE(10)": "2a 00 00000000 00 0001",
    "VERIFY(10)": "2f 00 00000000 00 0001",
    "SYNCHRONIZE CACHE(10)": "35 00 00000000 00 0001",
    "PRE-FETCH(10)": "34 00 00000000 00 0001",
    "WRITE SAME(10)": "41 00 00000000 00 0001",
    "UNMAP": "42 00 00000000 00 0008",
    "READ CAPACITY(10)": "25",
    "READ CAPACITY(16)": "9e 10 0000000000000000 000000ff",
    "GET LBA STATUS": "9e 12 0000000000000000 000000ff",
    "START STOP UNIT that starts": START,
}
DO_NOT = {
    "INQUIRY": "12 00 00 00 60",
    "REPORT LUNS": "a0 00 00 000000 00000100",
    "MODE SENSE(6)": "1a 00 3f 00 ff",
    "REPORT SUPPORTED OPERATION CODES": "a3 0c 00 00 0000 00001000",
    "PREVENT ALLOW MEDIUM REMOVAL": "1e 00 00 00 00",
    "START STOP UNIT that ejects again": EJECT,
}


@pytest.mark.parametrize("cdb", NEED_THE_MEDIUM.values(), ids=NEED_THE_MEDIUM)
async def test_is_not_ready(removable_bench, cdb):
    await removable_bench.good(EJECT)
    sense = await removable_bench.refused(cdb, bytes(512))
    assert (sense.sense_key, sense.asc_ascq) == (0x2, 0x3A00)


@pytest.mark.parametrize("cdb", DO_NOT.values(), ids=DO_NOT)
async def test_is_answered(removable_bench, cdb):
    await removable_bench.good(EJECT)
    await removable_bench.good(cdb)


async def test_request_sense_tells(removable_bench):
    await removable_bench.good(EJECT)
    data = await removable_bench.good("03 00 00 00 12")
    assert (data[2] & 0x0F, data[12], data[13]) == (0x2, 0x3A, 0x00)


async def test_a_reset_does_not_bring_it_back(removable_bench):
    await removable_bench.good(EJECT)
    removable_bench.lu.reset(0x2903)
    removable_bench.lu.unit_attentions.take(removable_bench.nexus_a)
    assert (await removable_bench.refused("00")).asc_ascq == 0x3A00


async def test_what_was_written_is_there_when_it_is_back(removable_bench):
    await removable_bench.good("2a 00 00000000 00 0001", b"m" * 512)
    await removable_bench.good(EJECT)
    await removable_bench.good(LOAD)
    assert await removable_bench.good("28 00 00000000 00 0001") == b"m" * 512
