"""RESERVE and RELEASE, 6 and 10 (SPC-2 7.21, 7.18)."""

import pytest

from storage_model.spec.scsi_task import ScsiStatus, TaskFunction

RESERVE, RELEASE = ("16", "56"), ("17", "57")


@pytest.mark.parametrize("reserve", RESERVE)
@pytest.mark.parametrize("release", RELEASE)
async def test_reserve_excludes_the_other_nexus_until_release(bench, reserve, release):
    await bench.good(reserve)
    await bench.good(reserve)  # by the holder again
    assert (await bench.run(reserve, nexus=bench.nexus_b)).status is ScsiStatus.RESERVATION_CONFLICT
    await bench.good(release, nexus=bench.nexus_b)  # no effect, no error
    assert (await bench.run(reserve, nexus=bench.nexus_b)).status is ScsiStatus.RESERVATION_CONFLICT
    await bench.good(release)
    await bench.good(reserve, nexus=bench.nexus_b)


@pytest.mark.parametrize("byte_1", [0x01, 0x02, 0x10, 0x12, 0x1E])
@pytest.mark.parametrize("code", [0x16, 0x17, 0x56, 0x57])
async def test_third_party_and_extents_are_refused(bench, code, byte_1):
    sense = await bench.refused(bytes((code, byte_1)))
    assert (sense.asc_ascq, sense.field_pointer) == (0x2400, 1)
    assert bench.lu.reservation.holder is None


@pytest.mark.parametrize(
    "function", [TaskFunction.LOGICAL_UNIT_RESET, TaskFunction.TARGET_WARM_RESET, TaskFunction.TARGET_COLD_RESET]
)
async def test_a_reset_by_anybody_clears_it(bench, function):
    await bench.good("16")
    await bench.server.manage(bench.nexus_b, function, 0, 0)
    assert bench.lu.reservation.holder is None


@pytest.mark.parametrize(
    "function", [TaskFunction.ABORT_TASK_SET, TaskFunction.CLEAR_TASK_SET, TaskFunction.ABORT_TASK]
)
async def test_task_management_short_of_a_reset_does_not(bench, function):
    await bench.good("16")
    await bench.server.manage(bench.nexus_b, function, 0, 0)
    assert bench.lu.reservation.holder == bench.nexus_a


async def test_loss_of_the_nexus_clears_it_and_that_of_another_does_not(bench):
    await bench.good("16")
    await bench.server.nexus_lost(bench.nexus_b)
    assert bench.lu.reservation.holder == bench.nexus_a
    await bench.server.nexus_lost(bench.nexus_a)
    assert bench.lu.reservation.holder is None


async def test_a_second_session_of_the_same_port_is_the_holder(bench):
    await bench.good("16")
    again = type(bench.nexus_a)(bench.nexus_a.initiator_name, bytes(bench.nexus_a.isid), bench.nexus_a.target_port)
    assert again is not bench.nexus_a
    await bench.good("00", nexus=again)
