"""How two arrays prove to each other that they have the same key, and what keys a connection has.

Both proofs and both frame keys come from the common key and the whole handshake: the two HELLOs, with their nonces,
serial numbers and versions, the version in use, and the encrypted channel below, if there is one. So a recorded proof
is worth nothing in another connection, nobody can change a HELLO on its way, and each direction has keys of its own,
so that what an array has sent cannot be sent back to it. The derivation is HKDF's (RFC 5869), with HMAC-SHA-256.
"""

import hmac
from dataclasses import dataclass, field
from hashlib import sha256

from storage_model.secret import Secret

MIN_KEY_BYTES = 16
"""Whoever has heard a handshake can try keys at home; a short one would be found."""


@dataclass(frozen=True, slots=True)
class ConnectionKeys:
    """Of one connection, as one of its ends has them: what it sends and what it must receive."""

    proof: bytes = field(repr=False)
    expected_proof: bytes = field(repr=False)
    sending: bytes = field(repr=False)
    receiving: bytes = field(repr=False)


def connection_keys(
    key: Secret, mine: bytes, theirs: bytes, *, dials: bool, version: int, binding: bytes
) -> ConnectionKeys:
    """``mine`` and ``theirs`` are the payloads of the HELLOs; ``dials``: this is the array that connects."""
    hellos = (mine, theirs) if dials else (theirs, mine)
    parts = (version.to_bytes(4, "big"), binding, *hellos)
    transcript = sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts)).digest()
    extracted = hmac.digest(b"pairvol remote-copy link key", key.value, "sha256")

    def expand(role: bytes, purpose: bytes) -> bytes:
        return hmac.digest(extracted, b"pairvol link, " + role + purpose + transcript + b"\x01", "sha256")

    own, other = (b"dials: ", b"listens: ") if dials else (b"listens: ", b"dials: ")
    return ConnectionKeys(
        proof=expand(own, b"proof"),
        expected_proof=expand(other, b"proof"),
        sending=expand(own, b"frames"),
        receiving=expand(other, b"frames"),
    )
