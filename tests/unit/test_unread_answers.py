"""A peer of the link that asks and does not read: what is held for it is bounded, and one that reads is not cut off."""

import asyncio
import socket
from pathlib import Path

import pytest

from storage_model.spec.copy_frames import Frame, FrameType
from target.remote_copy import unread_answers
from target.remote_copy.copy_link import LinkDown
from target.remote_copy.unread_answers import READS_AT_ONCE, UnreadAnswers
from tests.eventually import eventually
from tests.unit.test_link_connection import MEBIBYTE, End, certificates, two_ends

LIMIT = 2 * MEBIBYTE


@pytest.fixture(autouse=True)
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unread_answers, "LIMIT_BYTES", LIMIT)


def stop_reading(end: End, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it sends meanwhile."""
    end.stream.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 20_000)
    end.stream.pause_reading()
    monkeypatch.setattr(end.stream, "resume_reading", lambda: None)


def ask(end: End, length: int) -> "asyncio.Future[Frame]":
    return asyncio.ensure_future(end.transport.request(Frame(FrameType.WRITE, payload=bytes(length))))


@pytest.mark.parametrize("with_tls", [False, True])
@pytest.mark.parametrize(("length", "at_once"), [(500, 100), (MEBIBYTE // 2, 1)])
async def test_peer_that_asks_and_does_not_read_is_cut_off(
    length: int,
    at_once: int,
    with_tls: bool,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And the link comes up again."""
    async with two_ends(certificates(tmp_path) if with_tls else None) as (a, b):
        b.stream.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 20_000)
        cut, stream = b.connection, b.stream
        stop_reading(a, monkeypatch)
        answers: list[asyncio.Future[Frame]] = []
        async with asyncio.timeout(30):
            while not cut.ended.done():
                answers += [ask(a, length) for _ in range(at_once)]
                await asyncio.sleep(0)
                # One answer more, and what TLS takes before it says that it is full.
                assert sum(map(len, cut._unsent)) + stream.get_write_buffer_size() < LIMIT + 2 * MEBIBYTE
        assert "is down: it asks, and does not read the answers" in caplog.text
        assert with_tls or stream.get_write_buffer_size() == 0  # of TLS, it goes with the transport
        monkeypatch.undo()
        a.stream.abort()
        for answer in await asyncio.gather(*answers, return_exceptions=True):
            assert isinstance(answer, LinkDown | Frame)
        await eventually(lambda: a.transport.up and b.transport.up, what="the link up again")
        assert (await ask(a, 1)).payload == b"\0"


@pytest.mark.parametrize("with_tls", [False, True])
async def test_peer_that_reads_late_is_not(with_tls: bool, tmp_path: Path) -> None:
    """However much it asks for on the whole, and this array sends of its own."""
    async with two_ends(certificates(tmp_path) if with_tls else None) as (a, b):
        for end in (a, b):
            end.stream.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 20_000)

        async def answer_briefly(frame: Frame) -> None:
            a.transport.send(Frame(FrameType.ANSWER, request=frame.request))

        a.transport.received = answer_briefly
        connection, was_behind = b.connection, False
        async with asyncio.timeout(60):
            own = [ask(b, MEBIBYTE) for _ in range(8)]  # more than the limit: but no answers
            waiting = [ask(a, MEBIBYTE // 8) for _ in range(8)]
            for _ in range(100):
                assert len((await waiting.pop(0)).payload) == MEBIBYTE // 8
                waiting.append(ask(a, MEBIBYTE // 8))
                was_behind |= connection.behind
            await asyncio.gather(*own, *waiting)
        assert was_behind and b.connection is connection and not connection.ended.done()


def test_what_leaves_is_not_counted_any_more() -> None:
    unread, answer = UnreadAnswers(), Frame(FrameType.ANSWER, payload=bytes(MEBIBYTE))
    for _ in range(3):
        unread.answer(answer)
        unread.queued(MEBIBYTE)
    assert unread.too_many
    unread.queued(100 * MEBIBYTE)  # of this array's own
    unread.waiting(103 * MEBIBYTE)
    assert unread.too_many
    unread.waiting(101 * MEBIBYTE)
    assert not unread.too_many
    for _ in range(3):
        unread.answer(answer)
    assert unread.too_many
    unread.waiting(0)
    assert not unread.too_many


async def test_volumes_are_read_from_the_peer_in_turns() -> None:
    """So that what it holds for this array stays far below its limit."""
    async with two_ends() as (a, b):
        b.let.clear()
        reads = [asyncio.ensure_future(a.transport.request(Frame(FrameType.READ))) for _ in range(2 * READS_AT_ONCE)]
        await eventually(lambda: len(b.handled) == READS_AT_ONCE, what="so many")
        b.let.set()
        await asyncio.gather(*reads)
        assert len(b.handled) == 2 * READS_AT_ONCE
        b.let.clear()
        reads = [asyncio.ensure_future(a.transport.request(Frame(FrameType.READ))) for _ in range(2 * READS_AT_ONCE)]
        await eventually(lambda: len(b.handled) == 3 * READS_AT_ONCE, what="so many")
        a.connection.hang_up("the test does")
        b.let.set()
        ended = await asyncio.gather(*reads, return_exceptions=True)
        assert all(isinstance(each, LinkDown) for each in ended)
        await eventually(lambda: a.transport.up and b.transport.up, what="the link up again")
        assert len(b.handled) == 3 * READS_AT_ONCE  # none on the new connection


async def test_peer_that_does_not_read_cannot_keep_what_was_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("target.remote_copy.link_connection.SILENCE_LIMIT", 0.05)
    async with two_ends() as (a, b):
        stop_reading(b, monkeypatch)
        stream = a.stream
        answer = ask(a, 8 * MEBIBYTE)
        await asyncio.sleep(0)
        a.connection.hang_up("the test does")
        assert stream.get_write_buffer_size()
        await eventually(lambda: not stream.get_write_buffer_size(), what="nothing kept")
        with pytest.raises(LinkDown):
            await answer
        monkeypatch.undo()
        b.stream.abort()
