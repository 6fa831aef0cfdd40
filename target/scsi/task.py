"""What crosses between the transport and the SCSI side: a command with its data, and its outcome (SAM-5 5.1)."""

from collections.abc import Callable
from dataclasses import dataclass

from storage_model.nexus import ITNexus
from storage_model.spec.scsi_task import ScsiStatus, TaskAttribute
from storage_model.volume import Buffer, FileRange

# Their constructors are written out: one that is generated stays in the interpreter when this file is compiled.


@dataclass(slots=True, init=False)
class ScsiTask:
    """One SCSI command as the transport delivers it: the CDB and all the Data-Out that the initiator sends.

    ``tag`` is the Initiator Task Tag, unique in its nexus while the task lives. ``data_in_length`` is how many bytes
    the initiator will accept (its Expected Data Transfer Length for a read, 0 when it expects none).
    """

    nexus: ITNexus
    lun: int
    tag: int
    cdb: bytes
    data_out: Buffer
    data_in_length: int
    attribute: TaskAttribute
    aborted: bool
    on_abort: Callable[[], None] | None
    """Called when it is aborted, for a command that waits for something which may take long."""
    may_borrow: bool
    """The transport can send Data-In out of a file, and the initiator waits for it before it relies on any order."""

    def __init__(
        self,
        nexus: ITNexus,
        lun: int,
        tag: int,
        cdb: bytes,
        data_out: Buffer = b"",
        data_in_length: int = 0,
        attribute: TaskAttribute = TaskAttribute.SIMPLE,
    ) -> None:
        self.nexus = nexus
        self.lun = lun
        self.tag = tag
        self.cdb = cdb
        self.data_out = data_out
        self.data_in_length = data_in_length
        self.attribute = attribute
        self.aborted = False
        self.on_abort = None
        self.may_borrow = False


class CopyManagerTask(ScsiTask):
    """A command that the copy manager sends to a unit for ``nexus``: it hears no unit attention meant for the host."""

    __slots__ = ()


@dataclass(slots=True, init=False)
class TaskOutcome:
    """How a task ended. The transport cuts ``data_in`` to what the initiator accepts and reports the residual.

    ``transfer_length_bytes`` is what the CDB alone would have moved (Data-In bytes before truncation, or Data-Out bytes
    that the CDB asks for), so that the transport can tell residual overflow from underflow.
    """

    status: ScsiStatus
    data_in: Buffer
    sense: bytes
    transfer_length_bytes: int
    lent: FileRange | None
    """Instead of ``data_in``, for a task that ``may_borrow``; to be sent or read before anything else is done."""

    def __init__(
        self,
        status: ScsiStatus = ScsiStatus.GOOD,
        data_in: Buffer = b"",
        sense: bytes = b"",
        transfer_length_bytes: int = 0,
        lent: FileRange | None = None,
    ) -> None:
        self.status = status
        self.data_in = data_in
        self.sense = sense
        self.transfer_length_bytes = transfer_length_bytes
        self.lent = lent
