"""Connections that have not logged in: how many there may be, and which one makes room for the next.

Silent connections cost an attacker nothing. So they are counted apart from those that have logged in, by the address
they come from, and a newer one takes the place of an older one: whoever has the secret can always get in.
"""

from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv6Address, ip_network
from typing import Generic, TypeVar

from target.iscsi.access import peer_address
from target.iscsi.events import Limits

T = TypeVar("T")


@lru_cache(maxsize=1024)  # asked three times for each connection; a name of an address takes 5 µs to read
def address_group(host: str) -> str:
    """What counts as one address: an IPv4 address, or the /64 that an IPv6 host picks its addresses from."""
    address = peer_address(host)
    if isinstance(address, IPv6Address):
        return str(ip_network((int(address), 64), strict=False))
    return str(address or host)


class Admission(Generic[T]):
    """``T`` is a connection. ``silent`` says whether it has told its name yet: those that have not go first."""

    def __init__(self, limits: Limits, silent: Callable[[T], bool]) -> None:
        self._limits = limits
        self._silent = silent
        self._waiting: dict[str, dict[T, None]] = {}  # by address, oldest first
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def enter(self, host: str, connection: T) -> T | None:
        """Takes it in; the connection that must go for it, if one must. That one has left already."""
        group = address_group(host)
        leaving: T | None = None
        if len(self._waiting.get(group, ())) >= self._limits.login_connections_per_address:
            leaving = self._oldest(group)
            self._remove(group, leaving)
        elif self._count >= self._limits.login_connections:
            crowded = max(self._waiting, key=lambda group: len(self._waiting[group]))
            leaving = self._oldest(crowded)
            self._remove(crowded, leaving)
        self._waiting.setdefault(group, {})[connection] = None
        self._count += 1
        return leaving

    def leave(self, host: str, connection: T) -> None:
        """It has logged in, or is gone; a second time does no harm."""
        group = address_group(host)
        if connection in self._waiting.get(group, ()):
            self._remove(group, connection)

    def _oldest(self, group: str) -> T:
        waiting = self._waiting[group]
        return next((connection for connection in waiting if self._silent(connection)), next(iter(waiting)))

    def _remove(self, group: str, connection: T) -> None:
        waiting = self._waiting[group]
        del waiting[connection]
        self._count -= 1
        if not waiting:
            del self._waiting[group]
