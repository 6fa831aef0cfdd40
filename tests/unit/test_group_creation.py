"""A consistency group is created, and deleted, as one: all its pairs or none, whatever breaks (I9)."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from storage_model.pair import PairRefused
from storage_model.pair_state import FenceLevel, PairRole, PairState, PairVerb, Refusal, Side
from storage_model.spec.copy_frames import FrameType
from storage_model.volume import MediumFailure
from tests.unit.group_in_memory import Group, answers_group_proposal
from tests.unit.pair_in_memory import is_type, refusal
from tests.unit.reserving_hosts import GOOD, host
from tests.unit.test_group_control import runs_out

PAIRS = {"data": False, "log": False, "quorum": True}
SMPL = {(PairRole.SMPL, PairState.SMPL)}
CHANGES = pytest.mark.parametrize("verb", [PairVerb.CREATE, PairVerb.DELETE])


@pytest.fixture
async def group() -> AsyncIterator[Group]:
    """Nothing is paired yet."""
    group = Group(PAIRS)
    await group.start()
    yield group
    await group.stop()


async def before(group: Group, verb: PairVerb) -> None:
    """The group is as ``verb`` wants it."""
    if verb is PairVerb.DELETE:
        await group.mirror()


async def check_all_or_none(group: Group) -> None:
    """Nothing is in doubt, both arrays agree; and what is there can be created, mirrored and deleted."""
    assert not group.a.in_doubt and not group.b.in_doubt
    group.check_one_side()
    if group.a.states == SMPL:
        await group.a.do(PairVerb.CREATE)
    elif PairState.PSUE in {state for _, state in group.a.states}:
        await group.a.do(PairVerb.RECOVER, good_side=Side.P_VOL)
    await group.until(PairState.PAIR)
    await group.a.do(PairVerb.DELETE)
    await group.until(PairState.SMPL)


# -------------------------------------------------------------------------------------------------- one decision


@pytest.mark.parametrize("remote", [False, True], ids=["local", "remote"])
@pytest.mark.parametrize("at", ["a", "b"])
async def test_created_and_deleted_in_one_transaction_each(group: Group, at: str, remote: bool) -> None:
    site = {"a": group.a, "b": group.b}[at]
    for member in site.members.values():
        await member.write(1, f"{at} {member.pair_name}")
    await site.do(PairVerb.CREATE, "log", remote_p_vol=remote)
    await group.until(PairState.PAIR)
    group.check_p_vols(group.b if (at == "b") is not remote else group.a)
    assert group.a.epochs == group.b.epochs == dict.fromkeys(PAIRS, 1)
    for pair, member in group.a.members.items():
        assert await member.medium(1) == await group.b.members[pair].medium(1) == ("" if remote else f"{at} {pair}")
    other = group.b if site is group.a else group.a
    await other.do(PairVerb.DELETE, "quorum")
    await group.until(PairState.SMPL)
    assert group.a.epochs == group.b.epochs == dict.fromkeys(PAIRS, 2)
    for each in (group.a, group.b):
        decided = [records for records in each.transactions if any(not record.accepted for record in records.values())]
        assert [set(records) for records in decided] == [set(PAIRS)] * 2
        assert not any(len(member.half.marks) for member in each.members.values())


async def test_each_pair_has_its_own_fence_level_unless_one_is_asked_for(group: Group) -> None:
    for site in (group.a, group.b):
        log = site.members["log"].half
        log.identity = replace(log.identity, fence=FenceLevel.STATUS)

    def fences() -> list[FenceLevel]:
        return [member.half.record.decided.fence for member in group.b.members.values()]

    await group.b.do(PairVerb.CREATE, no_copy=True)
    assert fences() == [FenceLevel.NEVER, FenceLevel.STATUS, FenceLevel.NEVER]
    await group.b.do(PairVerb.DELETE)
    await group.b.do(PairVerb.CREATE, no_copy=True, fence=FenceLevel.DATA)
    assert fences() == [FenceLevel.DATA] * 3
    await group.until(PairState.PAIR)


@pytest.mark.parametrize("at", ["a", "b"])
async def test_one_volume_that_cannot_be_paired_keeps_all_from_it(group: Group, at: str) -> None:
    site, other = (group.a, group.b) if at == "a" else (group.b, group.a)

    async def refused() -> Refusal | None:
        outcome = await refusal(site.do(PairVerb.CREATE, "data"))
        await group.quiet()
        assert group.a.states == group.b.states == SMPL and not group.a.in_doubt
        assert group.a.epochs == group.b.epochs == dict.fromkeys(PAIRS, 0)
        return outcome

    for array in (site, other):
        array.members["log"].half.busy = lambda: True  # it is being formatted
        assert await refused() is Refusal.BUSY
        array.members["log"].half.busy = lambda: False
    group.wire.cut()
    await group.quiet()
    assert await refused() is Refusal.PEER_UNREACHABLE
    offers = {each: each.offers() for each in (group.a, group.b)}
    for offered in offers.values():
        offered["log"] = replace(offered["log"], size_bytes=512)  # each has another size for the other
    group.wire.up = True
    group.a.link_opened(offers[group.b])
    group.b.link_opened(offers[group.a])
    await group.quiet()
    assert await refused() is Refusal.VOLUMES_DIFFER
    group.wire.cut()
    await group.connect()
    await site.members["log"].do(PairVerb.CREATE)
    assert await refusal(site.do(PairVerb.CREATE, "data")) is Refusal.ALREADY_PAIRED
    assert {pair for pair, epoch in group.a.epochs.items() if epoch} == {"log"}
    await site.do(PairVerb.DELETE, "log")  # the others are left out
    assert group.a.epochs == {"data": 0, "log": 2, "quorum": 0}


async def test_one_pair_that_is_in_use_keeps_all_from_being_deleted(group: Group) -> None:
    await group.mirror()
    await group.a.members["quorum"].do(PairVerb.SPLIT)
    await group.a.members["quorum"].claim()
    await group.until(PairState.PAIR)
    assert await refusal(group.b.do(PairVerb.DELETE)) is Refusal.OWNED
    await group.a.members["quorum"].control.withdraw(group.a.members["quorum"].nexus())
    assert await host(group.a.members["log"], "x", 0xE).register() is GOOD
    assert await refusal(group.b.do(PairVerb.DELETE)) is Refusal.RESERVED
    assert all(group.a.epochs.values()) and group.a.states != SMPL
    await group.b.do(PairVerb.DELETE, force=True)
    await group.until(PairState.SMPL)
    for site in (group.a, group.b):
        assert not site.members["log"].reservations.in_use and not site.members["log"].disk.reservations.in_use


async def test_p_vols_at_both_arrays_are_deleted_one_by_one(group: Group) -> None:
    await group.a.members["data"].do(PairVerb.CREATE)
    await group.b.members["log"].do(PairVerb.CREATE)
    await group.quiet()
    assert await refusal(group.a.do(PairVerb.DELETE)) is Refusal.GROUP_DIVIDED
    assert {pair for pair, epoch in group.a.epochs.items() if epoch} == {"data", "log"}


# ------------------------------------------------------------------------------------------ losses and crashes


@CHANGES
@pytest.mark.parametrize("crashed", [None, "a", "b"])
@pytest.mark.parametrize("lost", ["proposal", "answer"])
async def test_in_doubt_it_is_decided_as_voted(group: Group, verb: PairVerb, lost: str, crashed: str | None) -> None:
    await before(group, verb)
    epoch = group.a.epochs["log"] + 1
    trap = is_type(FrameType.PROPOSE_GROUP) if lost == "proposal" else answers_group_proposal(group)
    group.wire.cut_at(trap, delivered=False)
    assert await refusal(group.b.do(verb)) is Refusal.NO_VOTE
    await group.quiet()
    assert all(member.half.register.in_doubt for member in group.a.members.values())
    if crashed is not None:
        site = {"a": group.a, "b": group.b}[crashed]
        await site.crash()
        await site.start()
    await group.connect()
    assert group.a.epochs == dict.fromkeys(PAIRS, epoch)
    assert (group.a.states == SMPL) is (verb is PairVerb.DELETE)
    await check_all_or_none(group)


@CHANGES
@pytest.mark.parametrize("crashed", ["a", "b"])
@pytest.mark.parametrize("turns", range(0, 64, 2))
async def test_crash_at_any_moment(group: Group, verb: PairVerb, crashed: str, turns: int) -> None:
    await before(group, verb)
    site = {"a": group.a, "b": group.b}[crashed]
    end = await group.crash_amid(site, verb, turns)
    for each in (group.a, group.b):
        assert len({member.disk.record.decided for member in each.members.values()}) == 1, "I9"
        each.impatient.clear()
    await site.start()
    await group.connect()
    if end is None:
        assert (group.a.states == SMPL) is (verb is PairVerb.DELETE), "what was told is decided"
    await check_all_or_none(group)


@CHANGES
@pytest.mark.parametrize("cut_after", range(18))
async def test_wire_cut_anywhere(group: Group, verb: PairVerb, cut_after: int) -> None:
    await before(group, verb)
    group.wire.cut_at(runs_out(iter(range(cut_after))), delivered=bool(cut_after % 2))
    await refusal(group.b.do(verb))
    await group.quiet()
    await group.connect()
    await check_all_or_none(group)


@CHANGES
@pytest.mark.parametrize("failing", ["a", "b"])
async def test_transaction_that_fails_changes_no_pair(group: Group, verb: PairVerb, failing: str) -> None:
    await before(group, verb)
    epochs = group.a.epochs
    site = {"a": group.a, "b": group.b}[failing]
    site.fails = MediumFailure("the metadata cannot be written")
    with pytest.raises((PairRefused, MediumFailure)):
        await asyncio.wait_for(group.b.do(verb), 5)
    await group.quiet()
    assert group.a.epochs == group.b.epochs == epochs
    site.fails = None
    group.wire.errors.clear()  # the array that could not answer has cut the link
    await group.connect()
    await check_all_or_none(group)


# ------------------------------------------------------------------------------------------ deleted by force


@pytest.mark.parametrize("at", ["a", "b"])
async def test_without_the_other_array_it_is_deleted_by_force_as_one(group: Group, at: str) -> None:
    await group.mirror()
    site, other = (group.a, group.b) if at == "a" else (group.b, group.a)
    group.wire.cut()
    await group.quiet()
    assert await refusal(site.do(PairVerb.DELETE)) is Refusal.PEER_UNREACHABLE
    await site.do(PairVerb.DELETE, force=True)
    assert site.states == SMPL and set(site.transactions[-1]) == set(PAIRS)
    seen = len(other.transactions)
    await group.connect()
    assert other.states == SMPL and set(other.transactions[seen]) == set(PAIRS), "the other one follows as one"
    await check_all_or_none(group)


async def test_split_brain_is_undone_by_deleting_one_side() -> None:
    group = Group(PAIRS, FenceLevel.DATA)
    await group.start()
    await group.mirror()
    group.wire.cut()
    await group.quiet()
    for site in (group.a, group.b):
        await site.do(PairVerb.TAKEOVER)
    await group.connect()
    assert all(member.half.split_brain for site in (group.a, group.b) for member in site.members.values())
    await group.b.do(PairVerb.DELETE, force=True)
    await group.quiet()
    assert group.a.states == group.b.states == SMPL
    await check_all_or_none(group)
    await group.wire.stop()  # and no check of I1: by force at both arrays, epoch 2 had two values
