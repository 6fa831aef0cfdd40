"""A resync with the S-VOL's data, whose outcome is unknown: what the P-VOL acknowledges meanwhile would be replaced."""

import asyncio

import pytest

from storage_model.pair_state import PairState, PairVerb, Refusal, Side
from storage_model.spec.copy_frames import FrameType
from storage_model.volume import NotReady
from tests.unit.group_in_memory import Group, answers_group_proposal
from tests.unit.pair_in_memory import Pair, answers_proposal, is_type, refusal


@pytest.mark.parametrize("lost", ["proposal", "answer"])
@pytest.mark.parametrize("state", [PairState.PSUS, PairState.PSUE])
async def test_p_vol_acknowledges_nothing_while_its_data_may_have_been_given_up(state: PairState, lost: str) -> None:
    pair = Pair(quorum=False)
    await pair.start()
    await pair.mirror()
    if state is PairState.PSUS:
        await pair.a.do(PairVerb.SPLIT)
    else:
        pair.wire.cut()
        await pair.quiet()
        await pair.connect()
    await pair.until(state)
    assert await pair.a.write(0, "given up")
    at = is_type(FrameType.PROPOSE) if lost == "proposal" else answers_proposal(pair.wire)
    pair.wire.cut_at(at, delivered=False)
    assert await refusal(pair.a.do(PairVerb.RECOVER, good_side=Side.S_VOL)) is Refusal.NO_VOTE
    with pytest.raises(NotReady, match="S-VOL's data may have been named good"):
        await pair.a.write(300, "not to be lost")
    assert await pair.a.read(0) == "given up", "it goes on being read until the other array is heard"
    await pair.connect()
    if lost == "answer":  # the other array has copied in vain
        await pair.recover()
    assert await pair.a.read(0) == await pair.a.read(300) == ""
    assert await pair.a.write(300, "at both")
    pair.check_agreement()
    await pair.stop()


async def test_no_p_vol_of_a_group_either() -> None:
    group = Group()
    await group.start()
    await group.suspend()
    group.wire.cut_at(answers_group_proposal(group), delivered=False)
    assert await refusal(group.a.do(PairVerb.RECOVER, good_side=Side.S_VOL)) is Refusal.NO_VOTE
    for member in group.a.members.values():
        with pytest.raises(NotReady):
            await member.write(0, "not to be lost")
    await group.stop()


async def test_a_swap_entered_on_a_connection_that_is_gone_does_not_copy_on_the_next_before_it_has_met() -> None:
    """What it reads there would wait for the meeting, and the meeting for the gate that the copy is inside."""
    pair = Pair(quorum=False)
    await pair.start()
    await pair.arm()
    assert await pair.a.write(0, "alone")
    pair.b.disk.running.clear()
    swapping = asyncio.create_task(refusal(pair.b.do(PairVerb.SWAP_RESYNC)))
    await pair.proposed()
    await pair.quiet()
    pair.wire.cut()
    await pair.quiet()
    await pair.connect()
    pair.b.disk.running.set()
    await swapping
    await pair.quiet()
    assert {pair.a.half.state, pair.b.half.state} == {PairState.PSUE}
    assert not pair.a.half.gate.closed and not pair.b.half.gate.closed
    await pair.recover()
    pair.check_agreement()
    await pair.stop()
