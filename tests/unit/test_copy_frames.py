"""Frames of the remote-copy link: any cut gives the same frames, and no damaged byte gets through."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage_model.errors import RemoteProtocolError
from storage_model.spec import copy_frames
from storage_model.spec.copy_frames import (
    HEADER_LENGTH,
    MAX_PAYLOAD_LENGTH,
    TAG_LENGTH,
    Frame,
    FrameStream,
    FrameTag,
    FrameType,
    Hello,
    PairOffer,
    WriteFlag,
    decode_json,
    decode_parts,
    encode_parts,
)
from target.scsi.logical_unit import MAXIMUM_TRANSFER_BYTES

_uint32 = st.integers(0, 0xFFFFFFFF)
_frames = st.builds(
    Frame,
    st.sampled_from(FrameType),
    st.integers(0, 0xFFFF),
    _uint32,
    _uint32,
    st.integers(0, (1 << 64) - 1),
    _uint32,
    st.integers(0, 0xFF),
    st.binary(max_size=300),
)


def wire(*frames: Frame) -> bytes:
    return b"".join(bytes(part) for frame in frames for part in frame.encode())


@given(st.lists(_frames, max_size=5), st.lists(st.integers(1, 200), max_size=20))
def test_any_cut_gives_the_same_frames(frames: list[Frame], cuts: list[int]) -> None:
    stream, rest, received = FrameStream(), wire(*frames), []
    for cut in [*cuts, len(rest)]:
        received += stream.receive_data(rest[:cut])
        rest = rest[cut:]
    assert received + stream.receive_data(rest) == frames


def test_byte_by_byte_and_never_early() -> None:
    frame = Frame(FrameType.WRITE, 1, 2, 3, 4, 5, WriteFlag.FUA, b"data")
    stream, data = FrameStream(), wire(frame)
    for index in range(len(data) - 1):
        assert stream.receive_data(data[index : index + 1]) == []
    assert stream.receive_data(data[-1:]) == [frame]


def test_header_on_the_wire() -> None:
    frame = Frame(FrameType.WRITE, 0x0102, 0x03040506, 0x0708090A, 0x1112131415161718, 0x191A1B1C, 1, b"123456789")
    expected = (
        "10 01 0102"  # WRITE, FUA, the receiver's LDEV
        "03040506 0708090a"  # request, epoch
        "1112131415161718 191a1b1c"  # offset, length
        "00000009 e3069283"  # payload length, CRC32C("123456789"), the check value of RFC 3720 and others
    )
    data = wire(frame)
    assert data[:32].hex() == expected.replace(" ", "")
    assert data[HEADER_LENGTH:] == b"123456789" and HEADER_LENGTH == 36


DAMAGED = wire(Frame(FrameType.WRITE, 1, 2, 3, 4, 9, 0, b"some data"), Frame(FrameType.PING))


@pytest.mark.parametrize("index", range(len(DAMAGED)))
def test_a_damaged_byte_is_never_taken_for_data(index: int) -> None:
    for bit in (0x01, 0x80):
        data = bytearray(DAMAGED)
        data[index] ^= bit
        with pytest.raises(RemoteProtocolError, match="CRC32C"):
            FrameStream().receive_data(data)


def test_mutable_payload_is_fixed_when_it_is_encoded() -> None:
    payload = bytearray(b"before")
    encoded = Frame(FrameType.WRITE, payload=memoryview(payload)).encode()
    payload[:] = b"after!"
    assert FrameStream().receive_data(b"".join(bytes(part) for part in encoded))[0].payload == b"before"


def test_type_that_is_not_known() -> None:
    class Unknown(int):
        name = "UNKNOWN"

    with pytest.raises(RemoteProtocolError, match="unknown type 99"):
        FrameStream().receive_data(wire(Frame(Unknown(99))))  # type: ignore[arg-type]


def test_limit_of_a_frame() -> None:
    longest = Frame(FrameType.WRITE, payload=bytes(MAX_PAYLOAD_LENGTH))
    assert FrameStream().receive_data(wire(longest)) == [longest]
    header = wire(Frame(FrameType.WRITE, payload=bytes(MAX_PAYLOAD_LENGTH + 1)))[:HEADER_LENGTH]
    with pytest.raises(RemoteProtocolError, match="at most"):
        FrameStream().receive_data(header)  # before a byte of it has come


def test_a_frame_holds_the_largest_write_of_a_host() -> None:
    """Else one long WRITE breaks the link, and with it the mirror."""
    assert MAX_PAYLOAD_LENGTH >= MAXIMUM_TRANSFER_BYTES


# --------------------------------------------------------------------------------- payloads with a buffer of their own


@pytest.fixture(params=["as it is", "with a tag"])
def tagged(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "with a tag")


@pytest.fixture
def short_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("_LONG", 8), ("_WORTH_A_RECEIVE", 3)):
        monkeypatch.setattr(copy_frames, name, value)


def tagged_wire(frames: list[Frame], tagged: bool) -> bytes:
    if not tagged:
        return wire(*frames)
    tag = FrameTag(b"key")
    return b"".join(wire(frame) + tag.next(wire(frame)[:HEADER_LENGTH], frame.payload) for frame in frames)


def stream_of(tagged: bool) -> FrameStream:
    stream = FrameStream()
    stream.tag = FrameTag(b"key") if tagged else None
    return stream


class Receiver:
    """Receives as a socket does: into the space if there is one, else into one buffer that is used again and again."""

    def __init__(self, stream: FrameStream) -> None:
        self.stream = stream
        self.frames: list[Frame] = []
        self.spaces = 0
        self._buffer = bytearray(1000)

    def receive(self, *parts: bytes) -> None:
        for data in parts:
            self._receive(data)

    def _receive(self, data: bytes) -> None:
        while data:
            space = self.stream.space()
            self.spaces += space is not None
            place = memoryview(self._buffer) if space is None else space
            count = min(len(data), len(place))
            place[:count] = data[:count]
            if space is None:
                self.frames += self.stream.receive_data(place[:count])
                self._buffer[:] = b"\xff" * len(self._buffer)
            else:
                self.frames += self.stream.filled(count)
            data = data[count:]


THREE = [
    Frame(FrameType.WRITE, 1, 2, 3, 4, 30, 0, bytes(range(30))),
    Frame(FrameType.FLUSH, 1, 3, 3),
    Frame(FrameType.WRITE, 1, 4, 3, 4, 30, 0, bytes(range(30, 60))),
]


@pytest.mark.usefixtures("short_is_long")
def test_long_payload_cut_anywhere(tagged: bool) -> None:
    data = tagged_wire(THREE, tagged)
    spaces = 0
    for first in range(len(data)):
        for second in range(first, len(data), 7):
            receiver = Receiver(stream_of(tagged))
            receiver.receive(data[:first], data[first:second], data[second:])
            assert receiver.frames == THREE
            spaces += receiver.spaces
    assert spaces > len(data)


@pytest.mark.usefixtures("short_is_long")
def test_long_payload_byte_by_byte_and_never_early(tagged: bool) -> None:
    data = tagged_wire(THREE[:1], tagged)
    receiver = Receiver(stream_of(tagged))
    for index in range(len(data)):
        assert not receiver.frames
        receiver.receive(data[index : index + 1])
    assert receiver.frames == THREE[:1] and receiver.spaces == 30 - 3 + 1


def test_long_payload_is_received_where_it_stays() -> None:
    payload = bytes(range(256)) * 256
    data = wire(Frame(FrameType.WRITE, payload=payload), Frame(FrameType.PING))
    stream = FrameStream()
    assert stream.receive_data(data[:100]) == []
    space = stream.space()
    assert space is not None and len(space) == HEADER_LENGTH + len(payload) - 100
    space[:] = data[100 : 100 + len(space)]
    (frame,) = stream.filled(len(space))
    assert frame.payload == payload and stream.space() is None
    assert isinstance(frame.payload, memoryview) and frame.payload.readonly and frame.payload.obj is space.obj
    assert stream.receive_data(data[-HEADER_LENGTH:]) == [Frame(FrameType.PING)]


def test_payload_does_not_change_when_the_buffer_is_used_again() -> None:
    buffer = bytearray(wire(Frame(FrameType.WRITE, payload=b"before")))
    (frame,) = FrameStream().receive_data(memoryview(buffer))
    buffer[:] = bytes(len(buffer))
    assert frame.payload == b"before"


def test_memory_only_for_what_has_come() -> None:
    """Of somebody who has not said who he is."""
    stream = FrameStream(ahead=False)
    data = wire(Frame(FrameType.HELLO, payload=bytes(300_000)))
    assert stream.receive_data(data[:-1]) == [] and stream.space() is None
    assert stream.receive_data(data[-1:]) == [Frame(FrameType.HELLO, payload=bytes(300_000))]


@pytest.mark.usefixtures("short_is_long")
def test_damage_in_a_long_payload(tagged: bool) -> None:
    data = tagged_wire(THREE[:1], tagged)
    for index in range(HEADER_LENGTH, len(data)):
        damaged = bytearray(data)
        damaged[index] ^= 0x10
        receiver = Receiver(stream_of(tagged))
        reason = "payload CRC32C" if index < HEADER_LENGTH + 30 else "its tag is wrong"
        with pytest.raises(RemoteProtocolError, match=reason):
            receiver.receive(bytes(damaged[:40]), bytes(damaged[40:]))
        assert not receiver.frames


@pytest.mark.usefixtures("short_is_long")
def test_long_payload_changed_together_with_its_crc() -> None:
    """The tag covers the payload as well."""
    forged = wire(Frame(FrameType.WRITE, 1, 2, 3, 4, 30, 0, bytes(30))) + tagged_wire(THREE[:1], True)[-TAG_LENGTH:]
    receiver = Receiver(stream_of(True))
    with pytest.raises(RemoteProtocolError, match="its tag is wrong"):
        receiver.receive(forged[:40], forged[40:])


# ----------------------------------------------------------------------------------------------------- payloads

_offers = st.builds(PairOffer, st.text(max_size=10), st.integers(0, 65535), st.integers(0), st.just(512), st.booleans())


@given(st.lists(_offers, max_size=4), st.lists(st.integers(0, 9), max_size=3))
def test_hello_survives_the_wire(offers: list[PairOffer], versions: list[int]) -> None:
    hello = Hello("30095", "30096", tuple(offers), tuple(versions))
    (frame,) = FrameStream().receive_data(wire(hello.frame()))
    assert frame.type is FrameType.HELLO
    assert Hello.decode(frame.payload) == hello


_GOOD = {"versions": [1], "serial": "1", "peer": "2", "identity": "3", "pairs": []}


def test_hello_that_can_be_read() -> None:
    assert Hello.decode(json.dumps(_GOOD).encode()) == Hello("1", "2", (), (1,), "3", answers=False)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff",
        b"[]",
        b"7",
        b"[" * 100_000,
        b"{}",
        *(json.dumps(_GOOD | wrong).encode() for wrong in (
            {"pairs": 7},
            {"pairs": [1]},
            {"pairs": [["name", 1, 2, 3]]},
            {"pairs": [["name", "x", 2, 3, True]]},
            {"pairs": [["name", float("inf"), 2, 3, True]]},
            {"versions": ["x"]},
            {"versions": None},
        )),
    ],
)  # fmt: skip
def test_hello_that_cannot_be_read(payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        Hello.decode(payload)


@given(st.lists(st.binary(max_size=20), max_size=4))
def test_parts_survive_the_wire(parts: list[bytes]) -> None:
    assert decode_parts(encode_parts(*parts), len(parts)) == parts


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=4), st.data())
@settings(max_examples=200)
def test_parts_that_do_not_add_up(parts: list[bytes], data: st.DataObject) -> None:
    payload = encode_parts(*parts)
    cut = data.draw(st.integers(0, len(payload) - 1))
    for wrong in (payload[:cut], payload + b"x"):
        with pytest.raises(RemoteProtocolError):
            decode_parts(wrong, len(parts))


@pytest.mark.parametrize("payload", [b"", b"[1]", b"1", b"{", b"\xff\xfe"])
def test_json_that_is_no_object(payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_json(payload)
