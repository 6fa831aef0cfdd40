"""Everything that one run has found, as Python and as JSON. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from scripts.benchmark.bars import Bar, Judged, judge
from scripts.benchmark.measures import Comparison
from scripts.benchmark.samples import Pair, Quantity, Value, ratios


@dataclass(frozen=True, slots=True)
class Results:
    """Filled while the run goes on, by name of the measure. ``failures`` are one line each."""

    machine: Mapping[str, str]
    comparisons: dict[str, tuple[Comparison, list[Pair]]] = field(default_factory=dict)
    values: dict[str, Value] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def judged(self, bars: Sequence[Bar]) -> list[Judged]:
        pairs = {name: pairs for name, (_, pairs) in self.comparisons.items()}
        return judge(bars, pairs, self.values)

    def as_json(self, bars: Sequence[Bar]) -> dict[str, Any]:
        """Every sample; times in seconds, lengths in bytes."""
        return {
            "machine": dict(self.machine),
            "comparisons": {name: _comparison(*found) for name, found in self.comparisons.items()},
            "values": {name: asdict(value) for name, value in self.values.items()},
            "failures": dict(self.failures),
            "bars": [
                {
                    "what": each.bar.what, "measure": each.bar.measure, "quantity": each.bar.quantity.value,
                    "relation": each.bar.relation, "number": each.bar.number, "unit": each.bar.unit,
                    "figure": each.figure, "verdict": each.verdict,
                }
                for each in self.judged(bars)
            ],
        }  # fmt: skip


def _comparison(comparison: Comparison, pairs: Sequence[Pair]) -> dict[str, Any]:
    ours, other = comparison.ours.load, comparison.other.load
    return {
        "ours": comparison.ours.server,
        "other": comparison.other.server,
        "ours_load": {**asdict(ours), "client": ours.client.value},
        "other_load": {**asdict(other), "client": other.client.value},
        "note": comparison.note,
        "ratios": {
            quantity.name.lower(): asdict(ratios(pairs, quantity)) for quantity in (Quantity.RATE, Quantity.SERVER_CPU)
        },
        "pairs": [asdict(pair) for pair in pairs],
    }
