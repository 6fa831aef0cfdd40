"""Changes a unit's persistent reservation: one at a time, and durable before it counts where APTPL asks for it. [C]"""

from asyncio import Lock
from dataclasses import replace
from typing import Protocol

from storage_model.persistent_reservation import PersistentReservation
from storage_model.reservation import Reservation


class ReservationStore(Protocol):
    """Keeps the persistent reservation of one volume over a restart."""

    async def save(self, reservation: PersistentReservation | None) -> None:
        """Durable on return; None: nothing is kept. Raises MediumFailure, and then nothing has changed."""
        ...


class ReservationJournal:
    """``lock`` is held by whoever reads a unit's reservation to change it, RESERVE included: each is indivisible.

    Without a store nothing survives, and an initiator that asks for APTPL is told so (SPC-4 6.16.3).
    """

    def __init__(self, reservation: Reservation, store: ReservationStore | None = None) -> None:
        self.lock = Lock()
        self._reservation = reservation
        self._store = store

    @property
    def survives_power_loss(self) -> bool:
        return self._store is not None

    async def change(self, state: PersistentReservation) -> None:
        """Put a state into force, with ``lock`` held. Raises MediumFailure, and then the old one is in force."""
        old = self._reservation.persistent
        if self._store is not None and (old.aptpl or state.aptpl) and not _same_record(old, state):
            await self._store.save(state if state.aptpl else None)
        self._reservation.put_into_force(state)


def _same_record(old: PersistentReservation, new: PersistentReservation) -> bool:
    """PRGENERATION is not kept."""
    return replace(old, generation=new.generation) == new
