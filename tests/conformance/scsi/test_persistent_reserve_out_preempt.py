"""PREEMPT (SPC-4 5.13.11.2.4, 5.13.11.2.5, table 72)."""

import pytest

from tests.conformance.scsi.bench import NEXUS_A, NEXUS_B
from tests.conformance.scsi.persistent_reserve import (
    AR,
    CONFLICT,
    EA,
    GOOD,
    KEY_A,
    KEY_B,
    KEY_C,
    NEXUS_A_OTHER_ISID,
    NEXUS_C,
    PREEMPT,
    PREEMPT_AND_ABORT,
    REGISTER,
    TYPES,
    WE,
    WE_RO,
    write_status,
)

SINGLE = [kind for kind in TYPES if kind not in AR]


@pytest.fixture(params=[PREEMPT, PREEMPT_AND_ABORT], ids=["PREEMPT", "PREEMPT AND ABORT"])
def action(request):
    return request.param


@pytest.mark.parametrize("kind", SINGLE)
@pytest.mark.parametrize("new", TYPES)
async def test_the_holder(pr, action, kind, new):
    """It loses both, the one who preempts holds; the rest hear of it when the type has changed."""
    await pr.register(NEXUS_A, NEXUS_B, NEXUS_C)
    await pr.reserve(kind)
    assert await pr.out(action, NEXUS_B, KEY_A, kind=new) is GOOD
    assert await pr.keys() == [KEY_B, KEY_C]
    assert await pr.reservation() == (0 if new in AR else KEY_B, new)
    assert await pr.generation() == 4
    assert await pr.hears(NEXUS_A) == [0x2A05]
    assert await pr.hears(NEXUS_B) == []
    assert await pr.hears(NEXUS_C) == ([] if new == kind else [0x2A04])
    assert await write_status(pr.bench, NEXUS_A) is CONFLICT
    assert await write_status(pr.bench, NEXUS_B) is GOOD


async def test_the_holder_and_all_who_have_its_key(pr, action):
    await pr.register(NEXUS_A, NEXUS_B, NEXUS_C)
    await pr.out(REGISTER, NEXUS_A_OTHER_ISID, KEY_A)
    await pr.reserve(WE)
    assert await pr.out(action, NEXUS_B, KEY_A, kind=WE) is GOOD
    assert await pr.keys() == [KEY_B, KEY_C]
    assert await pr.hears(NEXUS_A) == await pr.hears(NEXUS_A_OTHER_ISID) == [0x2A05]


async def test_the_holder_by_a_nexus_with_the_same_key(pr, action):
    """SPC-4 5.13.11.2.4.3 b): it keeps its own registration."""
    await pr.register(NEXUS_A)
    await pr.out(REGISTER, NEXUS_A_OTHER_ISID, KEY_A)
    await pr.reserve(WE)
    assert await pr.out(action, NEXUS_A_OTHER_ISID, KEY_A, kind=WE) is GOOD
    assert list(pr.bench.lu.reservation.persistent.registrations) == [NEXUS_A_OTHER_ISID]
    assert pr.bench.lu.reservation.persistent.holder == NEXUS_A_OTHER_ISID


@pytest.mark.parametrize("kind", SINGLE)
async def test_the_holder_by_itself(pr, action, kind):
    """No error: another type without a moment in between."""
    await pr.register(NEXUS_A, NEXUS_B)
    await pr.reserve(kind)
    assert await pr.out(action, NEXUS_A, KEY_A, kind=EA) is GOOD
    assert await pr.reservation() == (KEY_A, EA) and await pr.keys() == [KEY_A, KEY_B]
    assert await pr.hears(NEXUS_A) == []
    assert await pr.hears(NEXUS_B) == ([] if kind == EA else [0x2A04])


@pytest.mark.parametrize("kind", [None, *TYPES])
async def test_a_registration_only(pr, action, kind):
    """Scope and type are ignored; the reservation is as it was."""
    await pr.register(NEXUS_A, NEXUS_B, NEXUS_C)
    if kind is not None:
        await pr.reserve(kind)
    before = await pr.reservation()
    assert await pr.out(action, NEXUS_B, KEY_C, kind=0xF, scope=0xF) is GOOD
    assert await pr.keys() == [KEY_A, KEY_B] and await pr.reservation() == before
    assert await pr.generation() == 4
    assert await pr.hears(NEXUS_C) == [0x2A05]
    assert await pr.hears(NEXUS_A) == await pr.hears(NEXUS_B) == []


@pytest.mark.parametrize("kind", [None, *AR])
async def test_ones_own_registration(pr, action, kind):
    """SPC-4 5.13.11.2.5: no error, no unit attention for oneself, and the registration is removed."""
    await pr.register(NEXUS_A, NEXUS_B)
    if kind is not None:
        await pr.reserve(kind)
    assert await pr.out(action, NEXUS_B, KEY_B) is GOOD
    assert await pr.keys() == [KEY_A]
    assert await pr.hears(NEXUS_A) == await pr.hears(NEXUS_B) == []


@pytest.mark.parametrize("kind", AR)
async def test_the_last_of_all_registrants_by_itself(pr, action, kind):
    """SPC-4 table 71."""
    await pr.register(NEXUS_A)
    await pr.reserve(kind)
    assert await pr.out(action, NEXUS_A, KEY_A) is GOOD
    assert await pr.keys() == [] and await pr.reservation() is None


@pytest.mark.parametrize("kind", AR)
@pytest.mark.parametrize("new", TYPES)
async def test_all_registrants_with_key_0(pr, action, kind, new):
    await pr.register(NEXUS_A, NEXUS_B, NEXUS_C)
    await pr.reserve(kind)
    assert await pr.out(action, NEXUS_C, 0, kind=new) is GOOD
    assert await pr.keys() == [KEY_C] and (await pr.reservation())[1] == new
    assert await pr.hears(NEXUS_A) == await pr.hears(NEXUS_B) == [0x2A05]
    assert await pr.hears(NEXUS_C) == []


@pytest.mark.parametrize("kind", SINGLE)
async def test_key_0_under_another_type(pr, action, kind):
    await pr.register(NEXUS_A, NEXUS_B)
    await pr.reserve(kind)
    sense = await pr.out(action, NEXUS_B, 0, kind=kind)
    assert (sense.sense_key, sense.asc_ascq, sense.field_pointer, sense.in_parameter_list) == (5, 0x2600, 8, True)
    assert await pr.reservation() == (KEY_A, kind) and await pr.generation() == 2


@pytest.mark.parametrize("kind", [None, *TYPES])
async def test_a_key_that_nobody_has(pr, action, kind):
    await pr.register(NEXUS_A, NEXUS_B)
    if kind is not None:
        await pr.reserve(kind)
    assert await pr.out(action, NEXUS_B, 0x77, kind=WE) is CONFLICT
    assert await pr.keys() == [KEY_A, KEY_B] and await pr.generation() == 2


@pytest.mark.parametrize(("nexus", "key"), [(NEXUS_C, 0), (NEXUS_C, KEY_A), (NEXUS_B, KEY_A), (NEXUS_B, 0)])
async def test_with_the_wrong_key_or_unregistered(pr, action, nexus, key):
    await pr.register(NEXUS_A, NEXUS_B)
    await pr.reserve(WE)
    assert await pr.out(action, nexus, KEY_A, key=key, kind=WE) is CONFLICT
    assert await pr.reservation() == (KEY_A, WE)


@pytest.mark.parametrize(("kind", "scope", "bit"), [(0, 0, 3), (2, 0, 3), (WE, 1, 7)])
async def test_the_holder_with_a_type_or_scope_that_there_is_not(pr, action, kind, scope, bit):
    await pr.register(NEXUS_A, NEXUS_B)
    await pr.reserve(WE_RO)
    sense = await pr.out(action, NEXUS_B, KEY_A, kind=kind, scope=scope)
    assert (sense.asc_ascq, sense.field_pointer, sense.bit_pointer) == (0x2400, 2, bit)
    assert await pr.reservation() == (KEY_A, WE_RO)
