"""TLS 1.3 for the remote-copy link: both arrays show a certificate of the same authority. [IO]

A certificate speaks for an array when its subjectAltName has the URI ``urn:pairvol:array:SERIAL``. Host names play no
part: a serial number is what the other array is configured by, and an address may change.
"""

import ssl
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

_URI = "urn:pairvol:array:"


@dataclass(frozen=True, slots=True)
class LinkTls:
    """One context per role; ``certificate`` is the array's own, in DER."""

    dialling: ssl.SSLContext
    listening: ssl.SSLContext
    certificate: bytes

    @classmethod
    def from_files(cls, certificate_file: str, private_key_file: str, ca_file: str) -> "LinkTls":
        """PEM; raises ssl.SSLError, ValueError or OSError."""
        contexts = []
        for protocol in (ssl.PROTOCOL_TLS_CLIENT, ssl.PROTOCOL_TLS_SERVER):
            context = ssl.SSLContext(protocol)
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            context.check_hostname = False  # the serial number is checked instead
            context.verify_mode = ssl.CERT_REQUIRED
            context.verify_flags |= ssl.VERIFY_X509_STRICT
            context.load_cert_chain(certificate_file, private_key_file)
            context.load_verify_locations(ca_file)
            contexts.append(context)
        contexts[1].num_tickets = 0  # no resumption: every connection proves itself anew
        begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
        first = (
            Path(certificate_file).read_text(encoding="ascii", errors="replace").partition(begin)[2].partition(end)[0]
        )
        return cls(contexts[0], contexts[1], ssl.PEM_cert_to_DER_cert(begin + first + end))

    def context(self, *, dials: bool) -> ssl.SSLContext:
        """For one connection."""
        return self.dialling if dials else self.listening

    def binding(self, peer: ssl.SSLObject, *, dials: bool) -> bytes:
        """Names the channel to both ends: who takes part in it, by certificate."""
        theirs = sha256(peer.getpeercert(binary_form=True) or b"").digest()
        mine = sha256(self.certificate).digest()
        return mine + theirs if dials else theirs + mine


def certificate_fault(peer: ssl.SSLObject, serial: str) -> str | None:
    """Why the peer's certificate, which the authority has signed, does not speak for this array; None if it does."""
    certificate: Any = peer.getpeercert() or {}
    names = [value for kind, value in certificate.get("subjectAltName", ()) if kind == "URI"]
    if _URI + serial in names:
        return None
    return f"the certificate at the other end is for {', '.join(map(str, names)) or 'no array'}, not for {_URI}{serial}"
