"""PARAMETER LIST LENGTH of PERSISTENT RESERVE OUT (SPC-4 6.16.1), and service actions that there are not (6.16.2)."""

import pytest

from tests.conformance.scsi.bench import NEXUS_A
from tests.conformance.scsi.persistent_reserve import KEY_A, REGISTER_AND_MOVE, out_cdb


@pytest.mark.parametrize("action", range(8))
@pytest.mark.parametrize("length", [0, 1, 8, 23, 25, 28, 64 << 10, (64 << 10) + 1, 1 << 20, 0xFFFFFFFF])
async def test_lengths_that_cannot_be(pr, action, length):
    if action == REGISTER_AND_MOVE and length in (25, 28, 64 << 10):
        length = 12
    await pr.register(NEXUS_A)
    data = KEY_A.to_bytes(8, "big") + bytes(max(min(length, 1 << 20) - 8, 0))
    sense = await pr.bench.refused(out_cdb(action, length, 1), data[:length])
    assert (sense.sense_key, sense.asc_ascq) == (5, 0x1A00)
    assert await pr.keys() == [KEY_A] and await pr.generation() == 1


async def test_less_data_than_announced(pr):
    assert (await pr.bench.refused(out_cdb(0, 24), bytes(23))).asc_ascq == 0x1A00


async def test_more_data_than_announced(pr):
    """Only what is announced is the parameter list."""
    data = bytes(8) + KEY_A.to_bytes(8, "big") + bytes(8) + b"\xff" * 40
    await pr.bench.good(out_cdb(0, 24), data)
    assert await pr.keys() == [KEY_A]


@pytest.mark.parametrize("action", range(8, 32))
async def test_service_actions_that_there_are_not(pr, action):
    """REPLACE LOST RESERVATION (08h) is not supported, as RLR_C 0 says; the rest is reserved."""
    sense = await pr.bench.refused(out_cdb(action, 24), bytes(24))
    assert (sense.asc_ascq, sense.field_pointer, sense.bit_pointer) == (0x2400, 1, 4)
