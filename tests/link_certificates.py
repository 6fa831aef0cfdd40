"""Certificates for two arrays, as an operator's own authority would make them; with ``cryptography``, which the tests
have for encrypted volumes anyway."""

import datetime
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class CertificateFiles:
    """What one array's configuration names, in its order."""

    certificate: Path
    private_key: Path
    ca: Path

    def words(self) -> tuple[str, str, str]:
        return str(self.certificate), str(self.private_key), str(self.ca)

    def toml(self) -> str:
        certificate, private_key, ca = self.words()
        return f'certificate_file = "{certificate}"\nprivate_key_file = "{private_key}"\nca_file = "{ca}"\n'


class Authority:
    """Signs certificates; its own lies in ``directory``."""

    def __init__(self, directory: Path, name: str = "authority") -> None:
        self._directory = directory
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.file = directory / f"{name}.pem"
        builder = self._builder(self._name, self._key, -1, 2)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        usage = dict.fromkeys(
            "digital_signature content_commitment key_encipherment data_encipherment key_agreement crl_sign"
            " encipher_only decipher_only".split(),
            False,
        )
        builder = builder.add_extension(x509.KeyUsage(key_cert_sign=True, **usage), critical=True)
        self.file.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, begins: int, ends: int
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begins * DAY)
            .not_valid_after(now + ends * DAY)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(identifier, critical=False)
        )

    def issue(self, file: str, serial: str | None, *, begins: int = -1, ends: int = 1) -> CertificateFiles:
        """For array ``serial``; None: for a web server, which names no array."""
        key = ec.generate_private_key(ec.SECP256R1())
        name: x509.GeneralName = x509.DNSName("www.example.org")
        if serial is not None:
            name = x509.UniformResourceIdentifier(f"urn:pairvol:array:{serial}")
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, file)])
        builder = self._builder(subject, key, begins, ends)
        builder = builder.add_extension(x509.SubjectAlternativeName([name]), critical=False)
        made = CertificateFiles(self._directory / f"{file}.pem", self._directory / f"{file}.key", self.file)
        made.certificate.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))
        made.private_key.touch(mode=0o600)
        made.private_key.write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        )
        return made
