"""PAIR CONTROL IN and OUT: the vendor commands that a shim and ``pairctl`` speak (¶31, Figure 4). [C]

An abnormal end is CHECK CONDITION with a sense code of its own per reason, see ``storage_model.pair_state.Refusal``.
"""

from enum import Enum

from storage_model.errors import CheckCondition
from storage_model.nexus import ITNexus
from storage_model.pair import PairRefused, PairRequest
from storage_model.pair_state import FenceLevel, PairRole, PairState, PairVerb, Refusal, Side
from storage_model.spec.pair_cdb import (
    PairControlOut,
    PairOption,
    PairOut,
    PairStatus,
    StatusFlag,
    decode_claim,
    decode_copy_rate,
    decode_pair_control_in,
)
from storage_model.spec.scsi_sense import AscAscq, SenseKey
from target.scsi.command_context import CommandContext, invalid_field
from target.scsi.logical_unit import LogicalUnit
from target.scsi.reservation_commands import reservation_conflict
from target.scsi.task import TaskOutcome

_VERBS = {
    PairOut.CREATE: PairVerb.CREATE,
    PairOut.SPLIT: PairVerb.SPLIT,
    PairOut.RESYNC: PairVerb.RESYNC,
    PairOut.SWAP_RESYNC: PairVerb.SWAP_RESYNC,
    PairOut.DELETE: PairVerb.DELETE,
    PairOut.TAKEOVER: PairVerb.TAKEOVER,
}
_CLAIMABLE = (PairOut.RESYNC, PairOut.SWAP_RESYNC, PairOut.TAKEOVER)
_BESIDE_EPOCHS = (PairOut.VERIFY, PairOut.SET_COPY_RATE)
_NAMED_GOOD = {PairVerb.RESYNC: PairVerb.RECOVER, PairVerb.SWAP_RESYNC: PairVerb.SWAP_RECOVER}


async def pair_control_in(context: CommandContext) -> TaskOutcome:
    """REPORT PAIR STATUS: 113 of Figure 5."""
    _, allocation_length = decode_pair_control_in(context.cdb)
    pair = context.lu.pair
    status = pair.status() if pair is not None else _unpaired_status(context.lu)
    return context.data_in(status.encode(), allocation_length)


async def pair_control_out(context: CommandContext) -> TaskOutcome:
    """The verbs; 114 and 115 of Figure 5 when they carry a claim."""
    command = PairControlOut.decode(context.cdb)
    lu = context.lu
    if context.server.read_only(context.task.nexus):
        # A pair's verbs replace what is on the volume; who may not write may not do that either.
        raise CheckCondition(SenseKey.DATA_PROTECT, AscAscq.WRITE_PROTECTED)
    if command.service_action in _BESIDE_EPOCHS:
        return _beside_epochs(context, command)
    claim = None
    if command.parameter_list_length:
        claim = decode_claim(context.parameter_list(command.parameter_list_length))
    if command.service_action is PairOut.WITHDRAW:
        await _withdraw(lu, claim)
        return TaskOutcome(transfer_length_bytes=command.parameter_list_length)
    if lu.pair is None:
        raise _abnormal_end(Refusal.NOT_CONFIGURED)
    request = _request(command, claim, lu.pair.status().serial)
    hold = _Hold.BEFORE if claim is None else await _hold_for(lu, claim)
    if hold is _Hold.CONFLICT:
        return reservation_conflict(context)
    try:
        await lu.pair.request(request)
    except PairRefused as refused:
        taken = request.verb is PairVerb.TAKEOVER and hold is _Hold.NEW
        if claim is not None and taken and lu.reservation.holder is claim:
            # Nobody would give it back. Of a RESERVE that has come since, the holder is another object; a RESYNC's
            # claim stands for its host's RESERVE, and WITHDRAW gives that back.
            lu.reservation.drop(claim)
        raise _abnormal_end(refused.refusal) from None
    return TaskOutcome(transfer_length_bytes=command.parameter_list_length)


def _beside_epochs(context: CommandContext, command: PairControlOut) -> TaskOutcome:
    """VERIFY and SET COPY RATE: nothing that both arrays would have to agree upon."""
    if command.options or command.fence is not None:
        raise invalid_field(2 if command.options else 3)
    if command.expected_epoch:
        raise invalid_field(4)
    pair = context.lu.pair
    length = command.parameter_list_length
    if command.service_action is PairOut.VERIFY:
        if length:
            raise invalid_field(10)
        if pair is None:
            raise _abnormal_end(Refusal.NOT_CONFIGURED)
        try:
            pair.verify()
        except PairRefused as refused:
            raise _abnormal_end(refused.refusal) from None
    else:
        rate = decode_copy_rate(context.parameter_list(length) if length else b"")
        if pair is None:
            raise _abnormal_end(Refusal.NOT_CONFIGURED)
        pair.set_copy_rate(rate)
    return TaskOutcome(transfer_length_bytes=length)


async def _withdraw(lu: LogicalUnit, claim: ITNexus | None) -> None:
    """116 of Figure 5: the loser's local reservation is given back, and its claim with it."""
    if claim is None:
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, AscAscq.PARAMETER_LIST_LENGTH_ERROR)  # it is about a claim
    lu.reservation.drop(claim)
    if lu.pair is not None:
        await lu.pair.withdraw(claim)


class _Hold(Enum):
    """How the unit comes to be reserved for a claimant."""

    CONFLICT = "another nexus holds it"
    BEFORE = "it was, or nothing can be held"
    NEW = "by the claim"


async def _hold_for(lu: LogicalUnit, claim: ITNexus) -> _Hold:
    """The claimant's RESERVE was GOOD here (112), unless another nexus holds the unit by now.

    The WITHDRAW of an older attempt may have come late, after that RESERVE, and have given back what is still wanted:
    a host that is told GOOD must find the unit reserved. What the claimant's own session sends later comes after this.
    """
    if claim not in lu.unit_attentions.known:
        return _Hold.BEFORE  # not logged in: nothing could be held for it, and nobody would ever give it back
    async with lu.reservation_journal.lock:
        held = lu.reservation.holder == claim
        if not lu.reservation.reserve(claim):
            return _Hold.CONFLICT
        return _Hold.BEFORE if held else _Hold.NEW


def _request(command: PairControlOut, claim: ITNexus | None, serial: str) -> PairRequest:
    if claim is not None and command.service_action not in _CLAIMABLE:
        raise invalid_field(10)
    verb = _VERBS[command.service_action]
    if command.good_side is not Side.NONE:
        if verb not in _NAMED_GOOD:
            raise invalid_field(2)
        verb = _NAMED_GOOD[verb]
    return PairRequest(
        verb,
        serial,
        command.expected_epoch,
        claim,
        command.fence,
        command.good_side,
        s_vol_writable=PairOption.S_VOL_WRITABLE in command.options,
        remote_p_vol=PairOption.REMOTE_P_VOL in command.options,
        no_copy=PairOption.NO_COPY in command.options,
        force=PairOption.FORCE in command.options,
        group=PairOption.GROUP in command.options,
    )


def _abnormal_end(refusal: Refusal) -> CheckCondition:
    return CheckCondition(refusal.sense_key, refusal.asc_ascq)


def _unpaired_status(lu: LogicalUnit) -> PairStatus:
    return PairStatus(
        role=PairRole.SMPL,
        state=PairState.SMPL,
        fence=FenceLevel.NEVER,
        flags=StatusFlag.NONE,
        copy_percent=100,
        epoch=0,
        ldev=0,
        peer_ldev=0,
        differing_bytes=0,
        size_bytes=lu.volume.size_bytes,
        serial="",
        peer_serial="",
        owner_serial="",
        owner=None,
        pair_name="",
        group_name="",
        volume_name="",
    )
