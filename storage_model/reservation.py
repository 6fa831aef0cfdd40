"""Who holds a logical unit: by SCSI-2 RESERVE (SPC-2 5.5.1, 7.21, 7.18), or by a persistent reservation (SPC-4 5.13).

Either belongs to an I_T nexus, so a second session of the same initiator port through the same target port is the
holder, and another session of the same host is not. The two exclude one another, so one object answers for both.
"""

from enum import Enum

from storage_model.nexus import ITNexus
from storage_model.persistent_reservation import PersistentReservation


class Exclusion(Enum):
    """What a reservation keeps a nexus from."""

    NOTHING = "nothing"
    WRITING = "writing"
    ACCESS = "reading and writing"
    EVERYTHING = "all but what SPC-2 table 10 exempts"


class Reservation:
    """``holder`` by RESERVE, None while there is none; ``persistent`` the registrations and what they hold.

    ``doubtful``: what the other array of a pair may have put into force in the place of ``persistent``. Then only those
    are let in whom both let in, so that of an old holder and a new one neither is. ``held`` is True while anything
    reserves the unit: all that the data path looks at.
    """

    __slots__ = ("doubtful", "held", "holder", "persistent")

    def __init__(self) -> None:
        self.holder: ITNexus | None = None
        self.persistent = PersistentReservation()
        self.doubtful: PersistentReservation | None = None
        self.held = False

    def conflicts(self, nexus: ITNexus) -> bool:
        """Whether another nexus holds the unit by RESERVE. Whether a command minds is the command table's business."""
        return self.holder is not None and self.holder != nexus

    def excludes(self, nexus: ITNexus) -> Exclusion:
        """What the reservation, of whichever kind, keeps ``nexus`` from."""
        if self.conflicts(nexus):
            return Exclusion.EVERYTHING
        certain = _excludes(self.persistent, nexus)
        if self.doubtful is None or certain is Exclusion.ACCESS:
            return certain
        doubtful = _excludes(self.doubtful, nexus)
        return certain if doubtful is Exclusion.NOTHING else doubtful

    def reserve(self, nexus: ITNexus) -> bool:
        """RESERVE: false for RESERVATION CONFLICT. The holder may repeat it (SPC-2 7.21.2).

        While anybody is registered it reserves nothing: it has no effect by whom the persistent reservation takes in,
        and conflicts by anybody else (SPC-4 5.13.3; SPC-2 5.5.1).
        """
        if self._registered:
            return self._taken_in(nexus)
        if self.conflicts(nexus):
            return False
        self._hold(nexus)
        return True

    def release_conflicts(self, nexus: ITNexus) -> bool:
        """RELEASE while anybody is registered: as :meth:`reserve`."""
        return self._registered and not self._taken_in(nexus)

    @property
    def _registered(self) -> bool:
        return bool(self.persistent.registrations or (self.doubtful and self.doubtful.registrations))

    def _taken_in(self, nexus: ITNexus) -> bool:
        return self.persistent.takes_in(nexus) and (self.doubtful is None or self.doubtful.takes_in(nexus))

    def release(self, nexus: ITNexus) -> bool:
        """RELEASE: true when ``nexus`` held the unit. By another it is no error and does nothing (SPC-2 7.18.2)."""
        if self.holder != nexus or self.holder is None:
            return False
        self._hold(None)
        return True

    def drop(self, nexus: ITNexus) -> bool:
        """Give back what ``nexus`` holds by RESERVE, because it was lost or lost an arbitration; true when it did.

        Persistent reservations stay (SPC-4 5.13.1).
        """
        return self.release(nexus)

    def clear(self) -> None:
        """A reset: nobody holds the unit by RESERVE any more (SPC-2 5.5.1). Persistent reservations stay."""
        self._hold(None)

    def put_into_force(self, persistent: PersistentReservation, doubtful: PersistentReservation | None = None) -> None:
        """The outcome of a PERSISTENT RESERVE OUT, or what was kept over a restart."""
        assert self.holder is None or not persistent.registrations, "a unit is reserved in one way at a time"
        self.persistent, self.doubtful = persistent, doubtful
        self._hold(self.holder)

    def _hold(self, nexus: ITNexus | None) -> None:
        self.holder = nexus
        states = (self.persistent, self.doubtful)
        self.held = nexus is not None or any(each and each.reservation_type is not None for each in states)


def _excludes(state: PersistentReservation, nexus: ITNexus) -> Exclusion:
    kind = state.reservation_type
    if kind is None or state.takes_in(nexus):
        return Exclusion.NOTHING
    return Exclusion.ACCESS if kind.exclusive_access else Exclusion.WRITING
