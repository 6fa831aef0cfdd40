"""The stream reader: any cut of the bytes gives the same PDUs, digests are checked, limits hold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage_model.errors import RemoteProtocolError
from storage_model.spec.iscsi_pdu import DataOutPdu, NopOutPdu, Opcode, RejectReason, ScsiCommandPdu, decode_pdu
from storage_model.spec.iscsi_stream import PduStream, RawPdu, crc32c, encode_pdu

PDUS = (
    ScsiCommandPdu(itt=1, ahs=bytes(range(8)), data=b"abcde"),
    NopOutPdu(itt=2),
    DataOutPdu(itt=3, data=bytes(1000)),
    ScsiCommandPdu(itt=4, ahs=b"\0\1\2\3"),
    NopOutPdu(itt=5, data=b"ping"),
)


def wire(header_digest: bool, data_digest: bool) -> bytes:
    return b"".join(bytes(part) for pdu in PDUS for part in encode_pdu(pdu, header_digest, data_digest))


def stream(header_digest: bool = False, data_digest: bool = False, limit: int = 8192) -> PduStream:
    reader = PduStream(limit)
    reader.header_digest, reader.data_digest = header_digest, data_digest
    return reader


def test_crc32c_is_the_standards_example() -> None:
    # RFC 3720 B.4: 32 bytes of zeros give aa 36 91 8a on the wire; 32 bytes of ones 43 ab a8 62.
    assert crc32c(bytes(32)).hex() == "aa36918a"
    assert crc32c(b"\xff" * 16, bytearray(b"\xff" * 16)).hex() == "43aba862"


@given(st.booleans(), st.booleans(), st.lists(st.integers(1, 400), max_size=12), st.booleans())
def test_any_cut_gives_the_same_pdus(header_digest: bool, data_digest: bool, cuts: list[int], mutable: bool) -> None:
    reader, remaining, pdus = stream(header_digest, data_digest), wire(header_digest, data_digest), []
    for cut in [*cuts, len(remaining)]:
        piece = bytearray(remaining[:cut]) if mutable else remaining[:cut]
        pdus += reader.receive_data(piece)
        if isinstance(piece, bytearray):
            piece[:] = b"\xee" * len(piece)  # the caller uses its buffer again
        remaining = remaining[cut:]
    assert [decode_pdu(pdu) for pdu in pdus] == list(PDUS)


def test_byte_by_byte() -> None:
    reader = stream(True, True)
    pdus = [pdu for byte in wire(True, True) for pdu in reader.receive_data(bytes((byte,)))]
    assert [decode_pdu(pdu) for pdu in pdus] == list(PDUS)


def test_raw_pdu_is_encoded_back_unchanged_and_with_new_lengths() -> None:
    raw = stream().receive_data(wire(False, False))
    assert b"".join(bytes(part) for pdu in raw for part in encode_pdu(pdu)) == wire(False, False)
    assert (raw[0].opcode, raw[0].itt) == (Opcode.SCSI_COMMAND, 1)
    changed = RawPdu(raw[0].bhs, b"", b"longer data")
    assert changed.encode_bhs()[4:8] == b"\0\0\0\x0b"


@pytest.mark.parametrize("whole", [True, False])
def test_damaged_header_ends_the_stream(whole: bool) -> None:
    damaged = bytearray(wire(True, False))
    damaged[20] ^= 1
    reader = stream(True)
    if not whole:
        assert reader.receive_data(damaged[:30]) == []
        del damaged[:30]
    with pytest.raises(RemoteProtocolError, match="header digest"):
        reader.receive_data(damaged)


@pytest.mark.parametrize("cut", [1, 60, 10_000])
def test_damaged_data_is_told_with_its_header(cut: int) -> None:
    damaged = bytearray(wire(False, True))
    damaged[48 + 8 + 2] ^= 1
    reader = stream(False, True)
    pdus = reader.receive_data(damaged[:cut]) + reader.receive_data(damaged[cut:])
    assert [pdu.data_digest_failed for pdu in pdus] == [True, False, False, False, False]
    with pytest.raises(RemoteProtocolError) as error:
        decode_pdu(pdus[0])
    assert error.value.reason == RejectReason.DATA_DIGEST_ERROR


def test_data_segment_over_the_limit_is_refused_before_it_is_stored() -> None:
    reader = stream(limit=999)
    with pytest.raises(RemoteProtocolError, match="1000 bytes"):
        reader.receive_data(wire(False, False))


def test_unknown_opcode() -> None:
    with pytest.raises(RemoteProtocolError) as error:
        decode_pdu(RawPdu(bytes((0x3E,)) + bytes(47)))
    assert error.value.reason == RejectReason.COMMAND_NOT_SUPPORTED
