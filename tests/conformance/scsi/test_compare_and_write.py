"""COMPARE AND WRITE (SBC-3 5.2)."""

import asyncio

import pytest

from storage_model.spec.scsi_cdb import OperationCode, encode_block_cdb
from storage_model.spec.scsi_task import ScsiStatus

OLD, NEW, OTHER = b"o" * 512, b"n" * 512, b"x" * 512
READ = encode_block_cdb(OperationCode.READ_10, 4, 1)


def cdb(lba, count, flags=0):
    return bytes((0x89, flags)) + lba.to_bytes(8, "big") + bytes((0, 0, 0, count, 0, 0))


async def write(bench, data, lba=4):
    await bench.good(encode_block_cdb(OperationCode.WRITE_10, lba, len(data) // 512), data)


async def test_writes_when_equal(bench):
    await write(bench, OLD)
    outcome = await bench.run(cdb(4, 1), OLD + NEW)
    assert outcome.status is ScsiStatus.GOOD and outcome.transfer_length_bytes == 1024
    assert await bench.good(READ) == NEW


async def test_miscompare_writes_nothing(bench):
    await write(bench, OLD)
    sense = await bench.refused(cdb(4, 1), OLD[:-1] + b"!" + NEW)
    assert (sense.sense_key, sense.asc_ascq, sense.information) == (0xE, 0x1D00, 511)
    assert await bench.good(READ) == OLD


@pytest.mark.parametrize("sent", [0, 512, 1023, 1025, 2048])
async def test_wrong_data_length_is_refused(bench, sent):
    assert (await bench.refused(cdb(4, 1), b"o" * sent)).asc_ascq == 0x2400


async def test_no_blocks_is_no_error(bench):
    await bench.good(cdb(4, 0))


async def test_of_two_at_once_one_wins(slow_bench, slow_volume):
    slow_volume.let_go.set()
    await write(slow_bench, OLD)
    outcomes = await asyncio.gather(
        slow_bench.run(cdb(4, 1), OLD + NEW), slow_bench.run(cdb(4, 1), OLD + OTHER, slow_bench.nexus_b)
    )
    assert sorted(outcome.status for outcome in outcomes) == [ScsiStatus.GOOD, ScsiStatus.CHECK_CONDITION]


async def test_waits_for_an_earlier_write_and_holds_a_later_one_back(slow_bench, slow_volume):
    earlier = asyncio.create_task(write(slow_bench, OLD))
    await slow_volume.waiting.wait()
    compare = asyncio.create_task(slow_bench.run(cdb(4, 1), OLD + NEW))
    await asyncio.sleep(0)
    later = asyncio.create_task(write(slow_bench, OTHER))
    await asyncio.sleep(0)
    assert not compare.done()
    slow_volume.let_go.set()
    await asyncio.gather(earlier, later)
    assert (await compare).status is ScsiStatus.GOOD
    assert await slow_bench.good(READ) == OTHER
