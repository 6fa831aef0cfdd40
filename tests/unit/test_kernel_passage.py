"""What moves through a pipe inside the kernel: all of it or what there is, in order, and nothing left behind."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest

from initiator_shim.kernel_passage import KernelPassage


@dataclass
class Ends:
    passage: KernelPassage = field(default_factory=KernelPassage)
    left_over: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.source, self.from_source = tcp_pair()
        self.to_target, self.target = tcp_pair()

    def move(self, count: int) -> int:
        return self.passage.move(self.from_source.fileno(), self.to_target.fileno(), count, self.left_over.append)


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        other, _ = server.accept()
    other.setblocking(False)
    return one, other


@pytest.fixture
def ends() -> Iterator[Ends]:
    made = Ends()
    made.to_target.setblocking(False)
    made.target.setblocking(True)
    with ExitStack() as stack:
        for each in (made.source, made.from_source, made.to_target, made.target):
            stack.enter_context(each)
        yield made
    made.passage.close()


def received(sock: socket.socket, count: int) -> bytes:
    return sock.recv(count, socket.MSG_WAITALL)


def test_no_more_goes_on_than_was_asked_for(ends: Ends) -> None:
    ends.source.sendall(b"segment|header")
    assert ends.move(7) == 7
    assert received(ends.target, 7) == b"segment"
    assert ends.from_source.recv(100) == b"|header"
    assert not ends.left_over


def test_what_there_is_goes_on(ends: Ends) -> None:
    ends.source.sendall(b"half")
    assert ends.move(100) == 4
    assert received(ends.target, 4) == b"half"


def test_it_does_not_wait(ends: Ends) -> None:
    assert ends.move(100) == 0
    ends.source.close()
    assert ends.move(100) == 0  # the end of the stream is for whoever receives


def test_what_the_target_does_not_take_is_left_over(ends: Ends) -> None:
    sent = b""
    moved = 0
    while not ends.left_over:  # until the target's socket is full
        piece = bytes((len(sent) >> 16 & 0xFF,)) * (1 << 16)
        ends.source.sendall(piece)
        sent += piece
        while moved < len(sent) and not ends.left_over:
            moved += ends.move(len(sent) - moved)
        assert len(sent) < 64 << 20
    left = b"".join(ends.left_over)
    assert received(ends.target, moved - len(left)) + left == sent[:moved]
    ends.left_over.clear()
    ends.source.sendall(b"fresh")  # nothing of before is in the pipe any more
    rest = len(sent) - moved + 5
    assert ends.move(rest) == rest
    assert received(ends.target, rest) == sent[moved:] + b"fresh"


def test_a_target_that_is_gone_leaves_nothing_in_the_pipe(ends: Ends) -> None:
    ends.source.sendall(b"lost")
    broken = ends.to_target.fileno()
    ends.to_target.shutdown(socket.SHUT_WR)
    assert ends.passage.move(ends.from_source.fileno(), broken, 4, ends.left_over.append) == 4
    assert b"".join(ends.left_over) == b"lost"
    other, target = tcp_pair()
    with other, target:
        ends.source.sendall(b"next")
        assert ends.passage.move(ends.from_source.fileno(), other.fileno(), 4, ends.left_over.append) == 4
        target.setblocking(True)
        assert received(target, 4) == b"next"
