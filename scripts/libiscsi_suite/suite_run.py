"""Arrays and ``iscsi-test-cu`` as processes: one array for each kind of volume, and the suite against it."""

import asyncio
import ctypes
import os
import re
import resource
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.failover_drill.processes import ChildProcess, ProcessFailed
from scripts.libiscsi_suite.kinds import DESTRUCTIVE, SANITIZE, Kind, Run, runs_of
from scripts.libiscsi_suite.suite_output import Outcome, Result, better_known, parse_list, parse_output

READY_SECONDS = 30.0
RUN_SECONDS = 300.0
"""Of one suite; Sanitize takes two minutes, most of them asleep."""
MAXIMUM_OUTPUT_BYTES = 64 << 20
"""Twenty times what a suite prints. Some of the tool's loops print until the array answers as they hope."""
PATHS = 2
"""Portals of an array: the second is for the tests of multipath I/O."""
_PR_SET_PDEATHSIG = 1
_FAULT = re.compile(r"Traceback|internal error", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class KindRun:
    """What came of one kind; ``faults`` are lines about the array or the tool themselves, [] when all went well."""

    results: Mapping[str, Result]
    faults: Sequence[str]


async def list_tests(tool: str) -> list[str]:
    """The names of all tests that the tool has."""
    process = await asyncio.create_subprocess_exec(tool, "--list", stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    return parse_list(output.decode(errors="replace").splitlines())


async def run_kind(tool: str, kind: Kind, tests: Sequence[str], directory: Path) -> KindRun:
    """Sanitize, which mostly sleeps, at the same time as the rest: each against a fresh array of its own."""
    sanitize = [run for run in runs_of(kind, tests) if run.selector == SANITIZE]
    others = [run for run in runs_of(kind, tests) if run.selector != SANITIZE]
    parts = {"sanitize": sanitize, "others": others}
    found = await asyncio.gather(
        *(_run_on_an_array(tool, kind, runs, directory / kind.name / name) for name, runs in parts.items() if runs)
    )
    results = {test: result for part in found for test, result in part.results.items()}
    return KindRun(results, [fault for part in found for fault in part.faults])


async def _run_on_an_array(tool: str, kind: Kind, runs: Sequence[Run], directory: Path) -> KindRun:
    """A fresh array with one volume of this kind, and the tool against it; what fails stays in ``directory``."""
    directory.mkdir(parents=True)
    results: dict[str, Result] = {}
    faults: list[str] = []
    array = await ChildProcess.start(kind.name, _array_command(kind, directory), directory)
    try:
        urls = [url for url in await array.until_ready(READY_SECONDS) if url.startswith("iscsi://")]
        for run in runs:
            output = directory / f"{run.selector.partition('.')[2]}.txt"
            command = [tool, "-V", *DESTRUCTIVE, "-t", run.selector, *urls[: run.paths]]
            await _run_tool(command, run.environment, output)
            with output.open(errors="replace") as lines:
                found, complaint = parse_output(lines)
            for test, result in found.items():
                results[test] = better_known(result, results.get(test, Result(Outcome.NOT_RUN)))
            if complaint:
                faults.append(f"{run.selector}: {complaint} (see {output})")
            if not complaint and all(result.outcome is not Outcome.FAILED for result in found.values()):
                output.unlink()
        if not array.running:
            faults.append("the array has ended")
    except ProcessFailed as error:
        faults.append(str(error))
    finally:
        await array.end()
    if _FAULT.search(array.log.read_text(errors="replace")):
        faults.append(f"the array's log tells of an internal error (see {array.log})")
    return KindRun(results, faults)


def _array_command(kind: Kind, directory: Path) -> list[str]:
    words = kind.words
    if kind.file is not None:
        file = directory / kind.file
        words += f",file={file}"
        if kind.prefilled_bytes:
            file.write_bytes(os.urandom(1 << 20) * (kind.prefilled_bytes >> 20))
            words = f"{kind.prefilled_bytes},{words}"
    options = ["--portal", "127.0.0.1:0"] * PATHS + ["--background-rate", kind.rate, "--log-level", "warning"]
    return [sys.executable, "-m", "target", *options, "--volume", words]


async def _run_tool(command: Sequence[str], environment: Mapping[str, str], output: Path) -> None:
    with output.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=file,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, **environment},
            preexec_fn=_bound,
        )
        try:
            async with asyncio.timeout(RUN_SECONDS):
                await process.wait()
        except TimeoutError:
            pass  # what it printed has no summary then, and that is told
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)
                await process.wait()


def _bound() -> None:
    """In the child, before exec: an end with its parent, and of its output."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAXIMUM_OUTPUT_BYTES, MAXIMUM_OUTPUT_BYTES))
