"""A medium that is loaded may be another one: the other nexuses hear 28h/00h (SBC-3 4.4, SAM-5 5.14)."""

EJECT, LOAD, START, STOP = "1b 00 00 00 02", "1b 00 00 00 03", "1b 00 00 00 01", "1b 00 00 00 00"


async def test_every_nexus_hears_of_it_but_the_one_that_loaded(removable_bench):
    bench = removable_bench
    await bench.good(EJECT)
    await bench.good(LOAD)
    await bench.good("00")
    sense = await bench.refused("00", nexus=bench.nexus_b)
    assert (sense.sense_key, sense.asc_ascq) == (0x6, 0x2800)
    await bench.good("00", nexus=bench.nexus_b)


async def test_a_load_of_what_is_loaded_is_no_change(removable_bench):
    await removable_bench.good(LOAD)
    await removable_bench.good("00", nexus=removable_bench.nexus_b)


async def test_not_while_removal_is_prevented(removable_bench):
    bench = removable_bench
    await bench.good(EJECT)
    await bench.good("1e 00 00 00 01", nexus=bench.nexus_b)
    sense = await bench.refused(LOAD)
    assert (sense.sense_key, sense.asc_ascq) == (0x5, 0x5302)
    await bench.good("1e 00 00 00 00", nexus=bench.nexus_b)
    await bench.good(LOAD)


async def test_stop_and_start_leave_it_where_it_is(removable_bench):
    for cdb in (STOP, "00", START, "00"):
        await removable_bench.good(cdb)
    await removable_bench.good("00", nexus=removable_bench.nexus_b)
