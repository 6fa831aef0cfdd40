"""Numbered, self-describing blocks, and what each block of a volume may contain.

Each block has one writer, which writes it anew only when it knows, or has given up, the outcome of the write before.
So a block contains its last acknowledged write, or a later one of the same writer whose outcome is unknown.
"""

import struct
import zlib
from collections.abc import Iterable

from scripts.torture_drill.volumes import BLOCK

_HEAD = struct.Struct("!8sHHQQ")
_MAGIC = b"torture!"
_CRC_BYTES = 4
_UNKNOWN_MAX = 100_000


def encode(volume: int, writer: int, lba: int, number: int) -> bytes:
    """One block."""
    body = _HEAD.pack(_MAGIC, volume, writer, lba, number).ljust(BLOCK - _CRC_BYTES, bytes([(lba + number) & 0xFF]))
    return body + zlib.crc32(body).to_bytes(_CRC_BYTES)


def decode(block: bytes) -> tuple[int, int, int, int] | None:
    """Volume, writer, LBA and number of the write; number 0 for zeros, None for anything else."""
    if not any(block):
        return 0, 0, 0, 0
    body, crc = block[:-_CRC_BYTES], block[-_CRC_BYTES:]
    if zlib.crc32(body).to_bytes(_CRC_BYTES) != crc:
        return None
    magic, volume, writer, lba, number = _HEAD.unpack_from(body)
    return (volume, writer, lba, number) if magic == _MAGIC else None


class VolumeBlocks:
    """What may be in each block of one volume: by LBA its writer, and the numbers of the possible writes."""

    def __init__(self, volume: int) -> None:
        self.volume = volume
        self.acknowledged = 0
        self._writer: dict[int, int] = {}
        self._possible: dict[int, set[int]] = {}
        self._at_split: dict[int, set[int]] | None = None
        self._splitting = False

    def begin(self, writer: int, lbas: range, number: int) -> None:
        """A write is about to be sent; ``number`` grows with each write of a writer."""
        for lba in lbas:
            assert self._writer.setdefault(lba, writer) == writer, "each block has one writer"
            self._possible.setdefault(lba, {0}).add(number)
            if self._at_split is not None and self._splitting:
                self._at_split.setdefault(lba, {0}).add(number)
            assert len(self._possible[lba]) <= _UNKNOWN_MAX

    def acknowledge(self, lbas: range, number: int) -> None:
        """GOOD: what was before is gone for ever."""
        self.acknowledged += 1
        for lba in lbas:
            self._possible[lba] = {possible for possible in self._possible[lba] if possible >= number}

    def refuse(self, lbas: range, number: int) -> None:
        """The write was refused for a reason that is found before anything is written."""
        for lba in lbas:
            self._possible[lba].discard(number)

    def split_for_writes(self) -> None:
        """About to become two volumes: what a block may contain now is what it may fall back to.

        So is what is written until :meth:`is_split`: it may still reach both.
        """
        self._splitting = True
        self._at_split = {lba: set(possible) for lba, possible in self._possible.items()}

    def is_split(self) -> None:
        """The split is known to be done."""
        self._splitting = False

    @property
    def diverged(self) -> bool:
        return self._at_split is not None

    def discard(self, writers: Iterable[int]) -> None:
        """An operator is about to give up what these wrote since the split, which may succeed or not."""
        assert self._at_split is not None
        discarded = set(writers)
        for lba, possible in self._possible.items():
            if self._writer[lba] in discarded:
                possible |= self._at_split.get(lba, {0})

    def reunited(self) -> None:
        """One volume again."""
        self._at_split = None

    def wrong(self, lba: int, block: bytes) -> str:
        """Empty when the block may contain this, else what is wrong with it."""
        possible = self._possible.get(lba, {0})
        found = decode(block)
        if found is None:
            return f"block {lba} is damaged: {block[:32].hex()}…"
        volume, writer, at, number = found
        if number and (volume, writer, at) != (self.volume, self._writer.get(lba), lba):
            return f"block {lba} has write {number} of writer {writer} to block {at} of LUN {volume}"
        if number not in possible:
            expected = sorted(possible)
            more = ", …" if len(expected) > 4 else ""
            return f"block {lba} has write {number}, not {', '.join(map(str, expected[:4]))}{more}"
        return ""

    def check(self, content: bytes) -> list[str]:
        """Of the whole volume."""
        blocks = range(len(content) // BLOCK)
        wrong = (self.wrong(lba, content[lba * BLOCK : (lba + 1) * BLOCK]) for lba in blocks if lba in self._possible)
        return [text for text in wrong if text]

    @property
    def written(self) -> int:
        """How many blocks have been written, or tried."""
        return len(self._possible)
