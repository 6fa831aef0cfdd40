"""``scripts/simulate`` as a command: what it prints, and its exit status."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.simulation.__main__ import main

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "scripts.simulation"]


def simulate(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*COMMAND, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_seeds_are_told_with_the_first_one_and_figures() -> None:
    run = simulate("--seeds", "2", "--seed", "110", "--jobs", "2")
    assert (run.returncode, run.stderr) == (0, "")
    first, *_, figures, checked, faults = run.stdout.splitlines()
    assert first == "first seed 110"
    assert re.fullmatch(r"2 seeds, \d+ events in [\d.]+ s: \d+ events a second", figures)
    assert "blocks read and checked" in checked and faults.startswith("faults: ")


def test_time_that_is_up_ends_it() -> None:
    run = simulate("--seeds", "400", "--minutes", "0.0001", "--jobs", "1")
    assert (run.returncode, run.stderr) == (0, "")
    assert re.search(r"^first seed \d+$", run.stdout, re.MULTILINE)
    assert run.stdout.endswith("CUT SHORT: 1 of 400 seeds were run, then --minutes 0.0001 were over\n")


def test_violation_is_told_with_the_command_that_repeats_it() -> None:
    run = simulate("--seeds", "9", "--seed", "5", "--variant", "vote-told-before-durable", "--jobs", "1")
    assert (run.returncode, run.stderr) == (1, "")
    assert "seed 5 failed, the 1. that was run" in run.stdout and "VIOLATION: " in run.stdout
    assert run.stdout.endswith("again: scripts/simulate --seed 5 --variant vote-told-before-durable\n")


def test_log_of_a_seed_has_as_many_lines_as_wanted() -> None:
    run = simulate("--seed", "110", "--log", "5")
    assert (run.returncode, run.stderr) == (0, "")
    *log, events, digest = run.stdout.splitlines()
    assert len(log) == 5
    assert events.startswith("seed 110: ") and re.fullmatch("digest [0-9a-f]{64}", digest)


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
def test_wrong_arguments_are_told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = main(arguments)
    except SystemExit as ended:  # by argparse
        status = int(ended.code or 0)
    told = capsys.readouterr()
    assert (status, told.out) == (2, "")
    assert "scripts/simulate: " in told.err


def test_wrong_arguments_end_with_2() -> None:
    run = simulate("--seeds", "0")
    assert (run.returncode, run.stdout, run.stderr) == (2, "", "scripts/simulate: --seeds must be 1 or more\n")


@pytest.mark.parametrize(("number", "jobs"), [(signal.SIGINT, "1"), (signal.SIGINT, "2"), (signal.SIGTERM, "2")])
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
