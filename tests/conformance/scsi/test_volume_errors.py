"""What storage answers becomes sense data here and nowhere else (SPC-4 4.5, annex F)."""

import pytest

from storage_model.errors import CheckCondition
from storage_model.spec.scsi_task import ScsiStatus
from storage_model.volume import MediumFailure, NotReady, ReplicationRefused, SpaceExhausted

READ, WRITE = "28 00 00000000 00 0001", "2a 00 00000000 00 0001"


@pytest.mark.parametrize(
    ("error", "cdb", "expected"),
    [
        (SpaceExhausted, WRITE, (0x7, 0x2707)),
        (ReplicationRefused, WRITE, (0x7, 0x2700)),
        (NotReady, READ, (0x2, 0x0400)),
        (NotReady, WRITE, (0x2, 0x0400)),
        (MediumFailure, READ, (0x3, 0x1100)),
        (MediumFailure, WRITE, (0x3, 0x0C00)),
    ],
)
async def test_each(bench, monkeypatch, error, cdb, expected):
    async def fail(*_args, **_options):
        raise error("told")

    monkeypatch.setattr(bench.volume, "read", fail)
    monkeypatch.setattr(bench.volume, "write", fail)
    sense = await bench.refused(cdb, b"x" * 512)
    assert (sense.sense_key, sense.asc_ascq) == expected
    assert len(bench.lu.tasks) == 0
    held = bench.lu.write_ranges.enter(0, 1)  # the range was given back
    bench.lu.write_ranges.release(held)


class _Pair:
    def __init__(self):
        self.answer: ScsiStatus | CheckCondition = ScsiStatus.GOOD
        self.asked = []
        self.heard = []

    def refuse(self, nexus, *, writes):
        self.asked.append(writes)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def released(self, nexus):
        self.heard.append(nexus)


async def test_the_pair_is_asked_before_the_medium_is_touched(bench):
    bench.lu.pair = pair = _Pair()
    await bench.good(READ)
    await bench.good(WRITE, b"x" * 512)
    await bench.good("00")
    assert pair.asked == [False, True]
    pair.answer = ScsiStatus.RESERVATION_CONFLICT
    assert (await bench.run(WRITE, b"y" * 512)).status is ScsiStatus.RESERVATION_CONFLICT
    pair.answer = CheckCondition(0x7, 0x2700)
    assert (await bench.refused(WRITE, b"y" * 512)).asc_ascq == 0x2700
    pair.answer = ScsiStatus.GOOD
    assert await bench.good(READ) == b"x" * 512


async def test_the_pair_hears_of_every_release(bench):
    bench.lu.pair = pair = _Pair()
    await bench.good("16")
    await bench.good("17", nexus=bench.nexus_b)
    await bench.good("57")
    assert pair.heard == [bench.nexus_b, bench.nexus_a]
