"""RESERVE (SPC-4 5.13.9) and what its six types keep whom from (table 65, SBC-3 table 13)."""

import pytest

from tests.conformance.scsi.bench import NEXUS_A, NEXUS_B
from tests.conformance.scsi.persistent_reserve import (
    AR,
    CONFLICT,
    EA,
    GOOD,
    KEY_A,
    KEY_B,
    NEXUS_A_OTHER_ISID,
    NEXUS_C,
    REGISTER,
    RESERVE,
    RO,
    TYPES,
    WE,
    read_status,
    write_status,
)


async def test_by_an_unregistered_nexus(pr):
    assert await pr.out(RESERVE, NEXUS_A, kind=WE, key=0) is CONFLICT
    assert await pr.reservation() is None


async def test_with_another_key_than_the_registered_one(pr):
    await pr.register(NEXUS_A, NEXUS_B)
    assert await pr.out(RESERVE, NEXUS_A, kind=WE, key=KEY_B) is CONFLICT
    assert await pr.reservation() is None


@pytest.mark.parametrize("kind", TYPES)
async def test_repeated_by_the_holder(pr, kind):
    await pr.register(NEXUS_A)
    await pr.reserve(kind)
    generation = await pr.generation()
    await pr.reserve(kind)
    assert await pr.generation() == generation


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("other", TYPES)
async def test_another_type_by_the_holder(pr, kind, other):
    await pr.register(NEXUS_A)
    await pr.reserve(kind)
    assert await pr.out(RESERVE, NEXUS_A, kind=other) is (GOOD if kind == other else CONFLICT)
    assert (await pr.reservation())[1] == kind


@pytest.mark.parametrize("kind", TYPES)
async def test_by_another_registrant(pr, kind):
    """SPC-4 5.13.10: under All Registrants that is a holder, too."""
    await pr.register(NEXUS_A, NEXUS_B)
    await pr.reserve(kind)
    assert await pr.out(RESERVE, NEXUS_B, kind=kind) is (GOOD if kind in AR else CONFLICT)
    assert await pr.reservation() == (0 if kind in AR else KEY_A, kind)


@pytest.mark.parametrize("kind", [0, 2, 4, 9, 0xF])
async def test_a_type_that_there_is_not(pr, kind):
    await pr.register(NEXUS_A)
    sense = await pr.out(RESERVE, NEXUS_A, kind=kind)
    assert (sense.sense_key, sense.asc_ascq, sense.field_pointer, sense.bit_pointer) == (5, 0x2400, 2, 3)


@pytest.mark.parametrize("scope", [1, 2, 0xF])
async def test_a_scope_other_than_the_logical_unit(pr, scope):
    await pr.register(NEXUS_A)
    sense = await pr.out(RESERVE, NEXUS_A, kind=WE, scope=scope)
    assert (sense.sense_key, sense.asc_ascq, sense.field_pointer, sense.bit_pointer) == (5, 0x2400, 2, 7)
    await pr.reserve(WE)
    assert await pr.out(RESERVE, NEXUS_A, kind=WE, scope=scope) is CONFLICT


@pytest.mark.parametrize("kind", TYPES)
async def test_who_may_read_and_write(pr, kind):
    """Another nexus with the holder's key is not the holder."""
    await pr.register(NEXUS_A, NEXUS_B)
    await pr.out(REGISTER, NEXUS_A_OTHER_ISID, KEY_A)
    await pr.reserve(kind)
    exclusive = kind in (EA, 6, 8)
    registrants_may = kind in RO + AR
    for nexus, may_write in (
        (NEXUS_A, True),
        (NEXUS_B, registrants_may),
        (NEXUS_A_OTHER_ISID, registrants_may),
        (NEXUS_C, False),
    ):
        assert await write_status(pr.bench, nexus) is (GOOD if may_write else CONFLICT)
        assert await read_status(pr.bench, nexus) is (GOOD if may_write or not exclusive else CONFLICT)


@pytest.mark.parametrize("kind", TYPES)
async def test_nothing_is_written_or_unmapped_past_it(pr, kind):
    bench = pr.bench
    await bench.good("2a 00 00000000 00 0001", b"k" * 512)
    await pr.register(NEXUS_A)
    await pr.reserve(kind)
    for cdb, data in (
        ("2e 00 00000000 00 0001", b"w" * 512),
        ("41 08 00000000 00 0001", bytes(512)),
        ("93 09 0000000000000000 00000001", b""),
        ("42 00 0000000000 0018", bytes(24)),
        ("89 00 0000000000000000 000000 01", b"k" * 512 + b"w" * 512),
        ("8b 00 0000000000000000 00000001", b"w" * 512),
        ("9c 00 0000000000000000 0000 0001", b"w" * 512),
    ):
        assert (await bench.run(cdb, data, NEXUS_C)).status is CONFLICT
    assert await bench.good("28 00 00000000 00 0001") == b"k" * 512


async def test_a_reset_of_the_nexus_is_told_before_the_conflict(pr):
    """SAM-5 5.3.3; any other unit attention comes after it."""
    await pr.register(NEXUS_A)
    await pr.reserve(WE)
    pr.bench.server.nexus_established(NEXUS_C)
    assert (await pr.bench.refused("2a 00 00000000 00 0001", b"w" * 512, NEXUS_C)).asc_ascq == 0x2900
    assert await write_status(pr.bench, NEXUS_C) is CONFLICT
