"""The I_T nexus: who talks to which target port (SAM-5 4.7.2, RFC 7143 §4.4.4)."""

import unicodedata
from dataclasses import dataclass

MAX_NAME_BYTES = 223
"""Of an iSCSI name in UTF-8 (RFC 7143 §4.2.7.1)."""


def normalised_name(name: str) -> str:
    """An iSCSI name as it is compared: NFKC, without regard to case (RFC 7143 §4.2.7.1, RFC 3722).

    NFKC comes first, as it makes capitals of symbols that have no lower case, and again, as some letters compose with
    their accents in lower case alone.
    """
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).lower())


def is_name_length(name: str) -> bool:
    """Whether the name keeps to MAX_NAME_BYTES as it is spelled, and as it is compared: it may grow to the elevenfold.

    What is far too long is not normalised, which may take a time quadratic in its length.
    """
    return len(name.encode()) <= MAX_NAME_BYTES and len(normalised_name(name).encode()) <= MAX_NAME_BYTES


@dataclass(frozen=True, slots=True)
class ITNexus:
    """One initiator port joined to one target port.

    Reservations and ownership belong to a nexus, never to a session object: a session that logs in again with the
    same initiator name and ISID is the same nexus.

    ``initiator_name`` is the iSCSI name, kept as :func:`normalised_name` gives it: spellings of one name are the same
    (RFC 7143 §4.2.7.3), also where a claim or a TransportID has one. ``isid`` has six bytes; ``target_port`` is the
    relative target port identifier.
    """

    initiator_name: str
    isid: bytes
    target_port: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "initiator_name", normalised_name(self.initiator_name))

    @property
    def initiator_port_name(self) -> str:
        """``<name>,i,0x<isid>`` (RFC 7143 §4.4.4)."""
        return f"{self.initiator_name},i,0x{self.isid.hex()}"

    def __str__(self) -> str:
        return f"{self.initiator_port_name} -> port {self.target_port}"
