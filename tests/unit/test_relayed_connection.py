"""The sockets around a relay: nothing lost or without bound when one side reads slowly, and both sides in memory shared
with all others.
"""

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from initiator_shim.arbitration import Decision
from initiator_shim.config import Address
from initiator_shim.kernel_passage import KernelPassage
from initiator_shim.relay import ArbitrationNeeded, Event, LoginStarted
from initiator_shim.relayed_connection import RelayedConnection
from storage_model.spec.iscsi_pdu import DataInPdu, DataOutPdu, NopInPdu, ScsiCommandPdu, ScsiResponsePdu
from storage_model.spec.iscsi_stream import EncodablePdu, encode_pdu
from storage_model.volume import Buffer
from tests.eventually import eventually
from tests.unit.test_relay import HOST_NAME, RESERVE_6, TARGET, login_request, login_response

SEGMENT = 1 << 18
STREAM_BYTES = 64 << 20
MEMORY_MAX = 1 << 20  # in user space; a kernel's socket buffers are its own


def wire(*pdus: EncodablePdu) -> bytes:
    return b"".join(b"".join(encode_pdu(pdu)) for pdu in pdus)


class CountingPassage(KernelPassage):
    moved = 0

    def move(self, source: int, target: int, count: int, left_over: Callable[[bytes], None]) -> int:
        moved = super().move(source, target, count, left_over)
        self.moved += moved
        return moved


@dataclass
class Portal:
    """What a connection asks of its owner; it dials the array and leaves decisions to the test."""

    array: Address = field(default_factory=lambda: Address("127.0.0.1", 0))
    receive_buffer: memoryview = field(default_factory=lambda: memoryview(bytearray(1 << 16)))
    passage: "CountingPassage" = field(default_factory=lambda: CountingPassage())
    connections: list[RelayedConnection] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    dialling: set[asyncio.Task[None]] = field(default_factory=set)
    closed: int = 0

    def accept(self) -> asyncio.BaseProtocol:
        self.connections.append(RelayedConnection(self))
        return self.connections[-1].host_side

    def handle(self, connection: RelayedConnection, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, LoginStarted):
            self.dialling.add(asyncio.create_task(connection.connect_array(self.array, 5.0)))

    def connection_closed(self, connection: RelayedConnection) -> None:
        self.closed += 1


@dataclass
class End:
    """One peer's socket."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def receive(self, length: int) -> bytes:
        async with asyncio.timeout(20):
            return await self.reader.readexactly(length)


@dataclass
class Relayed:
    portal: Portal
    port: int = 0
    arriving: asyncio.Queue[End] = field(default_factory=asyncio.Queue)
    ends: list[End] = field(default_factory=list)

    async def arrived(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.ends.append(End(reader, writer))
        self.arriving.put_nowait(self.ends[-1])

    async def log_in(self) -> tuple[End, End, RelayedConnection]:
        """The host's and the array's end."""
        host = End(*await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 16))
        self.ends.append(host)
        login = wire(login_request({"InitiatorName": HOST_NAME, "TargetName": TARGET}))
        answer = wire(login_response({"TargetPortalGroupTag": "1"}))
        await host.send(login)
        array = await self.arriving.get()
        assert await array.receive(len(login)) == login
        await array.send(answer)
        assert await host.receive(len(answer)) == answer
        return host, array, self.portal.connections[-1]


@pytest.fixture
async def relayed() -> AsyncIterator[Relayed]:
    made = Relayed(Portal())
    listening = await asyncio.start_server(made.arrived, "127.0.0.1", 0, limit=1 << 16)
    made.portal.array = Address(*listening.sockets[0].getsockname())
    shim = await asyncio.get_running_loop().create_server(made.portal.accept, "127.0.0.1", 0)
    made.port = shim.sockets[0].getsockname()[1]
    yield made
    for connection in made.portal.connections:
        connection.close("the test ends")
    for end in made.ends:
        end.writer.transport.abort()
    for server in (shim, listening):
        server.close()
        await server.wait_closed()
    for end in made.ends:
        with suppress(OSError):
            await end.writer.wait_closed()
    made.portal.passage.close()


def written_but_not_sent(connection: RelayedConnection) -> int:
    sides = (connection.host_side, connection._array_side)
    return sum(side.transport.get_write_buffer_size() for side in sides if side.transport is not None)


@pytest.mark.parametrize("from_array", [True, False], ids=["array to host", "host to array"])
async def test_a_side_that_does_not_read_stops_the_other(relayed: Relayed, from_array: bool) -> None:
    host, array, connection = await relayed.log_in()
    source, sink = (array, host) if from_array else (host, array)
    pdu = DataInPdu(itt=1, data=bytes(range(256)) * (SEGMENT // 256))
    whole = wire(pdu if from_array else DataOutPdu(itt=1, data=pdu.data)) * (STREAM_BYTES // SEGMENT)
    sending = asyncio.create_task(source.send(whole))
    side = connection.host_side if from_array else connection._array_side
    await eventually(lambda: side.full, what="the slow side is full")
    assert 0 < written_but_not_sent(connection) < MEMORY_MAX
    assert not sending.done()
    assert await sink.receive(len(whole)) == whole
    assert written_but_not_sent(connection) < MEMORY_MAX
    await sending


@pytest.mark.parametrize("from_array", [True, False], ids=["array to host", "host to array"])
async def test_long_segments_pass_inside_the_kernel_and_short_ones_between_them_as_they_came(
    relayed: Relayed, from_array: bool
) -> None:
    host, array, _ = await relayed.log_in()
    source, sink = (array, host) if from_array else (host, array)
    rng = random.Random(5)
    pdus: list[EncodablePdu] = []
    for number in range(300):
        data = rng.randbytes(rng.choice((0, 4, 4096, 40_001, SEGMENT, 1 << 20)))
        pdus.append(DataInPdu(itt=number, data=data) if from_array else DataOutPdu(itt=number, data=data))
    whole = wire(*pdus)
    sending = asyncio.create_task(source.send(whole))
    assert await sink.receive(len(whole)) == whole
    await sending
    assert relayed.portal.passage.moved > len(whole) // 2


async def test_a_response_to_a_reserve_is_seen_behind_long_segments(relayed: Relayed) -> None:
    host, array, connection = await relayed.log_in()
    reserve = wire(ScsiCommandPdu(itt=7, cdb=RESERVE_6))
    await host.send(reserve)
    await array.receive(len(reserve))
    before = wire(*(DataInPdu(itt=1, data=bytes((number,)) * SEGMENT) for number in range(16)))
    behind = wire(DataInPdu(itt=1, data=bytes(SEGMENT)))
    sending = asyncio.create_task(array.send(before + wire(ScsiResponsePdu(itt=7)) + behind))
    assert await host.receive(len(before)) == before
    assert relayed.portal.passage.moved
    await eventually(lambda: connection.relay.holds, what="the response is held")
    moved = relayed.portal.passage.moved
    await sending
    await eventually(lambda: len(connection.relay._held_back) == len(behind), what="what is behind it")
    assert relayed.portal.passage.moved == moved
    connection.decided(7, Decision(won=False, epoch=1, reason="a test"))
    assert await host.receive(48 + len(behind)) == wire(ScsiResponsePdu(itt=7, status=0x18)) + behind


class Backlog(asyncio.Transport):
    """A transport that still has something to write."""

    def __init__(self, peer: socket.socket) -> None:
        super().__init__({"socket": peer})
        self.written: list[bytes] = []

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 1

    def write(self, data: Buffer) -> None:
        self.written.append(bytes(data))


async def test_nothing_overtakes_what_waits_to_be_sent() -> None:
    ours, theirs = socket.socketpair()
    portal = Portal()
    with ours, theirs:
        theirs.setblocking(False)
        side = RelayedConnection(portal)._array_side
        side.transport = backlog = Backlog(ours)
        side.descriptor = ours.fileno()
        side.write([b"be", b"hind"])
        assert backlog.written == [b"behind"]
        with pytest.raises(BlockingIOError):
            theirs.recv(1)
    portal.passage.close()


async def test_connections_that_share_memory_keep_their_bytes_apart(relayed: Relayed) -> None:
    ends = [await relayed.log_in() for _ in range(4)]
    streams = [wire(DataInPdu(itt=number, data=bytes((number,)) * SEGMENT)) * 32 for number in range(4)]
    senders = [asyncio.create_task(array.send(stream)) for (_, array, _), stream in zip(ends, streams, strict=True)]
    await eventually(lambda: all(connection.host_side.full for *_, connection in ends), what="all hosts are full")
    received = await asyncio.gather(*(host.receive(len(streams[0])) for host, *_ in ends))
    assert received == streams
    await asyncio.gather(*senders)


async def test_both_sockets_send_without_delay(relayed: Relayed) -> None:
    """Nagle's algorithm would hold a command back until the one before it was acknowledged."""
    _, _, connection = await relayed.log_in()
    for side in (connection.host_side, connection._array_side):
        assert side.transport is not None
        assert side.transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_the_array_waits_while_too_much_is_held_back_and_goes_on_behind_the_decision(relayed: Relayed) -> None:
    host, array, connection = await relayed.log_in()
    reserve = wire(ScsiCommandPdu(itt=7, cdb=RESERVE_6))
    await host.send(reserve)
    await array.receive(len(reserve))
    behind = wire(DataInPdu(itt=1, data=bytes(SEGMENT))) * (STREAM_BYTES // SEGMENT)
    sending = asyncio.create_task(array.send(wire(ScsiResponsePdu(itt=7)) + behind))
    transport = connection._array_side.transport
    assert transport is not None
    await eventually(lambda: not transport.is_reading(), what="the limit")
    assert len(connection.relay._held_back) < 2 * MEMORY_MAX
    assert not sending.done()
    connection.decided(7, Decision(won=False, epoch=1, reason="a test"))
    assert await host.receive(48 + len(behind)) == wire(ScsiResponsePdu(itt=7, status=0x18)) + behind
    await sending


async def test_an_array_that_breaks_the_protocol_behind_a_held_response_is_closed(relayed: Relayed) -> None:
    host, array, connection = await relayed.log_in()
    await host.send(wire(ScsiCommandPdu(itt=7, cdb=RESERVE_6), ScsiCommandPdu(itt=8, cdb=RESERVE_6)))
    await array.receive(96)
    last = wire(NopInPdu(ttt=1))
    await array.send(wire(ScsiResponsePdu(itt=7)) + last + wire(DataInPdu(itt=8, status_present=True)))
    await eventually(lambda: relayed.portal.events[1:], what="the RESERVE's GOOD")
    assert isinstance(relayed.portal.events[1], ArbitrationNeeded)
    await eventually(lambda: len(connection.relay._held_back) == 96, what="what is behind it")
    connection.decided(7, Decision(won=True, epoch=1, reason="a test"))
    assert await host.receive(96) == wire(ScsiResponsePdu(itt=7)) + last
    assert await host.reader.read() == b""
    assert relayed.portal.closed == 1
