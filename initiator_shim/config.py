"""The shim's settings, and addresses as users write them."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from initiator_shim.initiator_chap import ChapCredentials
from storage_model.errors import UserError

ISCSI_PORT = 3260
MQTT_PORT = 1883
DEADLINE_LIMITS = (0.1, 60.0)


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen or to connect; port 0 is any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class ShimConfig:
    """``deadline`` is in seconds: how long a RESERVE may be held. ``name`` tells this shim from others."""

    listen: Address
    array: Address
    deadline: float
    name: str
    broker: Address | None = None
    chap: ChapCredentials | None = None
    """For the shim's own sessions with the array; the host's logins pass through with the host's own."""

    def __post_init__(self) -> None:
        low, high = DEADLINE_LIMITS
        if not low <= self.deadline <= high:
            raise UserError(f"--deadline {self.deadline:g}: must be between {low:g} and {high:g} seconds")
        if not self.name or any(character in self.name for character in "/+# "):
            raise UserError(f"--name {self.name!r}: a word without '/', '+', '#' and spaces is needed")


@dataclass(frozen=True, slots=True)
class UnitUrl:
    """``iscsi://host[:port][/target[/lun]]``, as libiscsi's tools take it."""

    address: Address
    target_name: str | None
    lun: int | None


def parse_address(text: str, flag: str, default_port: int | None = None) -> Address:
    """``HOST:PORT``, the host in brackets when it is IPv6. Raises UserError that names ``flag``."""
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, "" if default_port is None else str(default_port)
    bare = host.removeprefix("[").removesuffix("]")
    if not bare or (":" in bare and not host.startswith("[")):
        raise UserError(f"{flag} {text}: not HOST:PORT (an IPv6 address in brackets)")
    if not (port.isascii() and port.isdecimal()) or int(port) > 65535:
        raise UserError(f"{flag} {text}: the port must be a number from 0 to 65535")
    return Address(bare, int(port))


def parse_broker(text: str, flag: str) -> Address:
    """``mqtt://HOST[:PORT]``. Raises UserError."""
    scheme, separator, rest = text.partition("://")
    if not separator or scheme != "mqtt":
        raise UserError(f"{flag} {text}: not mqtt://HOST:PORT")
    return parse_address(rest.rstrip("/"), flag, MQTT_PORT)


def parse_unit_url(text: str, flag: str) -> UnitUrl:
    """``iscsi://HOST[:PORT][/TARGET[/LUN]]``. Raises UserError, also for credentials in it."""
    parts = urlsplit(text)
    if parts.scheme != "iscsi" or not parts.netloc:
        raise UserError(f"{flag} {text}: not iscsi://HOST:PORT[/TARGET[/LUN]]")
    _, at, place = parts.netloc.rpartition("@")
    if at:  # others can read the arguments of a process, and the secret is not repeated here
        how = "pairctl: --chap-user, --chap-secret-file; PyscsiDevice: chap=…"
        raise UserError(f"{flag} iscsi://…@{place}: no user or secret in an address ({how})")
    address = parse_address(place, flag, ISCSI_PORT)
    target_name, _, lun = parts.path.strip("/").partition("/")
    if lun and not (lun.isascii() and lun.isdecimal()):
        raise UserError(f"{flag} {text}: the LUN must be a number")
    return UnitUrl(address, target_name or None, int(lun) if lun else None)
