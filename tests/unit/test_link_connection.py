"""How a connection of the remote-copy link sends and receives: when a request leaves, and what is held back."""

import asyncio
import contextlib
import socket
from asyncio.trsock import TransportSocket
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest

from storage_model.spec.copy_frames import HEADER_LENGTH, MAX_HELLO_LENGTH, Frame, FrameStream, FrameType, Hello
from storage_model.volume import Buffer
from target.remote_copy import link_connection
from target.remote_copy.link import Link
from target.remote_copy.link_connection import LinkConnection
from target.remote_copy.link_tls import LinkTls
from target.remote_copy.link_transport import LinkTransport
from target.socket_writing import send_now
from tests.eventually import eventually
from tests.link_certificates import Authority

ENDS = "30095", "30096"
MEBIBYTE = 1 << 20


class End:
    """Answers a request with its payload, when it is let."""

    def __init__(self, serial: str, tls: LinkTls | None = None) -> None:
        hello = Hello(serial, ENDS[serial == ENDS[0]], ())
        self.transport = LinkTransport(hello, lambda hello: None, self.lost, self.received, tls=tls)
        self.handled: list[bytes] = []
        self.let = asyncio.Event()
        self.let.set()

    async def lost(self, reason: str) -> None:
        pass

    async def received(self, frame: Frame) -> None:
        self.handled.append(bytes(frame.payload))
        if not self.let.is_set():
            await self.let.wait()
        self.transport.send(Frame(FrameType.ANSWER, request=frame.request, payload=frame.payload))

    @property
    def connection(self) -> LinkConnection:
        assert self.transport._connection is not None
        return self.transport._connection

    @property
    def stream(self) -> asyncio.Transport:
        assert self.connection._transport is not None
        return self.connection._transport


@contextlib.asynccontextmanager
async def two_ends(tls: tuple[LinkTls, LinkTls] | None = None) -> AsyncIterator[tuple[End, End]]:
    a, b = (End(serial, tls and tls[index]) for index, serial in enumerate(ENDS))
    await b.transport.start(("127.0.0.1", 0), ("127.0.0.1", 1))
    assert b.transport._server is not None
    try:
        await a.transport.start(("127.0.0.1", 0), b.transport._server.sockets[0].getsockname()[:2])
        await eventually(lambda: a.transport.up and b.transport.up, what="both ends up")
        yield a, b
    finally:
        b.let.set()
        await a.transport.stop()
        await b.transport.stop()


def certificates(directory: Path) -> tuple[LinkTls, LinkTls]:
    authority = Authority(directory)
    a, b = (LinkTls.from_files(*authority.issue(f"array-{serial}", serial).words()) for serial in ENDS)
    return a, b


class Writes:
    """What went straight into sockets: of each system call, the frames."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[list[FrameType]] = []
        monkeypatch.setattr(link_connection, "send_now", self._watched)

    def _watched(self, sock: TransportSocket, descriptor: int, buffers: list[Buffer]) -> list[Buffer]:
        data = b"".join(bytes(buffer) for buffer in buffers)
        self.calls.append([frame.type for frame in FrameStream().receive_data(data)])
        return send_now(sock, descriptor, [*buffers])


def write_frame(payload: bytes = b"data") -> Frame:
    return Frame(FrameType.WRITE, payload=payload)


async def test_request_that_is_alone_leaves_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with two_ends() as (a, _):
        writes = Writes(monkeypatch)
        answer = a.transport.request(write_frame())
        assert writes.calls == [[FrameType.WRITE]]  # before the loop has run
        await answer
        assert writes.calls == [[FrameType.WRITE], [FrameType.ANSWER]]


async def test_burst_leaves_with_one_more_system_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for the first one to be answered, nor for the end of the turn with all of them."""
    async with two_ends() as (a, b):
        b.let.clear()
        writes = Writes(monkeypatch)
        answers = [a.transport.request(write_frame()) for _ in range(20)]
        assert writes.calls == [[FrameType.WRITE]]
        await eventually(lambda: len(b.handled) == 20, what="all of them")
        assert writes.calls == [[FrameType.WRITE], [FrameType.WRITE] * 19]
        writes.calls.clear()
        b.let.set()
        await asyncio.gather(*answers)
        assert writes.calls == [[FrameType.ANSWER] * 20]


async def test_what_is_answered_in_one_receive_leaves_together(monkeypatch: pytest.MonkeyPatch) -> None:
    async with two_ends() as (a, b):
        writes = Writes(monkeypatch)
        b.stream.pause_reading()
        answers = [a.transport.request(write_frame()) for _ in range(20)]
        await eventually(lambda: len(writes.calls) == 2, what="all sent")
        b.stream.resume_reading()
        await asyncio.gather(*answers)
        assert writes.calls[2:] == [[FrameType.ANSWER] * 20]


@pytest.mark.parametrize("with_tls", [False, True])
async def test_more_than_the_socket_takes_arrives_whole_and_in_order(with_tls: bool, tmp_path: Path) -> None:
    async with two_ends(certificates(tmp_path) if with_tls else None) as (a, b):
        for end in (a, b):
            end.stream.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 20_000)
        payloads = [bytes([number]) * (MEBIBYTE + number) if number % 3 else bytes([number]) for number in range(20)]
        answers = await asyncio.gather(*(a.transport.request(write_frame(payload)) for payload in payloads))
        assert [answer.payload for answer in answers] == payloads == b.handled
        assert not a.connection._unsent and not b.connection._unsent


async def test_little_of_what_waits_for_the_socket_is_copied() -> None:
    async with two_ends() as (a, b):
        b.stream.pause_reading()
        payload = bytes(8 * MEBIBYTE)
        answer = a.transport.request(write_frame(payload))
        assert 0 < a.stream.get_write_buffer_size() <= 64 << 10
        assert any(isinstance(one, memoryview) and one.obj is payload for one in a.connection._unsent)
        later = a.transport.request(write_frame(b"later"))
        b.stream.resume_reading()
        assert (await answer).payload == payload and (await later).payload == b"later"


async def test_what_waits_for_the_socket_still_leaves_when_this_end_hangs_up() -> None:
    async with two_ends() as (a, b):
        b.stream.pause_reading()
        answer = a.transport.request(write_frame(bytes(8 * MEBIBYTE)))
        assert a.connection._unsent
        a.connection.hang_up("the test does")
        b.stream.resume_reading()
        await eventually(lambda: b.handled == [bytes(8 * MEBIBYTE)], what="the request")
        with pytest.raises(Exception, match="the test does"):
            await answer


@pytest.mark.parametrize("length", [100, 100_000])
async def test_with_too_many_handlers_nothing_is_read(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by the event loop nor in the same turn of it."""
    monkeypatch.setattr(link_connection, "_HANDLERS_LIMIT", 4)
    async with two_ends() as (a, b):
        b.let.clear()
        b.transport.receive_buffer = memoryview(bytearray(1024))
        b.stream.pause_reading()
        answers = [a.transport.request(write_frame(bytes(length))) for _ in range(60)]
        await asyncio.sleep(0)
        b.stream.resume_reading()
        await eventually(lambda: not b.stream.is_reading() and bool(b.handled), what="a pause")
        for _ in range(20):
            await asyncio.sleep(0)
        assert 4 < len(b.handled) <= 4 + 1024 // (HEADER_LENGTH + 100)
        b.let.set()
        assert [len(answer.payload) for answer in await asyncio.gather(*answers)] == [length] * 60
        assert b.stream.is_reading()


@pytest.mark.parametrize("with_tls", [False, True])
async def test_with_too_many_bytes_in_handlers_nothing_is_read(
    with_tls: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it is read again as soon as enough of them have ended, not when a timer of the link looks."""
    monkeypatch.setattr(link_connection, "_HELD_BYTES_LIMIT", 3 * MEBIBYTE)
    async with two_ends(certificates(tmp_path) if with_tls else None) as (a, b):
        b.let.clear()
        answers = [a.transport.request(write_frame(bytes(MEBIBYTE))) for _ in range(20)]
        await eventually(lambda: not b.stream.is_reading(), what="a pause")
        assert len(b.handled) == 4 and b.transport.held_bytes == 4 * MEBIBYTE
        monkeypatch.setattr(LinkConnection, "_on_timer", lambda connection: None)
        b.let.set()
        assert [len(answer.payload) for answer in await asyncio.gather(*answers)] == [MEBIBYTE] * 20
        await eventually(b.stream.is_reading, what="the end of the last handler")
        assert not b.transport.held_bytes


@pytest.mark.parametrize("with_tls", [False, True])
async def test_long_payload_is_not_received_by_way_of_the_buffer(
    with_tls: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for what came together with its header."""
    async with two_ends(certificates(tmp_path) if with_tls else None) as (a, b):
        copied = 0
        received = Link.receive_data

        def count(link: Link, data: Buffer, now: float) -> object:
            nonlocal copied
            copied += len(data)
            return received(link, data, now)

        monkeypatch.setattr(Link, "receive_data", count)
        b.transport.receive_buffer = memoryview(bytearray(10_000))
        answer = await a.transport.request(write_frame(bytes(MEBIBYTE)))
        assert answer.payload == bytes(MEBIBYTE)
        assert copied < 10_000 + a.transport.receive_buffer.nbytes + 4096


def test_stranger_gets_no_memory_for_what_it_announces() -> None:
    link = Link(Hello(ENDS[0], ENDS[1], ()), 0)
    frame = Frame(FrameType.HELLO, payload=bytes(MAX_HELLO_LENGTH))
    assert link.receive_data(bytes(frame.encode()[0]), 0) == [] and link.receive_space() is None
    peer = Link(Hello(ENDS[0], ENDS[1], ()), 0)
    hello = b"".join(map(bytes, Hello(ENDS[1], ENDS[0], ()).frame().encode()))
    assert len(peer.receive_data(hello, 0)) == 1
    peer.receive_data(bytes(write_frame(bytes(MEBIBYTE)).encode()[0]), 0)
    space = peer.receive_space()
    assert space is not None and len(space) == MEBIBYTE
    space[:] = bytes(MEBIBYTE)
    assert len(peer.received_there(MEBIBYTE, 0)) == 1


def writelines_of_312(self: Any, buffers: Iterable[Buffer]) -> None:
    """As in Python 3.12.0 to 3.12.8: the protocol is not told that it has to pause, nor ever that it may go on."""
    data = b"".join(buffers)
    if not self._buffer:
        with contextlib.suppress(BlockingIOError):
            data = data[self._sock.send(data) :]
    self._buffer.extend(data)
    if self._buffer:
        self._loop._add_writer(self._sock_fd, self._write_ready)


def writelines_of_3129(self: Any, buffers: Iterable[Buffer]) -> None:
    """As from Python 3.12.9 on: it tries to send at once, behind what waits already."""
    self._buffer.extend(b"".join(buffers))
    self._write_ready()
    if self._buffer:
        self._loop._add_writer(self._sock_fd, self._write_ready)
        self._maybe_pause_protocol()


async def test_a_full_socket_is_waited_for_with_every_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncio.selector_events._SelectorSocketTransport.writelines", writelines_of_312)
    async with two_ends() as (a, _):
        payload = bytes(8 * MEBIBYTE)
        async with asyncio.timeout(20):
            answer = await a.transport.request(write_frame(payload))
        assert answer.payload == payload


async def test_hanging_up_sends_what_was_held_back_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The socket may take it all just then."""
    monkeypatch.setattr("asyncio.selector_events._SelectorSocketTransport.writelines", writelines_of_3129)
    async with two_ends() as (a, b):
        b.stream.pause_reading()
        await eventually(lambda: not b.stream.is_reading(), what="nothing is read")
        count = 0
        while not a.connection._unsent:
            _ = a.transport.request(write_frame(bytes((count,)) * 200_000))
            count += 1
            await asyncio.sleep(0)
        reader = b.stream.get_extra_info("socket")._sock.dup()
        with reader:
            received = take(reader)  # before the sender's loop has seen that there is room
            a.connection.hang_up("the test does")
            async with asyncio.timeout(20):
                while (piece := take(reader)) or len(received) < count * 200_000:
                    received += piece
                    await asyncio.sleep(0)
        b.stream.abort()
    assert len(received) == count * (HEADER_LENGTH + 200_000)


def take(sock: socket.socket) -> bytes:
    """What is there."""
    taken = bytearray()
    with contextlib.suppress(BlockingIOError):
        while piece := sock.recv(1 << 20):
            taken += piece
    return bytes(taken)
