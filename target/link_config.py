"""The ``[remote_copy]`` section: where the other array is, how the two prove who they are. Secrets are only named."""

import re
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from storage_model.errors import UserError
from target.access_config import SecretSource
from target.addresses import Address, parse_address
from target.config_table import ConfigTable

SERIAL = re.compile(r"[0-9]{5,12}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
_TLS_KEYS = ("certificate_file", "private_key_file", "ca_file")


@dataclass(frozen=True, slots=True)
class LinkTlsConfig:
    """Files in PEM. ``where`` leads to their keys, for errors."""

    certificate_file: str
    private_key_file: str
    ca_file: str
    where: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class RemoteCopyConfig:
    """Where the other array is. The one with the lower serial number dials, the other listens."""

    listen: Address
    peer: Address
    peer_serial: str
    key: SecretSource | None = None
    """Of a secret that both arrays have."""
    tls: LinkTlsConfig | None = None


def parse_remote_copy(source: str, values: dict[str, Any], serial: str) -> RemoteCopyConfig:
    """Of array ``serial``; files are relative to the directory of the file ``source``."""
    table = ConfigTable(source, "remote_copy", values)
    listen = parse_address(table.take("listen", str, required=True), table.where("listen"))
    peer = parse_address(table.take("peer", str, required=True), table.where("peer"))
    peer_serial = table.take("peer_serial", str, required=True)
    key = _key(table, source)
    tls = _tls(table, source)
    table.end()
    if not SERIAL.fullmatch(peer_serial) or peer_serial == serial:
        raise UserError(f"{table.where('peer_serial')} = {peer_serial!r} must be the other array's serial number")
    return RemoteCopyConfig(listen, peer, peer_serial, key, tls)


def _key(table: ConfigTable, source: str) -> SecretSource | None:
    file, variable = table.take("key_file", str), table.take("key_env", str)
    if file is not None and variable is not None:
        raise UserError(f"{table.where('key_file')} or key_env must say where the key is, not both")
    if file is not None:
        return SecretSource(file=_beside(source, file), where=table.where("key_file"))
    if variable is None:
        return None
    if not _VARIABLE.fullmatch(variable):  # not shown: somebody may have put the key itself there
        raise UserError(f"{table.where('key_env')} must be the name of an environment variable")
    return SecretSource(variable=variable, where=table.where("key_env"))


def _tls(table: ConfigTable, source: str) -> LinkTlsConfig | None:
    files: dict[str, str | None] = {key: table.take(key, str) for key in _TLS_KEYS}
    paths = [_beside(source, file) for file in files.values() if file is not None]
    if not paths:
        return None
    for key, file in files.items():
        if file is None:
            raise UserError(f"{table.where(key)} is missing: TLS needs {', '.join(_TLS_KEYS)}")
    certificate, private_key, ca = paths
    return LinkTlsConfig(certificate, private_key, ca, table.where(""))


def _beside(source: str, file: str) -> str:
    return str(PurePath(source).parent / file)
