"""The remote-copy link's wire format, version 1.

Every frame is a 36-byte header and a payload. Header, big-endian: type, flags (1 byte each), pair (2: the receiver's
LDEV number), request (4: names a request and its answer), epoch (4), offset (8) and length (4) in bytes of volume,
payload length (4), CRC32C of the payload (4), CRC32C of the header before it (4).

The first frame either way is HELLO, in JSON: versions, own serial number, expected peer, pairs. The highest common
version holds. A field that the receiver does not know is ignored; what it must know is named in ``required``. Where
the arrays share a key, HELLO has a nonce, and each side's second frame is AUTHENTICATE, of the array that dials first;
without TLS, every frame behind it ends with a tag (:class:`FrameTag`).

After that frames flow both ways; requests are answered out of order. A peer that sends anything else is cut off, and
the reason goes to the log of both.
"""

import hmac
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from typing import Any

import crc32c

from storage_model.errors import RemoteProtocolError
from storage_model.volume import Buffer

VERSIONS = (1,)
_HEADER = struct.Struct("!BBHIIQIII")
_CRC = struct.Struct("!I")
HEADER_LENGTH = _HEADER.size + _CRC.size
MAX_PAYLOAD_LENGTH = 32 << 20
"""Bounds what a peer can make this side hold: the largest host write; a vote and a 4 TiB volume's bitmap take less."""
MAX_READ_LENGTH = 1 << 20
"""No READ asks for more."""
MAX_HELLO_LENGTH = 512 << 10
"""Bounds what a stranger can make this side hold; 4096 pairs take less."""
TAG_LENGTH = 16
_LONG = 16 << 10
"""So much of a frame has not come yet: the rest of its payload is worth a receive of its own."""
_WORTH_A_RECEIVE = 4096
"""Less than this of a payload is received together with what follows it."""
KEY_FEATURE = "key"
"""In ``required``: a proof of the common key, by both."""
GROUP_FEATURE = "group"
"""In ``required``: consistency groups, whose pairs the arrays decide together."""
FEATURES = frozenset({KEY_FEATURE, GROUP_FEATURE})


class FrameType(IntEnum):
    """What a frame asks or answers."""

    HELLO = 1
    PING = 2
    REFUSED = 3
    """The last frame before the sender hangs up; the payload is its reason."""
    AUTHENTICATE = 4
    """The payload proves that the sender has the common key."""
    WRITE = 16
    READ = 17
    """With :attr:`WriteFlag.ZEROS` a hole may be answered by no payload."""
    FLUSH = 18
    REQUEST = 19
    """A pair-control request, for the array that serialises the pair; payload: PairRequest."""
    PROPOSE = 20
    """Payload: the value, the epoch decided before it, the proposer's differing regions."""
    STATE = 21
    """The P-VOL's array tells the state of the pair inside the epoch (``length`` is the PairState)."""
    PAIR_STATUS = 22
    """Either array tells what it knows of the pair when the link comes up; payload: the epoch decided, the differing
    regions, and where both know persistent reservations of a pair, the ReservationEntry in force; ``flags``:
    :class:`ToldFlag`."""
    READY = 23
    """May the receiver's volume become half of a pair? Asked before the vote, which cannot be taken back."""
    DIGEST = 24
    """Asks for the BLAKE2b digests of a range, 16 bytes for each of its regions."""
    GROUP_REQUEST = 25
    """A pair-control request for every pair of a group; ``pair`` is the one that it was addressed to."""
    PROPOSE_GROUP = 26
    """The next epochs of several pairs, as one; ``pair`` is any of them."""
    RESERVE_OUT = 27
    """A PERSISTENT RESERVE OUT, for the array that serialises the pair; payload: ReservationOrder."""
    RESERVATION = 28
    """Asks for a vote; payload: ReservationProposal."""
    ABORTED = 29
    """Answered when the commands that RESERVATION frames aborted have ended."""
    ANSWER = 32
    """``flags`` is an :class:`Answer`; READ answers with data, PROPOSE and PROPOSE_GROUP with the voter's differing
    regions."""
    ANSWERS = 33
    """The requests whose numbers the payload has, 4 bytes each, are DONE, with nothing else to say of them. Only for a
    peer whose HELLO says that it reads it."""


_TYPES = {int(each): each for each in FrameType}


class WriteFlag(IntFlag):
    """Flags of WRITE."""

    NONE = 0
    FUA = 1
    ZEROS = 2
    """The range becomes a hole; there is no payload."""


class ToldFlag(IntFlag):
    """Flags of PAIR_STATUS."""

    NONE = 0
    WRITTEN = 1
    """There are regions that differ: in a half left behind by a takeover by force, data of its own."""
    VOTE_IS_FREE = 2
    """The sender has voted for nothing that it does not know to be decided, and will not vote for what it was asked for
    over an earlier connection."""


class Answer(IntEnum):
    """How a request ended at the peer."""

    DONE = 0
    STALE_EPOCH = 1
    MEDIUM_FAILURE = 2
    SPACE_EXHAUSTED = 3
    REFUSED = 4
    """REQUEST, GROUP_REQUEST, READY: the payload names the Refusal, and of the first two tells whether the vote is free
    (:attr:`ToldFlag.VOTE_IS_FREE`). PROPOSE, PROPOSE_GROUP: no vote. RESERVE_OUT, RESERVATION: in JSON, why."""
    NO_SUCH_PAIR = 5


@dataclass(slots=True)
class Frame:
    """One frame; fields that a type does not use are 0 or empty."""

    type: FrameType
    pair: int = 0
    request: int = 0
    epoch: int = 0
    offset_bytes: int = 0
    length_bytes: int = 0
    flags: int = 0
    payload: Buffer = field(default=b"", repr=False)

    def encode(self) -> list[Buffer]:
        """Header and payload. A payload that is not ``bytes`` is copied: its owner may change it under the CRC."""
        payload = self.payload if isinstance(self.payload, bytes) else bytes(self.payload)
        header = _HEADER.pack(
            self.type,
            self.flags,
            self.pair,
            self.request,
            self.epoch,
            self.offset_bytes,
            self.length_bytes,
            len(payload),
            crc32c.crc32c(payload) if payload else 0,
        )
        header += _CRC.pack(crc32c.crc32c(header))
        return [header, payload] if payload else [header]


class FrameTag:
    """Authenticates the frames of one direction of one connection.

    The number of the frame is in its tag though not on the wire: one that is replayed, left out or moved has a wrong
    tag. HMAC-SHA-256 takes 0.1 ms for 64 KiB where the processor has instructions for SHA, keyed BLAKE2b 0.16 ms.
    """

    def __init__(self, key: bytes) -> None:
        self._mac = hmac.new(key, digestmod="sha256")
        self._number = 0

    def next(self, header: Buffer, payload: Buffer) -> bytes:
        """The tag of the next frame."""
        mac = self._mac.copy()
        mac.update(self._number.to_bytes(8, "big") + header)
        mac.update(payload)
        self._number += 1
        return mac.digest()[:TAG_LENGTH]


class _LongFrame:
    """A frame in the making whose payload has a buffer of its own; nobody else has it before it is whole."""

    def __init__(self, frame: Frame, header: bytes, payload_length: int, crc: int, tag_length: int) -> None:
        self.frame = frame
        self.header = header
        self.expected_crc = crc
        self.payload = memoryview(bytearray(payload_length))
        self.filled = 0
        self.crc = 0
        self.tag = bytearray()
        self.tag_length = tag_length

    @property
    def whole(self) -> bool:
        return self.filled == len(self.payload) and len(self.tag) == self.tag_length

    def take(self, view: memoryview) -> int:
        """Goes on with the payload and the tag; answers how much of ``view`` belongs to them."""
        count = min(len(view), len(self.payload) - self.filled)
        self.payload[self.filled : self.filled + count] = view[:count]
        self.received(count)
        end = min(count + self.tag_length - len(self.tag), len(view))
        self.tag += view[count:end]
        return end

    def received(self, count: int) -> None:
        """So much more of the payload is in its place. The CRC follows while the processor's cache has it."""
        start, self.filled = self.filled, self.filled + count
        self.crc = crc32c.crc32c(self.payload[start : self.filled], self.crc)


class FrameStream:
    """Bytes to whole frames; holds at most one frame in the making.

    ``max_payload_length`` and ``tag`` (None: frames have none) hold from the next frame on. Frames do not refer to what
    was passed in, so that the caller may use its buffer again.

    With ``ahead``, a long payload gets all of its memory when its header has come: :meth:`space` says where the rest of
    it can be received, so that it need not be copied. Without, the memory grows with what has come.
    """

    def __init__(self, max_payload_length: int = MAX_PAYLOAD_LENGTH, *, ahead: bool = True) -> None:
        self.max_payload_length = max_payload_length
        self.tag: FrameTag | None = None
        self.ahead = ahead
        self._begun = bytearray()  # of a frame that is not whole yet, and not long
        self._wanted = 0  # with so much of it, there is more to say about it
        self._long: _LongFrame | None = None

    def receive_data(self, data: Buffer) -> list[Frame]:
        """All frames that are complete now; raises RemoteProtocolError (reason 0) on a frame that cannot be right."""
        return list(self.frames(data))

    def frames(self, data: Buffer) -> Iterator[Frame]:
        """The same, one by one: how the next one is read may depend on the one before."""
        view, position, end = memoryview(data), 0, len(data)
        while position < end:
            if self._long is not None:
                position += self._long.take(view[position:])
                yield from self.filled(0)
                continue
            if self._begun:
                position, frame = self._go_on(view, position)
            else:
                frame, length = self._read(view, position)
                if frame is None and self._long is None:
                    self._begun += view[position:]
                    self._wanted = length
                position = min(position + length, end)
            if frame is not None:
                yield frame

    def space(self) -> memoryview | None:
        """Where the rest of a long payload belongs; tell :meth:`filled` how much of it was received there."""
        long = self._long
        if long is None or len(long.payload) - long.filled < _WORTH_A_RECEIVE:
            return None
        return long.payload[long.filled :]

    def filled(self, count: int) -> Iterator[Frame]:
        """``count`` bytes were received into what :meth:`space` has just answered: the frame, if it is whole now.

        As with :meth:`frames`, nothing happens before the first one is asked for.
        """
        long = self._long
        assert long is not None
        if count:
            long.received(count)
        if long.whole:
            self._long = None
            long.frame.payload = long.payload.toreadonly()
            self._check_crc(long.frame, long.crc == long.expected_crc)
            if self.tag is not None:
                self._check_tag(long.frame, long.header, long.tag)
            yield long.frame

    def _go_on(self, view: memoryview, position: int) -> tuple[int, Frame | None]:
        """With a frame that began in an earlier receive, by no more than belongs to it; answers where that ends."""
        begun = self._begun
        stop = position + self._wanted - len(begun)
        begun += view[position:stop]
        if len(begun) < self._wanted:
            return len(view), None
        frame, self._wanted = self._read(memoryview(begun), 0)
        if frame is not None or self._long is not None:
            self._begun = bytearray()
        return stop, frame

    def _read(self, view: memoryview, start: int) -> tuple[Frame | None, int]:
        """The frame at ``start``, and its length. None when it is not whole: with how much of it there is more to say,
        unless it is long; then it has been begun.
        """
        if len(view) - start < HEADER_LENGTH:
            return None, HEADER_LENGTH
        header = bytes(view[start : start + HEADER_LENGTH])
        frame, payload_length, crc = self._header(header)
        data_start = start + HEADER_LENGTH
        data_end = data_start + payload_length
        tag_length = 0 if self.tag is None else TAG_LENGTH
        missing = data_end + tag_length - len(view)
        if missing > 0:
            if self.ahead and missing >= _LONG:
                self._long = _LongFrame(frame, header, payload_length, crc, tag_length)
                self._long.take(view[data_start:])
        else:
            if payload_length:
                frame.payload = payload = bytes(view[data_start:data_end])
                self._check_crc(frame, crc32c.crc32c(payload) == crc)
            if tag_length:
                self._check_tag(frame, header, view[data_end : data_end + tag_length])
        return None if missing > 0 else frame, data_end + tag_length - start

    def _check_crc(self, frame: Frame, matches: bool) -> None:
        if not matches:
            raise RemoteProtocolError(f"{frame.type.name} frame: payload CRC32C does not match", 0)

    def _check_tag(self, frame: Frame, header: bytes, tag: Buffer) -> None:
        assert self.tag is not None
        if not hmac.compare_digest(self.tag.next(header, frame.payload), tag):
            raise RemoteProtocolError(
                f"{frame.type.name} frame: its tag is wrong (changed, replayed or out of its order)", 0
            )

    def _header(self, header: bytes) -> tuple[Frame, int, int]:
        kind, flags, pair, request, epoch, offset, length, payload_length, payload_crc = _HEADER.unpack_from(header)
        if crc32c.crc32c(header[: _HEADER.size]).to_bytes(4, "big") != header[_HEADER.size :]:
            raise RemoteProtocolError("not a remote-copy frame: header CRC32C does not match", 0)
        frame_type = _TYPES.get(kind)
        if frame_type is None:
            raise RemoteProtocolError(f"frame of unknown type {kind}", 0)
        if payload_length > self.max_payload_length:
            raise RemoteProtocolError(
                f"frame of {payload_length} bytes, at most {self.max_payload_length} are allowed", 0
            )
        return Frame(frame_type, pair, request, epoch, offset, length, flags), payload_length, payload_crc


@dataclass(frozen=True, slots=True)
class PairOffer:
    """One pair in a HELLO: what the two halves must have in common, and the LDEV by which frames name it.

    ``group`` is its consistency group, "" if it is alone. ``reservations``: its array knows the frames of persistent
    reservations, which a HELLO tells once, for all its pairs.
    """

    name: str
    ldev: int
    size_bytes: int
    block_length: int
    quorum: bool
    group: str = ""
    reservations: bool = False


@dataclass(frozen=True, slots=True)
class Hello:
    """The first frame: who is there, for whom, and with which pairs.

    ``identity`` is drawn once for an array's metadata: an array that lost them, or a second one with the same serial
    number, has another. ``nonce``: 32 random bytes in hexadecimal digits, with a common key. ``answers``: its array
    reads ANSWERS.
    """

    serial: str
    peer_serial: str
    pairs: tuple[PairOffer, ...]
    versions: tuple[int, ...] = VERSIONS
    identity: str = ""
    nonce: str = ""
    required: tuple[str, ...] = ()
    answers: bool = True

    def frame(self) -> Frame:
        """As a frame."""
        pairs = [[p.name, p.ldev, p.size_bytes, p.block_length, p.quorum] for p in self.pairs]
        groups: dict[str, list[int]] = {}
        for pair in self.pairs:
            if pair.group:
                groups.setdefault(pair.group, []).append(pair.ldev)
        document = {
            "versions": self.versions,
            "serial": self.serial,
            "peer": self.peer_serial,
            "identity": self.identity,
            "pairs": pairs,
            "groups": groups,
            "nonce": self.nonce,
            "required": self.required,
            "reservations": any(pair.reservations for pair in self.pairs),
            "answers": self.answers,
        }
        return Frame(FrameType.HELLO, payload=json.dumps(document).encode())

    @classmethod
    def decode(cls, payload: Buffer) -> "Hello":
        """From a HELLO's payload; raises RemoteProtocolError."""
        document = decode_json(payload)
        try:
            groups = {int(ldev): group for group, members in document.get("groups", {}).items() for ldev in members}
            reservations = bool(document.get("reservations"))
            pairs = tuple(
                PairOffer(str(n), int(d), int(s), int(b), bool(q), groups.get(int(d), ""), reservations)
                for n, d, s, b, q in document["pairs"]
            )
            versions = tuple(int(version) for version in document["versions"])
            identity, nonce = str(document["identity"]), str(document.get("nonce", ""))
            required = tuple(str(feature) for feature in document.get("required", ()))
            answers = bool(document.get("answers"))
            serials = str(document["serial"]), str(document["peer"])
            return cls(*serials, pairs, versions, identity, nonce, required, answers)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:  # JSON here has Infinity
            raise RemoteProtocolError(f"HELLO cannot be read: {error!r}", 0) from None


def answers_frame(requests: list[int]) -> Frame:
    """ANSWERS for these requests; ANSWER for a single one."""
    if len(requests) == 1:
        return Frame(FrameType.ANSWER, request=requests[0])
    return Frame(FrameType.ANSWERS, payload=struct.pack(f"!{len(requests)}I", *requests))


def answered_requests(payload: Buffer) -> tuple[int, ...]:
    """Of ANSWERS; raises RemoteProtocolError."""
    if len(payload) % 4:
        raise RemoteProtocolError(f"ANSWERS with a payload of {len(payload)} bytes", 0)
    return struct.unpack(f"!{len(payload) // 4}I", payload)


def encode_parts(*parts: bytes) -> bytes:
    """Several byte strings in one payload, each after its 4-byte length."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def decode_parts(payload: Buffer, count: int | None) -> list[bytes]:
    """The reverse of :func:`encode_parts`, for ``count`` or, with None, all parts; raises RemoteProtocolError."""
    data, parts, start = bytes(payload), list[bytes](), 0
    while start < len(data) if count is None else len(parts) < count:
        length = int.from_bytes(data[start : start + 4], "big")
        parts.append(data[start + 4 : start + 4 + length])
        start += 4 + length
    if start != len(data):
        raise RemoteProtocolError("payload parts do not add up", 0)
    return parts


def decode_json(payload: Buffer) -> dict[str, Any]:
    """A JSON object in a payload; raises RemoteProtocolError."""
    try:
        document = json.loads(bytes(payload))
    except (ValueError, RecursionError) as error:  # RecursionError: thousands of brackets
        raise RemoteProtocolError(f"payload is not JSON: {error}", 0) from None
    if not isinstance(document, dict):
        raise RemoteProtocolError("payload is not a JSON object", 0)
    return document
