"""The two control planes of a pair against each other, over a wire that breaks where it hurts most.

What must never be: two owners, two values of one epoch, GOOD for what is not decided, a lost acknowledged write (the
invariants I1 to I5). Figures 3 to 5 and 12; ¶29 to ¶48.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable

import pytest

from storage_model.errors import CheckCondition
from storage_model.pair import PairRefused, PairRequest
from storage_model.pair_state import FenceLevel, PairRole, PairState, PairVerb, Refusal, Side
from storage_model.spec.copy_frames import Frame, FrameType
from storage_model.volume import MediumFailure, NotReady, ReplicationRefused
from tests.unit.pair_in_memory import Pair, Site, answers_proposal, is_type

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    pair = Pair()
    await pair.start()
    yield pair
    await pair.stop()


async def refusal(command: Awaitable[int]) -> Refusal | None:
    """None: the command ended normally."""
    try:
        await asyncio.wait_for(command, 5)
    except PairRefused as refused:
        return refused.refusal
    return None


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


# ---------------------------------------------------------------------------------------------------- writes


@pytest.mark.parametrize("direction", ["swap", "resync"])
@pytest.mark.parametrize("cut_after", range(12))
async def test_link_lost_anywhere_in_a_resync_loses_no_acknowledged_write(
    pair: Pair, direction: str, cut_after: int
) -> None:
    await pair.mirror()
    assert await pair.a.write(1, "mirrored")
    await pair.a.do(PairVerb.SPLIT)
    await pair.quiet()
    for lba in (2, 200, 400):
        assert await pair.a.write(lba, f"suspended {lba}")
    frames = iter(range(cut_after))
    pair.wire.cut_at(lambda frame: next(frames, None) is None, delivered=bool(cut_after % 2))
    await refusal(pair.b.claim() if direction == "swap" else pair.a.claim())
    await pair.quiet()
    for site in (pair.a, pair.b):  # whoever may write meanwhile: what is acknowledged counts
        try:
            if await site.write(201, f"meanwhile at {site.name}"):
                assert await site.read(201) == f"meanwhile at {site.name}"
                latest = f"meanwhile at {site.name}"
        except (CheckCondition, NotReady):
            pass
    await pair.quiet()
    await pair.connect()
    if pair.p_vol.half.state is PairState.PSUE:
        await pair.recover()
    await pair.quiet()
    p_vol = pair.p_vol
    assert await p_vol.read(1) == "mirrored"
    for lba in (2, 200, 400):
        assert await p_vol.read(lba) == f"suspended {lba}"
    if "latest" in locals():
        assert await p_vol.read(201) == latest
    if p_vol.half.state is PairState.PAIR:
        for lba in (1, 2, 200, 201, 400):
            assert await pair.a.medium(lba) == await pair.b.medium(lba)


async def test_new_owner_never_reads_stale_data(pair: Pair) -> None:
    await pair.arm()
    await pair.a.write(7, "acknowledged by A")
    pair.a.disk.volume.hold.clear()
    await pair.b.claim()
    assert await pair.b.read(7) == "acknowledged by A"


@pytest.mark.parametrize("released", [False, True])
async def test_unfinished_copy_is_neither_read_nor_written_nor_forgotten(pair: Pair, released: bool) -> None:
    """A swap's copy breaks off: only the new S-VOL has the region. A RELEASE in PSUE must not hide that."""
    await pair.arm()
    await pair.a.write(7, "acknowledged by A")
    pair.wire.cut_at(lambda frame: frame.type is FrameType.READ, delivered=False)
    await pair.b.claim()
    await pair.quiet()
    await pair.connect()
    assert pair.b.half.role is PairRole.P_VOL and pair.b.half.state is PairState.PSUE
    if released:
        await pair.b.control.released(pair.b.nexus())
        await pair.quiet()
        assert pair.b.owner is None and pair.a.owner is None
    with pytest.raises(NotReady):
        await pair.b.read(7)
    with pytest.raises(NotReady):
        await pair.b.write(7, "over it")
    assert await refusal(pair.b.do(PairVerb.RECOVER, good_side=Side.P_VOL)) is Refusal.SUSPENDED_BY_ERROR
    assert await refusal(pair.b.do(PairVerb.RECOVER, good_side=Side.S_VOL)) is None
    assert await pair.b.read(7) == "acknowledged by A"


async def test_after_a_finished_swap_the_p_vol_writes_alone_by_fence_level_never(pair: Pair) -> None:
    """It has everything: the loss of the link is an ordinary PSUE, also after a restart."""
    await pair.arm()
    await pair.a.write(7, "by A")
    await pair.b.claim()
    await pair.until(PairState.PAIR)
    pair.wire.cut()
    await pair.quiet()
    assert await pair.b.write(7, "by B, alone")
    await pair.b.crash()
    await pair.b.start()
    assert await pair.b.read(7) == "by B, alone"
    assert await pair.b.write(8, "after the restart")
    await pair.connect()
    await pair.recover()
    assert await pair.a.medium(7) == "by B, alone"
    assert await pair.a.medium(8) == "after the restart"


async def test_write_frozen_while_the_roles_move_is_refused(pair: Pair) -> None:
    await pair.arm()
    pair.a.disk.running.clear()
    claiming = asyncio.create_task(refusal(pair.b.claim()))
    await pair.quiet()
    frozen = asyncio.create_task(pair.a.write(0, "too late"))
    await pair.quiet()
    assert not frozen.done()
    pair.a.disk.running.set()
    assert await claiming is None
    with pytest.raises(CheckCondition):
        await frozen
    assert await pair.a.medium(0) == await pair.b.medium(0) == ""


async def test_write_frozen_while_another_host_of_the_site_wins_is_aborted(pair: Pair) -> None:
    await pair.arm()
    await pair.a.claim("one")
    await pair.until(PairState.PAIR)
    await pair.a.do(PairVerb.SPLIT)
    await pair.quiet()
    pair.a.disk.running.clear()
    claiming = asyncio.create_task(refusal(pair.a.claim("two")))
    await pair.quiet()
    frozen = asyncio.create_task(pair.a.write(0, "too late", host="one"))
    await pair.quiet()
    pair.a.disk.running.set()
    assert await claiming is None
    with pytest.raises(CheckCondition) as error:
        await frozen
    assert error.value.sense_key == 0xB
    assert await pair.a.medium(0) == ""


async def test_write_frozen_by_a_change_that_fails_goes_on(pair: Pair) -> None:
    await pair.mirror()
    pair.wire.cut_at(is_type(FrameType.PROPOSE), delivered=False)
    pair.a.disk.running.clear()
    splitting = asyncio.create_task(refusal(pair.a.do(PairVerb.SPLIT)))
    await pair.quiet()
    frozen = asyncio.create_task(pair.a.write(0, "waited"))
    await pair.quiet()
    assert not frozen.done()
    pair.a.disk.running.set()
    assert await splitting is Refusal.NO_VOTE
    assert await frozen
    await pair.connect()
    assert (pair.a.half.state, pair.b.half.state) == (PairState.PSUS, PairState.PSUS)
    assert await refusal(pair.b.claim()) is None
    await pair.quiet()
    assert await pair.b.read(0) == "waited"


async def test_writes_under_way_end_before_the_vote(pair: Pair) -> None:
    await pair.mirror()
    pair.b.disk.volume.hold.clear()
    writing = asyncio.create_task(pair.a.write(0, "under way"))
    await pair.quiet()
    splitting = asyncio.create_task(refusal(pair.a.do(PairVerb.SPLIT)))
    before = len(pair.wire.carried)
    await pair.quiet()
    assert len(pair.wire.carried) == before
    pair.b.disk.volume.hold.set()
    assert await writing and await splitting is None
    assert await pair.b.medium(0) == "under way"


async def test_write_of_a_lost_connection_does_not_land_in_a_later_epoch(pair: Pair) -> None:
    """B's medium is slow; the link breaks and comes back, B becomes the P-VOL. The old write must not come on top."""
    await pair.mirror()
    pair.b.disk.volume.hold.clear()
    pair.b.disk.volume.writing.clear()
    writing = asyncio.create_task(pair.a.write(0, "old, never acknowledged"))
    await asyncio.wait_for(pair.b.disk.volume.writing.wait(), 5)
    pair.wire.cut()
    assert await writing  # fence level never: A has it, alone
    await pair.connect()
    swapping = asyncio.create_task(refusal(pair.b.do(PairVerb.SWAP_RECOVER, good_side=Side.S_VOL)))
    await pair.quiet()
    assert not swapping.done() and pair.b.half.role is PairRole.S_VOL
    pair.b.disk.volume.hold.set()
    assert await swapping is None
    await pair.quiet()
    assert await pair.b.write(0, "new")
    await pair.until(PairState.PAIR)
    assert await pair.a.medium(0) == await pair.b.medium(0) == "new"


async def test_fetched_region_does_not_land_after_the_pair_is_gone(pair: Pair) -> None:
    await pair.arm()
    await pair.a.write(7, "by A")
    pair.b.disk.volume.hold.clear()
    await pair.b.claim()
    reading = asyncio.create_task(pair.b.read(7))
    await pair.quiet()
    deleting = asyncio.create_task(refusal(pair.b.do(PairVerb.DELETE)))
    await pair.quiet()
    assert not deleting.done()
    pair.b.disk.volume.hold.set()
    assert await reading == "by A"
    assert await deleting is None


async def test_flush_does_not_meet_a_split_half_way(pair: Pair) -> None:
    """Its FLUSH would be of an epoch that is over at B: refused by fence level data, or the pair suspended."""
    await pair.stop()
    pair = Pair(FenceLevel.DATA)
    await pair.start()
    await pair.mirror()
    pair.a.disk.running.clear()
    splitting = asyncio.create_task(refusal(pair.a.do(PairVerb.SPLIT)))
    await pair.quiet()
    flushing = asyncio.create_task(pair.a.volume.flush())
    await pair.quiet()
    pair.a.disk.running.set()
    assert await splitting is None
    await flushing
    assert pair.a.half.state is PairState.PSUS
    await pair.stop()


@pytest.mark.parametrize("fence", FenceLevel)
async def test_write_without_the_link_by_fence_level(fence: FenceLevel) -> None:
    pair = Pair(fence)
    await pair.start()
    await pair.mirror()
    pair.wire.cut_at(is_type(FrameType.WRITE), delivered=False)
    if fence is FenceLevel.NEVER:
        assert await pair.a.write(0, "alone")
    else:
        with pytest.raises(ReplicationRefused):
            await pair.a.write(0, "alone")
    await pair.until(PairState.PSUE)
    await pair.connect()
    if fence is FenceLevel.DATA:
        with pytest.raises(ReplicationRefused):
            await pair.a.write(0, "later")
    else:
        assert await pair.a.write(0, "later")
    await pair.stop()


async def test_write_that_does_not_fit_its_frame_is_refused_by_the_s_vol(pair: Pair) -> None:
    await pair.mirror()
    epoch = pair.a.half.record.decided.epoch
    frame = Frame(FrameType.WRITE, 20, 0, epoch, 0, 512, payload=b"x" * 1024)
    reply = await pair.a.end.request(frame)
    assert reply.flags != 0
    assert await pair.b.medium(0) == ""


async def test_request_in_anothers_name_cuts_the_link(pair: Pair) -> None:
    await pair.arm()
    frame = Frame(FrameType.REQUEST, 10)
    frame.payload = PairRequest(PairVerb.RESYNC, pair.a.serial, claim=pair.a.nexus()).encode().encode()
    with pytest.raises(Exception, match="cut"):
        await pair.b.end.request(frame)
    assert len(pair.wire.errors) == 1
    pair.wire.errors.clear()
    await pair.quiet()
    assert pair.a.owner is None


# --------------------------------------------------------------------------------------------- the pair's life


async def test_forced_delete_without_the_link_is_learned_at_reconnection(pair: Pair) -> None:
    await pair.arm()
    pair.wire.cut()
    await pair.quiet()
    assert await refusal(pair.b.do(PairVerb.DELETE)) is Refusal.PEER_UNREACHABLE
    assert await refusal(pair.b.do(PairVerb.DELETE, force=True)) is None
    assert pair.b.half.role is PairRole.SMPL
    await pair.connect()
    assert pair.a.half.role is PairRole.SMPL
    assert pair.a.half.record.decided == pair.b.half.record.decided


async def test_release_in_mid_copy_arms_the_pair_when_it_is_equal(pair: Pair) -> None:
    await pair.arm()
    lbas = range(0, 6 * 256, 256)  # more regions apart from each other than the copy task has under way at once
    for lba in lbas:
        await pair.a.write(lba, "by A")
    pair.b.disk.volume.hold.clear()
    await pair.b.claim()
    releasing = asyncio.create_task(pair.b.control.released(pair.b.nexus()))
    await pair.quiet()
    epoch = pair.b.half.record.decided.epoch
    pair.b.disk.volume.hold.set()
    await releasing
    await pair.until(PairState.PSUS)
    values = {record.decided.epoch: record.decided for record in pair.a.disk.records}
    assert (values[epoch + 1].state, values[epoch + 1].arm) == (PairState.COPY, True)
    assert pair.a.owner is None
    for lba in lbas:
        assert await pair.b.medium(lba) == "by A"


async def test_split_decided_across_a_break_leaves_the_s_vol_without_marks_of_its_own(pair: Pair) -> None:
    """Else its next swap resync would be refused: both sides written, although only one was."""
    await pair.arm()
    await pair.a.write(300, "changed")
    pair.b.disk.volume.hold.clear()
    await pair.a.do(PairVerb.RESYNC)
    await pair.quiet()
    pair.wire.cut_at(is_type(FrameType.PROPOSE), delivered=False)
    splitting = asyncio.create_task(refusal(pair.a.do(PairVerb.SPLIT)))
    await pair.quiet()
    pair.b.disk.volume.hold.set()
    assert await splitting is Refusal.NO_VOTE
    await pair.connect()
    await pair.until(PairState.PSUS)
    assert len(pair.b.half.marks) == 0
    assert await refusal(pair.b.claim()) is None
    await pair.quiet()
    assert await pair.b.read(300) == "changed"


async def test_decision_made_while_the_link_goes_down_ends_in_psue(pair: Pair) -> None:
    await pair.arm()
    pair.b.disk.running.clear()
    claiming = asyncio.create_task(refusal(pair.b.claim()))
    await pair.quiet()
    pair.wire.cut()
    await pair.quiet()
    pair.b.disk.running.set()
    assert await claiming is Refusal.NO_VOTE
    await pair.quiet()
    assert pair.b.half.state is PairState.PSUE
    await pair.connect()
    assert (pair.a.half.state, pair.b.half.state) == (PairState.PSUE, PairState.PSUE)
    await pair.recover()
