"""Text segments and their negotiation (RFC 7143 §6, §13): one table says how each key is negotiated."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, Flag, auto

from storage_model.errors import RemoteProtocolError
from storage_model.spec.iscsi_codes import LoginStatus
from storage_model.volume import Buffer

NONE = "None"
REJECT = "Reject"
NOT_UNDERSTOOD = "NotUnderstood"
IRRELEVANT = "Irrelevant"
YES, NO = "Yes", "No"
RESERVED_VALUES = (REJECT, NOT_UNDERSTOOD, IRRELEVANT)

MAX_KEY_LENGTH = 63  # §6.1
MAX_PAIRS = 128  # ours: the standard defines fewer than forty keys


class Kind(Enum):
    """How the two sides' values make one (§6.2)."""

    LIST = auto()  # the first of the offered values that the responder supports
    MINIMUM = auto()
    MAXIMUM = auto()
    AND = auto()
    OR = auto()
    DECLARATIVE = auto()  # no answer
    OBSOLETE = auto()  # answered Reject (§13.24)


# Reading a member off its class takes longer than the decision made with it, and there are twenty keys in a login.
_LIST, _MINIMUM, _AND, _OR, _OBSOLETE = Kind.LIST, Kind.MINIMUM, Kind.AND, Kind.OR, Kind.OBSOLETE


class Use(Flag):
    """Where a key may appear (§13: IO, LO, FFPO) and what it covers."""

    LOGIN = auto()
    FULL_FEATURE = auto()
    NORMAL_ONLY = auto()  # Irrelevant in a discovery session


_LOGIN, _BOTH = Use.LOGIN, Use.LOGIN | Use.FULL_FEATURE
_NORMAL = Use.LOGIN | Use.NORMAL_ONLY


@dataclass(frozen=True, slots=True)
class KeyRule:
    """One row of §13. ``minimum`` and ``maximum`` bound numeric keys; ``values`` are those that a LIST key may have."""

    kind: Kind
    default: str | None
    use: Use
    minimum: int = 0
    maximum: int = 0
    values: tuple[str, ...] = ()

    @property
    def numeric(self) -> bool:
        return self.maximum > 0


_DIGESTS = ("CRC32C", NONE)
_TASK_REPORTING = ("RFC3720", "ResponseFence", "FastAbort")
_LENGTH = (512, (1 << 24) - 1)

KEYS: Mapping[str, KeyRule] = {
    "AuthMethod": KeyRule(Kind.LIST, NONE, _LOGIN, values=("CHAP", "SRP", "KRB5", NONE)),
    "HeaderDigest": KeyRule(Kind.LIST, NONE, _LOGIN, values=_DIGESTS),
    "DataDigest": KeyRule(Kind.LIST, NONE, _LOGIN, values=_DIGESTS),
    "MaxConnections": KeyRule(Kind.MINIMUM, "1", _NORMAL, 1, 65535),
    "SendTargets": KeyRule(Kind.DECLARATIVE, None, Use.FULL_FEATURE),
    "TargetName": KeyRule(Kind.DECLARATIVE, None, _BOTH),
    "InitiatorName": KeyRule(Kind.DECLARATIVE, None, _LOGIN),
    "TargetAlias": KeyRule(Kind.DECLARATIVE, None, _BOTH),
    "InitiatorAlias": KeyRule(Kind.DECLARATIVE, None, _BOTH),
    "TargetAddress": KeyRule(Kind.DECLARATIVE, None, _BOTH),
    "TargetPortalGroupTag": KeyRule(Kind.DECLARATIVE, None, _LOGIN),
    "InitialR2T": KeyRule(Kind.OR, YES, _NORMAL),
    "ImmediateData": KeyRule(Kind.AND, YES, _NORMAL),
    "MaxRecvDataSegmentLength": KeyRule(Kind.DECLARATIVE, "8192", _BOTH, *_LENGTH),
    "MaxBurstLength": KeyRule(Kind.MINIMUM, "262144", _NORMAL, *_LENGTH),
    "FirstBurstLength": KeyRule(Kind.MINIMUM, "65536", _NORMAL, *_LENGTH),
    "DefaultTime2Wait": KeyRule(Kind.MAXIMUM, "2", _LOGIN, 0, 3600),
    "DefaultTime2Retain": KeyRule(Kind.MINIMUM, "20", _LOGIN, 0, 3600),
    "MaxOutstandingR2T": KeyRule(Kind.MINIMUM, "1", _NORMAL, 1, 65535),
    "DataPDUInOrder": KeyRule(Kind.OR, YES, _NORMAL),
    "DataSequenceInOrder": KeyRule(Kind.OR, YES, _NORMAL),
    "ErrorRecoveryLevel": KeyRule(Kind.MINIMUM, "0", _LOGIN, 0, 2),
    "SessionType": KeyRule(Kind.DECLARATIVE, "Normal", _LOGIN),
    "TaskReporting": KeyRule(Kind.LIST, "RFC3720", _NORMAL, values=_TASK_REPORTING),
    "iSCSIProtocolLevel": KeyRule(Kind.MINIMUM, "1", _NORMAL, 0, 31),  # RFC 7144 §3.1.1
    "IFMarker": KeyRule(Kind.AND, NO, _LOGIN),  # obsolete too, but No is a permitted answer, and the one peers know
    "OFMarker": KeyRule(Kind.AND, NO, _LOGIN),
    "IFMarkInt": KeyRule(Kind.OBSOLETE, None, _LOGIN),
    "OFMarkInt": KeyRule(Kind.OBSOLETE, None, _LOGIN),
}


def _bad(message: str) -> RemoteProtocolError:
    return RemoteProtocolError(message, LoginStatus.INITIATOR_ERROR)


def parse_pairs(data: Buffer, max_pairs: int = MAX_PAIRS) -> list[tuple[str, str]]:
    """The key=value pairs of a whole text segment, in order; a key may repeat, as in a SendTargets answer.

    Raises RemoteProtocolError (reason: LoginStatus.INITIATOR_ERROR) for anything that §6.1 does not allow. A missing
    last NUL is one of those.
    """
    raw = bytes(data)
    if not raw.strip(b"\0"):
        return []
    if raw[-1] != 0:
        raise _bad("text does not end with a NUL")
    try:
        text = raw.decode()  # all at once: NUL and "=" are bytes of their own in UTF-8
    except UnicodeDecodeError:
        raise _bad("text is not UTF-8") from None
    items = [item for item in text.split("\0", max_pairs + 1) if item]
    if len(items) > max_pairs:
        raise _bad(f"more than {max_pairs} keys in one text")
    pairs: list[tuple[str, str]] = []
    for item in items:
        key, equals, value = item.partition("=")
        if not equals or not 1 <= len(key) <= MAX_KEY_LENGTH or not key.isascii():
            raise _bad("text has an item that is not key=value with an ASCII key of 1 to 63 bytes")
        pairs.append((key, value))
    return pairs


def parse_text(data: Buffer, max_pairs: int = MAX_PAIRS) -> dict[str, str]:
    """Like :func:`parse_pairs`, for a negotiation: a key that comes twice is an error (§6.3)."""
    pairs = parse_pairs(data, max_pairs)
    parsed = dict(pairs)
    if len(parsed) != len(pairs):
        raise _bad("text has a key twice")
    return parsed


def format_text(pairs: Mapping[str, str] | Iterable[tuple[str, str]]) -> bytes:
    """``key=value`` and a NUL each."""
    items = pairs.items() if isinstance(pairs, Mapping) else pairs
    return "".join([f"{key}={value}\0" for key, value in items]).encode()


def parse_number(text: str) -> int:
    """A numerical value, decimal or 0x hexadecimal (§6.1). Raises ValueError."""
    if len(text) > 20:
        raise ValueError("number too long")
    if text[:2] in ("0x", "0X"):
        return _digits(text[2:], "0123456789abcdefABCDEF", 16)
    return _digits(text, "0123456789", 10)


def _digits(text: str, alphabet: str, base: int) -> int:
    if not text or text.strip(alphabet):  # int() alone would take "1_0" and " 1"
        raise ValueError(f"not a number: {text!r}")
    return int(text, base)


def negotiate(key: str, offered: str, own: str) -> str:
    """The responder's answer to ``key=offered``; it is also the outcome, unless it is ``Reject``.

    ``own`` is the responder's value: a number, Yes or No, or a comma-separated list of what it supports, in any order,
    for the offerer's order decides (§6.2.1). The key must be in KEYS and not be declarative.
    """
    kind = KEYS[key].kind
    if kind is _OBSOLETE:
        return REJECT
    if kind is _LIST:
        supported = own.split(",")
        return next((value for value in offered.split(",") if value in supported), REJECT)
    if kind is _AND or kind is _OR:
        if offered not in (YES, NO):
            return REJECT
        both = (offered, own)
        return (NO if NO in both else YES) if kind is _AND else (YES if YES in both else NO)
    number = in_range(key, offered)
    if number is None:
        return REJECT
    return str((min if kind is _MINIMUM else max)(number, int(own)))


def in_range(key: str, text: str) -> int | None:
    """The number that ``text`` gives for a numeric key, or None when it is not one or out of the key's range."""
    rule = KEYS[key]
    try:
        number = parse_number(text)
    except ValueError:
        return None
    return number if rule.minimum <= number <= rule.maximum else None
