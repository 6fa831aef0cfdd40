"""Our own servers as processes: an array with files, from this checkout or another one, and a shim in front of it."""

import contextlib
import os
import select
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from scripts.benchmark.servers import READY_SECONDS, BenchmarkError, Server, python_command, running, tail

ROOT = Path(__file__).resolve().parents[2]
_MEBIBYTE = 1 << 20


def volume_word(file: Path, block: int) -> str:
    """The --volume word for a file that exists."""
    return f"{file.stat().st_size // _MEBIBYTE}MiB,file={file},block={block}"


def write_volume(file: Path, size: int) -> None:
    """A file of ``size`` bytes of random data, a multiple of one MiB."""
    with file.open("wb") as volume:
        data = os.urandom(_MEBIBYTE)
        for _ in range(size // _MEBIBYTE):
            volume.write(data)


@contextlib.contextmanager
def array(
    directory: Path, root: Path, words: Sequence[str], name: str = "array", *, log_level: str = "warning"
) -> Iterator[Server]:
    """``pairvol-array`` of the checkout ``root`` with these command-line words, on a free port."""
    log = directory / f"{name}.log"
    command = python_command("target", "--portal", "127.0.0.1:0", "--log-level", log_level, *words)
    with _of_checkout(command, root, log) as process:
        urls = [line for line in _until_ready(process, name, log) if line.startswith("iscsi://")]
        yield Server(name, process.pid, tuple(urls), directory=directory)


@contextlib.contextmanager
def shim(directory: Path, root: Path, behind: Server) -> Iterator[Server]:
    """``pairvol-shim`` in front of a running array: the same units at other URLs, with both process ids."""
    log, name = directory / f"shim-of-{behind.name}.log", "shim"
    command = python_command("initiator_shim", "--listen", "127.0.0.1:0", "--array", address(behind.urls[0]), "--quiet")
    with _of_checkout(command, root, log) as process:
        urls = tuple(line for line in _until_ready(process, name, log) if line.startswith("iscsi://"))
        yield Server("shim + array", behind.pid, urls, relay=process.pid, directory=directory)


def address(url: str) -> str:
    """``host:port`` of a URL."""
    return urlsplit(url).netloc


def offers_option(root: Path, option: str) -> bool:
    """Whether the array of that checkout knows a command-line option."""
    command = python_command("target", "--help")
    said = subprocess.run(
        command, cwd=root, env=_environment(root), capture_output=True, text=True, timeout=READY_SECONDS, check=False
    )
    return option in said.stdout


@contextlib.contextmanager
def _of_checkout(command: Sequence[str], root: Path, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    environment = _environment(root)
    with running(command, log, environment=environment, directory=root, output=subprocess.PIPE) as process:
        yield process


def _environment(root: Path) -> dict[str, str]:
    """The checkout's packages come before those that are installed."""
    return {**os.environ, "PYTHONPATH": str(root), "PYTHONUNBUFFERED": "1"}


def _until_ready(process: "subprocess.Popen[bytes]", name: str, log: Path) -> list[str]:
    """The lines before ``ready``; raises BenchmarkError when it does not come in time."""
    assert process.stdout is not None
    said, end = b"", time.monotonic() + READY_SECONDS
    while not said.endswith(b"ready\n"):
        readable, _, _ = select.select([process.stdout], [], [], max(0.0, end - time.monotonic()))
        data = os.read(process.stdout.fileno(), 1 << 16) if readable else b""
        if not data:
            raise BenchmarkError(f"{name} did not come up: {tail(log)}")
        said += data
    return said.decode().splitlines()[:-1]
