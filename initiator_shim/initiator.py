"""An iSCSI initiator session of one connection, sans-IO (RFC 7143).

Feed what the target sent to :meth:`InitiatorSession.receive_data`, write what :meth:`data_to_send` gives, call
:meth:`handle_deadline` when :meth:`next_deadline` has come. ErrorRecoveryLevel 0: whatever goes wrong with the
connection ends the session.
"""

import math
from collections import deque
from dataclasses import dataclass, field

from initiator_shim.initiator_chap import RandomBytes
from initiator_shim.initiator_login import InitiatorLogin, SessionParameters
from initiator_shim.initiator_outgoing import InitiatorOutgoing
from initiator_shim.initiator_task import Completed, Ended, Event, Failed, LoggedIn, ScsiTask
from initiator_shim.session_errors import CommandRejected, CommandTimeout, SessionError, SessionLost
from initiator_shim.word_feed import WordFeed
from storage_model.errors import LocalProtocolError, RemoteProtocolError
from storage_model.spec.iscsi_codes import NO_LUN, RESERVED_TAG, RejectReason, lun_to_bytes
from storage_model.spec.iscsi_pdu import (
    AsyncMessagePdu,
    DataInPdu,
    LoginResponsePdu,
    LogoutResponsePdu,
    NopInPdu,
    Pdu,
    R2TPdu,
    RejectPdu,
    ScsiResponsePdu,
    TaskManagementResponsePdu,
    TextResponsePdu,
    decode_pdu,
    sense_from_segment,
)
from storage_model.spec.iscsi_stream import PduStream
from storage_model.spec.iscsi_text import format_text, parse_pairs
from storage_model.spec.scsi_task import TaskFunction
from storage_model.volume import Buffer

QUEUED_COMMANDS_MAX = 4096
TEXT_BYTES_MAX = 1 << 20
_ABORT_TIMEOUT = 5.0  # seconds a target has to answer the ABORT TASK of a command that timed out
_MALFORMED = RejectReason.PROTOCOL_ERROR

_ASYNC_LOGOUT_REQUESTED = 1  # RFC 7143 §11.9.1
_ASYNC_CONNECTION_DROPPED = 2
_ASYNC_ALL_CONNECTIONS_DROPPED = 3


@dataclass(slots=True)
class _Request:
    """Anything but a SCSI command that waits for a response. ``aborts`` is the task that a silent ABORT TASK ends."""

    itt: int
    deadline: float
    text: bytearray = field(default_factory=bytearray)
    aborts: int | None = None


class InitiatorSession:
    """One session. Times are seconds of whatever monotonic clock the caller uses, the same in every call.

    ``keepalive`` seconds without a word from the target make us ping it; as long again, and the session is lost.
    ``random_bytes`` is the OS's random source, needed for mutual CHAP.
    """

    def __init__(
        self,
        parameters: SessionParameters,
        login_deadline: float,
        keepalive: float | None = None,
        random_bytes: RandomBytes | None = None,
    ) -> None:
        self.parameters = parameters
        self._login: InitiatorLogin | None = InitiatorLogin(parameters, cmd_sn=1, random_bytes=random_bytes)
        self._login_deadline = login_deadline
        self.negotiated = self._login.result
        self._feed = WordFeed(PduStream(parameters.max_recv_data_segment_length), lambda: self._login is not None)
        self._outgoing = InitiatorOutgoing(self.negotiated)
        self._events: list[Event] = []
        self._next_itt = 1
        self._queued: deque[ScsiTask] = deque()
        self._tasks: dict[int, ScsiTask] = {}
        self._requests: dict[int, _Request] = {}
        self._abandoned: set[int] = set()  # tasks that timed out and whose ABORT TASK is not answered yet
        self._keepalive = keepalive
        self._quiet_deadline = math.inf  # when silence must be acted upon
        self._ping_outstanding = False
        self._leave_by: float | None = None  # the target has asked us to log out until then
        self._leaving_itt: int | None = None  # of the logout that we sent for it
        self.ended = False
        self._outgoing.send(self._login.first_request())

    # ------------------------------------------------------------------------------------------------ what we ask

    def command(self, lun: int, cdb: bytes, data_out: Buffer, data_in_length: int, deadline: float) -> int:
        """Queues a SCSI command; sent when the target's CmdSN window allows. Answers its ITT."""
        if data_in_length and len(data_out):
            raise LocalProtocolError("bidirectional commands are not supported")
        if not 0 < len(cdb) <= 16:
            raise LocalProtocolError(f"a CDB of {len(cdb)} bytes")
        if len(self._queued) >= QUEUED_COMMANDS_MAX:
            raise LocalProtocolError("too many commands wait for the target")
        self._check_open()
        task = ScsiTask(self._take_itt(), lun_to_bytes(lun), bytes(cdb), data_out, data_in_length, deadline)
        self._queued.append(task)
        self._send_queued()
        return task.itt

    def task_management(self, function: TaskFunction, lun: int, referenced_task_tag: int, deadline: float) -> int:
        self._check_open()
        referenced = self._tasks.get(referenced_task_tag)
        ref_cmd_sn = referenced.cmd_sn or 0 if referenced else 0
        request = self._open_request(deadline)
        self._outgoing.send_task_management(request.itt, function, lun_to_bytes(lun), referenced_task_tag, ref_cmd_sn)
        return request.itt

    def text(self, pairs: dict[str, str], deadline: float) -> int:
        """A Text Request, such as SendTargets=All."""
        self._check_open()
        request = self._open_request(deadline)
        self._outgoing.send_text(request.itt, RESERVED_TAG, NO_LUN, format_text(pairs))
        return request.itt

    def ping(self, deadline: float) -> int:
        self._check_open()
        request = self._open_request(deadline)
        self._outgoing.send_nop_out(request.itt)
        return request.itt

    def logout(self, deadline: float) -> int:
        """Asks the target to close the session."""
        self._check_open()
        request = self._open_request(deadline)
        self._outgoing.send_logout(request.itt)
        return request.itt

    def abandon(self, itt: int, now: float) -> None:
        """The caller no longer wants the result: drop a queued command, abort one in flight. No event follows."""
        queued = next((task for task in self._queued if task.itt == itt), None)
        if queued is not None:
            self._queued.remove(queued)
        task = self._tasks.pop(itt, None)
        self._requests.pop(itt, None)
        if task is None or self.ended:
            return
        abort = self._open_request(now + _ABORT_TIMEOUT)
        abort.aborts = itt
        self._abandoned.add(itt)
        self._outgoing.send_task_management(abort.itt, TaskFunction.ABORT_TASK, task.lun, itt, task.cmd_sn or 0)

    # -------------------------------------------------------------------------------------------- the sans-IO shape

    def receive_data(self, data: Buffer, now: float) -> list[Event]:
        """Raises nothing: a target that breaks the protocol ends the session, as an event."""
        self._ping_outstanding = False
        if self._keepalive is not None:
            self._quiet_deadline = now + self._keepalive
        try:
            for raw in self._feed.receive_data(data):
                if self.ended:
                    break
                self._receive(decode_pdu(raw), now)
        except RemoteProtocolError as error:
            self._end(SessionLost(f"the target broke the protocol: {error}"))
        except SessionError as error:
            self._end(error)
        return self._take_events()

    def data_to_send(self) -> list[Buffer]:
        return self._outgoing.take()

    def next_deadline(self) -> float | None:
        """Linear in the commands in flight, which the CmdSN window bounds."""
        if self.ended:
            return None
        if self._login is not None:
            return self._login_deadline
        deadlines = [task.deadline for task in (*self._tasks.values(), *self._queued)]
        deadlines += [request.deadline for request in self._requests.values()]
        soonest = min(*deadlines, self._quiet_deadline, math.inf)
        return None if soonest == math.inf else soonest

    def handle_deadline(self, now: float) -> list[Event]:
        if self.ended:
            return self._take_events()
        if self._login is not None:
            if now >= self._login_deadline:
                self._end(SessionLost("the target did not answer the login in time"))
            return self._take_events()
        for itt in [task.itt for task in (*self._tasks.values(), *self._queued) if now >= task.deadline]:
            self.abandon(itt, now)
            self._events.append(Failed(itt, CommandTimeout("the command timed out")))
        for request in [request for request in self._requests.values() if now >= request.deadline]:
            del self._requests[request.itt]
            if request.aborts is not None:
                self._end(SessionLost("the target does not answer an ABORT TASK"))
                return self._take_events()
            self._events.append(Failed(request.itt, CommandTimeout("no answer in time")))
        if now >= self._quiet_deadline:
            self._keep_alive(now)
        return self._take_events()

    def _keep_alive(self, now: float) -> None:
        """Silence: ping; silence still: the session is lost."""
        assert self._keepalive is not None
        if self._ping_outstanding:
            self._end(SessionLost("the target is silent"))
            return
        self._ping_outstanding = True
        self._quiet_deadline = now + self._keepalive
        # Any word from the target will do as the answer, so that the ping itself never times out.
        self.ping(math.inf)

    def connection_lost(self, reason: str) -> list[Event]:
        """The transport is gone."""
        self._end(SessionLost(reason))
        return self._take_events()

    # ---------------------------------------------------------------------------------------------- what we are told

    def _receive(self, pdu: Pdu, now: float) -> None:
        if self._login is not None:
            if not isinstance(pdu, LoginResponsePdu):
                raise RemoteProtocolError(f"opcode {pdu.opcode:02X}h before the login has ended", _MALFORMED)
            self._receive_login(self._login, pdu)
            return
        match pdu:
            case DataInPdu():
                self._receive_data_in(pdu)
            case ScsiResponsePdu():
                self._outgoing.count(pdu.stat_sn, pdu.exp_cmd_sn, pdu.max_cmd_sn)
                self._receive_response(pdu)
            case R2TPdu():
                self._outgoing.count(None, pdu.exp_cmd_sn, pdu.max_cmd_sn)
                self._receive_r2t(pdu)
            case NopInPdu():
                self._outgoing.count(pdu.stat_sn if pdu.itt != RESERVED_TAG else None, pdu.exp_cmd_sn, pdu.max_cmd_sn)
                self._receive_nop_in(pdu)
            case LogoutResponsePdu() if pdu.itt == self._leaving_itt:
                raise SessionLost("logged out, as the target asked")
            case TaskManagementResponsePdu() | LogoutResponsePdu():
                self._outgoing.count(pdu.stat_sn, pdu.exp_cmd_sn, pdu.max_cmd_sn)
                self._complete_request(pdu.itt, pdu.response)
            case TextResponsePdu():
                self._outgoing.count(pdu.stat_sn, pdu.exp_cmd_sn, pdu.max_cmd_sn)
                self._receive_text(pdu)
            case AsyncMessagePdu():
                self._outgoing.count(pdu.stat_sn, pdu.exp_cmd_sn, pdu.max_cmd_sn)
                self._receive_async(pdu, now)
            case RejectPdu():
                self._outgoing.count(pdu.stat_sn, pdu.exp_cmd_sn, pdu.max_cmd_sn)
                self._receive_reject(pdu)
            case _:
                raise RemoteProtocolError(f"a target may not send opcode {pdu.opcode:02X}h", _MALFORMED)
        self._send_queued()
        self._leave_when_idle()

    def _receive_login(self, login: InitiatorLogin, pdu: LoginResponsePdu) -> None:
        request = login.receive(pdu)
        self._outgoing.exp_stat_sn = login.exp_stat_sn
        if request is not None:
            self._outgoing.send(request)
            return
        self._login = None
        self._outgoing.open(pdu.max_cmd_sn)
        self._feed.stream.header_digest = self.negotiated.header_digest
        self._feed.stream.data_digest = self.negotiated.data_digest
        self._events.append(LoggedIn(self.negotiated))
        self._send_queued()

    def _receive_data_in(self, pdu: DataInPdu) -> None:
        self._outgoing.count(pdu.stat_sn if pdu.status_present else None, pdu.exp_cmd_sn, pdu.max_cmd_sn)
        task = self._tasks.get(pdu.itt)
        if task is None:
            self._check_abandoned(pdu.itt)
            return
        task.take_data_in(pdu)
        if pdu.status_present:
            del self._tasks[pdu.itt]
            outcome = task.outcome(pdu.status, b"", pdu.overflow, pdu.underflow, pdu.residual_count)
            self._events.append(Completed(pdu.itt, outcome))

    def _receive_response(self, pdu: ScsiResponsePdu) -> None:
        task = self._tasks.pop(pdu.itt, None)
        if task is None:
            self._check_abandoned(pdu.itt)
            return
        if pdu.response != 0:
            error = CommandRejected(f"the target failed to execute the command (response {pdu.response:02X}h)")
            self._events.append(Failed(pdu.itt, error))
            return
        sense = sense_from_segment(pdu.data)
        outcome = task.outcome(pdu.status, sense, pdu.overflow, pdu.underflow, pdu.residual_count)
        self._events.append(Completed(pdu.itt, outcome))

    def _receive_r2t(self, pdu: R2TPdu) -> None:
        task = self._tasks.get(pdu.itt)
        if task is None:
            self._check_abandoned(pdu.itt)
            return
        end = pdu.buffer_offset + pdu.desired_data_transfer_length
        if end > len(task.data_out) or not 0 < pdu.desired_data_transfer_length <= self.negotiated.max_burst_length:
            raise RemoteProtocolError("R2T for data that the command does not have", _MALFORMED)
        self._outgoing.send_data_out(task, pdu.ttt, pdu.lun, pdu.buffer_offset, end)

    def _receive_nop_in(self, pdu: NopInPdu) -> None:
        if pdu.itt != RESERVED_TAG:
            self._complete_request(pdu.itt, None)
        elif pdu.ttt != RESERVED_TAG:  # the target pings us (§11.19)
            self._outgoing.send_nop_out(RESERVED_TAG, pdu.ttt, pdu.lun)

    def _receive_text(self, pdu: TextResponsePdu) -> None:
        request = self._requests.get(pdu.itt)
        if request is None:
            return  # its caller has given up
        request.text += pdu.data
        if len(request.text) > TEXT_BYTES_MAX:
            raise RemoteProtocolError("a Text Response without end", _MALFORMED)
        if not pdu.final or pdu.cont:  # more to come: an empty request with the target's tag (§11.10)
            self._outgoing.send_text(pdu.itt, pdu.ttt, pdu.lun, b"")
            return
        self._complete_request(pdu.itt, parse_pairs(request.text, max_pairs=TEXT_BYTES_MAX))

    def _receive_async(self, pdu: AsyncMessagePdu, now: float) -> None:
        if pdu.async_event in (_ASYNC_CONNECTION_DROPPED, _ASYNC_ALL_CONNECTIONS_DROPPED):
            raise SessionLost("the target drops the connection")
        if pdu.async_event == _ASYNC_LOGOUT_REQUESTED and self._leave_by is None:
            self._leave_by = now + pdu.parameter3

    def _leave_when_idle(self) -> None:
        """Nothing new is begun; what is under way ends first, since a logout would abort it (§11.14)."""
        if self._leave_by is not None and self._leaving_itt is None and not self._tasks and not self._queued:
            request = self._open_request(self._leave_by)
            self._leaving_itt = request.itt
            self._outgoing.send_logout(request.itt)

    def _receive_reject(self, pdu: RejectPdu) -> None:
        itt = int.from_bytes(bytes(pdu.data[16:20]))
        if self._tasks.pop(itt, None) is None and self._requests.pop(itt, None) is None:
            raise SessionLost(f"the target rejected a PDU (reason {pdu.reason:02X}h)")
        self._events.append(Failed(itt, CommandRejected(f"the target rejected the request (reason {pdu.reason:02X}h)")))

    def _complete_request(self, itt: int, result: int | list[tuple[str, str]] | None) -> None:
        request = self._requests.pop(itt, None)
        if request is None:
            return  # its caller has given up
        if request.aborts is not None:
            self._abandoned.discard(request.aborts)
            return
        self._events.append(Completed(itt, result))

    def _check_abandoned(self, itt: int) -> None:
        """A late word about a task that we aborted is to be expected; about any other tag it is not."""
        if itt not in self._abandoned:
            raise RemoteProtocolError(f"the target speaks of task {itt:08X}h, which does not exist", _MALFORMED)

    # ------------------------------------------------------------------------------------------------------ bookkeeping

    def _send_queued(self) -> None:
        while self._queued and self._outgoing.window_open:
            task = self._queued.popleft()
            self._tasks[task.itt] = task
            self._outgoing.send_command(task)

    def _take_itt(self) -> int:
        while True:
            itt = self._next_itt
            self._next_itt = (itt + 1) % RESERVED_TAG
            if itt not in self._tasks and itt not in self._requests and itt not in self._abandoned:
                return itt

    def _open_request(self, deadline: float) -> _Request:
        request = _Request(self._take_itt(), deadline)
        self._requests[request.itt] = request
        return request

    def _check_open(self) -> None:
        if self.ended:
            raise SessionLost("the session has ended")
        if self._leave_by is not None:
            raise SessionLost("the target asked us to log out")

    def _end(self, error: SessionError) -> None:
        if self.ended:
            return
        self.ended = True
        for itt in [*self._tasks, *(task.itt for task in self._queued), *self._requests]:
            self._events.append(Failed(itt, error))
        self._tasks.clear()
        self._queued.clear()
        self._requests.clear()
        self._abandoned.clear()
        self._events.append(Ended(error))

    def _take_events(self) -> list[Event]:
        events, self._events = self._events, []
        return events
