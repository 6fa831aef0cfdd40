"""``host:port`` as users write it."""

import re

from storage_model.errors import UserError

Address = tuple[str, int]


def parse_address(text: str, where: str) -> Address:
    """``host:port`` or ``[ipv6]:port``; port 0 lets the system choose. ``where`` names the place in an error."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not _is_host(host) or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:
        raise UserError(f"{where}: {text!r} is not an address (host:port, as 127.0.0.1:3260 or [::1]:3260)")
    return host, int(port)


def format_address(address: Address) -> str:
    """``host:port``, IPv6 in brackets (RFC 7143 §13.8)."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_host(text: str) -> bool:
    """True if the resolver can be asked for it: it wants labels of 1 to 63 characters (RFC 1034 §3.1)."""
    try:
        return bool(text.encode("idna")) and "\0" not in text
    except UnicodeError:
        return False
