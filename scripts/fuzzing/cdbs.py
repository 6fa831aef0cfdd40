"""CDBs, by the array's own word about what it knows (REPORT SUPPORTED OPERATION CODES), and beside it.

A command that the array learns later is fuzzed without a change here: its usage mask says which bits it looks at.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from scripts.fuzzing.chance import content, damaged, number
from scripts.fuzzing.parameter_lists import PARAMETER_LISTS, Landmarks

LARGEST_TRANSFER_BYTES = 192 << 10
REPORT_SUPPORTED_OPERATION_CODES = (0xA3, 0x0C)
_ALL_COMMANDS_HEADER, _DESCRIPTOR = 4, 8
# LBA and number of blocks, by the group code of the operation code (SPC-4 4.2.5.1).
_LBA_FIELDS = {0: (1, 4), 1: (2, 6), 2: (2, 6), 4: (2, 10), 5: (2, 6)}
_COUNT_FIELDS = {0: (4, 5), 1: (7, 9), 2: (7, 9), 4: (10, 14), 5: (6, 10)}
# Operation codes with blocks to send, in groups by how many bytes they take: one count, twice it, one block.
_WRITES = {0x0A, 0x2A, 0xAA, 0x8A, 0x2E, 0xAE, 0x8E, 0x9C, 0x8B}
_VERIFIES = {0x2F, 0xAF, 0x8F}
_COMPARE_AND_WRITE = 0x89
_WRITE_SAMES = {0x41, 0x93}
_WITH_BLOCKS = _WRITES | _VERIFIES | _WRITE_SAMES | {_COMPARE_AND_WRITE, 0x08, 0x28, 0xA8, 0x88, 0x34, 0x90, 0x35, 0x91}
_SERVICE_ACTIONS = {0x5E, 0x5F, 0x7F, 0x83, 0x84, 0x9D, 0x9E, 0x9F, 0xA3, 0xA4, 0xC0, 0xC1, 0x48, 0x3B, 0x3C}


@dataclass(frozen=True, slots=True)
class KnownCommand:
    """One command of the array. ``usage`` has a bit set for each bit of the CDB that the array looks at."""

    opcode: int
    service_action: int | None
    usage: bytes


@dataclass(frozen=True, slots=True)
class Command:
    """One SCSI command as an initiator sends it; ``data_in_length`` is what it is ready to take, in bytes."""

    cdb: bytes
    data_out: bytes = b""
    data_in_length: int = 0


def ask_for_all() -> Command:
    return Command(bytes((*REPORT_SUPPORTED_OPERATION_CODES, 0, 0, 0, 0)) + b"\0\0\x20\0" + bytes(6), b"", 8192)


def listed(data: bytes) -> list[tuple[int, int | None]]:
    """Operation codes and service actions of an answer to :func:`ask_for_all` (SPC-4 6.35.2)."""
    end = _ALL_COMMANDS_HEADER + int.from_bytes(data[:4], "big")
    found: list[tuple[int, int | None]] = []
    position = _ALL_COMMANDS_HEADER
    while position + _DESCRIPTOR <= min(end, len(data)):
        flags = data[position + 5]
        found.append((data[position], int.from_bytes(data[position + 2 : position + 4], "big") if flags & 1 else None))
        position += _DESCRIPTOR + (12 if flags & 2 else 0)
    return found


def ask_for_one(opcode: int, service_action: int | None) -> Command:
    option = 1 if service_action is None else 2
    cdb = bytes((*REPORT_SUPPORTED_OPERATION_CODES, option, opcode)) + (service_action or 0).to_bytes(2, "big")
    return Command(cdb + b"\0\0\x01\0" + bytes(6), b"", 256)


def described(opcode: int, service_action: int | None, data: bytes) -> KnownCommand:
    """The answer to :func:`ask_for_one` (SPC-4 6.35.3)."""
    return KnownCommand(opcode, service_action, data[4 : 4 + int.from_bytes(data[2:4], "big")])


class CdbGrammar:
    """Draws commands for a logical unit of ``landmarks.blocks`` blocks."""

    def __init__(self, known: Sequence[KnownCommand], landmarks: Landmarks) -> None:
        self._known = list(known)
        self._landmarks = landmarks
        self.forbidden_opcodes: frozenset[int] = frozenset()

    def draw(self, chance: random.Random) -> Command:
        """Seven of ten as they should be but for their values, the others damaged or of unknown kind."""
        kind = chance.random()
        if kind < 0.1 or not self._known:
            command = self._unknown(chance)
        else:
            command = self._of(chance, chance.choice(self._known))
            if kind < 0.3:
                cdb = damaged(chance, command.cdb)[:16].ljust(16, b"\0")
                command = Command(cdb, command.data_out, command.data_in_length)
        return command if command.cdb[0] not in self.forbidden_opcodes else Command(bytes(16))

    def _unknown(self, chance: random.Random) -> Command:
        opcode = chance.choice((chance.randrange(256), chance.choice(sorted(_SERVICE_ACTIONS))))
        cdb = bytes((opcode, chance.randrange(256))) + content(chance, 14)
        return Command(cdb, content(chance, chance.choice((0, 0, 8, 512))), chance.choice((0, 4, 255, 4096)))

    def _of(self, chance: random.Random, known: KnownCommand) -> Command:
        usage = known.usage.ljust(16, b"\0")
        cdb = bytearray(chance.getrandbits(8) & chance.getrandbits(8) & bits for bits in usage)
        cdb[0] = known.opcode
        if known.service_action is not None:
            self._set_service_action(cdb, known)
        data_out, data_in_length = b"", number(chance, 16, 0, 4, 8, 36, 255, 512)
        parameters = PARAMETER_LISTS.get((known.opcode, known.service_action))
        if parameters is not None:
            data_out = parameters.make(chance, self._landmarks)
            if parameters.length_field is not None:
                first, end = parameters.length_field
                length = len(data_out) if chance.random() < 0.8 else number(chance, 8 * (end - first), len(data_out))
                length = min(length, (1 << 8 * (end - first)) - 1)
                cdb[first:end] = length.to_bytes(end - first, "big")
            data_in_length = 0
        elif known.opcode in _WITH_BLOCKS:
            data_out, data_in_length = self._blocks(chance, cdb)
        if data_out and chance.random() < 0.1:
            data_out = data_out[: chance.randrange(len(data_out) + 1)]
        return Command(bytes(cdb), data_out[:LARGEST_TRANSFER_BYTES], min(data_in_length, LARGEST_TRANSFER_BYTES))

    @staticmethod
    def _set_service_action(cdb: bytearray, known: KnownCommand) -> None:
        assert known.service_action is not None
        if known.opcode == 0x7F:
            cdb[8:10] = known.service_action.to_bytes(2, "big")
        else:
            cdb[1] = cdb[1] & 0xE0 | known.service_action & 0x1F

    def _blocks(self, chance: random.Random, cdb: bytearray) -> tuple[bytes, int]:
        """Fills in address and count, mostly of blocks that exist; what is to be sent, and how much to be taken."""
        marks, group = self._landmarks, cdb[0] >> 5
        most = LARGEST_TRANSFER_BYTES // marks.block_length
        count = chance.choice((0, 1, 1, 2, 8, most, number(chance, 8)))
        inside = chance.randrange(max(marks.blocks - count, 1))
        lba_first, lba_end = _LBA_FIELDS[group]
        width = lba_end - lba_first
        lba = inside if chance.random() < 0.85 else number(chance, 8 * width, marks.blocks)
        cdb[lba_first:lba_end] = min(lba, (1 << 8 * width) - 1).to_bytes(width, "big")
        count_first, count_end = _COUNT_FIELDS[group]
        if cdb[0] == _COMPARE_AND_WRITE:
            count = cdb[13] = min(count, 16)
        else:
            width = count_end - count_first
            cdb[count_first:count_end] = min(count, (1 << 8 * width) - 1).to_bytes(width, "big")
        length = count * marks.block_length
        if cdb[0] in _WRITES:
            return content(chance, length), 0
        if cdb[0] == _COMPARE_AND_WRITE:
            return content(chance, 2 * length), 0
        if cdb[0] in _WRITE_SAMES:
            return content(chance, marks.block_length), 0
        if cdb[0] in _VERIFIES:
            byte_check = cdb[1] >> 1 & 3
            return content(chance, (0, length, length, marks.block_length)[byte_check]), 0
        return b"", length
