"""The pair-control software in a guest, between its kernel's initiator and an array."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.linux.guest import Guest, Step

SHIM_PORTAL = "127.0.0.1:3261"
"""Where it listens, in every guest."""


@asynccontextmanager
async def shim(guest: Guest, array: str) -> AsyncIterator[Step]:
    """It serves until the end of the block, and must then end in good order."""
    step = await guest.start("shim.sh", {"LISTEN": SHIM_PORTAL, "ARRAY": array})
    await step.announces("ready")
    yield step
    await step.tell("end")
    await step.ended()
