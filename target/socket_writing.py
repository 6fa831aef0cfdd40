"""Buffers and ranges of files into a socket, uncopied; what it does not take is handed back. [IO]"""

import os
import socket
from asyncio.trsock import TransportSocket
from collections.abc import Sequence
from typing import cast

from storage_model.volume import Buffer, FileRange
from target.sendable import Sendable, part_of

_WRITEV_BUFFERS = 1024  # IOV_MAX


class FileRangeLost(Exception):
    """A volume's file has less than it had a moment ago: its data is announced, and cannot be sent."""


def send_now(sock: TransportSocket, descriptor: int, buffers: list[Sendable]) -> list[Buffer]:
    """What the socket, whose descriptor is given as well, did not take, with ranges read. Raises FileRangeLost."""
    try:
        sent = os.writev(descriptor, cast(list[Buffer], buffers[:_WRITEV_BUFFERS]))
    except TypeError:  # there is a range among them: it is cheaper to learn it so than to look at each
        return _send_with_ranges(sock, descriptor, buffers)
    except OSError:  # full, or gone: the transport finds out
        sent = 0
    return [] if sent == sum(map(len, buffers)) else read_ranges(_after(buffers, sent))


def _send_with_ranges(sock: TransportSocket, descriptor: int, buffers: list[Sendable]) -> list[Buffer]:
    """Corked, so that a PDU's header does not leave in a packet of its own, for which the peer would wake up."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    try:
        return read_ranges(_send_in_turn(descriptor, buffers))
    finally:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)


def _send_in_turn(descriptor: int, buffers: list[Sendable]) -> Sequence[Sendable]:
    index, count = 0, len(buffers)
    while index < count:
        first = buffers[index]
        try:
            if isinstance(first, FileRange):
                end = index + 1
                sent = os.sendfile(descriptor, first.descriptor, first.offset_bytes, first.length_bytes)
                if not sent:
                    raise FileRangeLost(f"the volume's file ends before byte {first.offset_bytes}")
            else:
                end = next((i for i in range(index, count) if isinstance(buffers[i], FileRange)), count)
                end = min(end, index + _WRITEV_BUFFERS)
                sent = os.writev(descriptor, cast(list[Buffer], buffers[index:end]))
        except OSError:  # full, or gone
            return buffers[index:]
        if sent < sum(map(len, buffers[index:end])):
            return _after(buffers[index:], sent)
        index = end
    return []


def _after(buffers: list[Sendable], sent: int) -> list[Sendable]:
    """What follows the first ``sent`` bytes."""
    for index, buffer in enumerate(buffers):
        length = len(buffer)
        if sent < length:
            return [part_of(buffer, sent, length), *buffers[index + 1 :]]
        sent -= length
    return []


def read_ranges(buffers: Sequence[Sendable]) -> list[Buffer]:
    """The same with ranges read into memory, where they can wait. Raises FileRangeLost."""
    return [_read(buffer) if isinstance(buffer, FileRange) else buffer for buffer in buffers]


def _read(wanted: FileRange) -> bytes:
    try:
        data = os.pread(wanted.descriptor, wanted.length_bytes, wanted.offset_bytes)
    except OSError as error:
        raise FileRangeLost(f"the volume's file, byte {wanted.offset_bytes}: {error.strerror}") from error
    if len(data) != wanted.length_bytes:
        raise FileRangeLost(f"the volume's file ends before byte {wanted.offset_bytes + wanted.length_bytes}")
    return data
