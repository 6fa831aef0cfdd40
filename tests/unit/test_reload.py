"""What a configuration may change of an array that runs."""

from dataclasses import replace

import pytest

from storage_model.errors import UserError
from storage_model.pair_state import FenceLevel
from storage_model.spec.scsi_target_port_groups import AccessState
from target.config import ArrayConfig, PairConfig, VolumeConfig
from target.link_config import RemoteCopyConfig
from target.portal_config import PortalGroupConfig
from target.reload import changed_copy_rates, checked_growth, state_changes, volume_changes

A, B, C = (VolumeConfig(name, lun, 1 << 20, f"{name}.img", ldev=lun + 1) for lun, name in enumerate("abc"))
OLD = ArrayConfig(
    iqn="iqn.2026-11.org.example:a",
    serial="30095",
    portals=(("127.0.0.1", 3260),),
    volumes=(A, B),
    remote_copy=RemoteCopyConfig(("127.0.0.1", 1), ("127.0.0.1", 2), "30096"),
    pairs=(PairConfig("p", "p", "b", FenceLevel.DATA),),
    source="f.toml",
    portal_groups=(PortalGroupConfig(2, (("127.0.0.1", 3270),)),),
)


def test_nothing_has_changed() -> None:
    changes = volume_changes(OLD, OLD)
    assert (changes.kept, changes.added, changes.removed) == ((A, B), (), ())


def test_volumes_come_and_go_and_grow() -> None:
    grown = replace(B, size_bytes=B.size_bytes)
    changes = volume_changes(OLD, replace(OLD, volumes=(grown, C)))
    assert (changes.kept, changes.added, changes.removed) == ((grown,), (C,), (A,))
    assert volume_changes(OLD, replace(OLD, volumes=(replace(A, size_bytes=1 << 21), B))).kept[0].size_bytes == 1 << 21


def test_copy_rates_may_change() -> None:
    new = replace(OLD, copy_rate=1 << 20, pairs=(replace(OLD.pairs[0], copy_rate=2 << 20),))
    assert volume_changes(OLD, new).kept == (A, B)
    assert changed_copy_rates(OLD, new) == {"p": 2 << 20}
    assert changed_copy_rates(new, OLD) == {"p": None}
    assert changed_copy_rates(new, new) == {}


def test_a_lun_may_go_to_another_volume() -> None:
    changes = volume_changes(OLD, replace(OLD, volumes=(B, replace(C, lun=A.lun))))
    assert [volume.name for volume in (*changes.added, *changes.removed)] == ["c", "a"]


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"iqn": "iqn.2026-11.org.example:b"}, "array.iqn cannot change"),
        ({"serial": "30099"}, "array.serial cannot change"),
        ({"state_dir": "elsewhere"}, "array.state_dir cannot change"),
        ({"broker": "mqtt://h:1"}, "events.broker cannot change"),
        ({"remote_copy": None}, "[remote_copy] cannot change"),
        ({"pairs": ()}, "[[pairs]] cannot change"),
        ({"portals": (("127.0.0.1", 3261),)}, "the portals of group 1 cannot change"),
        ({"portal_groups": ()}, "the portals of group 2 cannot change"),
        ({"portal_groups": (*OLD.portal_groups, PortalGroupConfig(3, (("h", 1),)))}, "of group 3 cannot change"),
        ({"volumes": (replace(A, block_length=4096), B)}, "block_length of volume a cannot change"),
        ({"volumes": (replace(A, lun=9), B)}, "(lun = 0 and ldev = 1 keep its numbers)"),
        ({"volumes": (replace(A, file="z.img"), B)}, "file of volume a cannot change"),
        ({"volumes": (replace(A, write_protected=True), B)}, "write_protected of volume a cannot change"),
        ({"volumes": (A,), "pairs": ()}, "volume b belongs to pair p: it cannot be removed"),
        ({"volumes": (A, replace(B, size_bytes=1 << 21))}, "volume b belongs to pair p: its size cannot change"),
        ({"volumes": (B, replace(C, file=A.file))}, "volume c has the file of a, which is still served"),
    ],
)
def test_what_cannot_change(changed: dict[str, object], what: str) -> None:
    with pytest.raises(UserError) as caught:
        volume_changes(OLD, replace(OLD, **changed))  # type: ignore[arg-type]
    assert str(caught.value).startswith("f.toml: ") and what in str(caught.value)
    assert "\n" not in str(caught.value)


def test_states_that_the_file_has_changed() -> None:
    """A state that a host has set stays, when the file says what it said before."""
    standby = (replace(OLD.portal_groups[0], access_state=AccessState.STANDBY),)
    assert state_changes(OLD, OLD) == {}
    assert state_changes(OLD, replace(OLD, portal_groups=standby)) == {2: AccessState.STANDBY}
    assert state_changes(replace(OLD, portal_groups=standby), OLD) == {2: AccessState.ACTIVE_OPTIMIZED}


MIB = 1 << 20
SIZELESS = replace(A, size_bytes=None)


@pytest.mark.parametrize(
    ("config", "file_bytes", "size"),
    [
        (A, MIB, MIB),
        (SIZELESS, MIB, MIB),
        (SIZELESS, 2 * MIB, 2 * MIB),
        (replace(A, size_bytes=2 * MIB), MIB, 2 * MIB),
        (replace(A, size_bytes=2 * MIB), 2 * MIB, 2 * MIB),
    ],
)
def test_growth(config: VolumeConfig, file_bytes: int, size: int) -> None:
    assert checked_growth(config, MIB, file_bytes, "f.toml", None) == size


@pytest.mark.parametrize(
    ("config", "file_bytes", "what"),
    [
        (replace(A, size_bytes=MIB // 2), MIB, "volume a has 1048576 bytes, not 524288: a volume cannot shrink"),
        (SIZELESS, MIB // 2, "volume a has 1048576 bytes, not 524288: a volume cannot shrink"),
        (A, 2 * MIB, "volume a shall have 1048576 bytes, but its file has 2097152"),
        (SIZELESS, MIB + 100, "volume a: 1048676 bytes are not a whole number of 512-byte blocks"),
    ],
)
def test_what_is_no_growth(config: VolumeConfig, file_bytes: int, what: str) -> None:
    with pytest.raises(UserError) as caught:
        checked_growth(config, MIB, file_bytes, "f.toml", None)
    assert str(caught.value) == f"f.toml: {what}"


def test_a_paired_volume_whose_file_has_grown() -> None:
    assert checked_growth(SIZELESS, MIB, MIB, "f.toml", "p") == MIB
    with pytest.raises(UserError, match="volume a belongs to pair p"):
        checked_growth(SIZELESS, MIB, 2 * MIB, "f.toml", "p")
