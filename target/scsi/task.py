"""What crosses between the transport and the SCSI side: a command with its data, and its outcome (SAM-5 5.1)."""

from collections.abc import Callable
from dataclasses import dataclass

from storage_model.nexus import ITNexus
from storage_model.spec.scsi_task import ScsiStatus, TaskAttribute
from storage_model.volume import Buffer


@dataclass(slots=True)
class ScsiTask:
    """One SCSI command as the transport delivers it: the CDB and all the Data-Out that the initiator sends.

    ``tag`` is the Initiator Task Tag, unique in its nexus while the task lives. ``data_in_length`` is how many bytes
    the initiator will accept (its Expected Data Transfer Length for a read, 0 when it expects none).
    """

    nexus: ITNexus
    lun: int
    tag: int
    cdb: bytes
    data_out: Buffer = b""
    data_in_length: int = 0
    attribute: TaskAttribute = TaskAttribute.SIMPLE
    aborted: bool = False
    on_abort: Callable[[], None] | None = None
    """Called when it is aborted, for a command that waits for something which may take long."""


class CopyManagerTask(ScsiTask):
    """A command that the copy manager sends to a unit for ``nexus``: it hears no unit attention meant for the host."""

    __slots__ = ()


@dataclass(slots=True)
class TaskOutcome:
    """How a task ended. The transport cuts ``data_in`` to what the initiator accepts and reports the residual.

    ``transfer_length_bytes`` is what the CDB alone would have moved (Data-In bytes before truncation, or Data-Out bytes
    that the CDB asks for), so that the transport can tell residual overflow from underflow.
    """

    status: ScsiStatus = ScsiStatus.GOOD
    data_in: Buffer = b""
    sense: bytes = b""
    transfer_length_bytes: int = 0
