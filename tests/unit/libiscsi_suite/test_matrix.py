"""The matrix test × kind, what failed, and what ran nowhere."""

from scripts.libiscsi_suite.matrix import failures, never_run, table
from scripts.libiscsi_suite.suite_output import Outcome, Result

TESTS = ["A.One", "A.Two", "B.Three", "B.Four"]
PASSED, SKIPPED = Result(Outcome.PASSED), Result(Outcome.SKIPPED, "why not")
RESULTS = {
    "thin": {"A.One": PASSED, "A.Two": Result(Outcome.FAILED, "x.c:1"), "B.Three": SKIPPED},
    "full": {"A.One": SKIPPED, "A.Two": PASSED, "B.Three": SKIPPED},
}


def test_table() -> None:
    assert [line.split() for line in table(TESTS, RESULTS)] == [
        ["thin", "full"],
        ["A.One", "pass", "skip"],
        ["A.Two", "FAIL", "pass"],
        ["B.Three", "skip", "skip"],
        ["B.Four", "-", "-"],
        ["pass/skip/FAIL", "1/1/1", "1/2/0"],
    ]


def test_what_failed_anywhere() -> None:
    assert failures(TESTS, RESULTS) == ["thin: A.Two: x.c:1"]


def test_what_ran_nowhere() -> None:
    assert never_run(TESTS, RESULTS) == ["B.Three: why not", "B.Four: not run"]
