"""Unit attentions for a capacity, or an inventory of units, that changes while the target serves (SPC-4, SBC-3)."""

import asyncio

import pytest

from target.scsi.logical_unit import LogicalUnit, UnitIdentity
from target.scsi.lun_mask import LunMask
from target.volumes.memory_volume import MemoryVolume


def add_unit(bench, lun=1):
    unit = LogicalUnit(lun, MemoryVolume(1 << 20), UnitIdentity("new"))
    bench.server.logical_units[lun] = unit
    bench.server.inventory_changed(lun)
    return unit


async def test_capacity_data_has_changed(bench):
    """SBC-3 4.7: 2Ah/09h to every nexus; the new blocks can be read, those after them not."""
    await bench.volume.grow(2 * bench.blocks * bench.block)
    bench.lu.capacity_changed()
    for nexus in (bench.nexus_a, bench.nexus_b):
        sense = await bench.refused("00", nexus=nexus)
        assert (sense.sense_key, sense.asc_ascq) == (0x6, 0x2A09)
        await bench.good("00", nexus=nexus)
    assert int.from_bytes((await bench.good("25"))[:4]) == 2 * bench.blocks - 1
    last = (2 * bench.blocks - 1).to_bytes(4)
    assert await bench.good(b"\x28\0" + last + b"\0\0\1\0") == bytes(bench.block)
    assert (await bench.refused(b"\x28\0" + (2 * bench.blocks).to_bytes(4) + b"\0\0\1\0")).asc_ascq == 0x2100


async def test_reported_luns_data_has_changed_for_a_new_unit(bench):
    """SPC-4 6.35: 3Fh/0Eh at the units that were there; 29h/00h at the new one."""
    add_unit(bench)
    for nexus in (bench.nexus_a, bench.nexus_b):
        assert (await bench.refused("00", nexus=nexus)).asc_ascq == 0x3F0E
        await bench.good("00", nexus=nexus)
    outcome = await bench.run("00", lun=1)
    assert int.from_bytes(outcome.sense[12:14]) == 0x2900
    assert (await bench.run("00", lun=1)).status == 0


async def test_reported_luns_data_has_changed_for_a_unit_that_is_gone(bench):
    add_unit(bench)
    bench.lu.unit_attentions.pending.clear()
    del bench.server.logical_units[1]
    bench.server.inventory_changed(1)
    assert (await bench.refused("00")).asc_ascq == 0x3F0E
    assert int.from_bytes((await bench.run("00", lun=1)).sense[12:14]) == 0x2500


async def test_report_luns_tells_it_and_clears_it(bench):
    add_unit(bench)
    assert int.from_bytes((await bench.good("a0 00 00 000000 00000100"))[:4]) == 16
    await bench.good("00")


@pytest.mark.parametrize(("luns", "hears"), [({0, 1}, True), ({0}, False), ({1}, False)])
async def test_who_may_not_see_a_unit_does_not_hear_of_it(bench, luns, hears):
    """Neither about a unit that is hidden, nor at one that is."""
    await bench.server.nexus_lost(bench.nexus_b)
    bench.server.nexus_established(bench.nexus_b, LunMask(frozenset(luns)))
    bench.lu.unit_attentions.pending.clear()
    unit = add_unit(bench)
    assert (bench.lu.unit_attentions.peek(bench.nexus_b) == 0x3F0E) is hears
    assert (bench.nexus_b in unit.unit_attentions.known) is (1 in luns)


async def test_drained_waits_for_what_is_under_way(slow_bench, slow_volume):
    write = asyncio.create_task(slow_bench.run("2a 00 00000000 00 0001 00", bytes(512)))
    await slow_volume.waiting.wait()
    drained = asyncio.create_task(slow_bench.server.drained(slow_bench.lu))
    await asyncio.sleep(0)
    assert not drained.done()
    slow_volume.let_go.set()
    await drained
    assert (await write).status == 0


async def test_a_nexus_that_is_being_lost_is_not_at_a_new_unit(slow_bench, slow_volume):
    """The unit comes while the nexus's last write ends; else its unit attentions would wait there for ever."""
    write = asyncio.create_task(slow_bench.run("2a 00 00000000 00 0001 00", bytes(512)))
    await slow_volume.waiting.wait()
    losing = asyncio.create_task(slow_bench.server.nexus_lost(slow_bench.nexus_a))
    await asyncio.sleep(0)
    unit = add_unit(slow_bench)
    slow_volume.let_go.set()
    await asyncio.gather(write, losing)
    assert unit.unit_attentions.known == {slow_bench.nexus_b}
