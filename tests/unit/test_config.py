"""Configuration files: good ones are read, each wrong one is told in one line with file, key and value."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage_model.errors import UserError
from storage_model.pair_state import FenceLevel
from storage_model.sizes import parse_size
from target.addresses import parse_address
from target.config import (
    ArrayConfig,
    PairConfig,
    VolumeConfig,
    check_iqn,
    parse_broker,
    parse_config,
    parse_volume_words,
    serial_from,
)
from target.link_config import RemoteCopyConfig

GOOD = """
[array]
iqn = "iqn.2026-11.org.pairvol:site-a"
serial = "30095"
state_dir = "state-a"
portals = ["127.0.0.1:3260", "[::1]:3260"]

[remote_copy]
listen = "127.0.0.1:3262"
peer = "site-b.example:3272"
peer_serial = "30096"

[[volumes]]
name = "quorum"
lun = 0
ldev = 60
size = "16MiB"
file = "quorum.img"
quorum = true

[[volumes]]
name = "data-70"
size = "64MiB"
file = "/srv/data.img"
block = 4096

[[volumes]]
name = "scratch"
lun = 9
size = "1GiB"

[[pairs]]
name = "quorum0"
group = "qgrp"
volume = "quorum"
fence = "data"

[[pairs]]
name = "data0"
volume = "data-70"

[events]
broker = "mqtt://127.0.0.1:1883"
"""


def test_good_file() -> None:
    assert parse_config(GOOD, "site-a.toml") == ArrayConfig(
        iqn="iqn.2026-11.org.pairvol:site-a",
        serial="30095",
        state_dir="state-a",
        portals=(("127.0.0.1", 3260), ("::1", 3260)),
        volumes=(
            VolumeConfig("quorum", 0, 16 << 20, "quorum.img", 512, True, 60),
            VolumeConfig("data-70", 1, 64 << 20, "/srv/data.img", 4096, False, 2),
            VolumeConfig("scratch", 9, 1 << 30, None, 512, False, 3),
        ),
        remote_copy=RemoteCopyConfig(("127.0.0.1", 3262), ("site-b.example", 3272), "30096"),
        pairs=(
            PairConfig("quorum0", "qgrp", "quorum", FenceLevel.DATA),
            PairConfig("data0", "data0", "data-70", FenceLevel.NEVER),
        ),
        broker="mqtt://127.0.0.1:1883",
    )


def test_least_file() -> None:
    config = parse_config('[array]\n[[volumes]]\nname = "v"\nsize = "1MiB"\n', "f")
    assert config.portals == (("127.0.0.1", 3260),)
    assert config.volumes == (VolumeConfig("v", 0, 1 << 20, None, 512, False, 1),)
    assert config.serial == serial_from(config.iqn)
    assert (config.remote_copy, config.pairs, config.broker, config.state_dir) == (None, (), None, None)


@pytest.mark.parametrize("site", ["a", "b"])
def test_sample_files_are_good_and_fit_each_other(site: str) -> None:
    examples = Path(__file__).resolve().parents[2] / "scripts" / "examples"
    mine, other = (
        parse_config((examples / f"site-{name}.toml").read_text(encoding="utf-8"), name)
        for name in (site, "b" if site == "a" else "a")
    )
    assert mine.remote_copy is not None and other.remote_copy is not None
    assert (mine.remote_copy.peer, mine.remote_copy.peer_serial) == (other.remote_copy.listen, other.serial)
    sizes = [{pair.name: volumes[pair.volume].size_bytes for pair in config.pairs} for config, volumes in (
        (config, {volume.name: volume for volume in config.volumes}) for config in (mine, other)
    )]  # fmt: skip
    assert sizes[0] == sizes[1]


WRONG = [
    # what is replaced, by what, the whole line that the user reads
    ('iqn = "iqn.2026-11.org.pairvol:site-a"', 'iqn = "Disk"',
     "f.toml: array.iqn: 'Disk' is not an iSCSI name (iqn.2026-11.org.example:array, lower case)"),
    ('serial = "30095"', 'serial = "3009"', "f.toml: array.serial = '3009' must be five to twelve digits"),
    ('serial = "30095"', "serial = 30095", "f.toml: array.serial = 30095 must be text"),
    ('state_dir = "state-a"', "state_dir = false", "f.toml: array.state_dir = False must be text"),
    ('state_dir = "state-a"', 'statedir = "state-a"', "f.toml: array.statedir is not a known key"),
    ('"[::1]:3260"', '"127.0.0.1"',
     "f.toml: array.portals: '127.0.0.1' is not an address (host:port, as 127.0.0.1:3260 or [::1]:3260)"),
    ('"[::1]:3260"', '"h:65536"',
     "f.toml: array.portals: 'h:65536' is not an address (host:port, as 127.0.0.1:3260 or [::1]:3260)"),
    ('portals = ["127.0.0.1:3260", "[::1]:3260"]', "portals = []",
     "f.toml: array.portals = [] must name at least one address"),
    ('portals = ["127.0.0.1:3260", "[::1]:3260"]', 'portals = "h:1"', "f.toml: array.portals = 'h:1' must be a list"),
    ("[array]", "[arrays]", "f.toml: [array] is missing"),
    ("[remote_copy]", "[remotecopy]", "f.toml: remotecopy is not a known key"),
    ('listen = "127.0.0.1:3262"\n', "", "f.toml: remote_copy.listen is missing"),
    ('peer = "site-b.example:3272"', 'peer = ""',
     "f.toml: remote_copy.peer: '' is not an address (host:port, as 127.0.0.1:3260 or [::1]:3260)"),
    ('peer_serial = "30096"', 'peer_serial = "30095"',
     "f.toml: remote_copy.peer_serial = '30095' must be the other array's serial number"),
    ('name = "quorum"\n', "", "f.toml: volumes[0].name is missing"),
    ('name = "quorum"\n', 'name = "a/b"\n',
     "f.toml: volumes[0].name: 'a/b' is not a name (1 to 31 letters, digits, '_', '-', '.')"),
    ("lun = 0", "lun = true", "f.toml: volumes[0].lun = True must be a whole number"),
    ("lun = 0", "lun = -1", "f.toml: volumes[0].lun = -1 must be 0 to 16383"),
    ("lun = 0", "lun = 16384", "f.toml: volumes[0].lun = 16384 must be 0 to 16383"),
    ("lun = 9", "lun = 1", "f.toml: volumes[2].lun = 1 is used twice"),
    ("ldev = 60", "ldev = 0", "f.toml: volumes[0].ldev = 0 must be 1 to 65535"),
    ("ldev = 60", "ldev = 2", "f.toml: volumes[1].ldev = 2 is used twice"),
    ('name = "scratch"', 'name = "quorum"', "f.toml: volumes[2].name = 'quorum' is used twice"),
    ('file = "/srv/data.img"', 'file = "quorum.img"', "f.toml: volumes[1].file = 'quorum.img' is used twice"),
    ('size = "16MiB"', 'size = "16 MB"',
     "f.toml: volumes[0].size: '16 MB' is not a size (a number and one of B, KiB, MiB, GiB, TiB, PiB)"),
    ('size = "16MiB"', 'size = "0"', "f.toml: volumes[0].size: 0 is out of range (more than 0, at most 1024 PiB)"),
    ('size = "16MiB"', 'size = "513"', "f.toml: volumes[0].size: 513 bytes are not a whole number of 512-byte blocks"),
    ('size = "1GiB"', "", "f.toml: volumes[2].size is missing (a volume in memory needs one)"),
    ("block = 4096", "block = 1024",
     "f.toml: volumes[1].block: a block of 1024 bytes is not supported (512 or 4096)"),
    ("quorum = true", 'quorum = "yes"', "f.toml: volumes[0].quorum = 'yes' must be true or false"),
    ("quorum = true", "qourum = true", "f.toml: volumes[0].qourum is not a known key"),
    ("quorum = true", 'provisioning = "thick"', "f.toml: volumes[0].provisioning = 'thick' must be thin or full"),
    ("quorum = true", "removable = 1", "f.toml: volumes[0].removable = 1 must be true or false"),
    ("quorum = true", 'write_protected = ""', "f.toml: volumes[0].write_protected = '' must be true or false"),
    ("quorum = true", "physical = 1000",
     "f.toml: volumes[0].physical: a physical block of 1000 bytes is not possible (a power of two from 512 to 1048576)"
    ),
    ("quorum = true", "removable = true",
     "f.toml: pairs[0].volume = 'quorum' is removable, which a paired volume cannot be"),
    ("quorum = true", "write_protected = true",
     "f.toml: pairs[0].volume = 'quorum' is write protected, which a paired volume cannot be"),
    ('name = "data0"', 'name = "quorum0"', "f.toml: pairs[1].name = 'quorum0' is used twice"),
    ('group = "qgrp"', 'group = ""',
     "f.toml: pairs[0].group: '' is not a name (1 to 31 letters, digits, '_', '-', '.')"),
    ('volume = "data-70"', 'volume = "other"', "f.toml: pairs[1].volume = 'other' is not one of the volumes"),
    ('volume = "data-70"', 'volume = "quorum"', "f.toml: pairs[1].volume = 'quorum' is in two pairs"),
    ('volume = "data-70"', 'volume = "scratch"',
     "f.toml: pairs[1].volume = 'scratch' is in memory: a paired volume needs a file"),
    ('fence = "data"', 'fence = "always"', "f.toml: pairs[0].fence = 'always' must be never, data or status"),
    ('fence = "data"', "fence = 2", "f.toml: pairs[0].fence = 2 must be text"),
    ("mqtt://127.0.0.1:1883", "http://127.0.0.1:1883",
     "f.toml: events.broker: 'http://127.0.0.1:1883' is not a broker (mqtt://host:port)"),
    ("broker =", "brocker =", "f.toml: events.brocker is not a known key"),
]  # fmt: skip


@pytest.mark.parametrize(("good", "wrong", "line"), WRONG, ids=[wrong or "without " + good for good, wrong, _ in WRONG])
def test_wrong_file(good: str, wrong: str, line: str) -> None:
    assert good in GOOD
    with pytest.raises(UserError) as error:
        parse_config(GOOD.replace(good, wrong, 1), "f.toml")
    assert str(error.value) == line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[array", "f.toml: not TOML: "),
        ("a = " + "[" * 100_000, "f.toml: not TOML: "),
        ("", "f.toml: [array] is missing"),
        ("array = 5", "f.toml: array = 5 must be a table"),
        ("[array]", "f.toml: no [[volumes]]: an array serves at least one volume"),
        ("volumes = [1]\n[array]", "f.toml: [volumes[0]] must be a table"),
        ("[volumes]\n[array]", "f.toml: [volumes] must be written with two brackets, [[volumes]]"),
        ('[array]\n[[volumes]]\nname="v"\nsize="1MiB"\nfile="f"\n[[pairs]]\nname="p"\nvolume="v"',
         "f.toml: pairs need a [remote_copy] section that says where the other array is"),
    ],
)  # fmt: skip
def test_file_of_another_kind(text: str, line: str) -> None:
    with pytest.raises(UserError) as error:
        parse_config(text, "f.toml")
    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)


def test_target_ports_of_an_array_with_pairs_leave_room_for_those_of_the_other() -> None:
    group = '[[portal_groups]]\ntag = {}\nportals = ["h:1"]\n'
    assert parse_config(GOOD + group.format(0x7FFF), "f.toml").portal_groups
    with pytest.raises(UserError, match=r"portal_groups\.tag = 32768 must be below 32768 where pairs are"):
        parse_config(GOOD + group.format(0x8000), "f.toml")


@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda data: data.decode("latin-1")))
def test_any_text_is_a_configuration_or_one_line(text: str) -> None:
    with pytest.raises(UserError) as error:
        parse_config(text, "f.toml")
    assert str(error.value).startswith("f.toml")


@pytest.mark.parametrize(
    ("text", "size"),
    [("512", 512), ("1B", 1), ("4 KiB", 4096), (" 256MiB ", 256 << 20), ("2GiB", 2 << 30), ("1TiB", 1 << 40)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text, "here") == size


@pytest.mark.parametrize("text", ["", "MiB", "-1", "1.5GiB", "1mib", "1MB", "0x10", "٣", "9" * 400, "2048PiB", "0MiB"])
def test_wrong_sizes(text: str) -> None:
    with pytest.raises(UserError, match=r"^here: ") as error:
        parse_size(text, "here")
    assert text in str(error.value)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("[::1]:65535", ("::1", 65535)),
        ("array-b.example:3260", ("array-b.example", 3260)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text, "here") == address


@pytest.mark.parametrize(
    "text", ["", ":", "h", "h:", ":1", "h:-1", "h:65536", "h:1x", "h:٣", "x" * 300 + ":1", "a..b:1"]
)
def test_wrong_addresses(text: str) -> None:
    with pytest.raises(UserError, match=r"^here: "):
        parse_address(text, "here")


def test_brokers() -> None:
    assert parse_broker("mqtt://broker", "here") == ("broker", 1883)
    assert parse_broker("mqtt://127.0.0.1:1884/", "here") == ("127.0.0.1", 1884)
    for wrong in ("", "broker:1883", "mqtts://broker", "mqtt://"):
        with pytest.raises(UserError, match=r"^here: "):
            parse_broker(wrong, "here")


@pytest.mark.parametrize(
    ("words", "volume"),
    [
        ("256MiB", VolumeConfig("volume3", 3, 256 << 20, ldev=4)),
        ("1MiB,file=a b.img,block=4096,name=n,quorum", VolumeConfig("n", 3, 1 << 20, "a b.img", 4096, True, 4)),
        ("1MiB,thin", VolumeConfig("volume3", 3, 1 << 20, ldev=4)),
        ("1MiB,full,removable", VolumeConfig("volume3", 3, 1 << 20, ldev=4, thin=False, removable=True)),
        ("1MiB,physical=128KiB", VolumeConfig("volume3", 3, 1 << 20, ldev=4, physical_block_length=131072)),
        ("file=a.iso,write-protected", VolumeConfig("volume3", 3, None, "a.iso", ldev=4, write_protected=True)),
    ],
)
def test_volume_words(words: str, volume: VolumeConfig) -> None:
    assert parse_volume_words(words, 3) == volume


@pytest.mark.parametrize(
    "words",
    ["", "x", "1MiB,", "1MiB,file", "1MiB,file=", "1MiB,quorum=1", "1MiB,block=1", "1MiB,size=1",
     "1MiB,block=512,block=512", "1MiB,name=a/b", "513"],
)  # fmt: skip
def test_wrong_volume_words(words: str) -> None:
    with pytest.raises(UserError) as error:
        parse_volume_words(words, 0)
    assert str(error.value).startswith(f"--volume {words}: ")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("1MiB,fast", "'fast' is not one of file=PATH, block=512|4096, physical=SIZE, name=NAME,"
         " thin, full, write-protected, removable, encrypted, quorum"),
        ("1MiB,full,full", "full is there twice"),
        ("1MiB,thin,full", "a volume is thin or full, not both"),
        ("block=512", "a volume in memory needs a size"),
        ("1MiB,physical=x", "'x' is not a size (a number and one of B, KiB, MiB, GiB, TiB, PiB)"),
        ("1MiB,physical=1536", "a physical block of 1536 bytes is not possible (a power of two from 512 to 1048576)"),
        ("1MiB,physical=256", "a physical block of 256 bytes is not possible (a power of two from 512 to 1048576)"),
        ("4MiB,physical=2MiB",
         "a physical block of 2097152 bytes is not possible (a power of two from 512 to 1048576)"),
        ("1MiB,block=4096,physical=512",
         "a physical block of 512 bytes is not possible (a power of two from 4096 to 1048576)"),
    ],
)  # fmt: skip
def test_what_wrong_volume_words_are_told(words: str, line: str) -> None:
    with pytest.raises(UserError) as error:
        parse_volume_words(words, 0)
    assert str(error.value) == f"--volume {words}: {line}"


def test_kinds_of_volumes() -> None:
    text = """
[array]
[[volumes]]
name = "image"
file = "a.iso"
write_protected = true
removable = true
[[volumes]]
name = "fast"
size = "1MiB"
provisioning = "full"
physical = 4096
[[volumes]]
name = "usual"
size = "1MiB"
provisioning = "thin"
"""
    assert parse_config(text, "f").volumes == (
        VolumeConfig("image", 0, None, "a.iso", ldev=1, write_protected=True, removable=True),
        VolumeConfig("fast", 1, 1 << 20, ldev=2, thin=False, physical_block_length=4096),
        VolumeConfig("usual", 2, 1 << 20, ldev=3),
    )


@pytest.mark.parametrize(
    "name",
    ["iqn.2026-11.org.pairvol:site-a", "iqn.2026-11.org.pairvol", "eui.02004567A425678D", "naa.52004567BA64678D"],
)
def test_iscsi_names(name: str) -> None:
    assert check_iqn(name, "here") == name


@pytest.mark.parametrize(
    "name",
    ["", "iqn", "iqn.2026-1.org.x", "iqn.2026-11.ORG", "eui.1", "iqn.2026-11.org:a b", "iqn.2026-11.o:" + "x" * 210],
)
def test_wrong_iscsi_names(name: str) -> None:
    with pytest.raises(UserError, match=r"^here: "):
        check_iqn(name, "here")


def test_serial_of_an_array_that_was_given_none() -> None:
    serial = serial_from("iqn.2026-11.org.pairvol:array")
    assert serial == serial_from("iqn.2026-11.org.pairvol:array") and len(serial) == 5
    assert serial != serial_from("iqn.2026-11.org.pairvol:other")


def test_rate_of_copies_of_the_array_and_of_a_pair() -> None:
    text = GOOD.replace('serial = "30095"', 'serial = "30095"\ncopy_rate = "50MiB"', 1)
    text = text.replace('volume = "quorum"', 'volume = "quorum"\ncopy_rate = "1MiB"', 1)
    config = parse_config(text, "f")
    assert config.copy_rate == 50 << 20
    assert [pair.copy_rate for pair in config.pairs] == [1 << 20, None]
    text = text.replace('copy_rate = "1MiB"', 'copy_rate = "unlimited"')
    assert parse_config(text, "f").pairs[0].copy_rate == 0


@pytest.mark.parametrize("rate", ["fast", "63KiB", "0"])
def test_rate_of_copies_that_cannot_be(rate: str) -> None:
    with pytest.raises(UserError, match=r"f: pairs\[0\]\.copy_rate"):
        parse_config(GOOD.replace('volume = "quorum"', f'volume = "quorum"\ncopy_rate = "{rate}"', 1), "f")
