"""Which value a request asks to be decided: the rules of ownership, of the good side, and of Figure 4."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage_model.nexus import ITNexus
from storage_model.pair import Owner, PairEpoch, PairRecord, PairRefused, PairRequest, keeps_ownership, next_epoch
from storage_model.pair_state import HALVES, TRANSITIONS, FenceLevel, PairRole, PairState, PairVerb, Refusal, Side

A, B = "30095", "30096"
HOST_A = ITNexus("iqn.2026-11.org.pairvol:host-a", bytes.fromhex("00023d000001"))
HOST_B = ITNexus("iqn.2026-11.org.pairvol:host-b", bytes.fromhex("00023d000002"))
OWNER_A = Owner(A, HOST_A)
COPY, PAIR, PSUS, PSUE = PairState.COPY, PairState.PAIR, PairState.PSUS, PairState.PSUE


def record(state: PairState = PSUS, *, equal: bool = False, **fields: object) -> PairRecord:
    """A holds the P-VOL, in epoch 7; the epoch began in COPY where it may have, else in ``state``."""
    begins = COPY if state in (COPY, PAIR, PSUE) else state
    decided = replace(PairEpoch(7, A, begins, fence=FenceLevel.DATA), **fields)  # type: ignore[arg-type]
    return PairRecord(decided, state, equal=equal or state is PAIR)


def next_of(
    before: PairRecord, verb: PairVerb, serial: str = A, *, quorum: bool = True, p_vol_written: bool = False, **fields
) -> PairEpoch:
    request = PairRequest(verb, serial, **fields)
    other = B if serial == A else A
    return next_epoch(before, request, other_serial=other, quorum=quorum, p_vol_written=p_vol_written)


def refusal_of(before: PairRecord, verb: PairVerb, serial: str = A, **fields) -> Refusal:
    with pytest.raises(PairRefused) as refused:
        next_of(before, verb, serial, **fields)
    return refused.value.refusal


# ---------------------------------------------------------------------------------------------- conditions


@pytest.mark.parametrize("verb", [PairVerb.RESYNC, PairVerb.SPLIT, PairVerb.DELETE])
def test_a_verb_that_read_another_epoch_is_refused_whatever_the_state(verb: PairVerb) -> None:
    for state in (COPY, PAIR, PSUS, PSUE):
        for epoch in (6, 8):
            assert refusal_of(record(state), verb, expected_epoch=epoch) is Refusal.EPOCH_MOVED


def test_the_epoch_that_was_read_or_none_at_all() -> None:
    assert next_of(record(), PairVerb.RESYNC, expected_epoch=7).epoch == 8
    assert next_of(record(), PairVerb.RESYNC, expected_epoch=0).epoch == 8


def test_ownership_is_claimed_of_quorum_volumes_only() -> None:
    assert refusal_of(record(), PairVerb.RESYNC, quorum=False, claim=HOST_A) is Refusal.NOT_QUORUM
    assert next_of(record(), PairVerb.RESYNC, quorum=False).owner is None


@pytest.mark.parametrize("verb", PairVerb)
@pytest.mark.parametrize("half", HALVES)
def test_what_the_table_refuses_is_refused_with_its_reason(half: tuple[PairRole, PairState], verb: PairVerb) -> None:
    role, state = half
    outcome = TRANSITIONS[half, verb]
    before = PairRecord() if role is PairRole.SMPL else record(state)
    serial = B if role is PairRole.S_VOL else A
    if isinstance(outcome, Refusal):
        assert refusal_of(before, verb, serial) is outcome


# ------------------------------------------------------------------------------------------------ creation


@pytest.mark.parametrize(("remote", "p_serial"), [(False, A), (True, B)])
@pytest.mark.parametrize(("no_copy", "state"), [(False, COPY), (True, PAIR)])
def test_creation(remote: bool, p_serial: str, no_copy: bool, state: PairState) -> None:
    before = PairRecord(PairEpoch(4))
    value = next_of(before, PairVerb.CREATE, remote_p_vol=remote, no_copy=no_copy, fence=FenceLevel.STATUS)
    assert value == PairEpoch(5, p_serial, state, Side.P_VOL, FenceLevel.STATUS)
    assert value.role_of(p_serial) is PairRole.P_VOL
    assert {value.role_of(A), value.role_of(B)} == {PairRole.P_VOL, PairRole.S_VOL}


def test_creation_without_a_fence_level_is_never() -> None:
    assert next_of(PairRecord(), PairVerb.CREATE).fence is FenceLevel.NEVER


def test_deletion_leaves_nothing_but_the_number() -> None:
    before = record(PAIR, s_vol_writable=True, source=Side.S_VOL)
    assert next_of(before, PairVerb.DELETE) == PairEpoch(8)


def test_deletion_of_an_owned_pair_must_be_forced() -> None:
    before = record(PAIR, owner=OWNER_A)
    assert refusal_of(before, PairVerb.DELETE) is Refusal.OWNED  # without a pair anybody may write the volume
    assert next_of(before, PairVerb.DELETE, force=True) == PairEpoch(8)


def test_deletion_while_the_p_vol_still_lacks_data_must_be_forced() -> None:
    """Hosts at the P-VOL would read what was there before the swap (simulated seed 5185)."""
    assert refusal_of(record(COPY, source=Side.S_VOL), PairVerb.DELETE) is Refusal.COPYING
    assert refusal_of(record(PSUE, source=Side.S_VOL), PairVerb.DELETE) is Refusal.SUSPENDED_BY_ERROR
    assert next_of(record(COPY, source=Side.S_VOL), PairVerb.DELETE, force=True) == PairEpoch(8)
    for whole in (record(COPY), record(PSUE), record(PSUE, source=Side.S_VOL, equal=True)):
        assert next_of(whole, PairVerb.DELETE) == PairEpoch(8)


# -------------------------------------------------------------------------------------------------- claims


def test_claim_at_the_p_vol_makes_the_owner() -> None:
    value = next_of(record(), PairVerb.RESYNC, claim=HOST_A)
    assert (value.owner, value.p_serial, value.state, value.epoch) == (OWNER_A, A, COPY, 8)


def test_claim_at_the_s_vol_makes_the_owner_and_exchanges_the_roles() -> None:
    value = next_of(record(owner=OWNER_A), PairVerb.SWAP_RESYNC, B, claim=HOST_B)
    assert (value.owner, value.p_serial, value.state) == (Owner(B, HOST_B), B, COPY)


def test_another_host_of_the_same_site_is_another_owner() -> None:
    assert next_of(record(owner=OWNER_A), PairVerb.RESYNC, claim=HOST_B).owner == Owner(A, HOST_B)


def test_an_owner_is_at_the_p_vols_array() -> None:
    assert refusal_of(record(), PairVerb.RECOVER, B, claim=HOST_B, good_side=Side.P_VOL) is Refusal.IS_S_VOL


def test_an_operators_resync_leaves_the_owner() -> None:
    assert next_of(record(owner=OWNER_A), PairVerb.RESYNC).owner == OWNER_A
    assert next_of(record(PSUE, owner=OWNER_A, equal=True), PairVerb.RECOVER, good_side=Side.P_VOL).owner == OWNER_A


@pytest.mark.parametrize("verb", [PairVerb.SWAP_RESYNC, PairVerb.SWAP_RECOVER])
def test_an_operator_may_not_swap_what_has_an_owner(verb: PairVerb) -> None:
    assert refusal_of(record(owner=OWNER_A), verb, B) is Refusal.OWNED
    assert next_of(record(), verb, B).p_serial == B


# ------------------------------------------------------------------------------------- which side is good


@pytest.mark.parametrize(
    ("p_written", "s_written", "source"),
    # The P-VOL's data wins unless only the S-VOL was written; by the new roles the old P-VOL is the S-VOL.
    [(False, False, Side.S_VOL), (True, False, Side.S_VOL), (False, True, Side.P_VOL)],
)
def test_source_of_a_swap(p_written: bool, s_written: bool, source: Side) -> None:
    value = next_of(record(), PairVerb.SWAP_RESYNC, B, s_vol_written=s_written, p_vol_written=p_written)
    assert (value.p_serial, value.source, value.s_vol_writable) == (B, source, False)


def test_swap_of_what_both_sides_wrote_needs_a_side_named() -> None:
    written = {"s_vol_written": True, "p_vol_written": True}
    before = record(equal=True)
    assert refusal_of(before, PairVerb.SWAP_RESYNC, B, **written) is Refusal.BOTH_WRITTEN
    assert next_of(before, PairVerb.SWAP_RECOVER, B, good_side=Side.P_VOL, **written).source is Side.S_VOL
    assert next_of(before, PairVerb.SWAP_RECOVER, B, good_side=Side.S_VOL, **written).source is Side.P_VOL


def test_resync_takes_the_p_vols_data_unless_the_s_vol_is_named() -> None:
    assert next_of(record(), PairVerb.RESYNC, p_vol_written=True).source is Side.P_VOL
    assert next_of(record(), PairVerb.RECOVER, good_side=Side.S_VOL).source is Side.S_VOL


@pytest.mark.parametrize("source", [Side.P_VOL, Side.S_VOL])
@pytest.mark.parametrize("good", [Side.P_VOL, Side.S_VOL])
def test_copy_that_broke_off_needs_force_to_promote_the_incomplete_side(source: Side, good: Side) -> None:
    """I10: an inconsistent copy is never promoted unless an operator insists."""
    before = record(PSUE, source=source)
    for verb, serial in ((PairVerb.RECOVER, A), (PairVerb.SWAP_RECOVER, B)):
        if good is source:
            assert next_of(before, verb, serial, good_side=good).state is COPY
        else:
            assert refusal_of(before, verb, serial, good_side=good) is Refusal.SUSPENDED_BY_ERROR
            assert next_of(before, verb, serial, good_side=good, force=True).state is COPY


def test_mirror_that_broke_has_two_complete_sides() -> None:
    for good in (Side.P_VOL, Side.S_VOL):
        assert next_of(record(PSUE, equal=True), PairVerb.RECOVER, good_side=good).source is good


def test_pair_split_in_mid_copy_needs_force_to_promote_the_incomplete_s_vol() -> None:
    """Its writable S-VOL lacks what was not copied, whatever was written there since (simulated seed 5230)."""
    left = {"p_vol_written": True}  # a mark is a mark: not copied, or written since
    for verb, serial in ((PairVerb.RECOVER, A), (PairVerb.SWAP_RECOVER, B)):
        assert refusal_of(record(), verb, serial, good_side=Side.S_VOL, **left) is Refusal.OUTDATED
        assert next_of(record(), verb, serial, good_side=Side.S_VOL, force=True, **left).state is COPY
        assert next_of(record(), verb, serial, good_side=Side.P_VOL, **left).state is COPY
        assert next_of(record(equal=True), verb, serial, good_side=Side.S_VOL, **left).state is COPY


def test_epoch_that_began_suspended_by_error_remembers_the_incomplete_side() -> None:
    before = record(PSUE, source=Side.S_VOL, owner=OWNER_A)
    released = next_of(before, PairVerb.RELEASE, claim=HOST_A)
    assert (released.state, released.source) == (PSUE, Side.S_VOL)
    after = PairRecord(released, PSUE)
    assert refusal_of(after, PairVerb.RECOVER, good_side=Side.P_VOL) is Refusal.SUSPENDED_BY_ERROR


# ----------------------------------------------------------------------------------------- split and release


@pytest.mark.parametrize("serial", [A, B])
@pytest.mark.parametrize("writable", [False, True])
def test_split_from_either_array(serial: str, writable: bool) -> None:
    value = next_of(record(PAIR, owner=OWNER_A), PairVerb.SPLIT, serial, s_vol_writable=writable)
    assert (value.state, value.p_serial, value.s_vol_writable, value.owner) == (PSUS, A, writable, OWNER_A)


def test_split_while_the_p_vol_still_lacks_data_is_refused() -> None:
    assert refusal_of(record(COPY, source=Side.S_VOL), PairVerb.SPLIT) is Refusal.COPYING
    assert next_of(record(COPY, source=Side.P_VOL), PairVerb.SPLIT).state is PSUS


@pytest.mark.parametrize("state", [COPY, PAIR, PSUS])
def test_release_by_the_owner_arms_the_pair(state: PairState) -> None:
    value = next_of(record(state, owner=OWNER_A, s_vol_writable=True), PairVerb.RELEASE, claim=HOST_A)
    assert (value.state, value.owner, value.arm, value.s_vol_writable) == (PSUS, None, False, False)


def test_release_while_the_p_vol_still_lacks_data_is_armed_later() -> None:
    value = next_of(record(COPY, source=Side.S_VOL, owner=OWNER_A), PairVerb.RELEASE, claim=HOST_A)
    assert (value.state, value.source, value.owner, value.arm) == (COPY, Side.S_VOL, None, True)
    assert not next_of(PairRecord(value, PAIR), PairVerb.SPLIT).arm


def test_release_by_another_is_refused() -> None:
    assert refusal_of(record(PAIR, owner=OWNER_A), PairVerb.RELEASE, claim=HOST_B) is Refusal.EPOCH_MOVED
    assert refusal_of(record(PAIR), PairVerb.RELEASE, claim=HOST_A) is Refusal.EPOCH_MOVED


@pytest.mark.parametrize("state", [COPY, PAIR, PSUS, PSUE])
def test_owner_keeps_it_without_a_transition_unless_the_pair_is_armed(state: PairState) -> None:
    request = PairRequest(PairVerb.RESYNC, A, claim=HOST_A)
    assert keeps_ownership(record(state, owner=OWNER_A), request) is (state is not PSUS)
    for stranger in (
        replace(request, claim=HOST_B),
        replace(request, claim=None),
        replace(request, serial=B),
        replace(request, verb=PairVerb.RELEASE),
    ):
        assert not keeps_ownership(record(state, owner=OWNER_A), stranger)
    assert not keeps_ownership(record(state), replace(request, claim=None))


# ------------------------------------------------------------------------------------------- on the wire

_names = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
_nexuses = st.builds(ITNexus, _names, st.binary(min_size=6, max_size=6), st.integers(0, 0xFFFF))
_epochs = st.builds(
    PairEpoch,
    st.integers(0, 0xFFFFFFFF),
    _names,
    st.sampled_from(PairState),
    st.sampled_from(Side),
    st.sampled_from(FenceLevel),
    st.booleans(),
    st.none() | st.builds(Owner, _names, _nexuses),
    st.booleans(),
)
_requests = st.builds(
    PairRequest,
    st.sampled_from(PairVerb),
    _names,
    st.integers(0, 0xFFFFFFFF),
    st.none() | _nexuses,
    st.none() | st.sampled_from(FenceLevel),
    st.sampled_from(Side),
    *[st.booleans()] * 5,
)


@given(_epochs)
def test_epoch_survives_the_wire(value: PairEpoch) -> None:
    text = value.encode()
    assert "\n" not in text
    assert PairEpoch.decode(text) == value


@given(_requests)
def test_request_survives_the_wire(value: PairRequest) -> None:
    text = value.encode()
    assert "\n" not in text
    assert PairRequest.decode(text) == value


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=6,
)
_EPOCH = PairEpoch(7, A, COPY, owner=OWNER_A)
_REQUEST = PairRequest(PairVerb.RESYNC, A, 7, HOST_A)


@given(st.sampled_from(sorted(json.loads(_EPOCH.encode()))), _json)
def test_epoch_with_a_wrong_field_is_a_value_error_or_nothing_worse(key: str, value: object) -> None:
    text = json.dumps(json.loads(_EPOCH.encode()) | {key: value})
    try:
        decoded = PairEpoch.decode(text)
    except ValueError:
        return
    assert PairEpoch.decode(decoded.encode()) == decoded


@given(st.sampled_from(sorted(json.loads(_REQUEST.encode()))), _json)
def test_request_with_a_wrong_field_is_a_value_error_or_nothing_worse(key: str, value: object) -> None:
    text = json.dumps(json.loads(_REQUEST.encode()) | {key: value})
    try:
        decoded = PairRequest.decode(text)
    except ValueError:
        return
    assert isinstance(decoded.verb, PairVerb) and isinstance(decoded.good_side, Side)
    assert 0 <= decoded.expected_epoch <= 0xFFFFFFFF


@pytest.mark.parametrize("decode", [PairEpoch.decode, PairRequest.decode])
@pytest.mark.parametrize("text", ["", "{", "null", "7", '"x"', "[]", "{}", '{"owner": null}', "[" * 100_000])
def test_anything_else_is_a_value_error(decode, text: str) -> None:
    with pytest.raises(ValueError, match="not a pair"):
        decode(text)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epoch", -1),
        ("epoch", 1 << 32),
        ("epoch", "7"),
        ("epoch", float("inf")),
        ("state", "OTHER"),
        ("state", 1),
        ("source", None),
        ("fence", "never"),
        ("owner", []),
        ("owner", [A, "iqn", "00023d0000", 1]),
        ("owner", [A, "iqn", "00023d0000zz", 1]),
        ("owner", [A, "iqn", "00023d000001", 1 << 16]),
        ("owner", [A, "iqn", "00023d000001", 1, 2]),
    ],
)
def test_wrong_fields_of_an_epoch(key: str, value: object) -> None:
    with pytest.raises(ValueError, match="not a pair epoch"):
        PairEpoch.decode(json.dumps(json.loads(_EPOCH.encode()) | {key: value}))


@pytest.mark.parametrize(
    ("key", "value"),
    [("expected_epoch", "x"), ("expected_epoch", -1), ("verb", "resync"), ("verb", []), ("claim", 5), ("more", 1)],
)
def test_wrong_fields_of_a_request(key: str, value: object) -> None:
    with pytest.raises(ValueError, match="not a pair request"):
        PairRequest.decode(json.dumps(json.loads(_REQUEST.encode()) | {key: value}))
