"""One TCP connection of the portal, and the session on it: transport callbacks in, its events carried out. [IO]"""

import asyncio
import logging
import os
from asyncio.trsock import TransportSocket
from collections.abc import Callable, Collection, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from storage_model.nexus import ITNexus, normalised_name
from storage_model.spec.iscsi_pdu import AsyncEvent, LoginStatus
from storage_model.spec.scsi_task import TaskFunction, TaskFunctionResponse
from target import eager
from target.addresses import format_address
from target.iscsi.connection import Connection, Phase
from target.iscsi.events import (
    ConnectionEnded,
    Event,
    LoginCompleted,
    LogoutReceived,
    PduRejected,
    TaskManagementReceived,
)
from target.iscsi.outstanding_commands import Command
from target.iscsi.session import SessionKey
from target.iscsi.task_management import ABORTS_ALL
from target.scsi.task import TaskOutcome
from target.sendable import Sendable
from target.socket_writing import FileRangeLost, read_ranges, send_now

if TYPE_CHECKING:
    from target.iscsi.portal import IscsiPortal

log = logging.getLogger("pairvol.iscsi")

UNSENT_BYTES_MAX = 4 << 20
"""Of what a socket would not take: above, nothing is read. No command starts while there is any."""
_RECEIVES_AT_A_TIME = 8
LINGER_TIMEOUT = 5.0  # seconds for the last answers of a connection to leave
ABORTS_OF_ALL_NEXUS = (TaskFunction.CLEAR_TASK_SET, TaskFunction.LOGICAL_UNIT_RESET, *ABORTS_ALL)

T = TypeVar("T")


def socket_address(name: Any) -> str:
    """``host:port`` of a socket's name, which may say more than these two."""
    return format_address((name[0], name[1]))


class Serving(asyncio.BufferedProtocol):
    """Made by the portal for each connection that it accepts."""

    def __init__(self, portal: "IscsiPortal", portal_group_tag: int) -> None:
        self.portal_group_tag = portal_group_tag
        self.over = asyncio.Event()  # set when the connection and its nexus are gone
        self._portal = portal
        self._begin = portal.scsi_port.begin
        self._loop = asyncio.get_running_loop()
        self._connection: Connection | None = None  # None until made, and for good when not admitted
        self._buffer = portal.receive_buffer
        self._space: memoryview | None = None  # where the transport receives instead, when it is a long data segment
        self.host = ""
        self._timer: asyncio.TimerHandle | None = None
        self._linger: asyncio.TimerHandle | None = None
        self._pumping = False
        self._resuming = False
        self._session: tuple[SessionKey, ITNexus] | None = None
        self._ending = asyncio.Lock()

    # ------------------------------------------------------------------ transport callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        local = transport.get_extra_info("sockname")
        self._peer = socket_address(peer) if peer else "?"
        self.host = str(peer[0]) if peer else ""
        if not local or not peer or not self._portal.admit(self):
            self._transport.abort()  # it is gone already, or we are about to be
            return
        self._transport.set_write_buffer_limits(0)
        self._socket: TransportSocket = transport.get_extra_info("socket")
        self._descriptor = self._socket.fileno()
        self._connection = Connection(
            self._portal.description(self.portal_group_tag, socket_address(local)),
            local_address=socket_address(local),
            now=self._loop.time(),
            limits=self._portal.limits_of_next(),
            access=self._portal.access,
            peer_host=self.host,
            room=self._portal.room,
            lends=True,
        )
        self._set_timer()

    def get_buffer(self, sizehint: int) -> memoryview:
        self._space = self._connection.receive_space() if self._connection is not None else None
        return self._buffer if self._space is None else self._space

    def buffer_updated(self, nbytes: int) -> None:
        if self._connection is not None:
            self._receive(self._connection, nbytes)
            self._receive_on(self._connection)

    def _receive(self, connection: Connection, nbytes: int) -> None:
        """What was received into the space, if there is one, or into the buffer."""
        now = self._loop.time()
        if self._space is not None:
            events = connection.received_there(nbytes, now)
        else:
            # One copy per receive; after that every data segment is a view of it.
            events = connection.receive_data(self._buffer[:nbytes], now)
        while not events and (space := connection.receive_space()) is not None:
            nbytes = self._receive_into(space)  # most of a long segment is here as a rule
            if not nbytes:
                break
            events = connection.received_there(nbytes, now)
        self._pump(events)

    def _receive_on(self, connection: Connection) -> None:
        """What has come meanwhile, without a way through the event loop, which costs as much as a command or two.

        Not for ever, since others are served as well.
        """
        transport = self._transport
        for _ in range(_RECEIVES_AT_A_TIME - 1):
            if transport.is_closing() or not transport.is_reading() or transport.get_write_buffer_size():
                return
            self._space = connection.receive_space()
            nbytes = self._receive_into(self._buffer if self._space is None else self._space)
            if not nbytes:
                return
            self._receive(connection, nbytes)

    def _receive_into(self, buffer: memoryview) -> int:
        """0 when there is nothing, and when the connection is over: then the transport will tell."""
        try:
            return os.readv(self._descriptor, (buffer,))
        except OSError:
            return 0

    def eof_received(self) -> None:
        """The peer sends nothing more: the end, as if it had hung up. It may not take what is still to be written."""
        if self._connection is not None:
            self._connection.end("")
            self._pump([])

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._timer, self._linger):
            if timer is not None:
                timer.cancel()
        if self._connection is not None:
            self._connection.end("")
            self._pump([])  # it is told in the log
            self._start(self._gone(), lambda _: None)

    def pause_writing(self) -> None:
        if self._connection is not None:
            self._connection.pause_writing(True)

    def resume_writing(self) -> None:
        self._loop.call_soon(self._go_on_writing)  # not in here: an error now would end the transport twice

    def _go_on_writing(self) -> None:
        if self._transport.is_closing() or self._transport.get_write_buffer_size():
            return
        self._transport.resume_reading()
        if self._connection is not None:
            self._connection.pause_writing(False)
            self._resume()

    # ------------------------------------------------------------------ the loop

    def _pump(self, events: list[Event]) -> None:
        """Does what the events say until there is nothing left to do now, writing once per round."""
        connection = self._connection
        assert connection is not None
        self._pumping = True
        try:
            while True:
                done = 0
                while done < len(events):
                    done, begun = connection.run_commands(events, done, self._begin)
                    if done < len(events):
                        event = events[done]
                        if begun is not None and type(event) is Command:
                            self._go_on(connection, event, begun)
                        else:
                            _HANDLERS[type(event)](self, event)
                        done += 1
                buffers = connection.data_to_send()
                if buffers:
                    self._write(buffers)
                events = connection.next_events()
                if not events and not buffers:
                    break
            if connection.phase is Phase.ENDED:
                self._close_transport()
        except Exception as error:  # a bug of ours must not take the array down: this session only
            self._failed(error)
        finally:
            self._pumping = False

    def _write(self, buffers: list[Sendable]) -> None:
        """Straight from where they are into the socket, as far as it takes them; a transport would join them first."""
        transport = self._transport
        if transport.is_closing():
            return
        try:
            if transport.get_write_buffer_size():
                rest = read_ranges(buffers)
            else:
                rest = send_now(self._socket, self._descriptor, buffers)
        except FileRangeLost as error:  # half a PDU may have left
            log.error("%s: connection dropped in the middle of a read: %s", self._name, error)
            self.abort()
            return
        if not rest:
            return
        transport.write(b"".join(rest))  # writelines of Python 3.12.0 to 3.12.8 pauses nobody, so that none is resumed
        if transport.get_write_buffer_size() > UNSENT_BYTES_MAX:
            transport.pause_reading()

    def _start(self, coroutine: Coroutine[Any, Any, T], done: Callable[[T], None]) -> None:
        task = eager.start(coroutine, done)
        if task is not None:
            self._keep(task)

    def _keep(self, task: "asyncio.Task[None]") -> None:
        self._portal.keep(task)
        task.add_done_callback(self._task_ended)

    def _task_ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error)

    def _failed(self, error: BaseException) -> None:
        log.error("%s: internal error, connection dropped: %s: %s", self._name, type(error).__name__, error)
        log.debug("%s: internal error", self._name, exc_info=error)
        self.abort()

    def _resume(self) -> None:
        """After a result was reported to the connection; inside of :meth:`_pump` its loop goes on by itself."""
        if not self._pumping:
            self._pump([])

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        deadline = self._connection.next_deadline() if self._connection is not None else None
        self._timer = self._loop.call_at(deadline, self._deadline_passed) if deadline is not None else None

    def _deadline_passed(self) -> None:
        assert self._connection is not None
        self._connection.handle_deadline(self._loop.time())
        self._pump([])
        self._set_timer()

    def _close_transport(self) -> None:
        """Lets the last answers leave, but does not wait for ever for a peer that takes none."""
        if not self._transport.is_closing():
            self._transport.close()
            self._linger = self._loop.call_later(LINGER_TIMEOUT, self._transport.abort)

    @property
    def _name(self) -> str:
        initiator = self._connection.initiator_name if self._connection is not None else ""
        return f"{self._peer} ({initiator})" if initiator else self._peer

    # ------------------------------------------------------------------ what the portal asks

    def end(self, reason: str) -> None:
        if self._connection is not None:
            self._connection.end(reason)
            self._resume()

    def drop(self, reason: str) -> None:
        """End it by our own decision, which the initiator is told."""
        if self._connection is not None:
            self._connection.drop(reason, AsyncEvent.ALL_CONNECTIONS_DROPPED)
            self._resume()

    def request_logout(self, seconds: int) -> None:
        if self._connection is not None:
            self._connection.request_logout(seconds, self._loop.time())
            self._resume()
            self._set_timer()

    def abort(self) -> None:
        self._transport.abort()

    @property
    def silent(self) -> bool:
        """It has not told its name."""
        return self._connection is None or not self._connection.initiator_name

    @property
    def nexus(self) -> ITNexus | None:
        return None if self._session is None else self._session[1]

    def check_access(self) -> None:
        if self._connection is not None and not self._connection.access_holds():
            self.drop("its access has changed")

    def abort_not_running_at(self, luns: Collection[int]) -> None:
        if self._connection is not None:
            self._connection.abort_not_running_at(luns)

    # ------------------------------------------------------------------ events

    def _go_on(self, connection: Connection, command: Command, begun: Coroutine[Any, Any, TaskOutcome]) -> None:
        """Most never wait: they are done in one step, without a Task, and answered with the others of this round."""
        try:
            waits_for = begun.send(None)
        except StopIteration as end:
            connection.complete(command, end.value)
        else:
            self._go_on_after(waits_for, command, begun)

    def _go_on_after(self, waits_for: Any, command: Command, begun: Coroutine[Any, Any, TaskOutcome]) -> None:
        if type(waits_for) is eager.Prompt:
            waits_for.resume = partial(self._answered, waits_for, command, begun)
            self._portal.expected.add(waits_for)
        else:
            self._keep(eager.go_on(begun, waits_for, partial(self._executed_later, command)))

    def _answered(self, answer: "eager.Prompt[Any]", command: Command, begun: Coroutine[Any, Any, TaskOutcome]) -> None:
        self._portal.expected.discard(answer)
        try:
            waits_for = begun.send(None)
        except StopIteration as end:
            self._executed_later(command, end.value)
        except Exception as error:  # a bug of ours: see _pump
            self._failed(error)
        else:
            self._go_on_after(waits_for, command, begun)

    def _executed_later(self, command: Command, outcome: TaskOutcome) -> None:
        assert self._connection is not None
        self._connection.complete(command, outcome)
        if not self._resuming:  # others may be done in this turn of the loop: one write for all of them
            self._resuming = True
            self._loop.call_soon(self._resume_soon)

    def _resume_soon(self) -> None:
        self._resuming = False
        if self._connection is not None:
            self._resume()

    def _task_management(self, event: TaskManagementReceived) -> None:
        assert self._session is not None
        nexus = self._session[1]
        if event.function in ABORTS_OF_ALL_NEXUS:
            luns = self._portal.scsi_port.luns_affected(nexus, event.function, event.lun)
            self._portal.abort_elsewhere(self, luns)
        managed = self._portal.scsi_port.manage(nexus, event.function, event.lun, event.referenced_task_tag)
        self._start(managed, partial(self._managed, event))

    def _managed(self, event: TaskManagementReceived, response: TaskFunctionResponse) -> None:
        assert self._connection is not None
        self._connection.task_management_done(event.itt, response)
        self._resume()
        if event.function is TaskFunction.TARGET_COLD_RESET and response is TaskFunctionResponse.COMPLETE:
            # A cold reset also ends all sessions (RFC 7143 §11.5.1), now: a command that follows the response at once
            # would be taken in by the old session, and the UNIT ATTENTION of the new one would strike out of season.
            self._portal.drop_all("TARGET COLD RESET")

    def _login_completed(self, event: LoginCompleted) -> None:
        self._start(self._establish(event), lambda _: self._resume())

    async def _establish(self, event: LoginCompleted) -> None:
        """Makes the session, after the end of an older one of the same nexus (§6.3.5)."""
        connection, sessions = self._connection, self._portal.sessions
        assert connection is not None
        key = SessionKey(normalised_name(event.initiator_name), event.isid, self.portal_group_tag)
        if event.tsih:
            if sessions.has_tsih(key, event.tsih):
                connection.refuse_login(LoginStatus.TOO_MANY_CONNECTIONS, "one connection per session")
            else:
                connection.refuse_login(LoginStatus.SESSION_DOES_NOT_EXIST, f"no session with TSIH {event.tsih}")
            return
        while event.nexus is not None and (older := sessions.get(key)) is not None:
            older.end("session reinstated by a new login")
            older.abort()
            await older.over.wait()
        if connection.phase is not Phase.ESTABLISHING:
            return
        if not self._portal.log_in(self):
            connection.refuse_login(LoginStatus.OUT_OF_RESOURCES, f"{self._portal.limits.connections} are the limit")
            return
        if event.nexus is None:
            connection.accept_login(sessions.new_tsih())
            log.info("%s: logged in for discovery, portal group %d", self._name, self.portal_group_tag)
        else:
            self._session = (key, event.nexus)
            tsih = sessions.add(key, self)
            self._portal.scsi_port.nexus_established(event.nexus, event.rule.mask)
            connection.accept_login(tsih)
            digests = [
                name
                for name, used in (
                    ("header", connection.parameters.header_digest),
                    ("data", connection.parameters.data_digest),
                )
                if used
            ]
            log.info(
                "%s: logged in as %s to portal group %d, digests: %s",
                self._name,
                event.nexus.initiator_port_name,
                self.portal_group_tag,
                " and ".join(digests) or "none",
            )
            log.debug("%s: %s", self._name, connection.parameters)
        self._set_timer()

    def _logout(self, event: LogoutReceived) -> None:
        self._set_timer()
        self._start(self._end_session(), self._logged_out)

    def _logged_out(self, _: None) -> None:
        assert self._connection is not None
        self._connection.logout_done()
        self._resume()

    async def _end_session(self) -> None:
        """The nexus is lost; waits for the end of its tasks. Later calls wait for the first."""
        async with self._ending:
            if self._session is not None:
                key, nexus = self._session
                try:
                    await self._portal.scsi_port.nexus_lost(nexus)
                finally:
                    self._portal.sessions.remove(key, self)
                    self._session = None

    async def _gone(self) -> None:
        try:
            await self._end_session()
        except Exception as error:
            self._failed(error)
        finally:
            self._portal.forget(self)
            self.over.set()

    def _ended(self, event: ConnectionEnded) -> None:
        if not self._portal.may_log(self):
            return
        if event.reason:
            level = logging.INFO if event.expected else logging.WARNING
            log.log(level, "%s: connection dropped: %s", self._name, event.reason)
        else:
            log.info("%s: connection closed", self._name)

    def _rejected(self, event: PduRejected) -> None:
        log.info("%s: Reject %02Xh of opcode %02Xh: %s", self._name, event.reason, event.opcode, event.message)


_HANDLERS: dict[type, Callable[[Serving, Any], None]] = {
    TaskManagementReceived: Serving._task_management,
    LoginCompleted: Serving._login_completed,
    LogoutReceived: Serving._logout,
    ConnectionEnded: Serving._ended,
    PduRejected: Serving._rejected,
}
