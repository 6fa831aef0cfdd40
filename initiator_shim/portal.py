"""The shim's portal: host connections, their array connections, and the arbitration between. [IO]"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from initiator_shim.arbitration import Decision, arbitrate, describe, give_back
from initiator_shim.config import Address
from initiator_shim.control_session import ControlSession
from initiator_shim.initiator_transport import plain_reason, split_address
from initiator_shim.kernel_passage import KernelPassage
from initiator_shim.loopback import send_unpaced
from initiator_shim.relay import ArbitrationNeeded, LoginStarted, Redirected
from initiator_shim.relayed_connection import RelayedConnection
from storage_model.errors import PairvolError, UserError
from storage_model.loopback import is_loopback
from storage_model.nexus import ITNexus

CONNECTIONS_MAX = 256
RECEIVE_BUFFER_BYTES = 256 << 10
REDIRECTS_MAX = 64
TARGETS_MAX = 64
_WITHDRAWALS_PENDING_MAX = 64
_WITHDRAW_RETRY_SECONDS = 1.0
_STOP_SECONDS = 6.0
_CONNECT_SECONDS = 5.0
_log = logging.getLogger(__name__)

DecisionListener = Callable[[Decision, ITNexus, int], None]
ControlFactory = Callable[[str], ControlSession]
_ClaimKey = tuple[str, ITNexus, int]


class LoopDeadline:
    """``arbitration.Deadline`` by the event loop's clock."""

    def __init__(self, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._at = self._loop.time() + seconds

    def remaining(self) -> float:
        return self._at - self._loop.time()


@dataclass(slots=True)
class _ClaimLock:
    """One arbitration at a time for a nexus and a unit: what an older one withdraws, a newer one must not have won."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class ShimPortal:
    """Listens for the host's initiator. ``controls`` has a started control session for each target of the array."""

    def __init__(
        self,
        array: Address,
        deadline: float,
        controls: dict[str, ControlSession],
        new_control: ControlFactory,
        on_decision: DecisionListener | None = None,
    ) -> None:
        self._array = array
        self._deadline = deadline
        self._controls = controls
        self._new_control = new_control
        self._on_decision = on_decision
        self.receive_buffer = memoryview(bytearray(RECEIVE_BUFFER_BYTES))  # one for all connections
        self._passage: KernelPassage | None = None
        self._server: asyncio.Server | None = None
        self._connections: set[RelayedConnection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._claims: dict[_ClaimKey, _ClaimLock] = {}
        self._withdrawals: set[_ClaimKey] = set()
        self._redirects: dict[str, Address] = {}

    async def listen(self, address: Address) -> Address:
        """Starts accepting; answers the address with the port that was taken. Raises UserError when it cannot."""
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(self._accept, address.host, address.port, start_serving=False)
            for sock in self._server.sockets:
                if is_loopback(sock.getsockname()[0]):
                    send_unpaced(sock)
            await self._server.start_serving()
        except OSError as error:
            raise UserError(f"--listen {address}: {plain_reason(error)}") from None
        host, port = self._server.sockets[0].getsockname()[:2]
        return Address(host, port)

    async def stop(self) -> None:
        """Closes every connection; what is being arbitrated is given back first, in bounded time."""
        if self._server is not None:
            self._server.close()
        self._withdrawals.clear()
        for connection in list(self._connections):
            connection.close("the shim stops")
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=_STOP_SECONDS)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        if self._passage is not None:
            self._passage.close()

    # ------------------------------------------------------------------------------------------- for the connections

    @property
    def passage(self) -> KernelPassage:
        """Made when a long data segment first comes, and one for all of them."""
        if self._passage is None:
            self._passage = KernelPassage()
        return self._passage

    def _accept(self) -> asyncio.BaseProtocol:
        connection = RelayedConnection(self)
        if len(self._connections) >= CONNECTIONS_MAX:
            _log.warning("more than %d connections: one more is refused", CONNECTIONS_MAX)
            connection.refuse = True
        self._connections.add(connection)
        return connection.host_side

    def connection_closed(self, connection: RelayedConnection) -> None:
        self._connections.discard(connection)

    def handle(self, connection: RelayedConnection, event: LoginStarted | Redirected | ArbitrationNeeded) -> None:
        match event:
            case LoginStarted():
                self._spawn(self._login_started(connection, event))
            case Redirected():
                self._redirected(event)
            case ArbitrationNeeded():
                self._spawn(self._arbitrate(connection, event))

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            _log.error("internal error", exc_info=error)

    async def _login_started(self, connection: RelayedConnection, event: LoginStarted) -> None:
        if event.target_name is not None and event.target_name not in self._controls:
            await self._control_for_new_target(event.target_name)
        address = self._redirects.pop(event.initiator_name, self._array)
        try:
            await connection.connect_array(address, _CONNECT_SECONDS)
        except (OSError, TimeoutError) as error:
            connection.close(f"the array at {address} cannot be reached: {error or 'no answer in time'}")

    async def _control_for_new_target(self, target_name: str) -> None:
        """A target that came after the shim's start. Whether it exists is for the array to say, at its first login."""
        if len(self._controls) >= TARGETS_MAX:
            return
        control = self._new_control(target_name)
        try:
            await control.start(must_connect=True)
        except PairvolError:
            return
        if target_name in self._controls:
            await control.stop()
        else:
            self._controls[target_name] = control

    def _redirected(self, event: Redirected) -> None:
        """The next connection of this initiator goes where the array sent it (RFC 7143 §11.13.5)."""
        try:
            host, port = split_address(event.address)
        except PairvolError as error:
            _log.warning("the array redirects to a place that cannot be read: %s", error)
            return
        if len(self._redirects) >= REDIRECTS_MAX:
            self._redirects.pop(next(iter(self._redirects)))
        self._redirects[event.initiator_name] = Address(host, port)

    # --------------------------------------------------------------------------------------------------- arbitration

    async def _arbitrate(self, connection: RelayedConnection, event: ArbitrationNeeded) -> None:
        """The deadline counts from the array's GOOD, so that waiting for our turn is within it."""
        deadline = LoopDeadline(self._deadline)
        relay = connection.relay
        target_name = relay.target_name or ""
        control = self._controls.get(target_name)
        if control is None:
            _log.error("no control session with %s: RESERVE of LUN %d refused", target_name, event.lun)
            connection.close("a RESERVE could not be arbitrated")  # the array drops the nexus and its reservation
            return
        nexus = replace(event.nexus, target_port=control.target_port)
        key = (target_name, nexus, event.lun)
        async with self._turn(key):
            self._withdrawals.discard(key)  # this arbitration withdraws for itself
            decision = await arbitrate(control, nexus, event.lun, deadline, lambda: relay.is_wanted(event.itt))
            connection.decided(event.itt, decision)
            if not decision.given_back:
                control.drop()
        level = logging.DEBUG if not decision.arbitrated else logging.INFO if decision.won else logging.WARNING
        _log.log(level, "%s", describe(decision, nexus, event.lun))
        if self._on_decision is not None and decision.arbitrated:
            self._on_decision(decision, nexus, event.lun)
        if not decision.given_back and len(self._withdrawals) < _WITHDRAWALS_PENDING_MAX:
            self._withdrawals.add(key)
            self._spawn(self._give_back_later(control, key, decision))

    async def _give_back_later(self, control: ControlSession, key: _ClaimKey, lost: Decision) -> None:
        """The host was told RESERVATION CONFLICT; the array must hear it too, when it can be reached again."""
        _, nexus, lun = key
        while key in self._withdrawals:
            async with self._turn(key):
                if key not in self._withdrawals:
                    return
                decision = await give_back(control, nexus, lun, lost)
                if decision.given_back:
                    self._withdrawals.discard(key)
                    _log.info("the reservation of LUN %d by %s was given back", lun, nexus.initiator_port_name)
                    return
                control.drop()
            await asyncio.sleep(_WITHDRAW_RETRY_SECONDS)

    @asynccontextmanager
    async def _turn(self, key: _ClaimKey) -> AsyncIterator[None]:
        claim = self._claims.setdefault(key, _ClaimLock())
        claim.users += 1
        try:
            async with claim.lock:
                yield
        finally:
            claim.users -= 1
            if not claim.users:
                del self._claims[key]
