"""A gate that every write of one half passes, and that a change of the pair closes until it is decided. [C]"""

from asyncio import Event


class WriteGate:
    """Counts the writes inside; as many as the logical unit has tasks, and the copy task's window."""

    __slots__ = ("_closed", "_idle", "_open", "inside")

    def __init__(self) -> None:
        self.inside = 0
        """How many are; to be read only."""
        self._closed = 0
        self._open = Event()
        self._idle = Event()
        self._open.set()
        self._idle.set()

    @property
    def closed(self) -> bool:
        """True while a change waits for, or has, the volume to itself."""
        return self._closed > 0

    async def enter(self) -> None:
        """Pass the gate; whoever waited must look again at who may write."""
        while self._closed:
            await self._open.wait()
        self.enter_now()

    def enter_now(self) -> None:
        """Pass the gate, which is not ``closed``."""
        if not self.inside:
            self._idle.clear()
        self.inside += 1

    def leave(self) -> None:
        """The write has ended, however it did."""
        self.inside -= 1
        if not self.inside:
            self._idle.set()

    async def close(self) -> None:
        """Let nobody in, and wait until those inside have left."""
        self.shut()
        try:
            await self._idle.wait()
        except BaseException:
            self.open()
            raise

    def shut(self) -> None:
        """Let nobody in, without waiting: whoever has several gates to close shuts them all first."""
        self._closed += 1
        self._open.clear()

    async def idle(self) -> None:
        """Wait until those inside have left; shut by the caller."""
        await self._idle.wait()

    def open(self) -> None:
        """Undo one :meth:`close` or :meth:`shut`."""
        self._closed -= 1
        if not self._closed:
            self._open.set()
