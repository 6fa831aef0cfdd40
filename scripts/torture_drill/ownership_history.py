"""Whether one owner at a time explains what the hosts and the operator were told.

A model of the quorum pair as the hosts see it, an owner and whether the pair is armed (PSUS), is stepped through every
order in which the requests under way may have taken effect: each somewhere between its beginning and its answer, one
without a certain answer at any time until :meth:`OwnershipHistory.settle`, or never. When no order is left that
explains an answer, there were two owners, or a write by somebody who was not the owner. It is a check of
linearizability. What comes after the first answer that nothing explains is not judged.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto

from storage_model.errors import PairvolError

_WORLDS_MAX = 50_000
_TAIL = 40


class Request(Enum):
    """What can be asked of the quorum pair."""

    RESERVE = auto()
    RELEASE = auto()
    WRITE = auto()
    SPLIT = auto()
    RESYNC = auto()
    """By the operator, without a claim."""


class Answer(Enum):
    """What came of it."""

    DONE = auto()
    REFUSED = auto()
    UNKNOWN = auto()


class _Stage(Enum):
    OPEN = auto()
    DONE = auto()
    WITHDRAWN = auto()


@dataclass(frozen=True)
class _Pending:
    number: int
    request: Request
    who: str
    stage: _Stage = _Stage.OPEN

    def at(self, stage: _Stage) -> "_Pending":
        return _Pending(self.number, self.request, self.who, stage)


@dataclass(frozen=True)
class _World:
    """One of the possible states: ``pending`` has what may still take effect, or has without being answered."""

    owner: str | None
    armed: bool
    pending: frozenset[_Pending] = frozenset()

    def after(self, old: _Pending, new: _Pending | None, owner: str | None, armed: bool) -> "_World":
        pending = self.pending - {old}
        return _World(owner, armed, pending if new is None else pending | {new})

    def _overtaken(self, release: _Pending) -> bool:
        """What a nexus asked for last counts: a claim of it has been decided since."""
        won = (p for p in self.pending if p.request is Request.RESERVE and p.stage is _Stage.DONE)
        return any(p.who == release.who and p.number > release.number for p in won)

    def steps(self) -> "Iterable[_World]":
        for pending in self.pending:
            yield from self._step(pending)

    def _step(self, pending: _Pending) -> "Iterable[_World]":
        owner, armed, who = self.owner, self.armed, pending.who
        done = pending.at(_Stage.DONE)
        released = (None, True) if owner == who else (owner, armed)
        match pending.request, pending.stage:
            case Request.RESERVE, _Stage.OPEN:
                if armed or owner == who:
                    yield self.after(pending, done, who, False)
                # Figure 5, 116: what the shim gives back is a claim that may have been decided.
                yield self.after(pending, pending.at(_Stage.WITHDRAWN), *released)
            case Request.RESERVE, _Stage.DONE:
                yield self.after(pending, pending.at(_Stage.WITHDRAWN), *released)
            case Request.RELEASE, _Stage.OPEN if not self._overtaken(pending):
                yield self.after(pending, done, *released)
            case Request.WRITE, _Stage.OPEN if owner in (None, who):
                yield self.after(pending, done, owner, armed)
            case Request.SPLIT, _Stage.OPEN:
                yield self.after(pending, done, owner, True)
            case Request.RESYNC, _Stage.OPEN:
                yield self.after(pending, done, owner, False)


class TooUncertain(PairvolError):
    """More orders are possible than can be looked at."""


class OwnershipHistory:
    """Told of each request at its beginning and at its end, in the order in which these happened."""

    def __init__(self) -> None:
        self._worlds = {_World(None, False)}
        self._explained = True
        self._numbers = 0
        self._tail: deque[str] = deque(maxlen=_TAIL)

    def begin(self, request: Request, who: str) -> int:
        """The number of the request, for :meth:`end`."""
        self._numbers += 1
        if not self._explained:
            return self._numbers
        pending = _Pending(self._numbers, request, who)
        self._tail.append(f"{self._numbers} {who} asks {request.name}")
        self._worlds = {_World(world.owner, world.armed, world.pending | {pending}) for world in self._worlds}
        return self._numbers

    def end(self, number: int, request: Request, who: str, answer: Answer) -> str:
        """Empty, or why no order explains the answer. Raises TooUncertain."""
        if not self._explained:
            return ""
        self._tail.append(f"{number} {who} is told {answer.name}")
        pending = _Pending(number, request, who)
        if answer is Answer.UNKNOWN:  # it stays under way; a write has no effect here
            if request is Request.WRITE:
                self._worlds = {_without(world, pending) for world in self._worlds}
            return ""
        done = pending.at(_Stage.DONE)
        worlds = self._reachable()
        if answer is Answer.DONE:
            left = {_without(world, done) for world in worlds if done in world.pending}
            if request is Request.RELEASE:
                # GOOD is about the local reservation; the arrays agree on the rest behind it.
                left |= {world for world in worlds if pending in world.pending}
        elif request is Request.RESERVE:
            # The shim goes on giving back what it could not, until this host reserves again.
            left = {
                _World(
                    world.owner,
                    world.armed,
                    world.pending - {pending, done, pending.at(_Stage.WITHDRAWN)} | {_owed(number, who)},
                )
                for world in worlds
            }
        else:
            left = {_without(world, pending) for world in worlds if pending in world.pending}
        if request is Request.RESERVE:
            left = {_forget_releases(world, who, number) for world in left}
        return self._keep(left, f"{who}: {request.name} answered {answer.name}")

    def settle(self, owner: str | None, armed: bool | None) -> str:
        """Both arrays say so, and hosts and operator are quiet. Empty, or why that cannot be.

        What a shim has not yet given back it may still give back. ``armed`` None: this cannot be seen. Raises
        TooUncertain.
        """
        if not self._explained:
            return ""
        self._tail.append(f"settled: owner {owner}, armed {armed}")
        fitting = (w for w in self._reachable() if w.owner == owner and armed in (None, w.armed))
        left = {_World(owner, world.armed, _still_owed(world)) for world in fitting}
        return self._keep(left, f"the arrays say that {owner or 'nobody'} is the owner")

    def _keep(self, worlds: set[_World], what: str) -> str:
        if worlds:
            self._worlds = worlds
            return ""
        self._explained = False
        possible = {f"owner {world.owner}, {'armed' if world.armed else 'not armed'}" for world in self._reachable()}
        return f"{what}, but: {'; or '.join(sorted(possible))}. Before: " + ", ".join(self._tail)

    def _reachable(self) -> set[_World]:
        seen = set(self._worlds)
        agenda = list(seen)
        while agenda:
            for world in agenda.pop().steps():
                if world not in seen:
                    seen.add(world)
                    agenda.append(world)
                    if len(seen) > _WORLDS_MAX:
                        raise TooUncertain(f"more than {_WORLDS_MAX} states of the quorum pair are possible")
        return seen


def _without(world: _World, pending: _Pending) -> _World:
    return _World(world.owner, world.armed, world.pending - {pending})


def _owed(number: int, who: str) -> _Pending:
    return _Pending(number, Request.RELEASE, who)


def _still_owed(world: _World) -> frozenset[_Pending]:
    claims = (Request.RESERVE, Request.RELEASE)
    open_ones = (p for p in world.pending if p.request in claims and p.stage is not _Stage.WITHDRAWN)
    return frozenset(
        _owed(p.number, p.who) for p in open_ones if (p.request, p.stage) != (Request.RELEASE, _Stage.DONE)
    )


def _forget_releases(world: _World, who: str, before: int) -> _World:
    """A new arbitration of the same nexus takes the place of what was still to be given back for it."""
    kept = (p for p in world.pending if p.request is not Request.RELEASE or p.who != who or p.number >= before)
    return _World(world.owner, world.armed, frozenset(kept))
