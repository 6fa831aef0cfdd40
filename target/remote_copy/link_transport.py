"""The remote-copy link on TCP: connects or listens, reconnects by itself, matches answers to requests. [IO]

The array with the lower serial number dials, the other one listens, so that there is one connection. A new connection
that has logged in replaces an older one: the peer would not dial while it thought the old one alive.
"""

import asyncio
import itertools
import logging
import os
import random
import socket
import ssl
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace

from storage_model.errors import RemoteProtocolError, UserError
from storage_model.loopback import is_loopback
from storage_model.secret import Secret
from storage_model.spec.copy_frames import GROUP_FEATURE, KEY_FEATURE, Frame, FrameType, Hello, PairOffer
from storage_model.volume import VolumeError
from target import eager
from target.loopback import accept_unpaced, send_unpaced
from target.remote_copy.copy_link import LinkDown
from target.remote_copy.link import SILENCE_LIMIT, FrameReceived, Link, LinkEvent, LinkFailed, LinkOpened
from target.remote_copy.link_tls import LinkTls, certificate_fault

log = logging.getLogger("pairvol.link")

ANSWER_SECONDS = 10.0
"""A peer that answers pings but not a request for so long has a volume that hangs: the link counts as failed."""
_REDIAL_SECONDS = (0.1, 0.2, 0.5, 1.0)
_CONNECT_SECONDS = 3.0
_CONNECTIONS_LIMIT = 16
"""That have yet to log in, which the link machine gives them a few seconds for; one too many, and an old one goes."""
_REFUSALS_AT_ONCE = 64
_REFUSAL_SECONDS = 10.0
"""What strangers can make the log grow by: so many lines, and then one in so many seconds."""
_HANDLERS_LIMIT = 1024
"""Frames of the peer in the making; beyond that the connection is not read."""


class LinkTransport:
    """Implements ``copy_link.CopyLink`` over at most one live connection.

    ``opened`` is called with the peer's HELLO, ``lost`` with the reason, ``received`` with each frame that is no
    answer; ``known_peer`` answers which identity the peer must have. Without ``key`` and ``tls``, whoever reaches the
    port and knows the serial numbers can take the peer's place.
    """

    def __init__(
        self,
        hello: Hello,
        opened: Callable[[Hello], None],
        lost: Callable[[str], Awaitable[None]],
        received: Callable[[Frame], Awaitable[None]],
        known_peer: Callable[[], str | None] = lambda: None,
        *,
        key: Secret | None = None,
        tls: LinkTls | None = None,
    ) -> None:
        self.hello = hello
        self.key = key
        self.tls = tls
        self.opened = opened
        self.lost = lost
        self.received = received
        self.known_peer = known_peer
        self._connection: _Connection | None = None
        self._server: asyncio.Server | None = None
        self._dialer: asyncio.Task[None] | None = None
        self._loss: asyncio.Task[None] | None = None
        self._refusal = ""
        self._refusals_left = float(_REFUSALS_AT_ONCE)
        self._refused_at = time.monotonic()
        self._asked: dict[int, tuple[_Connection, int]] = {}  # by our number: where a request came from, and its own
        self._numbers = itertools.count()
        self.connections: dict[_Connection, str] = {}  # the oldest first, with the address at the other end
        self.tasks: set[asyncio.Task[None]] = set()

    @property
    def up(self) -> bool:
        """True between the peer's accepted HELLO and the link's failure."""
        return self._connection is not None

    @property
    def dials(self) -> bool:
        """True if it is for this array to connect."""
        return self.hello.serial < self.hello.peer_serial

    def offer(self, pair: PairOffer) -> None:
        """Before the start: this array has a half of the pair."""
        required = (GROUP_FEATURE,) if pair.group or self.hello.required else ()
        self.hello = replace(self.hello, pairs=(*self.hello.pairs, pair), required=required)

    async def start(self, listen: tuple[str, int], peer: tuple[str, int]) -> None:
        """Listen at one address, or dial the other and go on dialling; raises UserError if the address is taken."""
        host = peer[0] if self.dials else listen[0]
        if self.key is None and self.tls is None and host != "localhost" and not is_loopback(host):
            log.warning(
                "the remote-copy link is open to everybody who can reach %s: give both arrays a key or certificates"
                " (remote_copy.key_file, certificate_file)",
                host,
            )
        if self.dials:
            log.info("dialling array %s at %s:%d (the lower serial number dials)", self.hello.peer_serial, *peer)
            self._dialer = asyncio.create_task(self._dial(peer))
            return
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                lambda: _Connection(self), *listen, reuse_address=True, start_serving=False
            )
            accept_unpaced(self._server)
            await self._server.start_serving()
        except OSError as error:
            raise UserError(f"remote_copy.listen {listen[0]}:{listen[1]}: {error.strerror}") from None

    async def stop(self) -> None:
        """Hang up and stop connecting."""
        if self._dialer is not None:
            self._dialer.cancel()
            await asyncio.gather(self._dialer, return_exceptions=True)
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.hang_up("this array stops")
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def request(self, frame: Frame) -> Awaitable[Frame]:
        """See ``CopyLink``."""
        if self._connection is None:
            refused: eager.Prompt[Frame] = eager.Prompt()
            refused.fail(LinkDown("the link to the other array is down"))
            return refused
        return self._connection.request(frame)

    def send(self, frame: Frame) -> None:
        """See ``CopyLink``."""
        connection = self._connection
        if frame.type is FrameType.ANSWER:
            origin, frame.request = self._asked.pop(frame.request, (None, 0))
            if origin is not connection:
                return  # on another connection it would answer whichever request has that number there
        if connection is not None:
            connection.send(frame)

    def asked(self, connection: "_Connection", number: int) -> int:
        """The number by which :meth:`send` finds the connection that a request came from."""
        ours = next(self._numbers)
        self._asked[ours] = (connection, number)
        return ours

    async def _dial(self, peer: tuple[str, int]) -> None:
        attempt = 0
        while True:
            try:
                async with asyncio.timeout(_CONNECT_SECONDS):  # wait_for may swallow the cancellation by stop()
                    _, connection = await self._connect(peer)
                if await asyncio.shield(connection.ended):  # not cancelled with the dialler: it has yet to end
                    attempt = 0
            except (OSError, TimeoutError) as error:
                if not attempt:
                    log.warning(
                        "array %s at %s:%d cannot be reached: %s", self.hello.peer_serial, *peer, error or "timeout"
                    )
            # Spread, so that many arrays do not come back in step after a failure of the network.
            pause = _REDIAL_SECONDS[min(attempt, len(_REDIAL_SECONDS) - 1)]
            await asyncio.sleep(pause * random.uniform(0.75, 1.25))  # noqa: S311 - it is no secret
            if self._loss is not None:
                await asyncio.wait([self._loss])
            attempt += 1

    async def _connect(self, peer: tuple[str, int]) -> tuple[asyncio.Transport, "_Connection"]:
        loop = asyncio.get_running_loop()
        if not is_loopback(peer[0]):
            return await loop.create_connection(lambda: _Connection(self), *peer)
        family = socket.AF_INET6 if ":" in peer[0] else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # or asyncio takes it for none of TCP's
        try:
            sock.setblocking(False)
            send_unpaced(sock)
            await loop.sock_connect(sock, peer)
            return await loop.create_connection(lambda: _Connection(self), sock=sock)
        except BaseException:
            sock.close()
            raise

    def admit(self, connection: "_Connection", address: str) -> None:
        """A connection has come in. Of too many strangers the oldest goes, of the address that has most of them."""
        self.connections[connection] = address
        waiting = {one: where for one, where in self.connections.items() if not one.opened}
        if len(waiting) > _CONNECTIONS_LIMIT:
            (crowded, _), *_ = Counter(waiting.values()).most_common(1)
            next(one for one, where in waiting.items() if where == crowded).refuse("too many connections")

    def own_hello(self) -> Hello:
        """For one connection: with a nonce of its own, if there is a key."""
        if self.key is None:
            return self.hello
        return replace(self.hello, nonce=os.urandom(32).hex(), required=(*self.hello.required, KEY_FEATURE))

    def adopt(self, connection: "_Connection", hello: Hello) -> None:
        """The handshake of a connection succeeded."""
        if self._connection is not None:
            self._connection.hang_up("the other array connected anew")
        if self._loss is not None and not self._loss.done():
            # Told of the new link before they have dealt with the loss of the old one, pairs would take both for lost.
            connection.refuse("the loss of the connection before is being dealt with, dial again")
            return
        self._connection = connection
        self._refusal = ""
        log.info("link to array %s is up", hello.serial)
        self.opened(hello)

    def forget(self, connection: "_Connection", reason: str) -> None:
        """A connection ended."""
        self._asked = {ours: origin for ours, origin in self._asked.items() if origin[0] is not connection}
        if self._connection is connection:
            self._connection = None
            log.warning("link to array %s is down: %s", self.hello.peer_serial, reason)
            self._loss = self._start(self.lost(reason), connection)

    def refused(self, reason: str) -> None:
        """A connection ended before its handshake; dialled again and again, it is told once."""
        now = time.monotonic()
        self._refusals_left += (now - self._refused_at) / _REFUSAL_SECONDS
        self._refusals_left = min(self._refusals_left, _REFUSALS_AT_ONCE)
        self._refused_at = now
        told = reason != self._refusal and self._refusals_left >= 1
        self._refusals_left -= told
        level = logging.WARNING if told else logging.DEBUG
        log.log(level, "link to array %s refused: %s", self.hello.peer_serial, reason)
        self._refusal = reason

    def spawn(self, coroutine: Awaitable[None], connection: "_Connection", *, at_once: bool) -> None:
        """Run the handler of a frame to its end; ``at_once``: it hardly ever waits, and then needs no task."""
        run = self._run(coroutine, connection)
        if not at_once:
            _ = self._keep(asyncio.create_task(run))
        elif (task := eager.start(run, _nothing)) is not None:
            _ = self._keep(task)

    def _start(self, coroutine: Awaitable[None], connection: "_Connection") -> asyncio.Task[None]:
        return self._keep(asyncio.create_task(self._run(coroutine, connection)))

    def _keep(self, task: asyncio.Task[None]) -> asyncio.Task[None]:
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def _run(self, coroutine: Awaitable[None], connection: "_Connection") -> None:
        try:
            await coroutine
        except RemoteProtocolError as error:
            connection.refuse(str(error))
        # The peer waits for an answer that will not come: better a link that is down than a pair that hangs.
        except VolumeError as error:
            log.error("a frame of array %s could not be carried out: %s", self.hello.peer_serial, error)
            connection.refuse("a medium of the other array failed, see its log")
        except Exception:
            log.exception("a frame of array %s could not be handled", self.hello.peer_serial)
            connection.refuse("internal error at the other array, see its log")


class _Connection(asyncio.Protocol):
    """One TCP connection, with TLS or without: bytes and timers around the ``Link`` machine."""

    def __init__(self, owner: LinkTransport) -> None:
        self._owner = owner
        self._loop = asyncio.get_running_loop()  # asked for each time, it costs a system call
        self._transport: asyncio.Transport | None = None
        self._link = Link(owner.own_hello(), time.monotonic(), owner.known_peer(), owner.key)
        self._tls = owner.tls
        self._securing: asyncio.Task[None] | None = None
        self._early = bytearray()  # decrypted in the turn of the loop that ended the handshake
        self._handshaking = False
        self._heard = False
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._flushing = False
        self._numbers = itertools.count()
        self._waiting: dict[int, tuple[eager.Prompt[Frame], float]] = {}
        self._reason = "the other array hung up"
        self.opened = False
        self.ended: asyncio.Future[bool] = self._loop.create_future()
        """Done when the connection is; True if the handshake had succeeded."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        address = transport.get_extra_info("peername")
        self._owner.admit(self, str(address[0]) if address else "")
        if self._tls is not None:
            # Only now, so that a connection counts before it is encrypted; its time runs already, too.
            self._securing = asyncio.create_task(self._secure(transport, self._tls))
        self._write()

    async def _secure(self, transport: asyncio.Transport, tls: LinkTls) -> None:
        self._handshaking = True  # from here on, bytes come through TLS
        loop = asyncio.get_running_loop()
        dials = self._owner.dials
        try:
            secured = await loop.start_tls(
                transport,
                self,
                tls.context(dials=dials),
                server_side=not dials,
                ssl_handshake_timeout=SILENCE_LIMIT,
                ssl_shutdown_timeout=1.0,
            )
        except (OSError, ValueError) as error:
            self._securing = None
            self.hang_up(_tls_reason(error))
            return
        self._securing = None
        if secured is None or self.ended.done():
            transport.abort()
            return
        self._transport = secured
        self._tls = None
        peer = secured.get_extra_info("ssl_object")
        fault = certificate_fault(peer, self._owner.hello.peer_serial)
        if fault is not None:
            self.refuse(fault)
            return
        self._link.binding = tls.binding(peer, dials=dials)
        self.data_received(bytes(self._early))

    def data_received(self, data: bytes) -> None:
        if self._tls is not None:
            self._early += data
            if not self._handshaking:
                self.hang_up("data before TLS")
            return
        self._heard = self._heard or bool(data)
        self._handle(self._link.receive_data(data, time.monotonic()))
        self._write()

    def connection_lost(self, error: Exception | None) -> None:
        if error is not None:
            self._reason = _tls_reason(error) if isinstance(error, ssl.SSLError) else str(error)
        elif self._owner.tls is not None and not self._heard:
            # TLS 1.3 judges the dialling end's certificate last, and not every Python sends the alert about it.
            self._reason = "TLS: the other array hung up; if it does not accept the certificate, its log says why"
        self._end()

    def _handle(self, events: list[LinkEvent]) -> None:
        for event in events:
            if self.ended.done():
                return
            if isinstance(event, LinkOpened):
                self.opened = True
                self._owner.adopt(self, event.hello)
            elif isinstance(event, LinkFailed):
                self.hang_up(event.reason)
            elif isinstance(event, FrameReceived):
                self._receive(event.frame)

    def _receive(self, frame: Frame) -> None:
        if frame.type is FrameType.ANSWER:
            future, _ = self._waiting.pop(frame.request, (None, 0.0))
            if future is not None and not future.done():
                future.answer(frame)
            return
        if frame.request:
            frame.request = self._owner.asked(self, frame.request)
        self._owner.spawn(self._owner.received(frame), self, at_once=frame.type is FrameType.WRITE)
        if len(self._owner.tasks) > _HANDLERS_LIMIT and self._transport is not None:
            self._transport.pause_reading()

    def request(self, frame: Frame) -> Awaitable[Frame]:
        frame.request = next(self._numbers) % 0xFFFFFFFF + 1  # 0 is for what wants no answer
        future: eager.Prompt[Frame] = eager.Prompt(loop=self._loop)
        self.send(frame)
        self._waiting[frame.request] = (future, time.monotonic())
        return future

    def send(self, frame: Frame) -> None:
        self._link.send(frame)
        if not self._flushing:  # one write for all that this turn of the loop sends
            self._flushing = True
            self._loop.call_soon(self._write)

    def _write(self) -> None:
        self._flushing = False
        if self._transport is None or self._transport.is_closing():
            return
        data = [] if self._tls is not None else self._link.data_to_send(time.monotonic())
        if data:
            self._transport.writelines(data)
        if self._tls is None and not self._transport.is_reading() and len(self._owner.tasks) < _HANDLERS_LIMIT // 2:
            self._transport.resume_reading()
        self._schedule()

    def _schedule(self) -> None:
        deadline = self._link.next_deadline()
        if deadline is None or (self._timer is not None and self._due <= deadline):
            return
        if self._timer is not None:
            self._timer.cancel()  # opened now, the link pings long before the time for a HELLO is up
        self._due = deadline
        delay = max(0.0, deadline - time.monotonic())
        self._timer = asyncio.get_running_loop().call_later(delay, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        now = time.monotonic()
        self._handle(self._link.handle_deadline(now))
        oldest = next(iter(self._waiting.values()), None)
        if oldest is not None and now - oldest[1] > ANSWER_SECONDS:
            self.hang_up(f"a request was not answered for {ANSWER_SECONDS:g} s")
        self._write()

    def refuse(self, reason: str) -> None:
        """Hang up, and tell the other end why."""
        self._link.refuse(reason)
        self.hang_up(reason)

    def hang_up(self, reason: str) -> None:
        """Send what is queued and close; the link is down from now on."""
        self._reason = reason
        if self._transport is not None and not self._transport.is_closing():
            if self._tls is None:
                self._transport.writelines(self._link.data_to_send(time.monotonic()))
            self._transport.close()
        self._end()

    def _end(self) -> None:
        if self.ended.done():
            return
        self.ended.set_result(self.opened)
        self._owner.connections.pop(self, None)
        if self._securing is not None:
            self._securing.cancel()
        if self._timer is not None:
            self._timer.cancel()
        waiting, self._waiting = self._waiting, {}
        for future, _ in waiting.values():
            if not future.done():
                future.fail(LinkDown(self._reason))
        if not self.opened:
            self._owner.refused(self._reason)
        self._owner.forget(self, self._reason)


def _nothing(result: None) -> None:
    pass


def _tls_reason(error: Exception) -> str:
    """A sentence out of what OpenSSL and asyncio say."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS: the certificate at the other end is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason:
        return f"TLS: {error.reason.replace('_', ' ').lower()}"
    return f"TLS: {error or type(error).__name__}"
