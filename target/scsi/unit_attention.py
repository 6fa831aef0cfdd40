"""Unit attention conditions of one logical unit, per I_T nexus (SAM-5 5.14)."""

from storage_model.nexus import ITNexus
from storage_model.spec.scsi_sense import AscAscq

RESET_CONDITIONS = frozenset(
    {
        AscAscq.POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED,
        AscAscq.POWER_ON_OCCURRED,
        AscAscq.SCSI_BUS_RESET_OCCURRED,
        AscAscq.BUS_DEVICE_RESET_FUNCTION_OCCURRED,
        AscAscq.DEVICE_INTERNAL_RESET,
        AscAscq.I_T_NEXUS_LOSS_OCCURRED,
    }
)
"""Reported before RESERVATION CONFLICT; every other condition comes after it (SAM-5 5.3.3)."""


class UnitAttentions:
    """Pending conditions in the order of their arrival, each at most once, so the queues stay short by themselves.

    ``pending`` has an entry only for a nexus that has something to hear: an empty dict is the usual case and is all
    that the data path looks at.
    """

    __slots__ = ("known", "pending")

    def __init__(self) -> None:
        self.known: set[ITNexus] = set()
        self.pending: dict[ITNexus, list[AscAscq]] = {}

    def add_nexus(self, nexus: ITNexus) -> None:
        """A nexus that was not there before hears 29h/00h first: it may have missed a power on, a reset, its own loss.

        SAM-5 5.14 has a code for each; 29h/00h is the one for a device server that does not tell them apart.
        """
        self.known.add(nexus)
        self.pending[nexus] = [AscAscq.POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED]

    def remove_nexus(self, nexus: ITNexus) -> None:
        self.known.discard(nexus)
        self.pending.pop(nexus, None)

    def establish(self, condition: AscAscq, *, only: ITNexus | None = None, but: ITNexus | None = None) -> None:
        """Raise a condition for every known nexus, for ``only`` one, or for all ``but`` one."""
        for nexus in self.known if only is None else self.known & {only}:
            if nexus == but:
                continue
            queue = self.pending.setdefault(nexus, [])
            if condition in RESET_CONDITIONS:
                queue.clear()  # a reset makes what was to be told before it meaningless (SAM-5 5.14.2)
            if condition not in queue:
                queue.append(condition)

    def peek(self, nexus: ITNexus) -> AscAscq | None:
        queue = self.pending.get(nexus)
        return queue[0] if queue else None

    def take(self, nexus: ITNexus) -> AscAscq | None:
        """Report the oldest condition: it is cleared (SAM-5 5.14.5)."""
        queue = self.pending.get(nexus)
        if not queue:
            return None
        condition = queue.pop(0)
        if not queue:
            del self.pending[nexus]
        return condition

    def forget(self, nexus: ITNexus, condition: AscAscq) -> None:
        """Clear one condition without reporting it: the initiator has just learnt the fact otherwise."""
        queue = self.pending.get(nexus, [])
        if condition in queue:
            queue.remove(condition)
            if not queue:
                del self.pending[nexus]
