"""Our initiator over asyncio: sockets and timers around ``initiator``. [IO]

The calls that the rest of the shim, the tests and pyscsi scripts use.
"""

import asyncio
import os
from typing import Any

from initiator_shim.initiator import InitiatorSession
from initiator_shim.initiator_chap import ChapCredentials
from initiator_shim.initiator_login import Negotiated, SessionParameters
from initiator_shim.initiator_task import Completed, Ended, Event, Failed, LoggedIn, ScsiOutcome
from initiator_shim.session_errors import LoginRedirected, SessionError, SessionLost
from storage_model.errors import RemoteProtocolError, UserError
from storage_model.spec.iscsi_codes import RESERVED_TAG
from storage_model.spec.scsi_task import TaskFunction
from storage_model.volume import Buffer

DEFAULT_INITIATOR_NAME = "iqn.2026-11.org.pairvol:initiator"
DEFAULT_ISID = bytes.fromhex("800000000001")  # RFC 7143 §11.12.5: type 10b, "random"
_REDIRECTS_MAX = 4


class IscsiSession:
    """A session with one target. Make it with :meth:`connect`; every call raises SessionError when it fails."""

    def __init__(self, machine: InitiatorSession) -> None:
        """Not for users: :meth:`connect` is."""
        self._machine = machine
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._logged_in: asyncio.Future[Negotiated] = self._loop.create_future()
        self.ended: asyncio.Future[SessionError] = self._loop.create_future()
        self.target_name: str = machine.parameters.target_name or ""

    @classmethod
    async def connect(
        cls,
        host: str,
        port: int,
        target_name: str | None = None,
        initiator_name: str = DEFAULT_INITIATOR_NAME,
        isid: bytes = DEFAULT_ISID,
        timeout: float = 5.0,
        *,
        keepalive: float | None = None,
        digests: bool = False,
        chap: ChapCredentials | None = None,
    ) -> "IscsiSession":
        """Logs in. Without ``target_name`` the portal is asked, and must have exactly one target (else UserError).

        ``digests`` insists on CRC32C for headers and data; ``timeout`` is for connection and login together. ``chap``
        is used where the target asks for it; with a target's secret in it, only a target that proves itself will do.
        """
        if target_name is None:
            target_name = await _only_target(host, port, initiator_name, timeout, chap)
        digest = "CRC32C" if digests else "None,CRC32C"
        parameters = SessionParameters(
            initiator_name, isid, target_name, header_digest=digest, data_digest=digest, chap=chap
        )
        return await cls._open(host, port, parameters, timeout, keepalive)

    @classmethod
    async def _open(
        cls, host: str, port: int, parameters: SessionParameters, timeout: float, keepalive: float | None = None
    ) -> "IscsiSession":
        """Connects, logs in, and follows redirections (RFC 7143 §11.13.5, class 1)."""
        deadline = asyncio.get_running_loop().time() + timeout
        for _ in range(_REDIRECTS_MAX):
            session = cls(InitiatorSession(parameters, deadline, keepalive, os.urandom))
            try:
                await session._log_in(host, port, deadline)
                return session
            except LoginRedirected as moved:
                host, port = split_address(moved.address)
        raise SessionLost("the target redirects without end")

    async def _log_in(self, host: str, port: int, deadline: float) -> None:
        try:
            async with asyncio.timeout_at(deadline):
                await self._loop.create_connection(lambda: _Wire(self), host, port)
                await self._logged_in
        except TimeoutError:
            self.close()
            raise SessionLost(f"{host}:{port} does not answer in time") from None
        except OSError as error:
            self.close()
            raise SessionLost(f"cannot connect to {host}:{port}: {plain_reason(error)}") from None
        except BaseException:
            self.close()
            raise

    @property
    def negotiated(self) -> Negotiated:
        return self._machine.negotiated

    async def execute(
        self, lun: int, cdb: bytes, data_out: Buffer = b"", data_in_length: int = 0, timeout: float = 30.0
    ) -> ScsiOutcome:
        """Runs one SCSI command; waits while the target's command window is shut. Cancelling aborts the task."""
        itt = self._machine.command(lun, cdb, data_out, data_in_length, self._loop.time() + timeout)
        outcome = await self._result(itt)
        assert isinstance(outcome, ScsiOutcome)
        return outcome

    async def task_management(
        self,
        function: TaskFunction | int,
        lun: int,
        referenced_task_tag: int = RESERVED_TAG,
        timeout: float = 30.0,
    ) -> int:
        """Answers the response code of RFC 7143 §11.6.1: 0 is 'function complete'."""
        deadline = self._loop.time() + timeout
        response = await self._result(
            self._machine.task_management(TaskFunction(function), lun, referenced_task_tag, deadline)
        )
        assert isinstance(response, int)
        return response

    async def text(self, pairs: dict[str, str], timeout: float = 10.0) -> list[tuple[str, str]]:
        """A text exchange; keys of the answer may repeat."""
        answer = await self._result(self._machine.text(pairs, self._loop.time() + timeout))
        assert isinstance(answer, list)
        return answer

    async def ping(self, timeout: float = 5.0) -> None:
        """A NOP-Out that the target must answer."""
        await self._result(self._machine.ping(self._loop.time() + timeout))

    async def logout(self, timeout: float = 2.0) -> None:
        """Closes the session in good order; returns when the connection is closed, whatever the target answers."""
        try:
            await self._result(self._machine.logout(self._loop.time() + timeout))
        except SessionError:
            pass
        finally:
            self.close()

    def close(self) -> None:
        """Drops the connection without a word."""
        self._dispatch(self._machine.connection_lost("the session was closed"))

    async def _result(self, itt: int) -> Any:
        future: asyncio.Future[Any] = self._loop.create_future()
        self._waiting[itt] = future
        self._flush()
        try:
            return await future
        except asyncio.CancelledError:
            self._machine.abandon(itt, self._loop.time())
            self._flush()
            raise
        finally:
            self._waiting.pop(itt, None)

    # --------------------------------------------------------------------------------------------- called by the wire

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._flush()

    def data_received(self, data: bytes) -> None:
        self._dispatch(self._machine.receive_data(data, self._loop.time()))

    def connection_lost(self, reason: str) -> None:
        self._dispatch(self._machine.connection_lost(reason))

    def _deadline_reached(self) -> None:
        self._timer = None
        self._dispatch(self._machine.handle_deadline(self._loop.time()))

    def _dispatch(self, events: list[Event]) -> None:
        for event in events:
            match event:
                case LoggedIn(negotiated):
                    if not self._logged_in.done():
                        self._logged_in.set_result(negotiated)
                case Completed(itt, result):
                    future = self._waiting.get(itt)
                    if future is not None and not future.done():
                        future.set_result(result)
                case Failed(itt, error):
                    future = self._waiting.get(itt)
                    if future is not None and not future.done():
                        future.set_exception(error)
                case Ended(error):
                    self._end(error)
        self._flush()

    def _end(self, error: SessionError) -> None:
        if not self._logged_in.done():
            self._logged_in.set_exception(error)
            self._logged_in.exception()  # it is also in `ended`; nobody need await this one
        if not self.ended.done():
            self.ended.set_result(error)
        if self._transport is not None:
            self._transport.close()

    def _flush(self) -> None:
        """Writes what the machine wants to send, and sets the timer for its next deadline."""
        outgoing = self._machine.data_to_send()
        if outgoing and self._transport is not None and not self._transport.is_closing():
            self._transport.writelines(outgoing)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._machine.next_deadline()
        if deadline is not None:
            self._timer = self._loop.call_at(deadline, self._deadline_reached)


class _Wire(asyncio.Protocol):
    """asyncio's callbacks, apart from the session's public face."""

    def __init__(self, session: IscsiSession) -> None:
        self._session = session

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._session.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self._session.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._session.connection_lost(f"the connection was lost: {exc}" if exc else "the target closed the connection")


async def discover(
    host: str,
    port: int,
    initiator_name: str = DEFAULT_INITIATOR_NAME,
    timeout: float = 5.0,
    chap: ChapCredentials | None = None,
) -> list[tuple[str, list[str]]]:
    """SendTargets=All: each target's name with its addresses, ``host:port,tpgt`` (RFC 7143 appendix C)."""
    parameters = SessionParameters(initiator_name, DEFAULT_ISID, chap=chap)
    session = await IscsiSession._open(host, port, parameters, timeout)
    try:
        pairs = await session.text({"SendTargets": "All"}, timeout)
    finally:
        await session.logout()
    targets: list[tuple[str, list[str]]] = []
    for key, value in pairs:
        if key == "TargetName":
            targets.append((value, []))
        elif key == "TargetAddress" and targets:
            targets[-1][1].append(value)
    return targets


async def _only_target(host: str, port: int, initiator_name: str, timeout: float, chap: ChapCredentials | None) -> str:
    targets = await discover(host, port, initiator_name, timeout, chap)
    if len(targets) != 1:
        names = ", ".join(name for name, _ in targets) or "none"
        raise UserError(f"{host}:{port} has {len(targets)} targets ({names}): name one")
    return targets[0][0]


def plain_reason(error: OSError) -> str:
    """The system's own words; asyncio wraps them in its own."""
    return os.strerror(error.errno) if error.errno is not None and error.errno > 0 else str(error)


def split_address(address: str) -> tuple[str, int]:
    """``host:port``, the host in brackets when it is IPv6; port 3260 when there is none (RFC 7143 §13.8)."""
    host, colon, port = address.rpartition(":")
    if not colon or address.endswith("]"):
        host, port = address, "3260"
    if not host or not port.isdecimal() or int(port) > 65535:
        raise RemoteProtocolError(f"not an address: {address!r}", 0)
    return host.removeprefix("[").removesuffix("]"), int(port)
