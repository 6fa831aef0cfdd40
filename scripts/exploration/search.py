"""Breadth-first search through a world: every state once, the shortest way to a violation."""

import contextlib
import struct
import time
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from scripts.exploration.audit import audit
from scripts.exploration.invariants import Checker
from scripts.exploration.scope import Scope
from scripts.exploration.state import State
from scripts.exploration.wording import event_words, said
from scripts.exploration.world import Broken, Event, World

_KEY = struct.Struct("=6I")
_CLOCK_EVERY = 1024
Progress = Callable[["Search"], None]


@dataclass(slots=True)
class Limits:
    """Where a search ends that has not seen everything."""

    depth: int | None = None
    """Steps from the beginning: None is the scope's own bound, 0 no bound."""
    states: int = 0
    """0: no limit, as for the seconds."""
    seconds: float = 0.0
    audits: int = 100
    """Of how many states the way is run again without the tables."""


@dataclass(slots=True)
class Violation:
    """An invariant and the shortest way to break it."""

    invariant: str
    trace: list[str]
    length: int


@dataclass(slots=True)
class Outcome:
    """What a search has seen. ``complete``: all within its bound; ``frontier``: what was seen and not gone on from.

    ``ends``: states in which a race has been won and lost, see ``Scope.is_end``.
    """

    scope: Scope
    states: int
    configurations: int
    transitions: int
    depth: int
    frontier: int
    seconds: float
    array_states: int
    array_steps: int
    ends: int
    complete: bool
    audited: int
    violation: Violation | None = None


class _Parts:
    """Parts of states by number: a state is six numbers, so that millions fit, and none is taken for another."""

    def __init__(self) -> None:
        self._numbers: dict[Any, int] = {}
        self._parts: list[Any] = []

    def number(self, part: Any) -> int:
        number = self._numbers.get(part)
        if number is None:
            number = self._numbers[part] = len(self._parts)
            self._parts.append(part)
        return number

    def part(self, number: int) -> Any:
        return self._parts[number]


@dataclass(slots=True)
class Search:
    """One scope's search; ``run`` may be called once."""

    scope: Scope
    limits: Limits = field(default_factory=Limits)
    progress: Progress = lambda search: None
    world: World = field(init=False)
    depth: int = 0
    ends: int = 0
    transitions: int = 0
    frontier: int = 0
    seconds: float = 0.0
    _parts: _Parts = field(default_factory=_Parts)
    _seen: dict[bytes, int] = field(default_factory=dict)
    _configurations: set[bytes] = field(default_factory=set)
    _parents: "array[int]" = field(default_factory=lambda: array("I"))
    _choices: "array[int]" = field(default_factory=lambda: array("H"))
    _started: float = 0.0

    def __post_init__(self) -> None:
        self.world = World(self.scope)

    @property
    def states(self) -> int:
        return len(self._seen)

    def run(self) -> Outcome:
        """To the end, a limit, or the first violation."""
        try:
            return self._run()
        finally:
            self.world.close()

    def _run(self) -> Outcome:
        self._started = time.monotonic()
        checker = Checker(self.world)
        first = self.world.first()
        self._enter(self._first_key(first), 0, 0)
        layer = [0]
        keys = list(self._seen)
        while layer and not self._is_bound_reached() and not self._over():
            following: list[int] = []
            for index in layer:
                numbers = _KEY.unpack(keys[index])
                before = self._state(numbers)
                for choice, event in enumerate(self.world.events(before)):
                    self.transitions += 1
                    try:
                        after = self.world.step(before, event)
                        checker.check_step(before, after)
                        key = self._key(after, before, numbers)
                        if self._enter(key, index, choice):
                            following.append(len(keys))
                            keys.append(key)
                            self.ends += self.scope.is_end([host.heard for host in after.hosts])
                            checker.check_state(before, after)
                    except Broken as broken:
                        return self._outcome(self._violation(index, choice, str(broken)))
                if not index % _CLOCK_EVERY:
                    self.frontier = len(following)
                    self.progress(self)
                    if self._over():
                        return self._outcome(None)
            layer = following
            self.frontier = len(layer)
            self.depth += bool(layer)
        return self._outcome(None, complete=not layer or self._is_bound_reached())

    def _is_bound_reached(self) -> bool:
        bound = self.scope.depth if self.limits.depth is None else self.limits.depth
        return bool(bound) and self.depth >= bound

    def _over(self) -> bool:
        limits = self.limits
        self.seconds = time.monotonic() - self._started
        return bool(
            (limits.states and self.states >= limits.states) or (limits.seconds and self.seconds >= limits.seconds)
        )

    def _first_key(self, first: State) -> bytes:
        parts = (first.frames, first.ends), first.hosts, first.budget, (first.good, first.possible, first.written)
        return _KEY.pack(*first.arrays, *map(self._parts.number, parts))

    def _key(self, state: State, before: State, known: tuple[int, ...]) -> bytes:
        """``known`` are the numbers of ``before``: what a step leaves as it was need not be looked up again."""
        number = self._parts.number
        arrays, frames, ends, hosts, budget, good, possible, written = state
        _, _, wire, people, left, ghosts = known
        if frames is not before.frames or ends is not before.ends:
            wire = number((frames, ends))
        if hosts is not before.hosts:
            people = number(hosts)
        if budget is not before.budget:
            left = number(budget)
        if good is not before.good or possible is not before.possible or written != before.written:
            ghosts = number((good, possible, written))
        return _KEY.pack(*arrays, wire, people, left, ghosts)

    def _enter(self, key: bytes, parent: int, choice: int) -> bool:
        """True if it was not seen before."""
        seen = self._seen
        if key in seen:
            return False
        seen[key] = len(seen)
        self._configurations.add(key[:16])
        self._parents.append(parent)
        self._choices.append(choice)
        return True

    def _state(self, numbers: tuple[int, ...]) -> State:
        a, b, wire, hosts, budget, ghosts = numbers
        part = self._parts.part
        frames, ends = part(wire)
        good, possible, written = part(ghosts)
        return State((a, b), frames, ends, part(hosts), part(budget), good, possible, written)

    def _audit(self) -> int:
        """See ``audit``: of states that lie evenly over all that was found, the deepest among them."""
        ways = min(self.limits.audits, self.states)
        for number in range(1, ways + 1):
            audit(self.world, self._way(self.states * number // ways - 1))
        return ways

    def _outcome(self, violation: Violation | None, *, complete: bool = False) -> Outcome:
        self.seconds = time.monotonic() - self._started
        arrays = self.world.arrays
        return Outcome(
            self.scope,
            self.states,
            len(self._configurations),
            self.transitions,
            self.depth,
            self.frontier,
            self.seconds,
            sum(len(automaton) for automaton in arrays),
            sum(automaton.steps for automaton in arrays),
            self.ends,
            complete and violation is None,
            0 if violation is not None else self._audit(),
            violation,
        )

    # -------------------------------------------------------------------------------------------------------- the trace

    def _way(self, index: int) -> list[int]:
        """The choices that lead to a state."""
        choices = []
        while index:
            choices.append(self._choices[index])
            index = self._parents[index]
        choices.reverse()
        return choices

    def _violation(self, index: int, choice: int, invariant: str) -> Violation:
        choices = [*self._way(index), choice]
        return Violation(invariant, list(self._tell(choices)), len(choices))

    def _tell(self, choices: list[int]) -> Iterator[str]:
        world = self.world
        state = world.first()
        for number, choice in enumerate(choices, 1):
            event = list(world.events(state))[choice]
            words = event_words(event, _delivered(state, event), self.scope.sites)
            with contextlib.suppress(Broken):  # the last one
                state = world.step(state, event)
            yield "; ".join([f"{number:3} {words}", *said(world.says)])


def _delivered(state: State, event: Event) -> Any:
    name, *rest = event
    if name == "early":
        return _delivered(state, rest[1])
    if name == "deliver":
        return state.frames[rest[0]][0]
    if name == "command":
        return state.hosts[rest[0]].commands[0]
    return state.hosts[rest[0]].answers[0] if name == "answer" else None
