"""No pair of a volume that is being sanitized or formatted: neither its own array nor the other one makes it."""

import asyncio
from collections.abc import AsyncIterator
from itertools import chain, repeat

import pytest

from storage_model.pair_state import PairRole, PairState, PairVerb, Refusal
from storage_model.spec.copy_frames import FrameType
from tests.unit.pair_in_memory import Pair, is_type, refusal


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    pair = Pair()
    await pair.start()
    yield pair
    await pair.stop()


@pytest.mark.parametrize("asked", ["a", "b"])
@pytest.mark.parametrize("busy", ["a", "b"])
async def test_a_pair_is_not_made_of_it(pair: Pair, asked: str, busy: str) -> None:
    """Nobody has voted, so that nothing is in doubt; once the volume is free, the pair can be made."""
    sites = {"a": pair.a, "b": pair.b}
    sites[busy].half.busy = lambda: True
    assert await refusal(sites[asked].do(PairVerb.CREATE)) is Refusal.BUSY
    for site in sites.values():
        assert site.half.role is PairRole.SMPL and not site.half.register.in_doubt
        assert site.disk.records == []
    sites[busy].half.busy = lambda: False
    assert await refusal(sites[asked].do(PairVerb.CREATE)) is None
    await pair.until(PairState.PAIR)


async def test_a_volume_that_gets_busy_after_it_was_asked_gives_no_vote(pair: Pair) -> None:
    """The leader's vote stands, as always; it is decided when the link is opened anew and the volume is free."""
    answers = chain([False], repeat(True))
    pair.b.half.busy = lambda: next(answers)
    assert await refusal(pair.a.do(PairVerb.CREATE)) is Refusal.NO_VOTE
    assert pair.b.half.role is PairRole.SMPL and pair.b.disk.records == []
    assert pair.a.half.register.in_doubt
    pair.wire.cut()
    await pair.connect()
    assert pair.b.half.role is PairRole.SMPL
    pair.b.half.busy = lambda: False
    pair.wire.cut()
    await pair.connect()
    await pair.until(PairState.PAIR)


async def test_a_volume_that_gets_busy_before_its_own_vote(pair: Pair) -> None:
    answers = chain([False], repeat(True))
    pair.a.half.busy = lambda: next(answers)
    assert await refusal(pair.a.do(PairVerb.CREATE)) is Refusal.BUSY
    assert not pair.a.half.register.in_doubt and pair.a.disk.records == []


async def test_the_link_breaks_at_the_question(pair: Pair) -> None:
    pair.wire.cut_at(is_type(FrameType.READY), delivered=False)
    assert await refusal(pair.a.do(PairVerb.CREATE)) is Refusal.PEER_UNREACHABLE
    assert not pair.a.half.register.in_doubt


@pytest.mark.parametrize("slow", ["a", "b"])
async def test_from_its_vote_on_a_half_says_that_it_is_about_to_change(pair: Pair, slow: str) -> None:
    """What must not begin at a half of a pair must not begin then either."""
    site = {"a": pair.a, "b": pair.b}[slow]
    assert not site.control.about_to_change
    site.disk.running.clear()
    creating = asyncio.create_task(pair.a.do(PairVerb.CREATE))
    await pair.quiet()
    assert site.half.role is PairRole.SMPL and site.control.about_to_change
    site.disk.running.set()
    await creating
    await pair.until(PairState.PAIR)
    assert not site.control.about_to_change


@pytest.mark.parametrize("verb", [PairVerb.DELETE, PairVerb.SPLIT])
async def test_what_ends_mirroring_is_not_refused(pair: Pair, verb: PairVerb) -> None:
    await pair.mirror()
    pair.a.half.busy = pair.b.half.busy = lambda: True
    assert await refusal(pair.a.do(verb)) is None


@pytest.mark.parametrize("busy", ["a", "b"])
async def test_a_half_that_is_busy_does_not_swap(pair: Pair, busy: str) -> None:
    """A failed format that an older program has left on a half."""
    await pair.arm()
    {"a": pair.a, "b": pair.b}[busy].half.busy = lambda: True
    assert await refusal(pair.b.claim()) is (Refusal.BUSY if busy == "a" else Refusal.NO_VOTE)
    assert pair.a.half.role is PairRole.P_VOL and pair.a.half.state is PairState.PSUS
