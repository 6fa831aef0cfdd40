"""What an array is told to be: TOML or command-line words to frozen dataclasses.

Every error is one line that names the file, the key and the value.
"""

import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any

from storage_model.errors import UserError
from storage_model.group_register import MAX_GROUP_PAIRS
from storage_model.pair_reservation import SECOND_ARRAY
from storage_model.pair_state import FenceLevel
from storage_model.sizes import parse_copy_rate, parse_size
from target.access_config import AccessConfig, check_luns, parse_access
from target.addresses import Address, parse_address
from target.config_table import ConfigTable as _Table
from target.link_config import SERIAL, RemoteCopyConfig, parse_remote_copy
from target.portal_config import PortalGroupConfig, parse_portal_groups

DEFAULT_IQN = "iqn.2026-11.org.pairvol:array"
DEFAULT_PORTAL = "127.0.0.1:3260"
MAX_VOLUMES = 4096
DEFAULT_BACKGROUND_RATE = 128 << 20
MINIMUM_BACKGROUND_RATE = 1 << 20
MAX_PHYSICAL_BLOCK_BYTES = 1 << 20
_IQN = re.compile(r"iqn\.\d{4}-\d{2}\.[a-z0-9.-]+(:[A-Za-z0-9.:_-]+)?|eui\.[0-9A-Fa-f]{16}|naa\.[0-9A-Fa-f]{16,32}")
# A pair's name is also a file name, part of an MQTT topic and a column of pairctl. CCI's names have 31 characters, too.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,30}")


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
    thin: bool = True
    """False: fully provisioned; all of its space is taken when it is made."""
    write_protected: bool = False
    removable: bool = False
    physical_block_length: int | None = None
    """What hosts are told to align to, bytes; None: the block length."""
    encrypted: bool = False
    """The medium holds it encrypted, under a key beside it that SANITIZE can replace."""


@dataclass(frozen=True, slots=True)
class PairConfig:
    """A pair that this array has one half of."""

    name: str
    group: str
    volume: str
    fence: FenceLevel
    copy_rate: int | None = None
    """Bytes per second at which it is copied; None: its part of the array's. 0: as fast as it goes."""


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
    access: tuple[AccessConfig, ...] = ()
    """Who may log in, and to what; the first rule that fits holds. Empty: everybody, to everything."""
    portal_groups: tuple[PortalGroupConfig, ...] = ()
    """Further ones, and settings of group 1, whose portals ``portals`` are (see ``portal_config.every_group``)."""
    background_rate: int = DEFAULT_BACKGROUND_RATE
    """Bytes per second that SANITIZE and FORMAT UNIT write, of all volumes together."""
    copy_rate: int = 0
    """Bytes per second of the initial copies and resyncs that this array drives, together; 0: as fast as they go."""


def parse_background_rate(text: str, where: str) -> int:
    """Bytes per second. Below the minimum an operation would not come to an end, and its progress look like none."""
    rate = parse_size(text, where)
    if rate < MINIMUM_BACKGROUND_RATE:
        raise UserError(f"{where}: {text} a second is too slow (at least 1MiB)")
    return rate


def parse_broker(text: str, where: str) -> Address:
    """``mqtt://host[:port]``."""
    match = re.fullmatch(r"mqtt://(.+?)/?", text)
    if match is None:
        raise UserError(f"{where}: {text!r} is not a broker (mqtt://host:port)")
    return parse_address(match[1] if match[1].rpartition(":")[2].isdecimal() else match[1] + ":1883", where)


_VALUE_WORDS = ("file", "block", "physical", "name")
_FLAG_WORDS = ("thin", "full", "write-protected", "removable", "encrypted", "quorum")


def parse_volume_words(text: str, lun: int) -> VolumeConfig:
    """``--volume 64MiB,file=PATH,block=4096,full``; without ``file`` in memory; a file that is there needs no size."""
    where = f"--volume {text}"
    words = text.split(",")
    size = words.pop(0) if words[0].partition("=")[0] not in _VALUE_WORDS else None
    options: dict[str, str] = {}
    for word in words:
        key, _, value = word.partition("=")
        if key not in _VALUE_WORDS + _FLAG_WORDS or bool(value) == (key in _FLAG_WORDS):
            known = f"file=PATH, block=512|4096, physical=SIZE, name=NAME, {', '.join(_FLAG_WORDS)}"
            raise UserError(f"{where}: {word!r} is not one of {known}")
        if key in options:
            raise UserError(f"{where}: {key} is there twice")
        options[key] = value
    if "thin" in options and "full" in options:
        raise UserError(f"{where}: a volume is thin or full, not both")
    if size is None and "file" not in options:
        raise UserError(f"{where}: a volume in memory needs a size")
    block_length = _block_length(options.get("block", "512"), where)
    size_bytes = None if size is None else parse_size(size, where)
    if size_bytes is not None:
        _check_whole_blocks(size_bytes, block_length, where)
    physical = parse_size(options["physical"], where) if "physical" in options else None
    return VolumeConfig(
        name=_check_name(options.get("name", f"volume{lun}"), where),
        lun=lun,
        size_bytes=size_bytes,
        file=options.get("file"),
        block_length=block_length,
        quorum="quorum" in options,
        ldev=lun + 1,
        thin="full" not in options,
        write_protected="write-protected" in options,
        removable="removable" in options,
        encrypted="encrypted" in options,
        physical_block_length=_physical_block_length(physical, block_length, where),
    )


def _block_length(value: object, where: str) -> int:
    if str(value) not in ("512", "4096"):
        raise UserError(f"{where}: a block of {value!r} bytes is not supported (512 or 4096)")
    return int(str(value))


def _physical_block_length(length: int | None, block_length: int, where: str) -> int | None:
    """READ CAPACITY(16) tells it as a power of two of logical blocks (SBC-3 5.16.2)."""
    if length is not None and (length & (length - 1) or not block_length <= length <= MAX_PHYSICAL_BLOCK_BYTES):
        possible = f"a power of two from {block_length} to {MAX_PHYSICAL_BLOCK_BYTES}"
        raise UserError(f"{where}: a physical block of {length} bytes is not possible ({possible})")
    return length


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


def parse_config(text: str, source: str) -> ArrayConfig:
    """A whole configuration file; ``source`` is its name for errors."""
    try:
        top = _Table(source, "", tomllib.loads(text))
    except (ValueError, RecursionError) as error:  # RecursionError: thousands of brackets; ValueError: of digits
        raise UserError(f"{source}: not TOML: {error}") from None
    config = _array(_Table(source, "array", top.take("array", dict, required=True)), source)
    volumes = _volumes(source, top.take("volumes", list, []))
    remote_copy = None
    if (link := top.take("remote_copy", dict)) is not None:
        remote_copy = parse_remote_copy(source, link, config.serial)
    pairs = _pairs(source, top.take("pairs", list, []), {volume.name: volume for volume in volumes})
    broker = _broker(_Table(source, "events", top.take("events", dict, {})))
    access = parse_access(source, top.take("access", list, []))
    check_luns(access, {volume.lun for volume in volumes})
    groups = parse_portal_groups(source, top.take("portal_groups", list, []), config.portals)
    top.end()
    if pairs and remote_copy is None:
        raise UserError(f"{source}: pairs need a [remote_copy] section that says where the other array is")
    highest = max((group.tag for group in groups), default=0)
    if pairs and highest >= SECOND_ARRAY:
        raise UserError(
            f"{source}: portal_groups.tag = {highest} must be below {SECOND_ARRAY} where pairs are: in the table of a"
            " pair's persistent reservations the numbers above are those of the other array"
        )
    return replace(
        config,
        volumes=volumes,
        remote_copy=remote_copy,
        pairs=pairs,
        broker=broker,
        access=access,
        portal_groups=groups,
    )


def _array(array: _Table, source: str) -> ArrayConfig:
    """What the [array] section says."""
    iqn = check_iqn(array.take("iqn", str, DEFAULT_IQN), array.where("iqn"))
    serial = array.take("serial", str, serial_from(iqn))
    if not SERIAL.fullmatch(serial):
        raise UserError(f"{array.where('serial')} = {serial!r} must be five to twelve digits")
    portals = tuple(
        parse_address(str(text), array.where("portals")) for text in array.take("portals", list, [DEFAULT_PORTAL])
    )
    if not portals:
        raise UserError(f"{array.where('portals')} = [] must name at least one address")
    state_dir = array.take("state_dir", str)
    rate = array.take("background_rate", str)
    background_rate = DEFAULT_BACKGROUND_RATE
    if rate is not None:
        background_rate = parse_background_rate(rate, array.where("background_rate"))
    copy_rate = parse_copy_rate(array.take("copy_rate", str, "unlimited"), array.where("copy_rate"))
    array.end()
    return ArrayConfig(
        iqn, serial, state_dir, portals, source=source, background_rate=background_rate, copy_rate=copy_rate
    )


def _broker(events: _Table) -> str | None:
    broker: str | None = events.take("broker", str)
    events.end()
    if broker is not None:
        parse_broker(broker, events.where("broker"))
    return broker


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
    provisioning = table.take("provisioning", str, "thin")
    if provisioning not in ("thin", "full"):
        raise UserError(f"{table.where('provisioning')} = {provisioning!r} must be thin or full")
    write_protected = table.take("write_protected", bool, False)
    removable = table.take("removable", bool, False)
    encrypted = table.take("encrypted", bool, False)
    physical = _physical_block_length(table.take("physical", int), block_length, table.where("physical"))
    table.end()
    if size is None and file is None:
        raise UserError(f"{table.where('size')} is missing (a volume in memory needs one)")
    size_bytes = None if size is None else parse_size(size, table.where("size"))
    if size_bytes is not None:
        _check_whole_blocks(size_bytes, block_length, table.where("size"))
    return VolumeConfig(
        name=name,
        lun=lun,
        size_bytes=size_bytes,
        file=file,
        block_length=block_length,
        quorum=quorum,
        ldev=ldev,
        thin=provisioning == "thin",
        write_protected=write_protected,
        removable=removable,
        encrypted=encrypted,
        physical_block_length=physical,
    )


def _pairs(source: str, entries: list[Any], volumes: Mapping[str, VolumeConfig]) -> tuple[PairConfig, ...]:
    pairs: dict[str, PairConfig] = {}
    paired: set[str] = set()
    members = Counter[str]()
    for number, entry in enumerate(entries):
        table = _Table(source, f"pairs[{number}]", entry)
        name = _check_name(table.take("name", str, required=True), table.where("name"))
        group = _check_name(table.take("group", str, name), table.where("group"))
        volume = table.take("volume", str, required=True)
        fence = table.take("fence", str, "never")
        rate = table.take("copy_rate", str)
        copy_rate = None if rate is None else parse_copy_rate(rate, table.where("copy_rate"))
        table.end()
        if name in pairs:
            raise UserError(f"{table.where('name')} = {name!r} is used twice")
        if volume not in volumes or volume in paired:
            reason = "is in two pairs" if volume in paired else "is not one of the volumes"
            raise UserError(f"{table.where('volume')} = {volume!r} {reason}")
        if volumes[volume].file is None:
            raise UserError(f"{table.where('volume')} = {volume!r} is in memory: a paired volume needs a file")
        if volumes[volume].write_protected or volumes[volume].removable:
            # A copy is written by the other array, and its medium cannot be taken out at one site only.
            kind = "write protected" if volumes[volume].write_protected else "removable"
            raise UserError(f"{table.where('volume')} = {volume!r} is {kind}, which a paired volume cannot be")
        if volumes[volume].encrypted:
            raise UserError(f"{table.where('volume')} = {volume!r} is encrypted: a paired volume is not")
        if fence.upper() not in FenceLevel.__members__:
            raise UserError(f"{table.where('fence')} = {fence!r} must be never, data or status")
        paired.add(volume)
        pairs[name] = PairConfig(name, group, volume, FenceLevel[fence.upper()], copy_rate)
        members[group] += 1
        if members[group] > MAX_GROUP_PAIRS:
            raise UserError(f"{table.where('group')} = {group!r} has more than {MAX_GROUP_PAIRS} pairs")
    return tuple(pairs.values())


def consistency_groups(pairs: Iterable[PairConfig]) -> frozenset[str]:
    """The groups of several pairs, which are decided as one."""
    return frozenset(group for group, count in Counter(pair.group for pair in pairs).items() if count > 1)
