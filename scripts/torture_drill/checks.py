"""What must hold when a cycle is over and everything is healed and quiet."""

import os
import re
from pathlib import Path

from scripts.failover_drill.processes import ChildProcess
from scripts.torture_drill.stage import Stage
from scripts.torture_drill.volumes import SITES
from scripts.torture_drill.writers import TorturedVolume

DESCRIPTORS_MAX = 48
"""Of one process at rest, about twice what it needs."""
_BAD_LINE = re.compile(r"Traceback|internal error|never retrieved|never awaited|RuntimeWarning| CRITICAL ")
_BAD_LINES_MAX = 5


class Logs:
    """Reads each log from where it was read last."""

    def __init__(self) -> None:
        self._read: dict[Path, int] = {}

    def check(self, directory: Path) -> list[str]:
        """Lines that no fault may bring about."""
        found = []
        for log in sorted(directory.glob("array-*.log")) + sorted(directory.glob("shim-*.log")):
            with log.open("rb") as file:
                file.seek(self._read.get(log, 0))
                text = file.read()
            self._read[log] = self._read.get(log, 0) + len(text)
            bad = [line for line in text.decode(errors="replace").splitlines() if _BAD_LINE.search(line)]
            found += [f"{log.name}: {line}" for line in bad[:_BAD_LINES_MAX]]
        return found


def check_volume(stage: Stage, volume: TorturedVolume) -> list[str]:
    """Both files are the same, and have every acknowledged block."""
    contents = {name: stage.sites[name].content(volume.pair) for name in SITES}
    found = [f"{volume.pair.name} at array a: {text}" for text in volume.blocks.check(contents["a"])[:4]]
    if contents["a"] != contents["b"]:
        size = min(len(content) for content in contents.values())
        at = next((at for at in range(size) if contents["a"][at] != contents["b"][at]), size)
        found.append(f"{volume.pair.name}: the copies differ, first at byte {at}")
    return found


def descriptors(child: ChildProcess) -> int:
    """How many a process has open; 0 where the system does not tell."""
    try:
        return len(os.listdir(f"/proc/{child.pid}/fd"))
    except OSError:
        return 0


def check_descriptors(stage: Stage) -> list[str]:
    counts = {child.name: descriptors(child) for child in stage.children()}
    return [f"{name} has {count} open descriptors" for name, count in counts.items() if count > DESCRIPTORS_MAX]
