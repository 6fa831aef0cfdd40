"""PERSISTENT RESERVE IN and OUT (SPC-4 5.13, 6.15, 6.16): what is asked of the state, and what a change entails. [C]"""

import logging
from collections.abc import Sequence

from storage_model.errors import CheckCondition
from storage_model.nexus import ITNexus, normalised_name
from storage_model.pair import PairRefused
from storage_model.persistent_reservation import Change, PersistentReservation, Registration
from storage_model.reservation_order import ReservationOrder
from storage_model.spec.scsi_cdb import PersistentReserveIn, PersistentReserveOut
from storage_model.spec.scsi_persistent_reservation import (
    MAXIMUM_LIST_LENGTH,
    FullStatus,
    TransportId,
    encode_capabilities,
    encode_full_status,
    encode_keys,
    encode_reservation,
)
from storage_model.spec.scsi_sense import AscAscq, SenseKey
from storage_model.volume import MediumFailure, VolumeError
from target.scsi.command_context import CommandContext, invalid_parameter
from target.scsi.logical_unit import PairPort
from target.scsi.reservation_commands import reservation_conflict
from target.scsi.task import TaskOutcome
from target.scsi.unit_reservation import UnitReservation

log = logging.getLogger("pairvol.scsi")


# --- PERSISTENT RESERVE IN


async def persistent_reserve_in(context: CommandContext) -> TaskOutcome:
    """While the unit is reserved by RESERVE it conflicts whoever asks, the holder too (SPC-2 5.5.1)."""
    lu, cdb = context.lu, context.cdb
    if lu.reservation.holder is not None:
        return reservation_conflict(context)
    if lu.pair is not None:
        try:
            await lu.pair.reservations_settled()
        except PairRefused as refused:
            raise _abnormal_end(refused) from None
    return context.data_in(_report(context, PersistentReserveIn(cdb[1] & 0x1F)), cdb[7] << 8 | cdb[8])


def _report(context: CommandContext, action: PersistentReserveIn) -> bytes:
    state = context.lu.reservation.persistent
    match action:
        case PersistentReserveIn.READ_KEYS:
            return encode_keys(state.generation, (made.key for made in state.registrations.values()))
        case PersistentReserveIn.READ_RESERVATION:
            kind = state.reservation_type
            return encode_reservation(state.generation, None if kind is None else (state.held_key, kind))
        case PersistentReserveIn.READ_FULL_STATUS:
            return encode_full_status(state.generation, _full_status(state, context.server.port_groups.numbers))
        case PersistentReserveIn.REPORT_CAPABILITIES:
            return _capabilities(context)


def _capabilities(context: CommandContext) -> bytes:
    """A pair keeps its table at both arrays, whatever an initiator asks for."""
    lu = context.lu
    survives = lu.pair is not None or lu.reservation_journal.survives_power_loss
    return encode_capabilities(power_loss=survives, activated=lu.reservation.persistent.aptpl)


def _full_status(state: PersistentReservation, target_ports: Sequence[int]) -> list[FullStatus]:
    """One descriptor for each nexus, or one for all target ports where that says the same (SPC-4 6.15.5)."""
    found: dict[tuple[str, bytes, int | None], FullStatus] = {}
    for nexus, made in state.registrations.items():
        everywhere = made.all_target_ports and _alike_at_every_port(state, nexus, made, target_ports)
        holder = state.holds(nexus)
        key = nexus.initiator_name, nexus.isid, None if everywhere else nexus.target_port
        found[key] = FullStatus(
            made.key,
            TransportId(nexus.initiator_name, nexus.isid),
            0 if everywhere else nexus.target_port,
            holder,
            state.reservation_type if holder and state.reservation_type is not None else 0,
            everywhere,
        )
    return list(found.values())


def _alike_at_every_port(
    state: PersistentReservation, nexus: ITNexus, made: Registration, target_ports: Sequence[int]
) -> bool:
    siblings = [ITNexus(nexus.initiator_name, nexus.isid, port) for port in target_ports]
    return nexus in siblings and all(
        state.registrations.get(sibling) == made and state.holds(sibling) is state.holds(nexus) for sibling in siblings
    )


# --- PERSISTENT RESERVE OUT


async def persistent_reserve_out(context: CommandContext) -> TaskOutcome:
    """Decide, make durable, put into force, tell, abort: the first four are one indivisible event (SPC-4 5.13.1).

    The wait for aborted commands is outside of the lock, as they may be waiting for it themselves.
    """
    lu, task = context.lu, context.task
    order = _order(context)
    if lu.pair is not None:
        return await _at_the_pair(context, lu.pair, order)
    decide, aptpl_byte = order.decision(lambda name: _isids(context, name))
    unit = UnitReservation(context.server, lu)
    async with unit.lock:
        if task.aborted:
            return TaskOutcome()  # not sent: it was aborted before it did anything
        if unit.reserved:
            return reservation_conflict(context)  # SPC-2 5.5.1, whoever it comes from
        change = decide(lu.reservation.persistent)
        if change is None:
            return reservation_conflict(context)
        if change.state.aptpl and not lu.reservation_journal.survives_power_loss:
            raise invalid_parameter(aptpl_byte)
        await _put_into_force(context, order.service_action, change)
        unit.tell(change.attentions)
        aborts = order.service_action is PersistentReserveOut.PREEMPT_AND_ABORT
        doomed = unit.abort(change.preempted, task.nexus, task.tag) if aborts else None
    if doomed is not None:
        await doomed.wait()
    return TaskOutcome(transfer_length_bytes=len(order.parameter_list))


def _order(context: CommandContext) -> ReservationOrder:
    cdb, task = context.cdb, context.task
    length = int.from_bytes(cdb[5:9], "big")
    if length > MAXIMUM_LIST_LENGTH:
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, AscAscq.PARAMETER_LIST_LENGTH_ERROR)
    return ReservationOrder(
        task.nexus,
        task.tag,
        PersistentReserveOut(cdb[1] & 0x1F),
        cdb[2],
        bytes(context.parameter_list(length)),
        tuple(context.server.port_groups.numbers),
    )


async def _at_the_pair(context: CommandContext, pair: PairPort, order: ReservationOrder) -> TaskOutcome:
    """Both arrays have the same table: what this one may not decide alone ends with NOT READY, and why."""
    try:
        good = await pair.persistent_reserve_out(order, lambda: context.task.aborted)
    except PairRefused as refused:
        raise _abnormal_end(refused) from None
    except VolumeError as error:
        raise _not_kept(context, error) from None
    if not good:
        return reservation_conflict(context)
    return TaskOutcome(transfer_length_bytes=len(order.parameter_list))


def _abnormal_end(refused: PairRefused) -> CheckCondition:
    return CheckCondition(refused.refusal.sense_key, refused.refusal.asc_ascq)


def _isids(context: CommandContext, name: TransportId) -> list[bytes]:
    """All known ports of a device (SPC-4 7.6.4.6)."""
    lu, initiator_name = context.lu, normalised_name(name.initiator_name)
    known = {*lu.unit_attentions.known, *lu.reservation.persistent.registrations}
    return sorted({nexus.isid for nexus in known if nexus.initiator_name == initiator_name})


async def _put_into_force(context: CommandContext, action: PersistentReserveOut, change: Change) -> None:
    lu = context.lu
    old = lu.reservation.persistent
    try:
        await lu.reservation_journal.change(change.state)
    except MediumFailure as error:
        raise _not_kept(context, error) from None
    _log_change(context.task.lun, context.task.nexus, action, old, change.state)


def _not_kept(context: CommandContext, error: VolumeError) -> CheckCondition:
    log.error("LUN %d: a persistent reservation could not be kept: %s", context.task.lun, error)
    return CheckCondition(SenseKey.HARDWARE_ERROR, AscAscq.INTERNAL_TARGET_FAILURE)


def _log_change(
    lun: int, nexus: ITNexus, action: PersistentReserveOut, old: PersistentReservation, new: PersistentReservation
) -> None:
    if (old.registrations, old.reservation_type, old.holder) == (new.registrations, new.reservation_type, new.holder):
        return
    made = new.registrations.get(nexus)
    log.info(
        "LUN %d: %s by %s (%s): %s",
        lun,
        action.name.replace("_", " "),
        nexus,
        "not registered" if made is None else f"key {made.key:#x}",
        new,
    )
