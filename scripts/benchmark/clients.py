"""The clients: qemu-img bench, iscsi-perf, and our own; each run gives one Sample."""

import contextlib
import json
import re
import resource
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from scripts.benchmark.arrays import ROOT
from scripts.benchmark.loads import Client, Load
from scripts.benchmark.samples import Pair, Sample
from scripts.benchmark.servers import BenchmarkError, Server, python_command
from scripts.failover_drill.processes import die_with_parent

LIMIT_SECONDS = 60.0
"""Of one run: the clients wait for ever when a server dies, libiscsi's for one that is busy, too."""
_PERF_BLOCK = 4096
_BENCH_SECONDS = re.compile(r"^Run completed in ([0-9.]+) seconds\.$", re.MULTILINE)
_PERF_RATE = re.compile(r"iops average (\d+) \(")


@dataclass(frozen=True, slots=True)
class Finished:
    """Clients that have ended well: what each one said, and their CPU time together."""

    outputs: tuple[str, ...]
    client_seconds: float


def parse_qemu_img(output: str) -> float:
    """Seconds of a ``qemu-img bench``, login and logout excluded; raises BenchmarkError."""
    found = _BENCH_SECONDS.search(output)
    if found is None:
        raise BenchmarkError(f"qemu-img bench: {_last_line(output)}")
    return float(found[1])


def parse_iscsi_perf(output: str) -> float:
    """Operations per second of an ``iscsi-perf`` over its whole time; raises BenchmarkError."""
    found = _PERF_RATE.findall(output)
    if not found or float(found[-1]) == 0:
        raise BenchmarkError(f"iscsi-perf: {_last_line(output)}")
    return float(found[-1])


def _last_line(output: str) -> str:
    return next((line for line in reversed(re.split(r"[\r\n]+", output)) if line.strip()), "no output")


def operations_for(server: Server, load: Load, seconds: float) -> int:
    """How many make a run of about ``seconds``, by a short one that also warms the server up."""
    if load.blocks:  # the same places are written everywhere, so that no server reads holes where another reads data
        run(server, replace(load, write=True, random=False, sessions=1), load.blocks * load.units, seconds)
    trial = run(server, load, _trial(load), min(seconds, 1.0))
    return max(_trial(load), round(trial.rate * seconds))


def _trial(load: Load) -> int:
    """Operations of the short run, of all sessions: a tenth of a second for a server of middling speed."""
    count = 1000 if load.length <= 16384 else 100
    return max(count, 4 * load.depth * load.sessions)


def pairs(
    servers: Sequence[Server], loads: Sequence[Load], counts: Sequence[int], repetitions: int, seconds: float = 1.0
) -> list[Pair]:
    """Runs of ours and of the other's in turn; each sequence has first what is ours."""
    found = []
    for _ in range(repetitions):
        ours, other = (run(*side, seconds) for side in zip(servers, loads, counts, strict=True))
        found.append(Pair(ours, other))
    return found


def run(server: Server, load: Load, count: int, seconds: float = 1.0, *, limit: float = LIMIT_SECONDS) -> Sample:
    """One run of ``count`` operations, all sessions together; of iscsi-perf, one of ``seconds``, at least 1."""
    count -= count % load.sessions
    seconds = max(1, round(seconds))
    commands = list(_commands(server, load, count, seconds))
    server_before, relay_before = server.cpu_seconds(), server.relay_cpu_seconds()
    finished = finish(commands, limit)
    server_seconds = server.cpu_seconds() - server_before
    relay_seconds = server.relay_cpu_seconds() - relay_before
    match load.client:
        case Client.QEMU:
            # Several of them begin and end almost together; the slowest has the last word.
            elapsed = max(parse_qemu_img(output) for output in finished.outputs)
        case Client.PERF:
            elapsed = float(seconds)
            count = round(sum(parse_iscsi_perf(output) for output in finished.outputs) * seconds)
        case Client.OWN:
            said = json.loads(finished.outputs[0])
            elapsed, count = float(said["seconds"]), int(said["operations"])
            # Without the start of Python and the encoding of the commands.
            return Sample(count, elapsed, load.length, server_seconds, float(said["cpu"]), relay_seconds)
    return Sample(count, elapsed, load.length, server_seconds, finished.client_seconds, relay_seconds)


def _commands(server: Server, load: Load, count: int, seconds: int) -> Iterator[list[str]]:
    match load.client:
        case Client.OWN:
            yield _own_command(server, load, count)
        case Client.PERF:
            # Its blocks are the volume's, and random offsets are multiples of one block.
            words = ["-m", str(load.depth), "-b", str(load.length // _PERF_BLOCK), "-t", str(seconds), "-x", "0"]
            words += ["-r"] if load.random else []
            for _ in range(load.sessions):
                yield ["iscsi-perf", *words, server.urls[1]]
        case Client.QEMU:
            words = ["-c", str(count // load.sessions), "-d", str(load.depth), "-s", str(load.length)]
            words += ["-w", "--pattern=90"] if load.write else []
            for _ in range(load.sessions):
                yield ["qemu-img", "bench", "-f", "raw", "-t", "none", *words, server.urls[0]]


def _own_command(server: Server, load: Load, count: int) -> list[str]:
    words = ["--length", str(load.length), "--depth", str(load.depth), "--sessions", str(load.sessions)]
    words += ["--count", str(count), "--blocks", str(load.blocks)]
    words += ["--write"] if load.write else []
    words += ["--random"] if load.random else []
    words += ["--digests"] if load.digests else []
    return python_command("scripts.benchmark.own_client", *words, *server.urls[: load.units])


def finish(commands: Sequence[Sequence[str]], limit: float = LIMIT_SECONDS) -> Finished:
    """Run them at the same time until all have ended; raises BenchmarkError when one fails or takes too long."""
    before, started = _children_seconds(), time.monotonic()
    with contextlib.ExitStack() as cleanup:
        outputs = [Path(cleanup.enter_context(tempfile.NamedTemporaryFile()).name) for _ in commands]
        processes = [cleanup.enter_context(_client(*each)) for each in zip(commands, outputs, strict=True)]
        for process in processes:
            try:
                process.wait(max(0.0, started + limit - time.monotonic()))
            except subprocess.TimeoutExpired:
                raise BenchmarkError(f"{commands[0][0]} did not end within {limit:g} s") from None
        texts = tuple(output.read_text(errors="replace") for output in outputs)
        for process, command, text in zip(processes, commands, texts, strict=True):
            if process.returncode != 0:
                raise BenchmarkError(f"{command[0]}: exit status {process.returncode}: {_last_line(text)}")
    return Finished(texts, _children_seconds() - before)


@contextlib.contextmanager
def _client(command: Sequence[str], output: Path) -> Iterator["subprocess.Popen[bytes]"]:
    with output.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
            start_new_session=True, preexec_fn=die_with_parent,
        )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def _children_seconds() -> float:
    """CPU time of the children that have ended: of the clients, as long as no server ends in between."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
