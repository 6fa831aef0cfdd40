"""What crosses between the transport and the SCSI side: a command with its data, and its outcome (SAM-5 5.1)."""

from dataclasses import dataclass
from enum import IntEnum

from storage_model.nexus import ITNexus
from storage_model.volume import Buffer


class TaskAttribute(IntEnum):
    """The ATTR field of the SCSI Command PDU (RFC 7143 §11.3.1)."""

    UNTAGGED = 0
    SIMPLE = 1
    ORDERED = 2
    HEAD_OF_QUEUE = 3
    ACA = 4


class Status(IntEnum):
    """SAM-5 5.3.1."""

    GOOD = 0x00
    CHECK_CONDITION = 0x02
    BUSY = 0x08
    RESERVATION_CONFLICT = 0x18
    TASK_SET_FULL = 0x28
    ACA_ACTIVE = 0x30
    TASK_ABORTED = 0x40


class TaskFunction(IntEnum):
    """Task management functions (RFC 7143 §11.5.1)."""

    ABORT_TASK = 1
    ABORT_TASK_SET = 2
    CLEAR_ACA = 3
    CLEAR_TASK_SET = 4
    LOGICAL_UNIT_RESET = 5
    TARGET_WARM_RESET = 6
    TARGET_COLD_RESET = 7
    TASK_REASSIGN = 8


class TaskFunctionResponse(IntEnum):
    """RFC 7143 §11.6.1."""

    COMPLETE = 0
    TASK_DOES_NOT_EXIST = 1
    LUN_DOES_NOT_EXIST = 2
    TASK_STILL_ALLEGIANT = 3
    REASSIGN_NOT_SUPPORTED = 4
    NOT_SUPPORTED = 5
    AUTHORIZATION_FAILED = 6
    REJECTED = 255


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


@dataclass(slots=True)
class TaskOutcome:
    """How a task ended. The transport cuts ``data_in`` to what the initiator accepts and reports the residual.

    ``transfer_length_bytes`` is what the CDB alone would have moved (Data-In bytes before truncation, or Data-Out bytes
    that the CDB asks for), so that the transport can tell residual overflow from underflow.
    """

    status: Status = Status.GOOD
    data_in: Buffer = b""
    sense: bytes = b""
    transfer_length_bytes: int = 0
