"""What ``pairctl`` does at an array for the pairs it was given: find them, order, take over. [C]"""

from collections.abc import Callable, Sequence

from initiator_shim.logical_units import report_luns
from initiator_shim.pair_client import CommandPort, PairRefused, pair_control, report_pair_status
from initiator_shim.pair_display import PairUnit, advice, goal_reached
from initiator_shim.pair_exit_codes import OK, refusal_number, refusal_words
from initiator_shim.pair_takeover import (
    Plan,
    TakeoverImpossible,
    TakeoverResult,
    Way,
    plan_takeover,
    takeover_number,
)
from storage_model.nexus import ITNexus
from storage_model.pair_state import TRANSITIONS, PairVerb, Refusal, Side
from storage_model.spec.pair_cdb import PairControlOut, PairOption, PairOut, PairStatus, StatusFlag, encode_claim

_VERBS = {
    PairOut.CREATE: (PairVerb.CREATE, PairVerb.CREATE),
    PairOut.SPLIT: (PairVerb.SPLIT, PairVerb.SPLIT),
    PairOut.RESYNC: (PairVerb.RESYNC, PairVerb.RECOVER),
    PairOut.SWAP_RESYNC: (PairVerb.SWAP_RESYNC, PairVerb.SWAP_RECOVER),
    PairOut.DELETE: (PairVerb.DELETE, PairVerb.DELETE),
}
"""By service action: the transition asked for without, and with, a good side named."""

Tell = Callable[[str], None]
"""Takes a sentence for the operator."""


async def find_pairs(port: CommandPort, timeout: float) -> list[PairUnit]:
    """Every LUN that has a pair configured, whatever its state."""
    units: list[PairUnit] = []
    for lun in await report_luns(port, timeout):
        try:
            status = await report_pair_status(port, lun, timeout)
        except PairRefused as refused:
            if refused.sense is None:
                raise
            continue  # not a volume, or one that no pair is configured for
        if status.flags & StatusFlag.CONFIGURED:
            units.append(PairUnit(lun, status))
    return units


async def order(
    port: CommandPort, units: Sequence[PairUnit], command: PairControlOut, verb: str, timeout: float, tell: Tell
) -> int:
    """Give ``command`` to each pair; of a group, to none unless all are in a state for it. The exit status."""
    units = [unit for unit in units if not goal_reached(command, unit.status)] or units  # a group that is partly there
    for unit in units if len(units) > 1 else ():
        refusal = _refused_beforehand(command, unit.status)
        if refusal is not None:
            return _told(tell, verb, unit, refusal, f"{refusal.text}; no pair of the group was changed")
    for position, unit in enumerate(units):
        try:
            await pair_control(port, unit.lun, command, b"", timeout)
        except PairRefused as refused:
            if position and goal_reached(command, await report_pair_status(port, unit.lun, timeout)):
                continue
            return _told(tell, verb, unit, refused.refusal, str(refused))
    return OK


def _refused_beforehand(command: PairControlOut, status: PairStatus) -> Refusal | None:
    verb = _VERBS[command.service_action][command.good_side is not Side.NONE]
    outcome = TRANSITIONS[(status.role, status.state), verb]
    return outcome if isinstance(outcome, Refusal) else None


def _told(tell: Tell, verb: str, unit: PairUnit, refusal: Refusal | None, text: str) -> int:
    number = refusal_number(refusal)
    tell(f"{verb} {unit.status.pair_name}: {number} {refusal_words(number)}: {text}{advice(verb, refusal)}")
    return number


# ------------------------------------------------------------------------------------------------------------ takeover


async def take_over(
    port: CommandPort,
    units: Sequence[PairUnit],
    timeout: float,
    tell: Tell,
    *,
    force: bool = False,
    incomplete: bool = False,
    owner: ITNexus | None = None,
) -> dict[str, int]:
    """The exit status for each pair, by its name; when one of them cannot be taken over, none is."""
    plans: list[tuple[PairUnit, Plan]] = []
    for unit in units:
        try:
            plans.append((unit, plan_takeover(unit.status, force=force)))
        except TakeoverImpossible as error:
            _tell_takeover(tell, unit, error.number, str(error))
            return {unit.status.pair_name: error.number}
    results: dict[str, int] = {}
    split: set[str] = set()
    for unit, plan in plans:  # all are split before the first is swapped: the group's S-VOLs are images of one moment
        if plan.way is Way.SPLIT_AND_SWAP:
            number = await _step(port, unit, PairControlOut(PairOut.SPLIT), timeout, tell)
            if number:
                return {unit.status.pair_name: number}
            split.add(unit.status.pair_name)
    for unit, plan in plans:
        name = unit.status.pair_name
        if plan.way is Way.FORCE:
            options = PairOption.FORCE if incomplete else PairOption.NONE
            # In a group, the owner is that of the quorum volume; a pair that is asked for alone may say what it is.
            claimed = len(units) == 1 or bool(unit.status.flags & StatusFlag.QUORUM)
            command = PairControlOut(PairOut.TAKEOVER, options)
            number = await _step(port, unit, command, timeout, tell, owner if claimed else None)
        elif plan.way is Way.STAY:
            number = 0
        else:
            number = await _step(
                port, unit, PairControlOut(PairOut.SWAP_RESYNC), timeout, tell, after_split=name in split
            )
            number = TakeoverResult.SVOL_SSUS if number and name in split else number
        results[name] = number or plan.result
        if number:
            break
    return results


async def _step(
    port: CommandPort,
    unit: PairUnit,
    command: PairControlOut,
    timeout: float,
    tell: Tell,
    owner: ITNexus | None = None,
    *,
    after_split: bool = False,
) -> int:
    """One command, on condition that the pair is as it was read. 0, or the exit status of its refusal."""
    claim = b"" if owner is None else encode_claim(owner)
    epoch = unit.status.epoch + int(after_split)  # our own split was the one change since
    conditional = PairControlOut(command.service_action, command.options, None, epoch, len(claim))
    try:
        await pair_control(port, unit.lun, conditional, claim, timeout)
    except PairRefused as refused:
        number = takeover_number(refused.refusal)
        _tell_takeover(tell, unit, number, str(refused))
        return number
    return 0


def _tell_takeover(tell: Tell, unit: PairUnit, number: int, text: str) -> None:
    tell(f"takeover {unit.status.pair_name}: {number} {refusal_words(number)}: {text}")
