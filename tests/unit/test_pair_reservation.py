"""Entries, proposals and orders of a pair's persistent reservation: their wire form, and both arrays' views."""

from dataclasses import replace

import pytest

from storage_model.nexus import ITNexus
from storage_model.pair_reservation import (
    SECOND_ARRAY,
    ReservationEffects,
    ReservationEntry,
    ReservationProposal,
    attentions_missed,
    first_port,
    nexus_seen_from,
    seen_from,
)
from storage_model.persistent_reservation import PersistentReservation, Registration, ReservationType
from storage_model.reservation_order import ReservationOrder
from storage_model.spec.scsi_cdb import PersistentReserveOut
from storage_model.spec.scsi_sense import AscAscq

A = ITNexus("iqn.2026-11.org.example:a", bytes(6), 3)
B = ITNexus("iqn.2026-11.org.example:b", bytes(6), SECOND_ARRAY + 3)
STATE = PersistentReservation(
    {A: Registration(1), B: Registration(2, all_target_ports=True)}, ReservationType.EXCLUSIVE_ACCESS, B, 9, aptpl=True
)
ENTRY = ReservationEntry(4, 7, STATE)
PROPOSAL = ReservationProposal(
    ENTRY, (4, 6), ReservationEffects(A, 0x7FFFFFFF, ((B, AscAscq.REGISTRATIONS_PREEMPTED),), frozenset({B}))
)
ORDER = ReservationOrder(
    replace(B, target_port=3), 5, PersistentReserveOut.PREEMPT, 0x03, bytes(24), (1, 3), SECOND_ARRAY
)
BAD = [
    "", "7", "[]", "{}", "null", "[" * 100_000, "[1, 2, 3, true]", "[1, 2, -1, true, \"{}\"]",
    '{"tag": 1e999, "nexus": ["a", "00", 1]}',
]  # fmt: skip


def test_the_wire_form_leads_back() -> None:
    assert ReservationEntry.decode(ENTRY.encode()) == ENTRY
    assert ReservationEntry.decode(ReservationEntry().encode()) == ReservationEntry()
    assert ReservationProposal.decode(PROPOSAL.encode()) == PROPOSAL
    assert ReservationOrder.decode(ORDER.encode()) == ORDER


@pytest.mark.parametrize("text", BAD)
@pytest.mark.parametrize("kind", [ReservationEntry, ReservationProposal, ReservationOrder])
def test_anything_else_is_refused(kind: type[ReservationEntry], text: str) -> None:
    with pytest.raises(ValueError, match="not a reservation"):
        kind.decode(text)


@pytest.mark.parametrize(("port", "first"), [(0x8000, SECOND_ARRAY), (1, 0x10000), (1, -2)])
def test_a_relative_target_port_has_sixteen_bits(port: int, first: int) -> None:
    order = replace(ORDER, target_ports=(port,), first_port=first)
    with pytest.raises(ValueError, match="sixteen bits"):
        ReservationOrder.decode(order.encode())


def test_each_array_sees_its_own_ports_as_they_are() -> None:
    bases = first_port("30095", "30096"), first_port("30096", "30095")
    assert bases == (0, SECOND_ARRAY)
    assert seen_from(STATE, bases[0]) is STATE
    seen = seen_from(STATE, bases[1])
    assert seen.holder == replace(B, target_port=3) and seen.held_key == 2
    assert list(seen.registrations) == [replace(A, target_port=SECOND_ARRAY + 3), seen.holder]
    assert seen_from(seen, bases[1]) == STATE
    assert nexus_seen_from(ORDER.nexus, bases[1]) == ORDER.requester == B


def test_what_is_only_known_by_its_outcome_is_told_all_the_same() -> None:
    assert attentions_missed(STATE, STATE) == ((), frozenset())
    preempted = replace(STATE, registrations={A: Registration(1)}, holder=A)
    assert attentions_missed(STATE, preempted) == (((B, AscAscq.REGISTRATIONS_PREEMPTED),), frozenset({B}))
    released = replace(STATE, reservation_type=None, holder=None)
    attentions, lost = attentions_missed(STATE, released)
    assert set(attentions) == {(A, AscAscq.RESERVATIONS_RELEASED), (B, AscAscq.RESERVATIONS_RELEASED)} and not lost
