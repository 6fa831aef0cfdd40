"""Sockets of connections inside one machine, sent without congestion control (see ``storage_model.loopback``). [IO]"""

import asyncio
import socket
from asyncio.trsock import TransportSocket
from contextlib import suppress

from storage_model.loopback import UNPACED_CONGESTION_CONTROL, is_loopback


def send_unpaced(sock: socket.socket | TransportSocket) -> None:
    """Before it connects, or listens: what it accepts has the same choice."""
    with suppress(OSError):  # it only costs CPU time
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, UNPACED_CONGESTION_CONTROL)


def accept_unpaced(server: asyncio.Server) -> None:
    """Those of its sockets that listen at a loopback address; ``server`` does not serve yet."""
    for sock in server.sockets:
        if is_loopback(sock.getsockname()[0]):
            send_unpaced(sock)
