"""A forced takeover: the operator's word in place of the other array's vote, and the half that is left behind."""

import asyncio

import pytest

from storage_model.pair import Owner, PairEpoch, PairRecord, PairRefused, PairRequest, forced_epoch
from storage_model.pair_state import FenceLevel, PairRole, PairState, PairVerb, Refusal, Side
from storage_model.spec.copy_frames import FrameType
from storage_model.spec.pair_cdb import PairControlOut, PairOut, StatusFlag, encode_claim
from storage_model.spec.scsi_task import ScsiStatus
from tests.unit.pair_in_memory import Pair, Site, is_type, refusal
from tests.unit.reserving_hosts import Answer, Host

RESERVE_6 = bytes((0x16, 0, 0, 0, 0, 0))
AFTER = StatusFlag.OUTDATED | StatusFlag.PEER_OUTDATED | StatusFlag.SPLIT_BRAIN


def flags(site: Site) -> StatusFlag:
    return site.control.status().flags & AFTER


async def cut_pair(fence: FenceLevel = FenceLevel.NEVER) -> Pair:
    """Mirroring, until the link went down: A has the P-VOL."""
    pair = Pair(fence, quorum=False)
    await pair.start()
    await pair.mirror()
    assert await pair.a.write(0, "both")
    pair.wire.cut()
    await pair.until(PairState.PSUE)
    return pair


async def test_the_s_vol_becomes_a_p_vol_that_takes_writes() -> None:
    pair = await cut_pair(FenceLevel.DATA)
    b = pair.b
    await b.do(PairVerb.TAKEOVER)
    assert (b.half.role, b.half.state) == (PairRole.P_VOL, PairState.PSUE)
    assert await b.read(0) == "both"
    assert await b.write(1, "b's")
    assert flags(b) == StatusFlag.PEER_OUTDATED
    await pair.stop()


async def test_only_while_the_other_array_cannot_be_reached() -> None:
    pair = Pair(quorum=False)
    await pair.start()
    await pair.arm()
    assert await refusal(pair.b.do(PairVerb.TAKEOVER)) is Refusal.PEER_REACHABLE
    assert await refusal(pair.a.do(PairVerb.TAKEOVER)) is Refusal.IS_P_VOL
    await pair.stop()


async def test_the_loser_is_outdated_when_the_link_returns_and_refuses_promotion() -> None:
    pair = await cut_pair()
    a, b = pair.a, pair.b
    await b.do(PairVerb.TAKEOVER)
    assert await b.write(1, "b's")
    await pair.connect()
    assert (a.half.role, a.half.state) == (PairRole.S_VOL, PairState.PSUE)
    assert (flags(a), flags(b)) == (StatusFlag.OUTDATED, StatusFlag.PEER_OUTDATED), "A wrote nothing"
    for site, verb in ((a, PairVerb.SWAP_RESYNC), (b, PairVerb.RESYNC), (a, PairVerb.RESYNC)):
        assert await refusal(site.do(verb)) is Refusal.SUSPENDED_BY_ERROR
    pair.wire.cut()
    await pair.quiet()
    assert await refusal(a.do(PairVerb.TAKEOVER)) is Refusal.OUTDATED
    await a.crash()
    await a.start()
    assert flags(a) & StatusFlag.OUTDATED, "it is durable"
    assert await refusal(a.do(PairVerb.TAKEOVER)) is Refusal.OUTDATED
    await pair.stop()


@pytest.mark.parametrize("good", [Side.P_VOL, Side.S_VOL])
async def test_writes_of_both_are_a_split_brain_until_a_good_side_is_named(good: Side) -> None:
    pair = await cut_pair()
    a, b = pair.a, pair.b
    await b.do(PairVerb.TAKEOVER)
    assert await a.write(100, "a's") and await b.write(200, "b's")
    await pair.connect()
    assert flags(a) == StatusFlag.OUTDATED | StatusFlag.SPLIT_BRAIN
    assert flags(b) == StatusFlag.PEER_OUTDATED | StatusFlag.SPLIT_BRAIN
    assert (await a.medium(100), await a.medium(200)) == ("a's", ""), "nothing is merged"
    await b.do(PairVerb.RECOVER, good_side=good)
    await pair.until(PairState.PAIR)
    expected = ("", "b's") if good is Side.P_VOL else ("a's", "")
    for site in (a, b):
        assert (await site.medium(100), await site.medium(200)) == expected
        assert not flags(site)
    assert b.half.role is PairRole.P_VOL
    assert b.half.record.decided.fence is FenceLevel.NEVER
    await pair.stop()


async def test_the_resync_brings_the_fence_level_back() -> None:
    pair = await cut_pair(FenceLevel.DATA)
    await pair.b.do(PairVerb.TAKEOVER)
    await pair.connect()
    await pair.b.do(PairVerb.RECOVER, good_side=Side.P_VOL)
    await pair.until(PairState.PAIR)
    assert pair.b.half.record.decided.fence is FenceLevel.DATA
    await pair.stop()


async def test_a_p_vol_that_its_fence_level_holds_back_takes_writes_again() -> None:
    pair = await cut_pair(FenceLevel.DATA)
    a = pair.a
    await a.do(PairVerb.TAKEOVER)
    assert a.half.role is PairRole.P_VOL and await a.write(1, "a's")
    await pair.connect()
    assert flags(pair.b) == StatusFlag.OUTDATED
    await pair.stop()


@pytest.mark.parametrize("deleted_at", ["wrong", "good"])
async def test_both_by_force_are_never_joined(deleted_at: str) -> None:
    """The way out that display, log and README tell: delete by force at one array, create at the good one."""
    pair = await cut_pair()
    a, b = pair.a, pair.b
    await a.do(PairVerb.TAKEOVER)
    await b.do(PairVerb.TAKEOVER)
    assert await a.write(100, "a's") and await b.write(200, "b's")
    await pair.wire.connect()
    await pair.quiet()
    for site in (a, b):
        assert flags(site) & StatusFlag.SPLIT_BRAIN and not site.half.connected
        assert site.half.role is PairRole.P_VOL
        assert await refusal(site.do(PairVerb.RECOVER, good_side=Side.P_VOL)) is Refusal.PEER_UNREACHABLE
        assert await refusal(site.do(PairVerb.RECOVER, good_side=Side.S_VOL)) is Refusal.PEER_UNREACHABLE
    await (a if deleted_at == "wrong" else b).do(PairVerb.DELETE, force=True)  # told to the other one
    await pair.until(PairState.SMPL)
    assert (await a.medium(100), await b.medium(200)) == ("a's", "b's"), "both volumes keep what they have"
    await b.do(PairVerb.CREATE)
    await pair.until(PairState.PAIR)
    assert (await a.medium(100), await a.medium(200)) == ("", "b's")
    assert not flags(a) and not flags(b)
    forget_two_values(pair)
    await pair.stop()


async def voted_and_cut_pair() -> Pair:
    """As :func:`cut_pair`, but A had voted for the next epoch, and B does not know."""
    pair = Pair(quorum=False)
    await pair.start()
    await pair.mirror()
    pair.wire.cut_at(is_type(FrameType.PROPOSE), delivered=False)
    assert await refusal(pair.a.do(PairVerb.SPLIT)) is Refusal.NO_VOTE
    await pair.until(PairState.PSUE)
    return pair


@pytest.mark.parametrize("ahead", ["a", "b"])
@pytest.mark.parametrize("wrong", ["a", "b"])
async def test_both_by_force_are_never_joined_whichever_epoch_is_the_later_one(ahead: str, wrong: str) -> None:
    pair = await voted_and_cut_pair()
    sites = {"a": pair.a, "b": pair.b}
    await pair.a.do(PairVerb.TAKEOVER)  # above the epoch that it had voted for
    for _ in range(3 if ahead == "b" else 1):
        await pair.b.do(PairVerb.TAKEOVER)
    numbers = [site.half.record.decided.epoch for site in (pair.a, pair.b)]
    assert (numbers[0] > numbers[1]) is (ahead == "a") and numbers[0] != numbers[1]
    assert await pair.a.write(100, "a's") and await pair.b.write(200, "b's")
    for _ in range(2):
        await pair.connect()
        for site in (pair.a, pair.b):
            assert flags(site) == StatusFlag.PEER_OUTDATED | StatusFlag.SPLIT_BRAIN and not site.half.connected
            assert site.half.role is PairRole.P_VOL and await site.write(300, "its hosts are served")
        pair.wire.cut()
        await pair.quiet()
    await pair.connect()
    await sites[wrong].do(PairVerb.DELETE, force=True)
    await pair.until(PairState.SMPL)
    right = sites["b" if wrong == "a" else "a"]
    await right.do(PairVerb.CREATE)
    await pair.until(PairState.PAIR)
    expected = ("a's", "") if right is pair.a else ("", "b's")
    for site in (pair.a, pair.b):
        assert (await site.medium(100), await site.medium(200)) == expected
        site.disk.records.clear()  # two values of one epoch are what force does
    await pair.stop()


@pytest.mark.parametrize("proposed", [False, True])
async def test_a_takeover_that_is_not_yet_durable_when_the_link_is_back_keeps_them_apart(proposed: bool) -> None:
    """A tells the epoch before it, and B, whose number is the higher one, has met A by then."""
    pair = await cut_pair()
    a, b = pair.a, pair.b
    for _ in range(2):
        await b.do(PairVerb.TAKEOVER)
    a.disk.running.clear()
    taking_over = asyncio.create_task(a.do(PairVerb.TAKEOVER))
    await pair.connect()
    assert b.half.connected and not a.half.connected
    recovering = None
    a.disk.running.set()
    if proposed:
        recovering = asyncio.create_task(refusal(b.do(PairVerb.RECOVER, good_side=Side.P_VOL)))
    assert await taking_over == 2
    await pair.quiet()
    if recovering is not None:
        assert await recovering in (Refusal.NO_VOTE, Refusal.PEER_UNREACHABLE)
    for site in (a, b):
        assert site.half.role is PairRole.P_VOL and flags(site) & StatusFlag.SPLIT_BRAIN and not site.half.connected
    await pair.wire.stop()  # and no check of I1: by force at both arrays, an epoch has two values


async def test_a_half_left_behind_that_an_operator_insists_on_does_not_demote_the_other() -> None:
    pair = await cut_pair()
    a, b = pair.a, pair.b
    await b.do(PairVerb.TAKEOVER)
    await pair.connect()
    pair.wire.cut()
    await pair.quiet()
    await a.do(PairVerb.TAKEOVER, force=True)
    assert await a.write(100, "a's") and await b.write(200, "b's")
    await pair.connect()
    for site in (a, b):
        assert site.half.role is PairRole.P_VOL and flags(site) & StatusFlag.SPLIT_BRAIN and not site.half.connected
    assert (await a.medium(200), await b.medium(100)) == ("", "")
    await pair.stop()


async def test_deleted_by_force_at_one_array_and_taken_over_at_the_other() -> None:
    pair = await cut_pair()
    a, b = pair.a, pair.b
    await a.do(PairVerb.DELETE, force=True)
    await b.do(PairVerb.TAKEOVER)
    assert await b.write(200, "b's")
    await pair.wire.connect()
    await pair.quiet()
    assert flags(a) & flags(b) & StatusFlag.SPLIT_BRAIN
    assert await refusal(a.do(PairVerb.DELETE, force=True)) is Refusal.NOT_PAIRED
    await b.do(PairVerb.DELETE, force=True)
    await pair.quiet()
    await b.do(PairVerb.CREATE)
    await pair.until(PairState.PAIR)
    assert await a.medium(200) == "b's"
    assert not flags(a) and not flags(b)
    forget_two_values(pair)
    await pair.stop()


def forget_two_values(pair: Pair) -> None:
    """Two values of one epoch are what force does; they were told as a split brain."""
    pair.a.disk.records.clear()


async def test_a_vote_that_may_be_decided_at_the_other_array_does_not_meet_the_forced_epoch() -> None:
    pair = Pair(quorum=False)
    await pair.start()
    await pair.arm()
    a, b = pair.a, pair.b
    pair.wire.cut_at(is_type(FrameType.PROPOSE), delivered=False)
    assert await refusal(a.do(PairVerb.RESYNC)) is Refusal.NO_VOTE
    await pair.quiet()
    assert a.half.register.in_doubt
    await b.do(PairVerb.TAKEOVER)
    await pair.connect()
    assert not a.half.register.in_doubt and a.half.role is PairRole.S_VOL
    assert a.half.record.decided == b.half.record.decided
    await pair.stop()


async def test_the_quorum_volume_goes_to_the_nexus_that_is_named() -> None:
    pair = Pair(FenceLevel.DATA)
    await pair.start()
    await pair.arm()
    await pair.a.claim()
    await pair.until(PairState.PAIR)
    pair.wire.cut()
    await pair.until(PairState.PSUE)
    b = pair.b
    await b.do(PairVerb.TAKEOVER, claim=b.nexus())
    assert b.owner == b.nexus() and await b.write(1, "b's")
    assert not await b.write(1, "not the owner's", host="other")
    await b.claim()  # the owner's RESERVE again
    await pair.connect()
    assert not await pair.a.write(1, "the former owner's")
    await pair.stop()


def test_a_half_that_was_never_complete_needs_more_than_force() -> None:
    decided = PairEpoch(5, "a", PairState.COPY)
    broken_off = PairRecord(decided, PairState.PSUE)
    request = PairRequest(PairVerb.TAKEOVER, "b")
    with pytest.raises(PairRefused) as error:
        forced_epoch(broken_off, request, other_serial="a")
    assert error.value.refusal is Refusal.OUTDATED
    insisted = PairRequest(PairVerb.TAKEOVER, "b", force=True)
    assert forced_epoch(broken_off, insisted, other_serial="a").p_serial == "b"
    assert forced_epoch(broken_off, PairRequest(PairVerb.TAKEOVER, "a"), other_serial="b").outdated == "b"


def test_the_number_is_above_what_was_voted_for() -> None:
    decided, voted = PairEpoch(5, "a", PairState.PSUS), PairEpoch(6, "b", PairState.COPY)
    record = PairRecord(decided, PairState.PSUE, voted, equal=True)
    assert forced_epoch(record, PairRequest(PairVerb.TAKEOVER, "a"), other_serial="b").epoch == 7


def test_an_epoch_with_an_outdated_half_can_be_read_back() -> None:
    pair = Pair()
    value = PairEpoch(9, "b", PairState.PSUE, owner=Owner("b", pair.b.nexus()), outdated="a")
    assert PairEpoch.decode(value.encode()) == value
    plain = PairEpoch(9, "b", PairState.PSUE)
    assert "outdated" not in plain.encode(), "as arrays wrote it before there was a forced takeover"
    assert PairEpoch.decode(plain.encode()) == plain


# ---------------------------------------------------------------------------------- the unit reserved for the new owner


async def order_for(site: Site, verb: PairOut, owner: Host) -> Answer:
    """As ``pairctl --owner`` gives it, by a nexus of its own."""
    claim = encode_claim(owner.nexus)
    return await Host(site, site.nexus("pairctl"), 1).answer(
        PairControlOut(verb, parameter_list_length=len(claim)).encode(), claim
    )


async def two_hosts_at_b(pair: Pair) -> tuple[Host, Host]:
    hosts = Host(pair.b, pair.b.nexus("owner"), 2), Host(pair.b, pair.b.nexus("other"), 3)
    for host in (Host(pair.b, pair.b.nexus("pairctl"), 1), *hosts):
        host.log_in()
    return hosts


async def test_a_refused_takeover_leaves_no_reservation() -> None:
    pair = Pair()
    await pair.start()
    await pair.arm()
    owner, other = await two_hosts_at_b(pair)
    assert await order_for(pair.b, PairOut.TAKEOVER, owner) == (5, 0x8014)
    assert await order_for(pair.b, PairOut.SPLIT, owner) == (5, 0x2400), "a claim does not belong there"
    assert await other.answer(RESERVE_6) is ScsiStatus.GOOD
    await pair.stop()


async def test_a_refused_takeover_takes_no_reservation_away() -> None:
    pair = Pair()
    await pair.start()
    await pair.arm()
    owner, other = await two_hosts_at_b(pair)
    assert await owner.answer(RESERVE_6) is ScsiStatus.GOOD
    assert await order_for(pair.b, PairOut.TAKEOVER, owner) == (5, 0x8014)
    assert await other.answer(RESERVE_6) is ScsiStatus.RESERVATION_CONFLICT
    await pair.stop()


async def test_a_takeover_that_is_refused_late_takes_no_reservation_away_that_came_meanwhile() -> None:
    pair = await cut_pair_of_quorum()
    owner, other = await two_hosts_at_b(pair)
    pair.b.disk.running.clear()  # its vote waits for the medium
    takeover = asyncio.create_task(order_for(pair.b, PairOut.TAKEOVER, owner))
    await pair.quiet()
    assert await owner.answer(RESERVE_6) is ScsiStatus.GOOD
    pair.b.impatient.set()
    assert await takeover == (2, 0x8012)
    assert await other.answer(RESERVE_6) is ScsiStatus.RESERVATION_CONFLICT
    pair.b.disk.running.set()
    await pair.stop()


async def test_a_takeover_reserves_the_unit_for_its_owner() -> None:
    pair = await cut_pair_of_quorum()
    owner, other = await two_hosts_at_b(pair)
    assert await order_for(pair.b, PairOut.TAKEOVER, owner) is ScsiStatus.GOOD
    assert await other.answer(RESERVE_6) is ScsiStatus.RESERVATION_CONFLICT
    await pair.stop()


async def cut_pair_of_quorum() -> Pair:
    pair = Pair(FenceLevel.DATA)
    await pair.start()
    await pair.arm()
    pair.wire.cut()
    await pair.quiet()
    return pair
