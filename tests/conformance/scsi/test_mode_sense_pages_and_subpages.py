"""MODE SENSE: which pages PAGE CODE and SUBPAGE CODE ask for (SPC-4 table 189), and what is in them."""

import pytest

PAGES = {
    # SBC-3 6.5.8: read-write error recovery.
    (0x01, 0x00): "01 0a" + "00" * 10,
    # SBC-3 6.5.6: caching, WCE.
    (0x08, 0x00): "08 12 04" + "00" * 17,
    # SPC-4 7.5.8: control, simple commands may be reordered, no busy timeout.
    (0x0A, 0x00): "0a 0a 00 10 00 00 00 00 ff ff 00 00",
    # SPC-4 7.5.9: control extension, IALUAE.
    (0x0A, 0x01): "4a 01 00 1c 01" + "00" * 27,
    # SPC-4 7.5.11: informational exceptions control, DEXCPT.
    (0x1C, 0x00): "1c 0a 08" + "00" * 9,
}
CHANGEABLE = {
    (0x01, 0x00): "01 0a" + "00" * 10,
    (0x08, 0x00): "08 12 04" + "00" * 17,  # WCE
    (0x0A, 0x00): "0a 0a 04 00 08" + "00" * 7,  # D_SENSE, SWP
    (0x0A, 0x01): "4a 01 00 1c" + "00" * 28,
    (0x1C, 0x00): "1c 0a" + "00" * 10,
}


def joined(*keys, values=PAGES):
    return b"".join(bytes.fromhex(values[key]) for key in keys)


async def pages(bench, page, subpage, *, control=0):
    """Without block descriptors; both command lengths agree."""
    six = await bench.good(bytes((0x1A, 0x08, control << 6 | page, subpage, 0xFF, 0)))
    ten = await bench.good(bytes((0x5A, 0x08, control << 6 | page, subpage, 0, 0, 0, 0xFF, 0xFF, 0)))
    assert six[0] == len(six) - 1 and int.from_bytes(ten[:2], "big") == len(ten) - 2
    assert six[4:] == ten[8:]
    return six[4:]


@pytest.mark.parametrize("key", PAGES, ids=lambda key: f"{key[0]:02X}h-{key[1]:02X}h")
@pytest.mark.parametrize(
    ("control", "values"), [(0, PAGES), (1, CHANGEABLE), (2, PAGES)], ids=["current", "changeable", "default"]
)
async def test_one_page(bench, key, control, values):
    assert await pages(bench, *key, control=control) == joined(key, values=values)


async def test_all_pages(bench):
    """3Fh with subpage 00h: every page, no subpages, in ascending order."""
    assert await pages(bench, 0x3F, 0x00) == joined(*(key for key in PAGES if key[1] == 0))


async def test_all_pages_and_subpages(bench):
    """3Fh with subpage FFh."""
    assert await pages(bench, 0x3F, 0xFF) == joined(*PAGES)


async def test_all_subpages_of_one_page(bench):
    """A page code with subpage FFh: the page and its subpages."""
    assert await pages(bench, 0x0A, 0xFF) == joined((0x0A, 0), (0x0A, 1))
    assert await pages(bench, 0x08, 0xFF) == joined((0x08, 0))


@pytest.mark.parametrize(
    ("page", "subpage", "pointer"),
    [(0x02, 0, 2), (0x00, 0, 2), (0x3E, 0xFF, 2), (0x0A, 2, 3), (0x08, 1, 3), (0x3F, 1, 3)],
)
async def test_pages_that_are_not_there(bench, page, subpage, pointer):
    sense = await bench.refused(bytes((0x1A, 0, page, subpage, 0xFF, 0)))
    assert (sense.asc_ascq, sense.field_pointer) == (0x2400, pointer)
