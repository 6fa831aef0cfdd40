"""``scripts/bench``: this array beside tgt, istgt and nbdkit; tables, JSON and a plot."""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.benchmark import bars, clients, interrupts, machine, measures, peers, plot, report
from scripts.benchmark.arrays import ROOT
from scripts.benchmark.compiled_build import compile_checkout
from scripts.benchmark.measures import Comparison
from scripts.benchmark.pairs import PAIR_MEASURES
from scripts.benchmark.results import Results
from scripts.benchmark.samples import Pair
from scripts.benchmark.servers import BenchmarkError
from scripts.benchmark.sessions import SINGLE_MEASURES, SingleMeasure
from scripts.benchmark.stage import MEBIBYTE, Processors, Stage
from storage_model.errors import UserError

_SHORT, _USAGE, _INTERRUPTED = 1, 2, 130
_EPILOG = """\
Each comparison is a number of pairs: ours, the other, ours, the other, each on files of its own that are written from
end to end, cached, and on the same file system; what counts is the median of the pairs' ratios. Servers that a
measure does not use are idle meanwhile.

exit status: 0 measured, whatever the bars say; 1 a floor of --check was not held, or a measure could not be made;
2 wrong arguments, or tools are missing; 130 interrupted, after the tables of what was done
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is done, and how long."""

    comparisons: Sequence[Comparison]
    singles: Sequence[SingleMeasure]
    pairs: int
    seconds: float
    size: int
    bars: Sequence[bars.Bar]


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measures the array and the shim beside Debian's tgt, istgt and nbdkit, with the same clients.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    extent = parser.add_mutually_exclusive_group()
    extent.add_argument("--quick", action="store_true", help="most measures with a bar, 3 pairs each, in 5 minutes")
    extent.add_argument("--check", action="store_true", help="a few ratios with wide margins, for CI, in 90 seconds")
    parser.add_argument("--only", action="append", default=[], metavar="PATTERN", help="measures by (part of) name")
    parser.add_argument("--list", action="store_true", help="print the names of the measures and end")
    parser.add_argument("--pairs", type=int, metavar="N", help="pairs per comparison (5; 3 of --quick, --check)")
    parser.add_argument(
        "--seconds", type=float, metavar="S", help="of each run of a client (2; 0.8 of --quick, --check)"
    )
    parser.add_argument("--root", type=Path, default=ROOT, metavar="DIR", help="run the array of another checkout")
    parser.add_argument("--compiled", action="store_true", help="compile its data path with mypyc first (2 minutes)")
    parser.add_argument("--against", type=Path, metavar="DIR", help="compare with the array of DIR, instead of peers")
    parser.add_argument("--pin", action="store_true", help="servers on the first processor, clients on the others")
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"), help="volumes lie there (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every sample, the machine and the bars")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="a plot of the ratios")
    return parser


def _plan(options: argparse.Namespace) -> Plan:
    """Raises UserError."""
    short = options.quick or options.check
    pairs = options.pairs if options.pairs is not None else (3 if short else 5)
    seconds = options.seconds if options.seconds is not None else (0.8 if short else 2.0)
    if pairs < 1 or not 0.1 <= seconds <= 30:
        raise UserError("--pairs must be at least 1, --seconds between 0.1 and 30")
    every = measures.against_checkout() if options.against else measures.comparisons()
    alone = () if options.check or options.against else (*SINGLE_MEASURES, *PAIR_MEASURES)
    names = _chosen_names(options, every, alone)
    chosen = [each for each in every if each.name in names]
    singles = [each for each in alone if each.name in names]
    for root in filter(None, (options.root, options.against)):
        if not (root / "target" / "__main__.py").is_file():
            raise UserError(f"{root}: there is no array in it")
    size = 128 * MEBIBYTE if short else 256 * MEBIBYTE
    return Plan(chosen, singles, pairs, seconds, size, bars.FLOORS if options.check else bars.BARS)


def _chosen_names(options: argparse.Namespace, every: Sequence[Comparison], alone: Sequence[SingleMeasure]) -> set[str]:
    names = {each.name for each in every} | {each.name for each in alone}
    if options.only:
        if unknown := [pattern for pattern in options.only if not measures.names_that_fit(names, [pattern])]:
            raise UserError(f"--only {unknown[0]}: no measure is called so (see --list)")
        return measures.names_that_fit(names, options.only)
    if options.check and not options.against:
        return {floor.measure for floor in bars.FLOORS}
    long = {each.name for each in every if not each.quick} | {each.name for each in alone if not each.quick}
    return names - long if options.quick else names


def _check_tools(plan: Plan) -> None:
    sides = [side for each in plan.comparisons for side in (each.ours, each.other)]
    missing = peers.missing_packages({side.server for side in sides} | {side.load.client.value for side in sides})
    if missing:
        raise UserError(f"tools are missing: apt-get install {' '.join(missing)}")


def _run(plan: Plan, stage: Stage, results: Results) -> None:
    """Everything that is planned; what goes wrong is one failure, and the next measure goes on."""
    total = len(plan.comparisons) + len(plan.singles)
    for number, comparison in enumerate(plan.comparisons, start=1):
        try:
            pairs = _pairs(comparison, plan, stage)
            results.comparisons[comparison.name] = comparison, pairs
            _say(f"[{number}/{total}] {report.progress(comparison, pairs)}")
            interrupts.check()
        except BenchmarkError as error:
            _fail(results, comparison.name, error)
            stage.end(comparison.ours.server)
            stage.end(comparison.other.server)
    stage.unpin()
    for number, single in enumerate(plan.singles, start=len(plan.comparisons) + 1):
        try:
            value = single.take(stage.directory, stage.root, plan.pairs)
            results.values[single.name] = value
            _say(f"[{number}/{total}] {single.name}: {value.middle:.4g} {value.unit} ({value.note})")
            interrupts.check()
        except (BenchmarkError, OSError) as error:
            _fail(results, single.name, error)


def _pairs(comparison: Comparison, plan: Plan, stage: Stage) -> list[Pair]:
    sides = comparison.ours, comparison.other
    servers = [stage.server(side.server) for side in sides]
    counts = [
        clients.operations_for(server, side.load, plan.seconds) for server, side in zip(servers, sides, strict=True)
    ]
    return clients.pairs(servers, [side.load for side in sides], counts, plan.pairs, plan.seconds)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _fail(results: Results, name: str, error: Exception) -> None:
    results.failures[name] = str(error)
    _say(f"{name}: FAILED: {error}")


def main(words: Sequence[str] | None = None) -> int:
    """Entry point; the exit status."""
    options = _arguments().parse_args(words)
    try:
        plan = _plan(options)
        if options.list:
            print(*(each.name for each in plan.comparisons), *(each.name for each in plan.singles), sep="\n")
            return 0
        _check_tools(plan)
        with interrupts.as_keyboard_interrupts():
            return _measure(plan, options)
    except UserError as error:
        print(f"scripts/bench: {error}", file=sys.stderr)
        return _USAGE


def _measure(plan: Plan, options: argparse.Namespace) -> int:
    status, others = 0, options.against.resolve() if options.against else None
    try:
        place = tempfile.TemporaryDirectory(prefix="pairvol-bench-", dir=options.directory)
    except OSError as error:
        raise UserError(f"--directory {options.directory}: {error.strerror}") from None
    with place as directory:
        root = options.root.resolve()
        results = Results(machine.describe(root, Path(directory), compiled=options.compiled))
        if options.compiled:
            _say("compiling")
            root = compile_checkout(root, Path(directory))
        processors = Processors() if options.pin else None
        try:
            with Stage(Path(directory), root, others, plan.size, processors) as stage:
                _run(plan, stage, results)
        except KeyboardInterrupt:
            status = _INTERRUPTED
    print(*report.lines(results, plan.bars), sep="\n")
    _write(results, plan, options)
    if options.check and any(judged.verdict == "short" for judged in results.judged(plan.bars)):
        status = status or _SHORT
    return status or (_SHORT if results.failures else 0)


def _write(results: Results, plan: Plan, options: argparse.Namespace) -> None:
    if options.json:
        options.json.write_text(json.dumps(results.as_json(plan.bars), indent=1) + "\n")
    if options.svg:
        options.svg.write_text(plot.svg(results, plan.bars))


if __name__ == "__main__":
    sys.exit(main())
