"""What a reservation does to a command, and the log line that helps who did not expect it. [C]"""

import logging

from storage_model.nexus import ITNexus
from storage_model.persistent_reservation import PersistentReservation
from storage_model.reservation import Exclusion, Reservation
from target.scsi.command_row import CommandRow, UnderReservation

log = logging.getLogger("pairvol.scsi")

TOLD_LIMIT = 256
"""Nexuses of one unit that are told of in one state of its reservation: a flood of conflicts is no flood of lines."""

_START_AND_POWER_CONDITION, _START = 0xF1, 0x01
_PREVENT = 0x03


def excluded(exclusion: Exclusion, row: CommandRow, cdb: bytes) -> bool:
    """Whether the command conflicts (SPC-2 table 10; SPC-4 tables 65 and 66, SBC-3 table 13)."""
    if exclusion is Exclusion.NOTHING:
        return False
    match row.under_reservation:
        case UnderReservation.ANYBODY:
            return False
        case UnderReservation.STATUS:
            return exclusion is Exclusion.EVERYTHING
        case UnderReservation.READ:
            return exclusion is not Exclusion.WRITING
        case UnderReservation.ALLOW_REMOVAL:
            return bool(cdb[4] & _PREVENT)
        case UnderReservation.START:
            return cdb[4] & _START_AND_POWER_CONDITION != _START
        case UnderReservation.WRITE:
            return True


class ConflictLog:
    """Says of a nexus that gets RESERVATION CONFLICT when only its ISID or its target port keeps it out.

    One line for each nexus, until the reservation changes. Hosts lose their disk this way: an initiator that draws a
    new ISID at login is a new nexus (RFC 7143 §4.4.4), and its old registration excludes it.
    """

    def __init__(self, reservation: Reservation) -> None:
        self._reservation = reservation
        self._told: set[ITNexus] = set()
        self._state: tuple[ITNexus | None, PersistentReservation] | None = None

    def conflict(self, lun: int, nexus: ITNexus) -> None:
        reservation = self._reservation
        state = reservation.holder, reservation.persistent
        if self._state is None or state[0] != self._state[0] or state[1] is not self._state[1]:
            self._state = state
            self._told.clear()
        if nexus in self._told or len(self._told) >= TOLD_LIMIT:
            return
        self._told.add(nexus)
        known = _same_initiator(reservation, nexus)
        if known is None:
            return
        log.warning(
            "LUN %d: RESERVATION CONFLICT for %s: the reservation is that of the same initiator as %s; %s",
            lun,
            nexus,
            known,
            "a changed ISID makes a conflict: it is another nexus until it registers"
            if known.isid != nexus.isid
            else "through another target port it is another nexus until it registers",
        )


def _same_initiator(reservation: Reservation, nexus: ITNexus) -> ITNexus | None:
    """A nexus of the same initiator name that holds the unit or is registered, when ``nexus`` itself is not."""
    if nexus in reservation.persistent.registrations or nexus == reservation.holder:
        return None
    candidates = [reservation.persistent.holder, reservation.holder, *reservation.persistent.registrations]
    same = [known for known in candidates if known is not None and known.initiator_name == nexus.initiator_name]
    return next((known for known in same if known.isid == nexus.isid), same[0] if same else None)
