"""An array with many volumes, as a process: it starts under the limits that a shell gives, and ends in time."""

import shlex
import signal
import subprocess
import sys
from pathlib import Path

from scripts.failover_drill.processes import ROOT, ChildProcess
from tests.integration.array_process import READY_SECONDS, ArrayProcess

VOLUMES = 300


def _configuration(directory: Path) -> Path:
    lines = ["[array]", 'portals = ["127.0.0.1:0"]', f'state_dir = "{directory / "state"}"']
    for number in range(VOLUMES):
        lines += ["[[volumes]]", f'name = "v{number}"', f'file = "v{number}.img"', 'size = "1MiB"']
    path = directory / "many.toml"
    path.write_text("\n".join(lines))
    return path


async def test_more_volumes_than_the_usual_limit_of_open_files(tmp_path: Path) -> None:
    """The soft limit is a default, not a decision: the array raises it to the hard one."""
    command = shlex.join([sys.executable, "-m", "target", "--config", str(_configuration(tmp_path))])
    limited = ["sh", "-c", f"ulimit -Sn {VOLUMES // 3} && exec {command}"]
    process = await ChildProcess.start("many", limited, tmp_path)
    try:
        array = ArrayProcess(process, await process.until_ready(READY_SECONDS))
        assert len(array.urls) == VOLUMES
        await array.assert_serving()
        await array.end_by(signal.SIGTERM)
    finally:
        await process.kill()
    assert all((tmp_path / "state" / f"v{number}.img").stat().st_size == 1 << 20 for number in range(VOLUMES))


def test_the_library_of_the_broker_is_not_loaded_without_a_broker() -> None:
    """It would take a sixth of the time in which an array starts."""
    program = "import sys, target.__main__; sys.exit('aiomqtt' in sys.modules or 'target.array' not in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False, timeout=60).returncode == 0
