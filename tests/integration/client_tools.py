"""Running programs, other people's and our own commands, each with a time limit."""

import asyncio
import random

from scripts.failover_drill.processes import ROOT

TOOL_SECONDS = 30.0


async def run(*command: str, seconds: float = TOOL_SECONDS) -> tuple[int, str]:
    """Exit status, and standard output and error together; from the project's root."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(seconds):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return await process.wait(), output.decode(errors="replace")


async def run_tool(*command: str, status: int = 0, seconds: float = TOOL_SECONDS) -> str:
    """Standard output and error together; the exit status must be ``status``."""
    ended_with, text = await run(*command, seconds=seconds)
    assert ended_with == status, f"{' '.join(command)} ended with {ended_with}:\n{text}"
    return text


def patterned(size_bytes: int, seed: int = 7) -> bytes:
    """Bytes that do not compress, with a hole in every fourth 64 KiB, as disk images have."""
    chance = random.Random(seed)
    piece = 64 << 10
    pieces = [chance.randbytes(piece) if number % 4 else bytes(piece) for number in range(-(-size_bytes // piece))]
    return b"".join(pieces)[-size_bytes:]
