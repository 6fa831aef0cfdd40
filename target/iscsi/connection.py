"""One iSCSI connection of the target, which is also its session's only one: bytes in, events and bytes out.

The portal hands in what arrives and what it knows of time, does what the events say, reports results back with the
methods named there, and after each of these calls runs :meth:`Connection.next_events` until it answers nothing and
writes :meth:`Connection.data_to_send`.
"""

from collections.abc import Callable, Collection, Coroutine, Sequence
from enum import Enum, auto
from typing import Any, Final, TypeAlias, TypeVar

from storage_model.errors import RemoteProtocolError
from storage_model.spec.iscsi_pdu import (
    NO_LUN,
    RESERVED_TAG,
    AsyncEvent,
    AsyncMessagePdu,
    DataOutPdu,
    LogoutReason,
    LogoutRequestPdu,
    LogoutResponse,
    LogoutResponsePdu,
    NopInPdu,
    NopOutPdu,
    Opcode,
    RejectPdu,
    RejectReason,
    TaskManagementRequestPdu,
    TaskManagementResponsePdu,
    TextRequestPdu,
    TextResponsePdu,
)
from storage_model.spec.iscsi_stream import PduStream, RawPdu
from storage_model.spec.scsi_task import TaskFunctionResponse
from storage_model.volume import Buffer
from target.iscsi.access import AccessControl
from target.iscsi.events import (
    ConnectionEnded,
    Event,
    Limits,
    LoginCompleted,
    LogoutReceived,
    PduRejected,
    TargetDescription,
)
from target.iscsi.login import LoginNegotiation
from target.iscsi.login_phase import LoginPhase
from target.iscsi.outgoing import Outgoing
from target.iscsi.outstanding_commands import Command, OutstandingCommands, SharedRoom
from target.iscsi.session import CommandWindow, SessionParameters
from target.iscsi.task_management import TaskManagementRequests
from target.iscsi.text_phase import TextPhase
from target.scsi.task import ScsiTask, TaskOutcome
from target.sendable import Sendable

BeginTask: TypeAlias = Callable[[ScsiTask], TaskOutcome | Coroutine[Any, Any, TaskOutcome]]
"""As ``ScsiPort.begin``."""
T = TypeVar("T")
LOGIN_DATA_SEGMENT_LENGTH = 8192  # MaxRecvDataSegmentLength before it is declared (§13.12)
# The requests that take a CmdSN (§4.2.2.1).
_NUMBERED = frozenset(
    {
        Opcode.SCSI_COMMAND,
        Opcode.NOP_OUT,
        Opcode.TASK_MANAGEMENT_REQUEST,
        Opcode.TEXT_REQUEST,
        Opcode.LOGOUT_REQUEST,
    }
)
_REJECTED: dict[int, RejectReason] = {
    Opcode.SNACK_REQUEST: RejectReason.SNACK_REJECT,
    Opcode.LOGIN_REQUEST: RejectReason.PROTOCOL_ERROR,
}


class Phase(Enum):
    LOGIN = auto()
    ESTABLISHING = auto()  # login is agreed, the portal makes room for the session
    FULL_FEATURE = auto()
    LOGGING_OUT = auto()
    ENDED = auto()


_SCSI_COMMAND: Final = int(Opcode.SCSI_COMMAND)
_FULL_FEATURE: Final = Phase.FULL_FEATURE


class Connection:
    """``local_address`` is the ``host:port`` that the initiator reached, ``peer_host`` its own address without a port,
    by which ``access`` knows it; ``now`` is monotonic seconds. ``room`` is what all connections of a portal share;
    with ``lends``, :meth:`data_to_send` may answer ranges of files besides buffers.
    """

    def __init__(
        self,
        target: TargetDescription,
        *,
        local_address: str,
        now: float,
        limits: Limits | None = None,
        access: AccessControl | None = None,
        peer_host: str = "",
        room: SharedRoom | None = None,
        lends: bool = False,
    ) -> None:
        self.phase = Phase.LOGIN
        self._target = target
        self._limits = limits or Limits()
        self._local_address = local_address
        self._stream = PduStream(LOGIN_DATA_SEGMENT_LENGTH)
        self._login = LoginNegotiation(target, self._limits, access, peer_host)
        self._window: CommandWindow[RawPdu] = CommandWindow(0, self._limits.queue_depth)
        self._outgoing = Outgoing(self._window)
        self._login_phase = LoginPhase(self._login, self._outgoing)
        self._events: list[Event] = []
        self._tasks: OutstandingCommands | None = None
        self._room = room
        self._lends = lends
        self._text: TextPhase | None = None
        self._task_management = TaskManagementRequests(self._window, self._limits.task_management)
        self._logout_itt = RESERVED_TAG
        self._session_ended = False  # by a logout that is not answered yet
        self._logout_deadline: float | None = None  # of the logout that we asked for
        self._login_deadline = now + self._limits.login_timeout
        self._last_received = now
        self._pinged_at: float | None = None
        self._ping_ttt = 0

    # ------------------------------------------------------------------ what the portal sees

    @property
    def initiator_name(self) -> str:
        """Empty until the login has said it."""
        return self._login.initiator_name

    @property
    def parameters(self) -> SessionParameters:
        return self._login.parameters

    def access_holds(self) -> bool:
        """Whether the access rules of this moment would let the initiator in as they did."""
        return self._login.access_holds()

    def receive_data(self, data: Buffer, now: float) -> list[Event]:
        """What the bytes bring about. Never raises for what a peer sends; a hopeless peer gives ConnectionEnded."""
        return self._receive(self._stream.receive_data, data, now)

    def receive_space(self) -> memoryview | None:
        """Where the next bytes belong when they are the rest of a long data segment: then :meth:`received_there`."""
        return self._stream.space() if self.phase is not Phase.ENDED else None

    def received_there(self, count: int, now: float) -> list[Event]:
        """As :meth:`receive_data`, for bytes that were received into what :meth:`receive_space` has just answered."""
        return self._receive(self._stream.fill, count, now)

    def _receive(self, cut: Callable[[T], list[RawPdu]], received: T, now: float) -> list[Event]:
        self._last_received = now
        if self.phase is Phase.ENDED:
            return []
        try:
            for raw in cut(received):
                self._receive_pdu(raw)
        except RemoteProtocolError as error:
            self.end(str(error))
        return self.next_events()

    def next_events(self) -> list[Event]:
        """What can be done now, commands included for which there is room by now."""
        events, self._events = self._events, []
        if self._tasks is not None and self.phase is Phase.FULL_FEATURE:
            events.extend(self._tasks.next_commands())
        return events

    def run_commands(
        self, events: Sequence[Event], start: int, begin: BeginTask
    ) -> tuple[int, Coroutine[Any, Any, TaskOutcome] | None]:
        """Runs the commands among ``events`` from ``start`` on, as long as they end without waiting.

        Answers the place of the first event that is not done with, and what has to be awaited for it if it is one.
        """
        for position in range(start, len(events)):
            event = events[position]
            if type(event) is not Command:
                return position, None
            begun = begin(event.task)
            if not isinstance(begun, TaskOutcome):
                return position, begun
            self.complete(event, begun)
        return len(events), None

    def data_to_send(self) -> list[Sendable]:
        return self._outgoing.take()

    def pause_writing(self, paused: bool) -> None:
        """While the peer does not take our answers, no further command starts."""
        if self._tasks is not None:
            self._tasks.writing_paused = paused

    def end(self, reason: str, *, expected: bool = False) -> None:
        """The connection is over; ``reason`` empty for an orderly end, ``expected`` when nobody did anything wrong."""
        if self.phase is not Phase.ENDED:
            self.phase = Phase.ENDED
            self._login.close()
            if self._tasks is not None:
                self._tasks.close()
            self._events.append(ConnectionEnded(reason, expected))

    def _end_with(self, ended: ConnectionEnded) -> None:
        self.end(ended.reason, expected=ended.expected)

    def drop(self, reason: str, event: AsyncEvent) -> None:
        """We end the connection, and say so first where it can be said (§11.9.1, events 2 and 3)."""
        if self.phase is Phase.FULL_FEATURE:
            # Time2Wait and Time2Retain 0, as negotiated: come back at once, nothing is kept (ErrorRecoveryLevel 0).
            self._send_async(event, parameter1=self._login.cid if event is AsyncEvent.CONNECTION_DROPPED else 0)
        self.end(reason)

    def request_logout(self, seconds: int, now: float) -> None:
        """Asks the initiator to log out within that time (§11.9.1, event 1); a login that is under way ends."""
        if self.phase is Phase.FULL_FEATURE:
            if self._logout_deadline is None:
                self._send_async(AsyncEvent.LOGOUT_REQUESTED, parameter3=seconds)
                self._logout_deadline = now + seconds
        elif self.phase is not Phase.LOGGING_OUT:
            self.end("logins end here", expected=True)

    def _send_async(self, event: AsyncEvent, parameter1: int = 0, parameter3: int = 0) -> None:
        exp_cmd_sn, max_cmd_sn = self._numbers
        self._outgoing.send(
            AsyncMessagePdu(
                stat_sn=self._outgoing.take_stat_sn(),
                exp_cmd_sn=exp_cmd_sn,
                max_cmd_sn=max_cmd_sn,
                async_event=event,
                parameter1=parameter1,
                parameter3=parameter3,
            )
        )

    def next_deadline(self) -> float | None:
        if self.phase is Phase.ENDED:
            return None
        if self.phase is not Phase.FULL_FEATURE:
            return self._login_deadline
        silence = self._last_received + self._limits.nop_interval
        if self._pinged_at is not None and self._last_received <= self._pinged_at:
            silence = self._pinged_at + self._limits.nop_timeout
        return silence if self._logout_deadline is None else min(silence, self._logout_deadline)

    def handle_deadline(self, now: float) -> None:
        """To be called when ``next_deadline`` has come; earlier does no harm."""
        deadline = self.next_deadline()
        if deadline is None or now < deadline:
            return
        if self.phase is not Phase.FULL_FEATURE:
            what = "logout" if self.phase is Phase.LOGGING_OUT else "login"
            self.end(f"{what} not finished within {self._limits.login_timeout:g} s")
        elif self._logout_deadline is not None and now >= self._logout_deadline:
            self.drop("no logout, though we asked for one", AsyncEvent.CONNECTION_DROPPED)
        elif self._pinged_at is not None and self._last_received <= self._pinged_at:
            self.end(f"no answer to NOP-In within {self._limits.nop_timeout:g} s")
        else:
            self._pinged_at = now
            self._ping_ttt = (self._ping_ttt + 1) % RESERVED_TAG
            self._outgoing.send(NopInPdu(NO_LUN, RESERVED_TAG, self._ping_ttt, self._outgoing.stat_sn, *self._numbers))

    # ------------------------------------------------------------------ results from the portal

    def accept_login(self, tsih: int) -> None:
        """The session exists: the last Login Response may go out, and the full feature phase begins."""
        if self.phase is not Phase.ESTABLISHING:
            return
        self._login_phase.accept(tsih)
        parameters = self._login.parameters
        self._stream.max_data_segment_length = parameters.max_recv_data_segment_length
        self._stream.header_digest = self._outgoing.header_digest = parameters.header_digest
        self._stream.data_digest = self._outgoing.data_digest = parameters.data_digest
        discovery, nexus, visible = self._login.discovery, self._login.nexus, self._login.visible
        self._login.close()
        self._text = TextPhase(self._target, self._local_address, parameters, discovery, self._limits, visible)
        if nexus is not None:
            self._tasks = OutstandingCommands(nexus, parameters, self._outgoing, self._limits, self._room, self._lends)
            self._stream.place = self._tasks.place_data_out  # not of our own: see _HANDLERS
        self.phase = Phase.FULL_FEATURE

    def refuse_login(self, status: int, reason: str) -> None:
        """The session cannot be; ``status`` is a LoginStatus."""
        if self.phase is Phase.ESTABLISHING:
            self._end_with(self._login_phase.refuse(status, reason))

    def complete(self, command: Command, outcome: TaskOutcome) -> None:
        """The command has ended; an aborted one gets no SCSI Response (§4.2.3.3)."""
        assert self._tasks is not None
        if command.task.aborted or self.phase is not _FULL_FEATURE:
            self._tasks.drop(command)
        else:
            self._tasks.complete(command, outcome)

    def abort_not_running_at(self, luns: Collection[int]) -> None:
        """What a function of another nexus means for our commands that the SCSI side has not seen."""
        if self._tasks is not None:
            self._tasks.abort_not_running(lambda command: command.lun in luns)

    def task_management_done(self, itt: int, response: TaskFunctionResponse) -> None:
        self._task_management.done(itt)
        if self._tasks is not None:
            self._tasks.drop_aborted()
        if self.phase in (Phase.FULL_FEATURE, Phase.LOGGING_OUT):  # a logout is answered after it
            self._outgoing.send(TaskManagementResponsePdu(response, itt, self._outgoing.take_stat_sn(), *self._numbers))
        if self._session_ended:
            self.logout_done()

    def logout_done(self) -> None:
        """The session is over. What was asked of task management before is answered before, however long it takes."""
        self._session_ended = True
        if self.phase is Phase.LOGGING_OUT and not self._task_management:
            self._send_logout_response(LogoutResponse.SUCCESS, self._logout_itt)
            self.end("")

    # ------------------------------------------------------------------ PDUs

    @property
    def _numbers(self) -> tuple[int, int]:
        return self._window.exp_cmd_sn, self._window.max_cmd_sn

    def _receive_pdu(self, raw: RawPdu) -> None:
        if (
            raw.bhs[0] == _SCSI_COMMAND
            and self.phase is _FULL_FEATURE
            and not raw.data_digest_failed
            and self._tasks is not None
            and self._window.take(int.from_bytes(raw.bhs[24:28]))
        ):  # the data path: what is below would come to the same
            try:
                self._tasks.begin(raw)
            except RemoteProtocolError as error:
                self._reject(raw, error)
        elif self.phase is Phase.LOGIN:
            self._receive_login(raw)
        elif self.phase is Phase.ESTABLISHING:
            raise RemoteProtocolError("PDU before the login's last response", RejectReason.PROTOCOL_ERROR)
        elif self.phase is not Phase.FULL_FEATURE:
            return
        elif raw.data_digest_failed:
            self._damaged(raw)
        elif raw.immediate or raw.opcode not in _NUMBERED:
            self._deliver(raw)
        else:
            for ready in self._window.receive(int.from_bytes(raw.bhs[24:28]), raw):
                self._deliver(ready)

    def _receive_login(self, raw: RawPdu) -> None:
        event = self._login_phase.receive(raw)
        if isinstance(event, LoginCompleted):
            self.phase = Phase.ESTABLISHING
            self._events.append(event)
        elif event is not None:
            self._end_with(event)

    def _deliver(self, raw: RawPdu) -> None:
        if self.phase is not Phase.FULL_FEATURE:
            return
        handler = _HANDLERS.get(raw.opcode)
        try:
            if handler is None:
                reason = _REJECTED.get(raw.opcode, RejectReason.COMMAND_NOT_SUPPORTED)
                raise RemoteProtocolError(f"opcode {raw.opcode:02X}h", reason)
            handler(self, raw)
        except RemoteProtocolError as error:
            self._reject(raw, error)

    def _reject(self, raw: RawPdu, error: RemoteProtocolError) -> None:
        self._events.append(PduRejected(raw.opcode, error.reason, str(error)))
        stat_sn = self._outgoing.take_stat_sn()
        self._outgoing.send(RejectPdu(error.reason, RESERVED_TAG, stat_sn, *self._numbers, data=raw.bhs))

    def _damaged(self, raw: RawPdu) -> None:
        """The data segment is not what was sent: Reject, and the command that owns the data fails (§7.8)."""
        self._reject(raw, RemoteProtocolError("data digest does not match", RejectReason.DATA_DIGEST_ERROR))
        if raw.opcode == Opcode.DATA_OUT and self._tasks is not None:
            self._tasks.receive_data_out(DataOutPdu.decode(raw.bhs, b"", raw.data), damaged=True)

    def _normal_session(self) -> OutstandingCommands:
        if self._tasks is None:
            raise RemoteProtocolError("not in a discovery session", RejectReason.COMMAND_NOT_SUPPORTED)
        return self._tasks

    def _scsi_command(self, raw: RawPdu) -> None:
        self._normal_session().begin(raw)

    def _data_out(self, raw: RawPdu) -> None:
        self._normal_session().receive_data_out(DataOutPdu.decode(raw.bhs, b"", raw.data))

    def _nop_out(self, raw: RawPdu) -> None:
        pdu = NopOutPdu.decode(raw.bhs, b"", raw.data)
        if pdu.itt == RESERVED_TAG:  # it answers our ping, or only acknowledges
            return
        data = pdu.data[: self.parameters.initiator_max_recv_data_segment_length]
        stat_sn = self._outgoing.take_stat_sn()
        self._outgoing.send(NopInPdu(NO_LUN, pdu.itt, RESERVED_TAG, stat_sn, *self._numbers, data=data))

    def _text_request(self, raw: RawPdu) -> None:
        pdu = TextRequestPdu.decode(raw.bhs, b"", raw.data)
        assert self._text is not None
        final, cont, ttt, data = self._text.receive(pdu)
        stat_sn = self._outgoing.take_stat_sn()
        self._outgoing.send(TextResponsePdu(final, cont, pdu.lun, pdu.itt, ttt, stat_sn, *self._numbers, data=data))

    def _logout(self, raw: RawPdu) -> None:
        pdu = LogoutRequestPdu.decode(raw.bhs, b"", b"")
        if pdu.reason > LogoutReason.RECOVERY:
            raise RemoteProtocolError(f"logout reason {pdu.reason}", RejectReason.INVALID_PDU_FIELD)
        if pdu.reason == LogoutReason.RECOVERY:
            self._send_logout_response(LogoutResponse.RECOVERY_NOT_SUPPORTED, pdu.itt)
        elif pdu.reason == LogoutReason.CLOSE_CONNECTION and pdu.cid != self._login.cid:
            self._send_logout_response(LogoutResponse.CID_NOT_FOUND, pdu.itt)
        else:
            self.phase, self._logout_itt = Phase.LOGGING_OUT, pdu.itt
            self._login_deadline = self._last_received + self._limits.login_timeout
            self._events.append(LogoutReceived())

    def _send_logout_response(self, response: int, itt: int) -> None:
        self._outgoing.send(LogoutResponsePdu(response, itt, self._outgoing.take_stat_sn(), *self._numbers))

    def _manage_tasks(self, raw: RawPdu) -> None:
        pdu = TaskManagementRequestPdu.decode(raw.bhs, b"", b"")
        tasks = self._normal_session()
        result = self._task_management.receive(pdu, tasks, self._deliver)
        if isinstance(result, TaskFunctionResponse):
            self.task_management_done(pdu.itt, result)
        else:
            self._events.extend(tasks.next_commands())  # what came before it starts before it
            self._events.append(result)


# Not an attribute: a connection that refers to itself would keep its buffers until the garbage collector comes by.
_HANDLERS: dict[int, Callable[[Connection, RawPdu], None]] = {
    Opcode.SCSI_COMMAND: Connection._scsi_command,
    Opcode.DATA_OUT: Connection._data_out,
    Opcode.NOP_OUT: Connection._nop_out,
    Opcode.TASK_MANAGEMENT_REQUEST: Connection._manage_tasks,
    Opcode.TEXT_REQUEST: Connection._text_request,
    Opcode.LOGOUT_REQUEST: Connection._logout,
}
