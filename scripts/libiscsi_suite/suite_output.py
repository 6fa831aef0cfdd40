"""What ``iscsi-test-cu -V`` printed, to one outcome per test.

The tool's exit status says little, and it counts a test as passed that found a command missing or that was not for this
kind of volume: it prints a line with SKIPPED then. One test prints nothing at all when it does nothing.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

_SUITE = re.compile(r"Suite: (\S+)")
_TEST = re.compile(r"  Test: (\S+) \.\.\.(.*)", re.DOTALL)
_SUMMARY = re.compile(r" +tests +(\d+) +(\d+) +(\d+) +(\d+)")
_VERDICTS = {"passed": True, "FAILED": False}
_REASON = re.compile(r"\s+\d+\. (.*)")
_MAXIMUM_REASONS = 3


class Outcome(StrEnum):
    """Of one test; its text is what the matrix shows."""

    FAILED = "FAIL"
    PASSED = "pass"
    SKIPPED = "skip"
    NOT_RUN = "-"


@dataclass(frozen=True, slots=True)
class Result:
    """``reason`` is the tool's own text, "" for a test that passed."""

    outcome: Outcome
    reason: str = ""


_PRECEDENCE = (Outcome.FAILED, Outcome.PASSED, Outcome.SKIPPED, Outcome.NOT_RUN)


def better_known(one: Result, other: Result) -> Result:
    """Of two runs of a test: a failure counts, and a test that ran once has run."""
    return min(one, other, key=lambda result: _PRECEDENCE.index(result.outcome))


class _Test:
    """One test while its lines are read."""

    def __init__(self) -> None:
        self.passed: bool | None = None
        self.said_anything = False
        self.skipped: list[str] = []
        self.reasons: list[str] = []

    def add(self, line: str) -> None:
        if self.passed is not None:  # what follows the verdict is CUnit's list of reasons, or cleaning up
            reason = _REASON.match(line)
            if not self.passed and reason:
                self.reasons.append(reason[1].strip())
            return
        for word, passed in _VERDICTS.items():
            if line.startswith(word):
                self.passed = passed
                return
        if line.strip():
            self.said_anything = True
        if "[SKIPP" in line:  # SKIPPED, and SKIPPING a part
            self.skipped.append(line.strip())

    def result(self) -> Result:
        if not self.passed:
            unfinished = ["the tool did not come to its end"] if self.passed is None else []
            return Result(Outcome.FAILED, "; ".join([*unfinished, *self.reasons[:_MAXIMUM_REASONS]]))
        if self.skipped:
            return Result(Outcome.SKIPPED, self.skipped[0])
        if not self.said_anything:
            return Result(Outcome.SKIPPED, "it did nothing")
        return Result(Outcome.PASSED)


def parse_output(lines: Iterable[str]) -> tuple[Mapping[str, Result], str]:
    """Results by ``Suite.Test``; what is wrong with the output as a whole, "" when its summary counts the same.

    Of a test that ran twice, the second time counts.
    """
    suite, test = "", _Test()
    tests: list[tuple[str, _Test]] = []
    summary: re.Match[str] | None = None
    for line in lines:
        if found := _SUITE.match(line):
            suite = found[1]
        elif found := _TEST.match(line):
            test = _Test()
            test.add(found[2])
            tests.append((f"{suite}.{found[1]}", test))
        elif found := _SUMMARY.match(line):
            summary = found
        else:
            test.add(line)
    results = [(name, test.result()) for name, test in tests]
    return dict(results), _complaint(results, summary)


def _complaint(results: Sequence[tuple[str, Result]], summary: re.Match[str] | None) -> str:
    if not results:
        return "it ran no test"
    if summary is None:
        return f"it did not come to its summary; the last test was {results[-1][0]}"
    failed = sum(result.outcome is Outcome.FAILED for _, result in results)
    total, ran, _, said_failed = map(int, summary.groups())
    if (total, ran, said_failed) != (len(results), len(results), failed):
        return f"its summary ({summary[0].strip()}) contradicts its {len(results)} tests, {failed} of them failed"
    return ""


def parse_list(lines: Iterable[str]) -> list[str]:
    """The tests that ``iscsi-test-cu --list`` names, as ``Suite.Test``."""
    names = (line.strip().split(".", 2) for line in lines)
    return [".".join(name[1:]) for name in names if len(name) == 3 and name[0] == "ALL"]
