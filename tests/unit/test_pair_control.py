"""The two control planes of a pair against each other, over a wire that breaks where it hurts most.

What must never be: two owners, two values of one epoch, GOOD for what is not decided, a lost acknowledged write (the
invariants I1 to I5). Figures 3 to 5 and 12; ¶29 to ¶48.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from storage_model.errors import CheckCondition, LocalProtocolError
from storage_model.pair import PairRefused
from storage_model.pair_state import PairRole, PairState, PairVerb, Refusal, Side
from storage_model.spec.copy_frames import Answer, Frame, FrameType
from storage_model.volume import Buffer, MediumFailure, NotReady
from target.remote_copy.pair_decision import PairDecision
from target.remote_copy.pair_half import PairHalf
from tests.unit.pair_in_memory import Pair, Site, answers_proposal, is_type, refusal


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    pair = Pair()
    await pair.start()
    yield pair
    await pair.stop()


async def refused_write(site: Site, lba: int = 0) -> bool:
    try:
        return not await site.write(lba, "unwanted")
    except (CheckCondition, NotReady):
        return True


def other(pair: Pair, site: Site) -> Site:
    return pair.b if site is pair.a else pair.a


# ------------------------------------------------------------------------------------------------ one winner


@pytest.mark.parametrize("order", ["ab", "ba"])
@pytest.mark.parametrize("turns", [0, 1, 3, 5, 8, 13, 21])
async def test_of_two_claims_exactly_one_is_good(pair: Pair, order: str, turns: int) -> None:
    await pair.arm()
    sites = {"a": pair.a, "b": pair.b}
    first = asyncio.create_task(refusal(sites[order[0]].claim()))
    for _ in range(turns):
        await asyncio.sleep(0)
    second = asyncio.create_task(refusal(sites[order[1]].claim()))
    ends = await asyncio.gather(first, second)
    assert ends.count(None) == 1
    winner = sites[order[ends.index(None)]]
    await pair.until(PairState.PAIR)
    for site in (pair.a, pair.b):
        assert site.owner == winner.nexus()
        assert (site.half.role is PairRole.P_VOL) is (site is winner)


async def test_only_the_owner_may_write_afterwards(pair: Pair) -> None:
    await pair.arm()
    await pair.b.claim()
    await pair.until(PairState.PAIR)
    assert await pair.b.write(0, "owner")
    assert not await pair.b.write(0, "another nexus", host="other")
    assert not await pair.a.write(0, "the loser")


@pytest.mark.parametrize("claimant", ["a", "b"])
@pytest.mark.parametrize("delivered", [False, True], ids=["PROPOSE lost", "ANSWER lost"])
async def test_claim_in_doubt_has_no_owner_until_it_is_decided_as_voted(
    pair: Pair, claimant: str, delivered: bool
) -> None:
    await pair.arm()
    site = {"a": pair.a, "b": pair.b}[claimant]
    pair.wire.cut_at(answers_proposal(pair.wire) if delivered else is_type(FrameType.PROPOSE), delivered=False)
    assert await refusal(site.claim()) is Refusal.NO_VOTE
    await pair.quiet()
    assert pair.a.half.register.in_doubt  # A leads, and has voted
    # While it is in doubt, nobody is told GOOD, and A lets nobody write: neither the old owner nor the new one.
    assert await refusal(pair.a.claim()) is Refusal.IN_DOUBT
    assert await refusal(pair.b.claim()) in (
        Refusal.PEER_UNREACHABLE,
        Refusal.SUSPENDED_BY_ERROR,
        Refusal.COPYING,
        None,
    )
    assert await refused_write(pair.a)
    await pair.connect()
    for half in (pair.a.half, pair.b.half):
        assert half.record.decided.owned_by(site.serial, site.nexus())
        assert not half.register.in_doubt


@pytest.mark.parametrize("claimant", ["a", "b"])
@pytest.mark.parametrize("delivered", [False, True], ids=["PROPOSE lost", "ANSWER lost"])
async def test_withdrawn_claim_owns_nothing_after_its_doubt_is_resolved(
    pair: Pair, claimant: str, delivered: bool
) -> None:
    """The host was told RESERVATION CONFLICT: what its claim leads to later is given back (116 of Figure 5)."""
    await pair.arm()
    site = {"a": pair.a, "b": pair.b}[claimant]
    pair.wire.cut_at(answers_proposal(pair.wire) if delivered else is_type(FrameType.PROPOSE), delivered=False)
    assert await refusal(site.claim()) is Refusal.NO_VOTE
    await site.control.withdraw(site.nexus())
    await pair.connect()
    for half in (pair.a.half, pair.b.half):
        assert half.record.decided.owner is None
    if pair.a.half.state is PairState.PSUE:
        await pair.recover()
        await pair.a.do(PairVerb.SPLIT)
        await pair.quiet()
    assert await refusal(other(pair, site).claim()) is None


async def test_claims_of_several_hosts_are_withdrawn_apart(pair: Pair) -> None:
    await pair.arm()
    pair.wire.cut_at(is_type(FrameType.PROPOSE), delivered=False)
    assert await refusal(pair.b.claim("one")) is Refusal.NO_VOTE
    await pair.b.control.withdraw(pair.b.nexus("one"))
    assert await refusal(pair.b.claim("two")) is Refusal.PEER_UNREACHABLE
    await pair.b.control.withdraw(pair.b.nexus("two"))
    await pair.connect()
    assert pair.a.owner is None and pair.b.owner is None


async def test_claim_made_anew_is_kept_when_the_earlier_one_was_withdrawn(pair: Pair) -> None:
    await pair.arm()
    pair.wire.cut_at(is_type(FrameType.PROPOSE), delivered=False)
    assert await refusal(pair.b.claim()) is Refusal.NO_VOTE
    await pair.b.control.withdraw(pair.b.nexus())
    await pair.quiet()
    pair.b.disk.running.clear()  # B is slow to save its vote: the claim made anew finds the pair unchanged
    await pair.wire.connect()
    again = asyncio.create_task(refusal(pair.b.claim()))
    await pair.quiet()
    pair.b.disk.running.set()
    end = await again
    await pair.quiet()
    if end is not None:  # then its host is told RESERVATION CONFLICT, and its shim withdraws the claim
        await pair.b.control.withdraw(pair.b.nexus())
        await pair.quiet()
    assert (end is None) == (pair.b.owner == pair.b.nexus())


async def test_release_that_waits_does_not_undo_a_claim_made_since(pair: Pair) -> None:
    """WITHDRAW times out at the shim, the host reserves again and is told GOOD: the old release comes too late."""
    await pair.arm()
    await pair.a.claim()
    await pair.until(PairState.PAIR)
    async with pair.a.half.changing:
        withdrawing = asyncio.create_task(pair.a.control.withdraw(pair.a.nexus()))
        await pair.quiet()
        assert await refusal(pair.a.claim()) is None
    await withdrawing
    await pair.quiet()
    assert pair.a.owner == pair.a.nexus()


async def test_owner_whose_release_is_being_decided_is_not_told_good(pair: Pair) -> None:
    await pair.arm()
    await pair.a.claim()
    await pair.until(PairState.PAIR)
    for disk in (pair.a.disk, pair.b.disk):
        pair.a.half.withdraw(pair.a.nexus())
        await pair.a.half.save_withdrawn()  # so that what waits for the disk is the vote
        disk.running.clear()
        releasing = asyncio.create_task(pair.a.control.released(pair.a.nexus()))
        await pair.quiet()
        assert await refusal(pair.a.claim()) is not None
        disk.running.set()
        await releasing
        await pair.quiet()
        assert pair.a.owner is None
        await pair.a.claim()
        await pair.until(PairState.PAIR)


async def test_owner_whose_release_is_in_doubt_is_not_told_good(pair: Pair) -> None:
    """Else the other site wins as soon as the doubt is resolved, and two hosts believe to be the owner."""
    await pair.arm()
    await pair.a.claim()
    await pair.until(PairState.PAIR)
    pair.wire.cut_at(is_type(FrameType.PROPOSE), delivered=False)
    await pair.a.control.released(pair.a.nexus())
    await pair.quiet()
    assert pair.a.half.register.in_doubt
    assert await refusal(pair.a.claim()) is not None
    await pair.connect()
    assert pair.a.owner is None


async def test_release_without_the_link_is_made_up_for_when_it_is_back(pair: Pair) -> None:
    await pair.arm()
    await pair.a.claim()
    await pair.until(PairState.PAIR)
    pair.wire.cut()
    await pair.quiet()
    await pair.a.control.released(pair.a.nexus())
    assert pair.a.owner == pair.a.nexus()
    await pair.connect()
    assert pair.a.owner is None and pair.b.owner is None


async def test_owner_that_claims_again_after_such_a_release_keeps_it(pair: Pair) -> None:
    await pair.arm()
    await pair.a.claim()
    await pair.until(PairState.PAIR)
    pair.wire.cut()
    await pair.quiet()
    await pair.a.control.released(pair.a.nexus())
    assert await refusal(pair.a.claim()) is None
    await pair.connect()
    assert pair.a.owner == pair.a.nexus()


async def test_without_the_link_the_owner_keeps_it_and_nobody_wins(pair: Pair) -> None:
    await pair.arm()
    await pair.a.claim()
    await pair.until(PairState.PAIR)
    await pair.b.do(PairVerb.SPLIT)
    await pair.quiet()
    pair.wire.cut()
    await pair.quiet()
    assert await refusal(pair.b.claim()) is Refusal.PEER_UNREACHABLE
    assert await refusal(pair.a.claim()) is None
    assert await refusal(pair.a.claim()) is None
    assert await refusal(pair.a.claim("other")) is Refusal.IN_DOUBT
    assert await pair.a.write(3, "still the owner")
    await pair.connect()
    assert await refusal(pair.b.claim()) is not None
    await pair.until(PairState.PAIR)
    assert pair.b.owner == pair.a.nexus()
    assert await pair.b.medium(3) == "still the owner"


async def test_release_of_an_owner_kept_in_doubt_is_made_up_for(pair: Pair) -> None:
    await pair.arm()
    await pair.a.claim()
    await pair.until(PairState.PAIR)
    await pair.a.do(PairVerb.SPLIT)
    await pair.quiet()
    pair.wire.cut()
    await pair.quiet()
    assert await refusal(pair.a.claim()) is None  # voted for, in doubt, in its own favour
    await pair.a.control.released(pair.a.nexus())
    await pair.connect()
    assert pair.a.owner is None and pair.b.owner is None


async def test_withdrawn_while_it_waits_a_claim_is_not_decided(pair: Pair) -> None:
    await pair.arm()
    async with pair.a.half.changing:
        claiming = asyncio.create_task(refusal(pair.b.claim()))
        await pair.quiet()
        pair.b.impatient.set()
        assert await claiming is Refusal.NO_VOTE
        await pair.b.control.withdraw(pair.b.nexus())
        pair.a.impatient.set()
        await pair.quiet()
    await pair.quiet()
    assert pair.a.half.state is PairState.PSUS and not pair.a.half.register.in_doubt


async def test_forwarded_claim_that_ran_out_of_time_is_released_when_decided(pair: Pair) -> None:
    await pair.arm()
    pair.a.disk.running.clear()
    claiming = asyncio.create_task(refusal(pair.b.claim()))
    await pair.quiet()
    pair.b.impatient.set()
    assert await claiming is Refusal.NO_VOTE
    await pair.b.control.withdraw(pair.b.nexus())
    pair.b.impatient.clear()
    pair.a.disk.running.set()
    await pair.quiet()
    assert pair.a.owner is None and pair.b.owner is None
    assert pair.a.half.record.decided.epoch == pair.b.half.record.decided.epoch


@pytest.mark.parametrize("slow", ["a", "b"])
async def test_waiting_requests_are_given_up_but_a_vote_is_not(pair: Pair, slow: str) -> None:
    await pair.arm()
    disk = {"a": pair.a.disk, "b": pair.b.disk}[slow]
    disk.running.clear()
    voting = asyncio.create_task(refusal(pair.a.claim()))
    await pair.quiet()
    waiting = asyncio.create_task(refusal(pair.a.claim("other")))
    await pair.quiet()
    pair.a.impatient.set()
    assert await waiting is Refusal.NO_VOTE
    assert await voting is Refusal.NO_VOTE
    disk.running.set()
    await pair.until(PairState.PAIR)
    assert pair.a.owner == pair.b.owner == pair.a.nexus()


async def test_a_claim_is_at_the_p_vols_array(pair: Pair) -> None:
    """RESYNC with the good side named is normal at an S-VOL, but would make an owner who may not write."""
    await pair.arm()
    command = pair.b.do(PairVerb.RECOVER, claim=pair.b.nexus(), good_side=Side.P_VOL)
    assert await refusal(command) is Refusal.IS_S_VOL


# -------------------------------------------------------------------------------------------------- crashes


@pytest.mark.parametrize("claimant", ["a", "b"])
async def test_vote_survives_the_leaders_crash_and_nobody_owns_what_nobody_was_told(pair: Pair, claimant: str) -> None:
    await pair.arm()
    site = {"a": pair.a, "b": pair.b}[claimant]
    pair.wire.cut_at(is_type(FrameType.PROPOSE), delivered=False)
    epoch = pair.a.half.record.decided.epoch
    assert await refusal(site.claim()) is Refusal.NO_VOTE
    await pair.a.crash()
    await pair.b.crash()
    await pair.a.start()
    await pair.b.start()
    assert pair.a.half.register.in_doubt
    await pair.connect()
    assert pair.a.half.record.decided.epoch > epoch
    values = {record.decided.epoch: record.decided for record in pair.b.disk.records}
    assert values[epoch + 1].owned_by(site.serial, site.nexus())
    if claimant == "a":  # A knows after its restart that its claim in doubt ended with the session
        assert pair.a.owner is None


@pytest.mark.parametrize("crashed", ["a", "b"])
@pytest.mark.parametrize("turns", range(0, 40, 2))
async def test_crash_at_any_moment_of_a_claim(pair: Pair, crashed: str, turns: int) -> None:
    await pair.arm()
    assert await pair.a.write(5, "acknowledged")
    claiming = asyncio.create_task(refusal(pair.b.claim()))
    for _ in range(turns):
        await asyncio.sleep(0)
    site = {"a": pair.a, "b": pair.b}[crashed]
    epoch = pair.b.half.record.decided.epoch
    told_good = claiming.done() and claiming.result() is None
    await site.crash()
    claiming.cancel()
    await asyncio.gather(claiming, return_exceptions=True)
    await site.start()
    await pair.connect()
    a, b = pair.a.half, pair.b.half
    assert a.record.decided == b.record.decided
    assert not a.register.in_doubt and not b.register.in_doubt
    assert b.record.decided.epoch >= epoch
    if told_good:
        assert pair.b.owner == pair.b.nexus()
    if a.state is PairState.PSUE:
        await pair.recover()
    await pair.quiet()
    assert await pair.p_vol.read(5) == "acknowledged"


async def test_refused_vote_is_no_vote(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    await pair.arm()

    async def refuse(self: PairDecision, frame: Frame) -> Frame:
        return Frame(FrameType.ANSWER, flags=Answer.REFUSED)

    with monkeypatch.context() as patch:
        patch.setattr(PairDecision, "give_vote", refuse)
        assert await refusal(pair.a.claim()) is Refusal.NO_VOTE
        assert pair.a.half.register.in_doubt and pair.a.owner is None
        assert await refusal(pair.a.claim("other")) is Refusal.IN_DOUBT


async def test_vote_is_durable_before_it_is_told(pair: Pair) -> None:
    await pair.arm()
    pair.a.disk.running.clear()
    claiming = asyncio.create_task(refusal(pair.a.claim()))
    before = len(pair.wire.carried)
    await pair.quiet()
    assert len(pair.wire.carried) == before  # A has not saved: B has heard nothing
    pair.b.disk.running.clear()
    pair.a.disk.running.set()
    await pair.quiet()
    assert [frame.type for frame in pair.wire.carried[before:]] == [FrameType.PROPOSE]  # B has not saved: no ANSWER
    assert not claiming.done()
    pair.b.disk.running.set()
    assert await claiming is None


async def test_second_vote_while_one_is_out_does_not_reach_the_medium(pair: Pair) -> None:
    await pair.arm()
    pair.wire.cut_at(is_type(FrameType.PROPOSE), delivered=False)
    assert await refusal(pair.a.do(PairVerb.RESYNC)) is Refusal.NO_VOTE
    first = pair.a.disk.record.accepted
    assert first is not None
    with pytest.raises(LocalProtocolError):
        await pair.a.control.decision.vote_durably(replace(first, state=PairState.SMPL))
    assert pair.a.disk.record.accepted == first
    assert pair.a.control.decision.voting is None and not pair.a.control.decision.coming


@pytest.mark.parametrize("failing", ["a", "b"])
async def test_vote_that_cannot_be_saved_is_not_given(pair: Pair, failing: str) -> None:
    await pair.arm()
    disk = {"a": pair.a.disk, "b": pair.b.disk}[failing]
    disk.fails = MediumFailure("full")
    with pytest.raises((MediumFailure, PairRefused)):
        await asyncio.wait_for(pair.a.claim(), 5)
    await pair.quiet()
    disk.fails = None
    pair.wire.errors.clear()
    for site in (pair.a, pair.b):
        assert site.half.record.decided == site.half.register.decided
        assert site.owner is None
    pair.wire.cut()
    await pair.quiet()
    await pair.connect()
    assert pair.a.half.record.decided == pair.b.half.record.decided
    assert await refusal(pair.a.claim()) is None


async def test_decision_that_cannot_be_saved_stays_in_doubt(pair: Pair) -> None:
    """The register must not run ahead of the record: the epoch would never be entered."""
    await pair.arm()
    pair.b.disk.running.clear()
    claiming = asyncio.create_task(pair.a.claim())
    await pair.quiet()
    pair.a.disk.fails = MediumFailure("full")
    pair.b.disk.running.set()
    with pytest.raises(MediumFailure):
        await asyncio.wait_for(claiming, 5)
    pair.a.disk.fails = None
    assert pair.a.half.register.in_doubt
    pair.wire.cut()
    await pair.quiet()
    await pair.connect()
    assert pair.a.owner == pair.b.owner == pair.a.nexus()


@pytest.mark.parametrize("winner", ["a", "b"])
async def test_suspension_that_is_not_yet_durable_when_the_link_is_back_is_told(pair: Pair, winner: str) -> None:
    """Found by the explorer: the link breaks while the voter saves the decision, and is back before it has saved that
    the pair is suspended. As the S-VOL's array it followed into PAIR in words alone, as the new P-VOL's it had said
    COPY: the other array went on showing PAIR, or COPY, beside PSUE.
    """
    await pair.arm()
    b = pair.b
    b.disk.running.clear()
    claim = asyncio.create_task(refusal((pair.a if winner == "a" else b).claim()))
    await pair.quiet()
    pair.wire.cut()
    await pair.quiet()
    b.disk.running.set()
    epoch = pair.a.half.record.decided.epoch
    for _ in range(20):
        if b.disk.record.decided.epoch > epoch:
            break
        await asyncio.sleep(0)
    b.disk.running.clear()
    await pair.connect()
    assert b.half.state is PairState.COPY, "suspended, but that is not durable yet"
    b.disk.running.set()
    await claim
    await pair.until(PairState.PSUE)


async def test_withdrawal_that_had_to_wait_too_long_takes_effect_later(pair: Pair) -> None:
    """Found by the explorer: WITHDRAW ends with GOOD in any case, so the release must not be given up with it."""
    await pair.arm()
    await pair.a.claim()
    await pair.until(PairState.PAIR)
    async with pair.a.half.changing:
        withdrawal = asyncio.create_task(pair.a.control.withdraw(pair.a.nexus()))
        await pair.quiet()
        pair.a.impatient.set()
        await withdrawal
        pair.a.impatient.clear()
        assert pair.a.owner == pair.a.nexus()
    await pair.until(PairState.PSUS)
    assert pair.a.owner is pair.b.owner is None


async def test_withdrawal_survives_a_fault_that_comes_first(pair: Pair) -> None:
    """The flush before the release finds that the other half was suspended: the release is then one in PSUE."""
    await pair.arm()
    await pair.a.claim()
    await pair.until(PairState.PAIR)
    await pair.b.half.suspend("a fault")
    await pair.a.control.withdraw(pair.a.nexus())
    await pair.until(PairState.PSUE)
    assert pair.a.owner is pair.b.owner is None


async def test_doubt_left_by_a_failed_medium_ends_with_the_next_request(pair: Pair) -> None:
    """The link was never down, so that no reconnection would have the vote asked for again (simulated seed 13)."""
    await pair.arm()
    pair.b.disk.running.clear()
    resyncing = asyncio.create_task(pair.a.do(PairVerb.RESYNC))
    await pair.quiet()
    pair.a.disk.fails = MediumFailure("full")
    pair.b.disk.running.set()
    with pytest.raises(MediumFailure):
        await asyncio.wait_for(resyncing, 5)
    pair.a.disk.fails = None
    assert pair.a.half.register.in_doubt and pair.b.half.state is PairState.COPY
    assert await refusal(pair.a.do(PairVerb.RESYNC)) is Refusal.COPYING
    await pair.until(PairState.PAIR)


async def test_copy_that_breaks_off_while_nothing_can_be_saved_suspends_the_pair(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left in COPY with nobody copying, the pair would take no resync until a restart (simulated seed 314)."""
    await pair.arm()
    assert await pair.a.write(5, "only at A")

    async def fail(offset_bytes: int, data: Buffer, *, fua: bool = False) -> None:
        pair.b.disk.fails = MediumFailure("full")
        raise MediumFailure("full")

    with monkeypatch.context() as patch:
        patch.setattr(pair.b.disk.volume, "write", fail)
        assert await refusal(pair.b.claim()) is None
        await pair.quiet()
    assert pair.b.half.state is PairState.PSUE
    pair.b.disk.fails = None
    await pair.recover()
    assert await pair.b.read(5) == "only at A"


async def test_copy_whose_end_cannot_be_saved_suspends_the_pair(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the one before (simulated seed 1797)."""

    async def fail(self: PairHalf, epoch: int) -> bool:
        raise MediumFailure("full")

    with monkeypatch.context() as patch:
        patch.setattr(PairHalf, "save_mirroring", fail)
        assert await refusal(pair.a.do(PairVerb.CREATE)) is None
        await pair.quiet()
    assert pair.a.half.state is PairState.PSUE
    await pair.recover()


async def test_read_while_the_p_vol_may_have_moved(pair: Pair) -> None:
    """B, whose own writes are good, is the P-VOL and goes on alone; A has not heard of it (simulated seed 30304)."""
    await pair.mirror()
    await pair.a.do(PairVerb.SPLIT, s_vol_writable=True)
    await pair.until(PairState.PSUS)
    assert await pair.b.write(5, "at B")
    pair.wire.cut_at(answers_proposal(pair.wire), delivered=False)
    assert await refusal(pair.b.do(PairVerb.SWAP_RESYNC)) is Refusal.NO_VOTE
    await pair.quiet()
    assert await pair.b.read(5) == "at B"
    with pytest.raises(NotReady):
        await pair.a.read(5)
    await pair.connect()
    await pair.recover()
    assert await pair.b.read(5) == "at B"


async def test_read_while_a_moved_p_vol_is_being_recorded(pair: Pair) -> None:
    """A has heard that B is the P-VOL, and has yet to save it: A's reads wait (simulated seed 30304)."""
    await pair.mirror()
    await pair.a.do(PairVerb.SPLIT, s_vol_writable=True)
    await pair.until(PairState.PSUS)
    assert await pair.b.write(5, "at B")
    swapping = asyncio.create_task(pair.b.do(PairVerb.SWAP_RESYNC))
    await pair.proposed()
    pair.b.disk.running.clear()
    await pair.quiet()
    pair.a.disk.running.clear()
    pair.b.disk.running.set()
    await pair.quiet()
    assert pair.b.half.role is PairRole.P_VOL and not pair.a.half.register.in_doubt
    reading = asyncio.create_task(pair.a.read(5))
    await pair.quiet()
    assert not reading.done()
    pair.a.disk.running.set()
    with pytest.raises(CheckCondition):
        await reading
    await swapping
