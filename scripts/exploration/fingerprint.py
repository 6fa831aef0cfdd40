"""A digest of everything that decides what a machine will do: its objects, and where its coroutines stand.

Two machines of one kind with the same digest go on alike. Objects are named by the order in which they are met, so that
addresses do not matter; a coroutine is its place in the code, its locals and what lies on its stack (the position of a
``for`` loop is only there); a future is its result and who waits for it. What is left out is what cannot decide
anything: names of tasks, loggers, and what ``_NEUTRAL`` lists with the reason.
"""

import asyncio
import gc
import hashlib
from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum
from types import (
    BuiltinMethodType,
    CellType,
    CodeType,
    CoroutineType,
    FrameType,
    FunctionType,
    GeneratorType,
    MethodType,
    ModuleType,
)
from typing import Any, cast

_OPAQUE = frozenset(
    """SteppedLoop Logger LogicalUnit DeviceServer ArrayMachine HostMachine Context TimerHandle""".split()
)
"""Met on the way; what of them may change is among the roots."""
_NEUTRAL = {
    "BackgroundTasks": frozenset({"_tasks"}),  # kept alive by it; the tasks themselves are met elsewhere
    "RegionMarks": frozenset({"_asked", "_saved"}),  # tickets: equal at rest, since the marks are saved at once
    "DifferentialBitmap": frozenset({"_unsaved"}),  # the pages in which the bits are not those of the disk
    "ShimPortal": frozenset({"receive_buffer", "_tasks"}),
    "PairHalf": frozenset({"progress"}),  # of copies: for status and log
    "CopyTask": frozenset({"progress"}),
}
_PAST = {"_wait": frozenset({"f"})}
"""By name of a coroutine: locals that are not read again. asyncio.wait leaves there the last member of a set of tasks,
which is in no order."""
_SLOTS: dict[type, tuple[str, ...]] = {}
_WALKS: dict[type, str] = {}
"""By type: the name of the method that walks such an object."""


class Fingerprint:
    """Walks the objects once; ``special`` replaces an object of a named type by another description of it."""

    def __init__(self, special: dict[str, Callable[[Any], Any]] | None = None) -> None:
        self._special = special or {}
        self._numbers: dict[int, int] = {}
        self._kept: list[Any] = []  # what was made on the way must not lend its address to another
        self._parts: list[str] = []

    def digest(self, roots: Iterable[Any]) -> bytes:
        for root in roots:
            self._walk(root)
        return hashlib.blake2b("\0".join(self._parts).encode(errors="surrogatepass"), digest_size=16).digest()

    def _walk(self, thing: Any) -> None:
        kind = type(thing)
        walk = _WALKS.get(kind)
        if walk is None:
            walk = _WALKS[kind] = _walk_of(kind)
        if walk == "atom":
            self._parts.append(repr(thing))
        else:
            getattr(self, walk)(thing)

    def _enum(self, thing: Enum) -> None:
        self._parts.append(f"{type(thing).__name__}.{thing.name}")

    def _buffer(self, thing: bytes) -> None:
        self._parts.append(repr(bytes(thing)))

    def _tuple(self, thing: tuple[Any, ...]) -> None:
        self._sequence("(", thing)

    def _sequence(self, mark: str, things: Iterable[Any]) -> None:
        self._parts.append(mark)
        for thing in things:
            self._walk(thing)
        self._parts.append(")")

    def _set(self, things: "set[Any] | frozenset[Any]") -> None:
        """Members with a value in order; of others only how many, since who holds them is met elsewhere."""
        named = sorted(repr(thing) for thing in things if not _is_anonymous(thing))
        self._parts.append(f"{{{len(things)} {named}}}")

    def _object(self, thing: Any) -> None:
        """Everything that can be met twice: the second time it is a number."""
        number = self._numbers.get(id(thing))
        if number is not None:
            self._parts.append(f"#{number}")
            return
        self._numbers[id(thing)] = len(self._numbers)
        self._kept.append(thing)
        name = type(thing).__name__
        self._parts.append(name)
        if name in _OPAQUE or isinstance(thing, (type, ModuleType)):
            self._parts.append(getattr(thing, "__qualname__", ""))
        elif name in self._special:
            self._walk(self._special[name](thing))
        elif isinstance(thing, dict):
            self._sequence("{", (part for item in thing.items() for part in item))
        elif isinstance(thing, (list, deque)):
            self._sequence("[", thing)
        elif isinstance(thing, asyncio.Future):
            self._future(thing)
        elif isinstance(thing, (CoroutineType, GeneratorType)):
            self._suspended(thing)
        elif isinstance(thing, (FunctionType, MethodType, BuiltinMethodType, CellType)):
            self._callable(thing)
        elif isinstance(thing, BaseException):
            self._sequence("!", (*thing.args, getattr(thing, "refusal", None)))
        elif name.endswith("iterator"):
            self._sequence("i", thing.__reduce__()[1:])
        else:
            self._attributes(thing, name)

    def _future(self, future: "asyncio.Future[Any]") -> None:
        pending = not future.done()
        self._parts.append(str(pending) + str(future.cancelled()))
        if isinstance(future, asyncio.Task):
            self._parts.append(f"{future.cancelling()} {future._must_cancel}")  # type: ignore[attr-defined]
            if pending:
                self._walk(future.get_coro())
                self._walk(future._fut_waiter)  # type: ignore[attr-defined]
        if pending:
            self._sequence("<", (callback for callback, _ in future._callbacks or ()))
        elif not future.cancelled():
            self._walk(future._exception or future._result)  # type: ignore[attr-defined]

    def _suspended(self, coroutine: Any) -> None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        if frame is None:
            return
        self._parts.append(
            f"{frame.f_code.co_qualname if hasattr(frame.f_code, 'co_qualname') else ''} {frame.f_lasti}"
        )
        local = frame.f_locals
        past = [local[name] for name in _PAST.get(frame.f_code.co_name, ()) if name in local]
        for name in sorted(local):
            if not any(local[name] is thing for thing in past):
                self._parts.append(name)
                self._walk(local[name])
        self._parts.append("stack")
        stack = gc.get_referents(coroutine)
        if stack and stack[-1] is None:
            stack.pop()  # the exception being handled comes last, and no exception is None or not there, by chance
        for thing in past:
            stack.remove(thing)  # locals are among them
        for hidden in stack:
            if not isinstance(hidden, (FrameType, CodeType, FunctionType)) and hidden is not local:
                self._walk(hidden)
        self._walk(getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None))

    def _callable(self, thing: Any) -> None:
        if isinstance(thing, CellType):
            try:
                self._walk(thing.cell_contents)
            except ValueError:
                self._parts.append("empty cell")
            return
        self._parts.append(thing.__qualname__)
        owner = getattr(thing, "__self__", None)
        if owner is not None:
            self._walk(owner)
        for cell in getattr(thing, "__closure__", None) or ():
            self._walk(cell)

    def _attributes(self, thing: Any, name: str) -> None:
        neutral = _NEUTRAL.get(name, frozenset())
        slots = _SLOTS.get(type(thing))
        if slots is None:
            slots = _SLOTS[type(thing)] = _slots_of(type(thing))
        found = [(slot, getattr(thing, slot)) for slot in slots if hasattr(thing, slot)]
        found += sorted(getattr(thing, "__dict__", {}).items())
        if not found:
            for part in gc.get_referents(thing):  # awaitables of the interpreter: what they wait for
                if not isinstance(part, type):
                    self._walk(part)
        for attribute, value in found:
            if attribute not in neutral:
                self._parts.append(attribute)
                self._walk(value)


def _is_anonymous(thing: Any) -> bool:
    return isinstance(thing, asyncio.Future) or cast(Any, type(thing)).__repr__ is object.__repr__


def _slots_of(kind: type) -> tuple[str, ...]:
    names = []
    for base in kind.__mro__:
        slots = base.__dict__.get("__slots__", ())
        names += [slots] if isinstance(slots, str) else list(slots)
    return tuple(sorted(name for name in names if name not in ("__weakref__", "__dict__")))


def _walk_of(kind: type) -> str:
    for kinds, walk in (
        ((Enum,), "_enum"),
        ((int, float, str, bytes, type(None)), "atom"),
        ((bytearray, memoryview), "_buffer"),
        ((tuple,), "_tuple"),
        ((set, frozenset), "_set"),
    ):
        if issubclass(kind, kinds):
            return walk
    return "_object"
