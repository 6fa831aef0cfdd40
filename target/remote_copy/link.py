"""The remote-copy link as a sans-IO machine, the same at both ends.

Frames in, events out. The machine knows the handshake (who is at the other end, which version, which pairs), keeps the
link alive and says when it is dead; what a frame means for a pair is not its business.
"""

from dataclasses import dataclass

from storage_model.errors import RemoteProtocolError
from storage_model.spec.copy_frames import VERSIONS, Frame, FrameStream, FrameType, Hello
from storage_model.volume import Buffer

PING_INTERVAL = 1.0
"""Seconds of silence after which this side sends a PING."""
SILENCE_LIMIT = 3.0
"""Seconds of silence after which the peer counts as gone (a half-open connection gives no other sign)."""


_REASON_LENGTH = 300


@dataclass(frozen=True, slots=True)
class LinkOpened:
    """The peer is the one we were told to expect; its offers are in ``hello``."""

    hello: Hello


@dataclass(frozen=True, slots=True)
class FrameReceived:
    """A frame for a pair, or the answer to a request."""

    frame: Frame


@dataclass(frozen=True, slots=True)
class LinkFailed:
    """The link is of no use any more; ``reason`` is a sentence for the log. Send what is left, then hang up."""

    reason: str


LinkEvent = LinkOpened | FrameReceived | LinkFailed


class Link:
    """One connection's life; ``hello`` is what this side says of itself, ``now`` the time of the connection.

    ``known_peer`` is the identity of the array that this one shares pairs with; None while there are none.
    """

    def __init__(self, hello: Hello, now: float, known_peer: str | None = None) -> None:
        self._hello = hello
        self._known_peer = known_peer
        self._stream = FrameStream()
        self._outgoing: list[Buffer] = hello.frame().encode()
        self._opened = False
        self._failed = False
        self._last_received = now
        self._last_sent = now

    def receive_data(self, data: Buffer, now: float) -> list[LinkEvent]:
        """Bytes have come in."""
        if self._failed:
            return []
        try:
            events = [event for frame in self._stream.receive_data(data) for event in self._receive_frame(frame)]
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
        if not self._opened:
            return [self._open(frame)]
        if frame.type is FrameType.HELLO:
            raise RemoteProtocolError("a second HELLO", 0)
        return [] if frame.type is FrameType.PING else [FrameReceived(frame)]

    def _open(self, frame: Frame) -> LinkEvent:
        if frame.type is not FrameType.HELLO:
            raise RemoteProtocolError(f"{frame.type.name} before HELLO", 0)
        hello = Hello.decode(frame.payload)
        if hello.serial != self._hello.peer_serial:
            raise RemoteProtocolError(
                f"array {hello.serial} is at the other end, but array {self._hello.peer_serial} is the configured peer",
                0,
            )
        if hello.peer_serial != self._hello.serial:
            raise RemoteProtocolError(
                f"array {hello.serial} expects array {hello.peer_serial}, this is array {self._hello.serial}",
                0,
            )
        if self._known_peer not in (None, hello.identity):
            # Its votes are gone, or were never its own: with it, an epoch could be decided twice.
            raise RemoteProtocolError(
                f"array {hello.serial} is not the one that array {self._hello.serial} shares pairs with: its state"
                " directory was lost or replaced, or a second array has its serial number. If it was lost, delete the"
                " pairs here (pairctl delete --force) and create them anew",
                0,
            )
        if not set(hello.versions) & set(VERSIONS):
            raise RemoteProtocolError(f"no common version: the peer speaks {hello.versions}, this array {VERSIONS}", 0)
        self._opened = True
        return LinkOpened(hello)

    def send(self, frame: Frame) -> None:
        """Queue a frame; it leaves with the next :meth:`data_to_send`."""
        self._outgoing += frame.encode()

    def data_to_send(self, now: float) -> list[Buffer]:
        """Everything queued, in order."""
        outgoing, self._outgoing = self._outgoing, []
        if outgoing:
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
            what = "nothing heard from the other array" if self._opened else "no HELLO from the other end"
            return [self._fail(f"{what} for {SILENCE_LIMIT:g} s")]
        if self._opened and now >= self._last_sent + PING_INTERVAL:
            self.send(Frame(FrameType.PING))
        return []

    def _fail(self, reason: str) -> LinkFailed:
        self._failed = True
        reason = _readable(reason)
        self.send(Frame(FrameType.REFUSED, payload=reason.encode()))
        return LinkFailed(reason)


def _readable(reason: str) -> str:
    """One line of bounded length, whatever of it the peer has chosen."""
    return "".join(char if char.isprintable() else "?" for char in reason[:_REASON_LENGTH])
