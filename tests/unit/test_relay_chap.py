"""CHAP passes the relay to the byte, however its text is cut into PDUs (RFC 7143 §6.2)."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initiator_shim.relay import Relay
from storage_model.spec.iscsi_codes import Stage
from storage_model.spec.iscsi_pdu import LoginRequestPdu, LoginResponsePdu, decode_pdu
from storage_model.spec.iscsi_stream import PduStream, encode_pdu
from storage_model.spec.iscsi_text import format_text
from storage_model.volume import Buffer

NAMES = {"InitiatorName": "iqn.2026-11.org.example:host", "TargetName": "iqn.2026-11.org.example:t"}
CHALLENGE = {"CHAP_A": "7", "CHAP_I": "255", "CHAP_C": "0x" + bytes(range(256)).hex() * 4}
PROOF = {"CHAP_N": "joe = user", "CHAP_R": "0bQUJDREVG", "CHAP_I": "0", "CHAP_C": "0X" + "Ab" * 1024}


class RelayedLogin:
    """A relay whose two sides are connected; each method answers what came out at the other side."""

    def __init__(self) -> None:
        self.relay = Relay("127.0.0.1:3261")
        self.relay.array_connected("127.0.0.1:3260")
        self._at_array, self._at_host = PduStream(1 << 20), PduStream(1 << 20)
        self.from_host(format_text({**NAMES, "AuthMethod": "CHAP"}))

    def from_host(self, text: bytes, cont: bool = False) -> bytes:
        request = LoginRequestPdu(csg=Stage.SECURITY_NEGOTIATION, cont=cont, data=text)
        self.relay.receive_from_host(b"".join(bytes(part) for part in encode_pdu(request)))
        return _text(self._at_array, self.relay.data_to_array())

    def from_array(self, text: bytes, cont: bool = False) -> bytes:
        response = LoginResponsePdu(csg=Stage.SECURITY_NEGOTIATION, cont=cont, data=text)
        self.relay.receive_from_array(b"".join(bytes(part) for part in encode_pdu(response)))
        return _text(self._at_host, self.relay.data_to_host())


def _text(stream: PduStream, buffers: Sequence[Buffer]) -> bytes:
    (pdu,) = [decode_pdu(raw) for raw in stream.receive_data(b"".join(buffers))]
    assert isinstance(pdu, LoginRequestPdu | LoginResponsePdu)
    return bytes(pdu.data)


def test_a_mutual_exchange() -> None:
    login = RelayedLogin()
    for text in (format_text({"CHAP_A": "8,7,6,5"}), format_text(PROOF)):
        assert login.from_host(text) == text
    for text in (format_text(CHALLENGE), format_text({"CHAP_N": "array", "CHAP_R": "0x" + "0F" * 32})):
        assert login.from_array(text) == text


@given(cuts=st.lists(st.integers(1, 2200), max_size=4), host=st.booleans())
def test_cut_anywhere(cuts: list[int], host: bool) -> None:
    login = RelayedLogin()
    text = format_text(PROOF if host else CHALLENGE)
    send = login.from_host if host else login.from_array
    bounds = sorted({0, *(cut for cut in cuts if cut < len(text)), len(text)})
    pieces = [text[start:end] for start, end in pairwise(bounds)]
    passed = b"".join(send(piece, cont=number < len(pieces) - 1) for number, piece in enumerate(pieces))
    assert passed == text


@pytest.mark.parametrize("text", [b"CHAP_R=0x\0", b"CHAP_C=\0", b"CHAP_N=\xff\xfe\0", b"CHAP_R=0x00", b"CHAP_A\0"])
def test_what_is_malformed_is_for_the_array_to_judge(text: bytes) -> None:
    assert RelayedLogin().from_host(text) == text
