"""SCSI-2 reservations, without SCSI (SPC-2 5.5.1)."""

from storage_model.nexus import ITNexus
from storage_model.reservation import Reservation

A = ITNexus("iqn.2026-11.org.example:a", b"\x80\0\0\0\0\x01")
A_OTHER_ISID = ITNexus("iqn.2026-11.org.example:a", b"\x80\0\0\0\0\x02")
A_OTHER_PORT = ITNexus("iqn.2026-11.org.example:a", b"\x80\0\0\0\0\x01", 2)


def test_the_holder_is_a_nexus_and_not_a_name():
    reservation = Reservation()
    assert reservation.reserve(A) and reservation.reserve(A)
    for other in (A_OTHER_ISID, A_OTHER_PORT):
        assert reservation.conflicts(other) and not reservation.reserve(other)
        assert not reservation.release(other) and not reservation.drop(other)
    assert reservation.holder == A
    assert reservation.drop(A) and not reservation.drop(A)
    assert not reservation.conflicts(A_OTHER_PORT)


def test_clear():
    reservation = Reservation()
    reservation.reserve(A)
    reservation.clear()
    assert reservation.reserve(A_OTHER_ISID)
