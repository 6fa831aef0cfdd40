"""From RESERVE to GOOD: a host at a shim, two arrays, and votes that are durable at both before it is told."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

from scripts.benchmark import arrays
from scripts.benchmark.servers import BenchmarkError
from scripts.pair_cost.sites import PAIRED, Sites, logged_in, operator, two_sites, until
from storage_model.pair_state import PairState
from storage_model.spec.pair_cdb import PairOut

RESYNC, SWAP_RESYNC = "pair resync", "pair swap resync"
_RESERVE, _RELEASE, _TEST_UNIT_READY = b"\x16" + bytes(5), b"\x17" + bytes(5), bytes(6)
_ISID = bytes.fromhex("00023d000007")
_WARM_UP = 8
_ARMED_SECONDS = 20.0
_SIZE_BYTES = 16 << 20


def reserve_times(directory: Path, root: Path, count: int) -> dict[str, list[float]]:
    """Milliseconds of ``count`` RESERVEs of a quorum volume, by what each one led to. Raises BenchmarkError."""
    with two_sites(directory, root, _SIZE_BYTES, quorum=True) as sites, ExitStack() as stack:
        sites.copy(PairOut.CREATE)
        sites.control(PairOut.SPLIT)
        shims = [stack.enter_context(arrays.shim(array.directory, root, array)) for array in (sites.a, sites.b)]
        return asyncio.run(_reserve_in_turn(sites, [shim.urls[PAIRED] for shim in shims], count))


async def _reserve_in_turn(sites: Sites, urls: Sequence[str], count: int) -> dict[str, list[float]]:
    """Twice in a row from each site, so that half of them make the other array's volume the P-VOL first."""
    times: dict[str, list[float]] = {RESYNC: [], SWAP_RESYNC: []}
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(operator(sites.a))
        hosts = [
            await stack.enter_async_context(logged_in(url, f"iqn.2026-11.org.example:host-{number}", _ISID))
            for number, url in enumerate(urls)
        ]
        for host in hosts:
            while (await host.execute(PAIRED, _TEST_UNIT_READY)).status:
                pass  # unit attentions
        for number in range(count + _WARM_UP):
            await until(session, PairState.PSUS, _ARMED_SECONDS)
            host = hosts[number // 2 % 2]
            started = time.perf_counter()
            outcome = await host.execute(PAIRED, _RESERVE)
            seconds = time.perf_counter() - started
            if outcome.status:
                raise BenchmarkError(f"RESERVE {number} was answered with status {outcome.status:02X}h")
            if number >= _WARM_UP:
                times[RESYNC if number % 2 else SWAP_RESYNC].append(seconds * 1000)
            await host.execute(PAIRED, _RELEASE)
    return times
