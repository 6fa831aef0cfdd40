"""Frames about groups: what is sent is what arrives, and anything else is the sender's error."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage_model.errors import RemoteProtocolError
from storage_model.pair import PairEpoch, PairRequest
from storage_model.pair_state import PairState, PairVerb
from storage_model.spec.copy_frames import Hello, PairOffer, encode_parts
from storage_model.spec.group_frames import (
    GroupProposal,
    decode_group_request,
    decode_marks,
    encode_group_request,
    encode_marks,
)

BEFORE = {"log": PairEpoch(3, "30095", PairState.PAIR), "data": PairEpoch(9, "30095", PairState.PAIR)}
AFTER = {name: PairEpoch(value.epoch + 1, "30095", PairState.PSUS, group="db") for name, value in BEFORE.items()}
MARKS = {"data": b"d" * 70, "log": b""}


def test_they_survive_the_wire() -> None:
    proposal = GroupProposal(AFTER, BEFORE, MARKS)
    assert GroupProposal.decode(proposal.encode()) == proposal
    assert decode_marks(encode_marks(MARKS), AFTER) == MARKS
    request = PairRequest(PairVerb.SWAP_RESYNC, "30096", group=True)
    assert decode_group_request(encode_group_request(request, ["log"])) == (request, frozenset({"log"}))


def test_hello_says_who_is_in_a_group() -> None:
    pairs = (PairOffer("data", 1, 4096, 512, False, "db"), PairOffer("alone", 2, 4096, 512, False))
    hello = Hello("30095", "30096", pairs)
    assert Hello.decode(hello.frame().payload).pairs == pairs
    document = json.loads(bytes(hello.frame().payload))
    del document["groups"]
    assert all(not offer.group for offer in Hello.decode(json.dumps(document).encode()).pairs)
    document["groups"] = ["data"]
    with pytest.raises(RemoteProtocolError):
        Hello.decode(json.dumps(document).encode())


@pytest.mark.parametrize("known", [False, True])
def test_hello_says_once_whether_its_array_knows_reservations_of_a_pair(known: bool) -> None:
    pairs = (PairOffer("data", 1, 4096, 512, False, "db", known), PairOffer("alone", 2, 4096, 512, False, "", known))
    hello = Hello("30095", "30096", pairs)
    assert Hello.decode(hello.frame().payload).pairs == pairs
    document = json.loads(bytes(hello.frame().payload))
    assert document.pop("reservations") is known
    assert not any(offer.reservations for offer in Hello.decode(json.dumps(document).encode()).pairs)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        encode_parts(b"{}"),
        encode_parts(b"[]", b""),
        encode_parts(b'{"data": 1}', b""),
        encode_parts(b'{"data": ["{}"]}', b""),
        encode_parts(b'{"data": ["{}", "{}"]}', b""),
        GroupProposal(AFTER, BEFORE, MARKS).encode()[:-1],
        GroupProposal(AFTER, BEFORE, MARKS).encode() + encode_parts(b"one too many"),
    ],
)
def test_a_proposal_that_cannot_be_read(payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        GroupProposal.decode(payload)


@given(st.binary(max_size=80) | st.lists(st.binary(max_size=20), max_size=3).map(lambda parts: encode_parts(*parts)))
def test_nonsense_is_the_senders_error(payload: bytes) -> None:
    for decode in (GroupProposal.decode, decode_group_request, lambda data: decode_marks(data, AFTER)):
        with suppress(RemoteProtocolError):
            decode(payload)
