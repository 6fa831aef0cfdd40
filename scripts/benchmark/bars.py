"""What the project wants to reach, and the floors of --check: data, and how a figure is judged by them. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import ge, le

from scripts.benchmark.samples import Pair, Quantity, Value, ratios

_RELATIONS: dict[str, Callable[[float, float], bool]] = {"≥": ge, "≤": le}


@dataclass(frozen=True, slots=True)
class Bar:
    """``measure`` names a comparison or a value; its median must be ``relation`` ``number`` (of ``unit``).

    Of a value, ``quantity`` may say another figure than the median.
    """

    what: str
    measure: str
    quantity: Quantity
    relation: str
    number: float
    unit: str = "×"

    def reached(self, figure: float) -> bool:
        return _RELATIONS[self.relation](figure, self.number)


@dataclass(frozen=True, slots=True)
class Judged:
    """A bar and the figure of what was measured for it; None when it was not measured."""

    bar: Bar
    figure: float | None

    @property
    def verdict(self) -> str:
        if self.figure is None:
            return "not measured"
        return "pass" if self.bar.reached(self.figure) else "short"


def _pair_of(what: str, measure: str, quantity: Quantity, relation: str, read: float, write: float) -> tuple[Bar, Bar]:
    """A bar for reads and one for writes; ``{}`` in ``measure`` stands for the direction."""
    return (
        Bar(what.format("read"), measure.format("read"), quantity, relation, read),
        Bar(what.format("write"), measure.format("write"), quantity, relation, write),
    )


_RATE, _LATENCY, _CPU, _SHIM = Quantity.RATE, Quantity.LATENCY, Quantity.SERVER_CPU, Quantity.SHIM_CPU

BARS: tuple[Bar, ...] = (
    *_pair_of("4 KiB {} IOPS, QD 32, vs tgt", "{}-4k-qd32-vs-tgt", _RATE, "≥", 3.0, 3.0),
    *_pair_of("4 KiB {} latency, QD 1, vs tgt", "{}-4k-qd1-vs-tgt", _LATENCY, "≤", 0.8, 0.8),
    *_pair_of("CPU of the array per 4 KiB {}, QD 32, vs tgt", "{}-4k-qd32-vs-tgt", _CPU, "≤", 0.35, 0.35),
    *_pair_of("256 KiB {} throughput vs tgt", "{}-256k-qd16-vs-tgt", _RATE, "≥", 1.5, 3.0),
    *_pair_of("4 KiB {} IOPS, QD 32, vs nbdkit", "{}-4k-qd32-vs-nbdkit", _RATE, "≥", 1.3, 1.3),
    *_pair_of("CPU per 4 KiB {}, QD 32, vs nbdkit", "{}-4k-qd32-vs-nbdkit", _CPU, "≤", 0.8, 0.8),
    *_pair_of("256 KiB {} throughput vs nbdkit", "{}-256k-qd16-vs-nbdkit", _RATE, "≥", 1.0, 1.0),
    *_pair_of("digests on vs off, 4 KiB {}", "digests-{}-4k-qd32", _RATE, "≥", 0.8, 0.8),
    *_pair_of("digests on vs off, 256 KiB {}", "digests-{}-256k-qd16", _RATE, "≥", 0.8, 0.8),
    *_pair_of("through the shim vs direct, 4 KiB {}, QD 32", "shim-{}-4k-qd32", _RATE, "≥", 0.6, 0.6),
    *_pair_of("through the shim vs direct, 256 KiB {}", "shim-{}-256k-qd16", _RATE, "≥", 0.8, 0.8),
    *_pair_of("the shim's CPU vs the array's, 4 KiB {}", "shim-{}-4k-qd32", _SHIM, "≤", 1.0, 1.0),
    *_pair_of("the shim's CPU vs the array's, 256 KiB {}", "shim-{}-256k-qd16", _SHIM, "≤", 1.0, 1.0),
    Bar("memory of an idle session", "idle-sessions", Quantity.VALUE, "≤", 64, "KiB"),
    Bar("login storm of 1,000", "login-storm", Quantity.VALUE, "≥", 500, "logins/s"),
    # Flat to ±15 %: what gets cheaper with size costs nobody anything.
    *_pair_of("CPU per 4 KiB {}, 64 LUNs vs 1", "growth-64-luns-{}", _CPU, "≤", 1.15, 1.15),
    *_pair_of("CPU per 4 KiB {}, 1 TiB volume vs 64 MiB", "growth-1tib-{}", _CPU, "≤", 1.15, 1.15),
    *_pair_of("CPU per 4 KiB {}, 64 sessions vs 1", "growth-64-sessions-{}", _CPU, "≤", 1.15, 1.15),
    Bar("start with 1,000 volumes", "start-1000-volumes", Quantity.VALUE, "≤", 2.0, "s"),
    Bar("4 KiB write IOPS, QD 32, PAIR vs SMPL", "pair-write-4k-qd32", _RATE, "≥", 0.45),
    Bar("4 KiB write latency, QD 1, PAIR vs SMPL", "pair-write-4k-qd1", _LATENCY, "≤", 2.2),
    # Durable at the end, both of them; the disk is that of the machine, and iperf3 has none.
    Bar("initial copy, disk, vs iperf3", "pair-copy-vs-iperf3", Quantity.VALUE, "≥", 0.5),
    Bar("initial copy, disk, vs nbdcopy", "pair-copy-vs-nbdcopy", Quantity.VALUE, "≥", 1.0),
    Bar("initial copy, memory, vs iperf3", "pair-copy-in-memory-vs-iperf3", Quantity.VALUE, "≥", 0.5),
    Bar("initial copy, memory, vs nbdcopy", "pair-copy-in-memory-vs-nbdcopy", Quantity.VALUE, "≥", 1.0),
    Bar("host writes during a resync vs without", "pair-write-during-resync", Quantity.VALUE, "≥", 0.5),
    Bar("RESERVE to GOOD, median", "pair-reserve", Quantity.VALUE, "≤", 10, "ms"),
    Bar("RESERVE to GOOD, 99 of 100", "pair-reserve", Quantity.P99, "≤", 50, "ms"),
    Bar("bytes sent per byte changed, resync", "pair-delta-resync", Quantity.GREATEST, "≤", 1.2),
)

# For continuous integration: of what this array reached when a line was last touched, on 2 cores of a virtual machine,
# six tenths of a rate, and CPU time by six tenths, so that a regression by such a factor fails and a noisy neighbour
# does not. They are ratios within one run, so they hold on a faster or slower machine as well. CPU time hardly moves
# when a neighbour takes the processors away; rates halve and double.
FLOORS: tuple[Bar, ...] = (
    Bar("4 KiB read IOPS vs tgt", "read-4k-qd32-vs-tgt", _RATE, "≥", 0.5),
    Bar("4 KiB write IOPS vs tgt", "write-4k-qd32-vs-tgt", _RATE, "≥", 0.5),
    Bar("CPU per 4 KiB read vs tgt", "read-4k-qd32-vs-tgt", _CPU, "≤", 1.0),
    Bar("CPU per 4 KiB write vs tgt", "write-4k-qd32-vs-tgt", _CPU, "≤", 1.2),
    Bar("256 KiB read throughput vs tgt", "read-256k-qd16-vs-tgt", _RATE, "≥", 0.8),
    Bar("256 KiB write throughput vs tgt", "write-256k-qd16-vs-tgt", _RATE, "≥", 0.6),
    Bar("digests on vs off, 4 KiB read", "digests-read-4k-qd32", _RATE, "≥", 0.4),
    Bar("through the shim vs direct, 4 KiB read", "shim-read-4k-qd32", _RATE, "≥", 0.2),
    Bar("CPU per 4 KiB write, PAIR vs SMPL", "pair-write-4k-qd32", _CPU, "≤", 8.0),
)


def judge(bars: Sequence[Bar], pairs: Mapping[str, Sequence[Pair]], values: Mapping[str, Value]) -> list[Judged]:
    """Each bar with its figure: the median of the ratios of a comparison, or that of a value."""
    judged = []
    for bar in bars:
        figure: float | None = None
        if bar.measure in values:
            figure = values[bar.measure].figure(bar.quantity)
        elif pairs.get(bar.measure):
            figure = ratios(pairs[bar.measure], bar.quantity).middle
        judged.append(Judged(bar, figure))
    return judged
