"""The failover drill as a newcomer runs it, in its short forms: every failure, a few races, every way to end."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.failover_drill.scenario import Failure
from tests.eventually import eventually

ROOT = Path(__file__).resolve().parents[2]
DEADLINE = 120.0
FIGURES = [*(f"Figure {number}" for number in range(7, 14)), "Start", "Failure", "Proof"]


def drill(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "scripts.failover_drill", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("failure", Failure)
def test_every_failure_ends_as_expected(failure: Failure, tmp_path: Path) -> None:
    transcript_path = tmp_path / "transcript.json"
    result = drill("--fail", failure, "--json", str(transcript_path))
    assert result.returncode == 0, result.stdout + result.stderr
    assert "\x1b" not in result.stdout, "no colours where nobody sees them"
    headings = [line.split("  ")[0].strip() for line in result.stdout.splitlines()]
    assert [heading for heading in FIGURES if heading not in headings] == []
    transcript = json.loads(transcript_path.read_text())
    assert transcript["passed"]
    assert len(transcript["checks"]) >= 14
    assert transcript["seconds"] < 40.0


@pytest.mark.slow
def test_the_embedded_broker_does_as_well() -> None:
    result = drill("--broker", "embedded")
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.slow
def test_a_few_races_have_one_winner_each(tmp_path: Path) -> None:
    transcript_path = tmp_path / "transcript.json"
    result = drill("--races", "5", "--seed", "1", "--json", str(transcript_path))
    assert result.returncode == 0, result.stdout + result.stderr
    races = json.loads(transcript_path.read_text())["races"]
    assert races["races"] == sum(races["won"].values()) == races["refused"] == 5
    assert races["both"] == races["nobody"] == races["timed out"] == 0


@pytest.mark.slow
def test_without_the_shims_both_hosts_win_and_the_drill_says_so(tmp_path: Path) -> None:
    """¶16-¶17: each array grants its own half; a proof that could not fail would prove nothing."""
    result = drill("--without-shims", "--directory", str(tmp_path / "drill"))
    assert result.returncode == 1
    assert "FAILED  start: exactly one host won" in result.stdout
    assert "host 10 and host 11 got GOOD" in result.stdout


@pytest.mark.slow
def test_the_script_itself_runs_the_drill() -> None:
    stamp = Path(sys.prefix, ".pairvol-stamp-demo")
    if not stamp.exists():
        pytest.skip("the environment was not made by scripts/test; scripts/demo would install into it")
    environment = {**os.environ, "PAIRVOL_VENV": sys.prefix}
    result = subprocess.run(
        [str(ROOT / "scripts" / "demo")], env=environment, capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def children_of(pid: int) -> set[int]:
    """All processes below ``pid``, by the parents that /proc names."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
    found = {child for child, parent in parents.items() if parent == pid}
    return found.union(*(children_of(child) for child in found))


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
async def test_however_it_is_ended_no_process_stays(number: signal.Signals, tmp_path: Path) -> None:
    directory = tmp_path / "drill"
    command = [sys.executable, "-m", "scripts.failover_drill", "--races", "100000", "--directory", str(directory)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as conductor:
        try:
            # broker, two arrays, two shims, two nodes
            await eventually(lambda: len(children_of(conductor.pid)) == 7, within=30.0, what="seven children")
            children = children_of(conductor.pid)
            conductor.send_signal(number)
            _, errors = conductor.communicate(timeout=30)
        finally:
            conductor.kill()
    assert conductor.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 130)
    await eventually(lambda: not any(map(lives, children)), what="all children are gone")
    if number != signal.SIGKILL:
        assert "interrupted" in errors
        assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--fail", "everything"], "invalid choice: 'everything' (choose from "),
        (["--broker", "none"], "invalid choice: 'none' (choose from "),
        (["--races", "0"], "a whole number from 1 to 100000"),
        (["--races", "many"], "a whole number from 1 to 100000"),
        (["--races", "9" * 5000], "a whole number from 1 to 100000"),
        (["--races", "5", "--fail", "heartbeat"], "argument --fail: not allowed with argument --races"),
        (["--first", "c"], "invalid choice"),
    ],
)
def test_wrong_usage_is_one_clear_line(arguments: list[str], words: str) -> None:
    result = drill(*arguments)
    assert result.returncode == 2
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert "<" not in result.stderr, "values, not what Python calls them"


def test_a_directory_in_use_is_refused(tmp_path: Path) -> None:
    result = drill("--directory", str(tmp_path))
    assert result.returncode == 2
    assert f"--directory {tmp_path}" in result.stderr


@pytest.mark.parametrize("name", ["nowhere/transcript.json", "."])
def test_a_transcript_that_cannot_be_written_is_told_before_the_drill(name: str, tmp_path: Path) -> None:
    result = drill("--json", str(tmp_path / name), "--directory", str(tmp_path / "drill"))
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"scripts/demo: --json {tmp_path / name}: ") and result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_transcript_may_go_to_standard_output() -> None:
    result = drill("--races", "1", "--json", "-")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["races"]["races"] == 1
    assert "checks held" in result.stderr


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize("last", ["pairvol failover drill", "Figure 7"])
async def test_a_reader_that_goes_away_ends_the_drill_quietly(last: str, tmp_path: Path) -> None:
    """As ``scripts/demo | head`` does: at once, or with everything running."""
    command = [sys.executable, "-m", "scripts.failover_drill", "--races", "100000"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as conductor:
        try:
            assert conductor.stdout is not None and conductor.stderr is not None
            assert any(line.startswith(last) for line in conductor.stdout)
            children = children_of(conductor.pid)
            conductor.stdout.close()
            conductor.wait(timeout=30)
            errors = conductor.stderr.read()
        finally:
            conductor.kill()
    assert (conductor.returncode, errors) == (141, "")
    assert list(tmp_path.iterdir()) == []
    await eventually(lambda: not any(map(lives, children)), what="all children are gone")
