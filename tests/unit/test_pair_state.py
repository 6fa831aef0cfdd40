"""The transition table is complete, and says what Figures 3 and 4 say: their cells are written out here once more."""

import pytest

from storage_model.pair_state import HALVES, TRANSITIONS, PairRole, PairState, PairVerb, Refusal
from storage_model.spec.pair_cdb import PairOut

SMPL = (PairRole.SMPL, PairState.SMPL)
P, S = PairRole.P_VOL, PairRole.S_VOL
COPY, PAIR, PSUS, PSUE = PairState.COPY, PairState.PAIR, PairState.PSUS, PairState.PSUE

NORMAL = {
    PairVerb.CREATE: {SMPL: (P, COPY)},
    PairVerb.SPLIT: {(P, COPY): (P, PSUS), (P, PAIR): (P, PSUS), (S, COPY): (S, PSUS), (S, PAIR): (S, PSUS)},
    PairVerb.RESYNC: {(P, PSUS): (P, COPY)},  # Figure 4, 130
    PairVerb.SWAP_RESYNC: {(S, PSUS): (P, COPY)},  # Figure 4, 131
    PairVerb.RECOVER: {
        (P, PSUS): (P, COPY),
        (P, PSUE): (P, COPY),
        (S, PSUS): (S, COPY),
        (S, PSUE): (S, COPY),
    },
    PairVerb.SWAP_RECOVER: {(S, PSUS): (P, COPY), (S, PSUE): (P, COPY)},
    PairVerb.DELETE: {half: SMPL for half in HALVES if half != SMPL},
    PairVerb.RELEASE: {(P, COPY): (P, PSUS), (P, PAIR): (P, PSUS), (P, PSUS): (P, PSUS), (P, PSUE): (P, PSUE)},
    PairVerb.TAKEOVER: {(P, PSUE): (P, PSUE), (S, PSUS): (P, PSUE), (S, PSUE): (P, PSUE)},
}


def test_nine_rows_of_figure_4() -> None:
    assert len(HALVES) == len(set(HALVES)) == 9
    assert set(HALVES) == {SMPL} | {(role, state) for role in (P, S) for state in (COPY, PAIR, PSUS, PSUE)}


def test_every_verb_is_answered_in_every_row() -> None:
    assert set(TRANSITIONS) == {(half, verb) for half in HALVES for verb in PairVerb}


@pytest.mark.parametrize("verb", PairVerb)
def test_a_verb_ends_normally_in_exactly_these_rows(verb: PairVerb) -> None:
    normal = {}
    for half in HALVES:
        outcome = TRANSITIONS[half, verb]
        if not isinstance(outcome, Refusal):
            normal[half] = outcome
    assert normal == NORMAL[verb]


@pytest.mark.parametrize(
    ("state", "refusal"),
    [(COPY, Refusal.COPYING), (PAIR, Refusal.MIRRORING), (PSUE, Refusal.SUSPENDED_BY_ERROR)],
)
@pytest.mark.parametrize("verb", [PairVerb.RESYNC, PairVerb.SWAP_RESYNC])
@pytest.mark.parametrize("role", [P, S])
def test_abnormal_ends_of_figure_4_name_the_state(
    role: PairRole, verb: PairVerb, state: PairState, refusal: Refusal
) -> None:
    assert TRANSITIONS[(role, state), verb] is refusal


def test_abnormal_ends_of_figure_4_name_the_role() -> None:
    assert TRANSITIONS[(S, PSUS), PairVerb.RESYNC] is Refusal.IS_S_VOL
    assert TRANSITIONS[(P, PSUS), PairVerb.SWAP_RESYNC] is Refusal.IS_P_VOL
    for verb in PairVerb:
        expected = TRANSITIONS[SMPL, verb]
        assert verb is PairVerb.CREATE or expected is Refusal.NOT_PAIRED


def test_every_refusal_has_a_sense_code_of_its_own() -> None:
    codes = {(refusal.sense_key, refusal.asc_ascq) for refusal in Refusal}
    assert len(codes) == len(Refusal.__members__) == len({refusal.text for refusal in Refusal})


@pytest.mark.parametrize("refusal", Refusal)
def test_refusals_are_vendor_specific_and_say_whether_to_try_again(refusal: Refusal) -> None:
    assert 0x80 <= refusal.asc_ascq >> 8 <= 0xFF  # SPC-4 4.5.2.1
    passing = {Refusal.PEER_UNREACHABLE, Refusal.IN_DOUBT, Refusal.NO_VOTE, Refusal.BUSY}
    assert refusal.sense_key == (0x2 if refusal in passing else 0x5)


def test_numbers_that_are_on_the_wire_stay_what_they_are() -> None:
    assert [(role.name, role.value) for role in PairRole] == [("SMPL", 0), ("P_VOL", 1), ("S_VOL", 2)]
    assert [state.name for state in sorted(PairState)] == ["SMPL", "COPY", "PAIR", "PSUS", "PSUE"]
    assert [role.label for role in PairRole] == ["SMPL", "P-VOL", "S-VOL"]
    assert {verb.name for verb in PairOut} - {"WITHDRAW", "VERIFY", "SET_COPY_RATE"} <= {verb.name for verb in PairVerb}
