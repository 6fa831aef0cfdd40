"""Figure 4 through real CDBs: nine rows of role and state, pair resync and pair swap resync, each at its own array.

The expected answers are written from the figure: *normal* in exactly two of the eighteen cells, 130 and 131.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from initiator_shim.pair_client import PairRefused
from scripts.failover_drill.link_proxy import Cut
from storage_model.nexus import ITNexus
from storage_model.pair_state import PairRole, PairState
from storage_model.spec.pair_cdb import PairOut
from tests.integration.pair_of_arrays import ArrayUnderTest, PairOfArrays, PairSpec, pair_of_arrays

RESYNC, SWAP = PairOut.RESYNC, PairOut.SWAP_RESYNC
NORMAL = None
FIGURE_4 = [
    # own volume, state, command, answer: normal, or the sense key and ASC/ASCQ of the abnormal end
    ("SMPL", "SMPL", RESYNC, (0x5, 0x8001)),
    ("P-VOL", "COPY", RESYNC, (0x5, 0x8004)),
    ("P-VOL", "PAIR", RESYNC, (0x5, 0x8005)),
    ("P-VOL", "PSUS", RESYNC, NORMAL),  # 130
    ("P-VOL", "PSUE", RESYNC, (0x5, 0x8006)),
    ("S-VOL", "COPY", RESYNC, (0x5, 0x8004)),
    ("S-VOL", "PAIR", RESYNC, (0x5, 0x8005)),
    ("S-VOL", "PSUS", RESYNC, (0x5, 0x8003)),
    ("S-VOL", "PSUE", RESYNC, (0x5, 0x8006)),
    ("SMPL", "SMPL", SWAP, (0x5, 0x8001)),
    ("P-VOL", "COPY", SWAP, (0x5, 0x8004)),
    ("P-VOL", "PAIR", SWAP, (0x5, 0x8005)),
    ("P-VOL", "PSUS", SWAP, (0x5, 0x8002)),
    ("P-VOL", "PSUE", SWAP, (0x5, 0x8006)),
    ("S-VOL", "COPY", SWAP, (0x5, 0x8004)),
    ("S-VOL", "PAIR", SWAP, (0x5, 0x8005)),
    ("S-VOL", "PSUS", SWAP, NORMAL),  # 131
    ("S-VOL", "PSUE", SWAP, (0x5, 0x8006)),
]


@asynccontextmanager
async def pair_in_state(directory: Path, role: str, state: str) -> AsyncIterator[ArrayUnderTest]:
    """The array whose own volume has that role, in a pair in that state."""
    async with pair_of_arrays(directory, PairSpec("pair", size="16MiB")) as arrays:
        if state == "COPY":
            await hold_in_copy(arrays)
        elif state != "SMPL":
            await arrays.create()
        if state == "PSUS":
            await arrays.a.control(0, PairOut.SPLIT)
        if state == "PSUE":
            await arrays.cut()
            await arrays.mend()
        own = arrays.b if role == "S-VOL" else arrays.a
        status = await own.status(0)
        assert (status.role.label, status.state.name) == (role, state)
        yield own


async def hold_in_copy(arrays: PairOfArrays) -> None:
    """The initial copy has data to send, and the cable goes dead under it: COPY until silence is taken for a fault."""
    for lba in range(0, 16 << 11, 2048):
        await arrays.a.write(0, lba, bytes([lba >> 11 | 1]) * (1 << 20))
    await arrays.a.control(0, PairOut.CREATE)
    arrays.cable.cut(Cut.SILENT)


@pytest.mark.parametrize(("role", "state", "command", "answer"), FIGURE_4)
async def test_figure_4(
    tmp_path: Path, role: str, state: str, command: PairOut, answer: tuple[int, int] | None
) -> None:
    async with pair_in_state(tmp_path, role, state) as own:
        before = (await own.status(0)).epoch
        if answer is NORMAL:
            await own.control(0, command)
            assert (await own.status(0)).epoch == before + 1
            assert (await own.until(0, PairState.PAIR)).role is PairRole.P_VOL
            return
        with pytest.raises(PairRefused) as refused:
            await own.control(0, command)
        assert refused.value.refusal is not None
        assert (refused.value.refusal.sense_key, refused.value.refusal.asc_ascq) == answer
        status = await own.status(0)
        assert (status.role.label, status.state.name, status.epoch) == (role, state, before)


@pytest.mark.parametrize("first", ["P-VOL", "S-VOL", "both at once"])
async def test_race_out_of_psus_has_one_winner(tmp_path: Path, first: str) -> None:
    """¶38: whoever comes second meets a pair that is not suspended any more, and ends abnormally."""
    async with pair_of_arrays(tmp_path, PairSpec("quorum", quorum=True)) as arrays:
        await arrays.create()
        await arrays.a.control(0, PairOut.SPLIT)
        contenders = [(arrays.a, PairOut.RESYNC), (arrays.b, PairOut.SWAP_RESYNC)]
        if first == "S-VOL":
            contenders.reverse()

        async def contend(array: ArrayUnderTest, verb: PairOut) -> bool:
            claim = ITNexus(f"iqn.2026-11.org.pairvol:host-{array.site}", b"\0\2\x3d\0\0\1")
            try:
                await array.control(0, verb, claim=claim)
            except PairRefused:
                return False
            return True

        if first == "both at once":
            won = list(await asyncio.gather(*(contend(*contender) for contender in contenders)))
        else:
            won = [await contend(*contender) for contender in contenders]
            assert won == [True, False]
        assert won.count(True) == 1
        winner = contenders[won.index(True)][0]
        for array in (arrays.a, arrays.b):
            status = await array.until(0, PairState.PAIR)
            assert status.owner_serial == winner.serial
            assert status.role is (PairRole.P_VOL if array is winner else PairRole.S_VOL)
