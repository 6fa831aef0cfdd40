"""RESERVE and RELEASE, 6 and 10 (SPC-2 7.18, 7.21), and PERSISTENT RESERVE IN (SPC-4 6.15). [C]"""

from storage_model.spec.scsi_cdb import PersistentReserveIn
from storage_model.spec.scsi_task import ScsiStatus
from target.scsi.command_context import CommandContext
from target.scsi.task import TaskOutcome


async def reserve(context: CommandContext) -> TaskOutcome:
    """Third-party and extent reservations have been refused by the usage mask."""
    if not context.lu.reservation.reserve(context.task.nexus):
        return TaskOutcome(ScsiStatus.RESERVATION_CONFLICT)
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


_NOTHING_REGISTERED = b"\0" * 8
"""PRGENERATION 0, ADDITIONAL LENGTH 0: the answer of READ KEYS, READ RESERVATION and READ FULL STATUS alike."""
_NO_PERSISTENT_TYPE = b"\x00\x08\x00\x80" + b"\0" * 4
"""REPORT CAPABILITIES (SPC-4 6.15.4): TMV is 1, and the type mask that it makes valid has no type."""


async def persistent_reserve_in(context: CommandContext) -> TaskOutcome:
    """There is no PERSISTENT RESERVE OUT, so that nothing is ever registered: cluster software can read that here."""
    cdb = context.cdb
    report = cdb[1] & 0x1F == PersistentReserveIn.REPORT_CAPABILITIES
    return context.data_in(_NO_PERSISTENT_TYPE if report else _NOTHING_REGISTERED, cdb[7] << 8 | cdb[8])
