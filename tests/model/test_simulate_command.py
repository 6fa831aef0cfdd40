"""``scripts/simulate`` as a command: what it prints, and its exit status."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "scripts.simulation"]


def simulate(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*COMMAND, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_seeds_are_told_with_the_first_one_and_figures() -> None:
    run = simulate("--seeds", "4", "--seed", "100")
    assert (run.returncode, run.stderr) == (0, "")
    first, *_, figures, checked, faults = run.stdout.splitlines()
    assert first == "first seed 100"
    assert re.fullmatch(r"4 seeds, \d+ events in [\d.]+ s: \d+ events a second", figures)
    assert "blocks read and checked" in checked and faults.startswith("faults: ")


def test_time_that_is_up_ends_it() -> None:
    run = simulate("--seeds", "400", "--minutes", "0.001", "--jobs", "1")
    assert (run.returncode, run.stderr) == (0, "")
    assert re.search(r"^first seed \d+$", run.stdout, re.MULTILINE)
    assert "1 seeds of 400, for want of time, " in run.stdout


def test_violation_is_told_with_the_command_that_repeats_it() -> None:
    run = simulate("--seeds", "4", "--seed", "0", "--variant", "vote-told-before-durable")
    assert run.returncode == 1
    seed = re.search(r"^seed (\d+) failed", run.stdout, re.MULTILINE)
    assert seed is not None and "VIOLATION: " in run.stdout
    assert run.stdout.endswith(f"again: scripts/simulate --seed {seed[1]} --variant vote-told-before-durable\n")


def test_log_of_a_seed_has_as_many_lines_as_wanted() -> None:
    run = simulate("--seed", "100", "--log", "5")
    assert (run.returncode, run.stderr) == (0, "")
    *log, events, digest = run.stdout.splitlines()
    assert len(log) == 5
    assert events.startswith("seed 100: ") and re.fullmatch("digest [0-9a-f]{64}", digest)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--seeds", "0"],
        ["--seeds", "many"],
        ["--seed", "-1"],
        ["--minutes", "0"],
        ["--minutes", "nan"],
        ["--jobs", "0"],
        ["--variant", "x"],
        ["--log", "5"],
        ["--seed", "1", "--seeds", "2", "--log", "5"],
        ["more"],
    ],
)
def test_wrong_arguments_are_told_and_end_with_2(arguments: list[str]) -> None:
    run = simulate(*arguments)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr


@pytest.mark.parametrize("jobs", ["1", "2"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_ends_with_130_and_leaves_no_process(number: signal.Signals, jobs: str) -> None:
    command = [*COMMAND, "--seeds", "10000", "--jobs", jobs]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("first seed ")
        process.send_signal(number)
        assert process.stdout.read() == ""  # the workers hold the pipe open as long as they live
        assert process.wait(timeout=30) == 130
