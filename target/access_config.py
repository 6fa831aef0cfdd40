"""Access rules as they are configured: ``[[access]]`` tables and ``--access`` words. Secrets are only named here."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import PurePath
from typing import Any

from storage_model.errors import UserError
from storage_model.spec.iscsi_chap import MAX_NAME_BYTES
from target.config_table import ConfigTable

MAX_RULES = 1024
MAX_PATTERN_LENGTH = 223  # of an iSCSI name, RFC 7143 §4.2.7.1

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
_REPEATED_WORDS = ("address", "lun")
_SINGLE_WORDS = (
    "initiator",
    *(f"{account}-{key}" for account in ("chap", "mutual") for key in ("user", "secret-file", "secret-env")),
)
_READ_ONLY = "read-only"

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class SecretSource:
    """Where a secret is: in a file, or in a variable of the environment. ``where`` is the key that says so."""

    file: str | None = None
    variable: str | None = None
    where: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class AccountConfig:
    user: str
    secret: SecretSource


@dataclass(frozen=True, slots=True)
class AccessConfig:
    """One rule. ``addresses`` empty: any; ``luns`` None: all of them."""

    initiator: str = "*"
    addresses: tuple[Network, ...] = ()
    luns: tuple[int, ...] | None = None
    read_only: bool = False
    chap: AccountConfig | None = None
    mutual: AccountConfig | None = None
    where: str = field(default="", compare=False)


def parse_access(source: str, entries: Sequence[Any]) -> tuple[AccessConfig, ...]:
    """The ``[[access]]`` tables of the file ``source``. Secret files are relative to that file's directory."""
    if len(entries) > MAX_RULES:
        raise UserError(f"{source}: {len(entries)} access rules, at most {MAX_RULES} are possible")
    return tuple(_rule(source, number, entry) for number, entry in enumerate(entries))


def _rule(source: str, number: int, entry: Any) -> AccessConfig:
    table = ConfigTable(source, f"access[{number}]", entry)
    initiator = _pattern(table.take("initiator", str, "*"), table.where("initiator"))
    addresses = table.take("addresses", list)
    if addresses == []:
        raise UserError(f"{table.where('addresses')} = [] must name at least one network")
    luns = table.take("luns", list)
    read_only = table.take("read_only", bool, False)
    accounts: dict[str, AccountConfig | None] = {}
    for name in ("chap", "mutual"):
        user, file, variable = (table.take(f"{name}_{key}", str) for key in ("user", "secret_file", "secret_env"))
        path = file and str(PurePath(source).parent / file)
        accounts[name] = _account(user, path, variable, table.where(f"{name}_"), "_")
    table.end()
    return AccessConfig(
        initiator,
        tuple(_network(text, table.where("addresses")) for text in addresses or ()),
        None if luns is None else tuple(sorted({_lun(lun, table.where("luns")) for lun in luns})),
        read_only,
        _chap_of(accounts, table.where("mutual_user"), "chap_user"),
        accounts["mutual"],
        f"{source}: access[{number}]",
    )


def parse_access_words(text: str, number: int = 0) -> AccessConfig:
    """``--access initiator=PATTERN,address=NETWORK,lun=N,read-only,chap-user=NAME,chap-secret-file=PATH,…``.

    ``address`` and ``lun`` may repeat. Errors never show a word's value: somebody may have put a secret there.
    """
    where = f"--access (number {number + 1})"
    repeated: dict[str, list[str]] = {key: [] for key in _REPEATED_WORDS}
    single: dict[str, str] = {}
    for word in text.split(","):
        key, _, value = word.partition("=")
        if key not in (*_REPEATED_WORDS, *_SINGLE_WORDS, _READ_ONLY):
            known = ", ".join(f"{name}=…" for name in (*_SINGLE_WORDS, *_REPEATED_WORDS))
            raise UserError(f"{where}: {key!r} is not one of {known}, {_READ_ONLY}")
        if bool(value) == (key == _READ_ONLY):
            raise UserError(f"{where}: {key} {'takes no value' if value else f'needs a value ({key}=…)'}")
        if key in single:
            raise UserError(f"{where}: {key} is there twice")
        if key in repeated:
            repeated[key].append(value)
        else:
            single[key] = value
    accounts = {
        name: _account(
            single.get(f"{name}-user"),
            single.get(f"{name}-secret-file"),
            single.get(f"{name}-secret-env"),
            f"{where}: {name}-",
            "-",
        )
        for name in ("chap", "mutual")
    }
    return AccessConfig(
        _pattern(single.get("initiator", "*"), f"{where}: initiator"),
        tuple(_network(text, f"{where}: address") for text in repeated["address"]),
        tuple(sorted({_lun(lun, f"{where}: lun") for lun in repeated["lun"]})) if repeated["lun"] else None,
        _READ_ONLY in single,
        _chap_of(accounts, f"{where}: mutual-user", "chap-user"),
        accounts["mutual"],
        where,
    )


def check_luns(rules: Sequence[AccessConfig], luns: Collection[int]) -> None:
    """A rule for a LUN that no volume has is a slip of the pen: UserError."""
    for rule in rules:
        for lun in rule.luns or ():
            if lun not in luns:
                raise UserError(f"{rule.where}: LUN {lun} is none of the volumes'")


def _pattern(text: str, where: str) -> str:
    if not 0 < len(text) <= MAX_PATTERN_LENGTH or not text.isprintable():
        raise UserError(f"{where} = {text!r} must be an iSCSI name or a shell pattern for names")
    return text


def _network(text: object, where: str) -> Network:
    """An address or a network, IPv4 or IPv6. An IPv4 one in IPv6's clothes (RFC 4291 §2.5.5.2) is IPv4."""
    try:
        network = ip_network(str(text))
    except ValueError:
        raise UserError(f"{where}: {text!r} is not a network (as 192.0.2.0/24 or 2001:db8::/32)") from None
    if isinstance(network, IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        if mapped is None:
            return network
        return IPv4Network((int(mapped), network.prefixlen - 96))
    return network


def _lun(value: object, where: str) -> int:
    if isinstance(value, bool) or not re.fullmatch("[0-9]{1,5}", str(value)) or int(str(value)) > 16383:
        raise UserError(f"{where}: {value!r} is not a LUN (0 to 16383)")
    return int(str(value))


def _account(
    user: str | None, file: str | None, variable: str | None, where: str, separator: str
) -> AccountConfig | None:
    """``where`` ends with the account's prefix, so that a key can be named by adding to it."""
    secret_file, secret_env = f"secret{separator}file", f"secret{separator}env"
    if user is None:
        if file is not None or variable is not None:
            raise UserError(f"{where}user is missing: a secret is somebody's")
        return None
    if not 0 < len(user.encode(errors="replace")) <= MAX_NAME_BYTES or not user.isprintable():
        raise UserError(f"{where}user must be 1 to {MAX_NAME_BYTES} bytes of printable text")
    if (file is None) == (variable is None):
        both = "" if file is None else ", not both"
        either = f"{where}{secret_file} or {where.rpartition(' ')[2]}{secret_env}"
        raise UserError(f"{either} must say where the secret is{both}")
    if file is not None:
        return AccountConfig(user, SecretSource(file=file, where=where + secret_file))
    if variable is None or not _VARIABLE.fullmatch(variable):
        raise UserError(f"{where}{secret_env} must be the name of an environment variable")
    return AccountConfig(user, SecretSource(variable=variable, where=where + secret_env))


def _chap_of(accounts: Mapping[str, AccountConfig | None], where: str, chap_user: str) -> AccountConfig | None:
    if accounts["mutual"] is not None and accounts["chap"] is None:
        raise UserError(f"{where}: a target proves itself only to an initiator that does, too: {chap_user} is missing")
    return accounts["chap"]
