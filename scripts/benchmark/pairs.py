"""Measures of two arrays with a pair between them: its copies, and RESERVE of a quorum volume."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median

from scripts.benchmark.samples import Quantity, Value
from scripts.benchmark.sessions import SingleMeasure
from scripts.pair_cost.copies import (
    IPERF3,
    MEBIBYTE,
    NBDCOPY,
    Copier,
    Rates,
    delta_resyncs,
    in_memory,
    initial_copies,
    writes_beside_resync,
)
from scripts.pair_cost.reserve import reserve_times

_COPY_BYTES, _LOAD_BYTES, _DELTA_BYTES = 512 * MEBIBYTE, 1024 * MEBIBYTE, 4096 * MEBIBYTE
_WRITES = 2000
"""Few enough for a resync of ``_LOAD_BYTES`` to last longer."""
_RESERVES = 60
"""For each repetition."""


def _initial_copy(other: Copier, directory: Path, root: Path, repetitions: int) -> Value:
    """The ratio of bytes per second, to new files on the disk, until they are durable."""
    return _rates(initial_copies(directory, root, _COPY_BYTES, repetitions, other))


def _initial_copy_in_memory(other: Copier, directory: Path, root: Path, repetitions: int) -> Value:
    """The ratio of bytes per second where no disk limits anybody: over data, on a file system in memory."""
    with in_memory(_COPY_BYTES) as memory:
        return _rates(initial_copies(memory, root, _COPY_BYTES, repetitions, other, onto_data=True))


def _rates(found: Sequence[Rates]) -> Value:
    ours, others = (median(getattr(rates, side) for rates in found) / 1e6 for side in ("ours", "other"))
    return Value(tuple(rates.ratio for rates in found), "×", f"{ours:,.0f} / {others:,.0f} MB/s")


def _writes_during_resync(directory: Path, root: Path, repetitions: int) -> Value:
    """The ratio of writes per second."""
    found, longer = writes_beside_resync(directory, root, _LOAD_BYTES, repetitions, _WRITES)
    during, without = (median(getattr(pair, side).rate for pair in found) for side in ("ours", "other"))
    note = f"{during:,.0f} / {without:,.0f} IOPS"
    if longer < repetitions:
        note += f"; {repetitions - longer} resyncs ended before the writes did"
    return Value(tuple(pair.ratio(Quantity.RATE) for pair in found), "×", note)


def _reserve(directory: Path, root: Path, repetitions: int) -> Value:
    """Milliseconds from RESERVE to GOOD, both votes durable."""
    times = reserve_times(directory, root, _RESERVES * repetitions)
    value = Value(tuple(figure for figures in times.values() for figure in figures), "ms")
    by_way = ", ".join(f"by {way} {median(figures):.3g} ms" for way, figures in times.items())
    return Value(value.figures, value.unit, f"99 of 100 within {value.figure(Quantity.P99):.3g} ms; {by_way}")


def _delta_resync(directory: Path, root: Path, repetitions: int) -> Value:
    """Bytes sent per byte changed, of each share once: they are counted, so that no repetition says more."""
    found = list(delta_resyncs(directory, root, _DELTA_BYTES))
    seconds = ", ".join(f"{each.share:.1%} in {each.copied.seconds:.2f} s" for each in found)
    return Value(tuple(each.ratio for each in found), "×", f"of {_DELTA_BYTES >> 30} GiB {seconds}")


PAIR_MEASURES = (
    SingleMeasure("pair-reserve", _reserve),
    SingleMeasure("pair-copy-vs-iperf3", partial(_initial_copy, IPERF3), quick=False),
    SingleMeasure("pair-copy-vs-nbdcopy", partial(_initial_copy, NBDCOPY), quick=False),
    SingleMeasure("pair-copy-in-memory-vs-iperf3", partial(_initial_copy_in_memory, IPERF3), quick=False),
    SingleMeasure("pair-copy-in-memory-vs-nbdcopy", partial(_initial_copy_in_memory, NBDCOPY), quick=False),
    SingleMeasure("pair-write-during-resync", _writes_during_resync, quick=False),
    SingleMeasure("pair-delta-resync", _delta_resync, quick=False),
)
