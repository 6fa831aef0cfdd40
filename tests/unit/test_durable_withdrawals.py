"""A nexus that was refused, or has released, does not come back as the owner: not after a crash of its array either.

116 of Figure 5: whoever is told RESERVATION CONFLICT owns nothing, whatever becomes of its claim.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest

from storage_model.nexus import ITNexus
from storage_model.pair_state import PairState, PairVerb, Refusal
from storage_model.spec.copy_frames import FrameType
from storage_model.volume import MediumFailure
from target.remote_copy.pair_half import WITHDRAWN_LIMIT
from tests.unit.pair_in_memory import Pair, Site, answers_proposal, is_type, refusal


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    pair = Pair()
    await pair.start()
    yield pair
    await pair.stop()


async def restart(site: Site) -> None:
    await site.crash()
    await site.start()


async def split(pair: Pair) -> None:
    await pair.a.do(PairVerb.SPLIT)
    await pair.quiet()


@pytest.mark.parametrize("claimant", ["a", "b"])
@pytest.mark.parametrize("delivered", [False, True], ids=["PROPOSE lost", "ANSWER lost"])
async def test_refused_claim_in_doubt_owns_nothing_after_a_crash(pair: Pair, claimant: str, delivered: bool) -> None:
    await pair.arm()
    site = {"a": pair.a, "b": pair.b}[claimant]
    pair.wire.cut_at(answers_proposal(pair.wire) if delivered else is_type(FrameType.PROPOSE), delivered=False)
    assert await refusal(site.claim()) is Refusal.NO_VOTE
    await site.control.withdraw(site.nexus())
    await restart(site)
    await pair.connect()
    assert pair.a.owner is None and pair.b.owner is None


async def owner_without_the_link(pair: Pair) -> None:
    await pair.arm()
    await pair.a.claim()
    await pair.until(PairState.PAIR)
    pair.wire.cut()
    await pair.until(PairState.PSUE)


async def test_release_without_the_link_is_made_up_for_after_a_crash(pair: Pair) -> None:
    await owner_without_the_link(pair)
    await pair.a.control.released(pair.a.nexus())
    await restart(pair.a)
    assert pair.a.owner == pair.a.nexus()
    await pair.connect()
    assert pair.a.owner is None and pair.b.owner is None


@pytest.mark.parametrize("in_doubt", [False, True])
async def test_owner_that_was_told_good_since_keeps_it_after_a_crash(pair: Pair, in_doubt: bool) -> None:
    await owner_without_the_link(pair)
    if in_doubt:
        await pair.connect()
        await pair.recover()
        await split(pair)
        pair.wire.cut()
        await pair.quiet()
        assert await refusal(pair.a.claim()) is None  # voted for, in its own favour
    await pair.a.control.released(pair.a.nexus())
    assert await refusal(pair.a.claim()) is None
    await restart(pair.a)
    await pair.connect()
    assert pair.a.owner == pair.b.owner == pair.a.nexus()


async def test_claim_is_not_told_good_before_a_restart_would_know_it(pair: Pair) -> None:
    await owner_without_the_link(pair)
    await pair.a.control.released(pair.a.nexus())
    pair.a.disk.running.clear()
    claiming = asyncio.create_task(refusal(pair.a.claim()))
    await pair.quiet()
    assert not claiming.done()
    pair.a.disk.running.set()
    assert await claiming is None
    assert pair.a.disk.record.withdrawn == ()


async def test_claim_counts_that_comes_while_a_withdrawal_is_being_saved(pair: Pair) -> None:
    await owner_without_the_link(pair)
    pair.a.disk.running.clear()
    releasing = asyncio.create_task(pair.a.control.released(pair.a.nexus()))
    await pair.quiet()
    claiming = asyncio.create_task(refusal(pair.a.claim()))
    await pair.quiet()
    assert not claiming.done()
    pair.a.disk.running.set()
    assert await claiming is None
    await releasing
    await restart(pair.a)
    await pair.connect()
    assert pair.a.owner == pair.b.owner == pair.a.nexus()


async def test_withdrawal_is_durable_before_it_is_confirmed(pair: Pair) -> None:
    await pair.arm()
    pair.b.disk.running.clear()
    withdrawing = asyncio.create_task(pair.b.control.withdraw(pair.b.nexus()))
    await pair.quiet()
    assert not withdrawing.done()
    pair.b.disk.running.set()
    await withdrawing
    assert pair.b.disk.record.withdrawn == (pair.b.nexus(),)
    saved = len(pair.b.disk.records)
    await pair.b.control.withdraw(pair.b.nexus())
    assert len(pair.b.disk.records) == saved, "it is known already"


async def test_withdrawal_that_cannot_be_saved_holds_in_memory(pair: Pair) -> None:
    await pair.arm()
    pair.wire.cut_at(is_type(FrameType.PROPOSE), delivered=False)
    assert await refusal(pair.b.claim()) is Refusal.NO_VOTE
    pair.b.disk.fails = MediumFailure("full")
    await pair.b.control.withdraw(pair.b.nexus())
    pair.b.disk.fails = None
    await pair.connect()
    assert pair.a.owner is None and pair.b.owner is None


async def test_oldest_withdrawal_is_forgotten_first(pair: Pair) -> None:
    nexuses = [ITNexus(f"iqn.2026-11.org.pairvol:{number}", bytes(6)) for number in range(WITHDRAWN_LIMIT + 1)]
    for nexus in nexuses:
        await pair.a.control.withdraw(nexus)
    await restart(pair.a)
    assert pair.a.half.record.withdrawn == tuple(pair.a.half.withdrawn) == tuple(nexuses[1:])
