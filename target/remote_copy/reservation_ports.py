"""What a pair's persistent reservations are given: the unit whose commands obey them, and a place to keep them. [C]"""

from asyncio import Event, Lock
from collections.abc import Collection, Iterable
from typing import Protocol

from storage_model.nexus import ITNexus
from storage_model.pair_reservation import ReservationRecord
from storage_model.persistent_reservation import PersistentReservation
from storage_model.spec.scsi_sense import AscAscq


class ReservationUnit(Protocol):
    """The logical unit of the local half; nexuses in this array's numbers."""

    @property
    def lock(self) -> Lock:
        """Held by whoever reads the reservation to change it, RESERVE included."""
        ...

    @property
    def reserved(self) -> bool:
        """True while it is reserved by RESERVE."""
        ...

    def show(self, state: PersistentReservation, doubtful: PersistentReservation | None) -> None:
        """What commands obey from now on."""
        ...

    def tell(self, attentions: Iterable[tuple[ITNexus, AscAscq]]) -> None:
        """Establish unit attentions."""
        ...

    def abort(self, preempted: Collection[ITNexus], requester: ITNexus, tag: int) -> Event:
        """Abort the commands of some nexuses but the one of ``requester`` with ``tag``; set when they have ended."""
        ...


class ReservationRecordStore(Protocol):
    """Keeps the tables of pairs; forgets the table of a pair when its record becomes SMPL."""

    async def save_pair_reservation(self, name: str, record: ReservationRecord) -> None:
        """Durable on return; raises VolumeError, and then nothing has changed."""
        ...
