"""What runs on a port in each asymmetric access state (SPC-4 5.15.2.4)."""

import pytest

from storage_model.spec.scsi_target_port_groups import AccessState
from target.scsi.command_table import COMMAND_ROWS
from tests.conformance.scsi.target_ports import PORT_2_A, report, set_states, with_two_ports

# SPC-4 5.15.2.4.5; and the two that only tell what there is, which the standard leaves to us.
UNAVAILABLE = {
    *("INQUIRY", "REPORT_LUNS", "REQUEST_SENSE", "REPORT_TARGET_PORT_GROUPS", "SET_TARGET_PORT_GROUPS"),
    *("REPORT_SUPPORTED_OPERATION_CODES", "REPORT_SUPPORTED_TASK_MANAGEMENT_FUNCTIONS"),
}
# SPC-4 5.15.2.4.4; and the capacity, which the standard leaves to us.
STANDBY = {
    *UNAVAILABLE,
    *("MODE_SELECT_6", "MODE_SENSE_6", "MODE_SELECT_10", "MODE_SENSE_10", "LOG_SENSE", "LOG_SELECT"),
    *("SEND_DIAGNOSTIC", "RECEIVE_DIAGNOSTIC_RESULTS", "READ_CAPACITY_10", "READ_CAPACITY_16"),
}
ECHO_BUFFER = {"READ_BUFFER", "READ_BUFFER_10", "READ_BUFFER_16", "WRITE_BUFFER"}
STANDARD_ROWS = [row for row in COMMAND_ROWS if row.operation_code < 0xC0]
PERSISTENT_RESERVE = (0x5E, 0x5F)


def may_run(row, state):
    if row.name in ECHO_BUFFER:
        return False  # a mode of 0 is not the echo buffer's
    if state is AccessState.STANDBY:
        return row.name in STANDBY or row.operation_code in PERSISTENT_RESERVE
    return row.name in UNAVAILABLE


@pytest.mark.parametrize(
    ("state", "asc_ascq"), [(AccessState.STANDBY, 0x040B), (AccessState.UNAVAILABLE, 0x040C)], ids=str
)
@pytest.mark.parametrize("row", STANDARD_ROWS, ids=lambda row: row.name)
async def test_row(bench, row, state, asc_ascq):
    with_two_ports(bench, port_2=state)
    outcome = await bench.run(bytes((row.operation_code, row.service_action or 0)), nexus=PORT_2_A)
    key, code = (outcome.sense[2] & 0xF, int.from_bytes(outcome.sense[12:14])) if outcome.sense else (0, 0)
    refused = (key, code) == (0x2, asc_ascq)
    assert refused is not may_run(row, state)


@pytest.mark.parametrize("state", [AccessState.ACTIVE_OPTIMIZED, AccessState.ACTIVE_NON_OPTIMIZED], ids=str)
async def test_everything_runs_while_active(bench, state):
    with_two_ports(bench, port_2=state)
    await bench.good("2a 00 00000000 00 0001 00", bytes(512), nexus=PORT_2_A)
    await bench.good("00", nexus=PORT_2_A)


async def test_the_other_port_is_not_concerned(bench):
    with_two_ports(bench, port_2=AccessState.UNAVAILABLE)
    await bench.good("2a 00 00000000 00 0001 00", bytes(512))


async def test_a_port_is_brought_back_through_itself(bench):
    with_two_ports(bench, port_1=AccessState.UNAVAILABLE, port_2=AccessState.UNAVAILABLE)
    await set_states(bench, {2: AccessState.ACTIVE_OPTIMIZED}, nexus=PORT_2_A)
    await bench.good("00", nexus=PORT_2_A)
    bench.lu.unit_attentions.pending.clear()
    assert (await report(bench))[1].state is AccessState.UNAVAILABLE
    assert (await bench.refused("00")).asc_ascq == 0x040C


async def test_reservation_conflict_comes_first(bench):
    """SAM-5 5.3.3: RESERVATION CONFLICT before CHECK CONDITION."""
    with_two_ports(bench, port_2=AccessState.STANDBY)
    await bench.good("16", nexus=bench.nexus_b)
    assert (await bench.run("28 00 00000000 00 0001 00", nexus=PORT_2_A)).status == 0x18


async def test_an_unknown_operation_code_stays_unknown(bench):
    with_two_ports(bench, port_2=AccessState.UNAVAILABLE)
    assert (await bench.refused("d0", nexus=PORT_2_A)).asc_ascq == 0x2000


async def test_unit_attention_comes_first(bench):
    with_two_ports(bench)
    await set_states(bench, {2: AccessState.STANDBY})
    assert (await bench.refused("00", nexus=PORT_2_A)).asc_ascq == 0x2A06
    assert (await bench.refused("00", nexus=PORT_2_A)).asc_ascq == 0x040B
