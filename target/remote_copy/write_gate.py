"""A gate that every write of one half passes, and that a change of the pair closes until it is decided. [C]"""

from asyncio import Event


class WriteGate:
    """Counts the writes inside; as many as the logical unit has tasks, and the copy task's window."""

    __slots__ = ("_idle", "_open", "closed", "inside")

    def __init__(self) -> None:
        self.inside = 0
        """How many are; to be read only."""
        self.closed = 0
        """How many changes wait for, or have, the volume to themselves."""
        self._open = Event()
        self._idle = Event()
        self._open.set()
        self._idle.set()

    async def enter(self) -> None:
        """Pass the gate; whoever waited must look again at who may write."""
        while self.closed:
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
        self.closed += 1
        self._open.clear()

    async def idle(self) -> None:
        """Wait until those inside have left; shut by the caller."""
        await self._idle.wait()

    def open(self) -> None:
        """Undo one :meth:`close` or :meth:`shut`."""
        self.closed -= 1
        if not self.closed:
            self._open.set()
