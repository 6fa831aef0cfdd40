"""SBC-3 4.11.2: while a unit is sanitized it answers what tells nothing of the medium, and how far it is."""

import pytest

from storage_model.spec.scsi_sanitize import Overwrite
from storage_model.spec.scsi_sense import decode_sense
from storage_model.spec.scsi_task import ScsiStatus
from target.scsi.command_table import COMMAND_ROWS
from tests.conformance.scsi.bench import NEXUS_B
from tests.conformance.scsi.copy_bench import CopyBench, segment, segment_error
from tests.conformance.scsi.sanitize_bench import READ_ONE, REQUEST_SENSE, STEPS, SanitizeBench, Steps
from tests.eventually import eventually

IN_PROGRESS = "2h 04h/1Bh"
ALLOWED = {
    "INQUIRY",
    "REPORT_LUNS",
    "REQUEST_SENSE",
    "LOG_SENSE",
    "REPORT_SUPPORTED_OPERATION_CODES",
    "REPORT_SUPPORTED_TASK_MANAGEMENT_FUNCTIONS",
    "REPORT_TARGET_PORT_GROUPS",
    "REPORT_STATUS",
}


@pytest.fixture
async def unit():
    unit = await SanitizeBench().fill()
    await unit.overwrite(Overwrite(b"\xaa", 2))
    await unit.at_step()
    yield unit
    unit.steps.let_on(2 * STEPS)
    await unit.done()


@pytest.mark.parametrize("row", COMMAND_ROWS, ids=lambda row: row.name)
async def test_each_command(unit, row):
    cdb = bytes((row.operation_code, row.service_action or 0)).ljust(16, b"\0")
    outcome = await unit.bench.run(cdb, nexus=NEXUS_B)
    if row.name in ALLOWED:
        assert outcome.status is ScsiStatus.GOOD or str(decode_sense(outcome.sense)) != IN_PROGRESS
    else:
        assert str(decode_sense(outcome.sense)) == IN_PROGRESS


def test_the_allowed_ones_are_commands():
    assert {row.name for row in COMMAND_ROWS} >= ALLOWED


async def test_request_sense_and_check_conditions_tell_the_progress(unit):
    """In 65536ths of all passes: two of four steps, 8 in all."""
    for done in range(1, 6):
        told = decode_sense(await unit.bench.good(REQUEST_SENSE))
        assert (str(told), told.progress) == (IN_PROGRESS, (done - 1) * 65536 // 8)
        refused = await unit.bench.refused(READ_ONE)
        assert (str(refused), refused.progress) == (IN_PROGRESS, (done - 1) * 65536 // 8)
        unit.steps.let_on(1)
        while unit.lu.operation.condition().progress == told.progress:
            await unit.lu.operation.progressed()
        await unit.at_step()


async def test_a_second_one_is_refused(unit):
    assert str(decode_sense((await unit.overwrite(nexus=NEXUS_B)).sense)) == IN_PROGRESS


async def test_a_copy_from_there_or_to_there_is_refused():
    """The copy manager's READ is a READ, its WRITE a WRITE."""
    bench = CopyBench()
    bench.units[1].pace = steps = Steps()
    await bench.run("48 81 0000000000 0005", Overwrite(b"x").encode(), lun=1)
    await eventually(lambda: steps.waiting)
    told = await bench.refused(segment(1, 0, 1))
    assert str(told) == "Ah 0Dh/01h" and str(decode_sense(segment_error(told).sense)) == IN_PROGRESS
    told = await bench.refused(segment(0, 1, 1))
    assert str(told) == "Ah 0Dh/01h" and str(decode_sense(segment_error(told).sense)) == IN_PROGRESS
    steps.let_on(4)
    await eventually(lambda: bench.units[1].operation is None)


async def test_reserved_bits_come_first(unit):
    assert str(await unit.bench.refused("28 80 00000000 00 0001")) == "5h 24h/00h"
