"""Figure 5 from the local GOOD on: whose cluster does this RESERVE make the owner? [C]

One straight line, so that it can be read beside the figure. Its ports are a control session to the array and a
deadline; whatever is unknown, late or failed ends as RESERVATION CONFLICT, after the local reservation was given back.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from initiator_shim.pair_client import CommandPort, PairRefused, pair_control, report_pair_status
from initiator_shim.session_errors import SessionError
from storage_model.nexus import ITNexus
from storage_model.pair_state import PairRole, PairState, Refusal
from storage_model.spec.pair_cdb import PairControlOut, PairOut, PairStatus, StatusFlag, encode_claim

WITHDRAW_SECONDS = 1.0
_TRIES = 2  # a second one only when the epoch has moved and turns out to be our own

_NOT_WANTED = "the host aborted it or is gone"


class Deadline(Protocol):
    """By when the host must have its answer."""

    def remaining(self) -> float:
        """Seconds left, 0 or less when there are none."""
        ...


@dataclass(frozen=True, slots=True)
class Decision:
    """What the host is told, and why. ``given_back`` is False when WITHDRAW could not be confirmed either.

    ``epoch`` is the one won, or the latest that was seen; 0 when none was. Of an owner it is the one that it has won.
    """

    won: bool
    epoch: int
    reason: str
    arbitrated: bool = True
    given_back: bool = True


async def arbitrate(
    port: CommandPort, nexus: ITNexus, lun: int, deadline: Deadline, is_wanted: Callable[[], bool]
) -> Decision:
    """Called when the array has answered the host's RESERVE (110, 111) with GOOD (112); ``nexus`` is the host's.

    ``is_wanted`` turns False when the host has aborted its RESERVE or is gone. Nothing is awaited between its last
    question and the return of a decision that is won.
    """
    decision = await _decide(port, nexus, lun, deadline, is_wanted)
    if decision.won and decision.arbitrated and not is_wanted():
        decision = Decision(False, decision.epoch, f"{_NOT_WANTED}, after {decision.reason}")
    if decision.won:
        return decision  # 117
    return await give_back(port, nexus, lun, decision)  # 116


async def give_back(port: CommandPort, nexus: ITNexus, lun: int, lost: Decision) -> Decision:
    """116: the local reservation, and any claim of this nexus that may still be decided, go before the host is told."""
    claim = encode_claim(nexus)
    command = PairControlOut(PairOut.WITHDRAW, parameter_list_length=len(claim))
    try:
        await pair_control(port, lun, command, claim, WITHDRAW_SECONDS)
    except PairRefused as refused:
        if not refused.not_a_pair_array:
            return _not_given_back(lost, refused)
    except SessionError as error:
        return _not_given_back(lost, error)
    return lost


async def _decide(
    port: CommandPort, nexus: ITNexus, lun: int, deadline: Deadline, is_wanted: Callable[[], bool]
) -> Decision:
    epoch = 0
    try:
        for again in range(_TRIES):
            status = await report_pair_status(port, lun, _left(deadline))  # 113
            epoch = status.epoch
            if not status.flags & StatusFlag.QUORUM:
                return Decision(True, 0, "not a quorum volume, nothing to arbitrate", arbitrated=False)  # Figure 6
            if not is_wanted():
                return Decision(False, epoch, _NOT_WANTED)
            if status.role is PairRole.SMPL:
                return Decision(False, epoch, "the quorum volume is not paired")
            if again and not _owns(nexus, status):
                return Decision(False, epoch, f"the pair changed meanwhile; {_owner(status)}")
            try:
                await _claim(port, nexus, lun, status, deadline)
            except PairRefused as refused:
                if refused.refusal is not Refusal.EPOCH_MOVED or again:
                    return Decision(False, epoch, f"{refused}; {_owner(status)}")
            else:
                return _won(nexus, status)
    except PairRefused as refused:
        if refused.not_a_pair_array:
            return Decision(True, 0, "the volume knows no pairs, nothing to arbitrate", arbitrated=False)  # Figure 6
        return Decision(False, epoch, str(refused))
    except SessionError as error:
        return Decision(False, epoch, f"no answer from the array that could be trusted: {error}")
    raise AssertionError("every try returns")


async def _claim(port: CommandPort, nexus: ITNexus, lun: int, status: PairStatus, deadline: Deadline) -> None:
    """114 at the P-VOL, 115 at the S-VOL: the verb that only one host can have ended normally (Figure 4)."""
    verb = PairOut.RESYNC if status.role is PairRole.P_VOL else PairOut.SWAP_RESYNC
    claim = encode_claim(nexus)
    command = PairControlOut(verb, expected_epoch=status.epoch, parameter_list_length=len(claim))
    await pair_control(port, lun, command, claim, _left(deadline))


def _left(deadline: Deadline) -> float:
    remaining = deadline.remaining()
    if remaining <= 0:
        raise SessionError("the deadline has passed")
    return remaining


def _won(nexus: ITNexus, status: PairStatus) -> Decision:
    if _owns(nexus, status):
        # In PSUS the array decides a new epoch for it, or without the other array votes for that epoch alone.
        armed = "; the next epoch is decided for it as well, or voted for, so that nobody else can win that"
        return Decision(True, status.epoch, "already the owner" + (armed if status.state is PairState.PSUS else ""))
    # The verb was conditional on the epoch that we read, so that ours is the next.
    how = "resync of the P-VOL" if status.role is PairRole.P_VOL else "swap resync of the S-VOL"
    return Decision(True, status.epoch + 1, f"the {how} was decided")


def _owns(nexus: ITNexus, status: PairStatus) -> bool:
    """A host with paths to both arrays may be the same nexus at each, and the owner at one of them."""
    return status.owner == nexus and status.owner_serial == status.serial


def _owner(status: PairStatus) -> str:
    if status.owner is None:
        return "no owner was known"
    return f"{status.owner.initiator_port_name} at array {status.owner_serial} was the owner"


def _not_given_back(lost: Decision, error: SessionError) -> Decision:
    return Decision(
        False, lost.epoch, f"{lost.reason}; giving the reservation back failed: {error}", lost.arbitrated, False
    )


def describe(decision: Decision, nexus: ITNexus, lun: int) -> str:
    """The one line about a decision, for the person who runs the cluster."""
    who = f"RESERVE of LUN {lun} by {nexus.initiator_port_name}"
    if not decision.arbitrated:
        return f"{who}: passed on, {decision.reason}"
    if decision.won:
        return f"{who}: won epoch {decision.epoch}, {decision.reason}"
    return f"{who}: refused in epoch {decision.epoch}, because {decision.reason}"
