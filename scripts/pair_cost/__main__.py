"""``scripts/pair-cost``: what a pair costs its hosts, and what its copies cost the link."""

import argparse
import asyncio
import contextlib
import json
import shutil
import signal
import sys
import tempfile
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from scripts.benchmark.servers import BenchmarkError, free_port, python_command
from scripts.failover_drill.processes import ROOT, ProcessFailed, die_with_parent
from scripts.pair_cost.reserve import reserve_cost
from scripts.pair_cost.sites import PAIRED, SIMPLE, Sites, two_sites
from storage_model.differential_bitmap import REGION_BYTES
from storage_model.errors import PairvolError, UserError
from storage_model.pair_state import PairState
from storage_model.spec.pair_cdb import PairOut

MEBIBYTE, GIBIBYTE = 1 << 20, 1 << 30
_SHARES = (0.001, 0.01, 0.1, 1.0)
_USAGE, _INTERRUPTED = 2, 130
_LIMIT_SECONDS = 300.0
_EPILOG = """\
Two arrays are started on loopback. `write`: a volume in PAIR beside one in SMPL at the same array. `copy`: the initial
copy beside iperf3 and nbdcopy. `load`: host writes while a resync goes on. `resync`: time and bytes of a resync after
a share of a sparse volume has changed (--size). `reserve`: from RESERVE to GOOD of a quorum volume, through two shims.

exit status: 0 measured; 1 a measure could not be made; 2 wrong arguments; 130 interrupted
"""


async def run(command: Sequence[str]) -> str:
    """The output of a client; ended with us."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=die_with_parent,
    )
    try:
        async with asyncio.timeout(_LIMIT_SECONDS):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise BenchmarkError(f"{command[0]}: {said.decode(errors='replace').strip()[-300:]}")
    return said.decode()


async def writes(
    sites: Sites, lun: int, length: int, depth: int, count: int, *, places: int = 0, scattered: bool = False
) -> float:
    """Operations per second of our own client, in order; ``places``: so many, spread over the volume."""
    words = ["--write", "--length", str(length), "--depth", str(depth), "--count", str(count)]
    words += ["--blocks", str(places)] if places else ["--random"] if scattered else []
    said = json.loads(await run(python_command("scripts.benchmark.own_client", *words, sites.a.url(lun))))
    return float(said["operations"]) / float(said["seconds"])


async def write_cost(directory: Path, options: argparse.Namespace) -> dict[str, Any]:
    """4 KiB writes on 256 MiB, in PAIR and in SMPL, in turn."""
    loads = {"qd32": (32, options.count, False), "qd32 random": (32, options.count, True),
             "qd1": (1, options.count // 4, False)}  # fmt: skip
    rates: dict[str, list[float]] = {f"{name} {load}": [] for load in loads for name in ("pair", "smpl")}
    costs: dict[str, list[float]] = defaultdict(list)
    async with two_sites(directory, 256 * MEBIBYTE) as sites:
        await sites.copy(PairOut.CREATE)
        for number in range(options.repeat + 1):
            for load, (depth, count, scattered) in loads.items():
                for name, lun in (("pair", PAIRED), ("smpl", SIMPLE)):
                    before = [site.cpu_seconds() for site in (sites.a, sites.b)]
                    rate = await writes(sites, lun, 4096, depth, count, scattered=scattered)
                    if number:  # the first round warms the caches
                        rates[f"{name} {load}"].append(rate)
                        for site, then in zip((sites.a, sites.b), before, strict=True):
                            costs[f"{name} {load}, array {site.name}"].append((site.cpu_seconds() - then) / count)
    iops = [pair / smpl for pair, smpl in zip(rates["pair qd32"], rates["smpl qd32"], strict=True)]
    latency = [smpl / pair for pair, smpl in zip(rates["pair qd1"], rates["smpl qd1"], strict=True)]
    return {
        **{f"4 KiB writes/s, {name}": round(median(values)) for name, values in rates.items()},
        **{f"CPU per write, µs, {name}": round(median(values) * 1e6, 1) for name, values in costs.items()},
        "IOPS of PAIR / SMPL, QD 32 (0.45 wanted)": round(median(iops), 3),
        "latency of PAIR / SMPL, QD 1 (at most 2.2 wanted)": round(median(latency), 2),
    }


async def copy_cost(directory: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The initial copy of a volume full of data beside what the loopback and a plain copier of the same file do."""
    size = options.copy_size
    ours, plain, network = [], [], []
    for number in range(options.repeat):
        async with two_sites(directory / str(number), size) as sites:
            await writes(sites, PAIRED, MEBIBYTE, 8, size // MEBIBYTE, places=size // MEBIBYTE)
            _, sent, seconds = await sites.copy(PairOut.CREATE)
            ours.append(sent / seconds)
            plain.append(size / await nbdcopy_seconds(sites.a.file(PAIRED), directory, size))
            network.append(await iperf3_rate())
        shutil.rmtree(directory / str(number))
    against = {name: median(o / x for o, x in zip(ours, rates, strict=True)) for name, rates in
               (("iperf3 (0.5 wanted)", network), ("nbdcopy (1.0 wanted)", plain))}  # fmt: skip
    return {
        "initial copy, MiB/s": round(median(ours) / MEBIBYTE),
        "nbdcopy, MiB/s": round(median(plain) / MEBIBYTE),
        "iperf3, MiB/s": round(median(network) / MEBIBYTE),
        **{f"initial copy / {name}": round(ratio, 3) for name, ratio in against.items()},
    }


async def iperf3_rate() -> float:
    """Bytes per second of one stream over loopback, without the pacing that our connections go without as well."""
    port = str(free_port())
    server = await asyncio.create_subprocess_exec(
        "iperf3", "-s", "-1", "-p", port, stdout=asyncio.subprocess.DEVNULL, preexec_fn=die_with_parent
    )
    try:
        for attempt in range(100):  # until it listens
            with contextlib.suppress(BenchmarkError, KeyError):  # it says so when nobody listens yet
                said = await run(["iperf3", "-c", "127.0.0.1", "-p", port, "-t", "2", "-C", "reno", "-J"])
                return float(json.loads(said)["end"]["sum_received"]["bits_per_second"]) / 8
            await asyncio.sleep(0.02 * (attempt + 1))
        raise BenchmarkError("iperf3 does not come up")
    finally:
        if server.returncode is None:
            server.kill()
        await server.wait()


async def nbdcopy_seconds(source: Path, directory: Path, size: int) -> float:
    """From one NBD server's file to another one's, over TCP, as two arrays would."""
    target = directory / "nbdcopy.img"
    target.write_bytes(b"")
    ports = [str(free_port()), str(free_port())]
    with target.open("r+b") as file:
        file.truncate(size)
    servers = [
        await asyncio.create_subprocess_exec("nbdkit", "-f", "-p", port, "-i", "127.0.0.1", "file", str(path),
                                             preexec_fn=die_with_parent)
        for port, path in zip(ports, (source, target), strict=True)
    ]  # fmt: skip
    try:
        await asyncio.sleep(0.5)
        started = asyncio.get_running_loop().time()
        await run(["nbdcopy", *(f"nbd://127.0.0.1:{port}" for port in ports)])
        return asyncio.get_running_loop().time() - started
    finally:
        for server in servers:
            server.terminate()
            await server.wait()
        target.unlink()


async def load_cost(directory: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Host writes of 4 KiB, QD 32, with and without a resync of everything at full speed beside them."""
    size = options.copy_size * 2
    async with two_sites(directory, size) as sites:
        await sites.copy(PairOut.CREATE)
        ratios = []
        for _ in range(options.repeat):
            alone = await writes(sites, PAIRED, 4096, 32, options.count)
            await sites.control(PairOut.SPLIT)
            await writes(sites, PAIRED, MEBIBYTE, 8, size // MEBIBYTE, places=size // MEBIBYTE)
            await sites.control(PairOut.RESYNC)
            beside = await writes(sites, PAIRED, 4096, 32, options.count)
            still_copying = (await sites.status()).state is PairState.COPY
            await sites.until(PairState.PAIR)
            ratios.append(beside / alone)
    note = "" if still_copying else "; the resync ended before the writes did"
    return {f"host writes/s during a resync / without (0.5 wanted{note})": round(median(ratios), 3)}


async def resync_cost(directory: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Time and bytes of a resync after 0.1, 1, 10 and 100 % of the volume have changed."""
    table: dict[str, Any] = {}
    regions = options.size // REGION_BYTES
    async with two_sites(directory, options.size) as sites:
        await sites.copy(PairOut.CREATE)
        for share in _SHARES:
            count = max(1, int(regions * share))
            await sites.control(PairOut.SPLIT)
            await writes(sites, PAIRED, REGION_BYTES, 8, count, places=count)
            copied, sent, seconds = await sites.resync()
            table[f"resync of {share * 100:g} %"] = {
                "changed MiB": round(count * REGION_BYTES / MEBIBYTE, 1),
                "sent MiB": round(sent / MEBIBYTE, 1),
                "regions": copied,
                "seconds": round(seconds, 2),
                "sent / changed (at most 1.2 wanted)": round(sent / (count * REGION_BYTES), 3),
            }
    return table


_MEASURES: dict[str, Callable[[Path, argparse.Namespace], Awaitable[dict[str, Any]]]] = {
    "write": write_cost,
    "copy": copy_cost,
    "load": load_cost,
    "resync": resync_cost,
    "reserve": reserve_cost,
}


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/pair-cost",
        description="What a pair costs its hosts, and what its copies cost the link.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("measures", nargs="*", metavar="MEASURE", help=f"{', '.join(_MEASURES)} (all)")
    parser.add_argument("--size", type=int, default=4096, metavar="MIB", help="of the volume of `resync` (%(default)s)")
    parser.add_argument("--copy-size", type=int, default=512, metavar="MIB", help="of `copy`, half of `load`'s")
    parser.add_argument("--count", type=int, default=20000, help="of 4 KiB writes in a round (%(default)s)")
    parser.add_argument("--repeat", type=int, default=3, help="rounds, of which the median counts (%(default)s)")
    parser.add_argument("--reserves", type=int, default=400, help="of `reserve` (%(default)s)")
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"), help="volumes lie there (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the same figures")
    return parser


async def _measure(options: argparse.Namespace, directory: Path) -> int:
    results: dict[str, Any] = {}
    failed = 0
    for name in options.measures or _MEASURES:
        place = directory / name
        try:
            figures = await _MEASURES[name](place, options)
        except (PairvolError, ProcessFailed, OSError, TimeoutError) as error:
            failed = 1
            print(f"{name}: FAILED: {error}", file=sys.stderr, flush=True)
            continue
        finally:
            shutil.rmtree(place, ignore_errors=True)
        results[name] = figures
        for what, figure in figures.items():
            print(f"{what}: {figure}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    return failed


def _check(options: argparse.Namespace) -> None:
    for name in options.measures:
        if name not in _MEASURES:
            raise UserError(f"{name}: no measure is called so ({', '.join(_MEASURES)})")
    for name in ("size", "copy_size", "count", "repeat", "reserves"):
        if not 1 <= getattr(options, name) <= 1 << 22:
            raise UserError(f"--{name.replace('_', '-')} {getattr(options, name)} is out of range")
    options.size *= MEBIBYTE
    options.copy_size *= MEBIBYTE


def main(words: Sequence[str] | None = None) -> int:
    """Entry point; the exit status."""
    options = _arguments().parse_args(words)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _check(options)
        with tempfile.TemporaryDirectory(prefix="pairvol-cost-", dir=options.directory) as directory:
            return asyncio.run(_measure(options, Path(directory)))
    except (UserError, OSError) as error:
        print(f"scripts/pair-cost: {error}", file=sys.stderr)
        return _USAGE
    except KeyboardInterrupt:
        return _INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
