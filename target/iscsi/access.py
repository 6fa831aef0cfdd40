"""Who may log in, from where, with which secret, and what it sees then.

The first rule whose initiator pattern AND address both match decides; without a match there is no access, and without
any rule everybody has it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from storage_model.nexus import normalised_name
from target.iscsi.chap import Challenges, ChapAccount, RandomBytes
from target.scsi.lun_mask import LunMask

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class AccessRule:
    """``initiator`` is an iSCSI name or a shell pattern; ``addresses`` empty: any; ``mask`` None: every LUN."""

    initiator: str = "*"
    addresses: tuple[Network, ...] = ()
    mask: LunMask | None = None
    chap: ChapAccount | None = None
    mutual: ChapAccount | None = None

    def matches(self, name: str, address: IPv4Address | IPv6Address | None) -> bool:
        if self.addresses and not any(address is not None and address in network for network in self.addresses):
            return False
        return fnmatchcase(normalised_name(name), normalised_name(self.initiator))


EVERYBODY = AccessRule()


def peer_address(host: str) -> IPv4Address | IPv6Address | None:
    """The address of a socket's peer; an IPv4 one that came in through an IPv6 socket is what it was (RFC 4291 §2.5.5).

    None for what is no address, which no rule with addresses matches.
    """
    try:
        address = ip_address(host)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


class AccessControl:
    """The rules of a target, which may be replaced while it serves, and its CHAP challenges.

    ``random_bytes`` is the OS's random source; needed where a rule wants CHAP.
    """

    def __init__(self, rules: Sequence[AccessRule] = (), random_bytes: RandomBytes | None = None) -> None:
        self.rules = tuple(rules)
        self.challenges = Challenges(random_bytes or _no_random_source)

    def rule_for(self, name: str, host: str) -> AccessRule | None:
        """What holds for an initiator of that name at that address; None: it may not log in."""
        if not self.rules:
            return EVERYBODY
        address = peer_address(host)
        return next((rule for rule in self.rules if rule.matches(name, address)), None)


def _no_random_source(length: int) -> bytes:
    raise AssertionError("CHAP without a random source")
