"""SAM-5 5.14, and its place among the other conditions (SAM-5 5.3.3)."""

from storage_model.nexus import ITNexus
from storage_model.spec.scsi_sense import AscAscq
from storage_model.spec.scsi_task import ScsiStatus, TaskFunction

TEST_UNIT_READY = "00"
NEW = ITNexus("iqn.2026-11.org.example:new", b"\x80\0\0\0\0\x09")


async def test_a_new_nexus_hears_power_on_once(bench):
    bench.server.nexus_established(NEW)
    sense = await bench.refused(TEST_UNIT_READY, nexus=NEW)
    assert (sense.sense_key, sense.asc_ascq) == (0x6, 0x2900)
    await bench.good(TEST_UNIT_READY, nexus=NEW)


async def test_inquiry_report_luns_neither_report_nor_clear(bench):
    bench.server.nexus_established(NEW)
    await bench.good("12 00 00 00 60 00", nexus=NEW)
    await bench.good("a0 00 00 00 00 00 00 00 01 00 00 00", nexus=NEW)
    assert (await bench.refused(TEST_UNIT_READY, nexus=NEW)).asc_ascq == 0x2900


async def test_unit_reset_is_heard_by_every_nexus(bench):
    await bench.server.manage(bench.nexus_a, TaskFunction.LOGICAL_UNIT_RESET, 0, 0)
    for nexus in (bench.nexus_a, bench.nexus_b):
        assert (await bench.refused(TEST_UNIT_READY, nexus=nexus)).asc_ascq == 0x2903
        await bench.good(TEST_UNIT_READY, nexus=nexus)


async def test_reset_comes_before_reservation_conflict(bench):
    await bench.good("16", nexus=bench.nexus_b)
    bench.lu.unit_attentions.establish(AscAscq.SCSI_BUS_RESET_OCCURRED, only=bench.nexus_a)
    assert (await bench.refused(TEST_UNIT_READY)).asc_ascq == 0x2902
    assert (await bench.run(TEST_UNIT_READY)).status is ScsiStatus.RESERVATION_CONFLICT


async def test_other_conditions_come_after_reservation_conflict(bench):
    await bench.good("16", nexus=bench.nexus_b)
    bench.lu.unit_attentions.establish(AscAscq.MODE_PARAMETERS_CHANGED, only=bench.nexus_a)
    assert (await bench.run(TEST_UNIT_READY)).status is ScsiStatus.RESERVATION_CONFLICT
    await bench.good("17", nexus=bench.nexus_b)
    assert (await bench.refused(TEST_UNIT_READY)).asc_ascq == 0x2A01


async def test_unknown_operation_code_is_told_after_the_unit_attention(bench):
    bench.lu.unit_attentions.establish(AscAscq.SCSI_BUS_RESET_OCCURRED)
    assert (await bench.refused("ff")).asc_ascq == 0x2902
    assert (await bench.refused("ff")).asc_ascq == 0x2000


async def test_a_lost_nexus_leaves_nothing_behind(bench):
    bench.server.nexus_established(NEW)
    await bench.server.nexus_lost(NEW)
    assert NEW not in bench.lu.unit_attentions.known
    assert NEW not in bench.lu.unit_attentions.pending
