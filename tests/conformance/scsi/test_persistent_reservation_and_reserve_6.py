"""RESERVE, RELEASE and persistent reservations exclude each other (SPC-2 5.5.1), with CRH exceptions (SPC-4 5.13.3)."""

import asyncio

import pytest

from tests.conformance.scsi.bench import NEXUS_A, NEXUS_B
from tests.conformance.scsi.persistent_reserve import (
    CONFLICT,
    GOOD,
    KEY_A,
    NEXUS_C,
    RELEASE,
    TYPES,
    WE,
    write_status,
)

RESERVE_OR_RELEASE = ["16", "17", "56", "57"]


@pytest.mark.parametrize("nexus", [NEXUS_A, NEXUS_B])
@pytest.mark.parametrize("action", range(8))
async def test_persistent_reserve_out_while_reserved(pr, action, nexus):
    """SPC-2 5.5.1: regardless of initiator or service action."""
    await pr.bench.good("16")
    status = await pr.move(nexus, NEXUS_C) if action == 7 else await pr.out(action, nexus, KEY_A, kind=WE)
    assert status is CONFLICT
    assert not pr.bench.lu.reservation.persistent.registrations


@pytest.mark.parametrize("nexus", [NEXUS_A, NEXUS_B])
@pytest.mark.parametrize("action", range(4))
async def test_persistent_reserve_in_while_reserved(pr, action, nexus):
    await pr.bench.good("16")
    outcome = await pr.bench.run(bytes((0x5E, action, 0, 0, 0, 0, 0, 0, 255)), nexus=nexus)
    assert outcome.status is CONFLICT and not outcome.data_in


@pytest.mark.parametrize("cdb", RESERVE_OR_RELEASE)
async def test_while_somebody_is_registered_and_nothing_reserved(pr, cdb):
    """SPC-2 5.5.1: all RESERVE and all RELEASE commands conflict, regardless of initiator."""
    await pr.register(NEXUS_A)
    for nexus in (NEXUS_A, NEXUS_B):
        assert (await pr.bench.run(cdb, nexus=nexus)).status is CONFLICT
    assert pr.bench.lu.reservation.holder is None


@pytest.mark.parametrize("cdb", RESERVE_OR_RELEASE)
@pytest.mark.parametrize("kind", TYPES)
async def test_by_whom_the_reservation_takes_in(pr, cdb, kind):
    """SPC-4 5.13.3: GOOD, no effect. Else as SPC-2 has it."""
    await pr.register(NEXUS_A, NEXUS_B)
    await pr.reserve(kind)
    before = await pr.reservation()
    assert (await pr.bench.run(cdb, nexus=NEXUS_A)).status is GOOD
    assert (await pr.bench.run(cdb, nexus=NEXUS_B)).status is (CONFLICT if kind in (1, 3) else GOOD)
    assert (await pr.bench.run(cdb, nexus=NEXUS_C)).status is CONFLICT
    assert await pr.reservation() == before and pr.bench.lu.reservation.holder is None


async def test_after_the_registrations_are_gone(pr):
    await pr.register(NEXUS_A)
    await pr.out(3, NEXUS_A)
    await pr.bench.good("16", nexus=NEXUS_B)
    await pr.bench.good("17", nexus=NEXUS_B)
    await pr.register(NEXUS_A)
    assert await pr.out(RELEASE, NEXUS_A, kind=WE) is GOOD


async def test_reserve_waits_for_a_register_that_is_being_made_durable(pr):
    """Neither gets in between the other's check and its effect."""
    async with pr.bench.lu.reservation_journal.lock:
        waiting = asyncio.create_task(pr.bench.run("16", nexus=NEXUS_B))
        await asyncio.sleep(0)
        assert not waiting.done()
        state = pr.bench.lu.reservation.persistent.register(NEXUS_A, 0, KEY_A)
        assert state is not None
        await pr.bench.lu.reservation_journal.change(state.state)
    assert (await waiting).status is CONFLICT
    assert await write_status(pr.bench, NEXUS_B) is GOOD
