"""The remote-copy link as a sans-IO machine, the same at both ends.

Frames in, events out. The machine knows the handshake (who is at the other end, which version, which pairs, and the
proof of a common key), keeps the link alive and says when it is dead; what a frame means for a pair is not its
business.
"""

import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass

from storage_model.errors import RemoteProtocolError
from storage_model.secret import Secret
from storage_model.spec.copy_frames import (
    FEATURES,
    KEY_FEATURE,
    MAX_HELLO_LENGTH,
    MAX_PAYLOAD_LENGTH,
    Frame,
    FrameStream,
    FrameTag,
    FrameType,
    Hello,
    answered_requests,
    answers_frame,
)
from storage_model.volume import Buffer
from target.remote_copy.link_login import ConnectionKeys, connection_keys

PING_INTERVAL = 1.0
"""Seconds of silence after which this side sends a PING."""
SILENCE_LIMIT = 3.0
"""Seconds of silence after which the peer counts as gone (a half-open connection gives no other sign)."""

_REASON_LENGTH = 300
_NONCE = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class LinkOpened:
    """The peer is the one we were told to expect; its offers are in ``hello``."""

    hello: Hello


@dataclass(frozen=True, slots=True)
class FrameReceived:
    """A frame for a pair, or the answer to a request."""

    frame: Frame


@dataclass(frozen=True, slots=True)
class RequestsDone:
    """These are answered with DONE, which is all."""

    requests: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LinkFailed:
    """The link is of no use any more; ``reason`` is a sentence for the log. Send what is left, then hang up."""

    reason: str


LinkEvent = LinkOpened | FrameReceived | RequestsDone | LinkFailed


class Link:
    """One connection's life; ``hello`` is what this side says of itself, ``now`` the time of the connection.

    ``known_peer`` is the identity of the array that this one shares pairs with; None while there are none. With a
    ``key``, ``hello`` needs a nonce, and the peer must have the same key. ``binding`` names the encrypted channel below
    to both ends; with one (set it before the first byte comes in), frames need no tags of their own.
    """

    def __init__(self, hello: Hello, now: float, known_peer: str | None = None, key: Secret | None = None) -> None:
        assert (KEY_FEATURE in hello.required) == bool(hello.nonce) == (key is not None)
        self.binding = b""
        self.version = 0
        self._hello = hello
        self._known_peer = known_peer
        self._key = key
        self._keys: ConnectionKeys | None = None
        self._peer: Hello | None = None
        self._stream = FrameStream(MAX_HELLO_LENGTH, ahead=False)
        self._tag: FrameTag | None = None
        first = hello.frame()
        self._hello_payload = bytes(first.payload)
        self._outgoing: list[Buffer] = first.encode()
        self._done: list[int] = []  # requests of the peer, whose answers leave together, behind what is queued
        self._hello_sent = False
        self._opened = False
        self._failed = False
        self._last_received = now
        self._last_sent = now

    @property
    def _dials(self) -> bool:
        return self._hello.serial < self._hello.peer_serial

    def receive_data(self, data: Buffer, now: float) -> list[LinkEvent]:
        """Bytes have come in; nothing that comes of them refers to ``data``."""
        return self._receive(self._stream.frames(data), now)

    def receive_space(self) -> memoryview | None:
        """Where the rest of a long payload belongs, if there is one; tell :meth:`received_there` what has come."""
        return None if self._failed else self._stream.space()

    def received_there(self, count: int, now: float) -> list[LinkEvent]:
        """``count`` bytes were received into what :meth:`receive_space` has just answered."""
        return self._receive(self._stream.filled(count), now)

    def _receive(self, frames: Iterable[Frame], now: float) -> list[LinkEvent]:
        if self._failed:
            return []
        events: list[LinkEvent] = []
        try:
            for frame in frames:
                events += self._receive_frame(frame)
                if self._failed:
                    return events
        except RemoteProtocolError as error:
            return [self._fail(str(error))]
        if self._opened:
            self._last_received = now  # before that the time runs on: whoever drips bytes keeps no connection
        return events

    def _receive_frame(self, frame: Frame) -> list[LinkEvent]:
        if frame.type is FrameType.REFUSED:
            self._failed = True
            reason = bytes(frame.payload[: 4 * _REASON_LENGTH]).decode(errors="replace")
            return [LinkFailed("the other array refuses the link: " + _readable(reason))]
        if self._peer is None:
            return self._receive_hello(frame)
        if not self._opened:
            return self._receive_proof(frame, self._peer)
        if frame.type in (FrameType.HELLO, FrameType.AUTHENTICATE):
            raise RemoteProtocolError(f"a second {frame.type.name}", 0)
        if frame.type is FrameType.ANSWERS:
            return [RequestsDone(answered_requests(frame.payload))]
        return [] if frame.type is FrameType.PING else [FrameReceived(frame)]

    def _receive_hello(self, frame: Frame) -> list[LinkEvent]:
        if frame.type is not FrameType.HELLO:
            raise RemoteProtocolError(f"{frame.type.name} before HELLO", 0)
        peer = Hello.decode(frame.payload)
        self._check_identity(peer)
        self._check_features(peer)
        self._peer = peer
        if self._key is None:
            return [self._open(peer)]
        payloads = self._hello_payload, bytes(frame.payload)
        self._keys = connection_keys(
            self._key, *payloads, dials=self._dials, version=self.version, binding=self.binding
        )
        if self._dials:  # first: who has not proved itself learns nothing about the key from the array that listens
            self._prove(self._keys)
        return []

    def _check_identity(self, peer: Hello) -> None:
        if peer.serial != self._hello.peer_serial:
            raise RemoteProtocolError(
                f"array {peer.serial} is at the other end, but array {self._hello.peer_serial} is the configured peer",
                0,
            )
        if peer.peer_serial != self._hello.serial:
            raise RemoteProtocolError(
                f"array {peer.serial} expects array {peer.peer_serial}, this is array {self._hello.serial}",
                0,
            )
        if self._known_peer not in (None, peer.identity):
            # Its votes are gone, or were never its own: with it, an epoch could be decided twice.
            raise RemoteProtocolError(
                f"array {peer.serial} is not the one that array {self._hello.serial} shares pairs with: its state"
                " directory was lost or replaced, or a second array has its serial number. If it was lost, delete the"
                " pairs here (pairctl delete --force) and create them anew",
                0,
            )

    def _check_features(self, peer: Hello) -> None:
        ours = self._hello.versions
        common = set(peer.versions) & set(ours)
        if not common:
            raise RemoteProtocolError(f"no common version: the peer speaks {peer.versions}, this array {ours}", 0)
        self.version = max(common)
        unknown = sorted(set(peer.required) - FEATURES)
        if unknown:
            raise RemoteProtocolError(f"array {peer.serial} requires what this array does not know: {unknown}", 0)
        if (KEY_FEATURE in peer.required) != (self._key is not None):
            has, has_not = (peer, self._hello) if self._key is None else (self._hello, peer)
            raise RemoteProtocolError(f"array {has.serial} has a link key, array {has_not.serial} has none", 0)
        if self._key is not None and (not _NONCE.fullmatch(peer.nonce) or peer.nonce == self._hello.nonce):
            raise RemoteProtocolError("the nonce in HELLO is not 32 fresh bytes", 0)

    def _receive_proof(self, frame: Frame, peer: Hello) -> list[LinkEvent]:
        assert self._keys is not None
        if frame.type is not FrameType.AUTHENTICATE:
            raise RemoteProtocolError(f"{frame.type.name} before AUTHENTICATE", 0)
        if not hmac.compare_digest(self._keys.expected_proof, bytes(frame.payload)):
            raise RemoteProtocolError(
                f"array {peer.serial} does not prove that it has the key of array {self._hello.serial}", 0
            )
        if not self.binding:
            self._stream.tag = FrameTag(self._keys.receiving)
        if not self._dials:
            self._prove(self._keys)
        return [self._open(peer)]

    def _prove(self, keys: ConnectionKeys) -> None:
        self.send(Frame(FrameType.AUTHENTICATE, payload=keys.proof))
        if not self.binding:
            self._tag = FrameTag(keys.sending)

    def _open(self, peer: Hello) -> LinkOpened:
        self._opened = True
        self._stream.max_payload_length = MAX_PAYLOAD_LENGTH
        self._stream.ahead = True  # a stranger gets no memory for what it only announces
        return LinkOpened(peer)

    def send(self, frame: Frame) -> None:
        """Queue a frame; it leaves with the next :meth:`data_to_send`."""
        if self._done:
            self._queue_done()
        parts = frame.encode()
        if self._tag is not None:
            parts.append(self._tag.next(parts[0], parts[1] if len(parts) > 1 else b""))
        self._outgoing += parts

    def done(self, request: int) -> None:
        """Queue the answer DONE, with nothing else to say, to a request."""
        self._done.append(request)
        if self._peer is None or not self._peer.answers:
            self._queue_done()

    def _queue_done(self) -> None:
        done, self._done = self._done, []
        self.send(answers_frame(done))

    def refuse(self, reason: str) -> None:
        """Queue the reason as the last frame. To a HELLO before it, the peer would open the link, only to lose it."""
        if not self._hello_sent:
            self._outgoing.clear()
        self.send(Frame(FrameType.REFUSED, payload=_readable(reason).encode()))

    def data_to_send(self, now: float) -> list[Buffer]:
        """Everything queued, in order."""
        if self._done:
            self._queue_done()
        outgoing, self._outgoing = self._outgoing, []
        if outgoing:
            self._hello_sent = True
            self._last_sent = now
        return outgoing

    def next_deadline(self) -> float | None:
        """When :meth:`handle_deadline` wants to be called."""
        if self._failed:
            return None
        silence = self._last_received + SILENCE_LIMIT
        return min(self._last_sent + PING_INTERVAL, silence) if self._opened else silence

    def handle_deadline(self, now: float) -> list[LinkEvent]:
        """Time has passed: ping, or give the peer up."""
        if self._failed:
            return []
        if now >= self._last_received + SILENCE_LIMIT:
            missing = "no HELLO" if self._peer is None else "no AUTHENTICATE"
            what = "nothing heard from the other array" if self._opened else f"{missing} from the other end"
            return [self._fail(f"{what} for {SILENCE_LIMIT:g} s")]
        if self._opened and now >= self._last_sent + PING_INTERVAL:
            self.send(Frame(FrameType.PING))
        return []

    def _fail(self, reason: str) -> LinkFailed:
        self._failed = True
        self.refuse(reason)
        return LinkFailed(_readable(reason))


def _readable(reason: str) -> str:
    """One line of bounded length, whatever of it the peer has chosen."""
    return "".join(char if char.isprintable() else "?" for char in reason[:_REASON_LENGTH])
