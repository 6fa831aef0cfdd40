"""An array that lost what it should remember takes no part in its pairs: its votes are gone, and its data."""

import shutil
from pathlib import Path

import pytest

from initiator_shim.pair_client import PairRefused
from scripts.failover_drill.processes import ProcessFailed
from storage_model.pair_state import PairState, Refusal
from storage_model.spec.pair_cdb import PairOption, PairOut
from tests.eventually import eventually
from tests.integration.pair_of_arrays import BLOCK, PairSpec, pair_of_arrays

DATA = PairSpec("data", size="2MiB")
RECORD = b"precious".ljust(BLOCK, b".")


async def test_array_without_its_state_directory_is_refused_until_the_pair_is_given_up(tmp_path: Path) -> None:
    async with pair_of_arrays(tmp_path, DATA) as arrays:
        await arrays.create()
        await arrays.a.write(0, 7, RECORD)
        await arrays.a.control(0, PairOut.SPLIT)
        await arrays.a.stop()
        shutil.rmtree(arrays.a.state)
        await arrays.a.start()
        reason = "is not the one that array 30096 shares pairs with"
        await eventually(lambda: reason in arrays.a.log, what="the reason in the log of array A")
        await eventually(lambda: reason in arrays.b.log, what="the reason in the log of array B")
        with pytest.raises(PairRefused) as refused:
            await arrays.b.control(0, PairOut.SWAP_RESYNC)
        assert refused.value.refusal is Refusal.PEER_UNREACHABLE
        await arrays.b.control(0, PairOut.DELETE, PairOption.FORCE)
        await arrays.linked()
        await arrays.b.control(0, PairOut.CREATE)  # from the side that has the data
        await arrays.a.until(0, PairState.PAIR)
        assert arrays.a.file("data")[7 * BLOCK : 8 * BLOCK] == RECORD
        assert arrays.equal()


async def test_missing_volume_file_of_a_pair_is_not_made_anew(tmp_path: Path) -> None:
    async with pair_of_arrays(tmp_path, DATA) as arrays:
        await arrays.create()
        await arrays.a.stop()
        (arrays.a.state / "data.vol").unlink()
        with pytest.raises(ProcessFailed, match=r"data\.vol is missing, but pair data is PSUE: restore it"):
            await arrays.a.start()


async def test_missing_bitmap_counts_every_region_as_different(tmp_path: Path) -> None:
    async with pair_of_arrays(tmp_path, DATA) as arrays:
        await arrays.create()
        await arrays.a.control(0, PairOut.SPLIT)
        await arrays.a.write(0, 7, RECORD)
        await arrays.a.stop()
        (arrays.a.state / "data.bitmap").unlink()
        await arrays.a.start()
        await arrays.linked()
        assert (await arrays.a.status(0)).differing_bytes == 2 << 20
        await arrays.a.control(0, PairOut.RESYNC)
        await arrays.b.until(0, PairState.PAIR)
        assert arrays.equal()
