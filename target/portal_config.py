"""The [[portal_groups]] of a configuration, and the portals of a command line."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from storage_model.errors import UserError
from storage_model.spec.scsi_target_port_groups import SETTABLE_STATES, AccessState, access_state
from target.addresses import Address, format_address, parse_address
from target.config_table import ConfigTable

MAX_PORTAL_GROUPS = 64
MAX_PORTALS = 64
"""Of one group."""
FIRST_GROUP = 1
"""Its portals are array.portals."""


@dataclass(frozen=True, slots=True)
class PortalGroupConfig:
    """One portal group: a SCSI target port, and a target port group, of the number ``tag``.

    ``access_state`` is its initial asymmetric access state; ``redirect``, unless empty, the ``host:port`` that its
    logins are sent to.
    """

    tag: int
    portals: tuple[Address, ...] = ()
    access_state: AccessState = AccessState.ACTIVE_OPTIMIZED
    redirect: str = ""


def every_group(portals: Sequence[Address], groups: Iterable[PortalGroupConfig]) -> tuple[PortalGroupConfig, ...]:
    """The groups that have a portal, by tag. ``portals`` are those of group 1; ``groups`` may have its settings."""
    by_tag = {FIRST_GROUP: PortalGroupConfig(FIRST_GROUP)} | {group.tag: group for group in groups}
    by_tag[FIRST_GROUP] = replace(by_tag[FIRST_GROUP], portals=tuple(portals))
    return tuple(group for _, group in sorted(by_tag.items()) if group.portals)


def parse_portal_groups(source: str, entries: list[Any], portals: Sequence[Address]) -> tuple[PortalGroupConfig, ...]:
    """The sections of a file; ``portals`` are those of group 1, which none of these may use again."""
    if len(entries) > MAX_PORTAL_GROUPS:
        raise UserError(f"{source}: {len(entries)} portal_groups, at most {MAX_PORTAL_GROUPS} are possible")
    groups: dict[int, PortalGroupConfig] = {}
    taken = {address: FIRST_GROUP for address in portals if address[1]}
    for number, entry in enumerate(entries):
        table = ConfigTable(source, f"portal_groups[{number}]", entry)
        group = _portal_group(table)
        if group.tag in groups:
            raise UserError(f"{table.where('tag')} = {group.tag} is used twice")
        for address in group.portals:
            if address in taken:
                where, text = table.where("portals"), format_address(address)
                raise UserError(f"{where}: {text!r} belongs to portal group {taken[address]} already")
            if address[1]:
                taken[address] = group.tag
        own = portals if group.tag == FIRST_GROUP else group.portals
        if group.redirect in map(format_address, own):
            raise UserError(f"{table.where('redirect')} = {group.redirect!r} is a portal of the group itself")
        groups[group.tag] = group
    return tuple(groups.values())


def _portal_group(table: ConfigTable) -> PortalGroupConfig:
    tag = table.take("tag", int, required=True)
    if not 1 <= tag <= 0xFFFF:
        raise UserError(f"{table.where('tag')} = {tag} must be 1 to 65535")
    where = table.where("portals")
    portals = tuple(parse_address(str(text), where) for text in table.take("portals", list, []))
    if tag == FIRST_GROUP and portals:
        raise UserError(f"{where}: the portals of group {FIRST_GROUP} are array.portals")
    if tag != FIRST_GROUP and not 1 <= len(portals) <= MAX_PORTALS:
        raise UserError(f"{where} must name 1 to {MAX_PORTALS} addresses")
    name = table.take("alua", str, str(AccessState.ACTIVE_OPTIMIZED))
    state = access_state(name)
    if state is None:
        possible = ", ".join(map(str, SETTABLE_STATES))
        raise UserError(f"{table.where('alua')} = {name!r} must be one of {possible}")
    redirect = table.take("redirect", str, "")
    if redirect:
        address = parse_address(redirect, table.where("redirect"))
        if not address[1]:
            raise UserError(f"{table.where('redirect')} = {redirect!r}: nobody can log in to port 0")
        redirect = format_address(address)
    table.end()
    return PortalGroupConfig(tag, portals, state, redirect)


def parse_portal_word(text: str) -> tuple[Address, int]:
    """``HOST:PORT[,TAG]`` of the command line; without a tag, group 1."""
    where = f"--portal {text}"
    address, comma, tag = text.partition(",")
    if comma and not (re.fullmatch("[0-9]{1,5}", tag) and 1 <= int(tag) <= 0xFFFF):
        raise UserError(f"{where}: {tag!r} is not a portal group tag (1 to 65535)")
    return parse_address(address, "--portal"), int(tag) if comma else FIRST_GROUP


def replace_portals(
    portals: tuple[Address, ...], groups: tuple[PortalGroupConfig, ...], words: Iterable[tuple[Address, int]]
) -> tuple[tuple[Address, ...], tuple[PortalGroupConfig, ...]]:
    """Portals of group 1 and further groups, where ``words`` replace all the portals of the groups that they name."""
    named: dict[int, tuple[Address, ...]] = {}
    for address, tag in words:
        named[tag] = (*named.get(tag, ()), address)
    portals = named.pop(FIRST_GROUP, portals)
    by_tag = {group.tag: group for group in groups}
    for tag, addresses in named.items():
        by_tag[tag] = replace(by_tag.get(tag, PortalGroupConfig(tag)), portals=addresses)
    if len(by_tag) > MAX_PORTAL_GROUPS or any(len(addresses) > MAX_PORTALS for addresses in named.values()):
        raise UserError(f"--portal: at most {MAX_PORTAL_GROUPS} groups of {MAX_PORTALS} portals are possible")
    return portals, tuple(by_tag.values())
