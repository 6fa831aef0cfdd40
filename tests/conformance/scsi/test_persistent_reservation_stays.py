"""Resets and the loss of a nexus do not touch persistent reservations (SPC-4 5.13.1); a relogin is the same nexus."""

import pytest

from storage_model.nexus import ITNexus
from tests.conformance.scsi.bench import ABORTING_FUNCTIONS, NEXUS_A, NEXUS_B
from tests.conformance.scsi.persistent_reserve import (
    CLEAR,
    CONFLICT,
    GOOD,
    KEY_A,
    KEY_B,
    PREEMPT,
    TYPES,
    WE_RO,
    write_status,
)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("function", ABORTING_FUNCTIONS)
async def test_task_management(pr, kind, function):
    await pr.register(NEXUS_A, NEXUS_B)
    await pr.reserve(kind)
    before = pr.bench.lu.reservation.persistent
    await pr.bench.server.manage(NEXUS_B, function, 0, 0)
    assert pr.bench.lu.reservation.persistent == before and pr.bench.lu.reservation.held


async def test_loss_of_the_holders_nexus_and_its_return(pr):
    await pr.register(NEXUS_A)
    await pr.reserve(WE_RO)
    await pr.bench.server.nexus_lost(NEXUS_A)
    assert await write_status(pr.bench, NEXUS_B) is CONFLICT
    again = ITNexus(NEXUS_A.initiator_name, bytes(NEXUS_A.isid), 1)
    pr.log_in(again)
    assert await write_status(pr.bench, again) is GOOD
    assert await pr.reservation() == (KEY_A, WE_RO)


@pytest.mark.parametrize("action", [PREEMPT, CLEAR])
async def test_who_is_away_hears_of_the_power_on_instead(pr, action):
    """SAM-5 5.14: 29h/00h has the highest precedence, and comes with every new nexus."""
    await pr.register(NEXUS_A, NEXUS_B)
    await pr.bench.server.nexus_lost(NEXUS_A)
    assert await pr.out(action, NEXUS_B, KEY_A) is GOOD
    assert NEXUS_A not in pr.bench.lu.unit_attentions.pending, "nothing is kept for who may never come"
    pr.bench.server.nexus_established(NEXUS_A)
    assert await pr.hears(NEXUS_A) == [0x2900]
    assert await pr.keys() == ([KEY_B] if action == PREEMPT else [])
