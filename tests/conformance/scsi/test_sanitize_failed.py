"""SBC-3 4.11.3, 5.24.2.5: a sanitize operation that fails keeps the data locked away, and how that is left."""

import asyncio

import pytest

from storage_model.spec.scsi_sense import decode_sense
from storage_model.spec.scsi_task import ScsiStatus
from storage_model.volume import MediumFailure, SpaceExhausted
from target.volumes.memory_volume import MemoryVolume
from tests.conformance.scsi.sanitize_bench import READ_ONE, REQUEST_SENSE, SIZE, STEPS, WRITE_ONE, SanitizeBench

FAILED = "3h 31h/03h"
EXIT = "48 1f"


class Failing(MemoryVolume):
    error: Exception | None = None

    async def write(self, offset_bytes, data, *, fua=False):
        if self.error is not None and offset_bytes >= 1 << 20:
            raise self.error
        await super().write(offset_bytes, data, fua=fua)


async def failed_unit(*, ause: bool, error: Exception | None = None) -> SanitizeBench:
    volume = Failing(SIZE, 512)
    unit = await SanitizeBench(volume).fill()
    volume.error = error or MediumFailure("scratched")
    unit.steps.let_on(STEPS)
    outcome = await unit.overwrite(immed=False, ause=ause)
    assert str(decode_sense(outcome.sense)) == FAILED, "SANITIZE COMMAND FAILED"
    volume.error = None
    return unit


@pytest.mark.parametrize("error", [MediumFailure("scratched"), SpaceExhausted("full"), OSError("a bug")])
async def test_the_command_and_those_after_it(error):
    unit = await failed_unit(ause=False, error=error)
    for cdb in ("00", READ_ONE, WRITE_ONE, "1a 00 3f 00 ff", "1b 00 00 00 01", "04", "35"):
        assert str(await unit.bench.refused(cdb, bytes(512))) == FAILED
    assert str(decode_sense(await unit.bench.good(REQUEST_SENSE))) == FAILED
    await unit.bench.good("12 00 00 00 60")
    assert unit.notes.kept is not None and unit.notes.kept.failed


async def test_the_restricted_mode_is_left_by_a_success_only():
    unit = await failed_unit(ause=False)
    assert str(await unit.bench.refused(EXIT)) == "5h 24h/00h"
    unit.steps.let_on(STEPS)
    outcome = await unit.overwrite(immed=False, ause=True)
    assert str(decode_sense(outcome.sense)) == "5h 24h/00h", "nor by way of the unrestricted one"
    assert (await unit.overwrite(immed=False)).status is ScsiStatus.GOOD
    await unit.bench.good(READ_ONE)
    assert await unit.content() == b"\xaa" * SIZE and unit.notes.kept is None


async def test_the_unrestricted_mode_can_be_left():
    unit = await failed_unit(ause=True)
    await unit.bench.good(EXIT)
    await unit.bench.good(READ_ONE)
    assert unit.notes.kept is None


async def test_exit_without_a_failure_is_no_error():
    await SanitizeBench().bench.good(EXIT)


async def test_exit_has_no_parameter_list():
    assert str(await SanitizeBench().bench.refused("48 1f 0000000000 0008", bytes(8))) == "5h 24h/00h"


async def test_what_cannot_be_noted_does_not_begin():
    """After a restart nobody would know of it."""
    unit = await SanitizeBench().fill()
    unit.notes.broken = True
    assert str(decode_sense((await unit.overwrite()).sense)) == "4h 44h/00h"
    assert unit.lu.operation is None and await unit.content() == b"k" * SIZE
    await unit.bench.good(READ_ONE)


async def test_what_cannot_be_noted_does_not_undo_a_failure():
    unit = await failed_unit(ause=True)
    unit.notes.broken = True
    assert (await unit.overwrite()).status is ScsiStatus.CHECK_CONDITION
    assert str(await unit.bench.refused(READ_ONE)) == FAILED
    assert (await unit.bench.run(EXIT)).status is ScsiStatus.CHECK_CONDITION
    assert str(await unit.bench.refused(READ_ONE)) == FAILED


async def test_exit_leaves_a_new_operation_alone():
    """One that begins while the exit is being noted: no command may come between."""
    unit = await failed_unit(ause=True)
    save, permits = unit.notes.save, asyncio.Semaphore(0)

    async def slow(operation):
        await permits.acquire()
        await save(operation)

    unit.notes.save = slow  # type: ignore[method-assign]
    leaving = asyncio.create_task(unit.bench.run(EXIT))
    await asyncio.sleep(0)
    again = asyncio.create_task(unit.overwrite(ause=True))
    await asyncio.sleep(0)
    permits.release()
    assert (await leaving).status is ScsiStatus.GOOD
    assert not unit.lu.accessible
    for _ in range(STEPS):
        permits.release()
    assert (await again).status is ScsiStatus.GOOD
    unit.steps.let_on(STEPS)
    await unit.done()
