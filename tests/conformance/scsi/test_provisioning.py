"""UNMAP, WRITE SAME, GET LBA STATUS (SBC-3 5.28, 5.40, 5.4)."""

import pytest

from storage_model.spec.scsi_cdb import OperationCode as Code
from storage_model.spec.scsi_cdb import encode_block_cdb
from storage_model.spec.scsi_pages import unmap_parameter_list


async def fill(bench, count=64):
    await bench.good(encode_block_cdb(Code.WRITE_10, 0, count), b"f" * 512 * count)


async def read(bench, lba, count):
    return await bench.good(encode_block_cdb(Code.READ_10, lba, count))


async def status(bench, lba, allocation_length=1024):
    data = await bench.good(b"\x9e\x12" + lba.to_bytes(8, "big") + allocation_length.to_bytes(4, "big") + b"\0\0")
    body = data[8:]
    return [
        (int.from_bytes(body[i : i + 8], "big"), int.from_bytes(body[i + 8 : i + 12], "big"), body[i + 12] & 0xF)
        for i in range(0, len(body), 16)
    ]


def unmap_cdb(length):
    return b"\x42" + bytes(6) + length.to_bytes(2, "big") + b"\0"


async def unmap(bench, *ranges):
    parameters = unmap_parameter_list(ranges)
    return await bench.run(unmap_cdb(len(parameters)), parameters)


async def test_unmapped_blocks_read_as_zeros_and_are_deallocated(bench):
    await fill(bench)
    assert (await unmap(bench, (1, 3), (10, 1))).status == 0
    assert await read(bench, 0, 12) == b"f" * 512 + bytes(1536) + b"f" * 512 * 6 + bytes(512) + b"f" * 512
    assert await status(bench, 0) == [(0, 1, 0), (1, 3, 1), (4, 6, 0), (10, 1, 1), (11, 53, 0), (64, 1984, 1)]
    assert await status(bench, 2, 24) == [(2, 2, 1)]


async def test_unmap_is_refused_as_a_whole(bench):
    await fill(bench)
    parameters = unmap_parameter_list([(0, 1), (2047, 2)])
    assert (await bench.refused(unmap_cdb(len(parameters)), parameters)).asc_ascq == 0x2100
    assert await read(bench, 0, 1) == b"f" * 512


async def test_unmap_limits(bench):
    too_many = unmap_parameter_list([(0, 1)] * 257)
    assert (await bench.refused(unmap_cdb(len(too_many)), too_many)).asc_ascq == 0x2600


@pytest.mark.parametrize("length", range(1, 8))
async def test_unmap_list_shorter_than_its_header(bench, length):
    assert (await bench.refused(unmap_cdb(length), bytes(length))).asc_ascq == 0x1A00


async def test_unmap_with_less_data_than_announced(bench):
    assert (await bench.refused(unmap_cdb(24), bytes(23))).asc_ascq == 0x1A00


async def test_unmap_without_anything(bench):
    await bench.good(unmap_cdb(0))
    await bench.good(unmap_cdb(8), bytes(8))


@pytest.mark.parametrize("code", [Code.WRITE_SAME_10, Code.WRITE_SAME_16], ids=lambda code: code.name)
async def test_write_same(bench, code):
    await bench.good(encode_block_cdb(code, 3, 5), b"s" * 512)
    assert await read(bench, 2, 7) == bytes(512) + b"s" * 2560 + bytes(512)
    await bench.good(encode_block_cdb(code, 4, 2, 0x08), bytes(512))
    assert await status(bench, 3, 40) == [(3, 1, 0), (4, 2, 1)]
    await bench.good(encode_block_cdb(code, 4, 2, 0x08), b"t" * 512)
    assert await read(bench, 4, 2) == b"t" * 1024


@pytest.mark.parametrize("code", [Code.WRITE_SAME_10, Code.WRITE_SAME_16], ids=lambda code: code.name)
async def test_write_same_refuses(bench, code):
    assert (await bench.refused(encode_block_cdb(code, 0, 0), b"s" * 512)).asc_ascq == 0x2400  # WSNZ
    assert (await bench.refused(encode_block_cdb(code, 0, 1, 0x10), b"s" * 512)).asc_ascq == 0x2400  # ANCHOR
    for sent in (0, 511, 513, 1024):
        assert (await bench.refused(encode_block_cdb(code, 0, 1), b"s" * sent)).asc_ascq == 0x2400


async def test_write_same_without_data(bench):
    await fill(bench)
    await bench.good(encode_block_cdb(Code.WRITE_SAME_16, 0, 8, 0x01))
    await bench.good(encode_block_cdb(Code.WRITE_SAME_16, 8, 8, 0x09))
    assert await read(bench, 0, 17) == bytes(8192) + b"f" * 512
    assert await status(bench, 0, 40) == [(0, 8, 0), (8, 8, 1)]


async def test_lba_status_beyond_the_end(bench):
    assert (await bench.refused(b"\x9e\x12" + (2048).to_bytes(8, "big") + b"\0\0\x04\0\0\0")).asc_ascq == 0x2100


async def test_ranges_that_follow_each_other_are_unmapped_as_one(bench, monkeypatch):
    """Each is a call of the file system, which can only free whole pages."""
    await fill(bench)
    calls = []

    async def note(offset_bytes, length_bytes):
        calls.append((offset_bytes // 512, length_bytes // 512))

    monkeypatch.setattr(bench.volume, "unmap", note)
    assert (await unmap(bench, (8, 1), (9, 3), (12, 0), (12, 4), (2, 1), (1, 1), (20, 2))).status == 0
    assert calls == [(8, 8), (2, 1), (1, 1), (20, 2)]
