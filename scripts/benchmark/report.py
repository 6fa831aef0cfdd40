"""The tables of a run, as lines of text in Markdown. Pure."""

from collections.abc import Callable, Iterator, Sequence

from scripts.benchmark.bars import Bar
from scripts.benchmark.loads import Client
from scripts.benchmark.measures import Comparison
from scripts.benchmark.results import Results
from scripts.benchmark.samples import Pair, Quantity, Sample, Spread, middle, ratios

_BUSY = 0.9
"""A client in one thread that is busy this much of the time limits what it measures."""


def lines(results: Results, bars: Sequence[Bar]) -> Iterator[str]:
    """Machine, bars, comparisons, values, failures."""
    yield from (f"{name}: {value}" for name, value in results.machine.items())
    yield ""
    yield from _table(["bar", "wanted", "reached", ""], _bar_rows(results, bars))
    if results.comparisons:
        yield ""
        heads = ["measure", "ours", "other", "ratio of rates", "server CPU µs", "ratio", "client CPU µs", "client"]
        yield from _table(heads, [_comparison_row(*found) for found in results.comparisons.values()])
        yield ""
        yield "Ratios: ours by the other's, median of pairs (least to greatest). CPU: per operation, + that of a shim"
        yield "or of the S-VOL's array."
        yield "*: our own client, in one thread, was busy more than nine tenths of the time: the server's CPU judges."
        notes = {comparison.note: None for comparison, _ in results.comparisons.values() if comparison.note}
        yield from notes
    if results.values:
        yield ""
        rows = [
            [
                name,
                f"{value.middle:.4g} {value.unit}",
                f"{min(value.figures):.4g} to {max(value.figures):.4g}",
                value.note,
            ]
            for name, value in results.values.items()
        ]
        yield from _table(["measure", "median", "range", ""], rows)
    for name, reason in results.failures.items():
        yield f"FAILED {name}: {reason}"


def _bar_rows(results: Results, bars: Sequence[Bar]) -> list[list[str]]:
    rows = []
    for judged in results.judged(bars):
        bar = judged.bar
        if judged.figure is not None:
            wanted = f"{bar.relation} {bar.number:g} {bar.unit}"
            rows.append([bar.what, wanted, f"{judged.figure:.3g} {bar.unit}", judged.verdict])
    return rows


def progress(comparison: Comparison, pairs: Sequence[Pair]) -> str:
    """One line about a comparison that is done."""
    rate, cost = ratios(pairs, Quantity.RATE), ratios(pairs, Quantity.SERVER_CPU)
    ours, other = ([getattr(pair, side) for pair in pairs] for side in ("ours", "other"))
    return (
        f"{comparison.name}: {_speed(comparison.ours.load.length, ours)} / "
        f"{_speed(comparison.other.load.length, other)} = {_spread(rate)}, CPU {_spread(cost)}"
    )


def _comparison_row(comparison: Comparison, pairs: Sequence[Pair]) -> list[str]:
    ours, other = [pair.ours for pair in pairs], [pair.other for pair in pairs]
    load = comparison.ours.load
    costs = f"{_micro(ours, _server)} / {_micro(other, _server)}"
    if ours[0].relay_seconds:
        costs = f"+ {_micro(ours, _relay)}: {costs}"
    return [
        comparison.name,
        _speed(load.length, ours),
        _speed(load.length, other),
        _spread(ratios(pairs, Quantity.RATE)),
        costs,
        _spread(ratios(pairs, Quantity.SERVER_CPU)),
        f"{_micro(ours, _client)} / {_micro(other, _client)}",
        load.client.value + ("*" if _client_bound(load.client, ours) or _client_bound(load.client, other) else ""),
    ]


def _client_bound(client: Client, samples: Sequence[Sample]) -> bool:
    return client is Client.OWN and middle(samples, lambda sample: sample.client_seconds / sample.seconds) > _BUSY


def _speed(length: int, samples: Sequence[Sample]) -> str:
    """Operations per second of small ones, bytes per second of large ones."""
    if length < 65536:
        return f"{middle(samples, lambda sample: sample.rate):,.0f} IOPS"
    return f"{middle(samples, lambda sample: sample.throughput) / 1e6:,.0f} MB/s"


def _micro(samples: Sequence[Sample], figure: Callable[[Sample], float]) -> str:
    return f"{1e6 * middle(samples, figure):.1f}"


def _server(sample: Sample) -> float:
    return sample.server_cost


def _relay(sample: Sample) -> float:
    return sample.relay_cost


def _client(sample: Sample) -> float:
    return sample.client_cost


def _spread(spread: Spread) -> str:
    return f"{spread.middle:.2f} ({spread.least:.2f} to {spread.greatest:.2f})"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    for row in (heads, ["-" * width for width in widths], *rows):
        yield "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
