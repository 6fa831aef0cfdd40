"""One TCP connection of the remote-copy link: bytes and timers around the ``Link`` machine. [IO]"""

import asyncio
import itertools
import os
import ssl
import time
from asyncio.trsock import TransportSocket
from collections.abc import Awaitable
from typing import TYPE_CHECKING, cast

from storage_model.spec.copy_frames import HEADER_LENGTH, TAG_LENGTH, Frame, FrameType
from storage_model.volume import Buffer
from target import eager
from target.remote_copy.copy_link import LinkDown
from target.remote_copy.link import SILENCE_LIMIT, FrameReceived, Link, LinkEvent, LinkOpened, RequestsDone
from target.remote_copy.link_tls import LinkTls, certificate_fault
from target.remote_copy.unread_answers import UnreadAnswers
from target.sendable import Sendable
from target.socket_writing import send_now

if TYPE_CHECKING:
    from target.remote_copy.link_transport import LinkTransport

ANSWER_SECONDS = 10.0
"""A peer that answers pings but not a request for so long has a volume that hangs: the link counts as failed."""
RECEIVE_BUFFER_BYTES = 256 << 10
_HANDLERS_LIMIT = 1024
"""Frames of the peer in the making; beyond that the connection is not read."""
_HELD_BYTES_LIMIT = 64 << 20
"""The same for what they hold of payload: each may be as long as MAX_PAYLOAD_LENGTH."""
_RECEIVES_AT_A_TIME = 8
_FRAMES_AT_A_TIME = 8
"""So many leave together at most: the other array works on them while this one goes on."""
_TRANSPORT_BYTES = 64 << 10
"""Of what the socket does not take, the transport gets so much, which it copies: it waits for the socket."""


class LinkConnection(asyncio.BufferedProtocol):
    """With TLS or without."""

    def __init__(self, owner: "LinkTransport") -> None:
        self._owner = owner
        self._loop = asyncio.get_running_loop()  # asked for each time, it costs a system call
        self._transport: asyncio.Transport | None = None
        self._socket: TransportSocket | None = None  # None with TLS: then the transport is in between
        self._descriptor = -1
        self._unsent: list[Buffer] = []  # what follows when the transport has nothing left
        self._unread = UnreadAnswers()
        self._space: memoryview | None = None  # where the transport receives instead, when it is a long payload
        self._long = False  # the last receive was of a long payload: likely the next one, too, of which a header tells
        self._link = Link(owner.own_hello(), time.monotonic(), owner.known_peer(), owner.key)
        self._tls = owner.tls
        self._securing: asyncio.Task[None] | None = None
        self._early = bytearray()  # decrypted in the turn of the loop that ended the handshake
        self._handshaking = False
        self._heard = False
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._flushing = False
        self._count = 0
        self._numbers = itertools.count()
        self._waiting: dict[int, tuple[eager.Prompt[Frame], float]] = {}
        self._reason = "the other array hung up"
        self.opened = False
        self.behind = False
        """True while more waits for the peer to read than the socket takes."""
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
        else:
            transport.set_write_buffer_limits(0)
            self._socket = cast(TransportSocket, transport.get_extra_info("socket"))
            self._descriptor = self._socket.fileno()
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
        early, self._early = self._early, bytearray()
        self._heard = self._heard or bool(early)
        self._take(self._link.receive_data(early, time.monotonic()))

    def get_buffer(self, sizehint: int) -> memoryview:
        self._space = self._link.receive_space()
        return self._buffer() if self._space is None else self._space

    def _buffer(self) -> memoryview:
        """Of a long payload nothing should come in here, for it would have to be copied."""
        buffer = self._owner.receive_buffer
        return buffer[: TAG_LENGTH + HEADER_LENGTH] if self._long else buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._tls is not None:
            self._early += self._owner.receive_buffer[:nbytes]
            if not self._handshaking:
                self.hang_up("data before TLS")
            return
        self._heard = True
        if self._received(nbytes) != 1 and self._socket is not None:
            self._receive_on()

    def _received(self, nbytes: int) -> int:
        """Into the space, if there is one, and what is more than that into the buffer. Answers how many events."""
        now = time.monotonic()
        space, self._space = self._space, None
        self._long = space is not None
        if space is None:
            events = self._link.receive_data(self._owner.receive_buffer[:nbytes], now)
        else:
            events = self._link.received_there(min(nbytes, len(space)), now)
            if nbytes > len(space):
                events += self._link.receive_data(self._owner.receive_buffer[: nbytes - len(space)], now)
        self._take(events)
        return len(events)

    def _take(self, events: list[LinkEvent]) -> None:
        self._flushing = True  # what is answered at once leaves together, right here
        self._handle(events)
        self._write()

    def _receive_on(self) -> None:
        """What has come meanwhile, without a way through the event loop. Not for ever: others are served as well.

        After a single frame there is nothing as a rule, and to learn that costs more than it saves.
        """
        transport, buffer = self._transport, self._owner.receive_buffer
        assert transport is not None
        for _ in range(_RECEIVES_AT_A_TIME - 1):
            if transport.is_closing() or not transport.is_reading():
                return
            self._space = self._link.receive_space()
            # Behind a long payload the next header as well, but not what follows: that may be the next long payload.
            places = (self._buffer(),) if self._space is None else (self._space, buffer[: TAG_LENGTH + HEADER_LENGTH])
            try:
                nbytes = os.readv(self._descriptor, places)
            except OSError:  # there is nothing, or the connection is over: then the transport will tell
                return
            if not nbytes:
                return
            self._received(nbytes)

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
            if isinstance(event, FrameReceived):
                self._receive(event.frame)
            elif isinstance(event, RequestsDone):
                self._answered(event.requests, Frame(FrameType.ANSWER))
            elif isinstance(event, LinkOpened):
                self.opened = True
                self._owner.adopt(self, event.hello)
            else:
                self.hang_up(event.reason)

    def _receive(self, frame: Frame) -> None:
        if frame.type is FrameType.ANSWER:
            self._answered((frame.request,), frame)
            return
        if frame.type is FrameType.WRITE and not self.behind and self._owner.write_now(frame):
            self._link.done(frame.request)
            self._queued()
            return
        if frame.request:
            frame.request = self._owner.asked(self, frame.request)
        owner = self._owner
        owner.spawn(owner.received(frame), self, len(frame.payload), at_once=frame.type is FrameType.WRITE)
        crowded = len(owner.tasks) > _HANDLERS_LIMIT or owner.held_bytes > _HELD_BYTES_LIMIT
        if crowded and self._transport is not None:
            self._transport.pause_reading()

    def _answered(self, requests: tuple[int, ...], frame: Frame) -> None:
        for request in requests:
            future, _ = self._waiting.pop(request, (None, 0.0))
            if future is not None and not future.done():
                future.answer(frame)

    def request(self, frame: Frame) -> Awaitable[Frame]:
        frame.request = next(self._numbers) % 0xFFFFFFFF + 1  # 0 is for what wants no answer
        future: eager.Prompt[Frame] = eager.Prompt(loop=self._loop)
        alone = not self._waiting
        self._waiting[frame.request] = (future, time.monotonic())
        self._link.send(frame)
        if alone:  # at once: the other array works on it while this one does its own part
            self._write()
        else:
            self._queued()
        return future

    def send(self, frame: Frame) -> None:
        self._link.send(frame)
        self._queued()

    def _queued(self) -> None:
        """One write for what this turn of the loop sends, but in its course where that is much."""
        self._count += 1
        if self._count >= _FRAMES_AT_A_TIME:
            self._write()
        elif not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._write)

    def _write(self) -> None:
        self._flushing = False
        self._count = 0
        if self._transport is None or self._transport.is_closing():
            return
        data = [] if self._tls is not None else self._link.data_to_send(time.monotonic())
        if data:
            self._send(self._transport, data)
        self._schedule()

    def read_on(self) -> None:
        """A handler has ended: if there were too many, there may be few enough now."""
        transport, owner = self._transport, self._owner
        if self._tls is not None or transport is None or transport.is_reading() or transport.is_closing():
            return
        if len(owner.tasks) < _HANDLERS_LIMIT // 2 and owner.held_bytes < _HELD_BYTES_LIMIT // 2:
            transport.resume_reading()

    def _send(self, transport: asyncio.Transport, data: list[Buffer]) -> None:
        """Straight from where it is into the socket; a transport would copy all that the socket does not take."""
        if self._socket is None:
            transport.writelines(data)
            self._unread.queued(sum(map(len, data)))
            return
        if self._unsent or transport.get_write_buffer_size():
            self._unsent += data
            self._unread.queued(sum(map(len, data)))
            return
        rest = send_now(self._socket, self._descriptor, cast(list[Sendable], data))
        while rest and not transport.is_closing():
            transport.write(b"".join(_cut_off(rest)))  # writelines of Python 3.12.0 to 3.12.8 pauses nobody
            if transport.get_write_buffer_size():
                self._unsent = rest
                return
            rest = send_now(self._socket, self._descriptor, cast(list[Sendable], rest))

    def pause_writing(self) -> None:
        self.behind = True

    def resume_writing(self) -> None:
        self._loop.call_soon(self._go_on)  # not in here: an error now would end the transport twice

    def _go_on(self) -> None:
        self.behind = False
        if self._unsent and self._transport is not None and not self._transport.is_closing():
            data, self._unsent = self._unsent, []
            self._send(self._transport, data)
        self._unread.waiting(self._waiting_bytes() if self.behind else 0)

    def _waiting_bytes(self) -> int:
        assert self._transport is not None
        return sum(map(len, self._unsent)) + self._transport.get_write_buffer_size()

    def hold(self, frame: Frame) -> None:
        """An answer will have to wait until the peer reads; to too many, there is no end but this one's."""
        self._unread.answer(frame)
        if not self._unread.too_many or self.ended.done():
            return
        self._unread.waiting(self._waiting_bytes())
        if self._unread.too_many and self._transport is not None:
            self._transport.abort()  # it would not read the reason either
            self.hang_up("it asks, and does not read the answers")

    def _schedule(self) -> None:
        deadline = self._link.next_deadline()
        if deadline is None or (self._timer is not None and self._due <= deadline):
            return
        if self._timer is not None:
            self._timer.cancel()  # opened now, the link pings long before the time for a HELLO is up
        self._due = deadline
        delay = max(0.0, deadline - time.monotonic())
        self._timer = self._loop.call_later(delay, self._on_timer)

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
                unsent, self._unsent = self._unsent, []
                self._transport.write(b"".join(unsent + self._link.data_to_send(time.monotonic())))
            self._transport.close()
            if self._transport.get_write_buffer_size():  # a peer that does not read could have it kept for ever
                self._loop.call_later(SILENCE_LIMIT, self._transport.abort)
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


def _cut_off(buffers: list[Buffer]) -> list[Buffer]:
    """The first ``_TRANSPORT_BYTES`` of them, which they lose."""
    left, taken = _TRANSPORT_BYTES, list[Buffer]()
    while buffers and left:
        first = buffers.pop(0)
        if len(first) > left:
            view = memoryview(first)
            buffers.insert(0, view[left:])
            first = view[:left]
        taken.append(first)
        left -= len(first)
    return taken


def _tls_reason(error: Exception) -> str:
    """A sentence out of what OpenSSL and asyncio say."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS: the certificate at the other end is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason:
        return f"TLS: {error.reason.replace('_', ' ').lower()}"
    return f"TLS: {error or type(error).__name__}"
