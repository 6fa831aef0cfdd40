"""ALL_TG_PT: as if the request had come through every target port (SPC-4 6.16.3, table 69)."""

import pytest

from tests.conformance.scsi.bench import NEXUS_A
from tests.conformance.scsi.persistent_reserve import (
    CONFLICT,
    EA_RO,
    GOOD,
    KEY_A,
    KEY_B,
    REGISTER,
    REGISTER_AND_IGNORE,
    RELEASE,
    RESERVE,
    Reservations,
    write_status,
)
from tests.conformance.scsi.target_ports import PORT_2_A, PORT_2_B, with_two_ports


@pytest.fixture
def pr(bench):
    return Reservations(with_two_ports(bench))


@pytest.mark.parametrize("action", [REGISTER, REGISTER_AND_IGNORE])
async def test_registered_through_every_port(pr, action):
    assert await pr.out(action, NEXUS_A, KEY_A, every_port=True) is GOOD
    assert await pr.keys() == [KEY_A, KEY_A] and await pr.generation() == 1
    await pr.reserve(EA_RO)
    assert await write_status(pr.bench, PORT_2_A) is GOOD
    assert await write_status(pr.bench, PORT_2_B) is CONFLICT


async def test_without_it_the_other_port_is_a_stranger(pr):
    await pr.register(NEXUS_A)
    await pr.reserve(EA_RO)
    assert await write_status(pr.bench, PORT_2_A) is CONFLICT


async def test_unregistered_through_every_port(pr):
    await pr.out(REGISTER, NEXUS_A, KEY_A, every_port=True)
    assert await pr.out(REGISTER, PORT_2_A, 0, every_port=True) is GOOD
    assert await pr.keys() == []


async def test_unregistered_through_one_port(pr):
    await pr.out(REGISTER, NEXUS_A, KEY_A, every_port=True)
    assert await pr.out(REGISTER, PORT_2_A, 0) is GOOD
    assert list(pr.bench.lu.reservation.persistent.registrations) == [NEXUS_A]


async def test_registered_at_one_port_with_another_key(pr):
    """It is done for all ports or for none."""
    await pr.out(REGISTER, PORT_2_A, KEY_B)
    assert await pr.out(REGISTER, NEXUS_A, KEY_A, every_port=True) is CONFLICT
    assert await pr.keys() == [KEY_B]
    assert await pr.out(REGISTER_AND_IGNORE, NEXUS_A, KEY_A, every_port=True) is GOOD
    assert await pr.keys() == [KEY_A, KEY_A]


@pytest.mark.parametrize("action", [RESERVE, RELEASE])
async def test_ignored_by_the_other_service_actions(pr, action):
    await pr.register(NEXUS_A)
    assert await pr.out(action, NEXUS_A, kind=EA_RO, every_port=True) is GOOD
