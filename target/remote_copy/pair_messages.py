"""What the two halves of a pair write into their frames: epochs, PAIR_STATUS, and the answer to a request."""

import json
from dataclasses import dataclass

from storage_model.errors import RemoteProtocolError
from storage_model.pair import PairEpoch, PairRefused
from storage_model.pair_state import PairState, Refusal
from storage_model.spec.copy_frames import Answer, Frame, FrameType, ToldFlag, decode_json, decode_parts


@dataclass(frozen=True, slots=True)
class PairTold:
    """A PAIR_STATUS: what the other array knows of its half. ``written``: it has data of its own. ``vote_is_free``: see
    :attr:`ToldFlag.VOTE_IS_FREE`.

    ``reservations`` is the ReservationEntry in force there; b"" where one of the arrays knows none of pairs.
    """

    decided: PairEpoch
    state: PairState
    written: bool
    marks: bytes
    reservations: bytes = b""
    vote_is_free: bool = False

    @classmethod
    def decode(cls, frame: Frame) -> "PairTold":
        """Raises RemoteProtocolError."""
        parts = decode_parts(frame.payload, None)
        if len(parts) not in (2, 3):
            raise RemoteProtocolError(f"a PAIR_STATUS of {len(parts)} parts", 0)
        decided, marks, table = (*parts, b"")[:3]
        written, free = bool(frame.flags & ToldFlag.WRITTEN), bool(frame.flags & ToldFlag.VOTE_IS_FREE)
        return cls(decode_epoch(decided), _state(frame.length_bytes), written, marks, table, free)


def decode_epoch(text: bytes) -> PairEpoch:
    """An epoch out of a frame; raises RemoteProtocolError."""
    try:
        return PairEpoch.decode(text.decode())
    except ValueError as error:
        raise RemoteProtocolError(str(error), 0) from None


def refused_frame(error: PairRefused, *, vote_is_free: bool = False) -> Frame:
    """The answer to a REQUEST, GROUP_REQUEST or READY."""
    document = {"refusal": error.refusal.name, "vote_is_free": vote_is_free}
    return Frame(FrameType.ANSWER, flags=Answer.REFUSED, payload=json.dumps(document).encode())


def refusal_of(reply: Frame) -> PairRefused:
    """The reverse of :func:`refused_frame`."""
    name = decode_json(reply.payload).get("refusal", "") if reply.payload else ""
    return PairRefused(Refusal.__members__.get(str(name), Refusal.NO_VOTE))


def leaves_no_doubt(reply: Frame) -> bool:
    """True of a refusal by which nothing can come of the request any more."""
    return reply.flags == Answer.REFUSED and decode_json(reply.payload).get("vote_is_free") is True


def _state(number: int) -> PairState:
    try:
        return PairState(number)
    except ValueError:
        raise RemoteProtocolError(f"{number} is not a pair state", 0) from None
