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


def results(first: int, count: int, name: str | None, jobs: int) -> Iterator[Result]:
    """In the order in which they end. The workers end with the iteration, however it ends."""
    wanted = [((first + number) % SEEDS, name) for number in range(count)]
    if jobs == 1 or count == 1:
        yield from map(run, wanted)
        return
    # Ctrl-C is the parent's, who ends its workers: they inherit that it is blocked.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
    try:
        pool = multiprocessing.get_context("spawn").Pool(min(jobs, count))
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT,))
    with pool:
        yield from pool.imap_unordered(run, wanted, chunksize=2)
