"""``scripts/test-suites``: libiscsi's test suite against every kind of volume, and the matrix of what came of it."""

import argparse
import asyncio
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from scripts.libiscsi_suite import matrix
from scripts.libiscsi_suite.kinds import KINDS, Kind
from scripts.libiscsi_suite.suite_run import KindRun, list_tests, run_kind
from storage_model.errors import UserError

_FAILED, _USAGE, _INTERRUPTED = 1, 2, 130
TOOL = "iscsi-test-cu"


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/test-suites",
        description=f"Runs libiscsi's {TOOL} against a fresh array of each kind of volume and prints what came of each"
        " test on each kind.",
        epilog="exit status: 0 no test failed, and each ran unskipped on at least one of the kinds; 1 otherwise;"
        " 2 wrong arguments, or the tool is not installed; 130 interrupted",
    )
    kinds = [kind.name for kind in KINDS]
    parser.add_argument(
        "--kind", action="append", choices=kinds, metavar="KIND", help=f"of {', '.join(kinds)}; repeatable"
    )
    parser.add_argument(
        "--suite", action="append", metavar="SUITE", help=f"of those that {TOOL} --list names; repeatable"
    )
    parser.add_argument(
        "--jobs", type=int, default=len(KINDS), help="kinds at the same time (all: the tool mostly sleeps)"
    )
    parser.add_argument("--directory", type=Path, help="keep volumes, logs and the tool's output there (must be new)")
    return parser


async def _run_kinds(
    tool: str, kinds: Sequence[Kind], tests: Sequence[str], jobs: int, directory: Path
) -> list[KindRun]:
    room = asyncio.Semaphore(max(jobs, 1))

    async def run(kind: Kind) -> KindRun:
        async with room:
            found = await run_kind(tool, kind, tests, directory)
            print(f"{kind.name}: done", file=sys.stderr, flush=True)
            return found

    return await asyncio.gather(*(run(kind) for kind in kinds))


async def _report(tool: str, options: argparse.Namespace, directory: Path) -> bool:
    """Print everything; whether all is well."""
    kinds = [kind for kind in KINDS if options.kind is None or kind.name in options.kind]
    tests = await list_tests(tool)
    if options.suite is not None:
        for suite in options.suite:
            if not any(test.startswith(f"{suite}.") for test in tests):
                raise UserError(f"--suite {suite}: {TOOL} has no such suite (see {TOOL} --list)")
        tests = [test for test in tests if test.partition(".")[0] in options.suite]
    found = await _run_kinds(tool, kinds, tests, options.jobs, directory)
    runs = {kind.name: run for kind, run in zip(kinds, found, strict=True)}
    results = {name: run.results for name, run in runs.items()}
    print(*matrix.table(tests, results), sep="\n")
    sections = {
        "failed": matrix.failures(tests, results),
        "ran unskipped on no kind": matrix.never_run(tests, results),
        "went wrong": [f"{name}: {fault}" for name, run in runs.items() for fault in run.faults],
    }
    for title, lines in sections.items():
        print(f"\n{title}: {len(lines)}", *(f"  {line}" for line in lines), sep="\n")
    print(f"\n{len(tests)} tests, {len(kinds)} kinds: {'FAILED' if any(sections.values()) else 'all well'}")
    return not any(sections.values())


def main(words: Sequence[str] | None = None) -> int:
    """Entry point; the exit status."""
    options = _arguments().parse_args(words)
    try:
        tool = shutil.which(TOOL)
        if tool is None:
            raise UserError(f"{TOOL} is not installed (Debian: libiscsi-bin; scripts/test as root installs it)")
        with _directory(options.directory) as directory:
            return 0 if asyncio.run(_report(tool, options, directory)) else _FAILED
    except UserError as error:
        print(f"scripts/test-suites: {error}", file=sys.stderr)
        return _USAGE


@contextmanager
def _directory(wanted: Path | None) -> Iterator[Path]:
    if wanted is None:
        with tempfile.TemporaryDirectory(prefix="pairvol-suites-") as directory:
            yield Path(directory)
        return
    try:
        wanted.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"--directory {wanted}: {error.strerror}") from None
    yield wanted.resolve()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
