"""A network cable that can be cut, held and slowed: a TCP proxy on loopback, which whoever is to be cut off dials."""

import asyncio
import contextlib
from enum import Enum

_READ_BYTES = 262144
_CONNECTIONS_MAX = 64

Address = tuple[str, int]


class Cut(Enum):
    """How the cable fails."""

    SILENT = "bytes vanish, as on a cut fibre: only a timeout tells"
    RESET = "connections are reset and new ones refused, as when a router says so"


class Direction(Enum):
    """One of the two ways through a cable."""

    OUT = "from who dials to the target"
    BACK = "from the target to who dialled"


class LinkProxy:
    """Passes TCP connections on to ``target`` until it is cut. ``target`` may be set after the proxy listens.

    Each piece of data waits for ``delay`` seconds, and those behind it as well.
    """

    def __init__(self, target: Address | None = None) -> None:
        self.target = target
        self.delay = 0.0
        self._server: asyncio.Server | None = None
        self._whole = asyncio.Event()
        self._whole.set()
        self._passing = {direction: asyncio.Event() for direction in Direction}
        self._pass_all()
        self._cut: Cut | None = None
        self._joints: set[asyncio.Task[None]] = set()

    async def listen(self) -> Address:
        """Start on a free loopback port; returns the address to dial."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self.address

    @property
    def address(self) -> Address:
        assert self._server is not None, "listen() first"
        host, port = self._server.sockets[0].getsockname()[:2]
        return host, port

    @property
    def connections(self) -> int:
        """How many connections pass through, or hang in a silent cut."""
        return len(self._joints)

    def cut(self, how: Cut) -> None:
        """Cut the cable; a second cut changes the way it fails."""
        self._cut = how
        self.hold(*Direction)
        if how is Cut.RESET:
            self._drop_all()

    def hold(self, *directions: Direction) -> None:
        """Nothing arrives in these directions, and nobody is told: with one of them the connection is half open.

        No new connection comes about, as that needs both. What was sent meanwhile arrives late, after :meth:`release`.
        """
        self._whole.clear()
        for direction in directions:
            self._passing[direction].clear()

    def release(self) -> None:
        """The end of :meth:`hold`: TCP sends again what was lost, and those who were patient go on."""
        self._cut = None
        self._pass_all()

    def restore(self) -> None:
        """Mend the cable. Connections that hung in a silent cut are dropped: their peers have moved on."""
        if self._cut is Cut.SILENT:
            self._drop_all()
        self.release()

    def _pass_all(self) -> None:
        self._whole.set()
        for passing in self._passing.values():
            passing.set()

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
        joints = list(self._joints)
        self._drop_all()
        await asyncio.gather(*joints, return_exceptions=True)

    def _drop_all(self) -> None:
        for joint in self._joints:
            joint.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._cut is Cut.RESET or len(self._joints) >= _CONNECTIONS_MAX:
            writer.transport.abort()
            return
        joint = asyncio.create_task(self._join(reader, writer))
        self._joints.add(joint)
        joint.add_done_callback(self._joints.discard)

    async def _join(self, near_reader: asyncio.StreamReader, near_writer: asyncio.StreamWriter) -> None:
        far_writer: asyncio.StreamWriter | None = None
        try:
            await self._whole.wait()
            assert self.target is not None, "nobody may dial a proxy that has no target yet"
            far_reader, far_writer = await asyncio.open_connection(*self.target)
            await self._pump_both(near_reader, near_writer, far_reader, far_writer)
        except OSError:
            pass  # the far side is down: the near side sees its connection dropped, below
        finally:
            near_writer.transport.abort()
            if far_writer is not None:
                far_writer.transport.abort()

    async def _pump_both(
        self,
        near_reader: asyncio.StreamReader,
        near_writer: asyncio.StreamWriter,
        far_reader: asyncio.StreamReader,
        far_writer: asyncio.StreamWriter,
    ) -> None:
        """Until either side ends; then what is still to be sent to the other goes out before both are closed."""
        pumps = {
            asyncio.create_task(self._pump(near_reader, far_writer, Direction.OUT)),
            asyncio.create_task(self._pump(far_reader, near_writer, Direction.BACK)),
        }
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for writer in (near_writer, far_writer):
                writer.close()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(1.0):
                    await asyncio.gather(near_writer.wait_closed(), far_writer.wait_closed())
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction) -> None:
        while data := await reader.read(_READ_BYTES):
            if self.delay:
                await asyncio.sleep(self.delay)
            await self._passing[direction].wait()
            writer.write(data)
            await writer.drain()
