"""How the outcome of a PERSISTENT RESERVE OUT travels from the array that decided it to the one that was asked."""

import json
from typing import Any

from storage_model.errors import CheckCondition
from storage_model.pair import PairRefused
from storage_model.pair_state import Refusal
from storage_model.spec.copy_frames import Answer, Frame, FrameType, decode_json
from storage_model.volume import MediumFailure


def refused(**why: Any) -> Frame:
    """An ANSWER that says why in JSON."""
    return Frame(FrameType.ANSWER, flags=Answer.REFUSED, payload=json.dumps(why).encode())


def refused_because(error: CheckCondition | PairRefused) -> Frame:
    """An ANSWER out of which :func:`outcome_of` makes the same error."""
    if isinstance(error, PairRefused):
        return refused(refusal=error.refusal.name)
    where = error.field_pointer, error.bit_pointer, error.in_parameter_list
    return refused(sense=[int(error.sense_key), int(error.asc_ascq), *where])


def outcome_of(answer: Frame) -> bool:
    """True for GOOD, False for RESERVATION CONFLICT; raises CheckCondition, PairRefused, MediumFailure."""
    if answer.flags == Answer.DONE:
        return True
    if answer.flags != Answer.REFUSED:
        raise MediumFailure("the other array could not keep it")
    why = decode_json(answer.payload)
    if why.get("conflict"):
        return False
    if "sense" in why:
        raise _sense(why["sense"])
    raise PairRefused(Refusal.__members__.get(str(why.get("refusal")), Refusal.NO_VOTE))


def _sense(fields: Any) -> CheckCondition:
    try:
        key, code, byte, bit, in_list = fields
        return CheckCondition(
            int(key),
            int(code),
            field_pointer=None if byte is None else int(byte),
            bit_pointer=None if bit is None else int(bit),
            in_parameter_list=bool(in_list),
        )
    except (TypeError, ValueError, OverflowError):
        return CheckCondition(Refusal.NO_VOTE.sense_key, Refusal.NO_VOTE.asc_ascq)
