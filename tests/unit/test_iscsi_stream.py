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


@given(st.booleans(), st.integers(0, 3), st.lists(st.integers(1, 9000), max_size=12), st.booleans())
def test_a_long_segment_is_received_where_it_belongs(
    data_digest: bool, odd: int, cuts: list[int], placed: bool
) -> None:
    segment = bytes(range(256)) * 80 + bytes(odd)
    remaining = b"".join(
        bytes(part)
        for pdu in (DataOutPdu(itt=1, data=segment), NopOutPdu(itt=2, data=b"ping"))
        for part in encode_pdu(pdu, False, data_digest)
    )
    command = bytearray(30000)
    reader, pdus, direct = stream(False, data_digest, 1 << 20), [], 0
    if placed:
        reader.place = lambda bhs, length: (
            memoryview(command)[100 : 100 + length] if bhs[0] == Opcode.DATA_OUT else None
        )
    for cut in [*cuts, len(remaining)]:
        piece, remaining = remaining[:cut], remaining[cut:]
        while piece:  # as a transport does it: into the space where there is one, as much as has come
            space = reader.space()
            if space is None:
                pdus += reader.receive_data(piece)
                break
            take = min(len(space), len(piece))
            space[:take] = piece[:take]
            pdus += reader.fill(take)
            piece, direct = piece[take:], direct + take
    assert [(pdu.opcode, bytes(pdu.data), pdu.data_digest_failed) for pdu in pdus] == [
        (Opcode.DATA_OUT, segment, False),
        (Opcode.NOP_OUT, b"ping", False),
    ]
    if placed and direct:
        assert command[100 : 100 + len(segment)] == segment and not any(command[100 + len(segment) :])


def test_the_end_of_a_segment_and_a_short_one_have_no_space_of_their_own() -> None:
    reader = stream(limit=1 << 20)
    assert reader.space() is None
    whole = b"".join(bytes(part) for part in encode_pdu(DataOutPdu(itt=1, data=bytes(10000))))
    reader.receive_data(whole[:1000])
    space = reader.space()
    assert space is not None and len(space) == 10000 - (1000 - 48)
    reader.receive_data(whole[1000:8000])
    assert reader.space() is None  # what follows comes with the rest in one receive


def test_damage_in_a_placed_segment_is_told() -> None:
    reader = stream(False, True, 1 << 20)
    command = bytearray(20000)
    reader.place = lambda bhs, length: memoryview(command)[:length]
    whole = b"".join(bytes(part) for part in encode_pdu(DataOutPdu(itt=1, data=bytes(20000)), False, True))
    assert reader.receive_data(whole[:100]) == []
    space = reader.space()
    assert space is not None
    space[:] = b"\1" * len(space)
    assert reader.fill(len(space)) == []  # the digest is missing
    (pdu,) = reader.receive_data(whole[-4:])
    assert pdu.data_digest_failed


@given(st.booleans(), st.booleans(), st.integers(16 << 10, 70000), st.integers(0, 3))
def test_the_beginning_of_a_long_pdu_in_memory_of_the_caller(
    header_digest: bool, data_digest: bool, cut: int, odd: int
) -> None:
    segment = bytes(range(256)) * 256 + bytes(odd)
    pdu = ScsiCommandPdu(itt=1, write=True, ahs=bytes(range(8)), data=segment)
    whole = b"".join(bytes(part) for part in encode_pdu(pdu, header_digest, data_digest))
    reader = stream(header_digest, data_digest, 1 << 20)
    received = bytearray(whole[:cut])
    pdus = reader.receive_data(received)
    received[:] = b"\xee" * len(received)  # the caller uses its memory again
    pdus += reader.receive_data(bytearray(whole[cut:]))
    assert [decode_pdu(raw) for raw in pdus] == [pdu]


def test_a_long_pdu_with_a_damaged_header_is_refused_at_its_beginning() -> None:
    parts = encode_pdu(DataOutPdu(itt=1, data=bytes(40000)), True, False)
    whole = bytearray(b"".join(bytes(part) for part in parts))
    whole[20] ^= 1
    with pytest.raises(RemoteProtocolError, match="header digest"):
        stream(True, False, 1 << 20).receive_data(memoryview(whole)[:20000])
