"""Many seeds, on as many processes as are wanted."""

import multiprocessing
import signal
from collections.abc import Iterator

from scripts.simulation.variants import variant
from scripts.simulation.world import Result, run_seed

SEEDS = 1 << 32


def run(job: tuple[int, str | None]) -> Result:
    """One seed, of the system or of a variant of it."""
    seed, name = job
    with variant(name):
        return run_seed(seed)


def _worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers


def results(first: int, count: int, name: str | None, jobs: int) -> Iterator[Result]:
    """In the order in which they end. The workers end with the iteration, however it ends."""
    wanted = [((first + number) % SEEDS, name) for number in range(count)]
    if jobs == 1 or count == 1:
        yield from map(run, wanted)
        return
    with multiprocessing.get_context("spawn").Pool(min(jobs, count), _worker) as pool:
        yield from pool.imap_unordered(run, wanted, chunksize=2)
