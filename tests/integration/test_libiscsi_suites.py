"""libiscsi's own test suite against every kind of volume: nothing fails, and every test runs on at least one kind."""

import subprocess
import sys
from collections.abc import Callable

import pytest

from scripts.failover_drill.processes import ROOT

SECONDS = 900.0
"""Two to three minutes on two cores that have nothing else to do."""


def run_suites(*words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "scripts.libiscsi_suite", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False)


@pytest.mark.slow
def test_every_test_on_every_kind_of_volume(require_tool: Callable[[str], str]) -> None:
    require_tool("iscsi-test-cu")
    finished = run_suites()
    verdict = finished.stdout[finished.stdout.find("\nfailed:") :]
    assert finished.returncode == 0, verdict + finished.stderr
    assert finished.stdout.endswith("tests, 8 kinds: all well\n")


def test_a_test_that_runs_nowhere_is_a_failure(require_tool: Callable[[str], str]) -> None:
    require_tool("iscsi-test-cu")
    finished = run_suites("--kind", "memory", "--suite", "ReadOnly", "--suite", "TestUnitReady")
    lines = finished.stdout.splitlines()
    assert finished.returncode == 1 and lines[-1] == "2 tests, 1 kinds: FAILED"
    assert "ReadOnly.ReadOnlySBC  skip" in lines and "TestUnitReady.Simple  pass" in lines
    assert [line for line in lines if "not write-protected" in line]
    assert {"failed: 0", "ran unskipped on no kind: 1", "went wrong: 0"} <= set(lines)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--suite", "Reed10"], "--suite Reed10: iscsi-test-cu has no such suite"),
        (["--kind", "tape"], "invalid choice: 'tape'"),
        (["--directory", str(ROOT)], f"--directory {ROOT}: File exists"),
    ],
)
def test_wrong_words(words: list[str], said: str, require_tool: Callable[[str], str]) -> None:
    require_tool("iscsi-test-cu")
    finished = run_suites(*words)
    assert finished.returncode == 2 and said in finished.stderr and "Traceback" not in finished.stderr
