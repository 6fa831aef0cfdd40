"""SPC-4 6.4.4: a copy may do what its I_T nexus may: the source as a READ, the destination as a WRITE."""

import pytest

from storage_model.spec.scsi_sense import decode_sense
from storage_model.spec.scsi_task import ScsiStatus
from target.scsi.lun_mask import LunMask
from tests.conformance.scsi.bench import NEXUS_A, NEXUS_B
from tests.conformance.scsi.copy_bench import PATTERN, SIZE, CopyBench, segment, segment_error

WRITE_EXCLUSIVE, EXCLUSIVE_ACCESS, WRITE_EXCLUSIVE_REGISTRANTS = 1, 3, 5
TO_1, FROM_1 = segment(0, 1, 8), segment(1, 0, 8)


async def reserve_persistently(bench, lun, kind, nexus=NEXUS_B):
    key, keys = bytes(7) + b"\x0b", bytes(8) + bytes(7) + b"\x0b" + bytes(8)
    assert not (await bench.run("5f 00 00 0000 00000018", keys, nexus, lun)).status
    outcome = await bench.run(f"5f 01 {kind:02x} 0000 00000018", key + bytes(16), nexus, lun)
    assert not outcome.status


async def refusal(bench, one_segment):
    told = await bench.refused(one_segment)
    assert str(told) == "Ah 0Dh/01h"
    assert await bench.content(1) == bytes(SIZE) and await bench.content(0) == PATTERN
    return told.segment


@pytest.mark.parametrize(("one_segment", "at_destination"), [(TO_1, True), (FROM_1, False)])
async def test_reserved_by_another_nexus(one_segment, at_destination):
    """RESERVE keeps out reads and writes (SPC-2 table 10)."""
    bench = await CopyBench().fill()
    await bench.run("16", nexus=NEXUS_B, lun=1)
    error = await refusal(bench, one_segment)
    assert (error.at_destination, error.status) == (at_destination, ScsiStatus.RESERVATION_CONFLICT)


async def test_the_unit_of_the_command_reserved_by_another_nexus():
    bench = await CopyBench().fill()
    await bench.run("16", nexus=NEXUS_B, lun=0)
    outcome = await bench.copy(bench.request(TO_1))
    assert outcome.status is ScsiStatus.RESERVATION_CONFLICT
    assert await bench.content(1) == bytes(SIZE)


async def test_reserved_by_the_nexus_itself():
    bench = await CopyBench().fill()
    await bench.run("16", lun=0)
    await bench.run("16", lun=1)
    await bench.good(TO_1)


@pytest.mark.parametrize("kind", [WRITE_EXCLUSIVE, EXCLUSIVE_ACCESS, WRITE_EXCLUSIVE_REGISTRANTS])
async def test_destination_with_a_persistent_reservation(kind):
    """SPC-4 tables 66 and 67: every type keeps a nexus that is not registered from writing."""
    bench = await CopyBench().fill()
    await reserve_persistently(bench, 1, kind)
    error = await refusal(bench, TO_1)
    assert (error.at_destination, error.status) == (True, ScsiStatus.RESERVATION_CONFLICT)


@pytest.mark.parametrize(("kind", "allowed"), [(WRITE_EXCLUSIVE, True), (EXCLUSIVE_ACCESS, False)])
async def test_source_with_a_persistent_reservation(kind, allowed):
    """Write Exclusive lets everybody read, Exclusive Access nobody else."""
    bench = await CopyBench().fill()
    await reserve_persistently(bench, 1, kind)
    if allowed:
        await bench.good(FROM_1)
    else:
        error = await refusal(bench, FROM_1)
        assert (error.at_destination, error.status) == (False, ScsiStatus.RESERVATION_CONFLICT)


async def test_a_reservation_that_comes_in_between_ends_it():
    bench = await CopyBench().fill()
    write = bench.units[1].volume.write

    async def write_and_reserve(offset_bytes, data, *, fua=False):
        await write(offset_bytes, data, fua=fua)
        bench.units[1].reservation.reserve(NEXUS_B)

    bench.units[1].volume.write = write_and_reserve  # type: ignore[method-assign]
    told = await bench.refused(segment(0, 1, SIZE // 512))
    assert (segment_error(told).at_destination, segment_error(told).status) == (True, ScsiStatus.RESERVATION_CONFLICT)
    assert await bench.content(1) == PATTERN[: 1 << 20] + bytes(SIZE - (1 << 20))


async def test_write_protected_destination():
    bench = await CopyBench().fill()
    bench.units[1].write_protected = True
    error = await refusal(bench, TO_1)
    assert str(decode_sense(error.sense)) == "7h 27h/02h"
    await bench.good(FROM_1)


async def test_a_nexus_that_may_only_read():
    bench = await CopyBench().fill()
    bench.log_in(NEXUS_A, LunMask(None, read_only=True))
    error = await refusal(bench, TO_1)
    assert error.at_destination and str(decode_sense(error.sense)) == "7h 27h/00h"


async def test_stopped_unit():
    bench = await CopyBench().fill()
    bench.units[1].started = False
    assert str(decode_sense((await refusal(bench, TO_1)).sense)) == "2h 04h/02h"
    assert str(decode_sense((await refusal(bench, FROM_1)).sense)) == "2h 04h/02h"


class Pair:
    def __init__(self):
        self.asked = []

    def refuse(self, nexus, *, writes):
        self.asked.append((nexus, writes))
        return ScsiStatus.RESERVATION_CONFLICT


@pytest.mark.parametrize(("one_segment", "writes"), [(TO_1, True), (FROM_1, False)])
async def test_a_pair_is_asked(one_segment, writes):
    bench = await CopyBench().fill()
    pair = Pair()
    bench.units[1].pair = pair  # type: ignore[assignment]
    error = await refusal(bench, one_segment)
    assert error.status == ScsiStatus.RESERVATION_CONFLICT
    assert pair.asked == [(NEXUS_A, writes)]


async def test_a_unit_attention_waits_for_the_host():
    """The host hears at LUN 1 what happened there; the copy manager's commands do not."""
    bench = await CopyBench().fill()
    bench.units[1].unit_attentions.add_nexus(NEXUS_A)
    await bench.good(TO_1)
    assert (await bench.content(1))[:4096] == PATTERN[:4096]
    outcome = await bench.run("00", lun=1)
    assert str(decode_sense(outcome.sense)) == "6h 29h/00h"
