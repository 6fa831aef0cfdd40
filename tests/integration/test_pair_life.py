"""A pair's life through real CDBs, between two array processes: Figure 3."""

from pathlib import Path

import pytest

from initiator_shim.pair_client import PairRefused
from storage_model.pair_state import PairRole, PairState, Refusal
from storage_model.spec.pair_cdb import PairOption, PairOut
from tests.integration.pair_of_arrays import BLOCK, PairSpec, pair_of_arrays, sense_of

DATA = PairSpec("data")


def block(text: str) -> bytes:
    return text.encode().ljust(BLOCK, b".")


async def test_writes_before_and_after_creation_reach_the_s_vol(tmp_path: Path) -> None:
    async with pair_of_arrays(tmp_path, DATA) as arrays:
        await arrays.a.write(0, 3, block("before"))
        await arrays.create()
        assert (await arrays.a.write(0, 9, block("after"))).status == 0
        assert arrays.b.file("data")[3 * BLOCK : 4 * BLOCK] == block("before")
        assert arrays.b.file("data")[9 * BLOCK : 10 * BLOCK] == block("after")
        assert arrays.equal()
        assert (await arrays.b.read(0, 9)).data_in == block("after")


async def test_s_vol_refuses_writes(tmp_path: Path) -> None:
    async with pair_of_arrays(tmp_path, DATA) as arrays:
        await arrays.create()
        assert sense_of(await arrays.b.write(0, 0, block("no"))) == (0x7, 0x2700)
        await arrays.a.control(0, PairOut.SPLIT)
        assert sense_of(await arrays.b.write(0, 0, block("no"))) == (0x7, 0x2700)


async def test_split_remembers_and_resync_copies_only_what_changed(tmp_path: Path) -> None:
    async with pair_of_arrays(tmp_path, DATA) as arrays:
        await arrays.create()
        await arrays.b.control(0, PairOut.SPLIT)  # either array accepts the command (¶31)
        await arrays.a.write(0, 1000, block("while suspended"))
        status = await arrays.a.status(0)
        assert (status.state, status.differing_bytes) == (PairState.PSUS, 65536)
        assert not arrays.equal()
        await arrays.a.control(0, PairOut.RESYNC)
        await arrays.a.until(0, PairState.PAIR)
        await arrays.b.until(0, PairState.PAIR)
        assert arrays.equal()


async def test_swap_resync_keeps_what_the_old_p_vol_acknowledged(tmp_path: Path) -> None:
    async with pair_of_arrays(tmp_path, DATA) as arrays:
        await arrays.create()
        await arrays.a.control(0, PairOut.SPLIT)
        await arrays.a.write(0, 77, block("acknowledged by A"))
        await arrays.b.control(0, PairOut.SWAP_RESYNC)
        # At once, whether the region has been fetched yet or not: never stale.
        assert (await arrays.b.read(0, 77)).data_in == block("acknowledged by A")
        status = await arrays.b.until(0, PairState.PAIR)
        assert status.role is PairRole.P_VOL
        assert (await arrays.a.status(0)).role is PairRole.S_VOL
        assert (await arrays.b.write(0, 78, block("by B"))).status == 0
        assert sense_of(await arrays.a.write(0, 78, block("no"))) == (0x7, 0x2700)
        assert arrays.equal()


async def test_swap_refused_when_both_sides_were_written(tmp_path: Path) -> None:
    async with pair_of_arrays(tmp_path, DATA) as arrays:
        await arrays.create()
        await arrays.a.control(0, PairOut.SPLIT, PairOption.S_VOL_WRITABLE)
        assert (await arrays.a.write(0, 1, block("A's"))).status == 0
        assert (await arrays.b.write(0, 2000, block("B's"))).status == 0
        with pytest.raises(PairRefused) as refused:
            await arrays.b.control(0, PairOut.SWAP_RESYNC)
        assert refused.value.refusal is Refusal.BOTH_WRITTEN
        await arrays.b.control(0, PairOut.SWAP_RESYNC, PairOption.GOOD_S_VOL)
        await arrays.b.until(0, PairState.PAIR)
        await arrays.a.until(0, PairState.PAIR)
        assert arrays.equal()
        assert (await arrays.a.read(0, 2000)).data_in == block("B's")
        assert (await arrays.a.read(0, 1)).data_in == bytes(BLOCK)


async def test_delete_makes_two_volumes_again(tmp_path: Path) -> None:
    async with pair_of_arrays(tmp_path, DATA) as arrays:
        await arrays.create()
        before = (await arrays.a.status(0)).epoch
        await arrays.b.control(0, PairOut.DELETE)
        for array in (arrays.a, arrays.b):
            status = await array.status(0)
            assert (status.role, status.state, status.epoch) == (PairRole.SMPL, PairState.SMPL, before + 1)
        assert (await arrays.b.write(0, 5, block("own"))).status == 0
        assert not arrays.equal()


async def test_expected_epoch_makes_a_verb_conditional(tmp_path: Path) -> None:
    async with pair_of_arrays(tmp_path, DATA) as arrays:
        await arrays.create()
        await arrays.a.control(0, PairOut.SPLIT)
        read = (await arrays.a.status(0)).epoch
        await arrays.a.control(0, PairOut.RESYNC, epoch=read)
        await arrays.a.until(0, PairState.PAIR)
        await arrays.a.control(0, PairOut.SPLIT)
        with pytest.raises(PairRefused) as refused:
            await arrays.a.control(0, PairOut.RESYNC, epoch=read)
        assert refused.value.refusal is Refusal.EPOCH_MOVED
        assert (await arrays.a.status(0)).state is PairState.PSUS


async def test_lost_link_suspends_by_error_and_an_explicit_resync_recovers(tmp_path: Path) -> None:
    async with pair_of_arrays(tmp_path, DATA) as arrays:
        await arrays.create()
        await arrays.cut()
        await arrays.a.until(0, PairState.PSUE)
        await arrays.b.until(0, PairState.PSUE)
        assert (await arrays.a.write(0, 50, block("alone"))).status == 0  # fence level never
        await arrays.mend()
        assert (await arrays.a.status(0)).state is PairState.PSUE
        with pytest.raises(PairRefused) as refused:
            await arrays.a.control(0, PairOut.RESYNC)
        assert refused.value.refusal is Refusal.SUSPENDED_BY_ERROR
        await arrays.b.control(0, PairOut.RESYNC, PairOption.GOOD_P_VOL)
        await arrays.a.until(0, PairState.PAIR)
        await arrays.b.until(0, PairState.PAIR)
        assert arrays.equal()
        assert (await arrays.b.read(0, 50)).data_in == block("alone")


@pytest.mark.parametrize("fence", ["data", "status"])
async def test_fence_level_refuses_a_write_that_cannot_be_mirrored(tmp_path: Path, fence: str) -> None:
    async with pair_of_arrays(tmp_path, PairSpec("data", fence=fence)) as arrays:
        await arrays.create()
        await arrays.cut()
        assert sense_of(await arrays.a.write(0, 0, block("lost"))) == (0x7, 0x2700)
        await arrays.mend()
        outcome = await arrays.a.write(0, 0, block("later"))
        # The link is back: the other array shows the pair as suspended, which is what fence level status asks for.
        assert (outcome.status == 0) == (fence == "status")


async def test_pair_state_survives_a_restart(tmp_path: Path) -> None:
    async with pair_of_arrays(tmp_path, PairSpec("kept"), PairSpec("mirrored")) as arrays:
        await arrays.create(0)
        await arrays.create(1)
        await arrays.a.control(0, PairOut.SPLIT)
        epoch = (await arrays.a.status(0)).epoch
        await arrays.b.stop()
        await arrays.b.start()
        await arrays.linked()
        assert (await arrays.b.status(0)).state is PairState.PSUS
        assert (await arrays.b.status(0)).epoch == epoch
        for array in (arrays.a, arrays.b):
            assert (await array.status(1)).state is PairState.PSUE
