"""The servers that we compare with: Debian's tgt, istgt and nbdkit, on loopback, on files, without any privilege."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from scripts.benchmark.servers import BenchmarkError, Server, free_port, running, tail, wait_until

_TOOLS = {
    "tgt": {"tgtd": "tgt", "tgtadm": "tgt"},
    "istgt": {"istgt": "istgt"},
    "nbdkit": {"nbdkit": "nbdkit"},
    "qemu-img bench": {"qemu-img": "qemu-utils"},
    "iscsi-perf": {"iscsi-perf": "libiscsi-bin"},
    "iperf3": {"iperf3": "iperf3"},
    "nbdcopy": {"nbdcopy": "libnbd-bin", "nbdkit": "nbdkit"},
}
"""For each server and client, its tools, and the Debian package of each."""
_QEMU_MODULE = "qemu/block-iscsi.so"
_BLOCKS = (512, 4096)
"""Block lengths of LUN 0 and 1, as in ``arrays``: iscsi-perf's random reads are aligned to the block length."""
_CONTROL_PORTS = 32768
_ADMIN_SECONDS = 10.0


def missing_packages(used: Collection[str]) -> list[str]:
    """The Debian packages that these servers and clients need and that are not installed."""
    tools = [tool for name in used for tool in _TOOLS.get(name, {}).items()]
    missing = {package for tool, package in tools if shutil.which(tool) is None}
    if "qemu-img bench" in used and not _has_qemu_module():
        missing.add("qemu-block-extra")
    return sorted(missing)


def _has_qemu_module() -> bool:
    """QEMU's iSCSI initiator: a module of a package of its own, without any command."""
    return any(any(Path("/usr/lib").glob(pattern)) for pattern in (f"*/{_QEMU_MODULE}", _QEMU_MODULE))


def versions() -> dict[str, str]:
    """What each tool says of its version."""
    asked = {
        "tgt": ["tgtd", "--version"],
        "istgt": ["istgt", "-V"],
        "nbdkit": ["nbdkit", "--version"],
        "qemu-img": ["qemu-img", "--version"],
    }
    return {name: _version(command) for name, command in asked.items() if shutil.which(command[0])}


def _version(command: Sequence[str]) -> str:
    said = subprocess.run(command, capture_output=True, text=True, timeout=_ADMIN_SECONDS, check=False)
    return " ".join(re.findall(r"\d+[\d.]*\d", said.stdout + said.stderr)[:2]) or "unknown"


# ---- tgt -------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def tgtd(directory: Path, files: Sequence[Path]) -> Iterator[Server]:
    """LUN 0 of a tgt target is its controller, so the volumes are LUN 1, 2, …; block lengths as in ``_BLOCKS``."""
    port, log = free_port(), directory / "tgtd.log"
    # The control number only makes socket names; a socket path of our own keeps us apart from a system's tgtd.
    control = str(os.getpid() % _CONTROL_PORTS)
    environment = {"TGT_IPC_SOCKET": str(directory / "tgtd")}
    command = ["tgtd", "-f", "-C", control, "--iscsi", f"portal=127.0.0.1:{port}"]
    # It catches SIGTERM and goes on.
    with running(command, log, environment=environment, end=signal.SIGKILL) as process:
        wait_until(lambda: _tgtadm(control, environment, "--mode", "system", "--op", "show")[0], process, "tgtd", log)
        if "failed to create/bind to portal" in log.read_text(errors="replace"):  # it lives on without a portal
            raise BenchmarkError(f"tgtd has no portal: {tail(log)}")
        name = "iqn.2026-11.org.example:tgt"
        for words in _tgt_target(name, files):
            done, said = _tgtadm(control, environment, "--lld", "iscsi", *words)
            if not done:
                raise BenchmarkError(f"tgtadm {' '.join(words)}: {said}")
        urls = tuple(f"iscsi://127.0.0.1:{port}/{name}/{lun}" for lun in range(1, len(files) + 1))
        yield Server("tgt", process.pid, urls, directory=directory)


def _tgt_target(name: str, files: Sequence[Path]) -> Iterator[list[str]]:
    yield ["--mode", "target", "--op", "new", "--tid", "1", "--targetname", name]
    for lun, (file, block) in enumerate(zip(files, _BLOCKS, strict=False), start=1):
        unit = ["--mode", "logicalunit", "--op", "new", "--tid", "1", "--lun", str(lun)]
        yield [*unit, "--bstype", "rdwr", "--blocksize", str(block), "--backing-store", str(file)]
    yield ["--mode", "target", "--op", "bind", "--tid", "1", "--initiator-address", "ALL"]


def _tgtadm(control: str, environment: Mapping[str, str], *words: str) -> tuple[bool, str]:
    done = subprocess.run(
        ["tgtadm", "-C", control, *words],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=_ADMIN_SECONDS,
        check=False,
    )
    return done.returncode == 0, done.stderr.strip()


# ---- istgt -----------------------------------------------------------------------------------------------------------

# Without a Portal in [UnitControl] it opens no control port. MaxBurstLength and FirstBurstLength are larger than ours:
# its own figures gain by that.
_ISTGT = """\
[Global]
  NodeBase "iqn.2026-11.org.example"
  PidFile {directory}/istgt.pid
  AuthFile {directory}/auth.conf
  MediaDirectory {directory}
  Timeout 30
  NopInInterval 20
  DiscoveryAuthMethod None
  MaxSessions 16
  MaxConnections 4
  MaxR2T 32
  MaxOutstandingR2T 16
  DefaultTime2Wait 2
  DefaultTime2Retain 60
  FirstBurstLength 262144
  MaxBurstLength 1048576
  MaxRecvDataSegmentLength 262144
  InitialR2T Yes
  ImmediateData Yes
  DataPDUInOrder Yes
  DataSequenceInOrder Yes
  ErrorRecoveryLevel 0

[UnitControl]
  AuthMethod None
  Netmask 127.0.0.1

[PortalGroup1]
  Portal DA1 127.0.0.1:{port}

[InitiatorGroup1]
  InitiatorName "ALL"
  Netmask 127.0.0.0/8

[LogicalUnit1]
  TargetName disk1
  Mapping PortalGroup1 InitiatorGroup1
  AuthMethod None
  UseDigest Auto
  UnitType Disk
  QueueDepth 128
  LUN0 Storage {file} Auto
"""


@contextlib.contextmanager
def istgt(directory: Path, file: Path) -> Iterator[Server]:
    """One volume, LUN 0."""
    port, log = free_port(), directory / "istgt.log"
    (directory / "auth.conf").touch(0o600)
    configuration, pid_file = directory / "istgt.conf", directory / "istgt.pid"
    configuration.write_text(_ISTGT.format(directory=directory, port=port, file=file))
    with running(["istgt", "-D", "-c", str(configuration), "-p", str(pid_file)], log) as process:
        wait_until(pid_file.exists, process, "istgt", log)  # written when it listens
        url = f"iscsi://127.0.0.1:{port}/iqn.2026-11.org.example:disk1/0"
        yield Server("istgt", process.pid, (url,), directory=directory)


# ---- nbdkit ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def nbdkit(directory: Path, file: Path) -> Iterator[Server]:
    """One export, of its file plugin."""
    port, log, pid_file = free_port(), directory / "nbdkit.log", directory / "nbdkit.pid"
    command = ["nbdkit", "-f", "--exit-with-parent", "-p", str(port), "-i", "127.0.0.1", "-P", str(pid_file)]
    with running([*command, "file", str(file)], log) as process:
        wait_until(pid_file.exists, process, "nbdkit", log)  # written when it accepts
        yield Server("nbdkit", process.pid, (f"nbd://127.0.0.1:{port}/",), directory=directory)
