"""What ``pairctl`` does at an array for the pairs it was given: find them, order, take over. [C]"""

from collections.abc import Callable, Sequence
from dataclasses import replace

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

_BY_BOTH = "by both arrays"
_BY_ONE = "by this array alone, as the pair is not connected; the other one follows when it hears of it"
_NONE_CHANGED = "no pair of the group was changed"

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
    """Give ``command`` to the pair, or as one command to a group, if all its pairs are in a state for it.

    The exit status.
    """
    group = _whole_group(units)
    units = [unit for unit in units if not goal_reached(command, unit.status)] or units  # a group that is partly there
    for unit in units if group else ():
        refusal = _refused_beforehand(command, unit.status)
        if refusal is not None:
            return _told(tell, verb, unit.status.pair_name, refusal, f"{refusal.text}; {_NONE_CHANGED}")
    if group and _divided(command, units):
        return await _delete_one_by_one(port, units, command, verb, timeout, tell)
    addressed, *_ = units
    if group:
        command = replace(command, options=command.options | PairOption.GROUP)
    try:
        await pair_control(port, addressed.lun, command, b"", timeout)
    except PairRefused as refused:
        name, text = (group, _of_a_group(refused)) if group else (addressed.status.pair_name, str(refused))
        return _told(tell, verb, name, refused.refusal, text)
    return OK


def _divided(command: PairControlOut, units: Sequence[PairUnit]) -> bool:
    """True for a deletion by force of pairs of which the other array can be asked for some: no vote has all."""
    forced = command.service_action is PairOut.DELETE and PairOption.FORCE in command.options
    return forced and len({_connected(unit) for unit in units}) > 1


def _connected(unit: PairUnit) -> bool:
    return StatusFlag.LINK_UP in unit.status.flags


async def _delete_one_by_one(
    port: CommandPort, units: Sequence[PairUnit], command: PairControlOut, verb: str, timeout: float, tell: Tell
) -> int:
    """Each as it would be alone; what was done is told of each. The first exit status that is not 0."""
    first = OK
    for unit in units:
        name = unit.status.pair_name
        try:
            await pair_control(port, unit.lun, command, b"", timeout)
        except PairRefused as refused:
            number = _told(tell, verb, name, refused.refusal, f"{refused}; it was not changed")
            first = first or number
        else:
            tell(f"{verb} {name}: deleted " + (_BY_BOTH if _connected(unit) else _BY_ONE))
    return first


def _whole_group(units: Sequence[PairUnit]) -> str:
    """The group that the pairs are; "" if there is but one of them."""
    names = {unit.status.group_name for unit in units}
    return names.pop() if len(units) > 1 and len(names) == 1 else ""


def _of_a_group(refused: PairRefused) -> str:
    unknown = (None, Refusal.NO_VOTE, Refusal.IN_DOUBT)
    return str(refused) if refused.refusal in unknown else f"{refused}; {_NONE_CHANGED}"


def _refused_beforehand(command: PairControlOut, status: PairStatus) -> Refusal | None:
    verb = _VERBS[command.service_action][command.good_side is not Side.NONE]
    outcome = TRANSITIONS[(status.role, status.state), verb]
    return outcome if isinstance(outcome, Refusal) else None


def _told(tell: Tell, verb: str, name: str, refusal: Refusal | None, text: str) -> int:
    number = refusal_number(refusal)
    tell(f"{verb} {name}: {number} {refusal_words(number)}: {text}{advice(verb, refusal)}")
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
            _tell_takeover(tell, unit.status.pair_name, error.number, str(error))
            return {unit.status.pair_name: error.number}
    group = _whole_group(units)
    if group:
        return await _take_group_over(port, group, plans, timeout, tell, incomplete=incomplete, owner=owner)
    results: dict[str, int] = {}
    for unit, plan in plans:
        number = await _take_pair_over(port, unit, plan, timeout, tell, incomplete=incomplete, owner=owner)
        results[unit.status.pair_name] = number or plan.result
        if number:
            break
    return results


async def _take_pair_over(
    port: CommandPort,
    unit: PairUnit,
    plan: Plan,
    timeout: float,
    tell: Tell,
    *,
    incomplete: bool,
    owner: ITNexus | None,
) -> int:
    """0, or the exit status of what was refused."""
    if plan.way is Way.STAY:
        return 0
    if plan.way is Way.FORCE:
        options = PairOption.FORCE if incomplete else PairOption.NONE
        return await _step(port, unit, PairControlOut(PairOut.TAKEOVER, options), timeout, tell, owner)
    split = plan.way is Way.SPLIT_AND_SWAP
    if split and (number := await _step(port, unit, PairControlOut(PairOut.SPLIT), timeout, tell)):
        return number
    number = await _step(port, unit, PairControlOut(PairOut.SWAP_RESYNC), timeout, tell, after_split=split)
    return TakeoverResult.SVOL_SSUS if number and split else number


async def _take_group_over(
    port: CommandPort,
    group: str,
    plans: Sequence[tuple[PairUnit, Plan]],
    timeout: float,
    tell: Tell,
    *,
    incomplete: bool,
    owner: ITNexus | None,
) -> dict[str, int]:
    """All that are not here yet, or none of them: one decision, out of PSUS or PAIR, or by force."""
    moving = [(unit, plan) for unit, plan in plans if plan.way is not Way.STAY]
    number = 0
    if moving:
        forced = any(plan.way is Way.FORCE for _, plan in moving)
        # The owner is that of the quorum volume, so that it is to be the one addressed.
        quorum = [unit for unit, _ in moving if unit.status.flags & StatusFlag.QUORUM]
        options = PairOption.GROUP | (PairOption.FORCE if incomplete else PairOption.NONE)
        command = PairControlOut(PairOut.TAKEOVER if forced else PairOut.SWAP_RESYNC, options)
        addressed = (quorum or [unit for unit, _ in moving])[0]
        claim = owner if forced and quorum else None
        number = await _step(port, addressed, command, timeout, tell, claim, name=group)
    return {
        unit.status.pair_name: number if number and plan.way is not Way.STAY else plan.result for unit, plan in plans
    }


async def _step(
    port: CommandPort,
    unit: PairUnit,
    command: PairControlOut,
    timeout: float,
    tell: Tell,
    owner: ITNexus | None = None,
    *,
    after_split: bool = False,
    name: str = "",
) -> int:
    """One command, on condition that the pair is as it was read. 0, or the exit status of its refusal."""
    claim = b"" if owner is None else encode_claim(owner)
    epoch = unit.status.epoch + int(after_split)  # our own split was the one change since
    conditional = PairControlOut(command.service_action, command.options, None, epoch, len(claim))
    try:
        await pair_control(port, unit.lun, conditional, claim, timeout)
    except PairRefused as refused:
        number = takeover_number(refused.refusal)
        _tell_takeover(tell, name or unit.status.pair_name, number, _of_a_group(refused) if name else str(refused))
        return number
    return 0


def _tell_takeover(tell: Tell, name: str, number: int, text: str) -> None:
    tell(f"takeover {name}: {number} {refusal_words(number)}: {text}")
