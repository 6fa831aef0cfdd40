"""Bytes from one socket to another that never come to user space: ``splice`` through a pipe. [IO]

What lies in a socket's receive queue is handed on page by page, so that a long data segment through the shim costs no
copy at all where it cost two.
"""

import fcntl
import os
from collections.abc import Callable
from contextlib import suppress

_PIPE_BYTES = 1 << 20
_AT_A_TIME = 512 << 10


class KernelPassage:
    """One pipe for all connections: it is empty whenever nothing is being passed."""

    def __init__(self) -> None:
        self._open()

    def _open(self) -> None:
        self._out, self._in = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        with suppress(OSError):  # more than this user may have: then it goes on in smaller pieces
            fcntl.fcntl(self._in, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    def close(self) -> None:
        os.close(self._in)
        os.close(self._out)

    def move(self, source: int, target: int, count: int, left_over: Callable[[bytes], None]) -> int:
        """At most ``count`` bytes from one descriptor to the other, neither of which it waits for.

        Answers how many left ``source``; what ``target`` would not take of them goes to ``left_over``. 0: there is
        nothing now, or never again; whoever reads the socket next will find out.
        """
        try:
            moved = os.splice(source, self._in, min(count, _AT_A_TIME), flags=os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE)
        except OSError:
            return 0
        try:
            self._let_out(target, moved, left_over)
        except BaseException:  # what is left in the pipe must not reach another connection
            self.close()
            self._open()
            raise
        return moved

    def _let_out(self, target: int, count: int, left_over: Callable[[bytes], None]) -> None:
        with suppress(OSError):  # it is full, or lost
            while count:
                count -= os.splice(self._out, target, count, flags=os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE)
        while count:
            rest = os.read(self._out, count)
            count -= len(rest)
            left_over(rest)
