"""Machines, and TCP connections between them as transports in memory: delays, partitions, resets, half-open ends.

Inside one connection nothing is reordered or lost, as TCP has it: what a partition holds up arrives when it heals. Two
connections may overtake each other.
"""

import asyncio
import errno
import os
from collections import deque
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any

from scripts.simulation.event_loop import PROCESS, Process, VirtualLoop

if TYPE_CHECKING:
    from scripts.simulation.journal import Journal

_SYN_SECONDS = (1.0, 2.0, 4.0, 8.0)
_SEGMENT_SPLIT = 0.03
_FIN, _RESET = b"FIN", b"RST"  # told from data by identity


class Machine:
    """What loses its power as a whole. ``sites`` says which machines are near each other."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.up = True
        self.processes: list[Process] = []


class Path:
    """One direction between two machines."""

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.blocked = False
        self.refused = False
        self.stalled: dict[_Pipe, None] = {}


class _Socket:
    """What is left of a file descriptor: system calls on it fail, so that everything goes through the transport."""

    def __init__(self, name: tuple[str, int]) -> None:
        self._name = name

    def fileno(self) -> int:
        return -1

    def getsockname(self) -> tuple[str, int]:
        return self._name


class Listener:
    """Stands for ``asyncio.Server``."""

    def __init__(self, network: "Network", process: Process, factory: Callable[[], Any], name: tuple[str, int]) -> None:
        self.process = process
        self.factory = factory
        self.name = name
        self.sockets = [_Socket(name)]
        self._network = network

    async def start_serving(self) -> None:
        """It has been from the start: nothing comes in between."""

    def close(self) -> None:
        self._network.listeners.pop(self.name, None)


class _Pipe:
    """One direction of a connection."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.queue: deque[bytes] = deque()
        self.arrived = 0
        self.last_due = 0.0


class Endpoint(asyncio.Transport):
    """One end of a connection. ``gone``: its process was killed, and nothing at that end knows of it any more."""

    def __init__(self, network: "Network", process: Process, own: tuple[str, int], peer: tuple[str, int]) -> None:
        super().__init__({"sockname": own, "peername": peer, "socket": _Socket(own)})
        self.network = network
        self.process = process
        self.protocol: Any = None
        self.outgoing: _Pipe
        self.peer: Endpoint
        self.number = 0
        self.closed = False
        self.gone = False
        self.unheard = False
        self._reading = True

    # --------------------------------------------------------------------------------------------------- the transport

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self.closed and data:
            self.network.send(self, bytes(data))

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def is_closing(self) -> bool:
        return self.closed

    def is_reading(self) -> bool:
        return self._reading and not self.closed

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        if not self._reading:
            self._reading = True
            self.network.loop.call_soon(self.drain, context=self.process.context)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing is ever held back for want of room."""

    def get_write_buffer_size(self) -> int:
        return 0

    def get_protocol(self) -> Any:
        return self.protocol

    def close(self) -> None:
        if not self.closed:
            self.network.send(self, _FIN)
            self._lose(None)

    def abort(self) -> None:
        if not self.closed:
            self.network.reset(self.peer, self.outgoing)
            self._lose(None)

    def _lose(self, error: Exception | None) -> None:
        self.closed = True
        self.network.endpoints.pop(self, None)
        self.network.loop.call_soon(self.protocol.connection_lost, error, context=self.process.context)

    # ------------------------------------------------------------------------------------------------------ the network

    def accept(self, factory: Callable[[], Any]) -> None:
        """In the process of the listener."""
        self.protocol = factory()
        self.protocol.connection_made(self)

    def arrive(self) -> None:
        self.peer.outgoing.arrived += 1
        self.drain()

    def drain(self) -> None:
        """Hand over what has arrived."""
        pipe = self.peer.outgoing
        while pipe.arrived and pipe.queue:
            if pipe.path.blocked:
                pipe.path.stalled[pipe] = None
                self.network.stalled[pipe] = self
                return
            if not self._reading and not self.closed:
                return
            pipe.arrived -= 1
            self._take(pipe.queue.popleft())

    def _take(self, data: bytes) -> None:
        if self.closed:
            if data is not _FIN and data is not _RESET:
                self.network.reset(self.peer, self.outgoing)  # nobody is here who would read it
            return
        if data is _RESET:
            self._lose(ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)))
        elif data is _FIN:
            if not self.protocol.eof_received():
                self.close()
        else:
            self.network.journal.note("net", self.number, len(data))
            self._receive(data)

    def _receive(self, data: bytes) -> None:
        protocol = self.protocol
        if not isinstance(protocol, asyncio.BufferedProtocol):
            protocol.data_received(data)
            return
        rest = memoryview(data)
        while rest and not self.closed:
            buffer = memoryview(protocol.get_buffer(-1))
            count = min(len(buffer), len(rest))
            buffer[:count] = rest[:count]
            rest = rest[count:]
            protocol.buffer_updated(count)


class Network:
    """All machines, paths and connections of one run."""

    def __init__(self, random: Random, journal: "Journal") -> None:
        self.random = random
        self.journal = journal
        self.loop: VirtualLoop
        self.machines: dict[str, Machine] = {}
        self.paths: dict[tuple[str, str], Path] = {}
        self.listeners: dict[tuple[str, int], Listener] = {}
        self.endpoints: dict[Endpoint, None] = {}
        self.stalled: dict[_Pipe, Endpoint] = {}
        self._connections = 0

    def machine(self, name: str) -> Machine:
        machine = self.machines[name] = Machine(name)
        return machine

    def path(self, source: str, destination: str) -> Path:
        path = self.paths.get((source, destination))
        if path is None:
            path = self.paths[source, destination] = Path(0.00002 if source == destination else 0.0003)
        return path

    def listen(self, factory: Callable[[], Any], host: str, port: int) -> Listener:
        process = PROCESS.get()
        assert process is not None
        if (host, port) in self.listeners:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        listener = self.listeners[host, port] = Listener(self, process, factory, (host, port))
        return listener

    async def connect(self, factory: Callable[[], Any], host: str, port: int) -> tuple[Endpoint, Any]:
        process = PROCESS.get()
        assert process is not None
        there, back = self.path(process.machine.name, host), self.path(host, process.machine.name)
        for again in (*_SYN_SECONDS, None):
            await asyncio.sleep(self._delay(there) + self._delay(back))
            if self.machines[host].up and not there.blocked and not back.blocked:
                break
            if again is None:
                raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
            await asyncio.sleep(again)
        listener = self.listeners.get((host, port))
        if there.refused or listener is None or not listener.process.alive:
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        return self._connected(process, listener, factory, there, back)

    def _connected(
        self, process: Process, listener: Listener, factory: Callable[[], Any], there: Path, back: Path
    ) -> tuple[Endpoint, Any]:
        self._connections += 1
        own = (process.machine.name, 32768 + self._connections)
        near = Endpoint(self, process, own, listener.name)
        far = Endpoint(self, listener.process, listener.name, own)
        near.peer, far.peer = far, near
        near.number, far.number = 2 * self._connections, 2 * self._connections + 1
        near.outgoing, far.outgoing = _Pipe(there), _Pipe(back)
        self.endpoints[near] = self.endpoints[far] = None
        self.journal.note("connect", near.number, *own, *listener.name)
        self.loop.call_soon(far.accept, listener.factory, context=listener.process.context)
        near.protocol = factory()
        near.protocol.connection_made(near)
        return near, near.protocol

    def _delay(self, path: Path) -> float:
        return path.delay * (0.5 + self.random.random())

    def send(self, sender: Endpoint, data: bytes) -> None:
        """In order behind what is under way; sometimes in two pieces."""
        receiver, pipe = sender.peer, sender.outgoing
        if receiver.gone:
            receiver.unheard = True
            if receiver.process.machine.up:
                self.reset(sender, receiver.outgoing)
            return
        pieces = [data]
        if data is not _FIN and len(data) > 1 and self.random.random() < _SEGMENT_SPLIT:
            at = self.random.randrange(1, len(data))
            pieces = [data[:at], data[at:]]
        for piece in pieces:
            pipe.last_due = max(pipe.last_due, self.loop.time() + self._delay(pipe.path) + len(piece) * 1e-9)
            pipe.queue.append(piece)
            self.loop.call_at(pipe.last_due, receiver.arrive, context=receiver.process.context)

    def reset(self, receiver: Endpoint, pipe: _Pipe) -> None:
        """What is under way is lost, and the receiver is told that the connection is no more."""
        pipe.queue.clear()
        pipe.arrived = 0
        if not receiver.gone:
            pipe.queue.append(_RESET)
            due = self.loop.time() + self._delay(pipe.path)
            self.loop.call_at(due, receiver.arrive, context=receiver.process.context)

    # ----------------------------------------------------------------------------------------------------------- faults

    def block(self, source: str, destination: str) -> None:
        self.path(source, destination).blocked = True

    def refuse(self, one: str, other: str, *, refused: bool) -> None:
        """No new connection between two machines."""
        self.path(one, other).refused = self.path(other, one).refused = refused

    def unblock(self, source: str, destination: str) -> None:
        """What waited arrives now."""
        path = self.path(source, destination)
        path.blocked = False
        stalled, path.stalled = path.stalled, {}
        for pipe in stalled:
            receiver = self.stalled.pop(pipe)
            self.loop.call_soon(receiver.drain, context=receiver.process.context)

    def reset_between(self, one: str, other: str) -> None:
        """Every connection between two machines is reset at both ends."""
        for endpoint in list(self.endpoints):
            name, peer = endpoint.process.machine.name, endpoint.peer.process.machine.name
            if {name, peer} == {one, other} and not endpoint.closed:
                self.reset(endpoint, endpoint.peer.outgoing)

    def kill(self, process: Process, *, power: bool) -> None:
        """The process is gone. Its peers are told by the kernel; not if the machine lost its power."""
        process.kill()
        for name in [name for name, listener in self.listeners.items() if listener.process is process]:
            del self.listeners[name]
        for endpoint in [endpoint for endpoint in self.endpoints if endpoint.process is process]:
            endpoint.gone = endpoint.closed = True
            del self.endpoints[endpoint]
            pipe = endpoint.outgoing
            unread = endpoint.peer.outgoing
            if power:
                keep = max(pipe.arrived, self.random.randrange(len(pipe.queue) + 1))
                while len(pipe.queue) > keep:
                    pipe.queue.pop()
                endpoint.unheard = bool(unread.queue)
            elif unread.queue or self.random.random() < 0.5:
                self.reset(endpoint.peer, pipe)
            else:
                self.send(endpoint, _FIN)

    def boot(self, machine: Machine) -> None:
        """The machine has power again, and answers for connections that it has never heard of."""
        machine.up = True
        for endpoint in list(self.endpoints):
            if endpoint.peer.gone and endpoint.peer.unheard and endpoint.peer.process.machine is machine:
                self.reset(endpoint, endpoint.peer.outgoing)
