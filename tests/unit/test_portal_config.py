"""[[portal_groups]] and --portal: what is understood, and the one line for what is not."""

from pathlib import Path

import pytest

from storage_model.errors import UserError
from storage_model.spec.scsi_target_port_groups import AccessState
from target.__main__ import configuration
from target.config import parse_config
from target.portal_config import PortalGroupConfig, every_group

HEAD = '[array]\nportals = ["127.0.0.1:3260"]\n[[volumes]]\nname = "v"\nsize = "1MiB"\n'
GOOD = (
    HEAD
    + """
[[portal_groups]]
tag = 7
portals = ["127.0.0.1:3270", "[::1]:3270"]
alua = "standby"
redirect = "[2001:db8::1]:3260"

[[portal_groups]]
tag = 1
alua = "active/non-optimized"
"""
)


def groups_of(text: str) -> tuple[PortalGroupConfig, ...]:
    config = parse_config(text, "f.toml")
    return every_group(config.portals, config.portal_groups)


def test_good_groups() -> None:
    assert groups_of(GOOD) == (
        PortalGroupConfig(1, (("127.0.0.1", 3260),), AccessState.ACTIVE_NON_OPTIMIZED),
        PortalGroupConfig(
            7, (("127.0.0.1", 3270), ("::1", 3270)), AccessState.STANDBY, "[2001:db8::1]:3260"
        ),
    )  # fmt: skip


def test_without_groups_there_is_group_1() -> None:
    assert groups_of(HEAD) == (PortalGroupConfig(1, (("127.0.0.1", 3260),)),)


def test_port_0_is_never_the_same_port() -> None:
    text = HEAD.replace("3260", "0") + '[[portal_groups]]\ntag = 2\nportals = ["127.0.0.1:0", "127.0.0.1:0"]\n'
    assert len(groups_of(text)[1].portals) == 2


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("tag = 7", "tag = 0", "f.toml: portal_groups[0].tag = 0 must be 1 to 65535"),
        ("tag = 7", "tag = 65536", "f.toml: portal_groups[0].tag = 65536 must be 1 to 65535"),
        ("tag = 7\n", "", "f.toml: portal_groups[0].tag is missing"),
        ("tag = 1\n", "tag = 7\nportals = ['h:1']\n", "f.toml: portal_groups[1].tag = 7 is used twice"),
        ("tag = 1\n", "tag = 1\nportals = ['h:1']\n",
         "f.toml: portal_groups[1].portals: the portals of group 1 are array.portals"),
        ("tag = 1\n", "tag = 2\n", "f.toml: portal_groups[1].portals must name 1 to 64 addresses"),
        ('"127.0.0.1:3270"', '"127.0.0.1:3260"',
         "f.toml: portal_groups[0].portals: '127.0.0.1:3260' belongs to portal group 1 already"),
        ('"127.0.0.1:3270"', '"127.0.0.1"', "f.toml: portal_groups[0].portals: '127.0.0.1' is not an address"
         " (host:port, as 127.0.0.1:3260 or [::1]:3260)"),
        ('"standby"', '"offline"', "f.toml: portal_groups[0].alua = 'offline' must be one of active/optimized,"
         " active/non-optimized, standby, unavailable"),
        ('"standby"', "2", "f.toml: portal_groups[0].alua = 2 must be text"),
        ('"[2001:db8::1]:3260"', '"h:0"', "f.toml: portal_groups[0].redirect = 'h:0': nobody can log in to port 0"),
        ('"[2001:db8::1]:3260"', '"[::1]:3270"',
         "f.toml: portal_groups[0].redirect = '[::1]:3270' is a portal of the group itself"),
        ('alua = "active/non-optimized"', 'redirect = "127.0.0.1:3260"',
         "f.toml: portal_groups[1].redirect = '127.0.0.1:3260' is a portal of the group itself"),
        ('alua = "standby"', 'aula = "standby"', "f.toml: portal_groups[0].aula is not a known key"),
    ],
)  # fmt: skip
def test_wrong_groups(old: str, new: str, message: str) -> None:
    assert GOOD.count(old) == 1
    with pytest.raises(UserError) as caught:
        parse_config(GOOD.replace(old, new), "f.toml")
    assert str(caught.value) == message


def test_too_many_groups() -> None:
    sections = "".join(f'[[portal_groups]]\ntag = {tag}\nportals = ["h:{tag}"]\n' for tag in range(2, 68))
    with pytest.raises(UserError, match=r"f\.toml: 66 portal_groups, at most 64 are possible"):
        parse_config(HEAD + sections, "f.toml")


def words(*portals: str) -> dict[int, tuple[tuple[str, int], ...]]:
    arguments = [word for portal in portals for word in ("--portal", portal)]
    config, _ = configuration(["--volume", "1MiB", *arguments])
    return {group.tag: group.portals for group in every_group(config.portals, config.portal_groups)}


def test_portals_on_the_command_line() -> None:
    assert words() == {1: (("127.0.0.1", 3260),)}
    assert words("127.0.0.1:1", "[::1]:2,1", "127.0.0.1:3,5") == {
        1: (("127.0.0.1", 1), ("::1", 2)),
        5: (("127.0.0.1", 3),),
    }
    assert words("127.0.0.1:3,5") == {5: (("127.0.0.1", 3),)}  # nothing listens that nobody asked for


@pytest.mark.parametrize("tag", ["", "0", "65536", "x", "1,2", "-1"])
def test_wrong_tags_on_the_command_line(tag: str) -> None:
    with pytest.raises(UserError, match="is not a portal group tag"):
        words(f"127.0.0.1:1,{tag}")


def test_the_command_line_replaces_the_portals_of_the_groups_it_names(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text(GOOD)
    config, _ = configuration(["--config", str(file), "--portal", "127.0.0.1:9,7"])
    one, seven = every_group(config.portals, config.portal_groups)
    assert one.portals == (("127.0.0.1", 3260),)
    assert (seven.portals, seven.access_state) == ((("127.0.0.1", 9),), AccessState.STANDBY)


def test_the_sample_file_is_good() -> None:
    sample = Path(__file__).resolve().parents[2] / "scripts" / "examples" / "two-ports.toml"
    config = parse_config(sample.read_text(encoding="utf-8"), "two-ports.toml")
    states = {group.tag: group.access_state for group in every_group(config.portals, config.portal_groups)}
    assert states == {1: AccessState.ACTIVE_OPTIMIZED, 2: AccessState.ACTIVE_NON_OPTIMIZED}
