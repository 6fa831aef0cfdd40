"""Figures 7-13 as readable transcripts: what the drill's real processes did, without what differs from run to run.

One host gets a head start, so that who wins is known. After an intended change:

    PAIRVOL_REWRITE=1 pytest tests/scenarios

writes the transcripts anew; review them as a diff.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
TRANSCRIPTS = Path(__file__).with_name("transcripts")
REWRITE = os.environ.get("PAIRVOL_REWRITE") == "1"
DEADLINE = 120.0

# What depends on the machine: durations, and how many records an application got written in the meantime.
VARYING = (
    (re.compile(r"after [\d.]+ ms"), "after … ms"),
    (re.compile(r"no heartbeat for [\d.]+ s"), "no heartbeat for … s"),
    (re.compile(r"(at|from|of|last) record \d+"), r"\1 record …"),
    (re.compile(r"^\d+ records on"), "… records on"),
    # Whether a loser is told to stop before its writes are refused is a matter of milliseconds, and so are the words in
    # which a lost connection shows.
    (re.compile(r"application of volume (\d+) failed: .*"), r"application of volume \1 ended"),
    (re.compile(r"stopped the application of volume (\d+) at record …"), r"application of volume \1 ended"),
    (re.compile(r"out of reach: .*"), "out of reach"),
    (re.compile(r"stays where it is: .*"), "stays where it is"),
)
# A moment after the start the copy may still be under way, or done.
COPY_OR_PAIR = "COPY or PAIR"

CASES = [
    ("heartbeat", "a"),
    ("heartbeat", "b"),
    ("host-a", "a"),
    ("host-b", "a"),
    ("link", "a"),
    ("array-a", "a"),
    ("array-b", "a"),
]


def run_drill(failure: str, first: str, transcript: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "scripts.failover_drill", "--fail", failure, "--first", first, "--seed", "7"]
    result = subprocess.run(
        [*command, "--json", str(transcript)], cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
    loaded: dict[str, Any] = json.loads(transcript.read_text())
    return loaded


def half(array: int, status: dict[str, Any] | None, figure: str) -> str:
    if status is None:
        return f"array {array} down"
    if figure == "Failure":  # whose survivor may have won the next epoch before anybody could look
        return f"array {array} up"
    state = COPY_OR_PAIR if figure == "Start" and status["state"] in ("COPY", "PAIR") else status["state"]
    return f"array {array} {status['role']} {state} epoch {status['epoch']}"


def readable(transcript: dict[str, Any]) -> str:
    lines = [f"# {transcript['failure']}"]
    for figure in transcript["figures"]:
        number = figure["figure"]
        lines += ["", f"{number}: {figure['title']}"]
        for name, statuses in [("quorum 60/61", figure["quorum"]), *figure["data"].items()]:
            halves = (half(20, statuses["A"], number), half(21, statuses["B"], number))
            lines.append(f"  {name}: " + ", ".join(halves))
        if number != "Failure":
            lines.append(f"  owner: {'host ' + str(figure['owner']) if figure['owner'] else 'nobody'}")
        # Hosts act side by side; what each of them did is in order.
        for who, text in sorted(figure["told"], key=lambda told: str(told[0])):
            for pattern, replacement in VARYING:
                text = pattern.sub(replacement, text)
            lines.append(f"  {who}: {text}")
    lines += ["", "Proof"]
    lines += [f"  {'ok' if check['held'] else 'FAILED'} {check['name']}" for check in transcript["checks"]]
    return "\n".join(lines) + "\n"


@pytest.mark.slow
@pytest.mark.parametrize(("failure", "first"), CASES)
def test_the_drill_goes_as_the_transcript_says(failure: str, first: str, tmp_path: Path) -> None:
    text = readable(run_drill(failure, first, tmp_path / "transcript.json"))
    golden = TRANSCRIPTS / f"{failure}-first-{first}.txt"
    if REWRITE:
        golden.write_text(text)
    assert text == golden.read_text()
