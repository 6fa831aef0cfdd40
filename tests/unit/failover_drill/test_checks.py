"""The checks: each holds when it should, and, what matters more, each can fail."""

from dataclasses import replace

import pytest

from scripts.failover_drill import checks
from scripts.failover_drill.checks import Race, RaceSeries
from scripts.failover_drill.scenario import (
    EXPECTATIONS,
    FIGURE_8,
    FIGURE_10,
    Expectation,
    Failure,
    Site,
    initiator_name,
)
from storage_model.nexus import ITNexus
from storage_model.pair_state import FenceLevel, PairRole, PairState
from storage_model.spec.pair_cdb import PairStatus, StatusFlag

ISID = bytes.fromhex("800000000001")
RACE = EXPECTATIONS[Failure.HEARTBEAT, Site.A]
SURVIVOR_B = EXPECTATIONS[Failure.HOST_A, Site.A]
OWNER_KEEPS = EXPECTATIONS[Failure.LINK, Site.A]
NOBODY = EXPECTATIONS[Failure.ARRAY_A, Site.A]


def status(site: Site, role: PairRole, state: PairState, epoch: int = 5, owner: Site | None = Site.A) -> PairStatus:
    serial = {Site.A: "30095", Site.B: "30096"}
    return PairStatus(
        role,
        state,
        FenceLevel.DATA,
        StatusFlag.QUORUM | StatusFlag.LINK_UP,
        100,
        epoch,
        60,
        61,
        0,
        1 << 24,
        serial[site],
        serial[site.other],
        serial[owner] if owner else "",
        ITNexus(initiator_name(owner), ISID) if owner else None,
        "quorum0",
        "qgrp",
        "quorum",
    )


def both(state: PairState, epoch: int = 5, owner: Site | None = Site.A) -> dict[Site, PairStatus | None]:
    return {
        Site.A: status(Site.A, PairRole.P_VOL, state, epoch, owner),
        Site.B: status(Site.B, PairRole.S_VOL, state, epoch, owner),
    }


def changed(statuses: dict[Site, PairStatus | None], **fields: object) -> dict[Site, PairStatus | None]:
    """The same, but array 21 says something else."""
    other = statuses[Site.B]
    assert other is not None
    return {**statuses, Site.B: replace(other, **fields)}  # type: ignore[arg-type]


def test_a_figure_holds_in_its_own_state_only() -> None:
    assert checks.figure_holds(FIGURE_8, both(PairState.PAIR)).held
    assert not checks.figure_holds(FIGURE_8, both(PairState.PSUS)).held
    assert checks.figure_holds(FIGURE_10, both(PairState.PSUS)).held
    assert not checks.figure_holds(FIGURE_10, changed(both(PairState.PSUS), state=PairState.PSUE)).held


def test_a_state_that_nobody_can_tell_holds_nothing() -> None:
    assert not checks.figure_holds(FIGURE_8, {Site.A: None, Site.B: None}).held
    assert checks.figure_holds(FIGURE_8, {**both(PairState.PAIR), Site.B: None}).held


@pytest.mark.parametrize(("good", "held"), [([], False), ([Site.A], True), ([Site.B], True), ([Site.A, Site.B], False)])
def test_one_winner(good: list[Site], held: bool) -> None:
    assert checks.one_winner("start", good).held is held


@pytest.mark.parametrize(
    ("expectation", "good", "held"),
    [
        (RACE, [Site.A], True),
        (RACE, [Site.B], True),
        (RACE, [], False),
        (RACE, [Site.A, Site.B], False),
        (SURVIVOR_B, [Site.B], True),
        (SURVIVOR_B, [], False),
        (OWNER_KEEPS, [Site.A], True),
        (OWNER_KEEPS, [Site.B], False),
        (OWNER_KEEPS, [], False),
        (OWNER_KEEPS, [Site.A, Site.B], False),
        (NOBODY, [], True),
        (NOBODY, [Site.B], False),
    ],
)
def test_the_outcome_of_a_failure(expectation: Expectation, good: list[Site], held: bool) -> None:
    assert checks.failure_outcome(expectation, Site.A, good).held is held


def test_arrays_agree() -> None:
    agreed = both(PairState.PAIR)
    assert checks.arrays_agree(agreed).held
    assert not checks.arrays_agree(changed(agreed, epoch=6)).held
    assert not checks.arrays_agree(changed(agreed, owner=None)).held
    assert not checks.arrays_agree(changed(agreed, role=PairRole.P_VOL)).held
    assert not checks.arrays_agree({**agreed, Site.B: None}).held


def test_the_owner_by_the_word_of_the_arrays() -> None:
    agreed = both(PairState.PAIR, owner=Site.B)
    assert checks.owner_site(agreed) is Site.B
    assert checks.owner_site({**agreed, Site.A: None}) is Site.B
    assert checks.owner_site(changed(agreed, owner=None)) is None
    assert checks.owner_site(both(PairState.PSUS, owner=None)) is None


def test_a_winner_owns_a_later_epoch() -> None:
    before = both(PairState.PSUS, epoch=5)
    assert checks.ownership_after(RACE, before, both(PairState.PAIR, 6, Site.B), Site.B).held
    assert not checks.ownership_after(RACE, before, both(PairState.PAIR, 5, Site.B), Site.B).held
    assert not checks.ownership_after(RACE, before, both(PairState.PAIR, 6, Site.A), Site.B).held
    assert not checks.ownership_after(RACE, before, both(PairState.PAIR, 6, None), None).held


def test_an_owner_who_keeps_it_stays_in_its_epoch() -> None:
    before = both(PairState.PSUS, epoch=5)
    assert checks.ownership_after(OWNER_KEEPS, before, both(PairState.PSUS, 5), Site.A).held
    assert not checks.ownership_after(OWNER_KEEPS, before, both(PairState.PSUS, 6), Site.A).held
    assert not checks.ownership_after(NOBODY, before, both(PairState.PSUS, 5, Site.B), None).held


def test_records_must_be_there_and_be_some() -> None:
    assert checks.records_readable(70, {1, 2, 3}, {1, 2, 3, 4}, "array 20").held
    missing = checks.records_readable(70, {1, 2, 3}, {1, 3}, "array 20")
    assert not missing.held
    assert "[2]" in missing.detail
    assert not checks.records_readable(70, set(), {1}, "array 20").held


def test_only_a_reservation_conflict_counts_as_refused() -> None:
    assert checks.refused("host 11", "RESERVATION CONFLICT").held
    assert not checks.refused("host 11", "GOOD").held
    assert not checks.refused("host 11", "CHECK CONDITION 7h 27h/00h").held


def race(*good: Site, seconds: float | None = 0.01) -> Race:
    return Race(frozenset(good), {Site.A: 0.005, Site.B: seconds})


def test_a_series_with_one_winner_in_each_race() -> None:
    series = RaceSeries.of([race(Site.A), race(Site.B, seconds=0.03), race(Site.B)])
    assert series.won == {Site.A: 1, Site.B: 2}
    assert series.refused == 3
    assert series.latency_median == 0.01
    assert series.latency_max == 0.03
    assert all(check.held for check in series.checks())


@pytest.mark.parametrize("bad", [race(), race(Site.A, Site.B), race(Site.A, seconds=None), race(Site.A, seconds=2.5)])
def test_one_bad_race_spoils_a_series(bad: Race) -> None:
    assert not all(check.held for check in RaceSeries.of([race(Site.A), bad]).checks())


def test_a_long_series_must_be_won_by_both() -> None:
    one_sided = [race(Site.A)] * checks.BOTH_SITES_FROM
    assert all(check.held for check in RaceSeries.of(one_sided[1:]).checks())
    assert not all(check.held for check in RaceSeries.of(one_sided).checks())
    assert all(check.held for check in RaceSeries.of([*one_sided, race(Site.B)]).checks())
