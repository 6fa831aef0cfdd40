"""APTPL (SPC-4 5.13.5, 6.16.3): what is kept, when, and that it is durable before GOOD."""

import asyncio

import pytest

from storage_model.persistent_reservation import PersistentReservation
from storage_model.spec.scsi_sense import SenseData
from storage_model.volume import MediumFailure
from tests.conformance.scsi.bench import NEXUS_A, NEXUS_B, make_bench
from tests.conformance.scsi.persistent_reserve import (
    CLEAR,
    GOOD,
    KEY_A,
    KEY_B,
    NEXUS_C,
    REGISTER,
    REGISTER_AND_IGNORE,
    RELEASE,
    RESERVE,
    WE,
    WE_RO,
    Reservations,
)


class Store:
    """Keeps what it is given; saves wait for ``let_go``."""

    def __init__(self) -> None:
        self.kept: PersistentReservation | None = None
        self.saves = 0
        self.fails = False
        self.let_go = asyncio.Event()
        self.let_go.set()

    async def save(self, reservation: PersistentReservation | None) -> None:
        await self.let_go.wait()
        if self.fails:
            raise MediumFailure("the disk is full")
        self.saves += 1
        self.kept = reservation


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def pr(store):
    return Reservations(make_bench(reservation_store=store))


@pytest.mark.parametrize("action", [REGISTER, REGISTER_AND_IGNORE])
async def test_registrations_and_reservation_are_kept(pr, store, action):
    assert await pr.out(action, NEXUS_A, KEY_A, aptpl=True) is GOOD
    await pr.reserve(WE)
    assert store.kept is not None
    assert list(store.kept.registrations) == [NEXUS_A] and store.kept.holder == NEXUS_A
    assert (await pr.read(2)).hex(" ") == "00 08 1d c1 ea 01 00 00"  # PTPL_C, PTPL_A


async def test_without_aptpl_nothing_is_kept(pr, store):
    await pr.register(NEXUS_A)
    await pr.reserve(WE)
    assert store.saves == 0
    assert (await pr.read(2)).hex(" ") == "00 08 1d c0 ea 01 00 00"


async def test_the_last_one_to_register_decides(pr, store):
    """SPC-4 6.16.3: the last valid APTPL bit value received; the other service actions' bits are ignored."""
    await pr.out(REGISTER, NEXUS_A, KEY_A, aptpl=True)
    await pr.out(RESERVE, NEXUS_A, kind=WE)
    assert store.kept is not None
    await pr.out(REGISTER, NEXUS_B, KEY_B, aptpl=False)
    assert store.kept is None
    await pr.out(RELEASE, NEXUS_A, kind=WE, aptpl=True)
    assert store.kept is None
    await pr.reserve(WE)
    assert await pr.move(NEXUS_A, NEXUS_C, aptpl=True) is GOOD
    assert store.kept is not None and store.kept.holder == NEXUS_C


async def test_current_and_future_registrations(pr, store):
    await pr.register(NEXUS_A)
    await pr.out(REGISTER, NEXUS_B, KEY_B, aptpl=True)
    assert list(store.kept.registrations) == [NEXUS_A, NEXUS_B]
    await pr.out(CLEAR, NEXUS_A)
    assert store.kept is not None and not store.kept.registrations


async def test_durable_before_good_and_before_it_counts(pr, store):
    await pr.out(REGISTER, NEXUS_A, KEY_A, aptpl=True)
    store.let_go.clear()
    answer = asyncio.create_task(pr.out(RESERVE, NEXUS_A, kind=WE))
    await asyncio.sleep(0)
    assert not answer.done() and not pr.bench.lu.reservation.held
    store.let_go.set()
    assert await answer is GOOD and pr.bench.lu.reservation.held


async def test_what_cannot_be_kept_is_not_done(pr, store):
    await pr.out(REGISTER, NEXUS_A, KEY_A, aptpl=True)
    store.fails = True
    sense = await pr.out(RESERVE, NEXUS_A, kind=WE)
    assert (sense.sense_key, sense.asc_ascq) == (4, 0x4400)
    assert await pr.reservation() is None and not pr.bench.lu.reservation.held
    sense = await pr.out(REGISTER, NEXUS_B, KEY_B, aptpl=True)
    assert sense.sense_key == 4 and await pr.keys() == [KEY_A] and await pr.generation() == 1
    store.fails = False
    await pr.reserve(WE)


async def test_a_repeated_reserve_writes_nothing(pr, store):
    await pr.out(REGISTER, NEXUS_A, KEY_A, aptpl=True)
    await pr.reserve(WE_RO)
    saves = store.saves
    await pr.reserve(WE_RO)
    assert store.saves == saves


async def test_array_that_keeps_nothing_says_so(bench):
    """SPC-4 6.16.3, 6.16.4: INVALID FIELD IN PARAMETER LIST; PTPL_C is 0."""
    pr = Reservations(bench)
    sense = await pr.refused(REGISTER, NEXUS_A, KEY_A, aptpl=True)
    assert (sense.sense_key, sense.asc_ascq, sense.field_pointer) == (5, 0x2600, 20)
    assert await pr.keys() == []
    await pr.register(NEXUS_A)
    await pr.reserve(WE)
    answer = await pr.move(NEXUS_A, NEXUS_B, aptpl=True)
    assert isinstance(answer, SenseData)
    assert (answer.sense_key, answer.asc_ascq, answer.field_pointer) == (5, 0x2600, 17)
    assert await pr.reservation() == (KEY_A, WE)
