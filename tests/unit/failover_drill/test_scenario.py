"""The expectations: every failure at every owner has one, and none of them lets two hosts win."""

import itertools
import tomllib
from pathlib import Path

import pytest

from scripts.failover_drill.scenario import (
    DATA_PAIRS,
    EXPECTATIONS,
    FIGURES,
    NUMBERS,
    QUORUM,
    Expectation,
    Failure,
    Outcome,
    Site,
    initiator_name,
    shown_state,
    site_of_initiator,
)
from storage_model.pair_state import PairRole, PairState
from target.config import ArrayConfig, parse_config

EXAMPLES = Path(__file__).resolve().parents[3] / "scripts" / "examples"


def test_every_failure_has_an_expectation_for_either_owner() -> None:
    assert set(EXPECTATIONS) == set(itertools.product(Failure, Site))


@pytest.mark.parametrize(("failure", "owner"), EXPECTATIONS)
def test_who_is_dead_cannot_win(failure: Failure, owner: Site) -> None:
    expectation = EXPECTATIONS[failure, owner]
    assert failure.dead_host not in expectation.good
    assert failure.dead_array not in expectation.good


@pytest.mark.parametrize(("failure", "owner"), EXPECTATIONS)
def test_without_both_arrays_votes_nobody_new_wins(failure: Failure, owner: Site) -> None:
    expectation = EXPECTATIONS[failure, owner]
    if failure is Failure.LINK or failure.dead_array is not None:
        assert expectation.outcome is not Outcome.ONE_WINS
        assert expectation.good <= {owner}
        assert not expectation.takeover
    else:
        assert expectation.outcome is Outcome.ONE_WINS
        assert expectation.takeover


@pytest.mark.parametrize("expectation", set(EXPECTATIONS.values()), ids=lambda e: e.why[:30])
def test_the_outcome_and_who_may_have_good_fit(expectation: Expectation) -> None:
    match expectation.outcome:
        case Outcome.NOBODY:
            assert not expectation.good
        case Outcome.OWNER_KEEPS:
            assert len(expectation.good) == 1
        case Outcome.ONE_WINS:
            assert expectation.good
    assert (expectation.quorum is PairState.PAIR) == expectation.takeover


def test_the_figures_are_those_of_the_patent_in_their_order() -> None:
    names = [figure.name for figure in FIGURES]
    numbered = [f"Figure {number}" for number in range(7, 14)]
    assert [name for name in names if name.startswith("Figure")] == numbered
    assert names.index("Start") == names.index("Figure 7") + 1
    assert names.index("Failure") == names.index("Figure 11") + 1


def test_a_host_is_known_by_its_initiator_name() -> None:
    for site in Site:
        assert site_of_initiator(initiator_name(site)) is site
    assert site_of_initiator("iqn.2026-11.org.pairvol:drill-conductor") is None


def test_a_suspended_s_vol_shows_ssus() -> None:
    assert shown_state(PairRole.S_VOL, PairState.PSUS) == "SSUS"
    assert shown_state(PairRole.P_VOL, PairState.PSUS) == "PSUS"
    assert shown_state(PairRole.S_VOL, PairState.PAIR) == "PAIR"


def example(site: Site) -> ArrayConfig:
    path = EXAMPLES / f"site-{site.lower()}.toml"
    return parse_config(path.read_text(), str(path))


@pytest.mark.parametrize("site", Site)
def test_the_example_configurations_are_the_sites_of_the_scenario(site: Site) -> None:
    volumes = {volume.lun: volume for volume in example(site).volumes}
    for pair in (QUORUM, *DATA_PAIRS):
        volume = volumes[pair.lun]
        assert volume.ldev == pair.number_at(site)
        assert volume.quorum == (pair is QUORUM)
        assert volume.file == f"{'quorum' if volume.quorum else 'data'}-{volume.ldev}.img"
    assert len(volumes) == 1 + len(DATA_PAIRS)


def test_the_example_configurations_are_each_other_s_peers() -> None:
    a, b = example(Site.A), example(Site.B)
    assert a.remote_copy is not None
    assert b.remote_copy is not None
    assert (a.remote_copy.peer, a.remote_copy.peer_serial) == (b.remote_copy.listen, b.serial)
    assert (b.remote_copy.peer, b.remote_copy.peer_serial) == (a.remote_copy.listen, a.serial)
    assert [(pair.name, pair.group, pair.fence) for pair in a.pairs] == [
        (pair.name, pair.group, pair.fence) for pair in b.pairs
    ]
    addresses = [*a.portals, *b.portals, a.remote_copy.listen, b.remote_copy.listen]
    assert len(set(addresses)) == len(addresses)


def test_the_example_configurations_are_toml_without_secrets() -> None:
    for site in Site:
        assert "array" in tomllib.loads((EXAMPLES / f"site-{site.lower()}.toml").read_text())
    assert {numbers.host for numbers in NUMBERS.values()} == {10, 11}
