"""One persistent reservation for a pair: the same at both arrays, whatever is lost on the way (I7; SPC-4 5.13)."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from storage_model.pair_reservation import SECOND_ARRAY
from storage_model.pair_state import PairState, PairVerb, Refusal
from storage_model.reservation_order import ReservationOrder
from storage_model.spec.copy_frames import Answer as LinkAnswer
from storage_model.spec.copy_frames import Frame, FrameType
from storage_model.spec.scsi_cdb import PersistentReserveOut
from storage_model.spec.scsi_persistent_reservation import BasicParameters, MoveParameters, TransportId
from storage_model.volume import MediumFailure
from tests.unit.pair_in_memory import Pair, is_type, refusal
from tests.unit.reserving_hosts import (
    CLEAR,
    CONFLICT,
    EXCLUSIVE_ACCESS,
    GOOD,
    IN_DOUBT,
    NO_VOTE,
    PREEMPT_AND_ABORT,
    READ,
    REGISTER,
    REGISTER_AND_IGNORE,
    RELEASE,
    UNREACHABLE,
    WRITE,
    WRITE_EXCLUSIVE_REGISTRANTS_ONLY,
    Host,
    check_entries,
    equal_tables,
    host,
    table,
    watch,
)

RESERVE_6, RELEASE_6 = bytes.fromhex("160000000000"), bytes.fromhex("170000000000")


@dataclass
class Setting:
    """A pair in PAIR, its P-VOL at A, and a host at each array."""

    pair: Pair
    a: Host
    b: Host

    async def restart(self, name: str) -> None:
        """kill -9 of one array, and its start; the link is not up yet."""
        site = self.pair.a if name == "a" else self.pair.b
        await site.crash()
        site.disk.running.set()
        await site.start()
        (self.a if name == "a" else self.b).log_in()

    async def holds(self, holder: Host) -> None:
        for each in (self.a, self.b):
            assert await each.register() is GOOD
        assert await holder.reserve() is GOOD


@pytest.fixture
async def at() -> AsyncIterator[Setting]:
    pair = Pair(quorum=False)
    await pair.start()
    await pair.mirror()
    yield Setting(pair, host(pair.a, "a", 0xA), host(pair.b, "b", 0xB))
    await pair.stop()
    check_entries(pair)


# ------------------------------------------------------------------------------------------------------- one table


@pytest.mark.parametrize("first", ["a", "b"])
async def test_what_one_array_reserves_the_other_enforces(at: Setting, first: str) -> None:
    holder, other = (at.a, at.b) if first == "a" else (at.b, at.a)
    assert await holder.register() is GOOD
    assert await holder.reserve() is GOOD
    assert await other.answer(READ) is CONFLICT
    assert await other.answer(WRITE, bytes(512)) is CONFLICT
    assert await holder.answer(READ) is GOOD
    assert await other.keys() == await holder.keys() == (1, [holder.key])
    assert await other.reserve() is CONFLICT  # not registered
    assert await other.register() is GOOD
    assert await other.reserve() is CONFLICT
    assert await other.keys() == await holder.keys() == (2, [0xA, 0xB])
    assert equal_tables(at.pair).generation == 2


async def test_equal_nexuses_of_the_two_arrays_are_different_ones(at: Setting) -> None:
    """One initiator with a path to each array: the same name, ISID and relative target port."""
    paths = [host(at.pair.a, "c", 0xC), host(at.pair.b, "c", 0xC)]
    assert await paths[0].register() is GOOD
    assert await paths[0].reserve() is GOOD
    assert [await path.answer(READ) for path in paths] == [GOOD, CONFLICT]
    assert await paths[1].out(RELEASE, kind=EXCLUSIVE_ACCESS) is CONFLICT
    assert [nexus.target_port for nexus in equal_tables(at.pair).registrations] == [1]
    assert await paths[1].register() is GOOD
    assert sorted(nexus.target_port for nexus in equal_tables(at.pair).registrations) == [1, SECOND_ARRAY + 1]
    # Each array's own ports are those of its VPD pages, the other one's are above them.
    for path in paths:
        assert path.nexus in path.site.lu.reservation.persistent.registrations


async def test_all_target_ports_are_those_of_the_array_that_was_asked(at: Setting) -> None:
    for site in (at.pair.a, at.pair.b):
        site.server.port_groups.replace(dict.fromkeys((1, 2), site.server.port_groups.state(1)))
    assert await at.b.out(REGISTER, 0xB, key=0, all_ports=True) is GOOD
    ports = sorted(nexus.target_port for nexus in equal_tables(at.pair).registrations)
    assert ports == [SECOND_ARRAY + 1, SECOND_ARRAY + 2]


async def test_others_are_registered_and_given_the_reservation_by_name(at: Setting) -> None:
    """SPEC_I_PT and REGISTER AND MOVE name initiator ports; a device's name does not say which port, at two arrays."""
    friend = host(at.pair.b, "friend", 0xB)
    port, device = TransportId(friend.nexus.initiator_name, friend.nexus.isid), TransportId("iqn.2026-11.x:y", None)
    for name, answer in ((device, (5, 0x2600)), (port, GOOD)):
        data = BasicParameters(0, 0xB, spec_i_pt=True, transport_ids=name.encode()).encode()
        assert await at.b.answer(bytes((0x5F, REGISTER, 0, 0, 0)) + len(data).to_bytes(4, "big"), data) == answer
    assert await at.b.reserve() is GOOD
    assert await friend.answer(READ) is CONFLICT
    data = MoveParameters(0xB, 0xF, 1, port.encode()).encode()
    assert await at.b.answer(bytes((0x5F, 7, 0, 0, 0)) + len(data).to_bytes(4, "big"), data) is GOOD
    assert (friend.let_in, at.b.let_in) == (True, False)
    assert await at.a.answer(READ) is CONFLICT
    equal_tables(at.pair)


async def test_faults_of_a_list_are_told_through_the_other_array(at: Setting) -> None:
    assert await at.b.register() is GOOD
    assert await at.b.out(1, kind=0x33) == (5, 0x2400)  # RESERVE: scope and type
    assert await at.b.answer(bytes.fromhex("5f00000000000000") + b"\x08", bytes(8)) == (5, 0x1A00)


# ----------------------------------------------------------------------------------------- preemption, both arrays


@pytest.mark.parametrize("preempts", ["a", "b"])
async def test_the_preempted_hears_of_it_at_its_own_array(at: Setting, preempts: str) -> None:
    winner, victim = (at.a, at.b) if preempts == "a" else (at.b, at.a)
    await at.holds(victim)
    assert await winner.preempt(victim) is GOOD
    assert await victim.answer(READ) is CONFLICT  # the conflict goes before the unit attention
    assert await victim.hears() == [0x2A05]
    assert await winner.hears() == []
    assert await winner.answer(READ) is GOOD
    equal_tables(at.pair)


async def test_release_is_told_at_both_arrays(at: Setting) -> None:
    await at.holds(at.a)
    assert await at.a.out(RELEASE, kind=EXCLUSIVE_ACCESS) is GOOD
    assert await at.a.reserve(WRITE_EXCLUSIVE_REGISTRANTS_ONLY) is GOOD
    assert await at.a.out(RELEASE, kind=WRITE_EXCLUSIVE_REGISTRANTS_ONLY) is GOOD
    assert await at.b.hears() == [0x2A04]
    assert await at.b.out(CLEAR) is GOOD
    assert await at.a.hears() == [0x2A03]
    assert not equal_tables(at.pair).registrations


@pytest.mark.parametrize("through", ["a", "b"])
async def test_preempt_and_abort_waits_for_the_victims_writes_at_the_other_array(at: Setting, through: str) -> None:
    """I6: the victim's write is under way at A when PREEMPT AND ABORT is given to either array."""
    await at.holds(at.a)
    winner = at.b if through == "b" else host(at.pair.a, "c", 0xC)
    if winner is not at.b:
        assert await winner.register() is GOOD
    at.pair.a.disk.volume.hold.clear()
    write = asyncio.create_task(at.a.answer(WRITE, b"v" * 512))
    await at.pair.a.disk.volume.writing.wait()
    preempting = asyncio.create_task(winner.preempt(at.a, action=PREEMPT_AND_ABORT))
    await at.pair.quiet()
    assert not at.a.let_in and not preempting.done()
    at.pair.a.disk.volume.hold.set()
    assert await preempting is GOOD
    assert write.done()
    equal_tables(at.pair)


async def test_preempt_and_abort_waits_for_writes_that_came_before_the_link_was_lost(at: Setting) -> None:
    """I6: the victim's write has ended at A, which could not mirror it any more, but not yet on B's medium."""
    await at.holds(at.a)
    at.pair.b.disk.volume.hold.clear()
    write = asyncio.create_task(at.a.answer(WRITE, b"v" * 512))
    await at.pair.b.disk.volume.writing.wait()
    at.pair.wire.cut()
    assert await write is GOOD
    await at.pair.connect()
    preempting = asyncio.create_task(at.b.preempt(at.a, action=PREEMPT_AND_ABORT))
    await at.pair.quiet()
    assert not at.a.let_in and not preempting.done()
    at.pair.b.disk.volume.hold.set()
    assert await preempting is GOOD


async def test_preempt_and_abort_at_the_p_vol_waits_for_commands_at_the_s_vol(at: Setting) -> None:
    await at.holds(at.b)
    at.pair.b.disk.volume.hold_reads.clear()
    read = asyncio.create_task(at.b.answer(READ))
    await at.pair.quiet()
    preempting = asyncio.create_task(at.a.preempt(at.b, action=PREEMPT_AND_ABORT))
    await at.pair.quiet()
    assert not at.b.let_in and not preempting.done()
    at.pair.b.disk.volume.hold_reads.set()
    assert await preempting is GOOD
    assert read.done()


async def test_an_order_of_the_preempted_that_still_waits_is_dropped(at: Setting) -> None:
    """B's REGISTER AND IGNORE came to A before it was preempted there: it must not come after that."""
    await at.holds(at.b)
    at.pair.a.disk.running.clear()
    preempting = asyncio.create_task(at.a.preempt(at.b, action=PREEMPT_AND_ABORT))
    await at.pair.quiet()
    late = asyncio.create_task(at.b.out(REGISTER_AND_IGNORE, 0xBB))
    await at.pair.quiet()
    assert not preempting.done() and not late.done()
    at.pair.a.disk.running.set()
    assert await preempting is GOOD
    await late  # aborted: whatever it says is not sent
    assert {made.key for made in equal_tables(at.pair).registrations.values()} == {0xA}


async def test_an_order_that_comes_after_the_preemption_is_not_dropped_with_those_before(at: Setting) -> None:
    """B's host was preempted, and registers anew while A still makes that durable: GOOD only for what is in force."""
    await at.holds(at.b)
    preempting = asyncio.create_task(at.a.preempt(at.b, action=PREEMPT_AND_ABORT))
    for _ in range(400):  # turns of the loop, of which the array needs a few
        if not at.b.let_in:
            break
        await asyncio.sleep(0)
    at.pair.a.disk.running.clear()
    assert await at.b.hears() == [0x2A05]
    anew = asyncio.create_task(at.b.out(REGISTER_AND_IGNORE, 0xBB))
    await at.pair.quiet()
    assert not preempting.done() and not anew.done()
    at.pair.a.disk.running.set()
    assert await preempting is GOOD
    assert await anew is GOOD
    assert {made.key for made in equal_tables(at.pair).registrations.values()} == {0xA, 0xBB}


# --------------------------------------------------------------------------------- without the other array's word


async def test_without_the_link_nothing_changes_and_what_is_so_stays_so(at: Setting) -> None:
    await at.holds(at.b)
    at.pair.wire.cut()
    await at.pair.quiet()
    for each, stranger in ((at.a, host(at.pair.a, "x", 0xE)), (at.b, host(at.pair.b, "x", 0xF))):
        assert await stranger.register() == UNREACHABLE
        assert await each.out(CLEAR) == UNREACHABLE
        assert await each.keys() == (2, [0xA, 0xB])
        assert await stranger.reserve() is CONFLICT  # true with any table: nobody changes it without this array
    assert await at.a.preempt(at.b) == UNREACHABLE
    assert await at.b.reserve() is GOOD  # it holds it
    assert await at.a.answer(READ) is CONFLICT
    await at.pair.connect()
    assert await at.a.preempt(at.b) is GOOD


@pytest.mark.parametrize("delivered", [False, True])
@pytest.mark.parametrize("kind", [FrameType.RESERVE_OUT, FrameType.RESERVATION, FrameType.ANSWER, FrameType.ABORTED])
@pytest.mark.parametrize("winner", ["a", "b"])
async def test_cut_at_every_frame(at: Setting, winner: str, kind: FrameType, delivered: bool) -> None:
    """The link breaks in the middle of PREEMPT AND ABORT: never two let in; afterwards both arrays know the outcome."""
    first, second = (at.a, at.b) if winner == "a" else (at.b, at.a)
    if kind is FrameType.RESERVE_OUT and winner == "a":
        return  # there is none
    await at.holds(second)
    watching = asyncio.create_task(watch(at.a, at.b))
    at.pair.wire.cut_at(is_type(kind), delivered=delivered)
    answer = await first.preempt(second, action=PREEMPT_AND_ABORT)
    await at.pair.quiet()
    if answer is GOOD:
        assert first.let_in and not second.let_in
    else:
        assert answer in (NO_VOTE, UNREACHABLE)
    if at.pair.a.reservations.record.accepted is not None:
        assert await at.a.keys() == IN_DOUBT
        assert not at.a.let_in  # neither the old holder there, nor the new one
        assert await at.a.register() == IN_DOUBT
    await at.pair.connect()
    equal_tables(at.pair)
    assert answer is not GOOD or first.let_in
    if first.let_in:
        assert await second.hears() == [0x2A05]
    else:
        assert await first.preempt(second) is GOOD
    equal_tables(at.pair)
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching


@pytest.mark.parametrize("turns", range(0, 32, 2))
@pytest.mark.parametrize("crashed", ["a", "b"])
@pytest.mark.parametrize("winner", ["a", "b"])
async def test_crash_at_every_moment(at: Setting, winner: str, crashed: str, turns: int) -> None:
    """kill -9 of either array while PREEMPT is decided: what was told GOOD is there, and the tables are equal."""
    first, second = (at.a, at.b) if winner == "a" else (at.b, at.a)
    await at.holds(second)
    preempting = asyncio.create_task(first.preempt(second))
    for _ in range(turns):
        await asyncio.sleep(0)
    good = preempting.done() and preempting.result() is GOOD
    await at.restart(crashed)
    assert at.a.let_in + at.b.let_in <= 1
    await at.pair.connect()
    assert at.a.let_in + at.b.let_in == 1
    assert first.let_in or not good
    equal_tables(at.pair)
    preempting.cancel()


async def test_a_vote_that_the_other_array_cannot_save_stays_in_doubt(at: Setting) -> None:
    at.pair.b.disk.fails = MediumFailure("the metadata's disk is full")
    assert await at.a.register() == NO_VOTE
    assert await at.b.keys() == (0, [])
    assert await at.a.keys() == NO_VOTE
    at.pair.b.disk.fails = None
    assert await at.a.keys() == (1, [0xA])
    equal_tables(at.pair)


async def test_an_array_that_cannot_save_its_vote_asks_nobody(at: Setting) -> None:
    at.pair.a.disk.fails = MediumFailure("the metadata's disk is full")
    assert await at.a.register() == (4, 0x4400)
    assert await at.b.register() == (4, 0x4400)
    at.pair.a.disk.fails = None
    assert at.pair.b.disk.entries == []
    assert await at.b.register() is GOOD
    equal_tables(at.pair)


async def test_an_older_array_is_not_asked(at: Setting) -> None:
    at.pair.wire.cut()
    at.pair.b.knows_reservations = False
    at.pair.b.control.reservations = None
    await at.pair.connect()
    assert await at.a.register() == NO_VOTE
    assert at.pair.wire.up and at.pair.a.disk.entries == []


@pytest.mark.parametrize("seed", range(12))
async def test_streams_of_preempts_with_losses_and_crashes(at: Setting, seed: int) -> None:
    """Two hosts preempt one another; the link and the arrays come and go. At the end all agree, and the last GOOD
    counts."""
    wire, pair = at.pair.wire, at.pair
    for each in (at.a, at.b):
        assert await each.register() is GOOD
    assert await at.a.reserve() is GOOD
    watching = asyncio.create_task(watch(at.a, at.b))
    last: list[Host] = []

    async def stream(mine: Host, other: Host) -> None:
        for _ in range(25):
            answer = await mine.preempt(other)
            if answer is GOOD:
                last[:] = [mine]
            elif answer is CONFLICT:  # preempted: register anew, and try again
                await mine.out(REGISTER_AND_IGNORE, mine.key)
            else:
                assert answer in (NO_VOTE, UNREACHABLE, IN_DOUBT, (6, 0x2A05)), answer
                await asyncio.sleep(0)
                await pair.quiet()

    streams = [asyncio.create_task(stream(at.a, at.b)), asyncio.create_task(stream(at.b, at.a))]
    for step in range(8):
        for _ in range(7 * (seed + step) % 61):
            await asyncio.sleep(0)
        wire.cut()
        if (seed + step) % 3 == 0:
            await at.restart("ab"[seed % 2])
        await pair.connect()
    # A command of a crashed array ends with it.
    await asyncio.wait(streams, timeout=1)
    for task in streams:
        task.cancel()
    await asyncio.gather(*streams, return_exceptions=True)
    await pair.quiet()
    assert not watching.done(), watching.exception()
    watching.cancel()
    wire.cut()
    await pair.connect()
    equal_tables(pair)
    assert at.a.let_in + at.b.let_in == 1


# -------------------------------------------------------------------------------------- what becomes of the pair


async def test_split_swap_and_restart_keep_the_table(at: Setting) -> None:
    await at.holds(at.a)
    before = equal_tables(at.pair)
    await at.pair.a.do(PairVerb.SPLIT)
    await at.pair.until(PairState.PSUS)
    assert equal_tables(at.pair) == before
    third = host(at.pair.b, "third", 0xC)
    assert await third.register() is GOOD  # suspended: both arrays still have one table
    await at.pair.b.do(PairVerb.SWAP_RESYNC)
    await at.pair.until(PairState.PAIR)
    for name in "ab":
        await at.restart(name)
        await at.pair.connect()
    after = equal_tables(at.pair)
    assert after.holder == before.holder and after.generation == before.generation + 1
    assert await at.b.preempt(at.a) is GOOD  # now B leads, and after a restart it is a pair in PSUE
    assert await at.a.answer(READ) is CONFLICT
    equal_tables(at.pair)


async def test_without_a_pair_there_is_no_table(at: Setting) -> None:
    await at.holds(at.a)
    assert await refusal(at.pair.b.do(PairVerb.DELETE)) is Refusal.RESERVED
    await at.pair.a.do(PairVerb.DELETE, force=True)
    await at.pair.quiet()
    for each in (at.a, at.b):
        assert await each.hears() == [0x2A03]
        assert each.site.disk.reservations.decided.number == 0
        assert await each.register() == (5, 0x8001)
    await at.pair.a.do(PairVerb.CREATE)
    await at.pair.until(PairState.PAIR)
    assert not equal_tables(at.pair).registrations
    assert await at.b.register() is GOOD


async def test_the_table_of_a_pair_that_was_deleted_meanwhile_does_not_come_back(at: Setting) -> None:
    await at.holds(at.b)
    at.pair.wire.cut()
    await at.pair.quiet()
    await at.pair.a.do(PairVerb.DELETE, force=True)
    await at.pair.connect()
    assert not table(at.pair.a).registrations and not table(at.pair.b).registrations
    await at.pair.a.do(PairVerb.CREATE)
    await at.pair.until(PairState.PAIR)
    assert not equal_tables(at.pair).registrations


@pytest.mark.parametrize("doubt", [False, True])
async def test_after_a_takeover_by_force_the_good_side_goes_on_alone(at: Setting, doubt: bool) -> None:
    await at.holds(at.a)
    third = host(at.pair.b, "third", 0xC)
    if doubt:  # A has voted for an entry that B never heard of
        at.pair.wire.cut_at(is_type(FrameType.RESERVATION), delivered=False)
        assert await third.register() == NO_VOTE
    at.pair.wire.cut()
    await at.pair.quiet()
    await at.pair.b.do(PairVerb.TAKEOVER)
    assert await at.b.preempt(at.a) is GOOD
    assert at.b.let_in
    await at.pair.connect()
    assert not at.a.let_in and await at.a.hears() == [0x2A05]
    equal_tables(at.pair)
    assert await at.a.register() is GOOD  # both decide again
    equal_tables(at.pair)


async def test_a_takeover_at_the_p_vol_settles_what_was_in_doubt(at: Setting) -> None:
    await at.holds(at.a)
    at.pair.wire.cut_at(is_type(FrameType.RESERVATION), delivered=False)
    assert await at.a.preempt(at.b) == NO_VOTE
    await at.pair.quiet()
    assert await at.a.keys() == IN_DOUBT
    await at.pair.a.do(PairVerb.TAKEOVER)
    assert await at.a.keys() == (3, [0xA])
    await at.pair.connect()
    equal_tables(at.pair)


async def test_no_takeover_by_force_no_change_at_the_half_left_behind(at: Setting) -> None:
    """The outdated half's table is that of the past, whatever entry number it has."""
    await at.holds(at.a)
    at.pair.wire.cut()
    await at.pair.quiet()
    await at.pair.b.do(PairVerb.TAKEOVER)
    assert await at.b.out(CLEAR) is GOOD
    assert await at.a.out(CLEAR) == UNREACHABLE
    await at.pair.connect()
    assert not equal_tables(at.pair).registrations


@pytest.mark.parametrize("turns", range(40))
async def test_an_order_while_the_half_left_behind_comes_back(at: Setting, turns: int) -> None:
    """The good side goes on alone until both have compared: what it decides after it told its table is told, too."""
    await at.holds(at.a)
    at.pair.wire.cut()
    await at.pair.quiet()
    await at.pair.b.do(PairVerb.TAKEOVER)
    assert await at.b.out(CLEAR) is GOOD
    await at.pair.wire.connect()
    for _ in range(turns):
        await asyncio.sleep(0)
    assert await at.b.register() is GOOD
    await at.pair.quiet()
    assert [made.key for made in equal_tables(at.pair).registrations.values()] == [0xB]
    assert await at.a.hears() == [0x2A05]
    assert await at.a.register() is GOOD
    assert await at.b.keys() == await at.a.keys()


# ----------------------------------------------------------------------------- RESERVE, and owners of quorum pairs


@pytest.fixture
async def quorum() -> AsyncIterator[Setting]:
    pair = Pair()
    await pair.start()
    await pair.arm()
    yield Setting(pair, host(pair.a, "host-a", 0xA), host(pair.b, "host-b", 0xB))
    await pair.stop()
    check_entries(pair)


async def test_an_owner_and_registrations_exclude_each_other(quorum: Setting) -> None:
    await quorum.pair.a.claim()
    await quorum.pair.until(PairState.PAIR)
    for each in (quorum.a, quorum.b):
        assert await each.register() is CONFLICT
    await quorum.pair.a.control.released(quorum.pair.a.nexus())
    await quorum.pair.until(PairState.PSUS)
    assert await quorum.b.register() is GOOD
    for site in (quorum.pair.a, quorum.pair.b):
        assert await refusal(site.claim()) is Refusal.RESERVED
    assert await quorum.b.reserve() is GOOD
    assert await quorum.a.answer(WRITE, bytes(512)) is CONFLICT
    assert await quorum.b.out(CLEAR) is GOOD
    assert await refusal(quorum.pair.a.claim()) is None


@pytest.mark.parametrize("turns", range(0, 40, 3))
@pytest.mark.parametrize("claims", ["a", "b"])
async def test_a_claim_and_a_registration_at_once(quorum: Setting, claims: str, turns: int) -> None:
    site, other = (quorum.pair.a, quorum.b) if claims == "a" else (quorum.pair.b, quorum.a)
    claiming = asyncio.create_task(refusal(site.claim()))
    for _ in range(turns):
        await asyncio.sleep(0)
    registered = await other.register()
    ends = (await claiming is None, registered is GOOD)
    await quorum.pair.quiet()
    assert sorted(ends) == [False, True]
    assert bool(equal_tables(quorum.pair).registrations) is ends[1]
    assert (quorum.pair.a.half.record.decided.owner is not None) is ends[0]


async def test_reserve_at_one_array_keeps_registrations_from_both(at: Setting) -> None:
    """SPC-2 5.5.1, across the pair; and the vote for what the other array refuses is taken back."""
    for mine, other in ((at.a, at.b), (at.b, at.a)):
        assert await mine.answer(RESERVE_6) is GOOD
        for each in (mine, other):
            assert await each.register() is CONFLICT
        assert await other.keys() == (0, [])
        assert await mine.answer(RELEASE_6) is GOOD
    assert await at.b.register() is GOOD
    assert await at.a.answer(RESERVE_6) is CONFLICT
    equal_tables(at.pair)


async def test_reserve_while_a_registration_is_in_doubt(at: Setting) -> None:
    """A has voted for B's registration: until that is decided A reserves nothing. B may, and then there is none."""
    at.pair.wire.cut_at(is_type(FrameType.RESERVATION), delivered=False)
    assert await at.b.register() == NO_VOTE
    await at.pair.quiet()
    assert await at.a.answer(RESERVE_6) is CONFLICT
    other = host(at.pair.b, "other", 0xD)
    assert await other.answer(RESERVE_6) is GOOD
    await at.pair.connect()
    assert not equal_tables(at.pair).registrations
    assert await at.a.register() is CONFLICT


# ------------------------------------------------------------------------------------------------- the other array


@pytest.mark.parametrize("kind", [FrameType.RESERVE_OUT, FrameType.RESERVATION])
async def test_a_payload_that_cannot_be_read_cuts_the_link(at: Setting, kind: FrameType) -> None:
    at.pair.wire.carry(at.pair.b, Frame(kind, at.pair.a.ldev, payload=b"{}"))
    await at.pair.quiet()
    (error,) = at.pair.wire.errors
    assert "not a reservation" in str(error)
    at.pair.wire.errors.clear()


async def test_an_entry_out_of_another_epoch_is_refused(at: Setting) -> None:
    assert await at.a.register() is GOOD
    (first,) = [frame for frame in at.pair.wire.carried if frame.type is FrameType.RESERVATION]
    assert await at.a.out(CLEAR) is GOOD
    reply = await at.pair.a.end.request(Frame(FrameType.RESERVATION, at.pair.b.ldev, epoch=9, payload=first.payload))
    assert reply.flags == LinkAnswer.REFUSED
    assert not equal_tables(at.pair).registrations


async def test_orders_beyond_the_limit_wait_at_their_own_array(at: Setting) -> None:
    hosts = [host(at.pair.b, f"h{number}", 0x100 + number) for number in range(40)]
    answers = await asyncio.gather(*(each.register() for each in hosts))
    assert set(answers) == {GOOD}
    assert len(equal_tables(at.pair).registrations) == 40


async def test_an_order_in_the_name_of_this_arrays_own_nexus_cuts_the_link(at: Setting) -> None:
    order = ReservationOrder(at.a.nexus, 1, PersistentReserveOut.REGISTER, 0, bytes(24), (1,), first_port=0)
    at.pair.wire.carry(at.pair.b, Frame(FrameType.RESERVE_OUT, at.pair.a.ldev, payload=order.encode().encode()))
    await at.pair.quiet()
    (error,) = at.pair.wire.errors
    assert "a nexus of this array" in str(error)
    at.pair.wire.errors.clear()
