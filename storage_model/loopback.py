"""Connections inside one machine, as those between a host and its shim are: which they are, and how they should send.

There is no network between the two ends, so there is nothing to estimate and nobody to be fair to. Where the system's
choice of congestion control is one that paces, such as BBR, each 64 KiB on loopback otherwise costs a timer and its
interrupt: a fifth of the CPU time of everybody who takes part in a long transfer, and half the throughput. Where there
is a network, the choice stays the system's.
"""

from ipaddress import ip_address

UNPACED_CONGESTION_CONTROL = b"reno"
"""Of TCP; it does not pace, is in every Linux kernel, and needs no privilege.

To be chosen before the connection is made: a socket that has begun to be paced stays so under any other choice. What a
listening socket accepts has its choice.
"""


def is_loopback(host: str) -> bool:
    """Whether ``host`` is an address, and one that cannot leave this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:  # a name
        return False
