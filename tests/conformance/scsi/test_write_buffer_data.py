"""WRITE BUFFER and READ BUFFER, data mode and descriptor mode (SPC-4 6.49.5, 6.18.4, 6.18.5)."""

import pytest

CAPACITY = 64 << 10


def read_buffer(mode, length, *, buffer_id=0, offset=0):
    return bytes((0x3C, mode, buffer_id)) + offset.to_bytes(3, "big") + length.to_bytes(3, "big") + b"\0"


def write_buffer(mode, length, *, buffer_id=0, offset=0):
    return bytes((0x3B, mode, buffer_id)) + offset.to_bytes(3, "big") + length.to_bytes(3, "big") + b"\0"


async def test_descriptor_tells_the_capacity(bench):
    """OFFSET BOUNDARY 0: any byte; BUFFER CAPACITY."""
    assert await bench.good(read_buffer(3, 4)) == b"\0" + CAPACITY.to_bytes(3, "big")


async def test_descriptor_of_a_buffer_that_is_not_there(bench):
    """SPC-4 6.18.5: all zeros, and no error."""
    assert await bench.good(read_buffer(3, 4, buffer_id=1)) == bytes(4)


async def test_what_was_written_is_read(bench):
    await bench.good(write_buffer(2, 5, offset=7), b"hello")
    assert await bench.good(read_buffer(2, 8, offset=6)) == b"\0hello\0\0"
    assert await bench.good(read_buffer(2, 8, offset=6), nexus=bench.nexus_b) == b"\0hello\0\0"


async def test_it_holds_zeros_before(bench):
    assert await bench.good(read_buffer(2, CAPACITY)) == bytes(CAPACITY)


async def test_read_ends_with_the_buffer(bench):
    await bench.good(write_buffer(2, 2, offset=CAPACITY - 2), b"zz")
    assert await bench.good(read_buffer(2, 0xFFFFFF, offset=CAPACITY - 3)) == b"\0zz"


@pytest.mark.parametrize(
    ("offset", "length", "pointer"), [(CAPACITY, 1, 3), (CAPACITY - 1, 2, 6), (0, CAPACITY + 1, 6)]
)
async def test_write_beyond_the_buffer(bench, offset, length, pointer):
    sense = await bench.refused(write_buffer(2, length, offset=offset), b"x" * length)
    assert (sense.asc_ascq, sense.field_pointer) == (0x2400, pointer)
    assert not any(await bench.good(read_buffer(2, CAPACITY)))


async def test_less_data_than_announced(bench):
    assert (await bench.refused(write_buffer(2, 8), bytes(7))).asc_ascq == 0x1A00


async def test_other_buffers_are_refused(bench):
    assert (await bench.refused(write_buffer(2, 1, buffer_id=1), b"x")).field_pointer == 2
    assert (await bench.refused(read_buffer(2, 1, buffer_id=1))).field_pointer == 2


READ_MODES, WRITE_MODES = {0x02, 0x03, 0x0A, 0x0B}, {0x02, 0x0A}


async def test_other_modes_are_refused(bench):
    """SPC-4 tables 228 and 300: no microcode (04h to 07h, 0Dh to 0Fh), no expander, no vendor's mode."""
    for mode in range(32):
        for cdb, data, modes in ((read_buffer(mode, 1), b"", READ_MODES), (write_buffer(mode, 1), b"x", WRITE_MODES)):
            if mode in modes:
                continue
            sense = await bench.refused(cdb, data)
            assert (sense.asc_ascq, sense.field_pointer, sense.bit_pointer) == (0x2400, 1, 4), f"{mode:02X}h"
