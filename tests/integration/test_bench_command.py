"""``scripts/bench`` as a user runs it, with runs too short to say anything about speed; and our own client."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import pytest

from scripts.benchmark import __main__ as program
from scripts.benchmark import arrays, bars
from scripts.benchmark.clients import run
from scripts.benchmark.loads import Client, Load
from scripts.benchmark.own_client import payload
from scripts.benchmark.own_login import Unit, storm
from scripts.benchmark.samples import Quantity, Sample
from scripts.benchmark.servers import BenchmarkError, Server, cpu_seconds, resident_bytes

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 120.0
SHORT = ("--pairs", "2", "--seconds", "0.1")
VOLUME_BYTES = 16 << 20
SYSTEM_PATH = ":/usr/sbin:/sbin"


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "scripts.benchmark", *words]


def bench(*words: str) -> "subprocess.CompletedProcess[str]":
    """Debian keeps tgtd where only root looks."""
    environment = {**os.environ, "PATH": os.environ["PATH"] + SYSTEM_PATH}
    return subprocess.run(
        command(*words), cwd=ROOT, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )


def children_of(directory: Path) -> list[str]:
    """The command lines of processes that say this directory's name."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if f"{directory}/" in words:
                found.append(words)
    return found


def test_beside_tgt_and_nbdkit(require_tool: Callable[[str], str], tmp_path: Path) -> None:
    for tool in ("tgtd", "nbdkit", "qemu-img"):
        require_tool(tool)
    figures, plot = tmp_path / "bench.json", tmp_path / "bench.svg"
    words = ("--only", "read-4k-qd32-vs-tgt", "--only", "read-256k-qd16-vs-nbdkit", "--only", "shim-read-4k-qd32")
    kept = ("--json", str(figures), "--svg", str(plot), "--directory", str(tmp_path))
    finished = bench("--quick", *SHORT, *words, *kept)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "| 4 KiB read IOPS, QD 32, vs tgt " in finished.stdout
    found = json.loads(figures.read_text())
    assert found["failures"] == {} and found["machine"]["cores"] == str(os.cpu_count())
    for name in ("read-4k-qd32-vs-tgt", "read-256k-qd16-vs-nbdkit", "shim-read-4k-qd32"):
        pairs = found["comparisons"][name]["pairs"]
        assert len(pairs) == 2
        assert all(pair[side]["server_seconds"] > 0 for pair in pairs for side in ("ours", "other"))
    through_the_shim = found["comparisons"]["shim-read-4k-qd32"]["pairs"][0]
    assert through_the_shim["ours"]["relay_seconds"] > 0 and through_the_shim["other"]["relay_seconds"] == 0
    assert ElementTree.fromstring(plot.read_text()).tag.endswith("svg")  # noqa: S314 - our own
    assert children_of(tmp_path) == []


def test_the_array_alone(tmp_path: Path) -> None:
    figures = tmp_path / "bench.json"
    finished = bench("--pairs", "1", "--only", "login-storm", "--only", "idle-sessions", "--json", str(figures))
    assert finished.returncode == 0, finished.stdout + finished.stderr
    values = json.loads(figures.read_text())["values"]
    assert values["login-storm"]["figures"][0] > 10 and values["login-storm"]["unit"] == "logins/s"
    assert values["idle-sessions"]["figures"][0] > 0.1


def test_a_pair_beside_a_volume_without_one(tmp_path: Path) -> None:
    """Two arrays; the one that has the S-VOL is busy only with what is mirrored."""
    figures, name = tmp_path / "bench.json", "pair-write-4k-qd32"
    words = ("--only", name, "--json", str(figures), "--directory", str(tmp_path))
    finished = bench("--quick", "--pairs", "1", "--seconds", "0.1", *words)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "| 4 KiB write IOPS, QD 32, PAIR vs SMPL " in finished.stdout
    (pair,) = json.loads(figures.read_text())["comparisons"][name]["pairs"]
    assert pair["ours"]["relay_seconds"] > 2 * pair["other"]["relay_seconds"]
    assert list(tmp_path.iterdir()) == [figures] and children_of(tmp_path) == []


def test_a_floor_that_is_not_held(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In this process, since the floors must be others: one that nobody can hold and one that everybody holds."""
    measure = "digests-read-4k-qd32"
    for number, status in ((1e-3, 0), (1e3, 1)):
        floor = bars.Bar("digests", measure, Quantity.RATE, "≥", number)
        monkeypatch.setattr(bars, "FLOORS", (floor,))
        assert program.main(["--check", "--pairs", "1", "--seconds", "0.1", "--directory", str(tmp_path)]) == status


def test_interrupted(tmp_path: Path) -> None:
    """Whatever was measured is told; no process and no file is left."""
    words = ("--only", "digests", "--pairs", "2", "--seconds", "0.5", "--directory", str(tmp_path))
    process = subprocess.Popen(
        command(*words),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # a shell's background has it ignored
    )
    assert process.stderr is not None
    try:
        first = process.stderr.readline()
        assert first.startswith("[1/4] digests-"), first
        assert children_of(tmp_path)
        process.send_signal(signal.SIGINT)
        output, said = process.communicate(timeout=SECONDS)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    assert process.returncode == 130 and "Traceback" not in said
    assert "| digests-read-4k-qd32 " in output
    assert list(tmp_path.iterdir()) == [] and children_of(tmp_path) == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--only", "no-such-measure"), "no measure is called so"),
        (("--pairs", "0"), "--pairs must be at least 1"),
        (("--quick", "--check"), "not allowed with"),
        (("--against", "/nowhere"), "/nowhere: there is no array in it"),
        (("--only", "start", "--directory", "/nowhere"), "--directory /nowhere: No such file"),
    ],
)
def test_wrong_arguments(words: tuple[str, ...], told: str) -> None:
    finished = bench(*words)
    assert finished.returncode == 2 and told in finished.stderr and "Traceback" not in finished.stderr


def test_missing_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what the chosen measures need is missed."""
    monkeypatch.setattr(sys.modules[__name__], "SYSTEM_PATH", "")
    monkeypatch.setenv("PATH", "/nowhere")
    finished = bench("--only", "read-4k-qd32-vs-tgt")
    assert finished.returncode == 2 and "apt-get install qemu-utils tgt" in finished.stderr


@pytest.mark.parametrize(("other", "packages"), [("iperf3", "iperf3"), ("nbdcopy", "libnbd-bin nbdkit")])
def test_a_missing_copier_is_a_failed_measure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, other: str, packages: str
) -> None:
    """The other measures go on without it."""
    monkeypatch.setattr(sys.modules[__name__], "SYSTEM_PATH", "")
    monkeypatch.setenv("PATH", "/nowhere")
    name = f"pair-copy-vs-{other}"
    finished = bench("--only", name, "--directory", str(tmp_path))
    assert finished.returncode == 1 and "Traceback" not in finished.stderr
    assert f"FAILED {name}: tools are missing: apt-get install {packages}\n" in finished.stdout


@pytest.fixture(name="server")
def running_array(tmp_path: Path) -> Iterator[Server]:
    volumes = []
    for block in (512, 4096):
        file = tmp_path / f"{block}.img"
        file.write_bytes(bytes(VOLUME_BYTES))
        volumes += ["--volume", arrays.volume_word(file, block)]
    with arrays.array(tmp_path, ROOT, volumes) as server:
        yield server


@pytest.mark.parametrize("digests", [False, True])
@pytest.mark.parametrize("length", [4096, 262144])
def test_our_own_client_writes_what_it_says(server: Server, tmp_path: Path, length: int, digests: bool) -> None:
    """From end to end of both units, 64 commands of 256 KiB each, with R2Ts, or 4 KiB in immediate data."""
    count = 2 * VOLUME_BYTES // length
    load = Load(length, 32, write=True, sessions=1, digests=digests, units=2, client=Client.OWN)
    assert run(server, load, count, 1).operations == count
    for block in (512, 4096):
        assert (tmp_path / f"{block}.img").read_bytes() == payload(length) * (VOLUME_BYTES // length)
    done: Sample = run(server, Load(length, 8, random=True, sessions=4, digests=digests, client=Client.OWN), 400, 1)
    assert done.operations == 400 and done.seconds > 0 and done.server_seconds > 0


def test_our_own_client_tells_of_a_server_that_is_gone(server: Server) -> None:
    gone = Server("gone", server.pid, tuple(url.replace("127.0.0.1", "127.0.0.2") for url in server.urls))
    with pytest.raises(BenchmarkError, match="Connection refused"):
        run(gone, Load(4096, 1, client=Client.OWN), 10, 1)


def test_a_storm_leaves_as_many_sessions_as_it_may_hold(server: Server) -> None:
    seconds, held = storm(Unit.of(server.urls[0]), 40, hold=8)
    assert seconds > 0 and len(held) == 8
    for connection in held:
        connection.close()


def test_cpu_time_and_memory_of_another_process() -> None:
    """A process that is stopped where it says how long it has been busy, by its own clock."""
    program = "import time\nwhile time.process_time() < 0.2: pass\nprint(time.process_time(), flush=True)\ninput()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        own = float(process.stdout.readline())
        assert own <= cpu_seconds(process.pid) < own + 0.1
        assert 1 << 20 < resident_bytes(process.pid) < 1 << 30
        process.communicate(b"\n")
    with pytest.raises(BenchmarkError, match="is gone"):
        cpu_seconds(process.pid)
