"""WRITE BUFFER and READ BUFFER, echo mode (SPC-4 6.49.9, 6.18.7, 6.18.8)."""

import pytest

from storage_model.nexus import ITNexus
from target.scsi.diagnostic_buffers import ECHO_BUFFERS
from tests.conformance.scsi.test_write_buffer_data import read_buffer, write_buffer

CAPACITY = 4096


async def test_descriptor(bench):
    """SPC-4 6.18.8: EBOS 1, the capacity."""
    assert await bench.good(read_buffer(0x0B, 4)) == b"\x01\0" + CAPACITY.to_bytes(2, "big")


@pytest.mark.parametrize("length", [0, 1, 4, CAPACITY])
async def test_what_the_nexus_wrote_comes_back(bench, length):
    data = bytes(i % 253 for i in range(length))
    await bench.good(write_buffer(0x0A, length), data)
    assert await bench.good(read_buffer(0x0A, 0xFFFFFF)) == data
    assert await bench.good(read_buffer(0x0A, 3)) == data[:3]


async def test_buffer_id_and_offset_say_nothing(bench):
    await bench.good(write_buffer(0x0A, 2, buffer_id=7, offset=99), b"ab")
    assert await bench.good(read_buffer(0x0A, 2, buffer_id=3, offset=1)) == b"ab"


async def test_nothing_written_before(bench):
    """SPC-4 6.18.7: COMMAND SEQUENCE ERROR; what another nexus wrote is not it."""
    await bench.good(write_buffer(0x0A, 1), b"a", nexus=bench.nexus_b)
    sense = await bench.refused(read_buffer(0x0A, 1))
    assert (sense.sense_key, sense.asc_ascq) == (0x5, 0x2C00)


async def test_too_long(bench):
    sense = await bench.refused(write_buffer(0x0A, CAPACITY + 1), bytes(CAPACITY + 1))
    assert (sense.asc_ascq, sense.field_pointer) == (0x2400, 6)


async def test_each_nexus_has_its_own(bench):
    await bench.good(write_buffer(0x0A, 1), b"a")
    await bench.good(write_buffer(0x0A, 1), b"b", nexus=bench.nexus_b)
    assert await bench.good(read_buffer(0x0A, 1)) == b"a"


async def test_overwritten_by_too_many_others(bench):
    """SPC-4 6.18.7: ECHO BUFFER OVERWRITTEN, as EBOS promises. The buffers of all nexuses have a bound."""
    await bench.good(write_buffer(0x0A, 1), b"a")
    for number in range(ECHO_BUFFERS):
        bench.lu.diagnostic_buffers.write_echo(ITNexus(f"iqn.2026-11.org.example:{number}", bytes(6)), b"o")
    sense = await bench.refused(read_buffer(0x0A, 1))
    assert (sense.sense_key, sense.asc_ascq) == (0xB, 0x3F0F)
    assert (await bench.refused(read_buffer(0x0A, 1))).asc_ascq == 0x2C00
    await bench.good(write_buffer(0x0A, 1), b"b")
    assert await bench.good(read_buffer(0x0A, 1)) == b"b"


async def test_it_goes_with_the_nexus(bench):
    """SAM-5 6.3.4."""
    await bench.good(write_buffer(0x0A, 1), b"a")
    await bench.server.nexus_lost(bench.nexus_a)
    bench.server.nexus_established(bench.nexus_a)
    bench.lu.unit_attentions.take(bench.nexus_a)
    assert (await bench.refused(read_buffer(0x0A, 1))).asc_ascq == 0x2C00
