"""SANITIZE, service action OVERWRITE (SBC-3 5.24.2.2)."""

import pytest

from storage_model.spec.scsi_sanitize import Overwrite
from storage_model.spec.scsi_sense import decode_sense
from storage_model.spec.scsi_task import ScsiStatus
from tests.conformance.scsi.bench import NEXUS_B
from tests.conformance.scsi.sanitize_bench import SIZE, STEPS, SanitizeBench


@pytest.fixture
async def unit():
    return await SanitizeBench().fill()


async def test_every_block_becomes_the_pattern(unit):
    """The pattern begins anew in each block."""
    pattern = bytes(range(100))
    unit.steps.let_on(STEPS)
    assert (await unit.overwrite(Overwrite(pattern), immed=False)).status is ScsiStatus.GOOD
    assert await unit.content() == (pattern * 6)[:512] * (SIZE // 512)
    assert unit.lu.operation is None


@pytest.mark.parametrize(("passes", "invert", "wanted"), [(1, True, [0x0F]), (3, True, [0x0F, 0xF0, 0x0F])])
async def test_passes_and_inversion(unit, passes, invert, wanted):
    """INVERT: consecutive passes are inverted, the last one is not."""
    written = []
    write = unit.bench.volume.write

    async def watched(offset_bytes, data, *, fua=False):
        if offset_bytes == 0:
            written.append(data[0])
        await write(offset_bytes, data, fua=fua)

    unit.bench.volume.write = watched
    unit.steps.let_on(passes * STEPS)
    assert not (await unit.overwrite(Overwrite(b"\x0f", passes, invert), immed=False)).status
    assert written == wanted
    assert await unit.content() == b"\x0f" * SIZE


async def test_each_pass_is_flushed_before_the_next(unit):
    log = []

    async def flush():
        log.append("flush")

    async def write(offset_bytes, data, *, fua=False):
        log.append(offset_bytes)

    unit.bench.volume.flush, unit.bench.volume.write = flush, write
    unit.steps.let_on(2 * STEPS)
    await unit.overwrite(Overwrite(b"x", 2), immed=False)
    one_pass = [step << 20 for step in range(STEPS)]
    assert log == [*one_pass, "flush", *one_pass, "flush"]


async def test_immed_is_answered_at_once(unit):
    assert (await unit.overwrite(immed=True)).status is ScsiStatus.GOOD
    await unit.at_step()
    assert unit.lu.operation is not None
    unit.steps.let_on(STEPS)
    await unit.done()
    assert await unit.content() == b"\xaa" * SIZE


@pytest.mark.parametrize("length", [0, 1, 4, 512 + 5, 0xFFFF])
async def test_parameter_list_length(unit, length):
    """It must be more than 4, and less than a block and 5 (SBC-3 table 105)."""
    cdb = bytes((0x48, 0x01, 0, 0, 0, 0, 0)) + length.to_bytes(2, "big") + b"\0"
    told = await unit.bench.refused(cdb, bytes(length))
    assert (str(told), told.field_pointer) == ("5h 24h/00h", 7)
    assert unit.lu.operation is None


@pytest.mark.parametrize(
    ("data", "code", "byte"),
    [
        ("00 00 0001 aa", "26h/00h", 0),  # OVERWRITE COUNT 0 is reserved
        ("21 00 0001 aa", "26h/00h", 0),  # TEST
        ("01 00 0000 aa", "26h/00h", 2),  # no pattern
        ("01 00 0201 aa", "26h/00h", 2),  # longer than a block
        ("01 00 0002 aa", "1Ah/00h", None),  # and there is less of it
    ],
)
async def test_parameter_list(unit, data, code, byte):
    raw = bytes.fromhex(data)
    told = await unit.bench.refused(bytes((0x48, 1, 0, 0, 0, 0, 0, 0, len(raw), 0)), raw)
    assert (str(told), told.field_pointer) == (f"5h {code}", byte)
    assert unit.lu.operation is None and await unit.content() == b"k" * SIZE


async def test_less_data_than_announced(unit):
    assert str(await unit.bench.refused("48 01 0000000000 0005", b"\x01\0\0\x01")) == "5h 1Ah/00h"


@pytest.mark.parametrize("cdb", ["48 41", "48 11", "48 01 01", "48 01 00 00 00 00 01"])
async def test_reserved_bits(unit, cdb):
    """ZNR is SBC-4's, for zoned devices; the others are reserved."""
    assert str(await unit.bench.refused(bytes.fromhex(cdb).ljust(8, b"\0") + b"\x05\0", bytes(5))) == "5h 24h/00h"


@pytest.mark.parametrize("action", [0x00, 0x03, 0x04, 0x1E])
async def test_unknown_service_actions(unit, action):
    """CRYPTOGRAPHIC ERASE (03h) would have to change a key, and nothing is encrypted."""
    assert str(await unit.bench.refused(bytes((0x48, action)))) == "5h 24h/00h"


async def test_write_protected(unit):
    unit.lu.write_protected = True
    outcome = await unit.overwrite()
    assert str(decode_sense(outcome.sense)) == "7h 27h/02h"
    assert await unit.content() == b"k" * SIZE


async def test_reserved_by_another_nexus(unit):
    await unit.bench.good("16", nexus=NEXUS_B)
    assert (await unit.overwrite()).status is ScsiStatus.RESERVATION_CONFLICT
    assert unit.lu.operation is None
