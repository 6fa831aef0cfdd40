"""The I_T nexus: what makes two of them the same (SAM-5 4.7.2, RFC 7143 §4.2.7.3)."""

import pytest

from storage_model.nexus import ITNexus
from storage_model.reservation import Reservation
from storage_model.spec.pair_cdb import decode_claim, encode_claim

NAME, ISID = "iqn.2026-11.org.example:host", bytes.fromhex("400001370000")


def test_a_name_in_another_case_is_the_same_initiator():
    assert ITNexus(NAME.upper(), ISID) == ITNexus(NAME, ISID)
    assert str(ITNexus("iqn.2026-11.org.example:HOST", ISID)) == f"{NAME},i,0x400001370000 -> port 1"


@pytest.mark.parametrize("other", [ITNexus(NAME + "2", ISID), ITNexus(NAME, bytes(6)), ITNexus(NAME, ISID, 2)])
def test_name_isid_and_port_tell_nexuses_apart(other: ITNexus):
    assert other != ITNexus(NAME, ISID)


def test_a_reservation_is_held_under_the_name_in_any_case():
    reservation = Reservation()
    assert reservation.reserve(ITNexus(NAME, ISID))
    assert not reservation.conflicts(ITNexus("iqn.2026-11.ORG.example:Host", ISID))


def test_a_claim_that_spells_the_name_otherwise_is_for_the_same_nexus():
    nexus = ITNexus(NAME, ISID)
    claim = bytearray(encode_claim(nexus))
    claim[12 : 12 + len(NAME)] = NAME.upper().encode()
    assert decode_claim(bytes(claim)) == nexus
