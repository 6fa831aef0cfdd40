"""From RESERVE to GOOD: a host at a shim, two arrays, and votes that are durable at both before it is told."""

import argparse
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from initiator_shim.initiator_transport import IscsiSession
from scripts.benchmark.servers import BenchmarkError
from scripts.failover_drill.processes import ChildProcess
from scripts.pair_cost.sites import PAIRED, Site, two_sites
from storage_model.pair_state import PairState
from storage_model.spec.pair_cdb import PairOut

_RESERVE, _RELEASE, _TEST_UNIT_READY = b"\x16" + bytes(5), b"\x17" + bytes(5), bytes(6)
_MEDIAN_MS, _P99_MS = 10.0, 50.0
_WARM_UP = 8
_SIZE_BYTES = 16 << 20


@asynccontextmanager
async def _host(site: Site) -> AsyncIterator[IscsiSession]:
    """A host of this site, logged in through a shim of its own."""
    command = [sys.executable, "-m", "initiator_shim", "--listen", "127.0.0.1:0", "--array", f"127.0.0.1:{site.port}"]
    shim = await ChildProcess.start(f"shim-{site.name}", command, site.directory)
    try:
        (url, *_) = await shim.until_ready(20.0)
        port = int(url.split("/")[2].rpartition(":")[2])
        name = f"iqn.2026-11.org.example:host-{site.name}"
        session = await IscsiSession.connect("127.0.0.1", port, site.iqn, name, bytes.fromhex("00023d000007"))
        try:
            while (await session.execute(PAIRED, _TEST_UNIT_READY)).status:
                pass  # unit attentions
            yield session
        finally:
            session.close()
    finally:
        await shim.end(grace=8.0)


async def reserve_cost(directory: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Twice in a row from each site, so that half of them make the other array's volume the P-VOL first."""
    times: dict[str, list[float]] = {"pair resync": [], "pair swap resync": []}
    async with two_sites(directory, _SIZE_BYTES, quorum=True) as sites, AsyncExitStack() as stack:
        await sites.copy(PairOut.CREATE)
        await sites.control(PairOut.SPLIT)
        hosts = [await stack.enter_async_context(_host(site)) for site in (sites.a, sites.b)]
        for number in range(options.reserves + _WARM_UP):
            await sites.until(PairState.PSUS, 20.0)
            host = hosts[number // 2 % 2]
            started = time.perf_counter()
            outcome = await host.execute(PAIRED, _RESERVE)
            seconds = time.perf_counter() - started
            if outcome.status:
                raise BenchmarkError(f"RESERVE {number} was answered with status {outcome.status:02X}h")
            if number >= _WARM_UP:
                times["pair resync" if number % 2 else "pair swap resync"].append(seconds * 1000)
            await host.execute(PAIRED, _RELEASE)
    every = sorted(value for values in times.values() for value in values)
    return {
        **{f"RESERVE to GOOD by {way}, median ms": round(median(values), 2) for way, values in times.items() if values},
        f"RESERVE to GOOD, median ms (at most {_MEDIAN_MS:g} wanted)": _judged(median(every), _MEDIAN_MS),
        f"RESERVE to GOOD, p99 ms (at most {_P99_MS:g} wanted)": _judged(_p99(every), _P99_MS),
        "RESERVE to GOOD, longest ms": round(every[-1], 2),
    }


def _p99(values: list[float]) -> float:
    return quantiles(values, n=100, method="inclusive")[98] if len(values) > 1 else values[0]


def _judged(value: float, limit: float) -> str:
    return f"{value:.2f}{'' if value <= limit else ' (short)'}"
