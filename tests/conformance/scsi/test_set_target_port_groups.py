"""SET TARGET PORT GROUPS (SPC-4 6.45)."""

import pytest

from storage_model.spec.scsi_target_port_groups import AccessState, set_target_port_groups
from target.scsi.lun_mask import LunMask
from tests.conformance.scsi.target_ports import PORT_2_A, PORT_2_B, report, set_cdb, set_states, with_two_ports

SETTABLE = [state for state in AccessState if state <= AccessState.UNAVAILABLE]


async def states(bench) -> dict[int, AccessState]:
    return {number: group.state for number, group in (await report(bench)).items()}


@pytest.mark.parametrize("state", SETTABLE)
async def test_each_state_can_be_set(bench, state):
    """Table 351."""
    with_two_ports(bench)
    await set_states(bench, {2: state})
    assert await states(bench) == {1: AccessState.ACTIVE_OPTIMIZED, 2: state}


async def test_several_groups_at_once(bench):
    with_two_ports(bench)
    await set_states(bench, {1: AccessState.ACTIVE_NON_OPTIMIZED, 2: AccessState.STANDBY})
    assert await states(bench) == {1: AccessState.ACTIVE_NON_OPTIMIZED, 2: AccessState.STANDBY}


@pytest.mark.parametrize("length", [0, 4])
async def test_without_descriptors_nothing_changes(bench, length):
    """A PARAMETER LIST LENGTH of 0, or of the header alone, is no error."""
    with_two_ports(bench, port_2=AccessState.STANDBY)
    await bench.good(set_cdb(length), bytes(length))
    assert await states(bench) == {1: AccessState.ACTIVE_OPTIMIZED, 2: AccessState.STANDBY}


@pytest.mark.parametrize("state", [0x4, 0x5, 0xD, AccessState.OFFLINE, AccessState.TRANSITIONING])
async def test_other_states_are_refused(bench, state):
    """Table 351: 26h/00h, at the descriptor's state, and no descriptor of the list has an effect."""
    with_two_ports(bench)
    parameters = set_target_port_groups({1: AccessState.STANDBY, 2: state})
    sense = await bench.refused(set_cdb(len(parameters)), parameters)
    assert (sense.sense_key, sense.asc_ascq) == (0x5, 0x2600)
    assert sense.field_pointer == 8 and sense.in_parameter_list
    assert set((await states(bench)).values()) == {AccessState.ACTIVE_OPTIMIZED}


@pytest.mark.parametrize("group", [0, 3, 0xFFFF])
async def test_unknown_groups_are_refused(bench, group):
    with_two_ports(bench)
    parameters = set_target_port_groups({1: AccessState.STANDBY, group: AccessState.STANDBY})
    sense = await bench.refused(set_cdb(len(parameters)), parameters)
    assert (sense.asc_ascq, sense.field_pointer, sense.in_parameter_list) == (0x2600, 10, True)
    assert (await states(bench))[1] is AccessState.ACTIVE_OPTIMIZED


async def test_a_group_that_is_there_twice_is_refused(bench):
    with_two_ports(bench)
    parameters = bytes.fromhex("00000000 02 00 0002 00 00 0002")
    sense = await bench.refused(set_cdb(len(parameters)), parameters)
    assert (sense.asc_ascq, sense.field_pointer) == (0x2600, 10)


@pytest.mark.parametrize("length", [1, 3, 5, 7, 9, 16, 0xFFFFFFFF])
async def test_lengths_that_cut_a_descriptor_or_exceed_the_groups(bench, length):
    """24h/00h, at the PARAMETER LIST LENGTH."""
    with_two_ports(bench)
    sense = await bench.refused(set_cdb(length), bytes(16))
    assert (sense.asc_ascq, sense.field_pointer) == (0x2400, 6)


async def test_less_data_than_the_cdb_says(bench):
    """SPC-4 4.2.5.5: 1Ah/00h."""
    with_two_ports(bench)
    assert (await bench.refused(set_cdb(8), bytes(7))).asc_ascq == 0x1A00


async def test_the_other_nexuses_hear_of_it(bench):
    """SPC-4 5.15.2.7: 2Ah/06h for every nexus but the one that asked, once."""
    with_two_ports(bench)
    await set_states(bench, {2: AccessState.ACTIVE_NON_OPTIMIZED})
    await bench.good("00")
    for nexus in (bench.nexus_b, PORT_2_A, PORT_2_B):
        sense = await bench.refused("00", nexus=nexus)
        assert (sense.sense_key, sense.asc_ascq) == (0x6, 0x2A06)
        await bench.good("00", nexus=nexus)


async def test_setting_what_is_set_already_is_no_change(bench):
    with_two_ports(bench)
    await set_states(bench, {1: AccessState.ACTIVE_OPTIMIZED, 2: AccessState.ACTIVE_OPTIMIZED})
    await bench.good("00", nexus=bench.nexus_b)


async def test_an_implicit_change_is_told_to_everybody(bench):
    """SPC-4 5.15.2.6."""
    with_two_ports(bench)
    bench.server.set_access_states({2: AccessState.ACTIVE_NON_OPTIMIZED})
    for nexus in (bench.nexus_a, bench.nexus_b, PORT_2_A):
        assert (await bench.refused("00", nexus=nexus)).asc_ascq == 0x2A06


@pytest.mark.parametrize("mask", [LunMask(frozenset({0})), LunMask(read_only=True)])
async def test_who_does_not_see_or_write_everything_changes_nothing(bench, mask):
    """The states hold for all units: 20h/02h for a nexus with less than full access to them."""
    with_two_ports(bench)
    await bench.server.nexus_lost(bench.nexus_b)
    bench.server.nexus_established(bench.nexus_b, mask)
    bench.lu.unit_attentions.take(bench.nexus_b)
    parameters = set_target_port_groups({1: AccessState.UNAVAILABLE})
    sense = await bench.refused(set_cdb(len(parameters)), parameters, nexus=bench.nexus_b)
    assert (sense.sense_key, sense.asc_ascq) == (0x5, 0x2002)
    assert (await states(bench))[1] is AccessState.ACTIVE_OPTIMIZED
