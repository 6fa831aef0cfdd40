"""A consistency group of 16 pairs: created, taken over and deleted as one, whoever is killed, and suspended as one."""

import asyncio
import random
import time
from dataclasses import replace
from pathlib import Path

import pytest

from initiator_shim.pair_client import PairRefused
from initiator_shim.session_errors import SessionError
from scripts.failover_drill.link_proxy import Cut
from storage_model.nexus import ITNexus
from storage_model.pair_state import PairRole, PairState, Refusal
from storage_model.spec.pair_cdb import PairOption, PairOut, PairStatus, StatusFlag
from tests.eventually import eventually
from tests.integration.pair_of_arrays import BLOCK, ArrayUnderTest, PairOfArrays, PairSpec, pair_of_arrays
from tests.integration.test_pairctl_command import pairctl

PAIRS = 16
GROUP = PairOption.GROUP


def sixteen() -> list[PairSpec]:
    return [PairSpec(f"data{number:02}", "1MiB", group="db") for number in range(PAIRS)]


async def statuses(array: ArrayUnderTest) -> list[PairStatus]:
    return [await array.status(lun) for lun in range(PAIRS)]


async def create(arrays: PairOfArrays) -> None:
    await arrays.a.control(0, PairOut.CREATE, GROUP)
    await mirroring(arrays)


async def mirroring(arrays: PairOfArrays) -> None:
    for lun in range(PAIRS):
        for array in (arrays.a, arrays.b):
            await array.until(lun, PairState.PAIR)


async def settled(arrays: PairOfArrays) -> PairRole:
    """The role of all of A's volumes, when nothing is in doubt any more and the arrays agree."""

    async def agree() -> bool:
        both = [await statuses(arrays.a), await statuses(arrays.b)]
        flags = [status.flags for side in both for status in side]
        linked = all(StatusFlag.LINK_UP in each and StatusFlag.IN_DOUBT not in each for each in flags)
        return linked and [status.epoch for status in both[0]] == [status.epoch for status in both[1]]

    await eventually(agree, within=20, what="the arrays agree")
    mine, theirs = await statuses(arrays.a), await statuses(arrays.b)
    assert len({status.role for status in mine}) == len({status.role for status in theirs}) == 1, "I9: one side"
    assert {mine[0].role, theirs[0].role} in ({PairRole.P_VOL, PairRole.S_VOL}, {PairRole.SMPL})
    assert len({status.epoch for status in mine}) == 1
    return mine[0].role


async def recover(arrays: PairOfArrays) -> None:
    p_vol = arrays.a if (await arrays.a.status(0)).role is PairRole.P_VOL else arrays.b

    async def recovered() -> bool:
        """Refused while copies go on, or while an array has yet to notice that the other one was away."""
        suspended = [status for status in await statuses(p_vol) if status.state is PairState.PSUE]
        if suspended:
            lun = int(suspended[0].pair_name.removeprefix("data"))
            try:
                await p_vol.control(lun, PairOut.RESYNC, GROUP | PairOption.GOOD_P_VOL)
            except PairRefused:
                return False
        both = await statuses(arrays.a) + await statuses(arrays.b)
        return all(status.state is PairState.PAIR for status in both)

    await eventually(recovered, within=30, what="all mirrored again")


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["a", "b"])
async def test_kill_9_in_a_takeover_leaves_all_pairs_at_one_side(tmp_path: Path, killed: str) -> None:
    chance = random.Random(int(killed, 16))
    ends = []
    async with pair_of_arrays(tmp_path, *sixteen()) as arrays:
        await create(arrays)
        taken = 0.1  # seconds; what the takeovers need here is found out as they go
        for _ in range(5):
            s_vol = arrays.b if (await arrays.b.status(0)).role is PairRole.S_VOL else arrays.a
            victim = {"a": arrays.a, "b": arrays.b}[killed]
            before = await settled(arrays)
            began = time.monotonic()
            takeover = asyncio.create_task(s_vol.control(0, PairOut.SWAP_RESYNC, GROUP))
            await asyncio.wait([takeover], timeout=chance.uniform(0, 1.2 * taken))
            if takeover.done():
                taken = time.monotonic() - began
            await victim.kill()
            try:
                await takeover
                good = True
            except SessionError:
                good = False
            await victim.start()
            moved = await settled(arrays) is not before
            assert moved or not good, "GOOD is decided"
            ends.append((good, moved))
            await recover(arrays)
        assert all(arrays.equal(lun) for lun in range(PAIRS))
    print(f"\nkilled {killed}: (GOOD, moved) {ends}")


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["a", "b"])
async def test_kill_9_in_a_creation_or_deletion_leaves_all_pairs_or_none(tmp_path: Path, killed: str) -> None:
    chance = random.Random(int(killed, 16))
    ends = []
    async with pair_of_arrays(tmp_path, *sixteen()) as arrays:
        taken = 0.1  # seconds; what the changes need here is found out as they go
        for turn in range(8):
            paired = await settled(arrays) is not PairRole.SMPL
            asked = (arrays.a, arrays.b)[turn % 2]
            began = time.monotonic()
            change = asyncio.create_task(asked.control(0, PairOut.DELETE if paired else PairOut.CREATE, GROUP))
            await asyncio.wait([change], timeout=chance.uniform(0, 1.2 * taken))
            if change.done():
                taken = time.monotonic() - began
            victim = {"a": arrays.a, "b": arrays.b}[killed]
            await victim.kill()
            try:
                await change
                good = True
            except SessionError:
                good = False
            await victim.start()
            changed = (await settled(arrays) is not PairRole.SMPL) is not paired
            assert changed or not good, "GOOD is decided"
            ends.append((good, changed))
        if await settled(arrays) is PairRole.SMPL:
            await create(arrays)
        await recover(arrays)
        assert all(arrays.equal(lun) for lun in range(PAIRS))
    print(f"\nkilled {killed}: (GOOD, changed) {ends}")


async def test_created_and_deleted_as_one(tmp_path: Path) -> None:
    async with pair_of_arrays(tmp_path, *sixteen()) as arrays:
        await arrays.b.control(3, PairOut.CREATE)
        with pytest.raises(PairRefused) as refused:
            await arrays.a.control(0, PairOut.CREATE, GROUP)
        assert refused.value.refusal is Refusal.ALREADY_PAIRED
        assert [status.epoch for status in await statuses(arrays.a)] == [0, 0, 0, 1, *[0] * 12]
        await arrays.a.control(3, PairOut.DELETE, GROUP)
        await arrays.cut()
        with pytest.raises(PairRefused) as refused:
            await arrays.b.control(0, PairOut.CREATE, GROUP)
        assert refused.value.refusal is Refusal.PEER_UNREACHABLE
        await arrays.mend()
        await arrays.b.control(0, PairOut.CREATE, GROUP | PairOption.REMOTE_P_VOL)
        assert {status.role for status in await statuses(arrays.a)} == {PairRole.P_VOL}
        await mirroring(arrays)
        await arrays.cut()
        await arrays.b.control(5, PairOut.DELETE, GROUP | PairOption.FORCE)
        assert {status.role for status in await statuses(arrays.b)} == {PairRole.SMPL}
        await arrays.mend()
        for lun in range(PAIRS):
            await arrays.a.until(lun, PairState.SMPL)


async def test_one_volume_of_another_size_keeps_all_from_being_created(tmp_path: Path) -> None:
    pairs = sixteen()[:3]
    async with pair_of_arrays(tmp_path, *pairs) as arrays:
        await arrays.b.stop()
        before, _, behind = arrays.b.config.read_text().partition("lun = 1\n")
        arrays.b.config.write_text(f"{before}lun = 1\n{behind.replace('1MiB', '2MiB', 1)}")
        (arrays.b.state / "data01.vol").unlink()
        await arrays.b.start()
        await arrays.linked()
        for array in (arrays.a, arrays.b):
            with pytest.raises(PairRefused) as refused:
                await array.control(0, PairOut.CREATE, GROUP)
            assert refused.value.refusal is Refusal.VOLUMES_DIFFER
        assert "pair data01, so none of group db" in arrays.a.log
        for array in (arrays.a, arrays.b):
            assert {(await array.status(lun)).role for lun in range(3)} == {PairRole.SMPL}


async def test_s_vols_are_of_one_moment_when_the_link_is_lost(tmp_path: Path) -> None:
    """Every write is ordered behind the one before it, on the next volume: the other site has a prefix of them."""
    async with pair_of_arrays(tmp_path, *sixteen()) as arrays:
        await create(arrays)
        for turn, seconds in enumerate((0.05, 0.1, 0.2)):
            asyncio.get_running_loop().call_later(seconds, arrays.cable.cut, Cut.RESET)
            number = 0
            states = {PairState.PAIR}
            while PairState.PAIR in states or number % PAIRS:
                block = f"{turn}/{number}".encode().ljust(BLOCK, b"\0")
                outcome = await arrays.a.write(number % PAIRS, number // PAIRS % 2048, block)
                assert outcome.status == 0
                if number % PAIRS == PAIRS - 1:
                    told = [status.state for status in await statuses(arrays.a)]  # one after the other
                    assert told == sorted(told), "all at once: no PAIR is told after a PSUE"
                    states = set(told)
                number += 1
            files = [arrays.b.file(f"data{lun:02}") for lun in range(PAIRS)]
            arrived = []
            for each in range(number):
                at = each // PAIRS % 2048 * BLOCK
                arrived.append(files[each % PAIRS][at : at + BLOCK] == f"{turn}/{each}".encode().ljust(BLOCK, b"\0"))
            assert arrived == sorted(arrived, reverse=True) and any(arrived)
            await arrays.mend()
            await recover(arrays)


async def test_reserve_of_the_quorum_volume_takes_the_group_over(tmp_path: Path) -> None:
    """Figure 12 with a group: what the shim asks after its RESERVE (115 of Figure 5) moves the data as well."""
    quorum = PairSpec("quorum0", "1MiB", quorum=True, group="db")
    async with pair_of_arrays(tmp_path, quorum, *(replace(pair, group="db") for pair in sixteen()[1:4])) as arrays:
        for lun in range(4):
            await arrays.create(lun)
        await arrays.a.write(2, 5, b"data".ljust(BLOCK, b"\0"))
        await arrays.a.control(0, PairOut.SPLIT)
        await arrays.b.until(0, PairState.PSUS)
        host = ITNexus("iqn.2026-11.org.pairvol:host-b", bytes.fromhex("00023d00000b"), 1)
        await arrays.b.control(0, PairOut.SWAP_RESYNC, claim=host)
        for lun in range(4):
            assert (await arrays.b.status(lun)).role is PairRole.P_VOL
        assert (await arrays.b.status(0)).owner == host
        for lun in range(4):
            await arrays.a.until(lun, PairState.PAIR)
        assert (await arrays.b.read(2, 5)).data_in == b"data".ljust(BLOCK, b"\0")


async def test_takeover_of_16_pairs_is_one_decision(tmp_path: Path) -> None:
    async with pair_of_arrays(tmp_path, *sixteen()) as arrays:
        await create(arrays)
        seconds = []
        for turn in range(10):
            array = arrays.a if turn % 2 else arrays.b
            began = time.monotonic()
            await array.control(0, PairOut.SWAP_RESYNC, GROUP)
            seconds.append(time.monotonic() - began)
            assert {status.role for status in await statuses(array)} == {PairRole.P_VOL}, "all, when one is told GOOD"
            await mirroring(arrays)
        assert arrays.a.log.count("group db: decided as one") == 11
        milliseconds = sorted(1000 * each for each in seconds)
        print(f"\ntakeover of 16 pairs: {milliseconds[5]:.1f} ms (median), {milliseconds[-1]:.1f} ms (longest)")


async def test_deletion_by_force_of_a_group_of_which_one_pair_is_a_split_brain(tmp_path: Path) -> None:
    """Each pair is deleted as it would be alone, and how is told of each."""
    pairs = [PairSpec(name, fence="data", group="g") for name in ("data0", "data1")]
    async with pair_of_arrays(tmp_path, *pairs) as arrays:
        a, b = arrays.a, arrays.b
        await arrays.create(0)
        await arrays.create(1)
        await arrays.cut()
        for array in (b, a):
            await array.until(1, PairState.PSUE)
            assert await pairctl(array.port, "takeover", "data1", "--force", "--yes-i-know", "data1") in (
                (2, "", ""),
                (4, "", ""),
            )
        await a.write(1, 0, bytes(512))
        await b.write(1, 1, bytes(512))
        arrays.cable.restore()
        for array in (a, b):
            await array.until_linked(0)
        assert not (await a.status(1)).flags & StatusFlag.LINK_UP
        assert await pairctl(a.port, "delete", "-g", "g", "--force") == (
            0,
            "",
            "pairctl: delete data0: deleted by both arrays\n"
            "pairctl: delete data1: deleted by this array alone, as the pair is not connected; the other one follows"
            " when it hears of it\n",
        )
        for array in (a, b):
            for lun in (0, 1):
                await array.until(lun, PairState.SMPL)
