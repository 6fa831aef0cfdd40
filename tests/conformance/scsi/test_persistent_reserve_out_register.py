"""REGISTER and REGISTER AND IGNORE EXISTING KEY (SPC-4 5.13.7, tables 67 and 68)."""

import pytest

from tests.conformance.scsi.bench import NEXUS_A, NEXUS_B
from tests.conformance.scsi.persistent_reserve import (
    CONFLICT,
    EA,
    GOOD,
    KEY_A,
    KEY_B,
    NEXUS_A_OTHER_ISID,
    REGISTER,
    REGISTER_AND_IGNORE,
    RO,
    TYPES,
    WE,
)

NEW = 0xFFFFFFFFFFFFFFFF


@pytest.mark.parametrize(
    ("action", "key", "action_key", "status", "registered"),
    [
        (REGISTER, 0, 0, GOOD, []),  # nothing is done
        (REGISTER, 0, NEW, GOOD, [NEW]),
        (REGISTER, 5, NEW, CONFLICT, []),
        (REGISTER, 5, 0, CONFLICT, []),
        (REGISTER_AND_IGNORE, 5, 0, GOOD, []),
        (REGISTER_AND_IGNORE, 5, NEW, GOOD, [NEW]),
        (REGISTER_AND_IGNORE, 0, NEW, GOOD, [NEW]),
    ],
)
async def test_on_an_unregistered_nexus(pr, action, key, action_key, status, registered):
    assert await pr.out(action, NEXUS_A, action_key, key=key) is status
    assert await pr.keys() == registered
    assert await pr.generation() == len(registered)  # only what was done counts


@pytest.mark.parametrize(
    ("action", "key", "action_key", "status", "registered"),
    [
        (REGISTER, KEY_A, NEW, GOOD, [NEW]),
        (REGISTER, KEY_A, KEY_A, GOOD, [KEY_A]),
        (REGISTER, KEY_A, 0, GOOD, []),
        (REGISTER, 0, NEW, CONFLICT, [KEY_A]),
        (REGISTER, KEY_B, NEW, CONFLICT, [KEY_A]),
        (REGISTER, KEY_B, 0, CONFLICT, [KEY_A]),
        (REGISTER_AND_IGNORE, KEY_B, NEW, GOOD, [NEW]),
        (REGISTER_AND_IGNORE, KEY_B, 0, GOOD, []),
    ],
)
async def test_on_a_registered_nexus(pr, action, key, action_key, status, registered):
    await pr.register(NEXUS_A)
    assert await pr.out(action, NEXUS_A, action_key, key=key) is status
    assert await pr.keys() == registered
    assert await pr.generation() == (2 if status is GOOD else 1)


async def test_a_registration_is_that_of_one_initiator_port(pr):
    """SPC-4 5.13.7 d) B): its name, which has the ISID (RFC 7143 §4.4.4)."""
    await pr.register(NEXUS_A)
    assert await pr.out(REGISTER, NEXUS_A_OTHER_ISID, NEW, key=KEY_A) is CONFLICT
    assert await pr.out(REGISTER, NEXUS_A_OTHER_ISID, NEW, key=0) is GOOD
    assert await pr.keys() == [KEY_A, NEW]


async def test_it_has_no_effect_on_another_nexus_with_the_same_key(pr):
    await pr.register(NEXUS_A)
    await pr.out(REGISTER, NEXUS_B, KEY_A)
    await pr.out(REGISTER, NEXUS_B, NEW)
    assert await pr.keys() == [KEY_A, NEW]


@pytest.mark.parametrize("kind", TYPES)
async def test_a_new_key_leaves_the_reservation_as_it_is(pr, kind):
    await pr.register(NEXUS_A)
    await pr.reserve(kind)
    assert await pr.out(REGISTER, NEXUS_A, NEW) is GOOD
    reservation = await pr.reservation()
    assert reservation is not None and reservation[0] in (NEW, 0) and reservation[1] == kind


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("action", [REGISTER, REGISTER_AND_IGNORE])
async def test_the_holder_unregisters(pr, kind, action):
    """SPC-4 5.13.11.2.3, table 71: it is released; with Registrants Only the others hear of it."""
    await pr.register(NEXUS_A, NEXUS_B)
    await pr.reserve(kind)
    assert await pr.out(action, NEXUS_A, 0) is GOOD
    assert await pr.keys() == [KEY_B]
    still_held = kind in (7, 8)  # by the one that is still registered
    assert (await pr.reservation() is not None) is still_held
    assert await pr.hears(NEXUS_B) == ([0x2A04] if kind in RO else [])
    assert await pr.hears(NEXUS_A) == []


@pytest.mark.parametrize("kind", TYPES)
async def test_the_last_one_unregisters(pr, kind):
    """SPC-4 table 71: an All Registrants reservation goes with the last registration."""
    await pr.register(NEXUS_A)
    await pr.reserve(kind)
    assert await pr.out(REGISTER, NEXUS_A, 0) is GOOD
    assert await pr.reservation() is None
    assert (await pr.bench.run("2a 00 00000000 00 0001", b"w" * 512, NEXUS_B)).status is GOOD


@pytest.mark.parametrize("kind", [WE, EA])
async def test_another_registrant_unregisters(pr, kind):
    await pr.register(NEXUS_A, NEXUS_B)
    await pr.reserve(kind)
    assert await pr.out(REGISTER, NEXUS_B, 0) is GOOD
    assert await pr.reservation() == (KEY_A, kind)
    assert await pr.hears(NEXUS_A) == []


async def test_more_than_a_unit_can_hold(pr, monkeypatch):
    """SPC-4 5.13.7: INSUFFICIENT REGISTRATION RESOURCES, and nothing has changed."""
    monkeypatch.setattr("storage_model.persistent_reservation.MAXIMUM_REGISTRATIONS", 1)
    await pr.register(NEXUS_A)
    sense = await pr.out(REGISTER, NEXUS_B, KEY_B)
    assert (sense.sense_key, sense.asc_ascq) == (5, 0x5504)
    assert await pr.keys() == [KEY_A] and await pr.generation() == 1
