"""What a list of pairs comes to, and how a bar judges it."""

from dataclasses import astuple

import pytest

from scripts.benchmark.bars import BARS, FLOORS, Bar, judge
from scripts.benchmark.measures import comparisons, names_that_fit
from scripts.benchmark.pairs import PAIR_MEASURES
from scripts.benchmark.samples import Pair, Quantity, Sample, Spread, Value, ratios
from scripts.benchmark.sessions import SINGLE_MEASURES

SLOW_MINUTE = 10.0
ALONE = (*SINGLE_MEASURES, *PAIR_MEASURES)


def sample(rate: float, cost: float = 1e-5, relay_cost: float = 0.0) -> Sample:
    """One second of 4 KiB operations."""
    operations = round(rate)
    return Sample(operations, operations / rate, 4096, cost * operations, 1e-6, relay_cost * operations)


def test_figures_of_a_sample() -> None:
    one = Sample(1000, 0.5, 4096, server_seconds=0.02, client_seconds=0.03, relay_seconds=0.04)
    assert one.rate == 2000 and one.throughput == 2000 * 4096
    assert (one.server_cost, one.client_cost, one.relay_cost) == pytest.approx((2e-5, 3e-5, 4e-5))


def test_the_median_of_ratios_not_the_ratio_of_medians() -> None:
    """One pair falls into a slow minute, which both sides of it feel: it moves nothing."""
    pairs = [
        Pair(sample(3000), sample(1000)),
        Pair(sample(3000 / SLOW_MINUTE), sample(1000 / SLOW_MINUTE)),
        Pair(sample(6000), sample(1000)),
    ]
    assert astuple(ratios(pairs, Quantity.RATE)) == pytest.approx((3, 3, 6))


def test_which_side_is_divided_by_which() -> None:
    pair = Pair(sample(3000, cost=1e-5, relay_cost=2e-5), sample(1000, cost=4e-5))
    assert pair.ratio(Quantity.RATE) == pytest.approx(3)
    assert pair.ratio(Quantity.LATENCY) == pytest.approx(1 / 3)
    assert pair.ratio(Quantity.SERVER_CPU) == pytest.approx(0.25)
    assert pair.ratio(Quantity.SHIM_CPU) == pytest.approx(2)


def test_no_figures() -> None:
    with pytest.raises(ValueError, match="no figures"):
        Spread.of([])


@pytest.mark.parametrize(
    ("relation", "figure", "verdict"),
    [("≥", 3.0, "pass"), ("≥", 2.99, "short"), ("≤", 3.0, "pass"), ("≤", 3.01, "short")],
)
def test_a_bar(relation: str, figure: float, verdict: str) -> None:
    bar = Bar("it", "measure", Quantity.VALUE, relation, 3.0)
    assert [judged.verdict for judged in judge([bar], {}, {"measure": Value((figure,), "×")})] == [verdict]


def test_what_was_not_measured_is_neither_pass_nor_short() -> None:
    bars = [Bar("it", "measure", quantity, "≥", 3.0) for quantity in Quantity]
    assert {judged.verdict for judged in judge(bars, {"measure": []}, {})} == {"not measured"}


def test_a_comparison_is_judged_by_its_own_quantity() -> None:
    bars = [Bar("", "it", Quantity.RATE, "≥", 3.0), Bar("", "it", Quantity.SERVER_CPU, "≤", 0.35)]
    judged = judge(bars, {"it": [Pair(sample(3500, cost=2e-5), sample(1000, cost=4e-5))]}, {})
    assert [each.figure for each in judged] == pytest.approx([3.5, 0.5])
    assert [each.verdict for each in judged] == ["pass", "short"]


def test_every_bar_has_a_measure_of_its_own_kind() -> None:
    """A name that nothing is measured under would be a bar that is never missed."""
    compared, alone = {each.name for each in comparisons()}, {each.name for each in ALONE}
    for bar in (*BARS, *FLOORS):
        of_value = bar.quantity in (Quantity.VALUE, Quantity.P99, Quantity.GREATEST)
        assert bar.measure in (alone if of_value else compared), bar


def test_floors_are_of_comparisons() -> None:
    """--check has no time for the others."""
    assert {floor.measure for floor in FLOORS} <= {each.name for each in comparisons()}


def test_a_quick_run_has_every_bar_but_the_writes_of_growth_and_the_copies_of_pairs() -> None:
    quick = {each.name for each in comparisons() if each.quick} | {each.name for each in ALONE if each.quick}
    assert {bar.measure for bar in BARS if bar.measure not in quick} == {
        "growth-64-luns-write", "growth-1tib-write", "growth-64-sessions-write",
        "pair-copy-vs-iperf3", "pair-copy-in-memory-vs-iperf3", "pair-copy-vs-nbdcopy",
        "pair-copy-in-memory-vs-nbdcopy", "pair-write-during-resync", "pair-delta-resync",
    }  # fmt: skip


def test_names_are_used_once() -> None:
    names = [each.name for each in comparisons()] + [each.name for each in ALONE]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("pattern", "fitting"),
    [
        ("read-4k-vs-tgt", {"read-4k-vs-tgt"}),
        ("4k-vs-tgt", {"read-4k-vs-tgt", "random-read-4k-vs-tgt"}),
        ("read-*", {"read-4k-vs-tgt", "read-4k-vs-istgt"}),
        ("write", set()),
    ],
)
def test_patterns(pattern: str, fitting: set[str]) -> None:
    names = ["read-4k-vs-tgt", "random-read-4k-vs-tgt", "read-4k-vs-istgt"]
    assert names_that_fit(names, [pattern]) == fitting


def test_a_value_is_the_median() -> None:
    assert Value((1.0, 9.0, 2.0), "s").middle == 2.0


@pytest.mark.parametrize(
    ("quantity", "figure"), [(Quantity.VALUE, 50.0), (Quantity.P99, 99.0), (Quantity.GREATEST, 100.0)]
)
def test_a_bar_may_be_about_another_figure_of_a_value(quantity: Quantity, figure: float) -> None:
    value = Value(tuple(map(float, reversed(range(101)))), "ms")
    bars = [Bar("it", "measure", quantity, "≤", figure + change, "ms") for change in (0, -0.5)]
    judged = judge(bars, {}, {"measure": value})
    assert [each.figure for each in judged] == [figure] * 2
    assert [each.verdict for each in judged] == ["pass", "short"]


@pytest.mark.parametrize("quantity", [Quantity.VALUE, Quantity.P99, Quantity.GREATEST])
def test_the_only_figure_of_a_value(quantity: Quantity) -> None:
    assert Value((3.0,), "s").figure(quantity) == 3.0
