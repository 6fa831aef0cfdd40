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
from target.remote_copy.link_connection import RECEIVE_BUFFER_BYTES, LinkConnection
from target.remote_copy.link_tls import LinkTls

log = logging.getLogger("pairvol.link")

_REDIAL_SECONDS = (0.1, 0.2, 0.5, 1.0)
_CONNECT_SECONDS = 3.0
_CONNECTIONS_LIMIT = 16
"""That have yet to log in, which the link machine gives them a few seconds for; one too many, and an old one goes."""
_REFUSALS_AT_ONCE = 64
_REFUSAL_SECONDS = 10.0
"""What strangers can make the log grow by: so many lines, and then one in so many seconds."""


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
        self._connection: LinkConnection | None = None
        self._server: asyncio.Server | None = None
        self._dialer: asyncio.Task[None] | None = None
        self._loss: asyncio.Task[None] | None = None
        self._refusal = ""
        self._refusals_left = float(_REFUSALS_AT_ONCE)
        self._refused_at = time.monotonic()
        self._asked: dict[int, tuple[LinkConnection, int]] = {}  # by our number: where a request came from, and its own
        self._numbers = itertools.count()
        self.connections: dict[LinkConnection, str] = {}  # the oldest first, with the address at the other end
        self.tasks: dict[asyncio.Task[None], int] = {}
        """With the payload that each of them holds, in bytes."""
        self.held_bytes = 0
        """Of all tasks."""
        self.receive_buffer = memoryview(bytearray(RECEIVE_BUFFER_BYTES))
        """Of every connection: what is in it is dealt with before the next one receives."""

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
                lambda: LinkConnection(self), *listen, reuse_address=True, start_serving=False
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

    def asked(self, connection: "LinkConnection", number: int) -> int:
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

    async def _connect(self, peer: tuple[str, int]) -> tuple[asyncio.Transport, "LinkConnection"]:
        loop = asyncio.get_running_loop()
        if not is_loopback(peer[0]):
            return await loop.create_connection(lambda: LinkConnection(self), *peer)
        family = socket.AF_INET6 if ":" in peer[0] else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # or asyncio takes it for none of TCP's
        try:
            sock.setblocking(False)
            send_unpaced(sock)
            await loop.sock_connect(sock, peer)
            return await loop.create_connection(lambda: LinkConnection(self), sock=sock)
        except BaseException:
            sock.close()
            raise

    def admit(self, connection: "LinkConnection", address: str) -> None:
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

    def adopt(self, connection: "LinkConnection", hello: Hello) -> None:
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

    def forget(self, connection: "LinkConnection", reason: str) -> None:
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

    def spawn(self, coroutine: Awaitable[None], connection: "LinkConnection", held: int, *, at_once: bool) -> None:
        """Run the handler of a frame with ``held`` bytes of payload to its end; ``at_once``: it hardly ever waits, and
        then needs no task."""
        run = self._run(coroutine, connection)
        if not at_once:
            _ = self._keep(asyncio.create_task(run), held)
        elif (task := eager.start(run, _nothing)) is not None:
            _ = self._keep(task, held)

    def _start(self, coroutine: Awaitable[None], connection: "LinkConnection") -> asyncio.Task[None]:
        return self._keep(asyncio.create_task(self._run(coroutine, connection)))

    def _keep(self, task: asyncio.Task[None], held: int = 0) -> asyncio.Task[None]:
        self.tasks[task] = held
        self.held_bytes += held
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.held_bytes -= self.tasks.pop(task)
        if self._connection is not None:
            self._connection.read_on()

    async def _run(self, coroutine: Awaitable[None], connection: "LinkConnection") -> None:
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


def _nothing(result: None) -> None:
    pass
