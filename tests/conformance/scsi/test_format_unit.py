"""FORMAT UNIT (SBC-3 5.3)."""

import pytest

from storage_model.spec.scsi_sense import decode_sense
from storage_model.spec.scsi_task import ScsiStatus
from storage_model.volume import MediumFailure
from target.scsi.command_table import COMMAND_ROWS
from target.volumes.memory_volume import MemoryVolume
from tests.conformance.scsi.bench import NEXUS_B
from tests.conformance.scsi.sanitize_bench import READ_ONE, REQUEST_SENSE, SIZE, STEPS, WRITE_ONE, SanitizeBench

FMTDATA, LONGLIST = 0x10, 0x20
IMMED, IP = 0x02, 0x88  # FOV with IP


def parameters(flags=0, pattern=None, *, long=False):
    header = bytes((0, flags)) + bytes(6 if long else 2)
    if pattern is None:
        return header
    return header + b"\0\x01" + len(pattern).to_bytes(2, "big") + pattern


@pytest.fixture
async def unit():
    return await SanitizeBench().fill()


@pytest.mark.parametrize(("cdb", "data"), [("04", b""), ("04 10", parameters()), ("04 30", parameters(long=True))])
async def test_the_default_pattern_is_zeros(unit, cdb, data):
    await unit.bench.good(cdb, data)
    assert await unit.content() == bytes(SIZE)
    await unit.bench.good(READ_ONE)


async def test_a_thin_unit_is_unmapped(unit):
    await unit.bench.good("04")
    assert not any(extent.mapped for extent in await unit.bench.volume.block_status(0, SIZE))


@pytest.mark.parametrize("long", [False, True])
async def test_initialization_pattern(unit, long):
    unit.steps.let_on(STEPS)
    cdb = bytes((0x04, FMTDATA | (LONGLIST if long else 0)))
    await unit.bench.good(cdb, parameters(IP, b"abc", long=long))
    assert await unit.content() == (b"abc" * 171)[:512] * (SIZE // 512)


async def test_immed_and_progress(unit):
    assert not (await unit.bench.run("04 10", parameters(IP | IMMED, b"x"))).status
    await unit.at_step()
    unit.steps.let_on(1)
    while not unit.lu.operation.condition().progress:
        await unit.lu.operation.progressed()
    told = decode_sense(await unit.bench.good(REQUEST_SENSE))
    assert (str(told), told.progress) == ("2h 04h/04h", 65536 // STEPS)
    unit.steps.let_on(STEPS)
    await unit.done()


@pytest.mark.parametrize("row", COMMAND_ROWS, ids=lambda row: row.name)
async def test_each_command_while_it_runs(unit, row):
    """INQUIRY, REPORT LUNS and REQUEST SENSE are processed, all others NOT READY (SBC-3 5.3.1)."""
    await unit.bench.run("04 10", parameters(IP | IMMED, b"x"))
    await unit.at_step()
    cdb = bytes((row.operation_code, row.service_action or 0)).ljust(16, b"\0")
    outcome = await unit.bench.run(cdb, nexus=NEXUS_B)
    refused = outcome.status is ScsiStatus.CHECK_CONDITION and str(decode_sense(outcome.sense)) == "2h 04h/04h"
    # The pair status is the array's, not the medium's: a vendor command.
    assert refused is (row.name not in ("INQUIRY", "REPORT_LUNS", "REQUEST_SENSE", "REPORT_STATUS"))
    unit.steps.let_on(STEPS)
    await unit.done()


@pytest.mark.parametrize(
    ("byte_1", "data", "code", "pointer"),
    [
        (0x80, b"", "24h/00h", 1),  # FMTPINFO
        (0x08, b"", "24h/00h", 1),  # CMPLST without a list
        (0x04, b"", "24h/00h", 1),  # DEFECT LIST FORMAT without a list
        (0x10, b"", "1Ah/00h", None),
        (0x10, b"\0\0\0", "1Ah/00h", None),
        (0x30, bytes(7), "1Ah/00h", None),
        (0x10, b"\x01\0\0\0", "26h/00h", 0),  # PROTECTION FIELD USAGE
        (0x10, b"\0\x40\0\0", "26h/00h", 1),  # DPRY without FOV
        (0x10, b"\0\x01\0\0", "26h/00h", 1),  # vendor specific
        (0x10, b"\0\0\0\x08" + bytes(8), "26h/00h", 2),  # a defect list
        (0x30, b"\0\0\0\x10" + bytes(4), "26h/00h", 3),  # PROTECTION INTERVAL EXPONENT
        (0x30, bytes(7) + b"\x08" + bytes(8), "26h/00h", 4),
        (0x10, b"\0\x88\0\0", "1Ah/00h", None),  # IP, and no descriptor
        (0x10, b"\0\x88\0\0\x20\x01\0\x01x", "26h/00h", 4),  # SI
        (0x10, b"\0\x88\0\0\0\x02\0\x01x", "26h/00h", 5),
        (0x10, b"\0\x88\0\0\0\0\0\x01x", "26h/00h", 6),  # the default pattern has no length
        (0x10, b"\0\x88\0\0\0\x01\0\0", "26h/00h", 6),  # and a repeated one has
        (0x10, b"\0\x88\0\0\0\x01\x02\x01" + bytes(513), "26h/00h", 6),  # longer than a block
        (0x10, b"\0\x88\0\0\0\x01\0\x02x", "1Ah/00h", None),
    ],
)
async def test_refused(unit, byte_1, data, code, pointer):
    told = await unit.bench.refused(bytes((0x04, byte_1)), data)
    assert (str(told), told.field_pointer) == (f"5h {code}", pointer)
    assert unit.lu.operation is None and await unit.content() == b"k" * SIZE


@pytest.mark.parametrize("flags", [0xF0, 0x80, 0x00])
async def test_options_about_defects_mean_nothing_here(unit, flags):
    """DPRY, DCRT and STPF: there are no defects."""
    await unit.bench.good("04 18", bytes((0, flags, 0, 0)))
    assert await unit.content() == bytes(SIZE)


class Failing(MemoryVolume):
    fails = False

    async def unmap(self, offset_bytes, length_bytes):
        if self.fails:
            raise MediumFailure("scratched")
        await super().unmap(offset_bytes, length_bytes)


async def test_a_failed_format_leaves_a_corrupt_medium():
    """FORMAT COMMAND FAILED, then MEDIUM FORMAT CORRUPTED until a format succeeds."""
    volume = Failing(SIZE, 512)
    unit = await SanitizeBench(volume).fill()
    volume.fails = True
    assert str(await unit.bench.refused("04")) == "3h 31h/01h"
    for cdb in (READ_ONE, WRITE_ONE, "00"):
        assert str(await unit.bench.refused(cdb, bytes(512))) == "3h 31h/00h"
    assert str(decode_sense(await unit.bench.good(REQUEST_SENSE))) == "3h 31h/00h"
    await unit.bench.good("1a 00 3f 00 ff")  # what does not touch the medium goes on
    volume.fails = False
    await unit.bench.good("04")
    await unit.bench.good(READ_ONE)


async def test_reserved_by_another_nexus(unit):
    await unit.bench.good("16", nexus=NEXUS_B)
    assert (await unit.bench.run("04")).status is ScsiStatus.RESERVATION_CONFLICT


async def test_write_protected():
    unit = await SanitizeBench(write_protected=True).fill()
    assert str(await unit.bench.refused("04")) == "7h 27h/00h"
