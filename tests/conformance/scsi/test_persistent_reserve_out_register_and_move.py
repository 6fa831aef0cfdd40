"""REGISTER AND MOVE (SPC-4 5.13.8, 6.16.4, table 70)."""

import pytest

from storage_model.nexus import ITNexus
from storage_model.spec.scsi_persistent_reservation import TransportId
from tests.conformance.scsi.bench import NEXUS_A, NEXUS_B
from tests.conformance.scsi.persistent_reserve import (
    AR,
    CONFLICT,
    GOOD,
    KEY_A,
    KEY_B,
    NEXUS_A_OTHER_ISID,
    NEXUS_C,
    TYPES,
    WE,
    transport_id,
    write_status,
)
from tests.conformance.scsi.target_ports import PORT_2_A, PORT_2_B, with_two_ports

SINGLE = [kind for kind in TYPES if kind not in AR]
NEW = 0x99
ABSENT = ITNexus("iqn.2026-11.org.example:absent", b"\x80\0\0\0\0\x0f")


@pytest.mark.parametrize("kind", SINGLE)
@pytest.mark.parametrize("unregister", [False, True])
async def test_to_an_unregistered_nexus(pr, kind, unregister):
    """Same type; nobody hears of it."""
    await pr.register(NEXUS_A, NEXUS_B)
    await pr.reserve(kind)
    assert await pr.move(NEXUS_A, NEXUS_C, NEW, unregister=unregister) is GOOD
    assert await pr.reservation() == (NEW, kind)
    assert pr.bench.lu.reservation.persistent.holder == NEXUS_C
    assert await pr.keys() == ([KEY_B, NEW] if unregister else [KEY_A, KEY_B, NEW])
    assert await pr.generation() == 3
    assert await pr.hears(NEXUS_A) == await pr.hears(NEXUS_B) == await pr.hears(NEXUS_C) == []
    assert await write_status(pr.bench, NEXUS_C) is GOOD


async def test_to_a_registered_nexus_which_gets_the_new_key(pr):
    await pr.register(NEXUS_A, NEXUS_B)
    await pr.reserve(WE)
    assert await pr.move(NEXUS_A, NEXUS_B, NEW) is GOOD
    assert await pr.keys() == [KEY_A, NEW] and await pr.reservation() == (NEW, WE)
    assert await write_status(pr.bench, NEXUS_A) is CONFLICT
    assert await write_status(pr.bench, NEXUS_B) is GOOD


async def test_to_a_nexus_that_is_not_logged_in(pr):
    await pr.register(NEXUS_A)
    await pr.reserve(WE)
    assert await pr.move(NEXUS_A, ABSENT, NEW) is GOOD
    pr.log_in(ABSENT)
    assert await write_status(pr.bench, ABSENT) is GOOD


@pytest.mark.parametrize("kind", AR)
async def test_all_registrants(pr, kind):
    await pr.register(NEXUS_A)
    await pr.reserve(kind)
    assert await pr.move(NEXUS_A, NEXUS_B) is CONFLICT


async def test_without_a_reservation(pr):
    await pr.register(NEXUS_A)
    assert (await pr.move(NEXUS_A, NEXUS_B)).asc_ascq == 0x2400
    assert await pr.keys() == [KEY_A]


async def test_by_who_does_not_hold(pr):
    await pr.register(NEXUS_A, NEXUS_B)
    await pr.reserve(WE)
    assert await pr.move(NEXUS_B, NEXUS_C) is CONFLICT
    assert await pr.move(NEXUS_C, NEXUS_B) is CONFLICT
    assert await pr.move(NEXUS_A, NEXUS_C, key=KEY_B) is CONFLICT


async def test_unregistered_and_without_a_reservation(pr):
    assert await pr.move(NEXUS_A, NEXUS_B) is CONFLICT


@pytest.mark.parametrize(
    ("to", "action_key", "port", "field"),
    [
        (NEXUS_B, 0, 1, 8),  # key 0
        (NEXUS_A, NEW, 1, 24),  # its own initiator port
        (NEXUS_A, NEW, 2, 24),  # also at another target port
        (NEXUS_B, NEW, 0, 18),  # no such target port
        (NEXUS_B, NEW, 3, 18),
        (b"", NEW, 1, 20),
        (transport_id(NEXUS_B)[:20], NEW, 1, 20),
        (transport_id(NEXUS_B) * 2, NEW, 1, 20),
        (b"\x00" + transport_id(NEXUS_B)[1:], NEW, 1, 24),  # Fibre Channel
        (b"\xc5" + transport_id(NEXUS_B)[1:], NEW, 1, 24),  # a reserved format
    ],
)
async def test_what_is_wrong_in_the_list(pr, to, action_key, port, field):
    with_two_ports(pr.bench)
    await pr.register(NEXUS_A)
    await pr.reserve(WE)
    sense = await pr.move(NEXUS_A, to, action_key, port=port)
    assert (sense.sense_key, sense.asc_ascq, sense.field_pointer, sense.in_parameter_list) == (5, 0x2600, field, True)
    assert await pr.keys() == [KEY_A] and await pr.reservation() == (KEY_A, WE)


async def test_through_another_target_port(pr):
    with_two_ports(pr.bench)
    await pr.register(NEXUS_A)
    await pr.reserve(WE)
    assert await pr.move(NEXUS_A, NEXUS_B, NEW, port=2) is GOOD
    assert await write_status(pr.bench, PORT_2_B) is GOOD
    assert await write_status(pr.bench, NEXUS_B) is CONFLICT
    assert await write_status(pr.bench, PORT_2_A) is CONFLICT


async def test_device_name_with_one_port_that_is_known_or_with_two(pr):
    """SPC-4 7.6.4.6, format code 00b: it can be moved to one initiator port only."""
    await pr.register(NEXUS_B)
    await pr.reserve(WE, NEXUS_B)
    assert NEXUS_A_OTHER_ISID.initiator_name == NEXUS_A.initiator_name
    assert (await pr.move(NEXUS_B, TransportId(NEXUS_A.initiator_name, None).encode())).asc_ascq == 0x2600
    assert (await pr.move(NEXUS_B, TransportId(ABSENT.initiator_name, None).encode())).asc_ascq == 0x2600
    assert await pr.move(NEXUS_B, TransportId(NEXUS_C.initiator_name, None).encode()) is GOOD
    assert pr.bench.lu.reservation.persistent.holder == NEXUS_C
