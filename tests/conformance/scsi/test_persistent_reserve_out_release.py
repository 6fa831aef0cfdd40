"""RELEASE (SPC-4 5.13.11.2.2)."""

import pytest

from tests.conformance.scsi.bench import NEXUS_A, NEXUS_B
from tests.conformance.scsi.persistent_reserve import (
    AR,
    CONFLICT,
    GOOD,
    KEY_A,
    KEY_B,
    NEXUS_C,
    RELEASE,
    RO,
    TYPES,
    WE,
    WE_RO,
    write_status,
)


@pytest.mark.parametrize("kind", TYPES)
async def test_by_the_holder(pr, kind):
    """The registrations stay; of a type for registrants the others hear RESERVATIONS RELEASED."""
    await pr.register(NEXUS_A, NEXUS_B)
    await pr.reserve(kind)
    generation = await pr.generation()
    assert await pr.out(RELEASE, NEXUS_A, kind=kind) is GOOD
    assert await pr.reservation() is None
    assert await pr.keys() == [KEY_A, KEY_B] and await pr.generation() == generation
    assert await write_status(pr.bench, NEXUS_C) is GOOD
    assert await pr.hears(NEXUS_B) == ([0x2A04] if kind in RO + AR else [])
    assert await pr.hears(NEXUS_A) == await pr.hears(NEXUS_C) == []


@pytest.mark.parametrize("kind", TYPES)
async def test_by_another_registrant(pr, kind):
    """GOOD, and nothing is released but where every registrant is a holder."""
    await pr.register(NEXUS_A, NEXUS_B)
    await pr.reserve(kind)
    assert await pr.out(RELEASE, NEXUS_B, kind=kind) is GOOD
    assert (await pr.reservation() is None) is (kind in AR)


async def test_when_there_is_no_reservation(pr):
    await pr.register(NEXUS_A)
    assert await pr.out(RELEASE, NEXUS_A, kind=WE) is GOOD


@pytest.mark.parametrize("kind", [0, WE, 0xF])
async def test_by_the_holder_with_another_type(pr, kind):
    """INVALID RELEASE OF PERSISTENT RESERVATION."""
    await pr.register(NEXUS_A)
    await pr.reserve(WE_RO)
    sense = await pr.out(RELEASE, NEXUS_A, kind=kind)
    assert (sense.sense_key, sense.asc_ascq) == (5, 0x2604)
    assert await pr.reservation() == (KEY_A, WE_RO)


async def test_with_a_scope_that_there_is_not(pr):
    """SPC-4 6.16.1."""
    await pr.register(NEXUS_A)
    await pr.reserve(WE)
    assert (await pr.out(RELEASE, NEXUS_A, kind=WE, scope=1)).asc_ascq == 0x2400
    assert await pr.reservation() == (KEY_A, WE)


async def test_with_the_wrong_key_or_unregistered(pr):
    await pr.register(NEXUS_A)
    await pr.reserve(WE)
    assert await pr.out(RELEASE, NEXUS_A, kind=WE, key=KEY_B) is CONFLICT
    assert await pr.out(RELEASE, NEXUS_B, kind=WE, key=KEY_A) is CONFLICT
    assert await pr.reservation() == (KEY_A, WE)
