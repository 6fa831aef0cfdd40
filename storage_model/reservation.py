"""Who holds a logical unit: SCSI-2 RESERVE and RELEASE (SPC-2 5.5.1, 7.21, 7.18).

A reservation belongs to an I_T nexus, so a second session of the same initiator port through the same target port is
the holder, and another session of the same host is not. Persistent reservations (SPC-4 5.12) will join this class:
they exclude SCSI-2 reservations of the same unit, so one object has to answer for both.
"""

from storage_model.nexus import ITNexus


class Reservation:
    """The SCSI-2 reservation of one logical unit; ``holder`` is ``None`` while it is free."""

    __slots__ = ("holder",)

    def __init__(self) -> None:
        self.holder: ITNexus | None = None

    def conflicts(self, nexus: ITNexus) -> bool:
        """Whether another nexus holds the unit. Whether the command minds is the command table's business."""
        return self.holder is not None and self.holder != nexus

    def reserve(self, nexus: ITNexus) -> bool:
        """RESERVE: false when another nexus holds the unit; the holder may repeat it (SPC-2 7.21.2)."""
        if self.conflicts(nexus):
            return False
        self.holder = nexus
        return True

    def release(self, nexus: ITNexus) -> bool:
        """RELEASE: true when ``nexus`` held the unit. By another it is no error and does nothing (SPC-2 7.18.2)."""
        if self.holder != nexus or self.holder is None:
            return False
        self.holder = None
        return True

    def drop(self, nexus: ITNexus) -> bool:
        """Give back what ``nexus`` holds, because it was lost or lost an arbitration; true when it held something."""
        return self.release(nexus)

    def clear(self) -> None:
        """A reset: nobody holds the unit any more (SPC-2 5.5.1)."""
        self.holder = None
