"""The codecs of REPORT and SET TARGET PORT GROUPS."""

import pytest

from storage_model.spec.scsi_target_port_groups import (
    AccessState,
    StatusCode,
    TargetPortGroup,
    access_state,
    decode_set_descriptors,
    decode_target_port_groups,
    encode_target_port_groups,
    set_target_port_groups,
)

GROUPS = [
    TargetPortGroup(1, AccessState.ACTIVE_OPTIMIZED, (1, 2), StatusCode.ALTERED_BY_COMMAND, preferred=True),
    TargetPortGroup(0xFFFF, AccessState.UNAVAILABLE, ()),
]


@pytest.mark.parametrize("extended", [False, True])
def test_groups_survive(extended: bool) -> None:
    data = encode_target_port_groups(GROUPS, extended_header=extended)
    assert int.from_bytes(data[:4]) == len(data) - 4
    assert decode_target_port_groups(data, extended_header=extended) == GROUPS


@pytest.mark.parametrize("length", [0, 3, 4, 5, 11, 19, 20, 27])
def test_what_is_cut_short_is_no_list(length: int) -> None:
    with pytest.raises(ValueError, match="target port groups"):
        decode_target_port_groups(encode_target_port_groups(GROUPS)[:length])


def test_set_descriptors_survive() -> None:
    states = {1: AccessState.STANDBY, 0x1234: AccessState.ACTIVE_NON_OPTIMIZED}
    assert set_target_port_groups(states) == bytes.fromhex("00000000 02 00 0001 01 00 1234")
    assert dict(decode_set_descriptors(set_target_port_groups(states))) == states
    assert decode_set_descriptors(b"") == decode_set_descriptors(bytes(7)) == []


def test_names() -> None:
    assert access_state("active/non-optimized") is AccessState.ACTIVE_NON_OPTIMIZED
    assert access_state("transitioning") is None and access_state("offline") is None
