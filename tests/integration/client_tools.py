"""Running other people's programs, each with a time limit."""

import asyncio
import random

TOOL_SECONDS = 30.0


async def run_tool(*command: str, status: int = 0) -> str:
    """Standard output and error together; the exit status must be ``status``."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(TOOL_SECONDS):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    text = output.decode(errors="replace")
    assert process.returncode == status, f"{' '.join(command)} ended with {process.returncode}:\n{text}"
    return text


def patterned(size_bytes: int, seed: int = 7) -> bytes:
    """Bytes that do not compress, with a hole in every fourth 64 KiB, as disk images have."""
    chance = random.Random(seed)
    piece = 64 << 10
    pieces = [chance.randbytes(piece) if number % 4 else bytes(piece) for number in range(-(-size_bytes // piece))]
    return b"".join(pieces)[-size_bytes:]
