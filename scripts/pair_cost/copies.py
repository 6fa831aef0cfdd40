"""What the copies of a pair do: the initial one beside plain copiers, one under a host's writes, delta resyncs."""

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from scripts.benchmark import clients, peers
from scripts.benchmark.loads import Client, Load
from scripts.benchmark.samples import Pair
from scripts.benchmark.servers import BenchmarkError, Server, free_port, running, wait_until
from scripts.pair_cost.sites import P_VOL, S_VOL, Copied, fill, two_sites
from storage_model.differential_bitmap import REGION_BYTES
from storage_model.pair_state import PairState
from storage_model.spec.pair_cdb import PairOut

MEBIBYTE = 1 << 20
SHARES = (0.001, 0.01, 0.1, 1.0)
"""Of a volume, that have changed before a resync."""
_LIMIT_SECONDS = 300.0
_MEMORY = Path("/dev/shm")


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
    """``rate(source, target)``: its bytes per second; ``source`` is the file of a volume full of data.

    ``target`` is a file of the same size, like that of our S-VOL; what is made beside it goes with the arrays.
    """

    name: str
    rate: Callable[[Path, Path], float]


def initial_copies(
    directory: Path, root: Path, size: int, repetitions: int, other: Copier, *, onto_data: bool = False
) -> list[Rates]:
    """Each of a volume full of data, in the page cache and on the disk, until the copy is durable.

    To a new file, which is sparse; ``onto_data``: to one that is full of other data, so that nobody has to find space.
    Raises BenchmarkError, also when the other's tools are missing.
    """
    if missing := peers.missing_packages({other.name}):
        raise BenchmarkError(f"tools are missing: apt-get install {' '.join(missing)}")
    rates = []
    for _ in range(repetitions):
        with two_sites(directory, root, size, full=(P_VOL, S_VOL) if onto_data else (P_VOL,)) as sites:
            target = sites.a.directory / "other.img"
            if onto_data:
                fill(target, size)
            else:
                with target.open("wb") as volume:
                    volume.truncate(size)
            copied = sites.copy(PairOut.CREATE)
            rates.append(Rates(copied.sent_bytes / copied.seconds, other.rate(sites.volume_file(), target)))
    return rates


@contextmanager
def in_memory(size: int) -> Iterator[Path]:
    """A directory on a file system in memory, with room for :func:`initial_copies`; raises BenchmarkError."""
    needed = 4 * size
    if not _MEMORY.is_dir() or (free := shutil.disk_usage(_MEMORY).free) < needed:
        raise BenchmarkError(f"{_MEMORY}: {free if _MEMORY.is_dir() else 0} bytes are free, {needed} are needed")
    with tempfile.TemporaryDirectory(prefix="pairvol-copies-", dir=_MEMORY) as directory:
        yield Path(directory)


def _iperf3_rate(source: Path, target: Path) -> float:
    """One stream over loopback, without the pacing that our connections go without as well."""
    port, log = str(free_port()), target.with_name("iperf3.log")
    with running(["iperf3", "-s", "-1", "--forceflush", "-p", port], log) as server:
        wait_until(lambda: "listening" in log.read_text(errors="replace"), server, "iperf3", log)
        client = ["iperf3", "-c", "127.0.0.1", "-p", port, "-t", "2", "-C", "reno", "-J"]
        (said,) = clients.finish([client]).outputs
    return float(json.loads(said)["end"]["sum_received"]["bits_per_second"]) / 8


def _nbdcopy_rate(source: Path, target: Path) -> float:
    """From one NBD server's file to another one's, over TCP, as two arrays would; durable at the end, as ours is."""
    with ExitStack() as stack:
        urls: list[str] = []
        for file in (source, target):
            place = target.with_name(f"nbdkit-of-{file.name}")
            place.mkdir()
            urls += stack.enter_context(peers.nbdkit(place, file)).urls
        started = time.perf_counter()
        clients.finish([["nbdcopy", "--flush", *urls]])
        return source.stat().st_size / (time.perf_counter() - started)


IPERF3, NBDCOPY = Copier("iperf3", _iperf3_rate), Copier("nbdcopy", _nbdcopy_rate)


def writes_beside_resync(
    directory: Path, root: Path, size: int, repetitions: int, count: int
) -> tuple[list[Pair], int]:
    """``count`` host writes of 4 KiB, QD 32, beside a full-speed resync of everything (ours), and without (other).

    Also how many of the resyncs lasted longer than the writes.
    """
    load, pairs, longer = Load(4096, 32, write=True, client=Client.OWN), [], 0
    with two_sites(directory, root, size, full=(P_VOL,)) as sites:
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
