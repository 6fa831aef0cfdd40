"""The I_T nexus: what makes two of them the same (SAM-5 4.7.2, RFC 7143 §4.2.7.3)."""

import pytest

from storage_model.nexus import ITNexus, is_name_length, normalised_name
from storage_model.reservation import Reservation
from storage_model.spec.pair_cdb import decode_claim, encode_claim

NAME, ISID = "iqn.2026-11.org.example:host", bytes.fromhex("400001370000")


def test_a_name_in_another_case_is_the_same_initiator():
    assert ITNexus(NAME.upper(), ISID) == ITNexus(NAME, ISID)
    assert str(ITNexus("iqn.2026-11.org.example:HOST", ISID)) == f"{NAME},i,0x400001370000 -> port 1"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("iqn.a:STRASSE", "iqn.a:strasse"),
        ("iqn.a:\uff28\uff4f\uff53\uff54", "iqn.a:host"),  # full width
        ("iqn.a:\U0001d407ost", "iqn.a:host"),  # a mathematical capital, which has no lower case of its own
        ("iqn.a:J\u030c", "iqn.a:\u01f0"),  # composes in lower case only
        ("iqn.a:host-a\u0308", "iqn.a:host-\u00c4"),
    ],
)
def test_spellings_of_one_name(one: str, other: str):
    """RFC 3722: NFKC and case folding."""
    assert normalised_name(one) == normalised_name(other)
    assert ITNexus(one, ISID) == ITNexus(other, ISID) == ITNexus(ITNexus(one, ISID).initiator_name, ISID)


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("x" * 223, True),
        ("x" * 224, False),
        ("\u00e4" * 111, True),
        ("\u00e4" * 112, False),
        ("\u0130" * 111, False),  # lower case adds a dot of two bytes to each
        ("\ufdfa" * 7, False),  # 21 bytes, and 231 normalised
        ("\uff58" * 75, False),  # 225 bytes, and 75 normalised
    ],
)
def test_length_of_a_name_as_spelled_and_as_compared(name: str, fits: bool):
    assert is_name_length(name) is fits


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
