"""The portal groups of one target node, and the addresses that SendTargets tells of them (RFC 7143 §4.1, App. C)."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import ip_address


@dataclass(slots=True)
class PortalGroup:
    """One portal group: one SCSI target port, whose relative identifier is the tag.

    ``addresses``: ``host:port`` as bound, possibly of any local address. ``redirect``: ``host:port`` of another target
    where this group's logins are sent; empty: they are served here.
    """

    tag: int
    addresses: list[str] = field(default_factory=list)
    redirect: str = ""


def target_addresses(groups: Iterable[PortalGroup], reached_tag: int, reached: str) -> tuple[tuple[str, int], ...]:
    """(address, tag) of every portal, none twice: the one that was reached, the rest of its group, the other groups.

    A group whose logins are sent elsewhere is told by that address, so that an initiator need not be sent. ``reached``
    is the local end of the connection that asks: a portal on any address is told as that host, which can be dialled.
    """
    found: dict[str, int] = {}
    for group in sorted(groups, key=lambda group: (group.tag != reached_tag, group.tag)):
        addresses = [reached] if group.tag == reached_tag else []
        addresses += [known for address in group.addresses if (known := _resolved(address, reached)) is not None]
        for address in [group.redirect] if group.redirect else addresses:
            found.setdefault(address, group.tag)
    return tuple(found.items())


@lru_cache(maxsize=1024)  # the same for every connection that reaches the same portal
def _resolved(address: str, reached: str) -> str | None:
    """The address, with a host that can be dialled from where ``reached`` was; None when there is none."""
    host, _, port = address.rpartition(":")
    bare, reached_host = host.strip("[]"), reached.rpartition(":")[0]
    try:
        if not ip_address(bare).is_unspecified:
            return address
        same_family = ip_address(bare).version == ip_address(reached_host.strip("[]").partition("%")[0]).version
    except ValueError:  # a name
        return address
    return f"{reached_host}:{port}" if same_family else None
