"""RESERVE and RELEASE, 6 and 10 (SPC-2 7.18, 7.21). [C]"""

from storage_model.spec.scsi_task import ScsiStatus
from target.scsi.command_context import CommandContext
from target.scsi.task import TaskOutcome


def reservation_conflict(context: CommandContext) -> TaskOutcome:
    """RESERVATION CONFLICT by a handler's decision."""
    context.lu.conflict_log.conflict(context.task.lun, context.task.nexus)
    return TaskOutcome(ScsiStatus.RESERVATION_CONFLICT)


async def reserve(context: CommandContext) -> TaskOutcome:
    """Third-party and extent reservations have been refused by the usage mask."""
    lu = context.lu
    async with lu.reservation_journal.lock:
        if not lu.reservation.reserve(context.task.nexus):
            return reservation_conflict(context)
    return TaskOutcome()


async def release(context: CommandContext) -> TaskOutcome:
    """By the holder: the unit is free. By another nexus: GOOD without effect (SPC-2 7.18.2).

    A pair hears of every RELEASE and decides for itself whether the nexus is its owner: a reset may have cleared the
    owner's reservation, and it still gives up what it owns.
    """
    lu, nexus = context.lu, context.task.nexus
    if lu.reservation.release_conflicts(nexus):
        return reservation_conflict(context)
    lu.reservation.release(nexus)
    if lu.pair is not None:
        await lu.pair.released(nexus)
    return TaskOutcome()
