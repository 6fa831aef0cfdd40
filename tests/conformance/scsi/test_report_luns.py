"""SPC-4 6.35."""

from storage_model.spec.scsi_task import ScsiStatus
from target.scsi.logical_unit import LogicalUnit, UnitIdentity
from target.volumes.memory_volume import MemoryVolume


async def test_luns_are_listed_in_order(bench):
    bench.server.logical_units[300] = LogicalUnit(300, MemoryVolume(1 << 20), UnitIdentity("x"))
    bench.server.logical_units[2] = LogicalUnit(2, MemoryVolume(1 << 20), UnitIdentity("y"))
    data = await bench.good("a0 00 00 00 00 00 00 00 01 00 00 00")
    assert data[:8] == (24).to_bytes(4, "big") + bytes(4)
    assert data[8:].hex() == "00000000000000000002000000000000412c000000000000"


async def test_allocation_length_below_sixteen_is_refused(bench):
    assert (await bench.refused("a0 00 00 00 00 00 00 00 00 0f 00 00")).asc_ascq == 0x2400


async def test_unknown_select_report_is_refused(bench):
    assert (await bench.refused("a0 00 03 00 00 00 00 00 01 00 00 00")).field_pointer == 2


async def test_answered_by_a_lun_that_does_not_exist(bench):
    outcome = await bench.run("a0 00 00 00 00 00 00 00 01 00 00 00", lun=5)
    assert outcome.status is ScsiStatus.GOOD and len(outcome.data_in) == 16
