"""Connections inside one machine: how they are told from others, and that what they send is not paced."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from initiator_shim.config import Address
from initiator_shim.control_session import ControlSession
from initiator_shim.loopback import connected_unpaced
from initiator_shim.portal import ShimPortal
from storage_model.loopback import is_loopback
from tests.eventually import eventually
from tests.unit.test_relay import HOST_NAME, TARGET, login_request
from tests.unit.test_relayed_connection import wire


def congestion_control(transport: asyncio.BaseTransport | None) -> bytes:
    assert transport is not None
    sock: socket.socket = transport.get_extra_info("socket")
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0")


def of_a_new_socket() -> bytes:
    """The system's choice."""
    with socket.socket() as sock:
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0")


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.1.2.3", True), ("::1", True), ("10.0.0.1", False), ("::", False), ("0.0.0.0", False),
     ("localhost", False), ("array.example", False), ("", False)],
)  # fmt: skip
def test_what_is_inside_this_machine(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def no_control(target_name: str) -> ControlSession:
    raise AssertionError(f"a control session with {target_name}")


@asynccontextmanager
async def shim_of(array: Address, listen: str) -> AsyncIterator[tuple[ShimPortal, Address]]:
    portal = ShimPortal(array, 3.0, {TARGET: None}, no_control)  # type: ignore[dict-item]
    try:
        yield portal, await portal.listen(Address(listen, 0))
    finally:
        await portal.stop()


async def logged_in(portal: ShimPortal, address: Address) -> tuple[asyncio.StreamWriter, bytes, bytes]:
    """The host's end, and the congestion control of the shim's two sockets: host side, array side."""
    _, writer = await asyncio.open_connection("127.0.0.1", address.port)
    writer.write(wire(login_request({"InitiatorName": HOST_NAME, "TargetName": TARGET})))
    await eventually(lambda: portal._connections, what="the host")
    (connection,) = portal._connections
    await eventually(lambda: connection._array_side.transport, what="the array")
    host_side, array_side = connection.host_side.transport, connection._array_side.transport
    return writer, congestion_control(host_side), congestion_control(array_side)


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("listen", ["127.0.0.1", "0.0.0.0"])
async def test_only_what_stays_inside_this_machine_is_sent_without_the_systems_choice(name: str, listen: str) -> None:
    async def hang_up_behind_the_shim(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)
        writer.close()

    array = await asyncio.start_server(hang_up_behind_the_shim, "127.0.0.1", 0)
    async with array, shim_of(Address(name, array.sockets[0].getsockname()[1]), listen) as (portal, address):
        writer, host_side, array_side = await logged_in(portal, address)
        writer.close()
        await eventually(lambda: not portal._connections, what="the end")
    assert host_side == (b"reno" if listen == "127.0.0.1" else of_a_new_socket())
    assert array_side == (b"reno" if name == "127.0.0.1" else of_a_new_socket())


async def test_it_is_chosen_before_the_connection_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Later is too late: BBR would have begun to pace."""
    loop, chosen = asyncio.get_running_loop(), list[bytes]()
    connect = loop.sock_connect

    async def watched(sock: socket.socket, address: tuple[str, int]) -> None:
        chosen.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0"))
        await connect(sock, address)

    monkeypatch.setattr(loop, "sock_connect", watched)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        (await connected_unpaced("127.0.0.1", listening.getsockname()[1])).close()
    assert chosen == [b"reno"]


async def test_a_refused_connection_leaves_no_socket_behind() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and not listening
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            with pytest.raises(ConnectionRefusedError):
                await connected_unpaced(*taken.getsockname())
        assert len(os.listdir("/proc/self/fd")) == before


async def test_the_other_kind_of_address() -> None:
    try:
        listening = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    with listening, await connected_unpaced("::1", listening.getsockname()[1]) as sock:
        assert sock.getpeername()[:2] == listening.getsockname()[:2]
