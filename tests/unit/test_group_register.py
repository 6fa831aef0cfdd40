"""A group is decided as one, whatever the network and the crashes do (I9)."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest

from storage_model.errors import LocalProtocolError
from storage_model.group_register import (
    AcceptedGroup,
    DecideGroup,
    GroupEffect,
    GroupRegister,
    ProposeGroup,
    Values,
    VoteGroup,
    lock_order,
)
from storage_model.pair import PairEpoch
from storage_model.pair_state import PairState

A, B = "30095", "30096"
NAMES = ("data", "log", "quorum")


def values(number: int, p_serial: str = A, state: PairState = PairState.PAIR) -> dict[str, PairEpoch]:
    return {name: PairEpoch(number, p_serial, state) for name in NAMES}


def register(serial: str, decided: Values | None = None, accepted: Values | None = None) -> GroupRegister:
    return GroupRegister(serial, (A, B), decided or values(7), accepted)


SPLIT = values(8, A, PairState.PSUS)


def test_a_change_between_two_arrays() -> None:
    a, b = register(A), register(B)
    assert a.propose(SPLIT) == [VoteGroup(SPLIT)]
    assert a.voted(SPLIT) == [ProposeGroup(B, SPLIT, values(7))]
    assert b.proposed(A, SPLIT, values(7)) == [VoteGroup(SPLIT)]
    assert b.voted(SPLIT) == [AcceptedGroup(A, SPLIT), DecideGroup(SPLIT)]
    assert a.acknowledged(B, SPLIT) == [DecideGroup(SPLIT)]
    assert a.decided == b.decided == SPLIT and not a.in_doubt


@pytest.mark.parametrize(
    "wrong",
    [
        {name: SPLIT[name] for name in NAMES[:2]},
        {**SPLIT, "other": SPLIT["log"]},
        {**SPLIT, "log": replace(SPLIT["log"], epoch=9)},
    ],
    ids=["a pair is missing", "a pair of another group", "not the next epoch"],
)
def test_a_vote_is_for_every_pair_or_none(wrong: Values) -> None:
    with pytest.raises(LocalProtocolError):
        register(A).propose(wrong)
    assert register(B).proposed(A, wrong, values(7)) == []
    with pytest.raises(LocalProtocolError):
        register(B).voted(wrong)


def test_a_group_with_p_vols_at_both_arrays_has_no_leader() -> None:
    mixed = {**values(7), "log": PairEpoch(7, B, PairState.PAIR)}
    for serial in (A, B):
        with pytest.raises(LocalProtocolError):
            register(serial, mixed).propose(values(8))
    assert register(B, mixed).proposed(A, values(8), mixed) == []


def test_the_one_that_has_it_all_decided_tells_the_other() -> None:
    a = register(A, accepted=SPLIT)
    assert a.heard(B, SPLIT) == [DecideGroup(SPLIT)]
    later = {**SPLIT, "log": PairEpoch(9, B, PairState.PSUE, outdated=A)}
    assert register(A, accepted=SPLIT).heard(B, later) == [DecideGroup(later)]


def test_a_vote_that_nobody_has_heard_of_is_repeated() -> None:
    assert register(A, accepted=SPLIT).heard(B, values(7)) == [ProposeGroup(B, SPLIT, values(7))]


def test_a_pair_that_went_another_way_voids_the_vote_for_the_others() -> None:
    forced = {**values(7), "log": PairEpoch(8, B, PairState.PSUE, outdated=A)}
    a = register(A, accepted=SPLIT)
    assert a.heard(B, forced) == [DecideGroup({"log": forced["log"]}, ("data", "quorum"))]
    assert not a.in_doubt and a.decided == forced and a.leader is None
    three = GroupRegister(A, (A, B, "30097"), values(7), SPLIT)
    assert three.heard(B, forced) == [] and three.in_doubt, "the third may have decided it"


def test_locks_have_one_order_at_both_arrays() -> None:
    assert lock_order(reversed(NAMES)) == lock_order(NAMES) == ["data", "log", "quorum"]


# ------------------------------------------------------------ any order, losses, crashes, and force


@dataclass
class _Array:
    serial: str
    decided: dict[str, PairEpoch] = field(default_factory=lambda: values(7))
    accepted: dict[str, PairEpoch] | None = None
    register: GroupRegister = field(init=False)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.register = GroupRegister(self.serial, (A, B), self.decided, self.accepted)

    def do(self, effects: list[GroupEffect], wire: list[GroupEffect]) -> None:
        for effect in effects:
            if isinstance(effect, VoteGroup):
                self.accepted = dict(effect.values)
                self.do(self.register.voted(effect.values), wire)
            elif isinstance(effect, DecideGroup):
                self.decided, self.accepted = self.decided | dict(effect.values), None
            else:
                wire.append(effect)


class _World:
    """Two arrays and a wire that loses, repeats and reorders; a link that is cut before anybody uses force."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.arrays = {A: _Array(A), B: _Array(B)}
        self.wire: list[GroupEffect] = []
        self.by_group: dict[tuple[str, int], PairEpoch] = {}
        self.forced = False

    def step(self) -> None:
        array = self.arrays[self.random.choice((A, B))]
        other = self.arrays[B if array.serial == A else A]
        match self.random.choice(("propose", "carry", "carry", "carry", "lose", "crash", "meet", "force")):
            case "propose" if array.register.leader == array.serial and not array.register.in_doubt:
                p_serial = self.random.choice((A, B))
                new = {
                    name: PairEpoch(each.epoch + 1, p_serial, PairState.PSUS) for name, each in array.decided.items()
                }
                array.do(array.register.propose(new), self.wire)
            case "carry" if self.wire:
                self.carry(self.random.choice(self.wire))
            case "lose" if self.wire:
                self.wire.remove(self.random.choice(self.wire))
            case "crash":
                array.restart()
            case "meet":
                self.meet(array, other)
            case "force" if not self.forced and self.random.random() < 0.2:
                self.force(array, other)
        self.check()

    def carry(self, message: GroupEffect) -> None:
        if isinstance(message, ProposeGroup):
            sender = A if message.to == B else B
            array = self.arrays[message.to]
            array.do(array.register.proposed(sender, message.values, message.decided), self.wire)
        elif isinstance(message, AcceptedGroup):
            array = self.arrays[message.to]
            array.do(array.register.acknowledged(A if message.to == B else B, message.values), self.wire)

    def meet(self, array: _Array, other: _Array) -> None:
        told = dict(other.decided)
        other.do(other.register.heard(array.serial, dict(array.decided)), self.wire)
        array.do(array.register.heard(other.serial, told), self.wire)

    def force(self, array: _Array, other: _Array) -> None:
        """An operator takes one pair over while the link is down: what was on the wire is gone."""
        self.wire.clear()
        self.forced = True
        name = self.random.choice(NAMES)
        voted = array.accepted[name].epoch if array.accepted else 0
        number = max(array.decided[name].epoch, voted) + 1
        if array.accepted is not None:
            return  # a group in doubt here: its own vote first
        array.decided[name] = PairEpoch(number, array.serial, PairState.PSUE, outdated=other.serial)
        array.restart()

    def check(self) -> None:
        for array in self.arrays.values():
            if not self.forced:
                assert len({value.epoch for value in array.decided.values()}) == 1, "I9"
                assert len({value.p_serial for value in array.decided.values()}) == 1, "I9"
            for name, value in array.decided.items():
                assert self.by_group.setdefault((name, value.epoch), value) == value, "I1"

    def settle(self) -> Mapping[str, PairEpoch]:
        for _ in range(4):
            self.wire.clear()
            self.meet(self.arrays[A], self.arrays[B])
            while self.wire:
                self.carry(self.wire.pop(0))
            self.check()
        a, b = self.arrays[A], self.arrays[B]
        assert a.decided == b.decided and not a.register.in_doubt and not b.register.in_doubt
        return a.decided


@pytest.mark.parametrize("seeds", [range(at, at + 250) for at in range(0, 1000, 250)], ids=str)
def test_all_or_none_in_any_order(seeds: range) -> None:
    moved = forced = 0
    for seed in seeds:
        world = _World(seed)
        for _ in range(60):
            world.step()
        decided = world.settle()
        moved += min(value.epoch for value in decided.values()) > 8
        forced += world.forced
    assert moved > 50 and forced > 50, "the walk gets somewhere"


def _walk(seeds: int) -> None:
    for seed in range(seeds):
        world = _World(seed)
        for _ in range(60):
            world.step()
        world.settle()


def test_a_decision_before_the_other_arrays_vote_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GroupRegister, "majority", 1)
    with pytest.raises(AssertionError):
        _walk(100)


def test_a_decision_that_is_saved_pair_by_pair_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def torn(array: _Array, effects: list[GroupEffect], wire: list[GroupEffect]) -> None:
        whole(array, [_first_pair(effect) if isinstance(effect, DecideGroup) else effect for effect in effects], wire)
        if any(isinstance(effect, DecideGroup) for effect in effects):
            array.restart()

    whole = _Array.do
    monkeypatch.setattr(_Array, "do", torn)
    with pytest.raises(AssertionError, match="I9"):
        _walk(100)


def _first_pair(effect: DecideGroup) -> DecideGroup:
    """All that reached the medium before the crash."""
    name = min(effect.values)
    return DecideGroup({name: effect.values[name]})
