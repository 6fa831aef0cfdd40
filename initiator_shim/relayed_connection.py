"""One host connection with its array connection: the sockets around a ``relay.Relay``. [IO]

Backpressure goes both ways: the side that reads is paused while the side that writes is full.

All connections receive into the same memory, and what goes on is written from there at once: no byte is copied between
two sockets that keep up, and the memory stays in the processor's cache. Only what a socket does not take is copied,
into its transport's buffer. Of a long data segment only the beginning is received: the rest stays in the kernel.
"""

import asyncio
import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

from initiator_shim.arbitration import Decision
from initiator_shim.config import Address
from initiator_shim.kernel_passage import KernelPassage
from initiator_shim.loopback import connected_unpaced
from initiator_shim.relay import Event, LoginStarted, Relay
from storage_model.errors import RemoteProtocolError
from storage_model.loopback import is_loopback
from storage_model.volume import Buffer

_LOGIN_SECONDS = 30.0
_FLUSH_SECONDS = 5.0  # for what was written before a close
_NAME_LENGTH = 223  # RFC 7143 §4.2.7.1
_LONG_BYTES = 32 << 10  # from here on a system call more costs less than to receive and to write
_LONG_RECEIVE_BYTES = 64 << 10
_HEADER_BYTES = 512  # a header with its digest, or some: nothing is known of what comes behind
_log = logging.getLogger(__name__)


class ConnectionOwner(Protocol):
    """The portal, as a connection sees it. ``receive_buffer`` is for one receive, and free again behind it."""

    receive_buffer: memoryview

    @property
    def passage(self) -> KernelPassage: ...

    def handle(self, connection: "RelayedConnection", event: Event) -> None: ...

    def connection_closed(self, connection: "RelayedConnection") -> None: ...


class _Side(asyncio.BufferedProtocol):
    """One socket. ``full`` while its write buffer is above the high-water mark."""

    def __init__(self, owner: "RelayedConnection", name: str, buffer: memoryview) -> None:
        self.owner = owner
        self.name = name
        self.transport: asyncio.Transport | None = None
        self.full = False
        self.descriptor = -1
        self._buffer = buffer
        self._long = False  # what comes is: then no more is received than up to the next header

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.descriptor = transport.get_extra_info("socket").fileno()
        transport.set_write_buffer_limits(0)  # what is left over is a copy: no more of it than there is
        self.owner.side_connected(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Long data segments are on their way before this is received, which is then a header, or nothing yet."""
        if not self._long:
            return self._buffer
        unseen = self.owner.pass_unseen(self)
        return self._buffer[: min(unseen, _LONG_BYTES) + _HEADER_BYTES]

    def buffer_updated(self, nbytes: int) -> None:
        self.owner.received(self, self._buffer[:nbytes])
        if self._long or nbytes >= _LONG_RECEIVE_BYTES:
            # After much at once, the next header is looked for; it tells whether long segments come.
            unseen = self.owner.relay.unseen(from_host=self is self.owner.host_side)
            self._long = unseen >= _LONG_BYTES or nbytes >= _LONG_RECEIVE_BYTES

    def write(self, outgoing: Sequence[Buffer]) -> None:
        """The memory of ``outgoing`` may be used again when this returns.

        That is why the first attempt is our own: a transport may refer to what it is given until all of it is sent.
        """
        transport = self.transport
        assert transport is not None
        if not outgoing or transport.is_closing():
            return
        run = outgoing[0] if len(outgoing) == 1 else b"".join(outgoing)
        sent = 0
        if not transport.get_write_buffer_size():
            with suppress(OSError):  # it is full, or lost: the transport finds out, and tells
                sent = os.write(self.descriptor, run)
        if sent < len(run):
            transport.write(bytes(run[sent:]))

    def pause_writing(self) -> None:
        self.full = True
        self.owner.steer()

    def resume_writing(self) -> None:
        self.full = False
        self.owner.steer()

    def connection_lost(self, exc: Exception | None) -> None:
        self.owner.lost(self.name, exc)

    def read(self, wanted: bool) -> None:
        if self.transport is None or self.transport.is_closing():
            return
        if wanted:
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()

    def close(self) -> None:
        """Lets out what was written, but not for ever."""
        transport = self.transport
        if transport is not None and not transport.is_closing():
            transport.close()
            asyncio.get_running_loop().call_later(_FLUSH_SECONDS, transport.abort)


class RelayedConnection:
    """Made for each connection that the portal accepts; ``refuse`` makes it close at once."""

    def __init__(self, owner: ConnectionOwner) -> None:
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self.host_side = _Side(self, "host", owner.receive_buffer)
        self._array_side = _Side(self, "array", owner.receive_buffer)
        self._host_address = "an unknown address"
        self.relay = Relay("")
        self.refuse = False
        self._dialling = False
        self._login_timer: asyncio.TimerHandle | None = None

    def side_connected(self, side: _Side) -> None:
        assert side.transport is not None
        if side is self.host_side:
            address = Address(*side.transport.get_extra_info("sockname")[:2])
            if peer := side.transport.get_extra_info("peername"):  # not of a host that is gone again already
                self._host_address = str(Address(*peer[:2]))
            self.relay = Relay(str(address))
            if self.refuse:
                self.close("too many connections")
                return
            self._login_timer = self._loop.call_later(_LOGIN_SECONDS, self._login_too_slow)
            return
        if self.relay.closed:  # the host left while we were connecting
            side.transport.abort()
            return
        self._dialling = False
        self.relay.array_connected(str(Address(*side.transport.get_extra_info("peername")[:2])))
        self._flush()
        self.steer()

    async def connect_array(self, address: Address, timeout: float) -> None:
        """Raises OSError or TimeoutError."""
        if self.relay.closed:
            return
        async with asyncio.timeout(timeout):
            if is_loopback(address.host):
                connected = await connected_unpaced(address.host, address.port)
                await self._loop.create_connection(lambda: self._array_side, sock=connected)
            else:
                await self._loop.create_connection(lambda: self._array_side, address.host, address.port)

    def received(self, side: _Side, data: Buffer) -> None:
        relay = self.relay
        if relay.closed:
            return
        try:
            if side is self.host_side:
                events = relay.receive_from_host(data)
            else:
                events = relay.receive_from_array(data)
        except RemoteProtocolError as error:
            self._broken(side.name, error)
            return
        if events or self._login_timer is not None or relay.holds:
            self._after(events)
        elif side is self.host_side:
            self._array_side.write(relay.data_to_array())
        else:
            self.host_side.write(relay.data_to_host())

    def pass_unseen(self, side: _Side) -> int:
        """What nobody here has to see goes on inside the kernel; answers how much of it is still to come."""
        from_host = side is self.host_side
        other = self._array_side if from_host else self.host_side
        relay, transport = self.relay, other.transport
        unseen = relay.unseen(from_host=from_host)
        while unseen >= _LONG_BYTES and transport is not None and not transport.is_closing():
            if transport.get_write_buffer_size():
                break
            try:
                passage = self._owner.passage
            except OSError:  # no descriptor is left for it: then all is received
                break
            moved = passage.move(side.descriptor, other.descriptor, unseen, transport.write)
            if not moved:
                break
            relay.passed_unseen(moved, from_host=from_host)
            unseen -= moved
        return unseen

    def decided(self, itt: int, decision: Decision) -> None:
        """Lets the held response out."""
        if self.relay.closed:
            return
        try:
            if decision.won and not decision.arbitrated:
                events = self.relay.pass_on(itt)
            else:
                events = self.relay.arbitration_decided(itt, decision.won)
        except RemoteProtocolError as error:  # in what came behind it
            self._broken(self._array_side.name, error)
            return
        self._after(events)

    def _broken(self, name: str, error: RemoteProtocolError) -> None:
        self._flush()
        self.close(f"the {name} broke the protocol: {error}")

    def steer(self) -> None:
        """Reads from each side only what the other can take."""
        self.host_side.read(not self._dialling and not self._array_side.full)
        self._array_side.read(not self.host_side.full and self.relay.wants_array_data)

    @property
    def _host(self) -> str:
        """The host's name, once it has said it, and address."""
        # Nobody has checked the name yet when a login fails: it must not write lines of its own into the log.
        name = "".join(char if char.isprintable() else "?" for char in self.relay.initiator_name[:_NAME_LENGTH])
        return f"{name or 'a host'} at {self._host_address}"

    def lost(self, side: str, error: Exception | None) -> None:
        """``side`` has closed its connection, in good order or not; behind a logout it may do so as it likes."""
        if self.relay.logged_out:
            self._close("logged out")
            return
        reason = str(error) if error else "before the login had ended" if self.relay.in_login else "without a logout"
        self._close(f"connection closed by the {side}: {reason}")

    def close(self, reason: str) -> None:
        """The shim ends it."""
        self._close(f"connection closed by the shim: {reason}")

    def _close(self, words: str) -> None:
        """Either side is gone or must go: both go. The array then drops the nexus, and what it reserved."""
        if self.relay.closed:
            return
        _log.info("%s: %s", self._host, words)
        self.relay.connection_lost()
        if self._login_timer is not None:
            self._login_timer.cancel()
        self.host_side.close()
        self._array_side.close()
        self._owner.connection_closed(self)

    def _after(self, events: list[Event]) -> None:
        self._dialling = self._dialling or any(isinstance(event, LoginStarted) for event in events)
        self._flush()
        self.steer()
        if self._login_timer is not None and not self.relay.in_login:
            self._login_timer.cancel()
            self._login_timer = None
            where = "for discovery" if self.relay.discovery else f"to {self.relay.target_name}"
            _log.info("%s: logged in %s", self._host, where)
        for event in events:
            self._owner.handle(self, event)

    def _flush(self) -> None:
        """Towards the array only once it is connected: until then the relay keeps the first Login Request."""
        self.host_side.write(self.relay.data_to_host())
        if self._array_side.transport is not None:
            self._array_side.write(self.relay.data_to_array())

    def _login_too_slow(self) -> None:
        self.close("no login in time")
