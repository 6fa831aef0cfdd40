"""What a client does to a server: which client, how large, how deep, in which order. Pure."""

from dataclasses import dataclass
from enum import Enum


class Client(Enum):
    """Its value is its name in reports."""

    QEMU = "qemu-img bench"
    PERF = "iscsi-perf"
    OWN = "own client"


@dataclass(frozen=True, slots=True)
class Load:
    """What a client does. ``length`` bytes per operation, ``depth`` operations in flight per session.

    ``units``: how many LUNs it goes round. ``span``: of how many bytes from the start of a volume it uses
    ``blocks`` places (0: all); both only with our own client. LUN 1 has blocks of 4096 bytes, LUN 0 of 512.
    """

    length: int
    depth: int
    write: bool = False
    random: bool = False
    sessions: int = 1
    digests: bool = False
    units: int = 1
    blocks: int = 0
    client: Client = Client.QEMU
