"""What a request for a group asks of each pair, and whose refusal it meets (I9)."""

import pytest

from storage_model.group_register import MAX_GROUP_PAIRS
from storage_model.group_request import GROUP_VERBS, group_epochs, leader_of
from storage_model.nexus import ITNexus
from storage_model.pair import PairEpoch, PairRecord, PairRefused, PairRequest, next_epoch
from storage_model.pair_state import FenceLevel, PairState, PairVerb, Refusal, Side

A, B = "30095", "30096"
HOST = ITNexus("iqn.2026-11.org.pairvol:host", bytes.fromhex("00023d000001"))


def record(
    state: PairState, p_serial: str = A, *, equal: bool = True, fence: FenceLevel = FenceLevel.DATA
) -> PairRecord:
    """Seen from either array; a copy that is not ``equal`` brings what the S-VOL has."""
    source = Side.P_VOL if equal else Side.S_VOL
    return PairRecord(PairEpoch(7, p_serial, state, source, fence), state, equal=equal)


SMPL = PairRecord()
COPY, PAIR, PSUS, PSUE = (record(state) for state in list(PairState)[1:])


def asked(request: PairRequest, **records: PairRecord) -> dict[str, PairEpoch]:
    """Addressed to the first pair; a quorum volume is called so."""

    def value(name: str, each: PairRecord, own: PairRequest) -> PairEpoch:
        other = B if own.serial == A else A
        return next_epoch(each, own, other_serial=other, quorum=name == "quorum", p_vol_written=False)

    return group_epochs("db", records, next(iter(records)), request, value)


def refused(request: PairRequest, **records: PairRecord) -> tuple[Refusal, str]:
    with pytest.raises(PairRefused) as error:
        asked(request, **records)
    return error.value.refusal, str(error.value)


def test_every_value_says_with_whom_it_was_decided() -> None:
    values = asked(PairRequest(PairVerb.SPLIT, A), data=PAIR, log=COPY)
    assert {(value.state, value.epoch, value.group) for value in values.values()} == {(PairState.PSUS, 8, "db")}
    alone = next_epoch(
        PairRecord(values["log"], PairState.PSUS), PairRequest(PairVerb.RESYNC, A),
        other_serial=B, quorum=False, p_vol_written=False,
    )  # fmt: skip
    assert alone.group == "", "the next one may be decided for the pair alone"
    for value in (values["log"], alone):
        assert PairEpoch.decode(value.encode()) == value


@pytest.mark.parametrize(
    ("verb", "serial", "there", "changed"),
    [
        (PairVerb.SPLIT, A, (SMPL, PSUS), PAIR),
        (PairVerb.RESYNC, A, (SMPL, COPY, PAIR), PSUS),
        (PairVerb.RECOVER, B, (SMPL, COPY, PAIR), PSUE),
        (PairVerb.SWAP_RESYNC, B, (SMPL, record(PairState.COPY, B), record(PairState.PSUE, B)), PSUS),
        (PairVerb.DELETE, A, (SMPL,), PSUE),
        (PairVerb.TAKEOVER, A, (SMPL, PSUS, record(PairState.PSUE, fence=FenceLevel.NEVER)), PSUE),
    ],
)
def test_pairs_that_are_there_are_left_out(
    verb: PairVerb, serial: str, there: tuple[PairRecord, ...], changed: PairRecord
) -> None:
    others = {f"other{number}": each for number, each in enumerate(there)}
    assert set(asked(PairRequest(verb, serial, good_side=Side.P_VOL), data=changed, **others)) == {"data"}


@pytest.mark.parametrize("verb", GROUP_VERBS)
def test_the_addressed_pair_is_never_left_out(verb: PairVerb) -> None:
    there, refusal = (PSUS, Refusal.ALREADY_PAIRED) if verb is PairVerb.CREATE else (SMPL, Refusal.NOT_PAIRED)
    assert refused(PairRequest(verb, A), data=there, log=PSUS)[0] is refusal


def test_all_are_created_or_none() -> None:
    values = asked(PairRequest(PairVerb.CREATE, B, 0), data=SMPL, log=PairRecord(PairEpoch(4)))
    assert {(value.p_serial, value.state, value.group) for value in values.values()} == {(B, PairState.COPY, "db")}
    assert [value.epoch for value in values.values()] == [1, 5]
    refusal, text = refused(PairRequest(PairVerb.CREATE, A), data=SMPL, log=PAIR)
    assert refusal is Refusal.ALREADY_PAIRED and "pair log, so none of group db" in text


def test_one_refusal_is_the_groups() -> None:
    refusal, text = refused(PairRequest(PairVerb.SWAP_RESYNC, B), data=PAIR, log=COPY)
    assert refusal is Refusal.COPYING and "pair log, so none of group db" in text
    many = {f"data{number}": PAIR for number in range(MAX_GROUP_PAIRS + 1)}
    assert refused(PairRequest(PairVerb.SPLIT, A), **many)[0] is Refusal.BUSY


def test_a_swap_takes_mirroring_pairs_along_but_a_claimed_quorum_volume_obeys_figure_4() -> None:
    values = asked(PairRequest(PairVerb.SWAP_RESYNC, B, claim=HOST), quorum=PSUS, data=PAIR)
    assert {(value.p_serial, value.state, value.source) for value in values.values()} == {
        (B, PairState.COPY, Side.S_VOL)
    }
    assert values["quorum"].owned_by(B, HOST) and values["data"].owner is None
    assert refused(PairRequest(PairVerb.SWAP_RESYNC, B, claim=HOST), quorum=PAIR, data=PAIR)[0] is Refusal.MIRRORING


def test_expected_epoch_is_that_of_the_addressed_pair() -> None:
    later = PairRecord(PairEpoch(9, A, PairState.PAIR), PairState.PAIR)
    assert asked(PairRequest(PairVerb.SPLIT, A, 7), data=PAIR, log=later)["log"].epoch == 10
    assert refused(PairRequest(PairVerb.SPLIT, A, 7), log=later, data=PAIR)[0] is Refusal.EPOCH_MOVED


def test_a_copy_that_broke_off_goes_on_from_the_side_that_is_complete() -> None:
    broken = record(PairState.PSUE, equal=False)
    values = asked(PairRequest(PairVerb.RECOVER, A, good_side=Side.P_VOL), data=PSUE, log=broken)
    assert {name: value.source for name, value in values.items()} == {"data": Side.P_VOL, "log": Side.S_VOL}
    values = asked(PairRequest(PairVerb.RECOVER, A, good_side=Side.P_VOL, force=True), data=PSUE, log=broken)
    assert values["log"].source is Side.P_VOL, "the operator insists"


def test_who_leads() -> None:
    records = {"data": PAIR, "log": record(PairState.PAIR, B)}
    values = {name: each.decided for name, each in records.items()}
    assert leader_of(records, {"log": values["log"]}, A) == B
    assert leader_of({"new": SMPL}, {"new": SMPL.decided}, A) == A
    with pytest.raises(PairRefused) as error:
        leader_of(records, values, A)
    assert error.value.refusal is Refusal.GROUP_DIVIDED
