"""kill -9 of either array during replicated writes, restart, resync: no acknowledged write is lost, every block is
checked.
"""

import asyncio
import re
import struct
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from initiator_shim.initiator_transport import IscsiSession
from initiator_shim.session_errors import SessionError
from storage_model.pair_state import PairState
from storage_model.spec.pair_cdb import PairOption, PairOut
from tests.eventually import eventually
from tests.integration.pair_of_arrays import BLOCK, ArrayUnderTest, PairOfArrays, PairSpec, pair_of_arrays, write_cdb

WORKERS = 8
BLOCKS_EACH = 512
RECORD = struct.Struct("!8sQQ")


def record(lba: int, sequence: int) -> bytes:
    return RECORD.pack(b"pairvol!", lba, sequence).ljust(BLOCK, b"\xa5")


@dataclass
class Writer:
    """Writes numbered records all over the volume, several at a time, and remembers what was acknowledged."""

    acknowledged: dict[int, int] = field(default_factory=dict)
    attempted: dict[int, int] = field(default_factory=dict)
    count: int = 0

    async def run(self, session: IscsiSession) -> None:
        """Until the session breaks, or a write is refused."""
        await asyncio.gather(*(self._work(session, worker) for worker in range(WORKERS)))

    async def _work(self, session: IscsiSession, worker: int) -> None:
        step = 0
        while True:
            # Steps of 37: neighbouring records fall into different regions, and come round again.
            lba = worker * BLOCKS_EACH + step * 37 % BLOCKS_EACH
            step += 1
            sequence = self.attempted.get(lba, 0) + 1
            self.attempted[lba] = sequence
            try:
                outcome = await session.execute(0, write_cdb(lba, 1), record(lba, sequence), timeout=10)
            except SessionError:
                return
            if outcome.status != 0:
                return
            self.acknowledged[lba] = sequence
            self.count += 1

    def check(self, content: bytes) -> int:
        """Each acknowledged record is there, or a later one of the same block; the number of blocks checked."""
        for lba, acknowledged in self.acknowledged.items():
            magic, at, sequence = RECORD.unpack_from(content, lba * BLOCK)
            assert (magic, at) == (b"pairvol!", lba), f"block {lba}: acknowledged record {acknowledged} is gone"
            assert acknowledged <= sequence <= self.attempted[lba], f"block {lba}: {sequence}, not {acknowledged}"
        return len(self.acknowledged)


async def read_all(array: ArrayUnderTest) -> bytes:
    content = bytearray()
    for lba in range(0, WORKERS * BLOCKS_EACH, 256):
        content += (await array.read(0, lba, 256)).data_in
    return bytes(content)


async def one_crash(arrays: PairOfArrays, victim: ArrayUnderTest, writer: Writer) -> None:
    """Kill the victim while records are on their way, bring it back, resync from the P-VOL, check every block at
    both.
    """
    session = await arrays.a.connect("iqn.2026-11.org.pairvol:writer")
    await session.execute(0, bytes(6))
    goal = writer.count + 300
    writing = asyncio.create_task(writer.run(session))
    await eventually(lambda: writer.count >= goal, within=30, what="300 records acknowledged")
    await victim.kill()
    if victim is arrays.b:
        more = writer.count + 100  # fence level never: the P-VOL goes on alone
        await eventually(lambda: writer.count >= more, within=30, what="100 more records without the other array")
    session.close()
    await writing
    await victim.start()
    await arrays.linked()
    writer.check(await read_all(arrays.a))
    for array in (arrays.a, arrays.b):
        assert (await array.status(0)).state is PairState.PSUE
    await arrays.a.control(0, PairOut.RESYNC, PairOption.GOOD_P_VOL)
    await arrays.a.until(0, PairState.PAIR)
    await arrays.b.until(0, PairState.PAIR)
    assert arrays.equal()
    assert writer.check(await read_all(arrays.b)) > 100


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["P-VOL's array", "S-VOL's array"])
async def test_no_acknowledged_write_is_lost(tmp_path: Path, victim: str) -> None:
    async with pair_of_arrays(tmp_path, PairSpec("data", size="2MiB")) as arrays:
        await arrays.create()
        writer = Writer()
        for _ in range(3):
            await one_crash(arrays, arrays.a if victim.startswith("P") else arrays.b, writer)


@pytest.mark.slow
async def test_acknowledged_writes_are_at_the_survivor_of_the_p_vols_array(tmp_path: Path) -> None:
    """Mirrored and acknowledged means there: the S-VOL's file has every record at the moment of the crash."""
    async with pair_of_arrays(tmp_path, PairSpec("data", size="2MiB", fence="data")) as arrays:
        await arrays.create()
        writer = Writer()
        session = await arrays.a.connect("iqn.2026-11.org.pairvol:writer")
        await session.execute(0, bytes(6))
        writing = asyncio.create_task(writer.run(session))
        await eventually(lambda: writer.count >= 500, within=30, what="500 records acknowledged")
        await arrays.a.kill()
        await writing
        assert writer.check(arrays.b.file("data")) > 100


@pytest.mark.slow
async def test_a_copy_that_broke_off_goes_on_where_it_was(tmp_path: Path) -> None:
    """kill -9 of the S-VOL's array in the initial copy: PSUE, and after the resync both halves are equal."""
    async with pair_of_arrays(tmp_path, PairSpec("data", size="64MiB")) as arrays:
        for lba in range(0, 64 << 11, 2048):
            await arrays.a.write(0, lba, lba.to_bytes(4, "big") * (1 << 18))
        await arrays.a.control(0, PairOut.CREATE)
        await arrays.b.kill()
        left = await arrays.a.until(0, PairState.PSUE)
        await arrays.b.start()
        await arrays.linked()
        assert 0 < left.differing_bytes <= 64 << 20
        await arrays.a.control(0, PairOut.RESYNC, PairOption.GOOD_P_VOL)
        await arrays.a.until(0, PairState.PAIR)
        await arrays.b.until(0, PairState.PAIR)
        assert arrays.equal()


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["P-VOL's array", "S-VOL's array"])
async def test_a_crash_in_mid_resync_repeats_only_what_was_left(tmp_path: Path, victim: str) -> None:
    """kill -9 after two seconds of three: what was copied before the checkpoint of the first does not travel again."""
    regions = 192 * 16
    async with pair_of_arrays(tmp_path, PairSpec("data", size="192MiB", copy_rate="64MiB")) as arrays:
        await arrays.create()  # of a hole: it takes no time
        await arrays.a.control(0, PairOut.SPLIT)
        for lba in range(0, 192 << 11, 2048):
            await arrays.a.write(0, lba, lba.to_bytes(4, "big") * (1 << 18))
        await arrays.a.control(0, PairOut.RESYNC)

        async def past_the_first_checkpoint() -> bool:
            return (await arrays.a.status(0)).differing_bytes < 64 << 20

        await eventually(past_the_first_checkpoint, within=30, what="two thirds of it copied")
        died = arrays.a if victim.startswith("P") else arrays.b
        await died.kill()
        if died is arrays.b:
            await arrays.a.until(0, PairState.PSUE)
        await died.start()
        await arrays.linked()
        await arrays.a.control(0, PairOut.RESYNC, PairOption.GOOD_P_VOL)
        await arrays.a.until(0, PairState.PAIR)
        await arrays.b.until(0, PairState.PAIR)
        assert arrays.equal()
        copies = re.findall(r"copied (\d+) regions, (\d+) bytes sent", arrays.a.log)
        repeated, sent = (int(figure) for figure in copies[-1])
        assert 0 < repeated <= regions - 1024
        assert sent == repeated * (64 << 10)
