"""What a guest is made of, fetched once: a user-mode Linux kernel, and unpacked packages that lie over the host's root.

Debian packages are downloaded and unpacked into a cache folder; nothing is installed. The layer has what the host
lacks, so it is bound to the host's list of installed packages, and is made anew when that changes.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

KERNEL_PACKAGE = "user-mode-linux"
GUEST_PACKAGES = ("open-iscsi", "sg3-utils", "fio", "lvm2", "kmod", "e2fsprogs", "iproute2", "procps")
_INSTALLED = Path("/var/lib/dpkg/status")
_FETCH_SECONDS = 300
_APT = ("apt-get", "-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=3", "-q")


class GuestFilesMissing(Exception):
    """The packages could not be fetched; the text says why."""


@dataclass(frozen=True)
class GuestFiles:
    """``layer`` lies over the host's root in the guest; ``modules`` are the kernel's."""

    kernel: Path
    modules: Path
    layer: Path


def cache_directory() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pairvol" / "linux-guest"


@contextmanager
def guest_files() -> Iterator[GuestFiles]:
    """The files, fetched if need be (50 MB); kept from removal by other runs until the end of the block."""
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    wanted = " ".join((KERNEL_PACKAGE, *GUEST_PACKAGES))
    version = hashlib.sha256(_INSTALLED.read_bytes() + wanted.encode()).hexdigest()[:16]
    with (cache / f"{version}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        home = cache / version
        if not home.is_dir():
            _remove_others(cache, version)
            _fetch(home)
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield GuestFiles(home / "kernel/usr/bin/linux.uml", home / "kernel/usr/lib/uml/modules", home / "layer")


def _remove_others(cache: Path, version: str) -> None:
    """Layers of former states of the host, unless somebody runs on them."""
    for other in cache.glob("*.lock"):
        if other.stem == version:
            continue
        with other.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            shutil.rmtree(cache / other.stem, ignore_errors=True)
            other.unlink()


def _fetch(home: Path) -> None:
    """Makes ``home`` whole or not at all."""
    with tempfile.TemporaryDirectory(dir=home.parent, prefix="fetch-") as scratch:
        work = Path(scratch)
        for name, packages in (("kernel", [KERNEL_PACKAGE]), ("layer", _missing_on_host())):
            (work / name).mkdir()
            for package in _download(work / f"{name}-packages", packages):
                _run("dpkg", "-x", str(package), str(work / name))
            _merge_usr(work / name)
        (work / "files").mkdir()
        for name in ("kernel", "layer"):
            (work / name).rename(work / "files" / name)
        (work / "files").rename(home)


def _missing_on_host() -> list[str]:
    """What apt would install to have the guest's packages here, itself not installing anything."""
    plan = _run_with_fresh_lists(*_APT, "install", "--simulate", "--no-install-recommends", *GUEST_PACKAGES)
    return re.findall(r"^Inst (\S+)", plan, re.MULTILINE)


def _download(folder: Path, packages: Sequence[str]) -> list[Path]:
    folder.mkdir()
    if packages:
        _run_with_fresh_lists(*_APT, "download", *packages, cwd=folder)
    return sorted(folder.glob("*.deb"))


def _run_with_fresh_lists(*command: str, cwd: Path | None = None) -> str:
    """A fresh machine has no package lists, an old one those of yesterday's mirror: then they are updated."""
    try:
        return _run(*command, cwd=cwd)
    except GuestFilesMissing:
        _run(*_APT, "update")
        return _run(*command, cwd=cwd)


def _run(*command: str, cwd: Path | None = None) -> str:
    try:
        done = subprocess.run(
            command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_FETCH_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise GuestFilesMissing(f"{' '.join(command)}: {error}") from None
    if done.returncode:
        said = done.stdout[-2000:] + done.stderr[-2000:]
        raise GuestFilesMissing(f"{' '.join(command)}: status {done.returncode}\n{said}")
    return done.stdout


def _merge_usr(tree: Path) -> None:
    """Packages still have files in /bin, /lib and /sbin, where the host has links into /usr that must stay visible."""
    for name in ("bin", "sbin", "lib", "lib64"):
        if (tree / name).is_dir():
            shutil.copytree(tree / name, tree / "usr" / name, symlinks=True, dirs_exist_ok=True)
            shutil.rmtree(tree / name)
