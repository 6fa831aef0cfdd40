"""PERSISTENT RESERVE IN: READ KEYS, READ RESERVATION, READ FULL STATUS, REPORT CAPABILITIES (SPC-4 6.15)."""

from dataclasses import replace

import pytest

from storage_model.spec.scsi_persistent_reservation import FullStatus, TransportId, decode_full_status
from tests.conformance.scsi.bench import NEXUS_A, NEXUS_B
from tests.conformance.scsi.persistent_reserve import (
    AR,
    EA,
    KEY_A,
    KEY_B,
    NEXUS_A_OTHER_ISID,
    REGISTER,
    TYPES,
    WE,
)
from tests.conformance.scsi.target_ports import PORT_2_A, with_two_ports

READ_KEYS, READ_RESERVATION, REPORT_CAPABILITIES, READ_FULL_STATUS = range(4)


@pytest.mark.parametrize("action", [READ_KEYS, READ_RESERVATION, READ_FULL_STATUS])
async def test_nothing_registered(pr, action):
    assert await pr.read(action) == bytes(8)


async def test_keys_of_all_nexuses_with_equal_ones(pr):
    """SPC-4 6.15.2: duplicate keys are reported as often as they are registered."""
    await pr.register(NEXUS_A, NEXUS_B)
    await pr.out(REGISTER, NEXUS_A_OTHER_ISID, KEY_A)
    assert sorted(await pr.keys()) == [KEY_A, KEY_A, KEY_B]


@pytest.mark.parametrize("action", [READ_KEYS, READ_RESERVATION, READ_FULL_STATUS])
@pytest.mark.parametrize("allocation", [0, 1, 7, 8, 12, 16, 23, 24, 30])
async def test_the_additional_length_is_not_that_of_the_allocation(pr, action, allocation):
    """SPC-4 4.2.5.6, 6.15.2: what is cut off is still counted."""
    await pr.register(NEXUS_A, NEXUS_B)
    await pr.reserve(WE)
    whole = await pr.read(action)
    assert int.from_bytes(whole[4:8], "big") == len(whole) - 8 > 0
    assert await pr.read(action, allocation=allocation) == whole[:allocation]


@pytest.mark.parametrize("kind", TYPES)
async def test_reservation_with_its_key_scope_and_type(pr, kind):
    """SPC-4 6.15.3.2; the key is 0 where everybody registered holds (5.13.10)."""
    await pr.register(NEXUS_A, NEXUS_B)
    await pr.reserve(kind)
    key = 0 if kind in AR else KEY_A
    descriptor = key.to_bytes(8, "big") + bytes(5) + bytes((kind,)) + bytes(2)
    assert await pr.read(READ_RESERVATION) == b"\0\0\0\x02" + b"\0\0\0\x10" + descriptor


@pytest.mark.parametrize("kind", TYPES)
async def test_full_status_says_who_holds(pr, kind):
    """SPC-4 table 211."""
    await pr.register(NEXUS_A, NEXUS_B)
    await pr.reserve(kind)
    found = decode_full_status(await pr.read(READ_FULL_STATUS))
    for nexus, key in ((NEXUS_A, KEY_A), (NEXUS_B, KEY_B)):
        holds = nexus == NEXUS_A or kind in AR
        identity = TransportId(nexus.initiator_name, nexus.isid)
        assert FullStatus(key, identity, 1, holds, kind if holds else 0) in found
    assert len(found) == 2


async def test_full_status_to_the_byte(pr):
    """SPC-4 tables 210, 211 and 506; the TransportID is padded to a multiple of four."""
    await pr.register(NEXUS_A)
    await pr.reserve(EA)
    name = b"iqn.2026-11.org.example:a,i,0x800000000001"
    assert await pr.read(READ_FULL_STATUS) == (
        bytes.fromhex("00000001 00000048")
        + bytes.fromhex("000000000000000a 00000000 01 03 00000000 0001 00000030")
        + bytes.fromhex("45 00 002c")
        + name
        + bytes(44 - len(name))
    )


async def test_full_status_of_each_target_port(pr):
    """SPC-4 6.15.5: a descriptor for each nexus, or one for all target ports where it is true of all of them."""
    with_two_ports(pr.bench)
    assert await pr.out(REGISTER, NEXUS_A, KEY_A, every_port=True) == 0
    (one,) = decode_full_status(await pr.read(READ_FULL_STATUS))
    assert one.all_target_ports and not one.holder
    await pr.reserve(WE)  # one of the two holds, so that they are not alike any more
    two = decode_full_status(await pr.read(READ_FULL_STATUS))
    assert [(status.relative_target_port, status.holder, status.all_target_ports) for status in two] == [
        (1, True, False),
        (2, False, False),
    ]


async def test_full_status_after_the_key_of_one_port_has_changed(pr):
    with_two_ports(pr.bench)
    await pr.out(REGISTER, NEXUS_A, KEY_A, every_port=True)
    await pr.out(REGISTER, PORT_2_A, KEY_B)
    two = decode_full_status(await pr.read(READ_FULL_STATUS))
    assert [(status.key, status.all_target_ports) for status in two] == [(KEY_A, False), (KEY_B, False)]


async def test_full_status_after_a_target_port_was_added(pr):
    """It was registered at every port that there was: the new one is not among them."""
    await pr.out(REGISTER, NEXUS_A, KEY_A, every_port=True)
    assert decode_full_status(await pr.read(READ_FULL_STATUS))[0].all_target_ports
    with_two_ports(pr.bench)
    (one,) = decode_full_status(await pr.read(READ_FULL_STATUS))
    assert (one.all_target_ports, one.relative_target_port) == (False, 1)


async def test_capabilities(pr):
    """SPC-4 table 207: CRH, SIP_C, ATP_C; TMV, ALLOW COMMANDS 100b; all six types. No APTPL where nothing is kept."""
    assert (await pr.read(REPORT_CAPABILITIES)).hex(" ") == "00 08 1c c0 ea 01 00 00"


async def test_target_ports_are_not_mixed_up(pr):
    """SPC-4 5.13.1: an initiator port is another nexus through another target port."""
    with_two_ports(pr.bench)
    await pr.register(NEXUS_A)
    assert replace(NEXUS_A, target_port=2) == PORT_2_A
    (one,) = decode_full_status(await pr.read(READ_FULL_STATUS))
    assert one.relative_target_port == 1
    assert (await pr.bench.run("5f 01 01", nexus=PORT_2_A)).status != 0
