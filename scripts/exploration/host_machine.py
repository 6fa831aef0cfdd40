"""One host's shim: the real portal with its arbitration, between a host and an array that are not there.

Its inputs are what the array answers, and what does not come: an answer in time, a session, patience of the host.
"""

import asyncio
from asyncio import Future
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

from initiator_shim.arbitration import Decision
from initiator_shim.config import Address
from initiator_shim.control_session import ControlSession
from initiator_shim.initiator_task import ScsiOutcome
from initiator_shim.portal import LoopDeadline, ShimPortal
from initiator_shim.relay import ArbitrationNeeded
from initiator_shim.relayed_connection import RelayedConnection
from initiator_shim.session_errors import CommandTimeout, SessionLost
from scripts.exploration.array_machine import LUN, Command, nexus_of
from scripts.exploration.fingerprint import Fingerprint
from scripts.exploration.stepped_loop import SteppedLoop
from storage_model.spec.pair_cdb import PAIR_CONTROL_IN, PairControlOut
from storage_model.volume import Buffer

_TARGET = "iqn.2026-11.org.pairvol:array"
DEADLINE_SECONDS = 3.0


class Told(NamedTuple):
    """What the host hears of its RESERVE."""

    won: bool
    epoch: int
    given_back: bool
    reason: str


class Dropped(NamedTuple):
    """The shim hangs up its own session and logs in again."""


HostOutput = Command | Told | Dropped


class HostView(NamedTuple):
    """What the explorer has to know of a shim at rest."""

    asking: str
    """The command that it waits for, or nothing."""
    timers: int
    arbitrating: bool
    errors: tuple[str, ...]


class HostMachine:
    """A shim that has just started, with no session in arbitration."""

    def __init__(self, host: int, site: int) -> None:
        self.loop = SteppedLoop.make()
        self.outputs: list[HostOutput] = []
        self.asked: dict[int, tuple[Future[ScsiOutcome], float, str]] = {}
        self.held: dict[int, bool] = {}
        """RESERVEs in arbitration by ITT; True while the host wants the answer."""
        self._nexus = nexus_of(host, site)
        self._connection = SimpleNamespace(
            relay=SimpleNamespace(target_name=_TARGET, is_wanted=lambda itt: self.held[itt]),
            decided=self._decided,
            close=lambda reason: self.loop.errors.append(reason),
        )
        asyncio.events._set_running_loop(self.loop)
        try:
            control = cast(ControlSession, _Control(self))
            self._portal = ShimPortal(Address("", 0), DEADLINE_SECONDS, {_TARGET: control}, lambda name: control)
        finally:
            asyncio.events._set_running_loop(None)

    def apply(self, step: tuple[Any, ...]) -> tuple[HostOutput, ...]:
        """One input, until the shim is at rest; what it said meanwhile."""
        name, *arguments = step
        asyncio.events._set_running_loop(self.loop)
        try:
            getattr(self, name)(*arguments)
        finally:
            asyncio.events._set_running_loop(None)
        self.loop.run_until_quiet()
        outputs, self.outputs = self.outputs, []
        return tuple(outputs)

    # ----------------------------------------------------------------------------------------------------------- inputs

    def granted(self) -> None:
        """The array has answered the host's RESERVE with GOOD (112); the answer is held."""
        itt = next(itt for itt in range(1, 256) if itt not in self.held)
        self.held[itt] = True
        self._portal.handle(cast(RelayedConnection, self._connection), ArbitrationNeeded(self._nexus, LUN, itt))

    def abandoned(self) -> None:
        """The host has aborted its RESERVE, or is gone."""
        self.held = dict.fromkeys(self.held, False)

    def answer(self, data: bytes) -> None:
        """The array's outcome of a command."""
        tag, status, sense_length = data[:3]
        future, _, _ = self.asked.pop(tag)
        if not future.done():
            future.set_result(ScsiOutcome(status, data[3 : 3 + sense_length], data[3 + sense_length :]))

    def timeout(self) -> None:
        """No answer in time."""
        future, seconds, _ = next(entry for entry in self.asked.values() if not entry[0].done())
        self.loop.now += seconds
        future.set_exception(CommandTimeout("no answer in time"))

    def timer(self) -> None:
        """The pause before the next try is over."""
        self.loop.fire_timer()

    def lost(self) -> None:
        """The array is gone, and with it the session."""
        asked, self.asked = self.asked, {}
        for future, _, _ in asked.values():
            if not future.done():
                future.set_exception(SessionLost("the connection was lost"))

    # ----------------------------------------------------------------------------------------------------- what it does

    def _decided(self, itt: int, decision: Decision) -> None:
        if not decision.arbitrated:
            self.loop.errors.append(f"not arbitrated: {decision.reason}")
        if self.held.pop(itt):
            self.outputs.append(Told(decision.won, decision.epoch, decision.given_back, decision.reason))
        elif decision.won:
            self.loop.errors.append("a RESERVE that nobody wants was won")

    def digest(self) -> bytes:
        """See :class:`Fingerprint`."""
        left = {"LoopDeadline": lambda deadline: max(0.0, cast(LoopDeadline, deadline).remaining())}
        return Fingerprint(left).digest(
            (
                self._portal,
                [(tag, entry[0], entry[2]) for tag, entry in self.asked.items()],
                self.held,
                [timer._args for timer in self.loop.timers],
                self.loop.tasks,
                tuple(self.loop.errors),
            )
        )

    def view(self) -> HostView:
        asking = next((what for future, _, what in self.asked.values() if not future.done()), "")
        return HostView(asking, len(self.loop.timers), bool(self.loop.tasks), tuple(self.loop.errors))


class _Control:
    """The shim's own session, as ``ControlSession`` offers it."""

    target_port = 1

    def __init__(self, machine: HostMachine) -> None:
        self._machine = machine

    async def execute(
        self, lun: int, cdb: bytes, data_out: Buffer = b"", data_in_length: int = 0, timeout: float = 30.0
    ) -> ScsiOutcome:
        machine = self._machine
        tag = next(tag for tag in range(1, 256) if tag not in machine.asked)
        what = "REPORT PAIR STATUS"
        if cdb[0] != PAIR_CONTROL_IN:
            what = PairControlOut.decode(cdb).service_action.name.replace("_", " ")
        future: Future[ScsiOutcome] = machine.loop.create_future()
        machine.asked[tag] = future, timeout, what
        machine.outputs.append(Command(what, tag, bytes(cdb), bytes(data_out)))
        return await future

    def drop(self) -> None:
        self._machine.lost()
        self._machine.outputs.append(Dropped())
