"""What a change of persistent reservations does at one unit of this array. [C]"""

from asyncio import Event, Lock
from collections.abc import Collection, Iterable

from storage_model.nexus import ITNexus
from storage_model.persistent_reservation import PersistentReservation
from storage_model.spec.scsi_sense import AscAscq
from target.scsi.command_context import DeviceServerPort
from target.scsi.logical_unit import LogicalUnit
from target.scsi.task_manager import abort


class UnitReservation:
    """Nexuses are those of this array; of others nothing is known here, and nothing happens."""

    def __init__(self, server: DeviceServerPort, lu: LogicalUnit) -> None:
        self._server = server
        self._lu = lu

    @property
    def lock(self) -> Lock:
        """Held by whoever reads the reservation to change it, RESERVE included."""
        return self._lu.reservation_journal.lock

    @property
    def reserved(self) -> bool:
        """By RESERVE: then PERSISTENT RESERVE OUT conflicts, whoever it comes from (SPC-2 5.5.1)."""
        return self._lu.reservation.holder is not None

    def show(self, state: PersistentReservation, doubtful: PersistentReservation | None) -> None:
        """Put the table of a pair into force. Where it has registrations, a RESERVE ends that should not have been."""
        reservation = self._lu.reservation
        holder = reservation.holder
        if holder is not None and state.registrations:
            reservation.clear()
            self._lu.unit_attentions.establish(AscAscq.RESERVATIONS_PREEMPTED, only=holder)
        reservation.put_into_force(state, doubtful)

    def tell(self, attentions: Iterable[tuple[ITNexus, AscAscq]]) -> None:
        """A registered nexus that is not logged in now hears 29h/00h when it comes, which stands for what it missed: of
        the conditions of a nexus it has the highest precedence (SAM-5 5.14)."""
        for nexus, condition in attentions:
            self._lu.unit_attentions.establish(condition, only=nexus)

    def abort(self, preempted: Collection[ITNexus], requester: ITNexus, tag: int) -> Event:
        """SPC-4 5.13.11.2.6: the commands of the preempted, but the one that asks, and their prevention of removal.

        The event is set when they have ended. A command that still waits for older ones will not begin, and may be
        waiting for this very one: no need to wait.
        """
        lu = self._lu
        lu.prevents_removal -= set(preempted)
        doomed = [
            task for task in lu.tasks.all() if task.nexus in preempted and (task.nexus, task.tag) != (requester, tag)
        ]
        abort(doomed)
        self._server.abort_in_transports(preempted, lu.lun)
        ended = Event()
        lu.tasks.when_ended([task for task in doomed if not lu.tasks.waits_for_turn(task)], ended.set)
        return ended
