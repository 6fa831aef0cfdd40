"""MODE SELECT with pages in the subpage format (SPC-4 6.9, 7.5.1)."""

import pytest

EXTENSION = bytes.fromhex("4a01001c01") + bytes(27)


def select(page):
    return bytes((0x15, 0x10, 0, 0, 4 + len(page), 0)), bytes(4) + page


async def test_what_was_sensed_is_taken_back(bench):
    """As sdparm does: all pages and subpages, unchanged; nobody hears of a change."""
    sensed = (await bench.good("1a 08 3f ff ff"))[4:]
    await bench.good(*select(sensed))
    await bench.good("00", nexus=bench.nexus_b)


async def test_a_change_beside_a_subpage(bench):
    control = bytearray((await bench.good("1a 08 0a 00 ff"))[4:])
    control[2] |= 0x04
    await bench.good(*select(EXTENSION + bytes(control)))
    assert bench.lu.descriptor_sense


async def test_what_cannot_be_changed(bench):
    page = bytearray(EXTENSION)
    page[4] ^= 0x01  # IALUAE
    sense = await bench.refused(*select(bytes(page)))
    assert (sense.asc_ascq, sense.field_pointer, sense.in_parameter_list) == (0x2600, 8, True)


@pytest.mark.parametrize(
    ("page", "code", "pointer"),
    [
        (b"\x4a\x02\x00\x1c" + bytes(28), 0x2600, 4),  # no such subpage
        (b"\x4a\x00\x00\x0a" + bytes(10), 0x2600, 4),  # SPF with subpage 00h
        (b"\x48\x01\x00\x0a" + bytes(10), 0x2600, 4),
        (b"\x4a\x01\x00\x1b" + bytes(28), 0x2600, 6),  # PAGE LENGTH
        (b"\x4a\x01\x01\x1c" + bytes(28), 0x2600, 6),
        (b"\x08\x11" + bytes(18), 0x2600, 5),
        (b"\x4a", 0x1A00, None),
        (b"\x4a\x01\x00", 0x1A00, None),
        (EXTENSION[:-1], 0x1A00, None),
        (b"\x08", 0x1A00, None),
        (b"\x08\x12\x04", 0x1A00, None),
    ],
    ids=lambda value: value.hex()[:8] if isinstance(value, bytes) else "",
)
async def test_bad_pages(bench, page, code, pointer):
    sense = await bench.refused(*select(page))
    assert (sense.asc_ascq, sense.field_pointer) == (code, pointer)
