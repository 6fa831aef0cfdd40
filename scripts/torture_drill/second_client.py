"""Another project's initiator, where it is installed: ``qemu-img bench`` writes beside ours, in the last quarter."""

import asyncio
import shutil
from contextlib import suppress

from scripts.failover_drill.processes import die_with_parent
from scripts.simulation.arrays import IQN
from scripts.torture_drill.stage import Site
from scripts.torture_drill.volumes import PairedVolume

_REQUEST_BYTES = 4096


def installed() -> str | None:
    """Where qemu-img is."""
    return shutil.which("qemu-img")


async def run(program: str, site: Site, volume: PairedVolume) -> bool:
    """Through the site's shim, once over its quarter; whether all of it went well. Cancelling ends it."""
    begin = volume.size_bytes * 3 // 4
    count = (volume.size_bytes - begin) // _REQUEST_BYTES
    url = f"iscsi://127.0.0.1:{site.shim_port}/{IQN}/{volume.lun}"
    options = ["-w", "-f", "raw", "-c", str(count), "-d", "4", "-s", str(_REQUEST_BYTES), "-o", str(begin), url]
    process = await asyncio.create_subprocess_exec(
        program,
        "bench",
        *options,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        preexec_fn=die_with_parent,
        start_new_session=True,
    )
    try:
        return await process.wait() == 0
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
