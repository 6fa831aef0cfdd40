"""MEDIUM ERROR names the block that could not be read or written (SBC-3 4.18.1, SPC-4 4.5.2.2, 4.5.3)."""

import os

import pytest

from storage_model.spec.scsi_sense import DESCRIPTOR_CURRENT, FIXED_CURRENT, decode_sense
from storage_model.spec.scsi_task import ScsiStatus
from storage_model.volume import MediumFailure
from target.scsi.device_server import DeviceServer
from target.scsi.logical_unit import LogicalUnit, UnitIdentity
from target.volumes.file_volume import FileVolume
from target.volumes.memory_volume import MemoryVolume

READ, WRITE = "28 00 00000010 00 0008", "2a 00 00000010 00 0008"


def failing_at(offset_bytes):
    async def fail(*_args, **_options):
        raise MediumFailure("told", offset_bytes=offset_bytes)

    return fail


@pytest.mark.parametrize(("method", "cdb", "code"), [("read", READ, 0x1100), ("write", WRITE, 0x0C00)])
async def test_the_logical_block_address(bench, monkeypatch, method, cdb, code):
    monkeypatch.setattr(bench.volume, method, failing_at(0x13 * 512 + 100))
    sense = await bench.refused(cdb, b"x" * 4096)
    assert (sense.sense_key, sense.asc_ascq, sense.information) == (0x3, code, 0x13)


async def test_not_known_where(bench, monkeypatch):
    """VALID is 0."""
    monkeypatch.setattr(bench.volume, "read", failing_at(None))
    sense = await bench.refused(READ)
    assert (sense.asc_ascq, sense.information) == (0x1100, None)


@pytest.mark.parametrize("descriptor_format", [False, True])
async def test_an_address_of_more_than_four_bytes(bench, monkeypatch, descriptor_format):
    """SPC-4 4.5.3: fixed format cannot tell it, and says so by VALID 0; descriptor format has eight bytes."""
    lba = (1 << 32) + 5
    volume = MemoryVolume(8 << 40)
    bench.server = DeviceServer({0: LogicalUnit(0, volume, UnitIdentity("large"))})
    bench.server.logical_units[0].descriptor_sense = descriptor_format
    monkeypatch.setattr(volume, "read", failing_at(lba * 512))
    outcome = await bench.run(b"\x88\0" + lba.to_bytes(8, "big") + b"\0\0\0\x01\0\0")
    assert outcome.sense[0] & 0x7F == (DESCRIPTOR_CURRENT if descriptor_format else FIXED_CURRENT)
    assert decode_sense(outcome.sense).information == (lba if descriptor_format else None)


@pytest.fixture
async def cut_bench(bench, tmp_path):
    """A volume of 2048 blocks whose file somebody has cut off inside block 18."""
    path = tmp_path / "volume"
    volume = FileVolume.open(path, 2048 * 512, create=True)
    bench.server = DeviceServer({0: LogicalUnit(0, volume, UnitIdentity("cut"))})
    os.truncate(path, 18 * 512 + 100)
    yield bench
    await volume.close()


async def test_a_file_that_was_cut_short(cut_bench):
    """The blocks before the cut are read; the first one that is not there whole is named."""
    await cut_bench.good("28 00 00000010 00 0002")
    sense = await cut_bench.refused(READ)
    assert (sense.sense_key, sense.asc_ascq, sense.information) == (0x3, 0x1100, 18)
    sense = await cut_bench.refused("28 00 00000020 00 0001")
    assert sense.information == 32


async def test_verify_finds_it_too(cut_bench):
    await cut_bench.good("2a 00 00000011 00 0001", b"d" * 512)
    outcome = await cut_bench.run("2f 02 00000011 00 0004", b"d" * 512 + bytes(1536))
    assert outcome.status is ScsiStatus.CHECK_CONDITION
    assert decode_sense(outcome.sense).information == 18
