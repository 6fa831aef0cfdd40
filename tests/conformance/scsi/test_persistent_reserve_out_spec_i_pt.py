"""REGISTER with SPEC_I_PT: initiator ports by their TransportIDs (SPC-4 5.13.7, 6.16.3, 7.6.4.6)."""

import pytest

from storage_model.nexus import ITNexus
from storage_model.spec.scsi_persistent_reservation import BasicParameters, TransportId
from tests.conformance.scsi.bench import NEXUS_A, NEXUS_B
from tests.conformance.scsi.persistent_reserve import (
    CLEAR,
    CONFLICT,
    GOOD,
    KEY_A,
    KEY_B,
    NEXUS_A_OTHER_ISID,
    NEXUS_C,
    PREEMPT,
    PREEMPT_AND_ABORT,
    REGISTER,
    REGISTER_AND_IGNORE,
    RELEASE,
    RESERVE,
    out_cdb,
)
from tests.conformance.scsi.target_ports import PORT_2_A, PORT_2_B, with_two_ports

ABSENT = ITNexus("iqn.2026-11.org.example:absent", b"\x80\0\0\0\0\x0f")


async def test_each_is_registered_with_the_same_key(pr):
    assert await pr.out(REGISTER, NEXUS_A, KEY_A, named=(NEXUS_B, ABSENT)) is GOOD
    registrations = pr.bench.lu.reservation.persistent.registrations
    assert {nexus: made.key for nexus, made in registrations.items()} == dict.fromkeys(
        (NEXUS_A, NEXUS_B, ABSENT), KEY_A
    )
    assert await pr.out(RESERVE, NEXUS_B, kind=1) is GOOD


async def test_none_and_oneself_and_twice_the_same(pr):
    assert await pr.out(REGISTER, NEXUS_A, KEY_A, named=()) is GOOD
    await pr.out(CLEAR, NEXUS_A)
    assert await pr.out(REGISTER, NEXUS_A, KEY_A, named=(NEXUS_A, NEXUS_B, NEXUS_B)) is GOOD
    assert await pr.keys() == [KEY_A, KEY_A]


async def test_one_that_is_registered_already(pr):
    """SPC-4 table 67, footnote b: nobody is registered then."""
    await pr.register(NEXUS_B)
    sense = await pr.out(REGISTER, NEXUS_A, KEY_A, named=(NEXUS_C, NEXUS_B))
    assert (sense.sense_key, sense.asc_ascq) == (5, 0x2600)
    assert await pr.keys() == [KEY_B]


async def test_by_a_registered_nexus(pr):
    """SPC-4 table 67, footnote c."""
    await pr.register(NEXUS_A)
    for action_key in (0, KEY_B):
        sense = await pr.out(REGISTER, NEXUS_A, action_key, named=(NEXUS_B,))
        assert (sense.asc_ascq, sense.field_pointer, sense.bit_pointer) == (0x2600, 20, 3)
    assert await pr.keys() == [KEY_A]


async def test_with_the_wrong_key(pr):
    assert await pr.out(REGISTER, NEXUS_A, KEY_A, key=9, named=(NEXUS_B,)) is CONFLICT


@pytest.mark.parametrize("action", [RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_AND_ABORT, REGISTER_AND_IGNORE])
@pytest.mark.parametrize("named", [(), (NEXUS_B,)], ids=["no list", "a list"])
async def test_with_another_service_action(pr, action, named):
    """SPC-4 6.16.3: INVALID FIELD IN PARAMETER LIST."""
    await pr.register(NEXUS_A)
    sense = await pr.out(action, NEXUS_A, KEY_A, kind=1, named=named)
    assert (sense.sense_key, sense.asc_ascq, sense.field_pointer) == (5, 0x2600, 20)
    assert await pr.keys() == [KEY_A] and await pr.reservation() is None


async def register_by_device_name(pr, name: str):
    data = BasicParameters(0, KEY_B, spec_i_pt=True, transport_ids=TransportId(name, None).encode()).encode()
    return await pr.execute(pr.bench.task(out_cdb(REGISTER, len(data)), data, NEXUS_B))


async def test_device_name_stands_for_all_its_ports_that_are_known(pr):
    """SPC-4 7.6.4.6, format code 00b."""
    assert await register_by_device_name(pr, NEXUS_A.initiator_name) is GOOD
    assert set(pr.bench.lu.reservation.persistent.registrations) == {NEXUS_A, NEXUS_A_OTHER_ISID, NEXUS_B}


async def test_device_name_that_is_not_known(pr):
    sense = await register_by_device_name(pr, ABSENT.initiator_name)
    assert (sense.sense_key, sense.asc_ascq) == (5, 0x2600)
    assert await pr.keys() == []


async def test_at_the_target_port_of_the_command_or_at_all(pr):
    """SPC-4 table 69."""
    with_two_ports(pr.bench)
    assert await pr.out(REGISTER, NEXUS_A, KEY_A, named=(NEXUS_B,)) is GOOD
    assert set(pr.bench.lu.reservation.persistent.registrations) == {NEXUS_A, NEXUS_B}
    await pr.out(CLEAR, NEXUS_A)
    assert await pr.out(REGISTER, NEXUS_A, KEY_A, named=(NEXUS_B,), every_port=True) is GOOD
    assert set(pr.bench.lu.reservation.persistent.registrations) == {NEXUS_A, NEXUS_B, PORT_2_A, PORT_2_B}
