"""SANITIZE, service action CRYPTOGRAPHIC ERASE (SBC-3 5.24.2.4): of a unit that is encrypted."""

import pytest

from storage_model.spec.scsi_sense import decode_sense
from storage_model.volume import MediumFailure
from target.volumes.encrypted_volume import EncryptedVolume, KeyInMemory
from target.volumes.memory_volume import MemoryVolume
from tests.conformance.scsi.bench import BLOCK
from tests.conformance.scsi.sanitize_bench import READ_ONE, SIZE, SanitizeBench

ERASE = "48 03"


@pytest.fixture
def unit():
    return SanitizeBench(EncryptedVolume(MemoryVolume(SIZE, BLOCK), KeyInMemory()))


async def test_what_was_written_cannot_be_read_again(unit):
    """WACEREQ 01b: reads are good, and tell nothing."""
    await unit.bench.good("2a 00 00000000 00 0001", b"k" * 512)
    assert await unit.bench.good(READ_ONE) == b"k" * 512
    await unit.bench.good(ERASE)
    noise = await unit.bench.good(READ_ONE)
    assert len(set(noise)) > 100
    assert (await unit.bench.good("12 01 b1 00 ff 00"))[7] & 0x30 == 0x10


async def test_there_is_no_parameter_list(unit):
    told = await unit.bench.refused("48 03 0000000000 0008", bytes(8))
    assert (str(told), told.field_pointer) == ("5h 24h/00h", 7)


async def test_a_key_that_stays_is_a_failure(unit):
    async def fails():
        raise MediumFailure("the key cannot be replaced")

    unit.lu.volume.replace_key = fails
    assert str(await unit.bench.refused(ERASE)) == "3h 31h/03h"
    assert str(await unit.bench.refused(READ_ONE)) == "3h 31h/03h"


async def test_a_unit_that_is_not_encrypted_has_no_such_command():
    unit = await SanitizeBench().fill()
    assert str(await unit.bench.refused(ERASE)) == "5h 24h/00h"
    assert (await unit.bench.good("a3 0c 02 48 0003 000000ff 00 00"))[1] & 0x07 == 0x01
    assert (await unit.bench.good("12 01 b1 00 ff 00"))[7] & 0x30 == 0x00


async def test_an_encrypted_unit_lists_it(unit):
    assert (await unit.bench.good("a3 0c 02 48 0003 000000ff 00 00"))[1] & 0x07 == 0x03


async def test_write_protected():
    encrypted = EncryptedVolume(MemoryVolume(SIZE, BLOCK), KeyInMemory())
    unit = SanitizeBench(encrypted, write_protected=True)
    assert str(decode_sense((await unit.bench.run(ERASE)).sense)) == "7h 27h/00h"
