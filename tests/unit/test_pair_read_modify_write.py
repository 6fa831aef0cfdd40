"""COMPARE AND WRITE and ORWRITE on a pair: one step at the P-VOL, in one order at both halves (SBC-3 5.2, 5.6).

Only the P-VOL's array carries them out, so that one unit's range lock makes them indivisible. Their write is mirrored
like any other, under the range lock of the half: overlapping ones one after the other. What is left to guard against
is a pair that moves between the comparison and the write.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest

from storage_model.pair_state import PairState, PairVerb
from storage_model.spec.copy_frames import FrameType
from tests.unit.pair_in_memory import Pair, block
from tests.unit.reserving_hosts import GOOD, READ, WRITE, Host, host

MISCOMPARE, PROTECTED, ABORTED, NOT_READY = (0xE, 0x1D00), (7, 0x2700), (0xB, 0x0000), (2, 0x0400)
COMPARE_AND_WRITE = bytes((0x89, 0)) + bytes(11) + b"\x01"
ORWRITE = bytes((0x8B, 0)) + bytes(11) + b"\x01"

WRITE_SAME = bytes((0x93, 0)) + bytes(11) + b"\x01"
WRITE_SAME_UNMAP = bytes((0x93, 0x08)) + bytes(11) + b"\x01"


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    pair = Pair(quorum=False)
    await pair.start()
    await pair.mirror()
    yield pair
    await pair.stop()


def swap(text_before: str, text_after: str) -> bytes:
    return block(text_before) + block(text_after)


async def hosts(pair: Pair) -> tuple[Host, Host, Host]:
    made = host(pair.a, "first", 1), host(pair.a, "second", 2), host(pair.b, "other-site", 3)
    assert await made[0].answer(WRITE, block("0")) is GOOD
    return made


async def test_of_many_at_once_one_wins_each_round_and_the_halves_are_equal(pair: Pair) -> None:
    first, second, _ = await hosts(pair)
    value = 0
    for _ in range(10):
        data = swap(str(value), str(value + 1))
        answers = await asyncio.gather(*(each.answer(COMPARE_AND_WRITE, data) for each in (first, second) * 3))
        assert sorted(answers, key=str) == sorted([GOOD] + [MISCOMPARE] * 5, key=str)
        value += 1
    assert await pair.a.medium(0) == await pair.b.medium(0) == str(value)


async def test_a_chain_and_plain_writes_are_mirrored_in_their_order(pair: Pair) -> None:
    """Each command waits for the mirrored write of the one before: the frames carry the chain as it was compared."""
    first, second, _ = await hosts(pair)
    chain = [first.answer(COMPARE_AND_WRITE, swap(str(n), str(n + 1))) for n in range(5)]
    answers = await asyncio.gather(*chain, second.answer(WRITE, block("last")))
    written = [bytes(frame.payload)[:1] for frame in pair.wire.carried if frame.type is FrameType.WRITE]
    assert [answer for answer in answers if answer is not GOOD] in ([], [MISCOMPARE] * answers.count(MISCOMPARE))
    numbers = [text for text in written if text.isdigit()]
    assert numbers == sorted(numbers)
    assert await pair.a.medium(0) == await pair.b.medium(0)


async def test_bits_set_at_once_are_all_there_at_both(pair: Pair) -> None:
    first, second, _ = await hosts(pair)
    bits = [bytes([1 << n]).ljust(512, b"\0") for n in range(8)]
    answers = await asyncio.gather(*((first, second)[n % 2].answer(ORWRITE, bits[n]) for n in range(8)))
    assert set(answers) == {GOOD}
    for site in (pair.a, pair.b):
        assert bytes(await site.disk.volume.read(0, 1)) == b"\xff"


async def test_the_s_vol_compares_nothing(pair: Pair) -> None:
    _, _, other_site = await hosts(pair)
    assert await other_site.answer(COMPARE_AND_WRITE, swap("0", "1")) == PROTECTED
    assert await other_site.answer(ORWRITE, block("1")) == PROTECTED


@pytest.mark.parametrize(("cdb", "data"), [(COMPARE_AND_WRITE, swap("0", "1")), (ORWRITE, block("1"))])
async def test_a_pair_that_goes_to_the_other_site_and_back_meanwhile(pair: Pair, cdb: bytes, data: bytes) -> None:
    """What was compared is of the past: the other site has written since."""
    first, _, other_site = await hosts(pair)
    pair.a.disk.volume.hold_reads.clear()
    slow = asyncio.create_task(first.answer(cdb, data))
    await pair.quiet()
    for site, text in ((pair.b, "b"), (pair.a, "")):
        await site.do(PairVerb.SPLIT)
        await pair.until(PairState.PSUS)
        await site.do(PairVerb.SWAP_RESYNC)
        await pair.until(PairState.PAIR)
        if text:
            assert await other_site.answer(WRITE, block(text)) is GOOD
    pair.a.disk.volume.hold_reads.set()
    assert await slow == ABORTED
    assert await pair.a.medium(0) == await pair.b.medium(0) == "b"
    assert await first.answer(READ) is GOOD


@pytest.mark.parametrize(
    ("cdb", "data"),
    [
        (WRITE, block("late")),
        (COMPARE_AND_WRITE, swap("0", "late")),
        (ORWRITE, block("late")),
        (WRITE_SAME, block("late")),
        (WRITE_SAME_UNMAP, bytes(512)),
    ],
    ids=["write", "compare-and-write", "orwrite", "write-same", "write-same-unmap"],
)
async def test_what_waited_behind_another_command_is_not_the_new_owners(cdb: bytes, data: bytes) -> None:
    """The former owner's command was let through, and waits for its blocks while somebody else becomes the owner."""
    pair = Pair(quorum=True)
    await pair.start()
    await pair.mirror()
    former, latter = host(pair.a, "former", 1), host(pair.a, "latter", 2)
    for owner in (former, latter):
        await pair.a.do(PairVerb.SPLIT)
        await pair.until(PairState.PSUS)
        await pair.a.do(PairVerb.RESYNC, claim=owner.nexus)
        await pair.until(PairState.PAIR)
        if owner is former:
            assert await former.answer(WRITE, block("0")) is GOOD
            pair.a.disk.volume.hold_reads.clear()
            first = asyncio.create_task(former.answer(COMPARE_AND_WRITE, swap("0", "1")))
            await pair.quiet()
            late = asyncio.create_task(former.answer(cdb, data))
            await pair.quiet()
    pair.a.disk.volume.hold_reads.set()
    assert (await first, await late) == (ABORTED, ABORTED)
    assert await pair.a.medium(0) == await pair.b.medium(0) == "0"
    assert await latter.answer(WRITE, block("mine")) is GOOD
    await pair.stop()


async def test_a_swap_between_comparison_and_write(pair: Pair) -> None:
    first, _, _ = await hosts(pair)
    pair.a.disk.volume.hold_reads.clear()
    slow = asyncio.create_task(first.answer(COMPARE_AND_WRITE, swap("0", "1")))
    await pair.quiet()
    await pair.a.do(PairVerb.SPLIT)
    await pair.until(PairState.PSUS)
    await pair.b.do(PairVerb.SWAP_RESYNC)
    await pair.until(PairState.PAIR)
    pair.a.disk.volume.hold_reads.set()
    assert await slow in (ABORTED, PROTECTED, NOT_READY)
    assert await pair.a.medium(0) == await pair.b.medium(0) == "0"
