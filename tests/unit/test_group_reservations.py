"""Persistent reservations of a group's pairs: the tables are settled before the pairs move as one."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from storage_model.pair_state import FenceLevel, PairRole, PairState, PairVerb, Refusal
from storage_model.spec.copy_frames import FrameType
from storage_model.volume import MediumFailure
from tests.unit.group_in_memory import Group
from tests.unit.pair_in_memory import Site, is_type, refusal
from tests.unit.reserving_hosts import (
    CLEAR,
    GOOD,
    IN_DOUBT,
    NO_VOTE,
    Host,
    check_entries,
    equal_tables,
    host,
)


@dataclass
class Volume:
    """One pair of the group, and a host at each array."""

    a: Site
    b: Site
    at_a: Host
    at_b: Host

    @classmethod
    def of(cls, group: Group, pair: str) -> "Volume":
        a, b = group.a.members[pair], group.b.members[pair]
        return cls(a, b, host(a, "a", 0xA), host(b, "b", 0xB))

    async def holds(self, holder: Host) -> None:
        for each in (self.at_a, self.at_b):
            assert await each.register() is GOOD
        assert await holder.reserve() is GOOD

    def log_in(self) -> None:
        """Anew after a start of the arrays."""
        self.at_a.log_in()
        self.at_b.log_in()


@pytest.fixture
async def group() -> AsyncIterator[Group]:
    """In PSUS, the P-VOLs at A."""
    group = Group({"data": False, "log": False, "quorum": True}, FenceLevel.DATA)
    await group.start()
    await group.suspend()
    yield group
    await group.stop()


@pytest.fixture
async def data(group: Group) -> AsyncIterator[Volume]:
    volume = Volume.of(group, "data")
    yield volume
    check_entries(volume)


@pytest.mark.parametrize("grouped", [False, True], ids=["RESERVE", "claim for the group"])
async def test_a_claim_excludes_registrations_of_its_own_volume_and_takes_the_others_tables_along(
    group: Group, data: Volume, grouped: bool
) -> None:
    """RESERVE and registrations exclude each other per logical unit (SPC-2 5.5.1); a swap alters no table."""
    quorum = group.b.members["quorum"]
    await data.holds(data.at_a)
    registered = host(quorum, "x", 0xE)
    assert await registered.register() is GOOD
    epochs, table = group.a.epochs, equal_tables(data)

    async def claim() -> int:
        return await quorum.do(PairVerb.SWAP_RESYNC, claim=quorum.nexus(), group=grouped)

    assert await refusal(claim()) is Refusal.RESERVED
    assert group.a.epochs == group.b.epochs == epochs and quorum.owner is None
    assert await registered.out(CLEAR) is GOOD
    assert await refusal(claim()) is None
    await group.until(PairState.PAIR)
    group.check_p_vols(group.b)
    assert quorum.owner == quorum.nexus()
    assert equal_tables(data) == table
    assert data.at_a.let_in and not data.at_b.let_in
    assert await data.at_b.preempt(data.at_a) is GOOD  # only the quorum volume has an owner
    assert await registered.register() is not GOOD


async def test_a_swap_of_the_group_keeps_the_tables(group: Group, data: Volume) -> None:
    log = Volume.of(group, "log")
    await data.holds(data.at_a)
    await log.holds(log.at_b)
    before = equal_tables(data), equal_tables(log)
    await group.b.do(PairVerb.SWAP_RESYNC)
    await group.until(PairState.PAIR)
    group.check_p_vols(group.b)
    assert (equal_tables(data), equal_tables(log)) == before
    assert await data.at_b.preempt(data.at_a) is GOOD  # now B makes the entries
    equal_tables(data)


async def test_what_is_in_doubt_is_settled_before_the_group_moves(group: Group, data: Volume) -> None:
    """The array that stops to lead the pairs has no vote out."""
    data.b.disk.fails = MediumFailure("the metadata's disk is full")
    assert await data.at_a.register() == NO_VOTE
    before = group.a.epochs
    assert await refusal(group.b.do(PairVerb.SWAP_RESYNC)) is Refusal.NO_VOTE
    assert group.a.epochs == before and not group.a.in_doubt and not group.b.in_doubt
    data.b.disk.fails = None
    await group.b.do(PairVerb.SWAP_RESYNC)
    await group.until(PairState.PAIR)
    group.check_p_vols(group.b)
    assert await data.at_b.keys() == await data.at_a.keys() == (1, [0xA])
    equal_tables(data)


@pytest.mark.parametrize("delivered", [False, True])
async def test_what_is_in_doubt_is_settled_when_the_link_is_back(group: Group, data: Volume, delivered: bool) -> None:
    await data.holds(data.at_a)
    group.wire.cut_at(is_type(FrameType.RESERVATION), delivered=delivered)
    assert await data.at_b.preempt(data.at_a) == NO_VOTE
    assert await data.at_a.keys() == IN_DOUBT
    await group.connect()
    assert equal_tables(data).generation == 3
    assert data.at_b.let_in and not data.at_a.let_in


@pytest.mark.parametrize("at", ["a", "b"])
async def test_after_a_takeover_by_force_the_tables_there_count(group: Group, data: Volume, at: str) -> None:
    """A vote that was out at the P-VOLs' array is settled by its operator's word; the half left behind adopts all."""
    await group.a.do(PairVerb.RESYNC)
    await group.until(PairState.PAIR)
    await data.holds(data.at_a)
    group.wire.cut_at(is_type(FrameType.RESERVATION), delivered=False)
    assert await data.at_a.preempt(data.at_b) == NO_VOTE
    await group.quiet()
    assert await data.at_a.keys() == IN_DOUBT
    taker, mine = (group.a, data.at_a) if at == "a" else (group.b, data.at_b)
    quorum = taker.members["quorum"]
    await taker.do(PairVerb.TAKEOVER, "quorum", claim=quorum.nexus())
    assert quorum.owner == quorum.nexus()
    assert data.a.lu.reservation.doubtful is None or at == "b"
    assert await mine.keys() == ((3, [0xA]) if at == "a" else (2, [0xA, 0xB]))
    assert await host(mine.site, "x", 0xE).register() is GOOD  # alone
    await group.connect()
    assert len(equal_tables(data).registrations) == (2 if at == "a" else 3)
    assert await data.at_a.out(CLEAR) is GOOD  # both decide again
    equal_tables(data)


async def test_by_force_owners_and_registrations_of_a_volume_exclude_each_other_too(group: Group) -> None:
    quorum = group.b.members["quorum"]
    assert await host(quorum, "x", 0xE).register() is GOOD
    group.wire.cut()
    await group.quiet()
    assert await refusal(group.b.do(PairVerb.TAKEOVER, "quorum", claim=quorum.nexus())) is Refusal.RESERVED
    assert await refusal(group.b.do(PairVerb.TAKEOVER)) is None
    assert group.b.states == {(PairRole.P_VOL, PairState.PSUE)} and quorum.owner is None


@pytest.mark.parametrize("turns", range(60))
async def test_an_order_at_any_moment_of_the_reconnection(group: Group, data: Volume, turns: int) -> None:
    """What the good side decides meanwhile, alone or with the other array's vote, is in force at both."""
    await data.holds(data.at_a)
    group.wire.cut()
    await group.quiet()
    await group.b.do(PairVerb.TAKEOVER)
    assert await data.at_b.out(CLEAR) is GOOD
    await group.wire.connect()
    for _ in range(turns):
        await asyncio.sleep(0)
    answer = await data.at_b.register()
    assert answer in (GOOD, NO_VOTE)
    await group.quiet()
    assert len(equal_tables(data).registrations) == (answer is GOOD)


@pytest.mark.parametrize("crashed", ["a", "b"])
async def test_the_tables_of_a_group_survive_a_crash(group: Group, data: Volume, crashed: str) -> None:
    await data.holds(data.at_b)
    before = equal_tables(data)
    site = {"a": group.a, "b": group.b}[crashed]
    await site.crash()
    await site.start()
    data.log_in()
    await group.connect()
    assert equal_tables(data) == before
    assert data.at_b.let_in and not data.at_a.let_in
    assert await data.at_a.preempt(data.at_b) is GOOD
    equal_tables(data)
