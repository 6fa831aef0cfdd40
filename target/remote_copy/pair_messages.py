"""What the two halves of a pair write into their frames: epochs, PAIR_STATUS, and the answer to a request."""

import json
from dataclasses import dataclass

from storage_model.errors import RemoteProtocolError
from storage_model.pair import PairEpoch, PairRefused
from storage_model.pair_state import PairState, Refusal
from storage_model.spec.copy_frames import Answer, Frame, FrameType, decode_json, decode_parts


@dataclass(frozen=True, slots=True)
class PairTold:
    """A PAIR_STATUS: what the other array knows of its half. ``written``: it has data of its own.

    ``reservations`` is the ReservationEntry in force there; b"" where one of the arrays knows none of pairs.
    """

    decided: PairEpoch
    state: PairState
    written: bool
    marks: bytes
    reservations: bytes = b""

    @classmethod
    def decode(cls, frame: Frame) -> "PairTold":
        """Raises RemoteProtocolError."""
        parts = decode_parts(frame.payload, None)
        if len(parts) not in (2, 3):
            raise RemoteProtocolError(f"a PAIR_STATUS of {len(parts)} parts", 0)
        decided, marks, *reservations = parts
        return cls(decode_epoch(decided), _state(frame.length_bytes), bool(frame.flags), marks, *reservations)


def decode_epoch(text: bytes) -> PairEpoch:
    """An epoch out of a frame; raises RemoteProtocolError."""
    try:
        return PairEpoch.decode(text.decode())
    except ValueError as error:
        raise RemoteProtocolError(str(error), 0) from None


def refused_frame(error: PairRefused) -> Frame:
    """The answer to a REQUEST, GROUP_REQUEST or READY."""
    return Frame(FrameType.ANSWER, flags=Answer.REFUSED, payload=json.dumps({"refusal": error.refusal.name}).encode())


def refusal_of(reply: Frame) -> PairRefused:
    """The reverse of :func:`refused_frame`."""
    name = decode_json(reply.payload).get("refusal", "") if reply.payload else ""
    return PairRefused(Refusal.__members__.get(str(name), Refusal.NO_VOTE))


def _state(number: int) -> PairState:
    try:
        return PairState(number)
    except ValueError:
        raise RemoteProtocolError(f"{number} is not a pair state", 0) from None
