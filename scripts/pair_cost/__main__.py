"""``scripts/pair-cost``: what a pair costs its hosts, and what its copies cost the link."""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from scripts.benchmark import clients, interrupts
from scripts.benchmark.arrays import ROOT
from scripts.benchmark.bars import BARS, Bar
from scripts.benchmark.loads import Client, Load
from scripts.benchmark.samples import Pair, Quantity, Value, middle, ratios
from scripts.pair_cost.copies import (
    IPERF3,
    MEBIBYTE,
    NBDCOPY,
    delta_resyncs,
    in_memory,
    initial_copies,
    writes_beside_resync,
)
from scripts.pair_cost.reserve import reserve_times
from scripts.pair_cost.sites import PAIRED, SIMPLE, pair_and_simple
from storage_model.errors import PairvolError, UserError

_USAGE, _INTERRUPTED = 2, 130
_EPILOG = """\
Two arrays are started on loopback. `write`: a volume in PAIR beside one in SMPL at the same array. `copy`: the initial
copy beside iperf3 and nbdcopy, durable on the disk, and in memory (/dev/shm), where no disk limits either. `load`: host
writes while a resync goes on. `resync`: time and bytes of a resync after a share of a sparse volume has changed
(--size). `reserve`: from RESERVE to GOOD of a quorum volume, through two shims.

exit status: 0 measured; 1 a measure could not be made; 2 wrong arguments; 130 interrupted
"""


def write_cost(directory: Path, options: argparse.Namespace) -> dict[str, Any]:
    """4 KiB writes on 256 MiB, in PAIR and in SMPL, in turn."""
    sequential, single = (Load(4096, depth, write=True, client=Client.OWN) for depth in (32, 1))
    loads = {"qd32": (sequential, options.count), "qd32 random": (replace(sequential, random=True), options.count),
             "qd1": (single, max(1, options.count // 4))}  # fmt: skip
    found: dict[str, list[Pair]] = {}
    with pair_and_simple(directory, ROOT, 256 * MEBIBYTE) as array:
        servers = [replace(array, urls=(array.urls[lun],)) for lun in (PAIRED, SIMPLE)]
        for name, (load, count) in loads.items():
            measure = partial(clients.pairs, servers, [load] * 2, [count] * 2)
            measure(1)  # warms the caches
            found[name] = measure(options.repeat)
    sides = {
        f"{state} {load}": [getattr(pair, side) for pair in pairs]
        for load, pairs in found.items()
        for state, side in (("pair", "ours"), ("smpl", "other"))
    }
    iops, latency = ratios(found["qd32"], Quantity.RATE), ratios(found["qd1"], Quantity.LATENCY)
    return {
        **{f"4 KiB writes/s, {name}": round(middle(runs, lambda run: run.rate)) for name, runs in sides.items()},
        **{
            f"CPU per write, µs, {name}, array {array}": round(middle(runs, cost) * 1e6, 1)
            for name, runs in sides.items()
            for array, cost in (("a", lambda run: run.server_cost), ("b", lambda run: run.relay_cost))
        },
        f"IOPS of PAIR / SMPL, QD 32 ({_wanted('pair-write-4k-qd32')} wanted)": round(iops.middle, 3),
        f"latency of PAIR / SMPL, QD 1 (at most {_wanted('pair-write-4k-qd1')} wanted)": round(latency.middle, 2),
    }


def copy_cost(directory: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The initial copy of a volume full of data beside what the loopback and a plain copier of the same file do."""
    size, repetitions = options.copy_size, options.repeat
    on_disk = {each.name: initial_copies(directory, ROOT, size, repetitions, each) for each in (NBDCOPY, IPERF3)}
    with in_memory(size) as memory:
        measure = partial(initial_copies, memory, ROOT, size, repetitions, onto_data=True)
        found = {"disk": on_disk, "memory": {each.name: measure(each) for each in (NBDCOPY, IPERF3)}}
    figures: dict[str, Any] = {}
    for where, measure_of in (("disk", "pair-copy-vs-{}"), ("memory", "pair-copy-in-memory-vs-{}")):
        ours = median(rates.ours for every in found[where].values() for rates in every)
        figures[f"initial copy, {where}, MiB/s"] = round(ours / MEBIBYTE)
        for name, rates in found[where].items():
            figures[f"{name}, {where}, MiB/s"] = round(median(each.other for each in rates) / MEBIBYTE)
            wanted = _wanted(measure_of.format(name))
            ratio = median(each.ratio for each in rates)
            figures[f"initial copy / {name}, {where} ({wanted} wanted)"] = round(ratio, 3)
    return figures


def load_cost(directory: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Host writes of 4 KiB, QD 32, with and without a resync of everything at full speed beside them."""
    pairs, longer = writes_beside_resync(directory, ROOT, options.copy_size * 2, options.repeat, options.count)
    note = "" if longer == options.repeat else "; the resync ended before the writes did"
    wanted = _wanted("pair-write-during-resync")
    ratio = ratios(pairs, Quantity.RATE).middle
    return {f"host writes/s during a resync / without ({wanted} wanted{note})": round(ratio, 3)}


def resync_cost(directory: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Time and bytes of a resync after 0.1, 1, 10 and 100 % of the volume have changed."""
    return {
        f"resync of {done.share * 100:g} %": {
            "changed MiB": round(done.changed_bytes / MEBIBYTE, 1),
            "sent MiB": round(done.copied.sent_bytes / MEBIBYTE, 1),
            "regions": done.copied.regions,
            "seconds": round(done.copied.seconds, 2),
            f"sent / changed (at most {_wanted('pair-delta-resync')} wanted)": round(done.ratio, 3),
        }
        for done in delta_resyncs(directory, ROOT, options.size)
    }


def reserve_cost(directory: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Of a quorum volume, through two shims."""
    times = reserve_times(directory, ROOT, options.reserves)
    value = Value(tuple(figure for figures in times.values() for figure in figures), "ms")
    judged = {bar.quantity: bar for bar in BARS if bar.measure == "pair-reserve"}
    figures = {
        f"RESERVE to GOOD, {name} ms (at most {judged[quantity].number:g} wanted)": _judged(value, judged[quantity])
        for name, quantity in (("median", Quantity.VALUE), ("p99", Quantity.P99))
    }
    return {
        **{f"RESERVE to GOOD by {way}, median ms": round(median(values), 2) for way, values in times.items() if values},
        **figures,
        "RESERVE to GOOD, longest ms": round(max(value.figures), 2),
    }


def _judged(value: Value, bar: Bar) -> str:
    figure = value.figure(bar.quantity)
    return f"{figure:.2f}{'' if bar.reached(figure) else ' (short)'}"


def _wanted(measure: str) -> float:
    """The number of the only bar of a measure."""
    (number,) = (bar.number for bar in BARS if bar.measure == measure)
    return number


_MEASURES: dict[str, Callable[[Path, argparse.Namespace], dict[str, Any]]] = {
    "write": write_cost,
    "copy": copy_cost,
    "load": load_cost,
    "resync": resync_cost,
    "reserve": reserve_cost,
}


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/pair-cost",
        description="What a pair costs its hosts, and what its copies cost the link.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("measures", nargs="*", metavar="MEASURE", help=f"{', '.join(_MEASURES)} (all)")
    parser.add_argument("--size", type=int, default=4096, metavar="MIB", help="of the volume of `resync` (%(default)s)")
    parser.add_argument("--copy-size", type=int, default=512, metavar="MIB", help="of `copy`, half of `load`'s")
    parser.add_argument("--count", type=int, default=20000, help="of 4 KiB writes in a round (%(default)s)")
    parser.add_argument("--repeat", type=int, default=3, help="rounds, of which the median counts (%(default)s)")
    parser.add_argument("--reserves", type=int, default=400, help="of `reserve` (%(default)s)")
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"), help="volumes lie there (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the same figures")
    return parser


def _measure(options: argparse.Namespace, directory: Path) -> int:
    results: dict[str, Any] = {}
    failed = 0
    for name in options.measures or _MEASURES:
        try:
            results[name] = _MEASURES[name](directory, options)
            interrupts.check()
        except (PairvolError, OSError) as error:
            failed = 1
            print(f"{name}: FAILED: {error}", file=sys.stderr, flush=True)
            continue
        for what, figure in results[name].items():
            print(f"{what}: {figure}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    return failed


def _check(options: argparse.Namespace) -> None:
    for name in options.measures:
        if name not in _MEASURES:
            raise UserError(f"{name}: no measure is called so ({', '.join(_MEASURES)})")
    for name in ("size", "copy_size", "count", "repeat", "reserves"):
        if not 1 <= getattr(options, name) <= 1 << 22:
            raise UserError(f"--{name.replace('_', '-')} {getattr(options, name)} is out of range")
    options.size *= MEBIBYTE
    options.copy_size *= MEBIBYTE


def main(words: Sequence[str] | None = None) -> int:
    """Entry point; the exit status."""
    options = _arguments().parse_args(words)
    place = partial(tempfile.TemporaryDirectory, prefix="pairvol-cost-", dir=options.directory)
    try:
        _check(options)
        with interrupts.as_keyboard_interrupts(), place() as directory:
            return _measure(options, Path(directory))
    except (UserError, OSError) as error:
        print(f"scripts/pair-cost: {error}", file=sys.stderr)
        return _USAGE
    except KeyboardInterrupt:
        return _INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
