"""``scripts/torture`` as a user runs it: each kind of fault once, arrays that are known to be bad, an interruption."""

import os
import re
from functools import partial
from pathlib import Path

import pytest

from scripts.torture_drill.bad_array import VARIANTS
from scripts.torture_drill.faults import FAULTS
from tests.integration.script_run import run_script

run_torture = partial(run_script, "scripts.torture_drill", seconds=240.0)


def processes_of(directory: Path) -> list[str]:
    """Commands that still run with files in it."""
    found = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = command.read_bytes().decode(errors="replace")
        except OSError:
            continue  # it has ended since
        if str(directory) in words and str(os.getpid()) != command.parent.name:
            found.append(words)
    return found


@pytest.mark.slow
async def test_every_kind_of_fault_once(tmp_path: Path) -> None:
    cycles = len(FAULTS)  # of a seed with two faults at once in one cycle, and one that outlasts the link
    status, output = await run_torture("--cycles", str(cycles), "--seed", "12", "--directory", str(tmp_path / "drill"))
    assert status == 0, output
    assert len(re.findall(r"^cycle ", output, re.MULTILINE)) == cycles
    for kind in FAULTS:
        assert re.search(rf"^faults .*\b{kind} \d", output, re.MULTILINE), f"{kind}: {output}"
    assert re.search(r"^violations +none$", output, re.MULTILINE)
    assert re.search(r"^writes .* acknowledged [1-9]", output, re.MULTILINE)
    assert re.search(r"^reservations +GOOD [1-9]", output, re.MULTILINE)


CAUGHT = {
    "loses-writes": r"copies differ|block \d+ has write",
    "suspended-writes-unmarked": r"copies differ|block \d+ has write",
    "swap-discards": r"block \d+ has write",
    "resync-succeeds-in-pair": r"ownership: ",
}
TAKES_LONGER = {"good-before-vote"}
"""Caught after ten to twenty cycles, when an array is killed at the right moment: by hand."""


@pytest.mark.slow
@pytest.mark.parametrize("variant", CAUGHT)
async def test_a_bad_array_is_caught(tmp_path: Path, variant: str) -> None:
    """A drill that cannot fail proves nothing."""
    directory = tmp_path / "drill"
    words = ("--variant", variant, "--fault", "link cut", "--fault", "array paused", "--directory", str(directory))
    status, output = await run_torture("--cycles", "100", *words)  # nearly always the first few: it ends with the first
    assert status == 1, output
    assert re.search(rf"^(VIOLATION|FAILED): .*({CAUGHT[variant]})", output, re.MULTILINE), output
    assert f"--variant {variant}" in output and str(directory) in output
    assert (directory / "array-a.log").exists()


def test_every_bad_array_has_its_test() -> None:
    assert {*CAUGHT, *TAKES_LONGER} == set(VARIANTS)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["seed", "cycle  1/50"])
async def test_interrupted(tmp_path: Path, moment: str) -> None:
    """The summary of what was done so far, and no process stays."""
    directory = tmp_path / "drill"
    status, output = await run_torture("--cycles", "50", "--directory", str(directory), interrupt_after=moment)
    assert status == 130, output
    assert moment == "seed" or re.search(r"^violations +none$", output, re.MULTILINE)
    assert processes_of(directory) == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--cycles", "0"), "--cycles"),
        (("--seed", "-1"), "--seed"),
        (("--fault", "earthquake"), "--fault earthquake: not one of array killed"),
        (("--variant", "good"), "--variant good: not one of loses-writes"),
        (("--directory", "/dev/null/x"), "--directory /dev/null/x: Not a directory"),
    ],
)
async def test_wrong_arguments(words: tuple[str, ...], told: str) -> None:
    status, output = await run_torture(*words)
    assert status == 2 and told in output and "Traceback" not in output
