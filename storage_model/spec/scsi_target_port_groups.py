"""REPORT and SET TARGET PORT GROUPS: asymmetric access states and their parameter data (SPC-4 6.37, 6.45)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum

import construct as c


class AccessState(IntEnum):
    """ASYMMETRIC ACCESS STATE (SPC-4 5.15.2.4, tables 311 and 351)."""

    ACTIVE_OPTIMIZED = 0x0
    ACTIVE_NON_OPTIMIZED = 0x1
    STANDBY = 0x2
    UNAVAILABLE = 0x3
    LOGICAL_BLOCK_DEPENDENT = 0x4
    OFFLINE = 0xE
    TRANSITIONING = 0xF

    def __str__(self) -> str:
        return _STATE_NAMES[self]


_STATE_NAMES = {
    AccessState.ACTIVE_OPTIMIZED: "active/optimized",
    AccessState.ACTIVE_NON_OPTIMIZED: "active/non-optimized",
    AccessState.STANDBY: "standby",
    AccessState.UNAVAILABLE: "unavailable",
    AccessState.LOGICAL_BLOCK_DEPENDENT: "logical block dependent",
    AccessState.OFFLINE: "offline",
    AccessState.TRANSITIONING: "transitioning",
}

SETTABLE_STATES = (
    AccessState.ACTIVE_OPTIMIZED,
    AccessState.ACTIVE_NON_OPTIMIZED,
    AccessState.STANDBY,
    AccessState.UNAVAILABLE,
)
"""What a group of ours can be in. A change takes no time, so nothing is ever transitioning."""


def access_state(name: str) -> AccessState | None:
    """The settable state of that name, as configurations write it; None when there is none."""
    return next((state for state in SETTABLE_STATES if str(state) == name), None)


class StatusCode(IntEnum):
    """Why a group is in its state (SPC-4 table 314)."""

    NONE = 0x00
    ALTERED_BY_COMMAND = 0x01
    ALTERED_IMPLICITLY = 0x02


LENGTH_ONLY_HEADER = 0
EXTENDED_HEADER = 1
"""PARAMETER DATA FORMAT (SPC-4 table 307)."""

_SUPPORTED_STATES = 0x0F
"""U_SUP, S_SUP, AN_SUP, AO_SUP; T_SUP, O_SUP and LBD_SUP are 0 (SPC-4 table 310)."""
_PREF = 0x80
_EXTENDED_FORMAT_TYPE = 0x10

_HEADER = c.Struct("return_data_length" / c.Int32ub)
_EXTENSION = c.Struct("format_type" / c.Int8ub, "implicit_transition_time" / c.Int8ub, c.Padding(2))
_GROUP = c.Struct(
    "state" / c.Int8ub,
    "supported_states" / c.Int8ub,
    "group" / c.Int16ub,
    c.Padding(1),
    "status_code" / c.Int8ub,
    c.Padding(1),
    "ports" / c.PrefixedArray(c.Int8ub, c.Struct(c.Padding(2), "relative_target_port" / c.Int16ub)),
)
_SET_DESCRIPTOR = c.Struct("state" / c.Int8ub, c.Padding(1), "group" / c.Int16ub)
SET_HEADER_LENGTH = SET_DESCRIPTOR_LENGTH = 4


@dataclass(frozen=True, slots=True)
class TargetPortGroup:
    """One target port group descriptor (SPC-4 table 310). ``relative_target_ports`` are identifiers, 1 to 65535."""

    group: int
    state: AccessState
    relative_target_ports: tuple[int, ...]
    status: StatusCode = StatusCode.NONE
    preferred: bool = False


def encode_target_port_groups(groups: Iterable[TargetPortGroup], *, extended_header: bool = False) -> bytes:
    """REPORT TARGET PORT GROUPS parameter data, whole (SPC-4 tables 308 and 309)."""
    body = b"".join(
        _GROUP.build(
            {
                "state": group.state | (_PREF if group.preferred else 0),
                "supported_states": _SUPPORTED_STATES,
                "group": group.group,
                "status_code": group.status,
                "ports": [{"relative_target_port": port} for port in group.relative_target_ports],
            }
        )
        for group in groups
    )
    if extended_header:
        # IMPLICIT TRANSITION TIME 0: we name none.
        body = _EXTENSION.build({"format_type": _EXTENDED_FORMAT_TYPE, "implicit_transition_time": 0}) + body
    return bytes(_HEADER.build({"return_data_length": len(body)}) + body)


def decode_target_port_groups(data: bytes, *, extended_header: bool = False) -> list[TargetPortGroup]:
    """The other way round; raises ``ValueError`` for data that is cut short or breaks the format."""
    try:
        length = _HEADER.parse(data).return_data_length
        rest = bytes(data[_HEADER.sizeof() : _HEADER.sizeof() + length])
        if extended_header:
            rest = rest[_EXTENSION.sizeof() :]
        found = c.GreedyRange(_GROUP).parse(rest)
        groups = [
            TargetPortGroup(
                item.group,
                AccessState(item.state & 0x0F),
                tuple(port.relative_target_port for port in item.ports),
                StatusCode(item.status_code),
                bool(item.state & _PREF),
            )
            for item in found
        ]
    except c.ConstructError as error:
        raise ValueError(f"not target port groups: {error}") from None
    whole = sum(8 + 4 * len(group.relative_target_ports) for group in groups) == len(rest)
    if not whole or len(data) < _HEADER.sizeof() + length:
        raise ValueError("target port groups are cut short")
    return groups


def set_target_port_groups(states: Mapping[int, int]) -> bytes:
    """SET TARGET PORT GROUPS parameter list: the state for each group by its number (SPC-4 table 349)."""
    return bytes(SET_HEADER_LENGTH) + b"".join(
        _SET_DESCRIPTOR.build({"state": state, "group": group}) for group, state in states.items()
    )


def decode_set_descriptors(parameter_list: bytes) -> list[tuple[int, int]]:
    """(group, state) of each whole Set target port group descriptor (SPC-4 table 350)."""
    count = max(len(parameter_list) - SET_HEADER_LENGTH, 0) // SET_DESCRIPTOR_LENGTH
    items = [
        _SET_DESCRIPTOR.parse(parameter_list[SET_HEADER_LENGTH + index * SET_DESCRIPTOR_LENGTH :])
        for index in range(count)
    ]
    return [(item.group, item.state & 0x0F) for item in items]
