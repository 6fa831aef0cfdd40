"""START STOP UNIT, PREVENT ALLOW MEDIUM REMOVAL (SBC-3 5.23, 5.13)."""

START, STOP, EJECT, LOAD = "1b 00 00 00 01", "1b 00 00 00 00", "1b 00 00 00 02", "1b 00 00 00 03"
READ = "28 00 00000000 00 0001"


async def test_a_stopped_unit_is_not_ready(bench):
    await bench.good(STOP)
    for cdb in ("00", READ):
        sense = await bench.refused(cdb)
        assert (sense.sense_key, sense.asc_ascq) == (0x2, 0x0402)
    await bench.good("12 00 00 00 60")
    await bench.good(START)
    await bench.good(READ)


async def test_a_power_condition_is_granted_and_stops_nothing(bench):
    await bench.good("1b 00 00 00 20")
    await bench.good(READ)


async def test_a_fixed_unit_ignores_eject(bench):
    await bench.good(EJECT)
    await bench.good(READ)


async def test_eject_and_load(removable_bench):
    bench = removable_bench
    assert (await bench.good("12 00 00 00 60"))[1] == 0x80
    await bench.good(EJECT)
    assert (await bench.refused("00")).asc_ascq == 0x3A00
    await bench.good(LOAD)
    await bench.good("00")


async def test_removal_is_prevented_until_every_nexus_allows_it(removable_bench):
    bench = removable_bench
    await bench.good("1e 00 00 00 01")
    await bench.good("1e 00 00 00 01", nexus=bench.nexus_b)
    await bench.good("1e 00 00 00 00")
    assert (await bench.refused(EJECT)).asc_ascq == 0x5302
    await bench.server.nexus_lost(bench.nexus_b)
    await bench.good(EJECT)


async def test_obsolete_prevent_values(bench):
    assert (await bench.refused("1e 00 00 00 02")).asc_ascq == 0x2400
