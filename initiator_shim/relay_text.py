"""The text of Login and Text PDUs on its way through the relay: read always, changed where a relay must.

A pair that needs no change keeps its bytes, so that authentication passes through untouched.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from storage_model.errors import RemoteProtocolError
from storage_model.spec.iscsi_codes import RejectReason
from storage_model.spec.iscsi_text import in_range
from storage_model.volume import Buffer

MAX_RECV_DATA_SEGMENT_LENGTH = 1 << 20
_LOGIN_SEGMENT_LENGTH = 8192  # RFC 7143 §13.12: holds for both sides as long as login lasts

CAPS = {
    # One connection of the host is one connection to the array, and a relay recovers no connection (§13.2, §13.20).
    "MaxConnections": 1,
    "ErrorRecoveryLevel": 0,
    # A PDU that the relay takes out is relayed when it is whole: this bounds what it can be made to hold (§13.12).
    "MaxRecvDataSegmentLength": MAX_RECV_DATA_SEGMENT_LENGTH,
}

Pair = tuple[bytes, bytes]


def capped(key: str, value: str) -> str:
    """``value``, or what a relay can honour when that is less."""
    cap = CAPS.get(key)
    number = None if cap is None else in_range(key, value)
    return value if cap is None or number is None or number <= cap else str(cap)


@dataclass(slots=True)
class TextStream:
    """One direction's text. ``rewrite`` gets the whole pairs of one PDU and answers those that go on.

    A pair may be cut anywhere between two PDUs (RFC 7143 §6.2, C bit): its beginning waits here for its end.
    """

    rewrite: Callable[[list[Pair]], list[Pair]]
    _rest: bytes = b""

    def pass_on(self, segment: Buffer, more_follows: bool, limit: int) -> bytes:
        """The segment to relay instead of ``segment``, at most ``limit`` bytes.

        Raises RemoteProtocolError (reason: a RejectReason) when it does not fit any more.
        """
        text = self._rest + bytes(segment)
        self._rest = b""
        if more_follows:
            whole, _, self._rest = text.rpartition(b"\0")
            text = whole + b"\0" if whole else b""
        items = [item for item in text.split(b"\0") if item]
        if any(b"=" not in item for item in items):
            return text  # malformed, for the receiver to refuse
        rewritten = b"".join(_joined(pair) for pair in self.rewrite([item.partition(b"=")[::2] for item in items]))
        if text and text[-1] != 0:
            rewritten = rewritten[:-1]  # a missing last NUL, too, is the receiver's to judge
        if len(rewritten) > limit and more_follows:
            cut = rewritten.rfind(b"\0", 0, limit) + 1
            rewritten, self._rest = rewritten[:cut], rewritten[cut:] + self._rest
        if len(rewritten) > limit or len(self._rest) > limit:
            raise RemoteProtocolError("a text does not fit its PDU with the shim's address in it", _TOO_LONG)
        return rewritten


_TOO_LONG = RejectReason.INVALID_PDU_FIELD


def _joined(pair: Pair) -> bytes:
    key, value = pair
    return key + b"=" + value + b"\0"


@dataclass(slots=True)
class LoginWatch:
    """What the relay learns from the texts of both sides. Addresses are ``host:port``."""

    own_address: str
    array_address: str = ""
    initiator_name: str = ""
    target_name: str | None = None
    discovery: bool = False
    redirected_to: str | None = None
    host_segment_limit: int = _LOGIN_SEGMENT_LENGTH
    array_segment_limit: int = _LOGIN_SEGMENT_LENGTH
    _latest: dict[str, str] = field(default_factory=dict)

    @property
    def header_digest(self) -> bool:
        return self._latest.get("HeaderDigest") == "CRC32C"

    @property
    def data_digest(self) -> bool:
        return self._latest.get("DataDigest") == "CRC32C"

    def from_host(self, pairs: list[Pair]) -> list[Pair]:
        return [self._seen(pair, host=True) for pair in pairs]

    def from_array(self, pairs: list[Pair]) -> list[Pair]:
        """Also makes every TargetAddress the shim's, once for each target (SendTargets answers, redirections)."""
        kept: list[Pair] = []
        target: list[bytes] = []  # the addresses of the target named last
        for key, value in pairs:
            if key == b"TargetAddress":
                target.append(value)
                continue
            kept += self._shim_address(target)
            target = []
            kept.append(self._seen((key, value), host=False))
        return kept + self._shim_address(target)

    def _seen(self, pair: Pair, host: bool) -> Pair:
        """Notes the pair, and caps it."""
        try:
            key, value = pair[0].decode(), pair[1].decode()
        except UnicodeDecodeError:
            return pair  # for the receiver to refuse
        changed = capped(key, value)
        match key:
            case "InitiatorName" if host:
                self.initiator_name = value
            case "TargetName" if host:
                self.target_name = value
            case "SessionType" if host:
                self.discovery = value == "Discovery"
            case "HeaderDigest" | "DataDigest":
                # The side that spoke last has answered the other's offer, and its answer is the outcome (§6.2.1).
                self._latest[key] = value
            case "MaxRecvDataSegmentLength":
                self._note_segment_limit(changed, host)
        return pair if changed == value else (pair[0], changed.encode())

    def _note_segment_limit(self, value: str, host: bool) -> None:
        limit = in_range("MaxRecvDataSegmentLength", value)
        if limit is None:
            return
        if host:
            self.host_segment_limit = limit
        else:
            self.array_segment_limit = limit

    def _shim_address(self, addresses: list[bytes]) -> list[Pair]:
        """One address for a target's several: the shim's, with the portal group of the portal that the shim dials."""
        if not addresses:
            return []
        self.redirected_to = addresses[0].partition(b",")[0].decode(errors="replace")
        wanted = self.array_address.encode()
        chosen = next((address for address in addresses if address.partition(b",")[0] == wanted), addresses[0])
        _, comma, group = chosen.partition(b",")
        return [(b"TargetAddress", self.own_address.encode() + comma + group)]
