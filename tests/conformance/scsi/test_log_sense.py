"""LOG SENSE (SPC-4 6.8) and the pages that it tells (SPC-4 7.3)."""

import pytest

from storage_model.spec.scsi_log import decode_log_page, decode_log_parameters
from storage_model.volume import MediumFailure

READ, WRITE, VERIFY = "28 00 00000000 00 0001", "2a 00 00000000 00 0001", "2f 02 00000000 00 0001"
WRITE_ERRORS, READ_ERRORS, VERIFY_ERRORS, EXCEPTIONS = 0x02, 0x03, 0x05, 0x2F


def log_sense(page, *, subpage=0, control=1, pointer=0, length=0xFFFF):
    return bytes((0x4D, 0, control << 6 | page, subpage, 0)) + pointer.to_bytes(2, "big") + length.to_bytes(2, "big")


async def page_of(bench, page, **options):
    data = await bench.good(log_sense(page, **options))
    assert int.from_bytes(data[2:4], "big") == len(data) - 4
    return decode_log_page(data)


async def uncorrected(bench, page, **options):
    """TOTAL UNCORRECTED ERRORS, parameter 0006h (SPC-4 table 362)."""
    parameters = dict(decode_log_parameters((await page_of(bench, page, **options))[2]))
    assert list(parameters) == [0x0006]
    return int.from_bytes(parameters[0x0006], "big")


async def fail(*_args, **_options):
    raise MediumFailure("told")


async def test_supported_pages_are_sorted_and_all_answer(bench):
    """SPC-4 7.3.17."""
    code, subpage, body = await page_of(bench, 0x00)
    assert (code, subpage) == (0x00, 0x00)
    assert body == bytes((0x00, WRITE_ERRORS, READ_ERRORS, VERIFY_ERRORS, EXCEPTIONS))
    for page in body:
        assert (await page_of(bench, page))[0] == page


async def test_supported_pages_and_subpages(bench):
    """SPC-4 7.3.18: pairs of page code and subpage code."""
    data = await bench.good(log_sense(0x00, subpage=0xFF))
    assert data[0] == 0x40 and data[1] == 0xFF  # SPF
    assert data[4:] == b"\x00\x00\x00\xff\x02\x00\x03\x00\x05\x00\x2f\x00"


async def test_pages_disable_saving(bench):
    """SPC-4 7.3.2.1: DS is 1, nothing is saved; the list pages have no such bit."""
    assert (await bench.good(log_sense(READ_ERRORS)))[0] == 0x80 | READ_ERRORS
    assert (await bench.good(log_sense(0x00)))[0] == 0x00


@pytest.mark.parametrize(
    ("method", "cdb", "page"),
    [("read", READ, READ_ERRORS), ("write", WRITE, WRITE_ERRORS), ("read", VERIFY, VERIFY_ERRORS)],
)
async def test_medium_errors_are_counted(bench, monkeypatch, method, cdb, page):
    """SPC-4 7.3.7: on the page of their kind and on no other."""
    monkeypatch.setattr(bench.volume, method, fail)
    for _ in range(2):
        assert (await bench.refused(cdb, b"x" * 512)).sense_key == 0x3
    for each in (WRITE_ERRORS, READ_ERRORS, VERIFY_ERRORS):
        assert await uncorrected(bench, each) == (2 if each == page else 0)


async def test_default_values_are_zero(bench, monkeypatch):
    """SPC-4 table 179: PC 11b."""
    monkeypatch.setattr(bench.volume, "read", fail)
    await bench.refused(READ)
    assert await uncorrected(bench, READ_ERRORS, control=3) == 0
    assert await uncorrected(bench, READ_ERRORS, control=1) == 1


async def test_no_informational_exception(bench):
    """SPC-4 7.3.9: ASC and ASCQ 0, a temperature that is not known."""
    _, _, body = await page_of(bench, EXCEPTIONS)
    assert decode_log_parameters(body) == [(0, b"\0\0\xff\xff")]


@pytest.mark.parametrize(
    ("cdb", "pointer"),
    [
        (log_sense(0x0D), 2),  # temperature: not known, not told
        (log_sense(0x3F), 2),
        (log_sense(READ_ERRORS, subpage=1), 3),
        (log_sense(READ_ERRORS, subpage=0xFF), 3),
        (log_sense(0x00, subpage=1), 3),
        (log_sense(READ_ERRORS, control=0), 2),  # no thresholds
        (log_sense(READ_ERRORS, control=2), 2),
        (log_sense(READ_ERRORS, pointer=7), 5),  # beyond the last parameter
        (log_sense(0x00, pointer=1), 5),
    ],
    ids=lambda value: value.hex() if isinstance(value, bytes) else str(value),
)
async def test_what_is_not_there(bench, cdb, pointer):
    """SPC-4 6.8: INVALID FIELD IN CDB."""
    sense = await bench.refused(cdb)
    assert (sense.asc_ascq, sense.field_pointer) == (0x2400, pointer)


async def test_saving_is_refused(bench):
    """SPC-4 6.8: SP."""
    sense = await bench.refused("4d 01 43 00 00 0000 00ff 00")
    assert (sense.asc_ascq, sense.field_pointer, sense.bit_pointer) == (0x2400, 1, 0)


async def test_parameter_pointer(bench):
    """SPC-4 6.8: the parameters from this one on."""
    assert await uncorrected(bench, READ_ERRORS, pointer=6) == 0
