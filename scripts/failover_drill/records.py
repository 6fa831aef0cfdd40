"""The numbered records that the applications write, one block each, so that a lost or torn write shows.

Block ``n`` of a data volume holds record ``n``; record 0 is the volume's label. A record names its volume, the host
that wrote it and its number, is filled with a pattern made of these, and ends with a CRC-32 over all before it.
"""

import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

RECORD_BYTES = 512
_HEADER = struct.Struct(">8sHHQ")
_CHECKSUM = struct.Struct(">I")
_MAGIC = b"PVRECORD"
LABEL = 0


@dataclass(frozen=True, slots=True)
class Record:
    """``volume`` is the volume number of the patent (70 or 73), ``host`` the writer's (10 or 11)."""

    volume: int
    host: int
    sequence: int

    def encode(self) -> bytes:
        """The 512 bytes of the block."""
        header = _HEADER.pack(_MAGIC, self.volume, self.host, self.sequence)
        room = RECORD_BYTES - _CHECKSUM.size
        body = (header * (room // len(header) + 1))[:room]
        return body + _CHECKSUM.pack(zlib.crc32(body))

    @classmethod
    def decode(cls, block: bytes | memoryview) -> "Record | None":
        """From one block; None when it holds no record, or a torn one."""
        data = bytes(block)
        if len(data) != RECORD_BYTES or data[:8] != _MAGIC:
            return None
        record = cls(*_HEADER.unpack_from(data)[1:])
        return record if data == record.encode() else None


def records_in(data: bytes | memoryview, volume: int, first_block: int) -> Iterator[Record | None]:
    """The record of each block of ``data``, which starts at block ``first_block``; None where there is no right one."""
    for start in range(0, len(data), RECORD_BYTES):
        record = Record.decode(data[start : start + RECORD_BYTES])
        expected = (volume, first_block + start // RECORD_BYTES)
        yield record if record is not None and (record.volume, record.sequence) == expected else None


class AcknowledgementLog:
    """What an application may rely on: one line per record, written after its GOOD, unbuffered.

    It is a file of the host, not of the volume, and outlives a kill -9 of the process that writes it.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)

    def acknowledge(self, record: Record) -> None:
        self._file.write(f"{record.volume} {record.host} {record.sequence}\n".encode())

    def close(self) -> None:
        self._file.close()


def read_acknowledgements(paths: Iterable[Path]) -> dict[int, set[int]]:
    """Acknowledged sequence numbers by volume, of all the hosts' logs; a line cut short by a kill does not count."""
    acknowledged: dict[int, set[int]] = {}
    for path in paths:
        for line in path.read_text().splitlines(keepends=True):
            fields = line.split()
            if line.endswith("\n") and len(fields) == 3:
                acknowledged.setdefault(int(fields[0]), set()).add(int(fields[2]))
    return acknowledged
