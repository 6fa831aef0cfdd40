"""DPO, FUA, RDPROTECT and WRPROTECT of READ and WRITE (SBC-3 5.10, 5.31)."""

import pytest

from storage_model.spec.scsi_cdb import OperationCode as Code
from storage_model.spec.scsi_cdb import encode_block_cdb

READS = [Code.READ_10, Code.READ_12, Code.READ_16]
WRITES = [Code.WRITE_10, Code.WRITE_12, Code.WRITE_16]
VERIFIES = [Code.WRITE_AND_VERIFY_10, Code.WRITE_AND_VERIFY_12, Code.WRITE_AND_VERIFY_16]
DPO, FUA = 0x10, 0x08


@pytest.fixture
def calls(bench, monkeypatch):
    """What the volume is asked, in order."""
    made = []
    write, read = bench.volume.write, bench.volume.read

    async def watched_write(offset_bytes, data, *, fua=False):
        made.append("write through" if fua else "write")
        await write(offset_bytes, data, fua=fua)

    async def watched_read(offset_bytes, length_bytes):
        made.append("read")
        return await read(offset_bytes, length_bytes)

    async def flush():
        made.append("flush")

    monkeypatch.setattr(bench.volume, "write", watched_write)
    monkeypatch.setattr(bench.volume, "read", watched_read)
    monkeypatch.setattr(bench.volume, "flush", flush)
    return made


@pytest.mark.parametrize("code", READS, ids=lambda code: code.name)
async def test_read_with_force_unit_access(bench, calls, code):
    """SBC-3 table 46: from the medium, so that what a cache holds of it goes there first."""
    await bench.good(encode_block_cdb(code, 0, 1, FUA))
    assert calls == ["flush", "read"]


@pytest.mark.parametrize("code", WRITES, ids=lambda code: code.name)
async def test_write_with_force_unit_access(bench, calls, code):
    """SBC-3 table 86: on the medium before the status."""
    await bench.good(encode_block_cdb(code, 0, 1, FUA), bytes(512))
    await bench.good(encode_block_cdb(code, 0, 1), bytes(512))
    assert calls == ["write through", "write"]


@pytest.mark.parametrize("code", VERIFIES, ids=lambda code: code.name)
async def test_write_and_verify_is_always_on_the_medium(bench, calls, code):
    """SBC-3 5.34: what is verified is the medium."""
    await bench.good(encode_block_cdb(code, 0, 1, 0x02), bytes(512))
    assert calls == ["write through", "read"]


@pytest.mark.parametrize("code", [*READS, *WRITES, *VERIFIES], ids=lambda code: code.name)
async def test_disable_page_out_is_a_hint(bench, code):
    data = b"" if code in READS else bytes(512)
    await bench.good(encode_block_cdb(code, 0, 1, DPO), data)


PROTECTED = [*READS, *WRITES, *VERIFIES, Code.VERIFY_10, Code.VERIFY_12, Code.VERIFY_16, Code.WRITE_SAME_10]


@pytest.mark.parametrize("code", [*PROTECTED, Code.WRITE_SAME_16], ids=lambda code: code.name)
@pytest.mark.parametrize("protect", range(1, 8))
async def test_protection_information_is_refused(bench, calls, code, protect):
    """SBC-3 tables 47, 87: the medium is formatted without it, so that any value but 000b is an invalid field."""
    sense = await bench.refused(encode_block_cdb(code, 0, 1, protect << 5), bytes(512))
    assert (sense.sense_key, sense.asc_ascq, sense.field_pointer) == (0x5, 0x2400, 1)
    assert not calls
