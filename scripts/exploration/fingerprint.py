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
from dataclasses import is_dataclass
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
_ATOMS = frozenset({int, float, str, bytes, bool, type(None)})
_PLAIN = frozenset({"_atom", "_enum", "_buffer", "_tuple", "_set", "_value"})
"""Walks of what has no identity that matters."""
_VALUES: dict[Any, str] = {}
"""For all fingerprints: the description of values that hold only atoms and such values. The same few come again and
again, and to walk them was a third of the work."""
_VALUES_MAX = 100_000


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
        if kind in _ATOMS:
            self._parts.append(repr(thing))
            return
        walk = _WALKS.get(kind)
        if walk is None:
            walk = _WALKS[kind] = _walk_of(kind)
        if walk in _PLAIN:
            getattr(self, walk)(thing)
        else:
            self._object(thing, walk)

    def _atom(self, thing: Any) -> None:
        self._parts.append(repr(thing))

    def _enum(self, thing: Enum) -> None:
        self._parts.append(f"{type(thing).__name__}.{thing._name_}")

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

    def _value(self, thing: Any) -> None:
        """What cannot change: whether two places hold the same one, or equal ones, is an accident of their history."""
        try:
            known = _VALUES.get(thing)
        except TypeError:  # it holds what can change
            known = ""
        if known:
            self._parts.append(known)
            return
        first, objects = len(self._parts), len(self._kept)
        self._parts.append(type(thing).__name__)
        self._attributes(thing)
        described = self._parts[first:]
        if known is None and len(self._kept) == objects and not any(part.startswith("#") for part in described):
            if len(_VALUES) >= _VALUES_MAX:
                _VALUES.clear()
            _VALUES[thing] = "\0".join(described)

    def _object(self, thing: Any, walk: str) -> None:
        """Everything that can be met twice: the second time it is a number."""
        number = self._numbers.get(id(thing))
        if number is not None:
            self._parts.append(f"#{number}")
            return
        self._numbers[id(thing)] = len(self._numbers)
        self._kept.append(thing)
        name = type(thing).__name__
        self._parts.append(name)
        special = self._special.get(name)
        if special is not None:
            self._walk(special(thing))
        else:
            getattr(self, walk)(thing)

    def _opaque(self, thing: Any) -> None:
        self._parts.append(getattr(thing, "__qualname__", ""))

    def _dict(self, thing: dict[Any, Any]) -> None:
        self._sequence("{", (part for item in thing.items() for part in item))

    def _list(self, thing: "list[Any] | deque[Any]") -> None:
        self._sequence("[", thing)

    def _exception(self, thing: BaseException) -> None:
        self._sequence("!", (*thing.args, getattr(thing, "refusal", None)))

    def _iterator(self, thing: Any) -> None:
        self._sequence("i", thing.__reduce__()[1:])

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
        self._parts.append(thing.__qualname__)
        owner = getattr(thing, "__self__", None)
        if owner is not None:
            self._walk(owner)
        for cell in getattr(thing, "__closure__", None) or ():
            self._walk(cell)

    def _cell(self, thing: CellType) -> None:
        try:
            self._walk(thing.cell_contents)
        except ValueError:
            self._parts.append("empty cell")

    def _attributes(self, thing: Any) -> None:
        kind = type(thing)
        neutral = _NEUTRAL.get(kind.__name__, ())
        slots = _SLOTS.get(kind)
        if slots is None:
            slots = _SLOTS[kind] = _slots_of(kind)
        found = [(slot, getattr(thing, slot)) for slot in slots if hasattr(thing, slot)]
        found += sorted(getattr(thing, "__dict__", {}).items())
        if not found:
            for part in gc.get_referents(thing):  # awaitables of the interpreter: what they wait for
                if not isinstance(part, type):
                    self._walk(part)
        parts, walk = self._parts, self._walk
        for attribute, value in found:
            if attribute not in neutral:
                parts.append(attribute)
                if type(value) in _ATOMS:
                    parts.append(repr(value))
                else:
                    walk(value)


def _is_anonymous(thing: Any) -> bool:
    return isinstance(thing, asyncio.Future) or cast(Any, type(thing)).__repr__ is object.__repr__


def _slots_of(kind: type) -> tuple[str, ...]:
    names = []
    for base in kind.__mro__:
        slots = base.__dict__.get("__slots__", ())
        names += [slots] if isinstance(slots, str) else list(slots)
    return tuple(sorted(name for name in names if name not in ("__weakref__", "__dict__")))


def _walk_of(kind: type) -> str:
    if kind.__name__ in _OPAQUE:
        return "_opaque"
    for kinds, walk in _WALKS_OF_KINDS:
        if issubclass(kind, kinds):
            return walk
    if is_dataclass(kind) and cast(Any, kind).__dataclass_params__.frozen:
        return "_value"
    return "_iterator" if kind.__name__.endswith("iterator") else "_attributes"


_WALKS_OF_KINDS: tuple[tuple[tuple[type, ...], str], ...] = (
    ((Enum,), "_enum"),
    ((int, float, str, bytes, type(None)), "_atom"),
    ((bytearray, memoryview), "_buffer"),
    ((tuple,), "_tuple"),
    ((set, frozenset), "_set"),
    ((type, ModuleType), "_opaque"),
    ((dict,), "_dict"),
    ((list, deque), "_list"),
    ((asyncio.Future,), "_future"),
    ((CoroutineType, GeneratorType), "_suspended"),
    ((FunctionType, MethodType, BuiltinMethodType), "_callable"),
    ((CellType,), "_cell"),
    ((BaseException,), "_exception"),
)
