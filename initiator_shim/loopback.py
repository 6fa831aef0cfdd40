"""Sockets of connections inside one machine, sent without congestion control (see ``storage_model.loopback``). [IO]"""

import asyncio
import socket
from asyncio.trsock import TransportSocket
from contextlib import suppress
from ipaddress import ip_address

from storage_model.loopback import UNPACED_CONGESTION_CONTROL


def send_unpaced(sock: socket.socket | TransportSocket) -> None:
    """Also whatever a listening ``sock`` accepts from now on."""
    with suppress(OSError):  # it only costs CPU time
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, UNPACED_CONGESTION_CONTROL)


async def connected_unpaced(host: str, port: int) -> socket.socket:
    """``host`` is an address, as :func:`is_loopback` wants it. Raises OSError."""
    family = socket.AF_INET6 if ip_address(host).version == 6 else socket.AF_INET
    # The protocol is named, since asyncio sets TCP_NODELAY only on what says that it is TCP.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setblocking(False)
        send_unpaced(sock)
        await asyncio.get_running_loop().sock_connect(sock, (host, port))
    except BaseException:
        sock.close()
        raise
    return sock
