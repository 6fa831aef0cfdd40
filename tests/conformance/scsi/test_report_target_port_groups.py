"""REPORT TARGET PORT GROUPS (SPC-4 6.37)."""

import pytest

from storage_model.spec.scsi_target_port_groups import AccessState, StatusCode, decode_target_port_groups
from tests.conformance.scsi.target_ports import PORT_2_A, REPORT, report, set_states, with_two_ports

TWO_GROUPS = bytes.fromhex(
    "00000018"  # RETURN DATA LENGTH
    "00 0f 0001 00 00 00 01  0000 0001"  # active/optimized; U_SUP S_SUP AN_SUP AO_SUP; one port, number 1
    "02 0f 0002 00 00 00 01  0000 0002"  # standby
)


async def test_length_only_header(bench):
    """Tables 308 and 310, byte by byte."""
    with_two_ports(bench, port_2=AccessState.STANDBY)
    assert await bench.good(REPORT) == TWO_GROUPS


async def test_extended_header(bench):
    """Table 309: PARAMETER DATA FORMAT 001b adds FORMAT TYPE 001b and the implicit transition time."""
    with_two_ports(bench, port_2=AccessState.STANDBY)
    data = await bench.good("a3 2a" + REPORT[5:])
    assert data == bytes.fromhex("0000001c 10 00 0000") + TWO_GROUPS[4:]
    groups = decode_target_port_groups(data, extended_header=True)
    assert [(group.group, group.state) for group in groups] == [(1, AccessState(0)), (2, AccessState(2))]


@pytest.mark.parametrize("data_format", [2, 3, 7])
async def test_reserved_formats_are_refused(bench, data_format):
    """Table 307."""
    sense = await bench.refused(bytes((0xA3, data_format << 5 | 0x0A, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0)))
    assert sense.asc_ascq == 0x2400 and sense.field_pointer == 1


@pytest.mark.parametrize("length", [0, 1, 4, 15, 28])
async def test_allocation_length_cuts(bench, length):
    """SPC-4 4.2.5.6; RETURN DATA LENGTH stays that of the whole."""
    with_two_ports(bench, port_2=AccessState.STANDBY)
    assert await bench.good(bytes((0xA3, 0x0A, 0, 0, 0, 0, 0, 0, 0, length, 0, 0))) == TWO_GROUPS[:length]


async def test_every_port_tells_the_same(bench):
    with_two_ports(bench)
    assert await bench.good(REPORT, nexus=PORT_2_A) == await bench.good(REPORT)


async def test_status_code_says_who_changed_the_state(bench):
    """Table 314."""
    with_two_ports(bench)
    assert {group.status for group in (await report(bench)).values()} == {StatusCode.NONE}
    await set_states(bench, {2: AccessState.STANDBY})
    assert (await report(bench))[2].status is StatusCode.ALTERED_BY_COMMAND
    bench.server.set_access_states({2: AccessState.ACTIVE_OPTIMIZED})
    bench.lu.unit_attentions.pending.clear()
    groups = await report(bench)
    assert groups[2].status is StatusCode.ALTERED_IMPLICITLY and groups[1].status is StatusCode.NONE


async def test_standard_inquiry_announces_it(bench):
    """SPC-4 6.4.2: TPGS 11b, implicit and explicit; MULTIP with more than one port."""

    async def tpgs_and_multip():
        data = await bench.good("12 00 00 00 ff 00")
        return data[5] & 0x30, data[6] & 0x10

    assert await tpgs_and_multip() == (0x30, 0)
    with_two_ports(bench)
    assert await tpgs_and_multip() == (0x30, 0x10)
