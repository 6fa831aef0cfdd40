"""The explorer in small: small bounds are right, each known-bad variant is caught, and its tables are true."""

import asyncio
from dataclasses import replace

import pytest

from scripts.exploration.array_machine import ArrayMachine, Command, DiskImage, Output, View
from scripts.exploration.automaton import Automaton
from scripts.exploration.fingerprint import Fingerprint
from scripts.exploration.scope import SCOPES, Budget, Scope
from scripts.exploration.search import Limits, Outcome
from scripts.exploration.stepped_loop import SteppedLoop
from scripts.exploration.variants import VARIANTS
from scripts.exploration.workers import searched
from storage_model.pair_state import FenceLevel

SMALL = (
    Scope("race", "", (0, 1), Budget(reserves=2, impatient=1)),
    Scope("deaths", "", (0, 1), Budget(reserves=2, deaths=1)),
    Scope("writes", "", (0, 1), Budget(reserves=1, writes=2), owner=0),
    Scope("one host", "", (0,), Budget(reserves=1, cuts=1, crashes=1), owner=0),
)


@pytest.mark.parametrize("scope", SMALL, ids=lambda scope: scope.name)
def test_small_bound_is_explored_to_the_end_without_a_violation(scope: Scope) -> None:
    outcome = searched(scope, Limits(audits=20))
    assert outcome.violation is None, told(outcome)
    assert outcome.complete and outcome.states > 200 and outcome.audited == 20


def test_bound_is_complete_although_the_budget_is_not() -> None:
    whole = searched(SCOPES["race"], Limits(audits=0))
    bounded = searched(replace(SCOPES["race"], depth=20), Limits(audits=0))
    assert bounded.complete and (bounded.depth, bool(bounded.frontier)) == (20, True)
    assert 0 < bounded.ends < whole.ends and bounded.states < whole.states
    assert searched(SCOPES["race"], Limits(depth=20, audits=0)).states == bounded.states


def test_search_that_is_cut_is_not_complete() -> None:
    outcome = searched(SCOPES["start"], Limits(states=1_500, audits=0))
    assert not outcome.complete and outcome.frontier


@pytest.mark.parametrize("name", SCOPES)
def test_every_scope_begins_well(name: str) -> None:
    outcome = searched(SCOPES[name], Limits(states=600, audits=2))
    assert outcome.violation is None, told(outcome)
    assert outcome.states >= 600 or outcome.complete


def told(outcome: Outcome) -> str:
    assert outcome.violation is not None
    return "\n".join([outcome.violation.invariant, *outcome.violation.trace])


@pytest.mark.parametrize("name", VARIANTS)
def test_known_bad_variant_is_caught(name: str) -> None:
    variant = VARIANTS[name]
    with variant.in_place():
        outcome = searched(variant.scope, Limits(states=40_000, audits=0))
    assert outcome.violation is not None
    assert variant.scope in SCOPES.values() and (not variant.scope.depth or outcome.depth < variant.scope.depth)
    assert len(outcome.violation.trace) == outcome.violation.length > 3


def test_trace_tells_who_does_what_and_what_it_said() -> None:
    with VARIANTS["resync-is-a-no-op"].in_place():
        outcome = searched(VARIANTS["resync-is-a-no-op"].scope, Limits(audits=0))
    assert outcome.violation is not None
    trace = outcome.violation.trace
    assert "sends RESERVE; array" in trace[0] and "is told GOOD" in trace[-1]
    assert any("sends PROPOSE epoch 3" in line for line in trace)


def test_two_searches_are_the_same() -> None:
    first, second = (searched(SMALL[0], Limits(states=3_000, audits=0)) for _ in range(2))
    assert replace(first, seconds=0) == replace(second, seconds=0)


# ------------------------------------------------------------------------------------------- what it stands upon


def test_crash_keeps_what_was_saved_and_nothing_else() -> None:
    scope = SCOPES["start"]
    array: Automaton[DiskImage, Output, View] = Automaton(lambda image: ArrayMachine(0, image, (0,), FenceLevel.DATA))
    state = array.start(scope.image(0))
    state, _ = array.step(state, ("command", 0, Command("RESERVE", 0, bytes([0x16, 0, 0, 0, 0, 0]))))
    assert array.views[state].holder is not None
    assert array.start(array.views[state].image) == array.start(scope.image(0)) != state


def test_fingerprint_sees_where_a_coroutine_stands() -> None:
    async def story(pause: "asyncio.Future[None]") -> None:
        for number in range(3):
            if number:
                await pause

    def after(steps: int) -> bytes:
        loop = SteppedLoop.make()
        pause = loop.create_future()
        task = loop.create_task(story(pause))
        loop.run_until_quiet()
        if steps:
            pause.set_result(None)
            loop.run_until_quiet()
        digest = Fingerprint().digest([task])
        loop.abandon()
        return digest

    assert after(0) == after(0) != after(1)


def test_fingerprint_sees_the_position_of_an_iterator_that_only_the_stack_has() -> None:
    class Pause:
        def __await__(self):
            yield

    async def story(items: list[int]) -> None:
        for _ in items:
            await Pause()

    coroutine = story([5, 5, 5])
    digests = set()
    for _ in range(3):
        coroutine.send(None)
        digests.add(Fingerprint().digest([coroutine]))
    coroutine.close()
    assert len(digests) == 3


def test_fingerprint_does_not_see_addresses_of_tasks_that_are_waited_for_together() -> None:
    loops = []

    def digest() -> bytes:
        loop = SteppedLoop.make()
        loops.append(loop)  # alive, so that the next one's tasks are elsewhere
        pause = loop.create_future()

        async def pausing() -> None:
            await pause

        async def story() -> None:
            await asyncio.wait([loop.create_task(pausing()) for _ in range(4)])

        task = loop.create_task(story())
        loop.run_until_quiet()
        return Fingerprint().digest([task])

    digests = {digest() for _ in range(20)}
    for loop in loops:
        loop.abandon()
    assert len(digests) == 1


def test_loop_that_never_rests_is_an_error() -> None:
    loop = SteppedLoop.make()

    def again() -> None:
        loop.call_soon(again)

    again()
    with pytest.raises(AssertionError, match="not enough"):
        loop.run_until_quiet()
