"""What a request for a consistency group asks of each of its pairs (I9).

A verb that is refused by one pair is refused for all. A pair is left out, and stays as it is, where the verb leads
nowhere: one without a pair (SMPL), and one that is there already, as an operator may have taken it there alone. Only
CREATE leaves none out: what was paired before may have its P-VOL at the other array, or other data.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from storage_model.group_register import MAX_GROUP_PAIRS, lock_order
from storage_model.pair import PairEpoch, PairRecord, PairRefused, PairRequest
from storage_model.pair_state import TRANSITIONS, FenceLevel, PairRole, PairState, PairVerb, Refusal

SWAPS = (PairVerb.SWAP_RESYNC, PairVerb.SWAP_RECOVER)
GROUP_VERBS = tuple(verb for verb in PairVerb if verb is not PairVerb.RELEASE)

NextEpoch = Callable[[str, PairRecord, PairRequest], PairEpoch]
"""One pair's value, or PairRefused; see ``storage_model.pair.next_epoch``."""


def group_epochs(
    group: str, records: Mapping[str, PairRecord], addressed: str, request: PairRequest, next_epoch: NextEpoch
) -> dict[str, PairEpoch]:
    """The next epochs of those pairs that the request changes; raises PairRefused for all, with the pair that refuses.

    The expected epoch and the claim are about the pair ``addressed``, which is never left out.
    """
    values = {}
    for name in lock_order(records):
        record, asked = records[name], request
        if name != addressed:
            if _left_out(record, request):
                continue
            asked = replace(request, claim=None, expected_epoch=0)
        if request.verb in SWAPS and asked.claim is None and record.state is PairState.PAIR:
            record = replace(record, state=PairState.PSUS)  # split and swapped by the one decision
        if request.verb is PairVerb.RECOVER and not request.force and _broke_off(record):
            asked = replace(asked, good_side=record.decided.source)
        try:
            values[name] = replace(next_epoch(name, record, asked), group=group)
        except PairRefused as refused:
            raise PairRefused(refused.refusal, f"pair {name}, so none of group {group}") from None
    if len(values) > MAX_GROUP_PAIRS:
        raise PairRefused(Refusal.BUSY, f"{len(values)} pairs, {MAX_GROUP_PAIRS} can be decided as one")
    return values


def _broke_off(record: PairRecord) -> bool:
    """Only the source of the copy is complete: it goes on as it was, whichever side is good where both are."""
    return record.state is PairState.PSUE and not record.equal


def _left_out(record: PairRecord, request: PairRequest) -> bool:
    role, state = record.decided.role_of(request.serial), record.state
    if request.verb is PairVerb.CREATE:
        return False
    if role is PairRole.SMPL:
        return True
    refusal = TRANSITIONS[(role, state), request.verb]
    match request.verb:
        case PairVerb.SPLIT:
            return refusal is Refusal.ALREADY_SUSPENDED
        case PairVerb.RESYNC | PairVerb.RECOVER:
            return refusal in (Refusal.COPYING, Refusal.MIRRORING)
        case PairVerb.DELETE:
            return False
        case PairVerb.TAKEOVER:  # a P-VOL that nothing holds back need not be taken over
            return role is PairRole.P_VOL and (state is PairState.PSUS or record.decided.fence is FenceLevel.NEVER)
    return role is PairRole.P_VOL


def leader_of(records: Mapping[str, PairRecord], names: Mapping[str, PairEpoch], lowest_serial: str) -> str:
    """The array that may propose for all these pairs; raises PairRefused when there is none.

    ``lowest_serial`` is the array that leads what is not paired.
    """
    leaders = {records[name].decided.p_serial or lowest_serial for name in names}
    if len(leaders) != 1:
        raise PairRefused(Refusal.GROUP_DIVIDED)
    return leaders.pop()
