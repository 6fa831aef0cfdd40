"""One logical unit: its volume, its identity and the state that commands leave behind (SAM-5 4.7.4)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from storage_model.nexus import ITNexus
from storage_model.pair import PairRequest
from storage_model.reservation import Reservation
from storage_model.reservation_order import ReservationOrder
from storage_model.spec.pair_cdb import PairStatus
from storage_model.spec.scsi_mode import CACHING_WCE, CONTROL_D_SENSE, CONTROL_SWP, MODE_PAGES, ModePage
from storage_model.spec.scsi_pages import Designator, unit_designators
from storage_model.spec.scsi_sense import AscAscq
from storage_model.spec.scsi_task import ScsiStatus
from storage_model.volume import DirectVolume, MirroredVolume, Volume
from target.scsi.background_operation import BackgroundOperation, NoNotes, OperationNotes, Pace, unpaced
from target.scsi.block_range_lock import BlockRangeLock
from target.scsi.copy_operations import CopyOperations
from target.scsi.diagnostic_buffers import DiagnosticBuffers
from target.scsi.error_counters import ErrorCounters
from target.scsi.reservation_gate import ConflictLog
from target.scsi.reservation_journal import ReservationJournal, ReservationStore
from target.scsi.task_manager import TaskSet
from target.scsi.unit_attention import UnitAttentions

MAXIMUM_TRANSFER_BYTES: Final = 32 << 20
"""Data of one command; what the block limits page tells, and what bounds the memory a command may ask for."""
MAXIMUM_COMPARE_AND_WRITE_BLOCKS = 255
MAXIMUM_ATOMIC_WRITE_BYTES = 1 << 20
"""Of one WRITE ATOMIC: it is written twice, and kept in memory until then."""
MAXIMUM_UNMAP_BYTES = 512 << 20
MAXIMUM_UNMAP_DESCRIPTORS = 256
MAXIMUM_WRITE_SAME_BYTES = 128 << 20
"""What a WRITE SAME of other data than zeros writes in well under a second."""


class PairPort(Protocol):
    """What a volume that belongs to a pair adds to its logical unit."""

    def refuse(self, nexus: ITNexus, *, writes: bool) -> ScsiStatus:
        """GOOD, or the status to end with; raises ``CheckCondition``. Asked before a command touches the medium."""
        ...

    @property
    def about_to_change(self) -> bool:
        """True while the pair is about to change: a volume without one may have one in a moment."""
        ...

    @property
    def epoch(self) -> int:
        """Moves with every change of the pair."""
        ...

    async def released(self, nexus: ITNexus) -> None:
        """A RELEASE by ``nexus`` ends with GOOD; whether that nexus owns anything is the pair's knowledge."""
        ...

    def status(self) -> PairStatus:
        """What REPORT PAIR STATUS answers."""
        ...

    async def request(self, request: PairRequest) -> int:
        """Carry out a pair-control command, to the epoch it led to; raises ``PairRefused``."""
        ...

    async def withdraw(self, nexus: ITNexus) -> None:
        """The claim of ``nexus`` lost at its host: it must not own the pair."""
        ...

    async def persistent_reserve_out(self, order: ReservationOrder, aborted: Callable[[], bool]) -> bool:
        """Carry it out at both arrays; False for RESERVATION CONFLICT. Raises ``CheckCondition``, ``PairRefused``."""
        ...

    async def reservations_settled(self) -> None:
        """Until no change is under way; raises ``PairRefused`` while it is unknown whether one was made."""
        ...

    def verify(self) -> object:
        """Begin to compare both copies; raises ``PairRefused``."""
        ...

    def set_copy_rate(self, bytes_per_second: int) -> None:
        """How fast copies and comparisons go that this array drives; 0: no limit."""
        ...


@dataclass(frozen=True, slots=True)
class UnitIdentity:
    """What INQUIRY tells of a unit. Two halves of a pair have equal identities, so that a host sees one volume.

    ``serial`` is printable ASCII; ``designators`` those of the logical unit (see ``scsi_pages.unit_designators``); when
    empty they are derived from vendor, product and serial. Longer texts are cut to their INQUIRY fields.
    """

    serial: str
    vendor: str = "PAIRVOL"
    product: str = "VIRTUAL DISK"
    revision: str = "0001"
    designators: tuple[Designator, ...] = ()

    def unit_designators(self) -> tuple[Designator, ...]:
        return self.designators or unit_designators(f"{self.product} {self.serial}", self.vendor)


class LogicalUnit:
    """State is reached by attribute: handlers are its methods in all but place, one file per command set.

    ``identity`` and ``pair`` may be replaced while the unit serves (a pair is created, deleted); ``volume`` too, by a
    filter over the same blocks.
    """

    def __init__(
        self,
        lun: int,
        volume: Volume,
        identity: UnitIdentity,
        pair: PairPort | None = None,
        *,
        write_protected: bool = False,
        removable: bool = False,
        thin: bool = True,
        physical_block_length: int | None = None,
        reservation_store: ReservationStore | None = None,
    ) -> None:
        self.lun = lun
        self.direct: DirectVolume | None
        """The volume, when commands may ask it to work without waiting."""
        self.mirrored: MirroredVolume | None
        """The volume, when commands may ask it to wait for nothing but a copy."""
        self.volume = volume
        self.identity = identity
        self.pair = pair
        self.removable = removable
        self.thin = thin
        self.reservation = Reservation()
        self.reservation_journal = ReservationJournal(self.reservation, reservation_store)
        self.conflict_log = ConflictLog(self.reservation)
        self.unit_attentions = UnitAttentions()
        self.tasks = TaskSet()
        self.write_ranges = BlockRangeLock()
        self.copies = CopyOperations()
        self.error_counters = ErrorCounters()
        self.diagnostic_buffers = DiagnosticBuffers()
        self.prevents_removal: set[ITNexus] = set()
        self._started = self._loaded = True
        self._operation: BackgroundOperation | None = None
        self.accessible = True
        """False while it is stopped, its medium is out, or an operation has it: all that the data path looks at."""
        self.operation_notes: OperationNotes = NoNotes()
        self.pace: Pace = unpaced
        self._write_protected = write_protected
        self.block_length = volume.block_length
        self.physical_block_length = physical_block_length or volume.block_length
        self.block_count = volume.size_bytes // volume.block_length
        self.mode_pages: dict[int, bytearray] = {}
        self.reset_mode_pages()

    @property
    def volume(self) -> Volume:
        return self._volume

    @volume.setter
    def volume(self, volume: Volume) -> None:
        self._volume = volume
        self.direct = volume if isinstance(volume, DirectVolume) else None
        self.mirrored = volume if isinstance(volume, MirroredVolume) else None

    def reset_mode_pages(self) -> None:
        """Back to the defaults: nothing is saved (SPC-4 7.5.1)."""
        self.mode_pages = {layout.page: bytearray(layout.default) for layout in MODE_PAGES}
        self.mode_pages_changed()

    def mode_pages_changed(self) -> None:
        """Take over what the pages say, so that the data path reads plain attributes."""
        caching, control = self.mode_pages[ModePage.CACHING], self.mode_pages[ModePage.CONTROL]
        self.write_through = not caching[CACHING_WCE[0]] & CACHING_WCE[1]
        self.descriptor_sense = bool(control[CONTROL_D_SENSE[0]] & CONTROL_D_SENSE[1])
        self.software_write_protected = bool(control[CONTROL_SWP[0]] & CONTROL_SWP[1])
        self.write_protected = self._write_protected or self.software_write_protected

    @property
    def pair_epoch(self) -> int:
        """What was read in one epoch must not be taken for the volume's in another: both halves may have been the
        P-VOL meanwhile."""
        return 0 if self.pair is None else self.pair.epoch

    @property
    def write_protection(self) -> AscAscq:
        """The additional sense code of a refused write (SBC-3 4.12)."""
        if self._write_protected:
            return AscAscq.WRITE_PROTECTED
        return AscAscq.LOGICAL_UNIT_SOFTWARE_WRITE_PROTECTED

    @property
    def started(self) -> bool:
        return self._started

    @started.setter
    def started(self, value: bool) -> None:
        self._started = value
        self._access_changed()

    @property
    def loaded(self) -> bool:
        return self._loaded

    @loaded.setter
    def loaded(self, value: bool) -> None:
        self._loaded = value
        self._access_changed()

    @property
    def operation(self) -> BackgroundOperation | None:
        """The SANITIZE or FORMAT UNIT that is under way, or that has failed."""
        return self._operation

    @operation.setter
    def operation(self, value: BackgroundOperation | None) -> None:
        self._operation = value
        self._access_changed()

    def _access_changed(self) -> None:
        self.accessible = self._started and self._loaded and self._operation is None

    def capacity_changed(self) -> None:
        """The volume has grown: every nexus hears so (SBC-3 4.7)."""
        self.block_count = self.volume.size_bytes // self.block_length
        self.unit_attentions.establish(AscAscq.CAPACITY_DATA_HAS_CHANGED)

    def reset(self, condition: AscAscq) -> None:
        """What every kind of reset does to the unit once its tasks have ended (SAM-5 6.3.3)."""
        self.reservation.clear()
        self.prevents_removal.clear()
        self.copies.drop()
        self.started = True
        self.reset_mode_pages()
        self.unit_attentions.establish(condition)
