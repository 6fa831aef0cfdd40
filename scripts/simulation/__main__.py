"""``scripts/simulate``: the command line of the simulator."""

import argparse
import contextlib
import math
import os
import random
import signal
import sys
import time
import warnings
from collections import Counter
from types import FrameType

from scripts.simulation.campaign import SEEDS, results
from scripts.simulation.variants import VARIANTS, variant
from scripts.simulation.world import run_seed

_FAILED, _USAGE, _INTERRUPTED = 1, 2, 130
_TAIL_LINES = 80
_PROGRESS_SECONDS = 15.0
_JOBS_MAX = 64


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/simulate",
        description="Two arrays, three hosts with their shims and an operator in one process, under virtual time, with "
        "a simulated network, simulated disks, and everything that goes wrong with them. Checkers outside of the "
        "system look for lost writes, stale reads, two owners, unequal copies. A seed is a run, always the same.",
        epilog="exit status: 0 nothing found, 1 a seed failed, 2 wrong arguments, 130 interrupted",
    )
    parser.add_argument("--seeds", type=int, metavar="N", help="so many seeds, from a random one on (default: 100)")
    parser.add_argument(
        "--seed", type=int, metavar="S", help="this one alone, with its digest; with --seeds: the first"
    )
    parser.add_argument("--minutes", type=float, metavar="M", help="begin no seed after so long (default: no bound)")
    parser.add_argument("--variant", metavar="NAME", help=f"a known-bad system: {', '.join(VARIANTS)}")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (default: CPUs)")
    parser.add_argument("--log", type=int, metavar="LINES", help="of --seed: the last lines of what happened")
    return parser


def _check(options: argparse.Namespace) -> str:
    if options.seeds is not None and options.seeds < 1:
        return "--seeds must be 1 or more"
    if options.seed is not None and not 0 <= options.seed < SEEDS:
        return f"--seed must be from 0 to {SEEDS - 1}"
    if options.minutes is not None and not 0 < options.minutes < math.inf:
        return "--minutes must be above 0"
    if options.variant is not None and options.variant not in VARIANTS:
        return f"--variant {options.variant}: not one of {', '.join(VARIANTS)}"
    if not 1 <= options.jobs <= _JOBS_MAX:
        return f"--jobs must be from 1 to {_JOBS_MAX}"
    if options.log is not None and (options.seed is None or options.seeds is not None or options.log < 0):
        return "--log goes with a single --seed"
    return ""


def _one(options: argparse.Namespace) -> int:
    """A single seed, told in full."""
    lines = _TAIL_LINES if options.log is None else options.log
    with variant(options.variant):
        result = run_seed(options.seed, verbose=True, digest=True, tail=lines)
    if result.violations or options.log is not None:
        print("\n".join(result.tail))
    print(f"seed {result.seed}: {result.events} events, {result.virtual_seconds:.1f} virtual seconds")
    print(f"digest {result.digest}")
    for text in result.violations:
        print(f"VIOLATION: {text}")
    return _FAILED if result.violations else 0


def _many(options: argparse.Namespace) -> int:
    first = random.SystemRandom().randrange(SEEDS) if options.seed is None else options.seed
    count = 100 if options.seeds is None else options.seeds
    print(f"first seed {first}", flush=True)
    begun = told = time.monotonic()
    end = math.inf if options.minutes is None else begun + 60 * options.minutes
    faults: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    events = checked = explained = done = 0
    for result in results(first, count, options.variant, options.jobs):
        done += 1
        events += result.events
        checked += result.checked
        explained += result.explained
        faults.update(result.faults)
        outcomes.update(result.outcomes)
        if result.violations:
            print(f"seed {result.seed} failed, the {done}. that was run\n")
            _one(argparse.Namespace(seed=result.seed, variant=options.variant, log=None))
            name = f" --variant {options.variant}" if options.variant else ""
            print(f"again: scripts/simulate --seed {result.seed}{name}", flush=True)
            return _FAILED
        if time.monotonic() > end:
            break
        if time.monotonic() - told > _PROGRESS_SECONDS:
            told = time.monotonic()
            print(f"{done} of {count} seeds", flush=True)
    seconds = time.monotonic() - begun
    print(f"{done} seeds, {events} events in {seconds:.1f} s: {events / seconds:.0f} events a second")
    print(
        f"{checked} blocks read and checked, {explained} answers by tables of reservations; "
        + ", ".join(f"{kind} {n}" for kind, n in sorted(outcomes.items()))
    )
    print("faults: " + ", ".join(f"{kind} {number}" for kind, number in sorted(faults.items())), flush=True)
    if done < count:
        print(f"CUT SHORT: {done} of {count} seeds were run, then --minutes {options.minutes:g} were over", flush=True)
    return 0


def _interrupted(number: int, frame: FrameType | None) -> None:
    warnings.simplefilter("ignore")  # a coroutine that was just made, say, will never be awaited
    raise KeyboardInterrupt


def main(arguments: list[str] | None = None) -> int:
    options = _arguments().parse_args(arguments)
    wrong = _check(options)
    if wrong:
        print(f"scripts/simulate: {wrong}", file=sys.stderr)
        return _USAGE
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupted)
    try:
        return _one(options) if options.seed is not None and options.seeds is None else _many(options)
    except KeyboardInterrupt:
        return _INTERRUPTED
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
