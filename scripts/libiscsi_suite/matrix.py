"""The outcomes of all kinds of volumes, as a table and as a verdict."""

from collections.abc import Mapping, Sequence

from scripts.libiscsi_suite.suite_output import Outcome, Result

Results = Mapping[str, Mapping[str, Result]]
"""By kind, then by test."""

_NOT_RUN = Result(Outcome.NOT_RUN)


def _of(results: Results, kind: str, test: str) -> Result:
    return results.get(kind, {}).get(test, _NOT_RUN)


def table(tests: Sequence[str], results: Results) -> list[str]:
    """One line per test, one column per kind, and a line with the number of each outcome."""
    width = max(map(len, tests), default=0)
    columns = {kind: max(len(kind), len("000/000/000")) for kind in results}
    header = " " * width + "".join(f"  {kind:{columns[kind]}}" for kind in results)
    lines = [header.rstrip()]
    for test in tests:
        cells = "".join(f"  {_of(results, kind, test).outcome:{columns[kind]}}" for kind in results)
        lines.append(f"{test:{width}}{cells}".rstrip())
    totals = ""
    for kind in results:
        outcomes = [_of(results, kind, test).outcome for test in tests]
        counts = (outcomes.count(outcome) for outcome in (Outcome.PASSED, Outcome.SKIPPED, Outcome.FAILED))
        totals += f"  {'/'.join(map(str, counts)):{columns[kind]}}"
    lines.append(f"{'pass/skip/FAIL':{width}}{totals}".rstrip())
    return lines


def failures(tests: Sequence[str], results: Results) -> list[str]:
    """A line for each test that failed on a kind."""
    return [
        f"{kind}: {test}: {result.reason}"
        for kind in results
        for test in tests
        if (result := _of(results, kind, test)).outcome is Outcome.FAILED
    ]


def never_run(tests: Sequence[str], results: Results) -> list[str]:
    """A line for each test that ran on no kind without being skipped, with the reasons that the tool gave."""
    lines = []
    for test in tests:
        found = [_of(results, kind, test) for kind in results]
        if not any(result.outcome is Outcome.PASSED for result in found):
            reasons = dict.fromkeys(result.reason for result in found if result.reason)
            lines.append(f"{test}: {'; '.join(reasons) or 'not run'}")
    return lines
