"""RESERVE and RELEASE, 6 and 10 (SPC-2 7.18, 7.21). PERSISTENT RESERVE IN and OUT will live here too."""

from target.scsi.command_context import CommandContext
from target.scsi.task import Status, TaskOutcome


async def reserve(context: CommandContext) -> TaskOutcome:
    """Third-party and extent reservations have been refused by the usage mask."""
    if not context.lu.reservation.reserve(context.task.nexus):
        return TaskOutcome(Status.RESERVATION_CONFLICT)
    return TaskOutcome()


async def release(context: CommandContext) -> TaskOutcome:
    """By the holder: the unit is free. By another nexus: GOOD without effect (SPC-2 7.18.2).

    A pair hears of every RELEASE and decides for itself whether the nexus is its owner: a reset may have cleared the
    owner's reservation, and it still gives up what it owns.
    """
    lu, nexus = context.lu, context.task.nexus
    lu.reservation.release(nexus)
    if lu.pair is not None:
        await lu.pair.released(nexus)
    return TaskOutcome()
