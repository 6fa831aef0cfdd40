"""``scripts/explore``: the command line of the exhaustive exploration."""

import argparse
import contextlib
import os
import resource
import signal
import sys
import time
from types import FrameType

from scripts.exploration.invariants import CHECKED
from scripts.exploration.scope import SCOPES
from scripts.exploration.search import Limits, Outcome, Violation
from scripts.exploration.variants import VARIANTS
from scripts.exploration.workers import WorkerDied, search_all, searched

_FAILED, _USAGE, _INTERRUPTED = 1, 2, 130
_VARIANT_SECONDS = 60.0


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/explore",
        description="Explores, breadth first, every order in which two arrays, their link and the hosts' shims can "
        "act: deliveries, losses of the link, crashes, late answers, splits, releases, writes. The code is the "
        "product's own; only disks, sockets and clocks are replaced. Each scope bounds how often each misfortune "
        "happens and, where that leaves too much, how many events there are; within these bounds every order is gone "
        "through, in about 5 minutes on two processors. The invariants are checked in every state, and a violation "
        "is told by its shortest trace.",
        epilog="exit status: 0 nothing was found (with --variants: each was caught), 1 otherwise, 2 wrong arguments, "
        "130 interrupted. A search takes about half a kilobyte of memory for each state.",
    )
    parser.add_argument("--scope", action="append", choices=SCOPES, help="one of several to explore (default: all)")
    parser.add_argument(
        "--minutes", type=float, help="for all scopes together: cuts what is not complete by then (default: no limit)"
    )
    parser.add_argument("--states", type=int, default=0, help="of one scope at most (default: no limit)")
    parser.add_argument("--depth", type=int, help="events from the beginning, 0: no bound (default: each scope's own)")
    parser.add_argument(
        "--processes", type=int, default=min(2, os.cpu_count() or 1), help="searches at a time (default: %(default)s)"
    )
    parser.add_argument("--variant", choices=VARIANTS, help="break this rule, and show that it is found")
    parser.add_argument("--variants", action="store_true", help="break each rule in turn")
    parser.add_argument("--list", action="store_true", help="say what the scopes and variants are")
    return parser


def _say(text: str) -> None:
    print(text, flush=True)


def _list() -> None:
    for scope in SCOPES.values():
        spent = ", ".join(f"{name} {count}" for name, count in scope.spent)
        _say(f"scope {scope.name}: {scope.about}: {scope.bound} ({spent})")
    for variant in VARIANTS.values():
        _say(f"variant {variant.name}: {variant.about}")
    for name, words in CHECKED.items():
        _say(f"checked {name}: {words}")


def _tell_violation(name: str, violation: Violation) -> None:
    _say(f"{name}: VIOLATION after {violation.length} steps: {violation.invariant}")
    for line in violation.trace:
        _say(line)


def _limits(options: argparse.Namespace) -> Limits:
    return Limits(options.depth, options.states, (options.minutes or 0) * 60)


def _explore(options: argparse.Namespace) -> int:
    scopes = [SCOPES[name] for name in options.scope or SCOPES]
    outcomes: list[Outcome] = []

    def found(outcome: Outcome) -> None:
        outcomes.append(outcome)
        _say(f"{len(outcomes)} of {len(scopes)} scopes done, {_outcome_words(outcome)}")
        if outcome.violation is not None:
            _tell_violation(outcome.scope.name, outcome.violation)

    began = time.monotonic()
    search_all(scopes, _limits(options), options.processes, _say, found)
    return _summary(outcomes, time.monotonic() - began, own_bounds=options.depth is None)


def _outcome_words(outcome: Outcome) -> str:
    if outcome.complete:
        how = "complete to its bound"
    else:
        how = f"incomplete, {outcome.frontier:,} states left to go on from"
    return (
        f"{outcome.scope.name}: {outcome.states:,} states ({outcome.configurations:,} apart from budgets and ghosts), "
        f"{outcome.transitions:,} transitions, depth {outcome.depth}, {outcome.ends:,} states with an end of a race, "
        f"{outcome.seconds:.0f} s, {outcome.array_states:,} states of single arrays, {outcome.audited} ways run again; "
        f"{how}"
    )


def _summary(outcomes: list[Outcome], seconds: float, *, own_bounds: bool) -> int:
    """The last lines, and the exit status. A bound of ours within which no race ends would be a bound too small."""
    bad = [outcome.scope.name for outcome in outcomes if outcome.violation is not None]
    cut = [outcome.scope.name for outcome in outcomes if not outcome.complete and outcome.violation is None]
    races = [outcome for outcome in outcomes if own_bounds and outcome.scope.budget.reserves]
    endless = [outcome.scope.name for outcome in races if outcome.complete and not outcome.ends]
    if cut:
        _say(f"not complete to their bounds: {', '.join(cut)}")
    if endless:
        _say(f"no race has an end within the bounds of: {', '.join(endless)}")
    megabytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    _say(
        f"{sum(outcome.complete for outcome in outcomes)} of {len(outcomes)} scopes complete to their bounds, "
        f"{sum(outcome.states for outcome in outcomes):,} distinct states, "
        f"{sum(outcome.transitions for outcome in outcomes):,} transitions, depth up to "
        f"{max(outcome.depth for outcome in outcomes)}, {sum(outcome.ends for outcome in outcomes):,} states with an "
        f"end of a race, {seconds:.0f} s, {megabytes:.0f} MiB the largest search; checked {', '.join(CHECKED)}: "
        + (f"VIOLATED in {', '.join(bad)}" if bad else "no violation")
    )
    return _FAILED if bad or endless else 0


def _break_one(name: str, seconds: float) -> int:
    outcome = _broken(name, seconds)
    if outcome.violation is None:
        _say(f"{name}: NOT CAUGHT in {outcome.states:,} states")
        return 0
    _tell_violation(name, outcome.violation)
    return _FAILED


def _break_all(seconds: float) -> int:
    missed = []
    for name, variant in VARIANTS.items():
        outcome = _broken(name, seconds)
        if outcome.violation is None:
            missed.append(name)
            _say(f"{name}: NOT CAUGHT in {outcome.states:,} states ({variant.about})")
        else:
            _say(f"{name}: caught after {outcome.violation.length} steps, {outcome.states:,} states: {variant.about}")
            _say(f"    {outcome.violation.invariant}")
    _say(f"{len(VARIANTS) - len(missed)} of {len(VARIANTS)} known-bad variants caught")
    return _FAILED if missed else 0


def _broken(name: str, seconds: float) -> Outcome:
    with VARIANTS[name].in_place():
        return searched(VARIANTS[name].scope, Limits(seconds=seconds, audits=0))


def _check(options: argparse.Namespace) -> str:
    if (options.minutes is not None and options.minutes <= 0) or options.states < 0 or (options.depth or 0) < 0:
        return "--minutes must be above 0, --states and --depth not below"
    if not 1 <= options.processes <= 64:
        return "--processes must be 1 to 64"
    if options.scope and (options.variant or options.variants):
        return "a variant has a scope of its own: --scope cannot be given with it"
    return ""


def _terminated(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    options = _arguments().parse_args()
    wrong = _check(options)
    if wrong:
        print(f"scripts/explore: {wrong}", file=sys.stderr)
        return _USAGE
    signal.signal(signal.SIGTERM, _terminated)
    try:
        if options.list:
            _list()
            return 0
        seconds = min(_VARIANT_SECONDS, (options.minutes or 1) * 60)
        if options.variant:
            return _break_one(options.variant, seconds)
        if options.variants:
            return _break_all(seconds)
        return _explore(options)
    except WorkerDied as error:
        print(f"scripts/explore: {error}", file=sys.stderr)
        return _FAILED
    except KeyboardInterrupt:
        return _INTERRUPTED
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
