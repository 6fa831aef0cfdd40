"""A copy to or from a unit that the initiator may not see (seen in LIO, CVE-2020-28374), and pair control of it.

The designator of a hidden unit can be known or guessed; it must name nothing, as one that was made up.
"""

import pytest

from storage_model.nexus import ITNexus
from storage_model.spec.pair_cdb import PairIn, PairOut
from storage_model.spec.scsi_copy import Cscd
from target.scsi.lun_mask import LunMask
from tests.conformance.scsi.copy_bench import OWN_UNIT, PATTERN, SIZE, CopyBench, segment, sense

MASKED = ITNexus("iqn.2026-11.org.example:masked", b"\x80\0\0\0\0\x09")
HIDDEN = 1


@pytest.fixture
async def bench() -> CopyBench:
    """``MASKED`` sees LUN 0 and 2; LUN 1 holds what is not its business."""
    bench = CopyBench()
    bench.log_in(MASKED, LunMask(frozenset({0, 2})))
    await bench.units[HIDDEN].volume.write(0, PATTERN)
    return bench


def as_masked(bench: CopyBench, *segments, lun: int = 0):
    return bench.copy(bench.request(*segments), MASKED, lun)


@pytest.mark.parametrize(
    "one_segment",
    [
        segment(HIDDEN, 0, 8),
        segment(HIDDEN, 2, 8),
        segment(HIDDEN, OWN_UNIT, 8),
        segment(0, HIDDEN, 8),
        segment(OWN_UNIT, HIDDEN, 8),
        segment(HIDDEN, HIDDEN, 8, 0, 8),
    ],
)
async def test_a_hidden_unit_is_not_reachable(bench: CopyBench, one_segment) -> None:
    told = sense(await as_masked(bench, one_segment))
    assert str(told) == "Ah 0Dh/02h"
    assert await bench.content(HIDDEN) == PATTERN
    assert await bench.content(0) == await bench.content(2) == bytes(SIZE)


async def test_the_answer_does_not_tell_it_from_a_unit_that_is_none(bench: CopyBench) -> None:
    hidden = await as_masked(bench, segment(0, HIDDEN, 8))
    none: Cscd = bench.cscd(HIDDEN)
    del bench.server.logical_units[HIDDEN]  # type: ignore[attr-defined]
    assert bench.cscd(HIDDEN) == none
    assert (await as_masked(bench, segment(0, HIDDEN, 8))).sense == hidden.sense


async def test_the_segments_before_it_are_copied_and_those_after_it_are_not(bench: CopyBench) -> None:
    await bench.units[0].volume.write(0, PATTERN)
    told = sense(await as_masked(bench, segment(0, 2, 8), segment(0, HIDDEN, 8), segment(0, 2, 8, 0, 1)))
    assert told.segment is not None and told.segment.number == 1
    assert await bench.content(2) == PATTERN[:4096] + bytes(SIZE - 4096)


async def test_those_who_see_it_copy_it(bench: CopyBench) -> None:
    await bench.good(segment(HIDDEN, 0, 8))
    assert (await bench.content(0))[:4096] == PATTERN[:4096]


@pytest.mark.parametrize("cdb", ["83", "84 03", "84 00 07"])
async def test_a_hidden_unit_has_no_copy_manager(bench: CopyBench, cdb: str) -> None:
    assert str(sense(await bench.run(cdb, b"", MASKED, HIDDEN))) == "5h 25h/00h"


@pytest.mark.parametrize("action", [*PairIn, *PairOut])
async def test_pair_control_of_a_hidden_unit(bench: CopyBench, action: PairIn | PairOut) -> None:
    opcode = "c0" if isinstance(action, PairIn) else "c1"
    outcome = await bench.run(f"{opcode} {action:02x}", bytes(512), MASKED, HIDDEN)
    assert str(sense(outcome)) == "5h 25h/00h"
    seen = await bench.run(f"{opcode} {action:02x}", bytes(512), MASKED, 0)
    assert not seen.status or str(sense(seen)) != "5h 25h/00h", "the same, where it may be seen"
