"""What a Connection tells the portal, what the portal asks of the SCSI side, and the limits that hold everywhere."""

from collections.abc import Collection, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from storage_model.errors import RemoteProtocolError
from storage_model.nexus import ITNexus
from storage_model.spec.iscsi_codes import LoginStatus
from storage_model.spec.scsi_task import TaskFunction, TaskFunctionResponse
from target.iscsi.access import EVERYBODY, AccessRule
from target.scsi.lun_mask import LunMask
from target.scsi.task import ScsiTask, TaskOutcome

if TYPE_CHECKING:
    from target.iscsi.outstanding_commands import Command


@dataclass(frozen=True, slots=True)
class TargetDescription:
    """The target node as an initiator sees it through one of its portal groups.

    ``tpgt`` is the group's tag, and the relative identifier of the SCSI target port that the group is. ``portals`` has
    (``host:port``, tag) of each portal to report in SendTargets; empty: only the one that was asked. ``redirect``: the
    ``host:port`` where logins are sent; empty: they are served here.
    """

    iqn: str
    alias: str = ""
    portals: tuple[tuple[str, int], ...] = ()
    tpgt: int = 1
    redirect: str = ""


class LoginRedirected(RemoteProtocolError):
    """The login ends here and shall be tried at another address (RFC 7143 §11.13.5, class 1)."""

    def __init__(self, address: str) -> None:
        super().__init__(f"redirected to {address}", LoginStatus.TARGET_MOVED_TEMPORARILY)
        self.address = address


@dataclass(frozen=True, slots=True)
class Limits:
    """A bound for everything that a peer can make grow. Times in seconds, sizes in bytes."""

    login_timeout: float = 15.0
    nop_interval: float = 60.0  # silence after which we ping; tools in one thread do not answer while they sleep
    nop_timeout: float = 15.0  # and how long we wait for the answer
    logout_timeout: int = 10  # what an initiator has for the logout that we ask for
    connections: int = 2048  # logged in
    login_connections: int = 512  # not logged in yet, of all addresses and of one: then the oldest such ones make room
    login_connections_per_address: int = 128
    queue_depth: int = 128  # CmdSN window
    first_burst_length: int = 262144  # times the CmdSN window, this bounds what may come unasked on one connection
    immediate_commands: int = 16
    task_management: int = 16
    data_out_per_command: int = 64 << 20
    data_out: int = 64 << 20  # of one connection; the first command always fits
    data_in: int = 16 << 20  # asked for by running commands or waiting to be sent, of one connection
    data_of_all: int = 2 << 30  # both, of all connections; one command of each always fits
    login_bytes: int = 64 << 10
    login_requests: int = 64
    login_keys: int = 64  # so that the longest answer, NotUnderstood to each, fits one Login Response
    text_bytes: int = 16 << 10
    text_requests: int = 64  # that one text may be cut into


class ScsiPort(Protocol):
    """The SCSI target port (SAM-5 4.6); implemented by the device server.

    ``begin`` executes a command, whatever the CDB is. It answers the outcome when that is there without waiting, else a
    coroutine for it, which is stepped once outside of any asyncio Task and becomes one only when it waits: it must not
    need a current Task (``asyncio.timeout``, ``TaskGroup``) before its first wait.
    """

    def begin(self, task: ScsiTask) -> TaskOutcome | Coroutine[Any, Any, TaskOutcome]: ...

    async def manage(
        self, nexus: ITNexus, function: TaskFunction, lun: int, referenced_tag: int
    ) -> TaskFunctionResponse:
        """Does the function; returns only after the affected tasks have ended."""
        ...

    def nexus_established(self, nexus: ITNexus, mask: LunMask | None = None) -> None:
        """``mask`` says which units the nexus may see until it is lost; None: all."""
        ...

    def luns_affected(self, nexus: ITNexus, function: TaskFunction, lun: int) -> Collection[int]:
        """The units where ``manage`` would abort commands of every nexus: those of them that ``nexus`` sees."""
        ...

    async def nexus_lost(self, nexus: ITNexus) -> None:
        """Aborts the nexus's tasks, waits for their end, drops its SCSI-2 reservations."""
        ...


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
    ``rule`` is what let the initiator in.
    """

    initiator_name: str
    isid: bytes
    tsih: int
    nexus: ITNexus | None
    rule: AccessRule = EVERYBODY


@dataclass(frozen=True, slots=True)
class LogoutReceived:
    """End the session's nexus, then ``Connection.logout_done()``."""


@dataclass(frozen=True, slots=True)
class ConnectionEnded:
    """Write out what is left, then close. ``reason`` is empty for an orderly end; else one line in protocol terms.

    ``expected``: nobody did anything wrong.
    """

    reason: str
    expected: bool = False


@dataclass(frozen=True, slots=True)
class PduRejected:
    """A Reject went out; only to be told to whoever looks for the reason. ``reason`` is a RejectReason."""

    opcode: int
    reason: int
    message: str


Event: TypeAlias = "Command | TaskManagementReceived | LoginCompleted | LogoutReceived | ConnectionEnded | PduRejected"
"""A :class:`Command` has all its data: execute its task, then ``Connection.complete(command, outcome)``."""
