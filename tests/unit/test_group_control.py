"""A consistency group between two arrays: decided as one, and suspended as one, whatever breaks (I9)."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest

from storage_model.pair import PairRefused
from storage_model.pair_state import FenceLevel, PairRole, PairState, PairVerb, Refusal, Side
from storage_model.spec.copy_frames import Answer, Frame, FrameType, encode_parts
from storage_model.volume import MediumFailure
from tests.unit.group_in_memory import Group, GroupSite, answers_group_proposal
from tests.unit.pair_in_memory import Condition, Site, is_type, refusal

PAIRS = ("data", "index", "log")


@pytest.fixture
async def group() -> AsyncIterator[Group]:
    group = Group()
    await group.start()
    yield group
    await group.stop()


@pytest.fixture
async def with_quorum() -> AsyncIterator[Group]:
    group = Group({"data": False, "log": False, "quorum": True})
    await group.start()
    yield group
    await group.stop()


# -------------------------------------------------------------------------------------------------- one decision


@pytest.mark.parametrize("at", ["a", "b"])
async def test_split_and_resync_of_a_group_are_one_epoch_of_each_pair(group: Group, at: str) -> None:
    await group.mirror()
    site = {"a": group.a, "b": group.b}[at]
    before = group.a.epochs
    await site.do(PairVerb.SPLIT)
    await group.until(PairState.PSUS)
    assert group.a.epochs == group.b.epochs == {pair: epoch + 1 for pair, epoch in before.items()}
    decided = [set(records) for records in group.b.transactions if records["data"].state is PairState.PSUS]
    assert decided == [set(PAIRS)], "one transaction has them all"
    await group.a.do(PairVerb.RESYNC)
    await group.until(PairState.PAIR)
    group.check_p_vols(group.a)


@pytest.mark.parametrize("suspended", [False, True], ids=["PAIR", "PSUS"])
async def test_takeover_of_a_group_swaps_all_its_pairs(group: Group, suspended: bool) -> None:
    await (group.suspend() if suspended else group.mirror())
    for pair, member in group.a.members.items():
        await member.write(3, pair)
    await group.b.do(PairVerb.SWAP_RESYNC)
    await group.until(PairState.PAIR)
    group.check_p_vols(group.b)
    for pair, member in group.b.members.items():
        assert await member.read(3) == pair
        assert await member.write(4, "after")
        assert await group.a.members[pair].medium(4) == "after"


async def test_refused_by_one_pair_is_refused_for_all(group: Group) -> None:
    await group.mirror()
    await group.a.members["log"].half.suspend("a fault")
    assert group.a.states == {(PairRole.P_VOL, PairState.PSUE)}
    await group.a.members["data"].do(PairVerb.RECOVER, good_side=Side.P_VOL)
    await group.quiet()
    before = group.a.epochs
    assert await refusal(group.a.do(PairVerb.SPLIT)) is Refusal.SUSPENDED_BY_ERROR
    assert await refusal(group.b.do(PairVerb.SWAP_RESYNC)) is Refusal.SUSPENDED_BY_ERROR
    assert group.a.epochs == before
    await group.a.do(PairVerb.RECOVER, "log", good_side=Side.P_VOL)
    await group.until(PairState.PAIR)


async def test_a_pair_that_is_there_already_stays_as_it_is(group: Group) -> None:
    await group.mirror()
    await group.a.members["log"].do(PairVerb.SPLIT)
    before = group.a.epochs
    await group.b.do(PairVerb.SPLIT)
    await group.until(PairState.PSUS)
    assert group.a.epochs == {**{pair: epoch + 1 for pair, epoch in before.items()}, "log": before["log"]}
    assert await refusal(group.b.do(PairVerb.SPLIT)) is Refusal.ALREADY_SUSPENDED


async def test_p_vols_at_both_arrays(group: Group) -> None:
    await group.suspend()
    await group.b.members["log"].do(PairVerb.SWAP_RESYNC)
    await group.quiet()
    await group.a.members["data"].do(PairVerb.RESYNC)
    await group.a.members["index"].do(PairVerb.RESYNC)
    await group.until(PairState.PAIR)
    assert await refusal(group.a.do(PairVerb.SPLIT)) is Refusal.GROUP_DIVIDED
    await group.b.do(PairVerb.SWAP_RESYNC)  # those that are here stay, the others come
    await group.until(PairState.PAIR)
    group.check_p_vols(group.b)


async def test_expected_epoch_is_that_of_the_addressed_pair(group: Group) -> None:
    await group.mirror()
    epoch = group.a.epochs["log"]
    assert await refusal(group.a.do(PairVerb.SPLIT, "log", expected_epoch=epoch + 1)) is Refusal.EPOCH_MOVED
    await group.a.do(PairVerb.SPLIT, "log", expected_epoch=epoch)
    await group.until(PairState.PSUS)


async def test_both_sides_written_is_found_for_any_pair(group: Group) -> None:
    await group.mirror()
    await group.a.do(PairVerb.SPLIT, s_vol_writable=True)
    await group.quiet()
    await group.a.members["log"].write(1, "P-VOL")
    await group.b.members["log"].write(1, "S-VOL")
    assert await refusal(group.b.do(PairVerb.SWAP_RESYNC)) is Refusal.BOTH_WRITTEN
    assert {role for role, _ in group.a.states} == {PairRole.P_VOL}
    await group.b.do(PairVerb.SWAP_RECOVER, good_side=Side.S_VOL)
    await group.until(PairState.PAIR)
    assert await group.a.members["log"].medium(1) == "S-VOL"


async def test_two_takeovers_at_once_have_one_winner(group: Group) -> None:
    await group.suspend()
    ends = await asyncio.gather(refusal(group.a.do(PairVerb.RESYNC)), refusal(group.b.do(PairVerb.SWAP_RESYNC)))
    assert ends.count(None) == 1
    await group.until(PairState.PAIR)
    group.check_p_vols(group.a if ends[0] is None else group.b)


# ------------------------------------------------------------------------------------------ losses and crashes


def runs_out(frames: Iterator[int]) -> Condition:
    """At the frame behind those that ``frames`` counts."""
    return lambda frame: next(frames, None) is None


@pytest.mark.parametrize("crashed", [None, "a", "b"])
@pytest.mark.parametrize("lost", ["proposal", "answer"])
async def test_group_in_doubt_is_decided_as_voted(group: Group, lost: str, crashed: str | None) -> None:
    await group.suspend()
    trap = is_type(FrameType.PROPOSE_GROUP) if lost == "proposal" else answers_group_proposal(group)
    group.wire.cut_at(trap, delivered=False)
    assert await refusal(group.b.do(PairVerb.SWAP_RESYNC)) is Refusal.NO_VOTE
    await group.quiet()
    assert all(member.half.register.in_doubt for member in group.a.members.values())
    assert await refusal(group.a.members["data"].do(PairVerb.RESYNC)) is Refusal.IN_DOUBT
    if crashed is not None:
        site = {"a": group.a, "b": group.b}[crashed]
        await site.crash()
        await site.start()
    await group.connect()
    assert not group.a.in_doubt and not group.b.in_doubt
    group.check_one_side()
    group.check_p_vols(group.b)


@pytest.mark.parametrize("asks", ["the next epoch", "what is decided"])
async def test_proposal_for_one_pair_that_comes_late_does_not_resolve_its_groups_doubt(group: Group, asks: str) -> None:
    """Of a connection that is gone: it tells that one pair's epoch is decided, and the others' are as well. Nor does
    one that asks for less than it tells, as no array of ours does."""
    await group.suspend()
    group.wire.cut_at(answers_group_proposal(group), delivered=False)
    assert await refusal(group.b.do(PairVerb.SWAP_RESYNC)) is Refusal.NO_VOTE
    await group.quiet()
    before = {name: member.half.record for name, member in group.a.members.items()}
    there = group.b.members["data"]
    decided = there.half.record.decided
    assert all(record.accepted is not None and record.decided.epoch < decided.epoch for record in before.values())
    marks = there.control.decision.packed_marks()
    group.a.members["data"].half.peer = there.offer
    following = replace(decided, epoch=decided.epoch + 1) if asks == "the next epoch" else before["data"].decided
    late = encode_parts(following.encode().encode(), decided.encode().encode(), marks)
    reply = await group.a.members["data"].control.decision.give_vote(Frame(FrameType.PROPOSE, payload=late))
    assert reply.flags == (Answer.REFUSED if asks == "the next epoch" else Answer.DONE)
    assert {name: member.half.record for name, member in group.a.members.items()} == before
    group.a.members["data"].half.peer = None
    await group.connect()
    group.check_one_side()
    group.check_p_vols(group.b)


async def until_p_vol(site: Site) -> None:
    for _ in range(200):
        if site.half.role is PairRole.P_VOL:
            return
        await asyncio.sleep(0)
    pytest.fail("it did not become the P-VOL")


async def test_leader_that_could_not_save_a_decision_is_told_again_though_the_groups_vote_is_out(group: Group) -> None:
    """Each would wait for the other one's vote for ever: the link is up, so that nothing meets."""
    here, there = group.a.members, group.b.members
    for pair in ("data", "index"):
        await here[pair].do(PairVerb.CREATE, remote_p_vol=True)
    creating = asyncio.create_task(here["log"].do(PairVerb.CREATE, remote_p_vol=True))
    await until_p_vol(there["log"])
    here["log"].disk.fails = MediumFailure("full")
    with pytest.raises(MediumFailure):
        await creating
    await group.quiet()
    here["log"].disk.fails = None
    assert group.a.in_doubt and group.b.states == {(PairRole.P_VOL, PairState.PSUE)}
    assert await refusal(group.b.do(PairVerb.RECOVER, good_side=Side.P_VOL)) is Refusal.NO_VOTE
    assert await refusal(here["log"].do(PairVerb.CREATE, remote_p_vol=True)) is not Refusal.IN_DOUBT
    assert not group.a.in_doubt
    assert await refusal(group.b.do(PairVerb.RECOVER, good_side=Side.P_VOL)) in (None, Refusal.COPYING)
    await group.until(PairState.PAIR)
    group.check_p_vols(group.b)


@pytest.mark.parametrize("crashed", ["a", "b"])
@pytest.mark.parametrize("turns", range(0, 60, 3))
async def test_crash_at_any_moment_of_a_takeover(group: Group, crashed: str, turns: int) -> None:
    await group.mirror()
    site = {"a": group.a, "b": group.b}[crashed]
    end = await group.crash_amid(site, PairVerb.SWAP_RESYNC, turns)
    for each in (group.a, group.b):
        assert len({member.disk.record.decided.epoch for member in each.members.values()}) == 1, "I9"
        each.impatient.clear()
    await site.start()
    await group.connect()
    assert not group.a.in_doubt and not group.b.in_doubt
    group.check_one_side()
    if end is None:
        group.check_p_vols(group.b)


@pytest.mark.parametrize("cut_after", range(14))
async def test_wire_cut_anywhere_in_a_takeover(group: Group, cut_after: int) -> None:
    await group.mirror()
    frames = iter(range(cut_after))
    group.wire.cut_at(runs_out(frames), delivered=bool(cut_after % 2))
    await refusal(group.b.do(PairVerb.SWAP_RESYNC))
    await group.quiet()
    await group.connect()
    assert not group.a.in_doubt and not group.b.in_doubt
    group.check_one_side()


@pytest.mark.parametrize("failing", ["a", "b"])
async def test_transaction_that_fails_changes_no_pair(group: Group, failing: str) -> None:
    await group.suspend()
    before = group.a.epochs
    site = {"a": group.a, "b": group.b}[failing]
    site.fails = MediumFailure("the metadata cannot be written")
    with pytest.raises((PairRefused, MediumFailure)):
        await asyncio.wait_for(group.b.do(PairVerb.SWAP_RESYNC), 5)
    await group.quiet()
    assert group.a.epochs == group.b.epochs == before
    site.fails = None
    group.wire.errors.clear()  # the array that could not answer has cut the link
    await group.connect()
    if failing == "a":
        await group.b.do(PairVerb.SWAP_RESYNC)
    await group.quiet()
    group.check_p_vols(group.b)


async def test_a_request_that_nobody_waits_for_any_more_changes_nothing(group: Group) -> None:
    await group.suspend()
    before = group.a.epochs
    async with group.a.members["log"].half.changing:
        asking = asyncio.create_task(refusal(group.a.do(PairVerb.RESYNC)))
        await group.quiet()
        group.a.impatient.set()
        assert await asking is Refusal.NO_VOTE
    await group.quiet()
    assert group.a.epochs == before and not group.a.in_doubt


# ------------------------------------------------------------------------------------------ takeover by force


async def test_takeover_by_force_is_one_epoch_and_the_other_array_follows_as_one(group: Group) -> None:
    await group.mirror()
    group.wire.cut()
    await group.quiet()
    await group.b.do(PairVerb.TAKEOVER)
    assert group.b.states == {(PairRole.P_VOL, PairState.PSUE)}
    assert set(group.b.transactions[-1]) == set(PAIRS)
    written = len(group.a.transactions)
    await group.connect()
    group.check_p_vols(group.b)
    group.check_one_side()
    assert set(group.a.transactions[written]) == set(PAIRS)
    await group.b.do(PairVerb.RECOVER, good_side=Side.P_VOL)
    await group.until(PairState.PAIR)


async def test_takeover_by_force_needs_the_other_array_out_of_reach(group: Group) -> None:
    await group.suspend()
    assert await refusal(group.b.do(PairVerb.TAKEOVER)) is Refusal.PEER_REACHABLE


@pytest.mark.parametrize("pairs", [PAIRS, ("log",)], ids=["group", "one pair"])
async def test_force_at_the_voter_voids_a_vote_that_nobody_heard_of(group: Group, pairs: tuple[str, ...]) -> None:
    await group.suspend()
    group.wire.cut_at(is_type(FrameType.PROPOSE_GROUP), delivered=False)
    assert await refusal(group.a.do(PairVerb.RESYNC)) is Refusal.NO_VOTE
    await group.quiet()
    if len(pairs) > 1:
        await group.b.do(PairVerb.TAKEOVER)
    else:
        await group.b.members["log"].do(PairVerb.TAKEOVER)
    await group.connect()
    assert not group.a.in_doubt and not group.b.in_doubt
    assert group.a.epochs == group.b.epochs
    for pair, member in group.b.members.items():
        assert (member.half.role is PairRole.P_VOL) is (pair in pairs)


@pytest.mark.parametrize("wrong", ["a", "b"])
async def test_pairs_taken_over_at_both_arrays_stay_apart_whichever_epoch_is_the_later_one(wrong: str) -> None:
    group = Group(fence=FenceLevel.DATA)
    await group.start()
    await group.mirror()
    group.wire.cut_at(is_type(FrameType.PROPOSE_GROUP), delivered=False)
    assert await refusal(group.a.do(PairVerb.SPLIT)) is Refusal.NO_VOTE
    await group.until(PairState.PSUE)
    for site in (group.a, group.b):
        await site.do(PairVerb.TAKEOVER)
    assert all(group.a.epochs[pair] == group.b.epochs[pair] + 1 for pair in group.a.epochs), "above A's vote"
    await group.connect()
    for site in (group.a, group.b):
        assert site.states == {(PairRole.P_VOL, PairState.PSUE)}
        assert all(member.half.split_brain and not member.half.connected for member in site.members.values())
    await (group.a if wrong == "a" else group.b).do(PairVerb.DELETE, force=True)
    await group.until(PairState.SMPL)
    await group.a.do(PairVerb.CREATE)
    await group.until(PairState.PAIR)
    await group.wire.stop()  # and no check of I1: by force at both arrays, an epoch has two values


# ------------------------------------------------------------------------------------------ suspended as one


@pytest.mark.parametrize("fault", ["s_vol", "p_vol", "s_side"])
async def test_a_fault_of_one_pair_suspends_all_before_its_write_is_acknowledged(group: Group, fault: str) -> None:
    await group.mirror()
    data, log = group.a.members["data"], group.a.members["log"]
    if fault == "s_vol":
        await break_medium(group.b, "data")
    elif fault == "s_side":
        await group.b.members["data"].half.suspend("a fault there")
    else:
        await break_medium(group.a, "data")
    try:
        assert await data.write(1, "first")
    except MediumFailure:
        assert fault == "p_vol"
    assert group.a.states == {(PairRole.P_VOL, PairState.PSUE)}, "before the write is acknowledged"
    await log.write(2, "second, which the host orders behind the first")
    await group.quiet()
    assert await group.b.members["log"].medium(2) == ""


async def break_medium(site: GroupSite, pair: str) -> None:
    async def write(offset_bytes: int, data: object, *, fua: bool = False) -> None:
        raise MediumFailure("broken")

    site.members[pair].disk.volume.write = write  # type: ignore[method-assign]


async def test_nothing_is_mirrored_behind_what_was_acknowledged_unmirrored(group: Group) -> None:
    """Writes of all pairs, each ordered behind the one before it, while the wire is cut at every frame in turn."""
    await group.mirror()
    members = list(group.a.members.values())
    for cut_after in range(0, 40, 3):
        frames = iter(range(cut_after))
        group.wire.cut_at(runs_out(frames), delivered=bool(cut_after % 2))
        for number in range(30):
            assert await members[number % 3].write(number, f"{cut_after}/{number}")
        await group.quiet()
        arrived = [
            await group.b.members[PAIRS[number % 3]].medium(number) == f"{cut_after}/{number}" for number in range(30)
        ]
        assert arrived == sorted(arrived, reverse=True), "the S-VOLs have a prefix of what was acknowledged"
        group.wire.cut()
        await group.quiet()
        await group.connect()
        await group.a.do(PairVerb.RECOVER, good_side=Side.P_VOL)
        await group.until(PairState.PAIR)


async def test_restart_suspends_the_group_as_one(group: Group) -> None:
    await group.mirror()
    await group.a.crash()
    written = len(group.a.transactions)
    await group.a.start()
    assert [set(records) for records in group.a.transactions[written:]] == [set(PAIRS)]
    await group.connect()
    assert {state for site in (group.a, group.b) for _, state in site.states} == {PairState.PSUE}


# ------------------------------------------------------------------------------------------ quorum volume


async def test_claim_of_the_quorum_volume_takes_the_group_over(with_quorum: Group) -> None:
    group = with_quorum
    await group.mirror()
    await group.a.members["quorum"].do(PairVerb.SPLIT)  # armed; the data is mirrored on
    await group.quiet()
    quorum = group.b.members["quorum"]
    assert await refusal(quorum.claim()) is None
    await group.until(PairState.PAIR)
    group.check_p_vols(group.b)
    assert quorum.owner == quorum.nexus()
    assert {len(records) for records in group.b.transactions if "quorum" in records} >= {3}
    assert all(group.b.members[pair].owner is None for pair in ("data", "log"))
    assert await quorum.write(1, "owner")


async def test_claim_loses_where_one_pair_cannot_be_taken_over(with_quorum: Group) -> None:
    group = with_quorum
    await group.mirror()
    await group.a.members["quorum"].do(PairVerb.SPLIT)
    await group.a.members["log"].half.suspend("a fault")
    before = group.b.epochs
    assert await refusal(group.b.members["quorum"].claim()) is Refusal.SUSPENDED_BY_ERROR
    assert group.b.epochs == before
    assert await refusal(group.a.members["quorum"].claim()) is None, "where the P-VOLs are, nothing has to move"


async def test_late_claim_finds_figure_4(with_quorum: Group) -> None:
    """The quorum volume itself is not swapped out of PAIR: a resync that comes late would make a second winner."""
    group = with_quorum
    await group.mirror()
    assert await refusal(group.b.members["quorum"].claim()) is Refusal.MIRRORING
    assert await refusal(group.b.do(PairVerb.SWAP_RESYNC, "quorum", claim=group.b.members["quorum"].nexus())) is (
        Refusal.MIRRORING
    )


@pytest.mark.parametrize("lost", ["proposal", "answer"])
async def test_withdrawn_claim_in_doubt_owns_nothing(with_quorum: Group, lost: str) -> None:
    group = with_quorum
    await group.mirror()
    await group.a.members["quorum"].do(PairVerb.SPLIT)
    await group.quiet()
    trap = is_type(FrameType.PROPOSE_GROUP) if lost == "proposal" else answers_group_proposal(group)
    group.wire.cut_at(trap, delivered=False)
    quorum = group.b.members["quorum"]
    assert await refusal(quorum.claim()) is Refusal.NO_VOTE
    await quorum.control.withdraw(quorum.nexus())
    await group.connect()
    group.check_p_vols(group.b)
    assert quorum.owner is None and group.a.members["quorum"].owner is None


# ------------------------------------------------------------------------------------------ two configurations


async def test_a_group_that_is_another_at_the_other_array_stays_apart(group: Group) -> None:
    await group.mirror()
    group.wire.cut()
    await group.quiet()
    offers = group.b.offers()
    offers["log"] = replace(offers["log"], group="")
    group.wire.up = True
    group.a.link_opened(offers)
    await group.quiet()
    assert not any(member.half.connected for member in group.a.members.values())
    assert await refusal(group.a.do(PairVerb.RECOVER, good_side=Side.P_VOL)) is Refusal.NOT_CONFIGURED
    group.wire.up = False
