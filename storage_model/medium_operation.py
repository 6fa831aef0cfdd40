"""SANITIZE and FORMAT UNIT: what is done to a whole medium, and how far it has come (SBC-3 4.11, 5.3).

The record is what an array must not forget: a sanitize operation goes on after a restart, and one that has failed
stays failed (SBC-3 4.11.3).
"""

import json
from dataclasses import dataclass, replace
from enum import Enum

from storage_model.spec.scsi_sense import AscAscq

PROGRESS_LIMIT = 0x10000
"""The denominator of a progress indication (SPC-4 4.5.2.4.4)."""


class Method(Enum):
    OVERWRITE = "sanitize by overwriting"
    BLOCK_ERASE = "sanitize by block erase"
    CRYPTOGRAPHIC_ERASE = "sanitize by cryptographic erase"
    FORMAT = "format"


@dataclass(frozen=True, slots=True)
class MediumOperation:
    """``pattern`` fills each block, repeated as often as it takes; empty: the blocks become zeros, without a write.

    ``unrestricted``: a failure may be left by EXIT FAILURE MODE (the AUSE bit). ``done_bytes`` counts over all passes;
    that much is on the medium. ``file`` is the one that the volume is in: another file by the same volume name is
    another medium.
    """

    method: Method
    size_bytes: int
    pattern: bytes = b""
    passes: int = 1
    invert: bool = False
    unrestricted: bool = False
    done_bytes: int = 0
    failed: bool = False
    file: str = ""

    @property
    def sanitizes(self) -> bool:
        return self.method is not Method.FORMAT

    @property
    def total_bytes(self) -> int:
        return self.size_bytes * self.passes

    @property
    def in_progress(self) -> AscAscq:
        """Of the NOT READY that commands end with meanwhile."""
        if self.sanitizes:
            return AscAscq.LOGICAL_UNIT_NOT_READY_SANITIZE_IN_PROGRESS
        return AscAscq.LOGICAL_UNIT_NOT_READY_FORMAT_IN_PROGRESS

    @property
    def corrupt(self) -> AscAscq:
        """Of the MEDIUM ERROR that commands end with after it has failed."""
        return AscAscq.SANITIZE_COMMAND_FAILED if self.sanitizes else AscAscq.MEDIUM_FORMAT_CORRUPTED

    @property
    def failure(self) -> AscAscq:
        """Of the MEDIUM ERROR that the command itself ends with."""
        return AscAscq.SANITIZE_COMMAND_FAILED if self.sanitizes else AscAscq.FORMAT_COMMAND_FAILED

    def progress(self, done_bytes: int) -> int:
        """The progress indication for so many bytes, over all passes."""
        return min(done_bytes * PROGRESS_LIMIT // self.total_bytes, PROGRESS_LIMIT - 1)

    def block(self, number_of_pass: int, block_length: int) -> bytes:
        """What each block holds after a pass, counted from 0; the last one is never inverted (SBC-3 5.24.2.2)."""
        data = (self.pattern * -(-block_length // len(self.pattern)))[:block_length]
        if self.invert and (self.passes - number_of_pass) % 2 == 0:
            return bytes(byte ^ 0xFF for byte in data)
        return data

    def at(self, done_bytes: int) -> "MediumOperation":
        return replace(self, done_bytes=done_bytes)

    def as_failed(self) -> "MediumOperation":
        return replace(self, failed=True)

    def encode(self) -> str:
        """JSON, as the array's metadata keep it."""
        return json.dumps(
            {
                "method": self.method.name,
                "size_bytes": self.size_bytes,
                "pattern": self.pattern.hex(),
                "passes": self.passes,
                "invert": self.invert,
                "unrestricted": self.unrestricted,
                "done_bytes": self.done_bytes,
                "failed": self.failed,
                "file": self.file,
            }
        )

    @classmethod
    def decode(cls, text: str) -> "MediumOperation":
        """Raises ValueError for what ``encode`` never writes."""
        try:
            fields = json.loads(text)
            return cls(
                Method[fields["method"]],
                int(fields["size_bytes"]),
                bytes.fromhex(fields["pattern"]),
                int(fields["passes"]),
                bool(fields["invert"]),
                bool(fields["unrestricted"]),
                int(fields["done_bytes"]),
                bool(fields["failed"]),
                str(fields["file"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a medium operation: {error!r}") from None
