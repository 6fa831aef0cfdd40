"""The whole system: two arrays, the wire between them, the hosts with their shims, and what may happen next.

The link is TCP: frames of a connection arrive in order or not at all, none twice; either end
may notice its loss first, while what had been sent before still reaches the other.
"""

from collections.abc import Iterator
from typing import Any

from scripts.exploration.array_machine import (
    LINK,
    ArrayMachine,
    Command,
    DiskImage,
    Output,
    View,
    nexus_of,
)
from scripts.exploration.array_ports import BLOCK
from scripts.exploration.automaton import Automaton
from scripts.exploration.host_machine import Dropped, HostMachine, HostOutput, HostView, Told
from scripts.exploration.scope import PLACES, Scope
from scripts.exploration.state import Host, State
from storage_model.pair_state import PairRole
from storage_model.spec.pair_cdb import PairControlOut, PairOption, PairOut
from storage_model.spec.scsi_task import ScsiStatus

HELLO, FIN = b"HELLO", b"FIN"
OPERATOR = 99
"""The session of the operator's pairctl, at either array."""

EARLY_TURNS = 4
"""An input may come after none, one, two or three turns of an array's loop."""
_INPUTS = frozenset({"deliver", "saved", "command", "reserve", "release", "write", "reset", "impatient", "operate"})

Event = tuple[Any, ...]
_RESERVE = Command("RESERVE", 0, bytes([0x16, 0, 0, 0, 0, 0]))
_RELEASE = Command("RELEASE", 0, bytes([0x17, 0, 0, 0, 0, 0]))
_OPERATIONS = {
    "split": ("splits", Command("SPLIT", 0, PairControlOut(PairOut.SPLIT).encode())),
    "resync": ("resyncs", Command("RESYNC", 0, PairControlOut(PairOut.RESYNC).encode())),
    "swap": ("swaps", Command("SWAP RESYNC", 0, PairControlOut(PairOut.SWAP_RESYNC).encode())),
    "takeover": ("takeovers", Command("TAKEOVER", 0, PairControlOut(PairOut.TAKEOVER).encode())),
    "opening": ("openings", Command("TAKEOVER", 0, PairControlOut(PairOut.TAKEOVER).encode())),
    "recover": (
        "recovers",
        Command("RESYNC, P-VOL good", 0, PairControlOut(PairOut.RESYNC, PairOption.GOOD_P_VOL).encode()),
    ),
}


_ROLES = {"takeover": PairRole.S_VOL, "opening": PairRole.P_VOL}
"""Where alone an operation is of interest."""


class Broken(Exception):
    """An invariant does not hold."""


class World:
    """Steps from state to state; ``says`` collects what was said in the last one, for a person."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.arrays = tuple(self._array(site) for site in (0, 1))
        self.shims = tuple(self._shim(host) for host in scope.hosts)
        self.says: list[tuple[str, Any]] = []
        self._turns: int | None = None

    def _array(self, site: int) -> "Automaton[DiskImage, Output, View]":
        hosts = (*(host for host in self.scope.hosts if self.scope.sites[host] == site), OPERATOR)
        fence = self.scope.fence
        return Automaton(lambda image: ArrayMachine(site, image, hosts, fence))

    def _shim(self, host: int) -> "Automaton[int, HostOutput, HostView]":
        return Automaton(lambda site: HostMachine(host, site))

    def first(self) -> State:
        """Both arrays are started and connected, and nothing is under way."""
        arrays = tuple(self.arrays[site].start(self.scope.image(site)) for site in (0, 1))
        hosts = tuple(Host(self.shims[host].start(self.scope.sites[host])) for host in self.scope.hosts)
        state = State((arrays[0], arrays[1]), ((), ()), (False, False), hosts, self.scope.budget.counts())
        state = self.step(state, ("connect",))
        while any(state.frames) or any(self.view(state, site).saving for site in (0, 1)):
            state = self.step(state, next(iter(self._of_arrays(state))))
        return state

    def close(self) -> None:
        """No machine is needed any more."""
        for array in self.arrays:
            array.close()
        for shim in self.shims:
            shim.close()

    def view(self, state: State, site: int) -> View:
        return self.arrays[site].views[state.arrays[site]]

    def shim_view(self, state: State, host: int) -> HostView:
        return self.shims[host].views[state.hosts[host].shim]

    # --------------------------------------------------------------------------------------------- what may happen next

    def events(self, state: State) -> Iterator[Event]:
        """All of them, in an order that does not change."""
        early = state.budget[PLACES["early"]]
        for event in self._all_events(state):
            yield event
            if early and event[0] in _INPUTS:
                yield from (("early", turns, event) for turns in range(EARLY_TURNS))

    def _all_events(self, state: State) -> Iterator[Event]:
        yield from self._of_arrays(state)
        for host in self.scope.hosts:
            yield from self._of_host(state, host)
        left = state.budget
        for site in (0, 1):
            view = self.view(state, site)
            if left[PLACES["crashes"]]:
                for durable in (False, True) if view.saving is not None else (False,):
                    yield from (("crash", site, durable, kept) for kept in self._kept(state, site))
            if left[PLACES["impatient"]]:
                yield from (("impatient", site, number) for number in range(view.waiting))
            for name, (kind, _) in _OPERATIONS.items():
                if not left[PLACES[kind]] or OPERATOR in view.busy or view.starting:
                    continue
                if view.role is _ROLES.get(name, view.role):
                    yield ("operate", name, site)

    def _of_arrays(self, state: State) -> Iterator[Event]:
        views = self.view(state, 0), self.view(state, 1)
        for site in (0, 1):
            if state.frames[site]:
                yield ("deliver", site)
            if not views[site].resting:
                yield ("rest", site)
            if views[site].saving is not None:
                yield ("saved", site)
        if not any(state.ends):
            if not any(view.losing or view.starting for view in views):
                yield ("connect",)
        elif state.budget[PLACES["cuts"]] and all(state.ends):
            for site in (0, 1):
                yield from (("cut", site, kept) for kept in self._kept(state, site))

    def _kept(self, state: State, site: int) -> range:
        """How many of the frames under way from here still arrive when this end is lost."""
        return range(len(state.frames[1 - site]) + 1) if all(state.ends) else range(1)

    def _of_host(self, state: State, number: int) -> Iterator[Event]:
        host, view, left = state.hosts[number], self.shim_view(state, number), state.budget
        starting = self.view(state, self.scope.sites[number]).starting
        if host.commands and not starting:
            yield ("command", number)
        if host.answers:
            yield ("answer", number)
        if view.timers:
            yield ("timer", number)
        if view.asking and left[PLACES["late"]]:
            yield ("late", number)
        if left[PLACES["deaths"]] and (view.arbitrating or host.does) and "gone" not in host.commands:
            yield ("die", number)
        if host.does == "RESERVE" and view.arbitrating and left[PLACES["abandoned"]]:
            yield ("abandon", number)
        if not host.does and "gone" not in host.commands and not starting:
            if left[PLACES["reserves"]] and host.reserves < self.scope.own_reserves:
                yield ("reserve", number)
            if left[PLACES["releases"]] and host.heard == "GOOD":
                yield ("release", number)
            if left[PLACES["writes"]]:
                yield ("write", number)
            if left[PLACES["resets"]]:
                yield ("reset", number)

    # --------------------------------------------------------------------------------------------------------- one step

    def step(self, state: State, event: Event) -> State:
        """The state after ``event``. Raises Broken."""
        self.says = []
        name, *arguments = event
        after: State = getattr(self, "_" + name)(state, *arguments)
        return after

    def _early(self, state: State, turns: int, event: Event) -> State:
        self._turns = turns
        try:
            return self.step(self._spend(state, "early"), event)
        finally:
            self._turns = None

    def _rest(self, state: State, site: int) -> State:
        return self._array_step(state, site, ("rest",))

    def _spend(self, state: State, kind: str) -> State:
        place = PLACES[kind]
        budget = state.budget
        return state._replace(budget=(*budget[:place], budget[place] - 1, *budget[place + 1 :]))

    def _connect(self, state: State) -> State:
        return state._replace(frames=((HELLO,), (HELLO,)), ends=(True, True))

    def _deliver(self, state: State, site: int) -> State:
        message = state.frames[site][0]
        state = state.with_frames(site, state.frames[site][1:])
        if message == HELLO:
            return self._array_step(state, site, ("link_opened",))
        if message != FIN:
            return self._array_step(state, site, ("frame", message))
        return self._lose_end(state, site)

    def _lose_end(self, state: State, site: int) -> State:
        state = state.with_frames(site, ())._replace(ends=_put(state.ends, site, False))
        return self._array_step(state, site, ("link_lost",)) if self.view(state, site).link_up else state

    def _cut(self, state: State, site: int, kept: int) -> State:
        state = self._spend(state, "cuts")
        return self._lose_end(self._hang_up(state, site, kept), site)

    def _hang_up(self, state: State, site: int, kept: int) -> State:
        """This end is lost; the other one notices after what still arrives."""
        other = 1 - site
        if state.ends[other]:
            frames = state.frames[other]
            under_way = frames if FIN in frames else (*frames[:kept], FIN)
            state = state.with_frames(other, under_way)
        return state

    def _crash(self, state: State, site: int, durable: bool, kept: int) -> State:
        state = self._hang_up(self._spend(state, "crashes"), site, kept)
        view = self.view(state, site)
        image = view.image
        if durable:
            assert view.saving is not None
            image = DiskImage(view.saving, image.marked, image.content)
        self.says.append(("crashed", image.record))
        arrays = _put(state.arrays, site, self.arrays[site].start(image))
        state = state._replace(arrays=arrays, ends=_put(state.ends, site, False), frames=_put(state.frames, site, ()))
        for number in self.scope.hosts:
            if self.scope.sites[number] == site:
                state = self._session_lost(state, number)
        return state

    def _session_lost(self, state: State, number: int) -> State:
        host = state.hosts[number]
        heard = "" if host.does else host.heard  # the array knows whom it refused; but a RELEASE on its way is gone
        if host.does != "RESERVE" or not self.shim_view(state, number).arbitrating:
            # What was asked of the array is not answered any more; the host sees its session end, and asks anew.
            host = host._replace(does="", earlier=(), writing=0)
        else:
            state = self._shim_step(state.with_host(number, host), number, ("abandoned",))
            host = state.hosts[number]._replace(does="")
        host = host._replace(commands=(), answers=(), heard=heard)
        return self._shim_step(state.with_host(number, host), number, ("lost",))

    def _saved(self, state: State, site: int) -> State:
        return self._array_step(state, site, ("saved",))

    def _impatient(self, state: State, site: int, number: int) -> State:
        return self._array_step(self._spend(state, "impatient"), site, ("impatient", number))

    def _operate(self, state: State, name: str, site: int) -> State:
        kind, command = _OPERATIONS[name]
        return self._array_step(self._spend(state, kind), site, ("command", OPERATOR, command))

    # ---------------------------------------------------------------------------------------------------- what hosts do

    def _host(self, state: State, number: int, **changes: Any) -> State:
        return state.with_host(number, state.hosts[number]._replace(**changes))

    def _asks(self, state: State, number: int, kind: str, command: Command) -> State:
        state = self._host(self._spend(state, kind), number, does=command.what)
        return self._array_step(state, self.scope.sites[number], ("command", number, command))

    def _reserve(self, state: State, number: int) -> State:
        state = self._host(state, number, reserves=state.hosts[number].reserves + 1, heard="")
        return self._asks(state, number, "reserves", _RESERVE)

    def _release(self, state: State, number: int) -> State:
        return self._asks(self._host(state, number, heard="RELEASE"), number, "releases", _RELEASE)

    def _write(self, state: State, number: int) -> State:
        value = state.written + 1
        under_way = {host.writing for host in state.hosts if host.writing}
        earlier = tuple(other for other in state.possible if other not in under_way)
        state = self._host(state, number, writing=value, earlier=earlier)
        state = state._replace(written=value, possible=(*state.possible, value))
        cdb = bytes([0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0])
        return self._asks(state, number, "writes", Command("WRITE", 0, cdb, bytes([value]) * BLOCK))

    def _reset(self, state: State, number: int) -> State:
        state = self._host(self._spend(state, "resets"), number, does="LUN RESET")
        return self._array_step(state, self.scope.sites[number], ("reset", number))

    def _abandon(self, state: State, number: int) -> State:
        state = self._host(self._spend(state, "abandoned"), number, does="", heard="")
        return self._shim_step(state, number, ("abandoned",))

    def _die(self, state: State, number: int) -> State:
        host = state.hosts[number]
        shim = self.shims[number].start(self.scope.sites[number])
        gone = Host(shim, (*host.commands, "gone"), reserves=host.reserves)
        return self._spend(state, "deaths").with_host(number, gone)

    def _command(self, state: State, number: int) -> State:
        host = state.hosts[number]
        command = host.commands[0]
        state = state.with_host(number, host.with_commands(host.commands[1:]))
        step = (command, number) if isinstance(command, str) else ("command", number, command)
        return self._array_step(state, self.scope.sites[number], step)

    def _answer(self, state: State, number: int) -> State:
        host = state.hosts[number]
        state = state.with_host(number, host.with_answers(host.answers[1:]))
        return self._shim_step(state, number, ("answer", host.answers[0]))

    def _late(self, state: State, number: int) -> State:
        return self._shim_step(self._spend(state, "late"), number, ("timeout",))

    def _timer(self, state: State, number: int) -> State:
        return self._shim_step(state, number, ("timer",))

    # ------------------------------------------------------------------------------------------------ what machines say

    def _array_step(self, state: State, site: int, step: Event) -> State:
        if self._turns is not None:
            step = "early", self._turns, *step
        after, outputs = self.arrays[site].step(state.arrays[site], step)
        state = state.with_arrays((state.arrays[0], after) if site else (after, state.arrays[1]))
        for output in outputs:
            self.says.append(("array", (site, output)))
            if output.to == LINK:
                if output.told_epoch > output.durable_epoch:
                    raise Broken(f"I1: array {'AB'[site]} tells epoch {output.told_epoch}, which is not durable there")
                other = 1 - site
                if all(state.ends) and FIN not in state.frames[other]:
                    state = state.with_frames(other, (*state.frames[other], output.data))
            elif output.to != OPERATOR:
                state = self._heard(state, output)
        return state

    def _heard(self, state: State, output: Output) -> State:
        number, status = output.to, output.data[1]
        host = state.hosts[number]
        if "gone" in host.commands:
            return state
        if output.data[0]:
            if "relogin" in host.commands:
                return state
            return state.with_host(number, host.with_answers((*host.answers, output.data)))
        if host.does != output.what:
            return state
        if output.what == "RESERVE" and status == ScsiStatus.GOOD:
            return self._shim_step(state, number, ("granted",))
        if output.what == "RESERVE":
            return self._host(state, number, does="", heard="CONFLICT")
        if output.what == "WRITE":
            state = self._wrote(state, host, status)
        return self._host(state, number, does="", writing=0, earlier=())

    def _wrote(self, state: State, host: Host, status: int) -> State:
        if status == ScsiStatus.GOOD:
            possible = tuple(value for value in state.possible if value not in host.earlier)
        elif status == ScsiStatus.RESERVATION_CONFLICT:
            possible = tuple(value for value in state.possible if value != host.writing)
        else:
            return state  # it may be there, or not
        return state._replace(possible=possible)

    def _shim_step(self, state: State, number: int, step: Event) -> State:
        host = state.hosts[number]
        after, outputs = self.shims[number].step(host.shim, step)
        state = state.with_host(number, Host(after, *host[1:]))
        for output in outputs:
            self.says.append(("shim", (number, output)))
            if isinstance(output, Command):
                host = state.hosts[number]
                state = state.with_host(number, host.with_commands((*host.commands, output)))
            elif isinstance(output, Dropped):
                commands = state.hosts[number].commands
                state = self._host(state, number, commands=(*commands, "relogin"), answers=())
            else:
                state = self._told(state, number, output)
        return state

    def _told(self, state: State, number: int, told: Told) -> State:
        state = self._host(state, number, does="", heard="GOOD" if told.won else "CONFLICT")
        site = self.scope.sites[number]
        holder = self.view(state, site).holder
        if told.won:
            if holder != nexus_of(number, site) and not self.scope.budget.resets:
                raise Broken(f"loser: host {number + 1} was told GOOD, and its reservation is gone")
            for epoch, other in state.good:
                if epoch == told.epoch and other != number:
                    raise Broken(f"I3: hosts {other + 1} and {number + 1} were both told GOOD for epoch {epoch}")
            if (told.epoch, number) not in state.good:
                state = state._replace(good=tuple(sorted((*state.good, (told.epoch, number)))))
        elif told.given_back and holder == nexus_of(number, site):
            raise Broken(f"loser: host {number + 1} was told RESERVATION CONFLICT, and its reservation is still there")
        return state


def _put(values: tuple[Any, ...], place: int, value: Any) -> Any:
    return (*values[:place], value, *values[place + 1 :])
