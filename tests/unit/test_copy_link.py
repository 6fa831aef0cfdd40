"""The link between two arrays: who is let in and what the other is told, silence, pings, and where answers go."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from storage_model.spec.copy_frames import Frame, FrameStream, FrameType, Hello, PairOffer
from storage_model.volume import MediumFailure
from target.remote_copy import link as link_machine
from target.remote_copy.copy_link import LinkDown
from target.remote_copy.link import (
    PING_INTERVAL,
    SILENCE_LIMIT,
    FrameReceived,
    Link,
    LinkFailed,
    LinkOpened,
    RequestsDone,
)
from target.remote_copy.link_transport import LinkTransport

OFFER = PairOffer("quorum0", 10, 1 << 20, 512, True)
HELLO_A = Hello("30095", "30096", (OFFER,))
HELLO_B = Hello("30096", "30095", ())


def wire(frame: Frame) -> bytes:
    return b"".join(bytes(part) for part in frame.encode())


def sent(end: Link, now: float = 0.0) -> bytes:
    return b"".join(bytes(part) for part in end.data_to_send(now))


def frames(end: Link, now: float = 0.0) -> list[Frame]:
    return FrameStream().receive_data(sent(end, now))


def opened(now: float = 0.0) -> tuple[Link, Link]:
    a, b = Link(HELLO_A, now), Link(HELLO_B, now)
    a.receive_data(sent(b, now), now)
    b.receive_data(sent(a, now), now)
    return a, b


# ------------------------------------------------------------------------------------------------ the machine


def test_handshake_opens_both_ends() -> None:
    a, b = Link(HELLO_A, 0), Link(HELLO_B, 0)
    assert b.receive_data(sent(a), 0) == [LinkOpened(HELLO_A)]
    assert a.receive_data(sent(b), 0) == [LinkOpened(HELLO_B)]
    a.send(Frame(FrameType.FLUSH, request=7))
    assert b.receive_data(sent(a), 0) == [FrameReceived(Frame(FrameType.FLUSH, request=7))]


def test_frames_that_come_with_the_hello_are_not_lost() -> None:
    data = wire(HELLO_B.frame()) + wire(Frame(FrameType.PAIR_STATUS, 10))
    assert Link(HELLO_A, 0).receive_data(data, 0) == [
        LinkOpened(HELLO_B),
        FrameReceived(Frame(FrameType.PAIR_STATUS, 10)),
    ]


@pytest.mark.parametrize(
    ("hello", "reason"),
    [
        (Hello("30097", "30095", ()), "array 30097 is at the other end, but array 30096 is the configured peer"),
        (Hello("30096", "30099", ()), "array 30096 expects array 30099, this is array 30095"),
        (Hello("30096", "30095", (), (2, 3)), "no common version: the peer speaks (2, 3), this array (1,)"),
        (Hello("30096", "30095", (), ()), "no common version: the peer speaks (), this array (1,)"),
    ],
)
def test_whoever_is_refused_is_told_why_and_both_ends_know(hello: Hello, reason: str) -> None:
    a = Link(HELLO_A, 0)
    sent(a)
    assert a.receive_data(wire(hello.frame()), 0) == [LinkFailed(reason)]
    (refused,) = frames(a)
    assert (refused.type, bytes(refused.payload).decode()) == (FrameType.REFUSED, reason)
    peer = Link(hello, 0)
    assert peer.receive_data(wire(refused), 0) == [LinkFailed(f"the other array refuses the link: {reason}")]
    assert a.receive_data(wire(hello.frame()), 0) == peer.receive_data(wire(refused), 0) == []
    assert a.next_deadline() is peer.next_deadline() is None


@pytest.mark.parametrize(("known", "accepted"), [(None, True), ("mine", True), ("other", False), ("", False)])
def test_array_that_lost_its_memory_is_another_array(known: str | None, accepted: bool) -> None:
    """Its votes are gone with it: with its voice, an epoch could be decided twice (I1)."""
    hello = Hello("30096", "30095", (), identity="mine")
    (event,) = Link(HELLO_A, 0, known).receive_data(wire(hello.frame()), 0)
    assert isinstance(event, LinkOpened if accepted else LinkFailed)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (wire(Frame(FrameType.PING)), "PING before HELLO"),
        (wire(Frame(FrameType.ANSWER, request=1)), "ANSWER before HELLO"),
        (wire(Frame(FrameType.HELLO, payload=b"x")), "payload is not JSON"),
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1:3262\r\n\r\n", "not a remote-copy frame"),
        (wire(HELLO_B.frame()) * 2, "a second HELLO"),
    ],
)
def test_whatever_is_no_handshake_is_refused(data: bytes, reason: str) -> None:
    (event,) = Link(HELLO_A, 0).receive_data(data, 0)
    assert isinstance(event, LinkFailed) and event.reason.startswith(reason)


def test_a_peers_words_are_one_printable_line_of_bounded_length() -> None:
    refused = Frame(FrameType.REFUSED, payload=b"\x1b[2J\n" + b"x" * 10_000 + b"\xff")
    (event,) = Link(HELLO_A, 0).receive_data(wire(refused), 0)
    assert isinstance(event, LinkFailed)
    assert event.reason.isprintable() and len(event.reason) < 400


def test_damage_in_an_open_link_fails_it() -> None:
    a, _ = opened()
    data = bytearray(wire(Frame(FrameType.WRITE, payload=b"data")))
    data[-1] ^= 1
    (event,) = a.receive_data(data, 0)
    assert isinstance(event, LinkFailed) and "CRC32C" in event.reason
    assert frames(a)[-1].type is FrameType.REFUSED


def test_requests_that_are_done_are_told_together_and_in_their_place() -> None:
    a, b = opened()
    sent(a), sent(b)
    for request in (1, 2, 0xFFFFFFFF):
        a.done(request)
    a.send(Frame(FrameType.FLUSH, request=7))
    a.done(4)
    assert b.receive_data(sent(a), 0) == [
        RequestsDone((1, 2, 0xFFFFFFFF)),
        FrameReceived(Frame(FrameType.FLUSH, request=7)),
        FrameReceived(Frame(FrameType.ANSWER, request=4)),
    ]


def test_array_that_does_not_know_answers_told_together_gets_one_by_one() -> None:
    a = Link(HELLO_A, 0)
    sent(a)
    a.receive_data(wire(replace(HELLO_B, answers=False).frame()), 0)
    a.done(1)
    a.done(2)
    assert frames(a) == [Frame(FrameType.ANSWER, request=request) for request in (1, 2)]


def test_answers_that_cannot_be_read_fail_the_link() -> None:
    a, _ = opened()
    (event,) = a.receive_data(wire(Frame(FrameType.ANSWERS, payload=b"12345")), 0)
    assert event == LinkFailed("ANSWERS with a payload of 5 bytes")


def test_silence_ends_the_link_and_pings_prevent_it() -> None:
    a, b = opened()
    sent(a), sent(b)
    now = 0.0
    for _ in range(20):  # nothing but pings, much longer than the limit
        now = a.next_deadline() or 0
        assert now <= b.next_deadline()  # type: ignore[operator]
        for link, other in ((a, b), (b, a)):
            assert link.handle_deadline(now) == []
            ping = sent(link, now)
            assert ping == wire(Frame(FrameType.PING))
            assert other.receive_data(ping, now) == []
    assert now == 20 * PING_INTERVAL
    assert a.handle_deadline(now + SILENCE_LIMIT - 0.01) == []
    (event,) = a.handle_deadline(now + SILENCE_LIMIT)
    assert isinstance(event, LinkFailed) and "nothing heard" in event.reason
    assert a.next_deadline() is None and a.handle_deadline(now + 10) == []


def test_deadlines_are_never_in_the_past_once_handled() -> None:
    """Else the timer would be called at once, again and again."""
    for link in (Link(HELLO_A, 0), opened()[0]):
        now = 0.0
        while (deadline := link.next_deadline()) is not None:
            assert deadline > now or now == 0.0
            now = deadline
            link.handle_deadline(now)
            link.data_to_send(now)


def test_no_hello_in_time_whatever_else_is_said() -> None:
    link = Link(HELLO_A, 0)
    hello = wire(HELLO_B.frame())
    for index in range(3):
        assert link.receive_data(hello[index : index + 1], float(index)) == []
    (event,) = link.handle_deadline(SILENCE_LIMIT)
    assert isinstance(event, LinkFailed) and "no HELLO" in event.reason


# ------------------------------------------------------------------------------------------- over real sockets


class End:
    """A transport with its handler, which the test may hold up."""

    def __init__(self, hello: Hello) -> None:
        self.transport = LinkTransport(hello, self.opened, self.lost, self.received)
        self.up = asyncio.Event()
        self.down = asyncio.Event()
        self.let = asyncio.Event()
        self.let.set()
        self.let_loss = asyncio.Event()
        self.let_loss.set()
        self.handling: asyncio.Queue[Frame] = asyncio.Queue()
        self.events: list[str] = []

    def opened(self, hello: Hello) -> None:
        self.events.append("opened")
        self.up.set()

    async def lost(self, reason: str) -> None:
        self.up.clear()
        self.events.append("losing")
        await self.let_loss.wait()
        self.events.append("lost")
        self.down.set()

    async def received(self, frame: Frame) -> None:
        self.handling.put_nowait(frame)
        if bytes(frame.payload) == b"fail":
            raise RuntimeError("a bug")
        if bytes(frame.payload) == b"full":
            raise MediumFailure("the record cannot be written")
        await self.let.wait()
        self.transport.send(Frame(FrameType.ANSWER, request=frame.request, payload=b"re: " + bytes(frame.payload)))


@contextlib.asynccontextmanager
async def two_ends() -> AsyncIterator[tuple[End, End, int]]:
    a, b = End(HELLO_A), End(HELLO_B)
    await b.transport.start(("127.0.0.1", 0), ("127.0.0.1", 1))
    assert b.transport._server is not None
    port = b.transport._server.sockets[0].getsockname()[1]
    await a.transport.start(("127.0.0.1", 0), ("127.0.0.1", port))
    async with asyncio.timeout(20):
        await asyncio.gather(a.up.wait(), b.up.wait())
        try:
            yield a, b, port
        finally:
            for end in (a, b):
                end.let.set()
                end.let_loss.set()
                await end.transport.stop()


def break_connection(end: End) -> None:
    assert end.transport._connection is not None
    end.down.clear()
    end.transport._connection.hang_up("the test breaks it")


async def test_answers_find_their_requests() -> None:
    async with two_ends() as (a, b, _):
        requests = [Frame(FrameType.WRITE, payload=str(number).encode()) for number in range(20)]
        replies = await asyncio.gather(*(a.transport.request(frame) for frame in requests))
        assert [bytes(reply.payload) for reply in replies] == [b"re: %d" % number for number in range(20)]
        assert bytes((await b.transport.request(Frame(FrameType.FLUSH))).payload) == b"re: "


async def test_what_is_unanswered_when_the_link_breaks_is_not_known_to_be_done() -> None:
    async with two_ends() as (a, b, _):
        b.let.clear()
        answer = a.transport.request(Frame(FrameType.WRITE))
        await b.handling.get()
        break_connection(a)
        with pytest.raises(LinkDown):
            await answer
        assert not a.transport.up
        with pytest.raises(LinkDown):
            await a.transport.request(Frame(FrameType.WRITE))
        await asyncio.gather(a.up.wait(), b.up.wait())


async def test_answer_of_an_old_connection_is_none_on_the_new_one() -> None:
    """The numbers start anew: the late answer would tell that another request was done, a vote perhaps."""
    async with two_ends() as (a, b, _):
        b.let.clear()
        old = a.transport.request(Frame(FrameType.WRITE, payload=b"old"))
        await b.handling.get()
        break_connection(a)
        with pytest.raises(LinkDown):
            await old
        await asyncio.gather(a.down.wait(), b.down.wait())
        await asyncio.gather(a.up.wait(), b.up.wait())
        new = asyncio.ensure_future(a.transport.request(Frame(FrameType.WRITE, payload=b"new")))
        await b.handling.get()
        b.let.set()
        assert bytes((await new).payload) == b"re: new"


async def test_handler_that_fails_breaks_its_own_connection_only(caplog: pytest.LogCaptureFixture) -> None:
    async with two_ends() as (a, b, _):
        with pytest.raises(LinkDown, match="internal error"):
            await a.transport.request(Frame(FrameType.WRITE, payload=b"fail"))
        await asyncio.gather(a.down.wait(), b.down.wait())
        await asyncio.gather(a.up.wait(), b.up.wait())
        assert bytes((await a.transport.request(Frame(FrameType.WRITE))).payload) == b"re: "
    assert "could not be handled" in caplog.text


async def test_medium_that_fails_is_told_without_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """A vote that cannot be saved on a full disk: nobody's bug (found by ``scripts/torture``)."""
    async with two_ends() as (a, b, _):
        with pytest.raises(LinkDown, match="a medium of the other array failed"):
            await a.transport.request(Frame(FrameType.PROPOSE, payload=b"full"))
        await asyncio.gather(a.down.wait(), b.down.wait())
        await asyncio.gather(a.up.wait(), b.up.wait())
    assert "could not be carried out: the record cannot be written" in caplog.text
    assert "Traceback" not in caplog.text


async def test_new_link_waits_until_the_loss_of_the_old_one_is_dealt_with() -> None:
    """Half-open at B: A dials anew while B still takes the old connection for alive."""
    async with two_ends() as (_, b, port):
        b.let_loss.clear()
        b.up.clear()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(wire(HELLO_A.frame()))
        received = b""
        while data := await reader.read(4096):
            received += data
        writer.close()
        assert FrameStream().receive_data(received)[-1].type is FrameType.REFUSED
        assert b.events == ["opened", "losing"]
        b.let_loss.set()
        await b.up.wait()
        assert b.events == ["opened", "losing", "lost", "opened"]


async def test_stop_ends_what_waits_for_an_answer() -> None:
    """Also at the end that dials, whose dialler waits for the end of the connection."""
    async with two_ends() as (a, b, _):
        b.let.clear()
        answer = asyncio.ensure_future(a.transport.request(Frame(FrameType.WRITE)))
        await b.handling.get()
        async with asyncio.timeout(5):
            await a.transport.stop()
            with pytest.raises(LinkDown):
                await answer
        assert not a.transport.up


async def test_stranger_is_refused_and_the_link_stays() -> None:
    async with two_ends() as (a, b, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"\0" * 100)
        received = b""
        while data := await reader.read(4096):
            received += data
        writer.close()
        assert FrameStream().receive_data(received)[-1].type is FrameType.REFUSED
        assert a.transport.up and b.transport.up and b.events == ["opened"]


async def test_idle_link_stays_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_machine, "PING_INTERVAL", 0.05)
    monkeypatch.setattr(link_machine, "SILENCE_LIMIT", 0.5)
    async with two_ends() as (a, b, _):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(a.down.wait(), 1.2)
        assert a.events == b.events == ["opened"]


async def test_peer_that_falls_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_machine, "SILENCE_LIMIT", 0.1)  # shorter than the interval between pings
    async with two_ends() as (a, b, _):
        await asyncio.gather(a.down.wait(), b.down.wait())


def test_the_lower_serial_number_dials() -> None:
    async def nothing(_: object) -> None:
        return

    assert LinkTransport(HELLO_A, lambda hello: None, nothing, nothing).dials
    assert not LinkTransport(HELLO_B, lambda hello: None, nothing, nothing).dials
