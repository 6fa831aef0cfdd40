"""``scripts/explore`` as a command: what it prints, and its exit status."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "scripts.exploration"]


def explore(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*COMMAND, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_search_ends_with_a_line_of_figures_and_names_what_is_cut() -> None:
    run = explore("--scope", "start", "--scope", "again", "--states", "1500")
    assert (run.returncode, run.stderr) == (0, "")
    cut, last = run.stdout.splitlines()[-2:]
    assert cut == "not complete to their bounds: start"
    assert last.startswith("1 of 2 scopes complete to their bounds, ") and last.endswith("no violation")
    assert "distinct states" in last and "transitions" in last and "I1" in last


def test_violation_is_told_step_by_step_and_ends_with_1() -> None:
    run = explore("--variant", "good-before-vote")
    assert run.returncode == 1
    head, *trace = run.stdout.splitlines()
    assert f"VIOLATION after {len(trace)} steps" in head
    assert trace[0].startswith("  1 host ")


def test_list_names_scopes_and_variants() -> None:
    run = explore("--list")
    assert run.returncode == 0
    assert "scope start: Figure 7" in run.stdout and "variant two-votes: " in run.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["--minutes", "0"],
        ["--states", "-1"],
        ["--processes", "0"],
        ["--scope", "x"],
        ["--scope", "start", "--variants"],
    ],
)
def test_wrong_arguments_are_told_and_end_with_2(arguments: list[str]) -> None:
    run = explore(*arguments)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_ends_with_130_and_leaves_no_process(number: signal.Signals) -> None:
    command = [*COMMAND, "--scope", "start", "--scope", "shims"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        assert ": " in process.stdout.readline()  # the searches hold the pipe open as long as they live
        process.send_signal(number)
        process.stdout.read()
        assert process.wait(timeout=30) == 130
