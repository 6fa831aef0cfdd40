"""The cable that can be cut: whole, silent, reset, mended; held in one direction; slow."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from scripts.failover_drill.link_proxy import Cut, Direction, LinkProxy
from tests.eventually import eventually

SOON = 5.0
A_WHILE = 0.2


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()


@pytest.fixture
async def proxy() -> AsyncIterator[LinkProxy]:
    """A proxy in front of an echo server."""
    server = await asyncio.start_server(_echo, "127.0.0.1", 0)
    proxy = LinkProxy(server.sockets[0].getsockname()[:2])
    await proxy.listen()
    yield proxy
    await proxy.close()
    server.close()


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, text: bytes) -> bytes:
    writer.write(text)
    async with asyncio.timeout(SOON):
        return await reader.readexactly(len(text))


async def dropped(reader: asyncio.StreamReader) -> bool:
    """True when the connection ends."""
    try:
        async with asyncio.timeout(SOON):
            return await reader.read(1) == b""
    except ConnectionError:
        return True


async def test_bytes_pass_both_ways_and_in_bulk(proxy: LinkProxy) -> None:
    reader, writer = await asyncio.open_connection(*proxy.address)
    assert await ask(reader, writer, b"hello") == b"hello"
    bulk = bytes(range(256)) * 8192
    assert await ask(reader, writer, bulk) == bulk
    writer.close()
    await eventually(lambda: proxy.connections == 0, what="the proxy lets go")


async def test_the_end_of_one_side_reaches_the_other(proxy: LinkProxy) -> None:
    reader, writer = await asyncio.open_connection(*proxy.address)
    await ask(reader, writer, b"x")
    writer.write_eof()
    assert await dropped(reader)
    writer.close()


async def test_a_reset_drops_connections_and_refuses_new_ones(proxy: LinkProxy) -> None:
    reader, writer = await asyncio.open_connection(*proxy.address)
    await ask(reader, writer, b"x")
    proxy.cut(Cut.RESET)
    assert await dropped(reader)
    writer.close()
    late_reader, late_writer = await asyncio.open_connection(*proxy.address)
    assert await dropped(late_reader)
    late_writer.close()
    proxy.restore()
    reader, writer = await asyncio.open_connection(*proxy.address)
    assert await ask(reader, writer, b"again") == b"again"
    writer.close()


async def test_in_a_silent_cut_nothing_arrives_and_nothing_ends(proxy: LinkProxy) -> None:
    reader, writer = await asyncio.open_connection(*proxy.address)
    await ask(reader, writer, b"x")
    proxy.cut(Cut.SILENT)
    writer.write(b"lost")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(A_WHILE):
            await reader.read(1)
    assert proxy.connections == 1
    proxy.restore()
    assert await dropped(reader), "what hung in the cut does not come back to life"
    writer.close()


@pytest.mark.parametrize("direction", Direction)
async def test_what_is_held_in_one_direction_arrives_late(proxy: LinkProxy, direction: Direction) -> None:
    reader, writer = await asyncio.open_connection(*proxy.address)
    await ask(reader, writer, b"x")
    proxy.hold(direction)
    writer.write(b"late")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(A_WHILE):
            await reader.read(1)
    proxy.release()
    async with asyncio.timeout(SOON):
        assert await reader.readexactly(4) == b"late"
    writer.close()


async def test_a_slow_cable(proxy: LinkProxy) -> None:
    proxy.delay = A_WHILE / 2  # each way
    reader, writer = await asyncio.open_connection(*proxy.address)
    began = asyncio.get_running_loop().time()
    assert await ask(reader, writer, b"x") == b"x"
    assert asyncio.get_running_loop().time() - began >= A_WHILE
    writer.close()


async def test_a_dead_far_side_drops_the_caller() -> None:
    gone = await asyncio.start_server(_echo, "127.0.0.1", 0)
    address = gone.sockets[0].getsockname()[:2]
    gone.close()
    await gone.wait_closed()
    proxy = LinkProxy(address)
    await proxy.listen()
    reader, writer = await asyncio.open_connection(*proxy.address)
    assert await dropped(reader)
    writer.close()
    await proxy.close()
