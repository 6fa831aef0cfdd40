"""A machine of coroutines as a table: states by number, each step computed once.

Coroutines cannot be copied, so that a state is reached by making a new machine from what lies on its disk and
repeating its inputs. What makes this cheap is that the machines share nothing: one array's step depends on its own
state and input alone, so it is computed once for all the states of the whole system that it occurs in.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

Step = tuple[Any, ...]
Out = TypeVar("Out", covariant=True)
Seen = TypeVar("Seen", covariant=True)
Root = TypeVar("Root")

LIVING_MAX = 1500
"""Machines kept as they stand, so that a step on from there need not repeat their history. A state has as many of them
as ways have led to it: each is good for one step. They take about 50 MB."""


class Machine(Protocol[Out, Seen]):
    """Deterministic, and at rest between steps."""

    @property
    def loop(self) -> Any: ...

    def apply(self, step: Step) -> tuple[Out, ...]: ...

    def digest(self) -> bytes: ...

    def view(self) -> Seen: ...


class Automaton(Generic[Root, Out, Seen]):
    """``make`` gives a machine freshly started from a root."""

    def __init__(self, make: Callable[[Root], Machine[Out, Seen]]) -> None:
        self.make = make
        self._roots: dict[Root, int] = {}
        self._numbers: dict[bytes, int] = {}
        self._history: list[tuple[int, Any]] = []  # (state before, step), or (-1, root)
        self.views: list[Seen] = []
        self.digests: list[bytes] = []
        self._steps: dict[tuple[int, Step], tuple[int, tuple[Out, ...]]] = {}
        self._living: OrderedDict[int, list[Machine[Out, Seen]]] = OrderedDict()
        self._alive = 0

    def __len__(self) -> int:
        return len(self.views)

    @property
    def steps(self) -> int:
        """How many were computed."""
        return len(self._steps)

    def start(self, root: Root) -> int:
        """The state right after a start."""
        number = self._roots.get(root)
        if number is None:
            number = self._roots[root] = self._enter(self.make(root), (-1, root))
        return number

    def step(self, state: int, step: Step) -> tuple[int, tuple[Out, ...]]:
        """The state after ``step``, and what the machine said."""
        key = state, step
        known = self._steps.get(key)
        if known is None:
            machine = self.machine(state)
            outputs = machine.apply(step)
            known = self._steps[key] = self._enter(machine, key), outputs
        return known

    def machine(self, state: int) -> Machine[Out, Seen]:
        """A machine in this state, for the caller to keep."""
        return self._take(state) if state in self._living else self._repeat(state)

    def close(self) -> None:
        """No step will be asked for any more."""
        while self._living:
            self._take(next(iter(self._living))).loop.abandon()

    def _take(self, state: int) -> Machine[Out, Seen]:
        machines = self._living[state]
        machine = machines.pop()
        if not machines:
            del self._living[state]
        self._alive -= 1
        return machine

    def _repeat(self, state: int) -> Machine[Out, Seen]:
        steps = []
        before, step = self._history[state]
        while before >= 0:
            steps.append(step)
            before, step = self._history[before]
        machine = self.make(step)
        for step in reversed(steps):
            machine.apply(step)
        return machine

    def _enter(self, machine: Machine[Out, Seen], history: tuple[int, Any]) -> int:
        digest = machine.digest()
        number = self._numbers.get(digest)
        if number is None:
            number = self._numbers[digest] = len(self.views)
            self.views.append(machine.view())
            self.digests.append(digest)
            self._history.append(history)
        self._living.setdefault(number, []).append(machine)
        self._alive += 1
        if self._alive > LIVING_MAX:
            self._take(next(iter(self._living))).loop.abandon()
        return number
