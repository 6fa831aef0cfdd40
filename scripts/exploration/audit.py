"""Is the table right? Paths are run again without it, on machines that live through all of their own history.

A table's state may have been reached by many histories, of which it computed one. If the fingerprint left out anything
that matters, another history would lead on to another end: an audit takes states that the search has found, repeats the
whole way to each on new machines, and compares every word and every fingerprint with the table's.
"""

from typing import Any, Generic, TypeVar, cast

from scripts.exploration.automaton import Automaton, Machine, Step
from scripts.exploration.world import World

Root = TypeVar("Root")
Out = TypeVar("Out")
Seen = TypeVar("Seen")


class Unfaithful(AssertionError):
    """A machine does something else than its table says."""


class Witness(Generic[Root, Out, Seen]):
    """An automaton with one machine beside it, for one path."""

    def __init__(self, table: Automaton[Root, Out, Seen]) -> None:
        self._table = table
        self._machine: Machine[Out, Seen] | None = None
        self.views = table.views

    def start(self, root: Root) -> int:
        self.end()
        self._machine = self._table.make(root)
        return self._compare(self._table.start(root), (), ())

    def step(self, state: int, step: Step) -> tuple[int, tuple[Out, ...]]:
        assert self._machine is not None
        said = self._machine.apply(step)
        after, known = self._table.step(state, step)
        return self._compare(after, known, said), said

    def _compare(self, state: int, known: tuple[Out, ...], said: tuple[Out, ...]) -> int:
        assert self._machine is not None
        if known != said:
            raise Unfaithful(f"said {said}, and the table has {known}")
        if self._machine.digest() != self._table.digests[state]:
            raise Unfaithful("another state than the table's")
        return state

    def end(self) -> None:
        """The path is over."""
        if self._machine is not None:
            self._machine.loop.abandon()


def audit(world: World, choices: list[int]) -> None:
    """Take the way that these choices make from the world's first state. Raises Unfaithful."""
    tables = world.arrays, world.shims
    witnesses: list[Witness[Any, Any, Any]] = [Witness(cast(Any, table)) for table in (*world.arrays, *world.shims)]
    try:
        world.arrays = cast(Any, tuple(witnesses[:2]))
        world.shims = cast(Any, tuple(witnesses[2:]))
        state = world.first()
        for choice in choices:
            state = world.step(state, list(world.events(state))[choice])
    finally:
        world.arrays, world.shims = tables
        for witness in witnesses:
            witness.end()
