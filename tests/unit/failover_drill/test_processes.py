"""Children: their output is in hand, their failures are told, and none is left behind."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from scripts.failover_drill.processes import ChildProcess, ProcessFailed, end_all
from tests.eventually import eventually

READY = "print('first', flush=True); print('ready', flush=True); import time; time.sleep(600)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + READY


async def start(code: str, directory: Path, name: str = "child") -> ChildProcess:
    return await ChildProcess.start(name, [sys.executable, "-c", code], directory)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_the_lines_before_ready_are_returned(tmp_path: Path) -> None:
    child = await start(READY, tmp_path)
    assert await child.until_ready(20.0) == ["first"]
    assert child.running
    await child.end()
    assert not alive(child.pid)
    assert child.exit_status == -signal.SIGTERM


async def test_a_child_that_ends_early_says_why(tmp_path: Path) -> None:
    child = await start("import sys; sys.exit('port in use')", tmp_path)
    with pytest.raises(ProcessFailed, match="port in use"):
        await child.until_ready(20.0)
    await child.end()


async def test_a_child_that_never_gets_ready_is_given_up(tmp_path: Path) -> None:
    child = await start("import time; time.sleep(600)", tmp_path)
    with pytest.raises(ProcessFailed, match="not ready within"):
        await child.until_ready(0.2)
    await child.end()
    assert not alive(child.pid)


async def test_who_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    child = await start(STUBBORN, tmp_path)
    await child.until_ready(20.0)
    await child.end(grace=0.2)
    assert child.exit_status == -signal.SIGKILL


async def test_kill_is_kill_9(tmp_path: Path) -> None:
    child = await start(READY, tmp_path)
    await child.until_ready(20.0)
    await child.kill()
    assert child.exit_status == -signal.SIGKILL
    await child.end()  # the second end of a dead child is no error


async def test_ending_all_ends_each(tmp_path: Path) -> None:
    children = [await start(READY, tmp_path, f"child{number}") for number in range(3)]
    for child in children:
        await child.until_ready(20.0)
    await children[1].kill()
    await end_all(children)
    assert not any(alive(child.pid) for child in children)


async def fill(child: ChildProcess) -> None:
    for _ in range(100):
        await child.write_line(b"x" * 65536)


async def test_what_is_written_to_a_dead_child_is_an_error(tmp_path: Path) -> None:
    child = await start("pass", tmp_path)
    async with asyncio.timeout(20.0):
        while await child.read_line():
            pass
    await child.end()
    with pytest.raises(ProcessFailed, match="no longer listens"):
        await fill(child)


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
async def test_children_die_with_a_conductor_that_is_killed(tmp_path: Path) -> None:
    conductor = f"""
import asyncio, pathlib, sys
from scripts.failover_drill.processes import ChildProcess
async def main():
    child = await ChildProcess.start("grandchild", [sys.executable, "-c", {READY!r}], pathlib.Path({str(tmp_path)!r}))
    await child.until_ready(20.0)
    print(child.pid, flush=True)
    print("ready", flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""
    child = await start(conductor, tmp_path)
    (grandchild,) = await child.until_ready(30.0)
    assert alive(int(grandchild))
    await child.kill()
    await eventually(lambda: not _runs(int(grandchild)), what="the grandchild is gone")


def _runs(pid: int) -> bool:
    """Not gone, and not a zombie that init has yet to collect."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
