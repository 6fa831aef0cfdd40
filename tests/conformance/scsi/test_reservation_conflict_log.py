"""A changed ISID makes a conflict, and the log says so, once: the host's administrator sees a disk that is reserved."""

import logging

import pytest

from storage_model.nexus import ITNexus
from target.scsi.reservation_gate import TOLD_LIMIT
from tests.conformance.scsi.bench import NEXUS_A, NEXUS_B
from tests.conformance.scsi.persistent_reserve import (
    CONFLICT,
    KEY_A,
    NEXUS_A_OTHER_ISID,
    REGISTER,
    RESERVE,
    WE_RO,
    write_status,
)
from tests.conformance.scsi.target_ports import PORT_2_A, with_two_ports


@pytest.fixture
def warnings(caplog):
    caplog.set_level(logging.INFO, "pairvol.scsi")
    return lambda: [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


async def test_told_once_until_the_reservation_changes(pr, warnings):
    await pr.register(NEXUS_A)
    await pr.reserve(WE_RO)
    for _ in range(3):
        assert await write_status(pr.bench, NEXUS_A_OTHER_ISID) is CONFLICT
    assert warnings() == [
        f"LUN 0: RESERVATION CONFLICT for {NEXUS_A_OTHER_ISID}: the reservation is that of the same initiator as"
        f" {NEXUS_A}; a changed ISID makes a conflict: it is another nexus until it registers"
    ]
    await pr.out(REGISTER, NEXUS_A, 5)
    await write_status(pr.bench, NEXUS_A_OTHER_ISID)
    assert len(warnings()) == 2


async def test_also_for_its_own_reservation_commands(pr, warnings):
    """A host that comes back and reserves with the key that it had."""
    await pr.register(NEXUS_A)
    assert await pr.out(RESERVE, NEXUS_A_OTHER_ISID, key=KEY_A, kind=WE_RO) is CONFLICT
    assert len(warnings()) == 1 and "changed ISID" in warnings()[0]


async def test_reserve_6(pr, warnings):
    await pr.bench.good("16")
    assert await write_status(pr.bench, NEXUS_A_OTHER_ISID) is CONFLICT
    assert len(warnings()) == 1 and "changed ISID" in warnings()[0]


async def test_another_target_port(pr, warnings):
    with_two_ports(pr.bench)
    await pr.register(NEXUS_A)
    await pr.reserve(WE_RO)
    assert await write_status(pr.bench, PORT_2_A) is CONFLICT
    assert len(warnings()) == 1 and "another target port" in warnings()[0] and "ISID" not in warnings()[0]


async def test_a_stranger_is_no_news(pr, warnings):
    await pr.register(NEXUS_A)
    await pr.reserve(WE_RO)
    assert await write_status(pr.bench, NEXUS_B) is CONFLICT
    assert warnings() == []


async def test_a_flood_of_isids(pr, warnings):
    await pr.register(NEXUS_A)
    await pr.reserve(WE_RO)
    for number in range(TOLD_LIMIT + 50):
        nexus = ITNexus(NEXUS_A.initiator_name, (0x900000000000 + number).to_bytes(6, "big"))
        assert await write_status(pr.bench, nexus) is CONFLICT
    assert len(warnings()) == TOLD_LIMIT


async def test_every_change_is_told(pr, caplog):
    caplog.set_level(logging.INFO, "pairvol.scsi")
    await pr.register(NEXUS_A)
    await pr.reserve(WE_RO)
    await pr.reserve(WE_RO)
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        f"LUN 0: REGISTER by {NEXUS_A} (key 0xa): 1 registered, not reserved",
        f"LUN 0: RESERVE by {NEXUS_A} (key 0xa): 1 registered, write exclusive registrants only held by {NEXUS_A}",
    ]
