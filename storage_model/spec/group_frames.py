"""Payloads of the remote-copy frames about consistency groups.

PROPOSE_GROUP: a JSON object of name -> [value, decided before it], then each pair's differing regions, by name. Its
answer: the voter's differing regions, by name. GROUP_REQUEST: the PairRequest, then a JSON list of the pairs whose
S-VOL took writes of its own.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from storage_model.errors import RemoteProtocolError
from storage_model.group_register import MAX_GROUP_PAIRS, lock_order
from storage_model.pair import PairEpoch, PairRequest
from storage_model.spec.copy_frames import decode_json, decode_parts, encode_parts
from storage_model.volume import Buffer


@dataclass(frozen=True, slots=True)
class GroupProposal:
    """By pair name: the next epochs, the ones before them, and the proposer's packed differing regions."""

    values: Mapping[str, PairEpoch]
    decided: Mapping[str, PairEpoch]
    marks: Mapping[str, bytes]

    def encode(self) -> bytes:
        """As a payload."""
        names = lock_order(self.values)
        document = {name: [self.values[name].encode(), self.decided[name].encode()] for name in names}
        return encode_parts(json.dumps(document).encode(), *(self.marks[name] for name in names))

    @classmethod
    def decode(cls, payload: Buffer) -> "GroupProposal":
        """Raises RemoteProtocolError."""
        document, *marks = decode_parts(payload, None) or [b""]
        fields = decode_json(document)
        names = lock_order(fields)
        if not 0 < len(names) == len(marks) <= MAX_GROUP_PAIRS:
            raise RemoteProtocolError(f"{len(names)} pairs proposed, with the regions of {len(marks)}", 0)
        try:
            pairs = {name: tuple(PairEpoch.decode(text) for text in fields[name]) for name in names}
            values = {name: value for name, (value, _) in pairs.items()}
            decided = {name: before for name, (_, before) in pairs.items()}
        except (ValueError, TypeError) as error:
            raise RemoteProtocolError(f"group proposal cannot be read: {error}", 0) from None
        return cls(values, decided, dict(zip(names, marks, strict=True)))


def encode_marks(marks: Mapping[str, bytes]) -> bytes:
    """The voter's answer."""
    return encode_parts(*(marks[name] for name in lock_order(marks)))


def decode_marks(payload: Buffer, values: Mapping[str, PairEpoch]) -> dict[str, bytes]:
    """Raises RemoteProtocolError."""
    return dict(zip(lock_order(values), decode_parts(payload, len(values)), strict=True))


def encode_group_request(request: PairRequest, written: list[str]) -> bytes:
    """A request, and the pairs whose S-VOL took writes of its own."""
    return encode_parts(request.encode().encode(), json.dumps(written).encode())


def decode_group_request(payload: Buffer) -> tuple[PairRequest, frozenset[str]]:
    """Raises RemoteProtocolError."""
    request, written = decode_parts(payload, 2)
    try:
        return PairRequest.decode(request.decode()), frozenset(map(str, json.loads(written)))
    except (ValueError, TypeError, RecursionError) as error:
        raise RemoteProtocolError(f"group request cannot be read: {error}", 0) from None
