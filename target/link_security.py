"""The remote-copy link's key and certificates are read from where the configuration says they are. [IO]"""

import ssl
from dataclasses import dataclass
from pathlib import Path

from storage_model.errors import UserError
from storage_model.secret import Secret
from target.link_config import LinkTlsConfig, RemoteCopyConfig
from target.remote_copy.link_login import MIN_KEY_BYTES
from target.remote_copy.link_tls import LinkTls
from target.secret_files import read_secret, read_secret_file

_PRIVATE_KEY_LIMIT = 64 << 10


@dataclass(frozen=True, slots=True)
class LinkSecurity:
    """What the link has of both."""

    key: Secret | None = None
    tls: LinkTls | None = None


def load_link_security(config: RemoteCopyConfig) -> LinkSecurity:
    """Read now. Raises UserError, which names places and never a secret."""
    key = None if config.key is None else read_secret(config.key, "link key", MIN_KEY_BYTES)
    return LinkSecurity(key, None if config.tls is None else _load_tls(config.tls))


def _load_tls(config: LinkTlsConfig) -> LinkTls:
    private_key = read_secret_file(config.private_key_file, config.where + "private_key_file", _PRIVATE_KEY_LIMIT)
    if b"ENCRYPTED" in private_key:  # OpenSSL would ask for a passphrase at the terminal
        raise UserError(
            f"{config.where}private_key_file: {config.private_key_file} has a passphrase, which is not possible"
        )
    for key, file in (("certificate_file", config.certificate_file), ("ca_file", config.ca_file)):
        try:
            Path(file).read_bytes()
        except OSError as error:
            raise UserError(f"{config.where}{key}: {file}: {error.strerror}") from None
    try:
        return LinkTls.from_files(config.certificate_file, config.private_key_file, config.ca_file)
    except (ssl.SSLError, ValueError) as error:
        files = f"{config.certificate_file}, {config.private_key_file}, {config.ca_file}"
        reason = getattr(error, "reason", None) or error
        raise UserError(f"{config.where}certificate_file, private_key_file, ca_file: {files}: {reason}") from None
