"""The comparisons as one SVG: a bar per ratio on a logarithmic scale, the range of the pairs, what is wanted. Pure.

Colours are in the style sheet, once for light and once for dark pages.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape
from math import log10

from scripts.benchmark.bars import Bar
from scripts.benchmark.results import Results
from scripts.benchmark.samples import Quantity, Spread, ratios

_ROW, _TOP, _LABEL, _PANEL, _GAP = 22, 76, 250, 300, 34
_LEAST, _GREATEST = 0.1, 10.0
_TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10)
_STYLE = """
text { font: 12px system-ui, sans-serif; fill: #24292f } .small { font-size: 10px; fill: #57606a }
.title { font-size: 14px; font-weight: 600 } .page { fill: #ffffff } .grid { stroke: #d0d7de } .one { stroke: #57606a }
.good { fill: #1a7f37 } .short { fill: #bc4c00 } .plain { fill: #54aeff } .range { stroke: #24292f }
.wanted { stroke: #8250df; stroke-width: 2.5 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .small { fill: #9198a1 } .page { fill: #0d1117 } .grid { stroke: #30363d }
.one { stroke: #9198a1 } .good { fill: #3fb950 } .short { fill: #f0883e } .plain { fill: #388bfd }
.range { stroke: #e6edf3 } .wanted { stroke: #d2a8ff }
}
"""


@dataclass(frozen=True, slots=True)
class _Panel:
    title: str
    quantity: Quantity
    left: int


_PANELS = (
    _Panel("operations per second, ours / other (right is better)", Quantity.RATE, _LABEL),
    _Panel("server CPU per operation, ours / other (left is better)", Quantity.SERVER_CPU, _LABEL + _PANEL + _GAP),
)


def svg(results: Results, bars: Sequence[Bar]) -> str:
    """The whole file."""
    width = _LABEL + 2 * _PANEL + 2 * _GAP
    height = _TOP + _ROW * len(results.comparisons) + 34
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
    return "\n".join([head, f"<style>{_STYLE}</style>", *_body(results, bars, width, height), "</svg>", ""])


def _body(results: Results, bars: Sequence[Bar], width: int, height: int) -> Iterator[str]:
    machine = results.machine
    about = ", ".join(machine[key] for key in ("date", "processor", "python", "commit") if machine.get(key))
    yield f'<rect class="page" width="{width}" height="{height}"/>'
    yield _text(12, 20, "The array beside other targets: medians of pairs, thin line: least to greatest", "title")
    yield _text(12, 38, f"{about}; {machine.get('command', '')}", "small")
    for panel in _PANELS:
        yield from _axis(panel, height)
    for row, (name, (_, pairs)) in enumerate(results.comparisons.items()):
        y = _TOP + row * _ROW
        yield _text(12, y + 14, name)
        wanted = {bar.quantity: bar for bar in map(_as_rate, bars) if bar.measure == name}
        for panel in _PANELS:
            bar = wanted.get(panel.quantity)
            yield from _bar(panel, y, ratios(pairs, panel.quantity), bar)
    legend = "green: as wanted, orange: short of it, blue: nothing is wanted; purple mark: what is wanted"
    yield _text(12, height - 10, legend, "small")


def _as_rate(bar: Bar) -> Bar:
    """At queue depth 1 the rate is the inverse of the latency."""
    if bar.quantity is not Quantity.LATENCY:
        return bar
    return replace(bar, quantity=Quantity.RATE, relation="≥", number=1 / bar.number)


def _axis(panel: _Panel, height: int) -> Iterator[str]:
    yield _text(panel.left, _TOP - 20, panel.title, "small")
    for tick in _TICKS:
        x = panel.left + _along(tick)
        kind = "one" if tick == 1 else "grid"
        yield f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 4}" y2="{height - 30}"/>'
        yield _text(x - 6, _TOP - 7, f"{tick:g}", "small")


def _bar(panel: _Panel, y: int, spread: Spread, bar: Bar | None) -> Iterator[str]:
    """From 1 to the median, so that equal to the other is no bar at all."""
    kind = "plain" if bar is None else "good" if bar.reached(spread.middle) else "short"
    ends = sorted((panel.left + _along(1), panel.left + _along(spread.middle)))
    yield (
        f'<rect class="{kind}" x="{ends[0]:.1f}" y="{y + 4}" width="{max(1.5, ends[1] - ends[0]):.1f}" height="14">'
        f"<title>{spread.middle:.2f} ({spread.least:.2f} to {spread.greatest:.2f})</title></rect>"
    )
    least, greatest = panel.left + _along(spread.least), panel.left + _along(spread.greatest)
    yield f'<line class="range" x1="{least:.1f}" x2="{greatest:.1f}" y1="{y + 11}" y2="{y + 11}"/>'
    if bar is not None:
        x = panel.left + _along(bar.number)
        yield f'<line class="wanted" x1="{x:.1f}" x2="{x:.1f}" y1="{y + 1}" y2="{y + 21}"/>'
    yield _text(panel.left + _PANEL + 3, y + 15, f"{spread.middle:.2f}", "small")


def _along(ratio: float) -> float:
    """Distance from a panel's left edge; what is off the scale ends at its edge."""
    within = min(max(ratio, _LEAST), _GREATEST)
    return _PANEL * (log10(within) - log10(_LEAST)) / (log10(_GREATEST) - log10(_LEAST))


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y}"' + (f' class="{kind}"' if kind else "") + f">{escape(text)}</text>"
