"""A network cable that can be cut: a TCP proxy on loopback, and whoever is to be cut off dials it instead."""

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


class LinkProxy:
    """Passes TCP connections on to ``target`` until it is cut. ``target`` may be set after the proxy listens."""

    def __init__(self, target: Address | None = None) -> None:
        self.target = target
        self._server: asyncio.Server | None = None
        self._whole = asyncio.Event()
        self._whole.set()
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
        self._whole.clear()
        if how is Cut.RESET:
            self._drop_all()

    def restore(self) -> None:
        """Mend the cable. Connections that hung in a silent cut are dropped: their peers have moved on."""
        if self._cut is Cut.SILENT:
            self._drop_all()
        self._cut = None
        self._whole.set()

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
            asyncio.create_task(self._pump(near_reader, far_writer)),
            asyncio.create_task(self._pump(far_reader, near_writer)),
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

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_READ_BYTES):
            await self._whole.wait()
            writer.write(data)
            await writer.drain()
