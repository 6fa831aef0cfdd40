"""LOG SELECT (SPC-4 6.7): the counters can be reset, and nothing else."""

import pytest

from tests.conformance.scsi.test_log_sense import READ, READ_ERRORS, WRITE, WRITE_ERRORS, fail, uncorrected


def log_select(page=0, *, reset=False, control=1, subpage=0, length=0):
    return bytes((0x4C, 2 * reset, control << 6 | page, subpage, 0, 0, 0)) + length.to_bytes(2, "big") + b"\0"


@pytest.fixture
async def counted(bench, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(bench.volume, "read", fail)
        patch.setattr(bench.volume, "write", fail)
        await bench.refused(READ)
        await bench.refused(WRITE, b"x" * 512)
    return bench


async def test_parameter_code_reset(counted):
    """PCR: all of them."""
    await counted.good(log_select(reset=True))
    assert await uncorrected(counted, READ_ERRORS) == await uncorrected(counted, WRITE_ERRORS) == 0


async def test_reset_of_one_page(counted):
    """SPC-4 table 180."""
    await counted.good(log_select(READ_ERRORS, reset=True))
    assert await uncorrected(counted, READ_ERRORS) == 0
    assert await uncorrected(counted, WRITE_ERRORS) == 1


async def test_default_cumulative_values(counted):
    """SPC-4 6.7: PC 11b without a list sets the defaults, which are 0."""
    await counted.good(log_select(control=3))
    assert await uncorrected(counted, READ_ERRORS) == 0


async def test_without_a_list_nothing_changes(counted):
    """SPC-4 6.7: PARAMETER LIST LENGTH 0 is no error."""
    await counted.good(log_select())
    assert await uncorrected(counted, READ_ERRORS) == 1
    await counted.good("00", nexus=counted.nexus_b)


async def test_the_others_hear_of_a_reset(counted):
    """SPC-4 6.7: LOG PARAMETERS CHANGED, for every nexus but this one."""
    await counted.good(log_select(reset=True))
    assert (await counted.refused("00", nexus=counted.nexus_b)).asc_ascq == 0x2A02
    await counted.good("00")


async def test_values_of_the_initiator_are_refused(counted):
    sense = await counted.refused(log_select(READ_ERRORS, length=12), bytes(12))
    assert (sense.asc_ascq, sense.field_pointer) == (0x2400, 7)
    assert await uncorrected(counted, READ_ERRORS) == 1


@pytest.mark.parametrize(
    ("cdb", "pointer"),
    [(log_select(0x0D, reset=True), 2), (log_select(0x2F, reset=True), 2), (log_select(3, reset=True, subpage=1), 3)],
)
async def test_pages_without_counters_are_refused(counted, cdb, pointer):
    sense = await counted.refused(cdb)
    assert (sense.asc_ascq, sense.field_pointer) == (0x2400, pointer)


async def test_saving_is_refused(counted):
    """SPC-4 6.7: SP."""
    assert (await counted.refused("4c 01 40")).field_pointer == 1
