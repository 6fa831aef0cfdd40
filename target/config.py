"""What an array is told to be: TOML or command-line words to frozen dataclasses.

Every error is one line that names the file, the key and the value.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from storage_model.errors import UserError
from storage_model.pair_state import FenceLevel

DEFAULT_IQN = "iqn.2026-11.org.pairvol:array"
DEFAULT_PORTAL = "127.0.0.1:3260"
MAX_VOLUMES = 4096
MAX_SIZE_BYTES = 1 << 60

_UNITS = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40, "PiB": 1 << 50}
_SIZE = re.compile(r"([0-9]{1,19})\s*([A-Za-z]*)")
_IQN = re.compile(r"iqn\.\d{4}-\d{2}\.[a-z0-9.-]+(:[A-Za-z0-9.:_-]+)?|eui\.[0-9A-Fa-f]{16}|naa\.[0-9A-Fa-f]{16,32}")
_SERIAL = re.compile(r"[0-9]{5,12}")
# A pair's name is also a file name, part of an MQTT topic and a column of pairctl. CCI's names have 31 characters, too.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,30}")

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class VolumeConfig:
    """One volume and the LUN it is served at. ``file`` None: in memory, gone when the array ends."""

    name: str
    lun: int
    size_bytes: int | None
    file: str | None = None
    block_length: int = 512
    quorum: bool = False
    ldev: int = 0
    """Its number inside the array, as operators of real arrays count volumes."""


@dataclass(frozen=True, slots=True)
class PairConfig:
    """A pair that this array has one half of."""

    name: str
    group: str
    volume: str
    fence: FenceLevel


@dataclass(frozen=True, slots=True)
class RemoteCopyConfig:
    """Where the other array is. The one with the lower serial number dials, the other listens."""

    listen: Address
    peer: Address
    peer_serial: str


@dataclass(frozen=True, slots=True)
class ArrayConfig:
    """One array."""

    iqn: str = DEFAULT_IQN
    serial: str = ""
    state_dir: str | None = None
    portals: tuple[Address, ...] = ()
    volumes: tuple[VolumeConfig, ...] = ()
    remote_copy: RemoteCopyConfig | None = None
    pairs: tuple[PairConfig, ...] = ()
    broker: str | None = None
    source: str = field(default="command line", compare=False)


def parse_size(text: str, where: str) -> int:
    """``256MiB`` and the like to bytes; ``where`` names the place in an error."""
    match = _SIZE.fullmatch(text.strip())
    if match is None or match[2] not in _UNITS:
        units = ", ".join(unit for unit in _UNITS if unit)
        raise UserError(f"{where}: {text!r} is not a size (a number and one of {units})")
    size = int(match[1]) * _UNITS[match[2]]
    if not 0 < size <= MAX_SIZE_BYTES:
        raise UserError(f"{where}: a volume of {text} is out of range (1 block to 1024 PiB)")
    return size


def parse_address(text: str, where: str) -> Address:
    """``host:port`` or ``[ipv6]:port``; port 0 lets the system choose."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not _is_host(host) or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:
        raise UserError(f"{where}: {text!r} is not an address (host:port, as 127.0.0.1:3260 or [::1]:3260)")
    return host, int(port)


def _is_host(text: str) -> bool:
    """True if the resolver can be asked for it: it wants labels of 1 to 63 characters (RFC 1034 §3.1)."""
    try:
        return bool(text.encode("idna")) and "\0" not in text
    except UnicodeError:
        return False


def parse_broker(text: str, where: str) -> Address:
    """``mqtt://host[:port]``."""
    match = re.fullmatch(r"mqtt://(.+?)/?", text)
    if match is None:
        raise UserError(f"{where}: {text!r} is not a broker (mqtt://host:port)")
    return parse_address(match[1] if match[1].rpartition(":")[2].isdecimal() else match[1] + ":1883", where)


def parse_volume_words(text: str, lun: int) -> VolumeConfig:
    """``--volume 64MiB,file=PATH,block=4096,quorum``; without ``file`` in memory, ``block`` 512."""
    where = f"--volume {text}"
    size, *words = text.split(",")
    options: dict[str, str] = {}
    for word in words:
        key, _, value = word.partition("=")
        if key not in ("file", "block", "quorum", "name") or key in options or bool(value) == (key == "quorum"):
            raise UserError(f"{where}: {word!r} is not one of file=PATH, block=512|4096, name=NAME, quorum")
        options[key] = value
    block_length = _block_length(options.get("block", "512"), where)
    size_bytes = parse_size(size, where)
    _check_whole_blocks(size_bytes, block_length, where)
    name = _check_name(options.get("name", f"volume{lun}"), where)
    return VolumeConfig(name, lun, size_bytes, options.get("file"), block_length, "quorum" in options, lun + 1)


def _block_length(value: object, where: str) -> int:
    if str(value) not in ("512", "4096"):
        raise UserError(f"{where}: a block of {value!r} bytes is not supported (512 or 4096)")
    return int(str(value))


def _check_whole_blocks(size_bytes: int, block_length: int, where: str) -> None:
    if size_bytes % block_length:
        raise UserError(f"{where}: {size_bytes} bytes are not a whole number of {block_length}-byte blocks")


def _check_name(text: str, where: str) -> str:
    if not _NAME.fullmatch(text):
        raise UserError(f"{where}: {text!r} is not a name (1 to 31 letters, digits, '_', '-', '.')")
    return text


def serial_from(iqn: str) -> str:
    """An array serial number for an array that was given none: the same for the same name."""
    return str(10_000 + int.from_bytes(sha256(iqn.encode()).digest()[:4], "big") % 90_000)


def check_iqn(text: str, where: str) -> str:
    """An iSCSI name (RFC 7143 §4.2.7)."""
    if not _IQN.fullmatch(text) or len(text) > 223:
        raise UserError(f"{where}: {text!r} is not an iSCSI name (iqn.2026-11.org.example:array, lower case)")
    return text


class _Table:
    """One TOML table that is read key by key; what is left over at the end is an error."""

    def __init__(self, source: str, path: str, values: Any) -> None:
        if not isinstance(values, dict):
            raise UserError(f"{source}: [{path}] must be a table")
        self._source = source
        self._path = path
        self._values: dict[str, Any] = dict(values)

    def where(self, key: str) -> str:
        return f"{self._source}: {self._path + '.' if self._path else ''}{key}"

    def take(self, key: str, kind: type, default: Any = None, *, required: bool = False) -> Any:
        if key not in self._values:
            if required:
                raise UserError(f"{self.where(key)} is missing")
            return default
        value = self._values.pop(key)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            words = {str: "text", int: "a whole number", bool: "true or false", list: "a list", dict: "a table"}
            raise UserError(f"{self.where(key)} = {value!r} must be {words[kind]}")
        return value

    def end(self) -> None:
        for key in self._values:
            raise UserError(f"{self.where(key)} is not a known key")


def parse_config(text: str, source: str) -> ArrayConfig:
    """A whole configuration file; ``source`` is its name for errors."""
    try:
        top = _Table(source, "", tomllib.loads(text))
    except (ValueError, RecursionError) as error:  # RecursionError: thousands of brackets; ValueError: of digits
        raise UserError(f"{source}: not TOML: {error}") from None
    array = _Table(source, "array", top.take("array", dict, required=True))
    iqn = check_iqn(array.take("iqn", str, DEFAULT_IQN), array.where("iqn"))
    serial = array.take("serial", str, serial_from(iqn))
    if not _SERIAL.fullmatch(serial):
        raise UserError(f"{array.where('serial')} = {serial!r} must be five to twelve digits")
    portals = tuple(
        parse_address(str(text), array.where("portals")) for text in array.take("portals", list, [DEFAULT_PORTAL])
    )
    if not portals:
        raise UserError(f"{array.where('portals')} = [] must name at least one address")
    state_dir = array.take("state_dir", str)
    array.end()
    volumes = _volumes(source, top.take("volumes", list, []))
    remote_copy = _remote_copy(source, top.take("remote_copy", dict), serial)
    pairs = _pairs(source, top.take("pairs", list, []), {volume.name: volume for volume in volumes})
    events = _Table(source, "events", top.take("events", dict, {}))
    broker = events.take("broker", str)
    events.end()
    top.end()
    if broker is not None:
        parse_broker(broker, events.where("broker"))
    config = ArrayConfig(iqn, serial, state_dir, portals, volumes, remote_copy, pairs, broker, source)
    if pairs and remote_copy is None:
        raise UserError(f"{source}: pairs need a [remote_copy] section that says where the other array is")
    return config


def _volumes(source: str, entries: list[Any]) -> tuple[VolumeConfig, ...]:
    if len(entries) > MAX_VOLUMES:
        raise UserError(f"{source}: {len(entries)} volumes, at most {MAX_VOLUMES} are possible")
    volumes: dict[str, VolumeConfig] = {}
    luns: dict[int, str] = {}
    ldevs: dict[int, str] = {}
    files: dict[str | None, str] = {}
    for number, entry in enumerate(entries):
        volume = _volume(_Table(source, f"volumes[{number}]", entry), number)
        for key, value, taken in (
            ("name", volume.name, volumes),
            ("lun", volume.lun, luns),
            ("ldev", volume.ldev, ldevs),
            ("file", volume.file, files),
        ):
            if value is not None and value in taken:
                raise UserError(f"{source}: volumes[{number}].{key} = {value!r} is used twice")
        volumes[volume.name] = volume
        luns[volume.lun] = ldevs[volume.ldev] = files[volume.file] = volume.name
    if not volumes:
        raise UserError(f"{source}: no [[volumes]]: an array serves at least one volume")
    return tuple(volumes.values())


def _volume(table: _Table, number: int) -> VolumeConfig:
    name = _check_name(table.take("name", str, required=True), table.where("name"))
    lun = table.take("lun", int, number)
    if not 0 <= lun <= 16383:
        raise UserError(f"{table.where('lun')} = {lun} must be 0 to 16383")
    ldev = table.take("ldev", int, number + 1)
    if not 1 <= ldev <= 65535:
        raise UserError(f"{table.where('ldev')} = {ldev} must be 1 to 65535")
    block_length = _block_length(table.take("block", int, 512), table.where("block"))
    size = table.take("size", str)
    file = table.take("file", str)
    quorum = table.take("quorum", bool, False)
    table.end()
    if size is None and file is None:
        raise UserError(f"{table.where('size')} is missing (a volume in memory needs one)")
    size_bytes = None if size is None else parse_size(size, table.where("size"))
    if size_bytes is not None:
        _check_whole_blocks(size_bytes, block_length, table.where("size"))
    return VolumeConfig(name, lun, size_bytes, file, block_length, quorum, ldev)


def _remote_copy(source: str, values: dict[str, Any] | None, serial: str) -> RemoteCopyConfig | None:
    if values is None:
        return None
    table = _Table(source, "remote_copy", values)
    listen = parse_address(table.take("listen", str, required=True), table.where("listen"))
    peer = parse_address(table.take("peer", str, required=True), table.where("peer"))
    peer_serial = table.take("peer_serial", str, required=True)
    table.end()
    if not _SERIAL.fullmatch(peer_serial) or peer_serial == serial:
        raise UserError(f"{table.where('peer_serial')} = {peer_serial!r} must be the other array's serial number")
    return RemoteCopyConfig(listen, peer, peer_serial)


def _pairs(source: str, entries: list[Any], volumes: Mapping[str, VolumeConfig]) -> tuple[PairConfig, ...]:
    pairs: dict[str, PairConfig] = {}
    paired: set[str] = set()
    for number, entry in enumerate(entries):
        table = _Table(source, f"pairs[{number}]", entry)
        name = _check_name(table.take("name", str, required=True), table.where("name"))
        group = _check_name(table.take("group", str, name), table.where("group"))
        volume = table.take("volume", str, required=True)
        fence = table.take("fence", str, "never")
        table.end()
        if name in pairs:
            raise UserError(f"{table.where('name')} = {name!r} is used twice")
        if volume not in volumes or volume in paired:
            reason = "is in two pairs" if volume in paired else "is not one of the volumes"
            raise UserError(f"{table.where('volume')} = {volume!r} {reason}")
        if volumes[volume].file is None:
            raise UserError(f"{table.where('volume')} = {volume!r} is in memory: a paired volume needs a file")
        if fence.upper() not in FenceLevel.__members__:
            raise UserError(f"{table.where('fence')} = {fence!r} must be never, data or status")
        paired.add(volume)
        pairs[name] = PairConfig(name, group, volume, FenceLevel[fence.upper()])
    return tuple(pairs.values())
