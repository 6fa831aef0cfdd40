"""What a Connection tells the portal, what the portal asks of the SCSI side, and the limits that hold everywhere."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from storage_model.nexus import ITNexus
from storage_model.spec.scsi_task import TaskFunction, TaskFunctionResponse
from target.scsi.task import ScsiTask, TaskOutcome

if TYPE_CHECKING:
    from target.iscsi.task_set import Command


@dataclass(frozen=True, slots=True)
class TargetDescription:
    """The target node as initiators see it.

    ``portals`` are further ``host:port`` addresses to report in SendTargets, beside the one that was asked; ``tpgt`` is
    the target portal group tag of all of them.
    """

    iqn: str
    alias: str = ""
    portals: tuple[str, ...] = ()
    tpgt: int = 1
    relative_target_port: int = 1


@dataclass(frozen=True, slots=True)
class Limits:
    """A bound for everything that a peer can make grow. Times in seconds, sizes in bytes."""

    login_timeout: float = 15.0
    nop_interval: float = 30.0  # silence after which we ping
    nop_timeout: float = 15.0  # and how long we wait for the answer
    connections: int = 128
    queue_depth: int = 128  # CmdSN window
    immediate_commands: int = 16
    task_management: int = 16
    data_out_per_command: int = 64 << 20
    data_out: int = 64 << 20  # of one connection; the first command always fits
    data_in: int = 16 << 20  # asked for by running commands or waiting to be sent, of one connection
    login_bytes: int = 64 << 10
    login_requests: int = 64
    login_keys: int = 64  # so that the longest answer, NotUnderstood to each, fits one Login Response
    text_bytes: int = 16 << 10


class ScsiPort(Protocol):
    """The SCSI target port (SAM-5 4.6); implemented by the device server.

    ``execute`` is stepped once outside of any asyncio Task and becomes one only when it waits, so it must not need a
    current Task (``asyncio.timeout``, ``TaskGroup``) before its first wait. It answers whatever the CDB is.
    """

    async def execute(self, task: ScsiTask) -> TaskOutcome: ...

    async def manage(
        self, nexus: ITNexus, function: TaskFunction, lun: int, referenced_tag: int
    ) -> TaskFunctionResponse:
        """Does the function; returns only after the affected tasks have ended."""
        ...

    def nexus_established(self, nexus: ITNexus) -> None: ...

    async def nexus_lost(self, nexus: ITNexus) -> None:
        """Aborts the nexus's tasks, waits for their end, drops its SCSI-2 reservations."""
        ...


@dataclass(frozen=True, slots=True)
class CommandReceived:
    """A command with all its data: execute it, then ``Connection.complete(command, outcome)``."""

    command: "Command"
    task: ScsiTask


@dataclass(frozen=True, slots=True)
class TaskManagementReceived:
    """Do it, then ``Connection.task_management_done(itt, response)``."""

    itt: int
    function: TaskFunction
    lun: int
    referenced_task_tag: int


@dataclass(frozen=True, slots=True)
class LoginCompleted:
    """Answer with ``Connection.accept_login(tsih)`` or ``refuse_login(status)``.

    ``nexus`` is None for a discovery session. An older session of the same nexus must be over first (§6.3.5).
    """

    initiator_name: str
    isid: bytes
    tsih: int
    nexus: ITNexus | None


@dataclass(frozen=True, slots=True)
class LogoutReceived:
    """End the session's nexus, then ``Connection.logout_done()``."""


@dataclass(frozen=True, slots=True)
class ConnectionEnded:
    """Write out what is left, then close. ``reason`` is empty for an orderly end; else one line in protocol terms."""

    reason: str


@dataclass(frozen=True, slots=True)
class PduRejected:
    """A Reject went out; only to be told to whoever looks for the reason. ``reason`` is a RejectReason."""

    opcode: int
    reason: int
    message: str


Event: TypeAlias = (
    CommandReceived | TaskManagementReceived | LoginCompleted | LogoutReceived | ConnectionEnded | PduRejected
)
