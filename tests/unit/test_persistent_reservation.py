"""The state machine of persistent reservations, by random requests: what must hold after each (SPC-4 5.13)."""

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from storage_model.errors import CheckCondition
from storage_model.nexus import ITNexus
from storage_model.persistent_reservation import (
    MAXIMUM_REGISTRATIONS,
    Change,
    PersistentReservation,
    Registration,
    ReservationType,
)

PORTS = (1, 2)
A = ITNexus("iqn.2026-11.org.example:ä", b"\x80\0\0\0\0\x01")
A_OTHER_PORT = replace(A, target_port=2)
A_OTHER_ISID = replace(A, isid=b"\x80\0\0\0\0\x02")
B = ITNexus("iqn.2026-11.org.example:b", b"\x80\0\0\0\0\x01")
NEXUSES = [A, A_OTHER_PORT, A_OTHER_ISID, B]
KEYS = (1, 2, (1 << 64) - 1)
RO, AR = (5, 6), (7, 8)

nexuses = st.sampled_from(NEXUSES)
keys = st.sampled_from((0, *KEYS))
types = st.sampled_from((0, *ReservationType, 0xF))
scopes = st.sampled_from((0, 0, 0, 1))
usually = st.sampled_from((True, True, True, False))


class PersistentReservations(RuleBasedStateMachine):
    """Every rule makes a request that may be wrong in any of its parts; ``_request`` knows what any of them may do."""

    @initialize()
    def start(self) -> None:
        self.state = PersistentReservation()

    def _request(self, nexus: ITNexus, key: int, change: Change | None, *, ignore_key: bool = False) -> None:
        old = self.state
        registered = old.registrations.get(nexus)
        if change is None:
            return
        new = change.state
        if not ignore_key:
            assert (registered.key if registered else 0) == key, "without its own key nothing but a conflict"
        assert nexus not in {told for told, _ in change.attentions}, "nobody hears of what he did himself"
        assert {told for told, _ in change.attentions} <= set(old.registrations), "a stranger hears nothing"
        assert change.preempted <= set(old.registrations)
        lost = set(old.registrations) - set(new.registrations) - {nexus}
        told = {told for told, _ in change.attentions}
        assert lost <= told | {n for n in lost if self._same_port(n, nexus)}, "who loses a registration hears of it"
        self.state = new

    @staticmethod
    def _same_port(one: ITNexus, other: ITNexus) -> bool:
        """Unregistering for all target ports takes one's own other registrations."""
        return (one.initiator_name, one.isid) == (other.initiator_name, other.isid)

    def _key(self, nexus: ITNexus, key: int, right: bool) -> int:
        registered = self.state.registrations.get(nexus)
        return (registered.key if registered else 0) if right else key

    @rule(
        nexus=nexuses,
        key=keys,
        right=usually,
        new=keys,
        ignore=st.booleans(),
        aptpl=st.booleans(),
        every_port=st.booleans(),
        named=st.none() | st.lists(nexuses, max_size=3),
    )
    def register(self, nexus, key, right, new, ignore, aptpl, every_port, named) -> None:
        key = self._key(nexus, key, right)
        old = self.state
        lookup = None if named is None else lambda: named
        ports = PORTS if every_port else None
        try:
            change = old.register(nexus, key, new, aptpl=aptpl, ignore_key=ignore, ports=ports, named=lookup)
        except CheckCondition:
            assert named is not None, "only SPEC_I_PT can be refused here"
            return
        self._request(nexus, key, change, ignore_key=ignore)
        if change is not None and new:
            assert self.state.registrations[nexus].key == new
            if named is not None:
                assert all(self.state.registrations[other].key == new for other in named)
            assert (self.state.reservation_type, self.state.holder) == (old.reservation_type, old.holder)
            assert self.state.aptpl is aptpl and self.state.generation == old.generation + 1
        if change is not None and not new:
            assert nexus not in self.state.registrations

    @rule(nexus=nexuses, key=keys, right=usually, scope=scopes, kind=types)
    def reserve(self, nexus, key, right, scope, kind) -> None:
        key = self._key(nexus, key, right)
        old = self.state
        try:
            change = old.reserve(nexus, key, scope, kind)
        except CheckCondition:
            assert old.reservation_type is None and (scope or kind not in list(ReservationType))
            return
        self._request(nexus, key, change)
        if change is not None:
            assert self.state.holds(nexus) and self.state.reservation_type == kind
            assert self.state.registrations == old.registrations and self.state.generation == old.generation
            assert old.reservation_type in (None, kind)

    @rule(nexus=nexuses, key=keys, right=usually, scope=scopes, kind=types)
    def release(self, nexus, key, right, scope, kind) -> None:
        key = self._key(nexus, key, right)
        old = self.state
        try:
            change = old.release(nexus, key, scope, kind)
        except CheckCondition:
            assert old.holds(nexus) and (scope or kind != old.reservation_type)
            return
        self._request(nexus, key, change)
        if change is not None:
            assert self.state.registrations == old.registrations and self.state.generation == old.generation
            assert (self.state.reservation_type is None) is (old.reservation_type is None or old.holds(nexus))

    @rule(nexus=nexuses, key=keys, right=usually)
    def clear(self, nexus, key, right) -> None:
        key = self._key(nexus, key, right)
        change = self.state.clear(nexus, key)
        aptpl = self.state.aptpl
        self._request(nexus, key, change)
        if change is not None:
            generation = self.state.generation
            assert self.state == PersistentReservation(generation=generation, aptpl=aptpl)

    @rule(nexus=nexuses, key=keys, right=usually, victim=keys, scope=scopes, kind=types)
    def preempt(self, nexus, key, right, victim, scope, kind) -> None:
        key = self._key(nexus, key, right)
        old = self.state
        try:
            change = old.preempt(nexus, key, victim, scope, kind)
        except CheckCondition:
            assert old.reservation_type is not None and (not victim or scope or kind not in list(ReservationType))
            return
        self._request(nexus, key, change)
        if change is None:
            return
        assert self.state.generation == old.generation + 1
        for other, made in old.registrations.items():
            stays = other in self.state.registrations
            if victim and made.key != victim:
                assert stays
            elif other != nexus:
                assert not stays
        if nexus in self.state.registrations and old.reservation_type is not None and old.holder in change.preempted:
            assert self.state.holds(nexus) and self.state.reservation_type == kind

    @rule(nexus=nexuses, key=keys, right=usually, new=keys, unregister=st.booleans(), to=nexuses)
    def move(self, nexus, key, right, new, unregister, to) -> None:
        key = self._key(nexus, key, right)
        old = self.state
        try:
            change = old.move(nexus, key, new, aptpl=False, unregister=unregister, named=lambda: [to])
        except CheckCondition:
            assert old.reservation_type is None or not new or self._same_port(nexus, to)
            return
        self._request(nexus, key, change)
        if change is not None:
            assert old.holds(nexus) and old.reservation_type not in AR
            assert self.state.holder == to and self.state.registrations[to] == Registration(new)
            assert (nexus in self.state.registrations) is not unregister
            assert self.state.reservation_type is old.reservation_type

    @invariant()
    def the_state_is_sound(self) -> None:
        state = self.state
        state.check()
        holders = [nexus for nexus in {*NEXUSES, *state.registrations} if state.holds(nexus)]
        if state.reservation_type is None:
            assert not holders and state.holder is None
        elif state.reservation_type in AR:
            assert set(holders) == set(state.registrations) and holders
        else:
            assert holders == [state.holder] and state.holder in state.registrations

    @invariant()
    def it_survives_being_written_down(self) -> None:
        again = PersistentReservation.decode(self.state.encode())
        assert again.registrations == self.state.registrations
        assert (again.reservation_type, again.holder) == (self.state.reservation_type, self.state.holder)
        assert (again.generation, again.aptpl) == (0, True)


PersistentReservations.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestPersistentReservations = PersistentReservations.TestCase


def registered(*made: tuple[ITNexus, int]) -> PersistentReservation:
    return PersistentReservation({nexus: Registration(key) for nexus, key in made})


def reserved(kind: int, holder: ITNexus, *made: tuple[ITNexus, int]) -> PersistentReservation:
    state = registered(*made)
    change = state.reserve(holder, state.registrations[holder].key, 0, kind)
    assert change is not None
    return change.state


@pytest.mark.parametrize("kind", list(ReservationType))
def test_the_same_key_does_not_make_a_holder(kind):
    """SPC-4 5.13.10: the holder is an I_T nexus; multiple nexuses may have one key (5.13.1)."""
    state = reserved(kind, A, (A, 7), (A_OTHER_PORT, 7), (A_OTHER_ISID, 7))
    for other in (A_OTHER_PORT, A_OTHER_ISID):
        assert state.holds(other) is (kind in AR)
        assert state.takes_in(other) is (kind in RO + AR)
        assert (state.reserve(other, 7, 0, kind) is not None) is (kind in AR)


def test_too_many_registrations_change_nothing():
    """SPC-4 5.13.7; with a list of initiator ports it is all of them or none (6.16.3)."""
    many = [(ITNexus("iqn.2026-11.org.example:many", n.to_bytes(6, "big")), 1) for n in range(MAXIMUM_REGISTRATIONS)]
    state = registered(*many[:-1])
    assert state.register(A, 0, 5) is not None
    for request in (
        lambda: state.register(A, 0, 5, named=lambda: [B]),
        lambda: state.register(A, 0, 5, ports=PORTS),
        lambda: registered(*many).register(A, 0, 5, ignore_key=True),
    ):
        with pytest.raises(CheckCondition) as refused:
            request()
        assert (refused.value.sense_key, refused.value.asc_ascq) == (5, 0x5504)
    full = reserved(1, many[0][0], *many)
    assert full.register(many[3][0], 1, 9) is not None  # one that is there may change its key
    with pytest.raises(CheckCondition):
        full.move(many[0][0], 1, 5, aptpl=False, unregister=False, named=lambda: [A])
    moved = full.move(many[0][0], 1, 5, aptpl=False, unregister=True, named=lambda: [A])
    assert moved is not None and len(moved.state.registrations) == MAXIMUM_REGISTRATIONS


def test_the_list_of_initiator_ports_is_not_looked_at_when_the_request_conflicts():
    """RESERVATION CONFLICT goes before a fault in the parameter list (SAM-5 5.3.3)."""

    def fault() -> list[ITNexus]:
        raise AssertionError("the list was looked at")

    assert registered((B, 1)).register(A, 9, 5, named=fault) is None
    assert registered((A, 1)).register(A, 2, 5, named=fault) is None
    assert reserved(1, B, (A, 1), (B, 2)).move(A, 1, 5, aptpl=False, unregister=False, named=fault) is None


def test_all_target_ports_is_for_all_or_for_none():
    """SPC-4 6.16.3: as if the request had come through each port; here another key is registered at one of them."""
    state = registered((A_OTHER_PORT, 2))
    assert state.register(A, 0, 5, ports=PORTS) is None
    change = state.register(A, 0, 5, ports=PORTS, ignore_key=True)
    assert change is not None
    assert {nexus: made.key for nexus, made in change.state.registrations.items()} == {A: 5, A_OTHER_PORT: 5}
    gone = change.state.register(A, 5, 0, ports=PORTS)
    assert gone is not None and not gone.state.registrations


def test_the_generation_wraps():
    """SPC-4 6.15.2: a 32-bit wrapping counter."""
    change = PersistentReservation(generation=0xFFFFFFFF).register(A, 0, 5)
    assert change is not None and change.state.generation == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"type":null,"holder":null}',
        '{"type":2,"holder":null,"registrations":[]}',
        '{"type":1,"holder":null,"registrations":[["iqn.a","80",1,5,false]]}',
        '{"type":null,"holder":["iqn.a","80",1],"registrations":[["iqn.a","80",1,5,false]]}',
        '{"type":1,"holder":["iqn.b","80",1],"registrations":[["iqn.a","80",1,5,false]]}',
        '{"type":7,"holder":null,"registrations":[]}',
        '{"type":null,"holder":null,"registrations":[["iqn.a","80",1,0,false]]}',
        '{"type":null,"holder":null,"registrations":[["iqn.a","80",1,18446744073709551616,false]]}',
        '{"type":null,"holder":null,"registrations":[["iqn.a","8x",1,5,false]]}',
        '{"type":null,"holder":null,"registrations":[["iqn.a",1]]}',
    ],
)
def test_what_was_kept_and_cannot_be(text):
    with pytest.raises(ValueError):  # noqa: PT011 - whatever is wrong with it
        PersistentReservation.decode(text)
