"""SYNCHRONIZE CACHE 10 and 16 (SBC-3 5.26, 5.27)."""

import pytest

from storage_model.spec.scsi_cdb import OperationCode as Code
from storage_model.spec.scsi_cdb import encode_block_cdb
from storage_model.volume import MediumFailure

CODES = [Code.SYNCHRONIZE_CACHE_10, Code.SYNCHRONIZE_CACHE_16]


@pytest.fixture
def flushes(bench, monkeypatch):
    made = []

    async def flush():
        made.append("flush")

    monkeypatch.setattr(bench.volume, "flush", flush)
    return made


@pytest.mark.parametrize("code", CODES, ids=lambda code: code.name)
@pytest.mark.parametrize("flags", [0x00, 0x02], ids=["", "IMMED"])
@pytest.mark.parametrize(("lba", "count"), [(0, 0), (5, 0), (5, 7), (2047, 1)])
async def test_the_cache_is_on_the_medium_before_the_status(bench, flushes, code, flags, lba, count):
    """A length of 0 is to the end of the medium. With IMMED the status may come earlier; it does not."""
    await bench.good(encode_block_cdb(code, lba, count, flags))
    assert flushes == ["flush"]


@pytest.mark.parametrize("code", CODES, ids=lambda code: code.name)
async def test_beyond_the_end(bench, flushes, code):
    assert (await bench.refused(encode_block_cdb(code, 2047, 2))).asc_ascq == 0x2100
    assert not flushes


async def test_the_medium_takes_it_not(bench, monkeypatch):
    """SBC-3 5.26: what an earlier write could not do is told here, as a write error."""

    async def fail():
        raise MediumFailure("told")

    monkeypatch.setattr(bench.volume, "flush", fail)
    for code in CODES:
        sense = await bench.refused(encode_block_cdb(code, 0, 0))
        assert (sense.sense_key, sense.asc_ascq) == (0x3, 0x0C00)
