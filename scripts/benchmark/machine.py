"""What the figures hold for: the machine, the file system, the versions, the commit."""

import datetime
import os
import platform
import subprocess
import sys
from pathlib import Path

from scripts.benchmark import peers


def describe(root: Path, directory: Path, *, compiled: bool) -> dict[str, str]:
    """One line per fact, for people and for the JSON."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "kernel": platform.release(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "file system": _file_system(directory),
        "TCP congestion control": _congestion_control(),
        "commit": _commit(root) + (", data path compiled" if compiled else ""),
        **peers.versions(),
        "command": " ".join(["scripts/bench", *sys.argv[1:]]),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _file_system(directory: Path) -> str:
    """The type of the mount that the directory is in."""
    best, found = "", "unknown"
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, kind, *_ = line.split()
        if directory.resolve().is_relative_to(mount) and len(mount) >= len(best):
            best, found = mount, kind
    return found


def _congestion_control() -> str:
    """The system's choice; one that paces, such as bbr, costs those on loopback who leave it at that."""
    try:
        return Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    except OSError:
        return "unknown"


def _commit(root: Path) -> str:
    """Short, with ``+`` when files have changed since; empty outside of a repository."""
    commit = _git(root, "rev-parse", "--short", "HEAD")
    return commit + ("+" if commit and _git(root, "status", "--porcelain", "--untracked-files=no") else "")


def _git(root: Path, *words: str) -> str:
    try:
        said = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return said.stdout.strip()
