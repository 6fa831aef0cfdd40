"""CLEAR (SPC-4 5.13.11.2.7)."""

import pytest

from tests.conformance.scsi.bench import NEXUS_A, NEXUS_B
from tests.conformance.scsi.persistent_reserve import (
    CLEAR,
    CONFLICT,
    GOOD,
    KEY_A,
    KEY_B,
    NEXUS_C,
    TYPES,
    WE,
    write_status,
)


@pytest.mark.parametrize("kind", [None, *TYPES])
async def test_by_any_registrant(pr, kind):
    """All registrations and the reservation go; the others hear RESERVATIONS PREEMPTED."""
    await pr.register(NEXUS_A, NEXUS_B, NEXUS_C)
    if kind is not None:
        await pr.reserve(kind)
    assert await pr.out(CLEAR, NEXUS_B, kind=0xF, scope=0xF) is GOOD  # scope and type are ignored
    assert await pr.keys() == [] and await pr.reservation() is None and await pr.generation() == 4
    assert await pr.hears(NEXUS_A) == await pr.hears(NEXUS_C) == [0x2A03]
    assert await pr.hears(NEXUS_B) == []
    assert await write_status(pr.bench, NEXUS_C) is GOOD


@pytest.mark.parametrize(("nexus", "key"), [(NEXUS_B, 0), (NEXUS_B, KEY_A), (NEXUS_A, KEY_B), (NEXUS_A, 0)])
async def test_with_the_wrong_key_or_unregistered(pr, nexus, key):
    await pr.register(NEXUS_A)
    await pr.reserve(WE)
    assert await pr.out(CLEAR, nexus, key=key) is CONFLICT
    assert await pr.reservation() == (KEY_A, WE)
