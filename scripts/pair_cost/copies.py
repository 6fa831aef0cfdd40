"""What the copies of a pair do: the initial one beside plain copiers, one under a host's writes, delta resyncs."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from scripts.benchmark import clients, peers
from scripts.benchmark.loads import Client, Load
from scripts.benchmark.samples import Pair
from scripts.benchmark.servers import BenchmarkError, Server, free_port, running, wait_until
from scripts.pair_cost.sites import Copied, two_sites
from storage_model.differential_bitmap import REGION_BYTES
from storage_model.pair_state import PairState
from storage_model.spec.pair_cdb import PairOut

MEBIBYTE = 1 << 20
SHARES = (0.001, 0.01, 0.1, 1.0)
"""Of a volume, that have changed before a resync."""
_LIMIT_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Rates:
    """Bytes per second of an initial copy, and of another copier right after it."""

    ours: float
    other: float

    @property
    def ratio(self) -> float:
        return self.ours / self.other


@dataclass(frozen=True, slots=True)
class DeltaResync:
    """Of a volume of which a share had changed."""

    share: float
    changed_bytes: int
    copied: Copied

    @property
    def ratio(self) -> float:
        """Bytes sent per byte changed."""
        return self.copied.sent_bytes / self.changed_bytes


@dataclass(frozen=True, slots=True)
class Copier:
    """``rate(source, directory)``: its bytes per second; ``source`` is the file of a volume full of data.

    What it makes in ``directory`` goes with the arrays.
    """

    name: str
    rate: Callable[[Path, Path], float]


def initial_copies(directory: Path, root: Path, size: int, repetitions: int, other: Copier) -> list[Rates]:
    """Each of a volume full of data to a new one. Raises BenchmarkError, also when the other's tools are missing."""
    if missing := peers.missing_packages({other.name}):
        raise BenchmarkError(f"tools are missing: apt-get install {' '.join(missing)}")
    rates = []
    for _ in range(repetitions):
        with two_sites(directory, root, size, full=True) as sites:
            copied = sites.copy(PairOut.CREATE)
            rates.append(Rates(copied.sent_bytes / copied.seconds, other.rate(sites.volume_file(), sites.a.directory)))
    return rates


def _iperf3_rate(source: Path, directory: Path) -> float:
    """One stream over loopback, without the pacing that our connections go without as well."""
    port, log = str(free_port()), directory / "iperf3.log"
    with running(["iperf3", "-s", "-1", "--forceflush", "-p", port], log) as server:
        wait_until(lambda: "listening" in log.read_text(errors="replace"), server, "iperf3", log)
        client = ["iperf3", "-c", "127.0.0.1", "-p", port, "-t", "2", "-C", "reno", "-J"]
        (said,) = clients.finish([client]).outputs
    return float(json.loads(said)["end"]["sum_received"]["bits_per_second"]) / 8


def _nbdcopy_rate(source: Path, directory: Path) -> float:
    """From one NBD server's file to another one's new file, over TCP, as two arrays would."""
    size, target = source.stat().st_size, directory / "nbdcopy.img"
    with target.open("wb") as volume:
        volume.truncate(size)
    with ExitStack() as stack:
        urls: list[str] = []
        for file in (source, target):
            place = directory / f"nbdkit-of-{file.name}"
            place.mkdir()
            urls += stack.enter_context(peers.nbdkit(place, file)).urls
        started = time.perf_counter()
        clients.finish([["nbdcopy", *urls]])
        return size / (time.perf_counter() - started)


IPERF3, NBDCOPY = Copier("iperf3", _iperf3_rate), Copier("nbdcopy", _nbdcopy_rate)


def writes_beside_resync(
    directory: Path, root: Path, size: int, repetitions: int, count: int
) -> tuple[list[Pair], int]:
    """``count`` host writes of 4 KiB, QD 32, beside a full-speed resync of everything (ours), and without (other).

    Also how many of the resyncs lasted longer than the writes.
    """
    load, pairs, longer = Load(4096, 32, write=True, client=Client.OWN), [], 0
    with two_sites(directory, root, size, full=True) as sites:
        sites.copy(PairOut.CREATE)
        for _ in range(repetitions):
            alone = clients.run(sites.a, load, count)
            sites.control(PairOut.SPLIT)
            _change(sites.a, MEBIBYTE, size // MEBIBYTE)
            sites.control(PairOut.RESYNC)
            pairs.append(Pair(clients.run(sites.a, load, count), alone))
            longer += sites.status().state is PairState.COPY
            sites.until(PairState.PAIR)
    return pairs, longer


def delta_resyncs(directory: Path, root: Path, size: int, shares: Sequence[float] = SHARES) -> Iterator[DeltaResync]:
    """Of a sparse volume, after each of these shares of it has changed, in regions that are spread over it."""
    with two_sites(directory, root, size) as sites:
        sites.copy(PairOut.CREATE)
        for share in shares:
            count = max(1, int(size // REGION_BYTES * share))
            sites.control(PairOut.SPLIT)
            _change(sites.a, REGION_BYTES, count)
            yield DeltaResync(share, count * REGION_BYTES, sites.copy(PairOut.RESYNC))


def _change(array: Server, length: int, count: int) -> None:
    """Writes of ``length`` bytes to so many places of the paired volume."""
    load = Load(length, 8, write=True, blocks=count, client=Client.OWN)
    clients.run(array, load, count, limit=_LIMIT_SECONDS)
