"""What one array has of the world: its end of the link to the other array, and a medium that takes no time."""

import asyncio
from asyncio import Future
from collections.abc import Awaitable, Callable, Sequence

from scripts.exploration.stepped_loop import SteppedLoop
from storage_model.spec.copy_frames import Frame, FrameType
from storage_model.volume import Buffer, Extent
from target.remote_copy.copy_link import LinkDown

BLOCK = 512


class LinkEnd:
    """``CopyLink`` as the transport does it; numbers are used again as soon as nobody can mean the old ones."""

    def __init__(self, loop: SteppedLoop, carry: Callable[[Frame], None]) -> None:
        self._loop = loop
        self._carry = carry
        self.up = False
        self._waiting: dict[int, Future[Frame]] = {}
        self._asked: dict[int, int] = {}
        self._handlers: dict[int, asyncio.Task[None]] = {}

    def request(self, frame: Frame) -> Awaitable[Frame]:
        future: Future[Frame] = self._loop.create_future()
        if not self.up:
            _fail(future)
            return future
        frame.request = next(number for number in range(1, 1 << 16) if number not in self._waiting)
        self._waiting[frame.request] = future
        self._carry(frame)
        return future

    def send(self, frame: Frame) -> None:
        if frame.type is FrameType.ANSWER:
            number = self._asked.pop(frame.request, None)
            if number is None:
                return  # the connection that the request came by is gone
            frame.request = number
        if self.up:
            self._carry(frame)

    def asked(self, number: int) -> int:
        """The number under which the handler of a request answers."""
        self._handlers = {ours: task for ours, task in self._handlers.items() if not task.done()}
        ours = next(ours for ours in range(1, 1 << 16) if ours not in self._handlers and ours not in self._asked)
        self._asked[ours] = number
        return ours

    def handling(self, ours: int, task: "asyncio.Task[None]") -> None:
        self._handlers[ours] = task

    def answered(self, frame: Frame) -> None:
        future = self._waiting.pop(frame.request, None)
        if future is not None and not future.done():
            future.set_result(frame)

    def fail(self) -> None:
        self.up = False
        waiting, self._waiting = self._waiting, {}
        self._asked.clear()
        for future in waiting.values():
            _fail(future)


def _fail(future: "Future[Frame]") -> None:
    if not future.done():
        future.set_exception(LinkDown("the link is down"))
        future.exception()


class NumberVolume:
    """One block whose content is a number; the medium takes no time."""

    def __init__(self, content: int) -> None:
        self.content = content
        self.size_bytes = self.block_length = BLOCK

    async def read(self, offset_bytes: int, length_bytes: int) -> Buffer:
        return bytes([self.content]) * length_bytes

    async def write(self, offset_bytes: int, data: Buffer, *, fua: bool = False) -> None:
        self.content = data[0]

    def write_now(self, offset_bytes: int, data: Buffer) -> bool:
        self.content = data[0]
        return True

    def read_now(self, offset_bytes: int, length_bytes: int) -> None:
        """Reads may wait, as what they wait for is explored."""

    def lend_now(self, offset_bytes: int, length_bytes: int) -> None:
        """There is no file."""

    async def unmap(self, offset_bytes: int, length_bytes: int) -> None:
        self.content = 0

    async def flush(self) -> None:
        pass

    async def block_status(self, offset_bytes: int, length_bytes: int) -> Sequence[Extent]:
        return [Extent(offset_bytes, length_bytes, bool(self.content))]

    async def close(self) -> None:
        pass
