"""PERSISTENT RESERVE IN and OUT (SPC-4 5.13, 6.15, 6.16): what is asked of the state, and what a change entails. [C]"""

import logging
from asyncio import Event
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

from storage_model.errors import CheckCondition
from storage_model.nexus import ITNexus, normalised_name
from storage_model.persistent_reservation import Change, PersistentReservation, Registration
from storage_model.spec.scsi_cdb import OperationCode, PersistentReserveIn, PersistentReserveOut
from storage_model.spec.scsi_persistent_reservation import (
    MAXIMUM_LIST_LENGTH,
    BasicParameters,
    FullStatus,
    MoveParameters,
    TransportId,
    decode_move_destination,
    decode_transport_ids,
    encode_capabilities,
    encode_full_status,
    encode_keys,
    encode_reservation,
)
from storage_model.spec.scsi_sense import AscAscq, SenseKey
from storage_model.volume import MediumFailure
from target.scsi.command_context import CommandContext, invalid_parameter
from target.scsi.offered_commands import check_offered, offered_rows
from target.scsi.reservation_commands import reservation_conflict
from target.scsi.task import TaskOutcome
from target.scsi.task_manager import abort

log = logging.getLogger("pairvol.scsi")

_Action = PersistentReserveOut
_Decision: TypeAlias = Callable[[PersistentReservation], Change | None]

_FLAGS_BYTE, _MOVE_FLAGS_BYTE = 20, 17
_TARGET_PORT_BYTE, _MOVE_TRANSPORT_ID_BYTE, _FIRST_TRANSPORT_ID_BYTE = 18, 24, 28


# --- PERSISTENT RESERVE IN


async def persistent_reserve_in(context: CommandContext) -> TaskOutcome:
    """While the unit is reserved by RESERVE it conflicts whoever asks, the holder too (SPC-2 5.5.1)."""
    lu, cdb = context.lu, context.cdb
    if lu.reservation.holder is not None:
        return reservation_conflict(context)
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
    """Where there is no PERSISTENT RESERVE OUT the mask of types is empty: cluster software can read that here."""
    lu = context.lu
    offered = offered_rows(context.server.command_rows, lu)
    if not any(row.operation_code == OperationCode.PERSISTENT_RESERVE_OUT for row in offered):
        return encode_capabilities(power_loss=False, activated=False, type_mask=0)
    activated = lu.reservation.persistent.aptpl
    return encode_capabilities(power_loss=lu.reservation_journal.survives_power_loss, activated=activated)


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
    lu, cdb = context.lu, context.cdb
    check_offered(context.row, lu)
    action = _Action(cdb[1] & 0x1F)
    length = int.from_bytes(cdb[5:9], "big")
    decide, aptpl_byte = _decision(context, action, length)
    async with lu.reservation_journal.lock:
        if context.task.aborted:
            return TaskOutcome()  # not sent: it was aborted before it did anything
        if lu.reservation.holder is not None:
            return reservation_conflict(context)  # SPC-2 5.5.1, whoever it comes from
        change = decide(lu.reservation.persistent)
        if change is None:
            return reservation_conflict(context)
        if change.state.aptpl and not lu.reservation_journal.survives_power_loss:
            raise invalid_parameter(aptpl_byte)
        await _put_into_force(context, action, change)
        doomed = _abort_preempted(context, change) if action is _Action.PREEMPT_AND_ABORT else None
    if doomed is not None:
        await doomed.wait()
    return TaskOutcome(transfer_length_bytes=length)


def _decision(context: CommandContext, action: PersistentReserveOut, length: int) -> tuple[_Decision, int]:
    """What the command asks of the state, and the byte of its list that has APTPL; raises CheckCondition for a list
    whose length cannot be."""
    if length > MAXIMUM_LIST_LENGTH:
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, AscAscq.PARAMETER_LIST_LENGTH_ERROR)
    data = bytes(context.parameter_list(length))
    if action is _Action.REGISTER_AND_MOVE:
        return partial(_move, context, MoveParameters.decode(data)), _MOVE_FLAGS_BYTE
    asked = BasicParameters.decode(data)
    if action is _Action.REGISTER and asked.spec_i_pt and length < _FIRST_TRANSPORT_ID_BYTE:
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, AscAscq.PARAMETER_LIST_LENGTH_ERROR)
    return partial(_basic, context, action, asked), _FLAGS_BYTE


def _basic(
    context: CommandContext, action: PersistentReserveOut, asked: BasicParameters, state: PersistentReservation
) -> Change | None:
    nexus = context.task.nexus
    scope, type_code = context.cdb[2] >> 4, context.cdb[2] & 0x0F
    if action in (_Action.REGISTER, _Action.REGISTER_AND_IGNORE_EXISTING_KEY):
        ports = context.server.port_groups.numbers if asked.all_tg_pt else None
        return state.register(
            nexus,
            asked.key,
            asked.action_key,
            aptpl=asked.aptpl,
            ignore_key=action is _Action.REGISTER_AND_IGNORE_EXISTING_KEY,
            ports=ports,
            named=partial(_nexuses_named, context, asked.transport_ids, ports) if asked.spec_i_pt else None,
        )
    if not state.is_registered_with(nexus, asked.key):
        return None
    if asked.spec_i_pt:
        raise invalid_parameter(_FLAGS_BYTE)  # SPC-4 6.16.3
    match action:
        case _Action.RESERVE:
            return state.reserve(nexus, asked.key, scope, type_code)
        case _Action.RELEASE:
            return state.release(nexus, asked.key, scope, type_code)
        case _Action.CLEAR:
            return state.clear(nexus, asked.key)
        case _:  # PREEMPT, PREEMPT AND ABORT
            return state.preempt(nexus, asked.key, asked.action_key, scope, type_code)


def _move(context: CommandContext, asked: MoveParameters, state: PersistentReservation) -> Change | None:
    return state.move(
        context.task.nexus,
        asked.key,
        asked.action_key,
        aptpl=asked.aptpl,
        unregister=asked.unregister,
        named=partial(_destination, context, asked),
    )


def _nexuses_named(context: CommandContext, data: bytes, ports: Sequence[int] | None) -> list[ITNexus]:
    """With SPEC_I_PT: each initiator port, at the port of the command or at all of them (SPC-4 table 69)."""
    nexuses = []
    for name in decode_transport_ids(data, _FIRST_TRANSPORT_ID_BYTE):
        isids = _isids(context, name)
        if not isids:
            raise invalid_parameter(_FIRST_TRANSPORT_ID_BYTE)
        for port in (context.task.nexus.target_port,) if ports is None else ports:
            nexuses += [ITNexus(name.initiator_name, isid, port) for isid in isids]
    return nexuses


def _destination(context: CommandContext, asked: MoveParameters) -> list[ITNexus]:
    """A device name does for an initiator port while exactly one of its ports is known."""
    name = decode_move_destination(asked.transport_id)
    if asked.relative_target_port not in context.server.port_groups:
        raise invalid_parameter(_TARGET_PORT_BYTE)
    isids = _isids(context, name)
    if len(isids) != 1:
        raise invalid_parameter(_MOVE_TRANSPORT_ID_BYTE)
    return [ITNexus(name.initiator_name, isid, asked.relative_target_port) for isid in isids]


def _isids(context: CommandContext, name: TransportId) -> list[bytes]:
    """The port that a TransportID names, or all known ports of the device it names (SPC-4 7.6.4.6)."""
    if name.isid is not None:
        return [name.isid]
    lu, initiator_name = context.lu, normalised_name(name.initiator_name)
    known = {*lu.unit_attentions.known, *lu.reservation.persistent.registrations}
    return sorted({nexus.isid for nexus in known if nexus.initiator_name == initiator_name})


async def _put_into_force(context: CommandContext, action: PersistentReserveOut, change: Change) -> None:
    lu, nexus = context.lu, context.task.nexus
    old = lu.reservation.persistent
    try:
        await lu.reservation_journal.change(change.state)
    except MediumFailure as error:
        log.error("LUN %d: a persistent reservation could not be kept: %s", context.task.lun, error)
        raise CheckCondition(SenseKey.HARDWARE_ERROR, AscAscq.INTERNAL_TARGET_FAILURE) from None
    # A registered nexus that is not logged in now hears 29h/00h when it comes, which stands for what it missed: of the
    # conditions of a nexus it has the highest precedence (SAM-5 5.14).
    for other, condition in change.attentions:
        lu.unit_attentions.establish(condition, only=other)
    _log_change(context.task.lun, nexus, action, old, change.state)


def _log_change(
    lun: int, nexus: ITNexus, action: PersistentReserveOut, old: PersistentReservation, new: PersistentReservation
) -> None:
    if (old.registrations, old.reservation_type, old.holder) == (new.registrations, new.reservation_type, new.holder):
        return
    made = new.registrations.get(nexus)
    log.info(
        "LUN %d: %s by %s (%s): %d registered, %s",
        lun,
        action.name.replace("_", " "),
        nexus,
        "not registered" if made is None else f"key {made.key:#x}",
        len(new.registrations),
        _held(new),
    )


def _held(state: PersistentReservation) -> str:
    if state.reservation_type is None:
        return "not reserved"
    return f"{state.reservation_type} held by {state.holder or 'all of them'}"


def _abort_preempted(context: CommandContext, change: Change) -> Event:
    """SPC-4 5.13.11.2.6: the commands of the preempted, and their prevention of removal. Set when they have ended.

    A command that still waits for older ones will not begin, and may be waiting for this very one: no need to wait.
    """
    lu, task = context.lu, context.task
    lu.prevents_removal -= change.preempted
    doomed = [other for other in lu.tasks.all() if other is not task and other.nexus in change.preempted]
    abort(doomed)
    context.server.abort_in_transports(change.preempted, task.lun)
    ended = Event()
    lu.tasks.when_ended([other for other in doomed if not lu.tasks.waits_for_turn(other)], ended.set)
    return ended
