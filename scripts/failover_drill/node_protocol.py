"""What the conductor and a cluster node say to each other: JSON lines on the node's standard input and output.

The conductor sends orders, ``{"order": NAME, "id": N, ...}``; a node answers each with ``{"answer": N, ...}`` and tells
of whatever happens to it with ``{"event": NAME, "at": SECONDS, ...}``. Times are the monotonic clock, which all the
processes of one machine share.
"""

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

Fields = dict[str, Any]
LINE_LIMIT = 65536


class Order(StrEnum):
    """What the conductor may ask of a node."""

    START = "start"
    """Join the cluster: RESERVE the quorum volume at the monotonic time ``at``."""
    MANAGE = "manage"
    """The winner: write the cluster management data."""
    MOUNT = "mount"
    """Mount the own data volume and start the application on it."""
    ARM = "arm"
    """The owner: split the quorum pair, ready for the next failure."""
    QUIESCE = "quiesce"
    """Stop writing, so that records can be counted; everything else goes on."""
    WRITE_QUORUM = "write quorum"
    """Try one write to the quorum volume, whoever owns it."""
    RACE = "race"
    """RESERVE the quorum volume at the monotonic time ``at``, and do nothing else."""
    RELEASE = "release"
    """RELEASE the quorum volume."""


class Event(StrEnum):
    """What a node tells of itself."""

    READY = "ready"
    PEER_SEEN = "peer seen"
    RESERVE = "reserve"
    JOINED = "joined"
    MANAGED = "management data written"
    MOUNTED = "mounted"
    APPLICATION_STARTED = "application started"
    APPLICATION_STOPPED = "application stopped"
    APPLICATION_FAILED = "application failed"
    ARMED = "armed"
    PEER_LOST = "peer lost"
    RESET = "reset"
    TAKEOVER = "takeover"
    TAKEOVER_REFUSED = "takeover refused"
    TAKEOVER_DONE = "takeover done"
    OWNERSHIP_LOST = "ownership lost"
    QUORUM_LOST = "quorum lost"
    RETIRED = "retired"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """A node's command line, as one JSON object. Addresses are ``(host, port)``, times seconds."""

    site: str
    shim: tuple[str, int]
    target_name: str
    broker: tuple[str, int]
    acknowledgements: str
    heartbeat_interval: float
    heartbeat_timeout: float
    renewal_interval: float
    record_interval: float
    hesitation: float = 0.0

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "NodeSettings":
        fields = json.loads(text)
        return cls(**{**fields, "shim": tuple(fields["shim"]), "broker": tuple(fields["broker"])})


def encode_line(fields: Fields) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def decode_line(line: bytes) -> Fields:
    """Raises ValueError when the line is not one JSON object."""
    fields = json.loads(line)
    if not isinstance(fields, dict):
        raise ValueError(f"not a JSON object: {line[:100]!r}")
    return fields
