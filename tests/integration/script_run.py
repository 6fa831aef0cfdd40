"""A campaign of ``scripts`` as a process: what it says, and how it ends when it is interrupted."""

import asyncio
import os
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


async def run_script(module: str, *words: str, seconds: float, interrupt_after: str = "") -> tuple[int, str]:
    """Exit status and output; ``interrupt_after`` is what it says before it gets a SIGINT.

    Raises TimeoutError when it takes longer than ``seconds``.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *words, cwd=ROOT, start_new_session=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout is not None
    output = ""
    try:
        async with asyncio.timeout(seconds):
            while line := (await process.stdout.readline()).decode():
                output += line
                if interrupt_after and interrupt_after in line:
                    process.send_signal(signal.SIGINT)
            return await process.wait(), output
    finally:
        if process.returncode is None:
            process.terminate()  # it takes what it has started down
            await process.wait()
