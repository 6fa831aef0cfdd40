"""What one row of the command table says, and the two ways to write one. [C]"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import TYPE_CHECKING, TypeAlias

from storage_model.spec.scsi_cdb import BlockDecoder, OperationCode, block_decoder, cdb_length
from target.scsi.task import TaskOutcome

if TYPE_CHECKING:
    from target.scsi.command_context import CommandContext

Handler: TypeAlias = Callable[["CommandContext"], "Awaitable[TaskOutcome] | TaskOutcome"]
"""Returns the outcome, if it is there without waiting at once; or raises ``CheckCondition`` or a ``VolumeError``: sense
data is the device server's work."""


class DataDirection(Enum):
    NONE = "none"
    IN = "in"
    OUT = "out"


class MediumAccess(Enum):
    """Whether the command needs the medium, and whether it changes it: what a pair and write protection look at."""

    NONE = "none"
    READ = "read"
    WRITE = "write"


class UnderReservation(Enum):
    """Who may use a command while the unit is reserved for others.

    "Others" are nexuses that do not hold the unit: by RESERVE (SPC-2 table 10, SBC-3 table 4), or by a persistent
    reservation that does not take them in (SPC-4 tables 65 and 66, SBC-3 table 13). The two differ for commands that
    only ask for the state, so that each member says both.
    """

    ANYBODY = "allowed under both"
    STATUS = "conflicts with RESERVE, allowed under every persistent reservation"
    READ = "conflicts with RESERVE and with Exclusive Access, allowed under Write Exclusive"
    WRITE = "conflicts with all"
    START = "as WRITE, but allowed when START is 1 and POWER CONDITION is 0"
    ALLOW_REMOVAL = "as WRITE, but allowed when PREVENT is 0"


@dataclass(frozen=True, slots=True)
class CommandRow:
    """One command of the table in ``command_table``.

    ``usage`` is the CDB usage data of SPC-4 6.34.3: a bit that is 1 is looked at, byte 0 is the operation code, byte 1
    has the service action. A bit that is 0 there must be 0 in a CDB, unless it is in ``ignored``: fields that older
    standards had and initiators still set. ``unit_attention`` false: neither reports nor clears unit attentions.
    """

    operation_code: int
    service_action: int | None
    name: str
    handler: Handler
    usage: bytes
    ignored: bytes
    direction: DataDirection
    medium: MediumAccess
    under_reservation: UnderReservation
    timeout_seconds: int
    unit_attention: bool
    length: int = field(init=False)
    forbidden: int = field(init=False)
    forbidden_words: tuple[int, int] = field(init=False)
    """``forbidden`` as it lies in the first 16 bytes: two words are tested in a quarter of the time of a slice."""
    decode_blocks: BlockDecoder = field(init=False)
    """For the commands on blocks, whose fields lie where the length of the CDB puts them."""
    writes: bool = field(init=False)
    touches_medium: bool = field(init=False)

    def __post_init__(self) -> None:
        derive = object.__setattr__  # once, so that the data path compares numbers
        length = cdb_length(self.operation_code)
        assert len(self.usage) == len(self.ignored) == length, self.name
        known = int.from_bytes(self.usage, "big") | int.from_bytes(self.ignored, "big") | 0xFF << 8 * (length - 1)
        if self.service_action is not None:
            known |= 0x1F << 8 * (length - 2)
        derive(self, "length", length)
        forbidden = ~known & ((1 << 8 * length) - 1)
        derive(self, "forbidden", forbidden)
        derive(self, "forbidden_words", divmod(forbidden << 8 * (16 - length), 1 << 64))
        derive(self, "decode_blocks", block_decoder(self.operation_code))
        derive(self, "writes", self.medium is MediumAccess.WRITE)
        derive(self, "touches_medium", self.medium is not MediumAccess.NONE)

    def first_forbidden_bit(self, cdb: bytes) -> tuple[int, int]:
        """The field pointer and the bit pointer for a CDB that has a forbidden bit: the leftmost one."""
        wrong = int.from_bytes(cdb[: self.length], "big") & self.forbidden
        from_the_end = wrong.bit_length() - 1
        return self.length - 1 - from_the_end // 8, from_the_end % 8


QUICK, MEDIUM, LONG, WHOLE_MEDIUM = 10, 30, 120, 24 * 3600
"""Recommended timeouts, seconds: no medium; the medium, which may be at two sites; up to 1 GiB of it; all of it."""

# CDB usage from byte 2 on of the block commands, by CDB length: LBA, TRANSFER LENGTH. READ(6)'s LBA begins in byte 1.
_LBA_AND_LENGTH = {6: "ffff ff", 10: "ffffffff 00 ffff", 12: "ffffffff ffffffff", 16: "ffffffffffffffff ffffffff"}
GROUP_NUMBER = {6: "", 10: "00000000 3f", 12: "0000000000000000 3f", 16: "000000000000000000000000 3f"}
"""From byte 2 on, by CDB length; it is ignored, as no grouping function is supported (SBC-3 4.23)."""


def row(
    code: OperationCode,
    handler: Handler,
    usage: str,
    direction: DataDirection,
    under_reservation: UnderReservation,
    timeout_seconds: int = QUICK,
    *,
    action: IntEnum | None = None,
    medium: MediumAccess = MediumAccess.NONE,
    ignored: str = "",
    unit_attention: bool = True,
) -> CommandRow:
    """``usage`` and ``ignored`` are hexadecimal from byte 1 on, missing bytes are 0; ``action``: the service action."""
    length = cdb_length(code)
    used = bytearray(bytes((code,)) + bytes.fromhex(usage).ljust(length - 1, b"\0"))
    if action is not None:
        used[1] |= action
    return CommandRow(
        operation_code=int(code),
        service_action=None if action is None else int(action),
        name=code.name if action is None else action.name,
        handler=handler,
        usage=bytes(used),
        ignored=b"\0" + bytes.fromhex(ignored).ljust(length - 1, b"\0"),
        direction=direction,
        medium=medium,
        under_reservation=under_reservation,
        timeout_seconds=timeout_seconds,
        unit_attention=unit_attention,
    )


def block_row(
    code: OperationCode,
    handler: Handler,
    flags: str,
    direction: DataDirection,
    medium: MediumAccess,
    timeout_seconds: int = MEDIUM,
    *,
    old_flags: str = "00",
    under_reservation: UnderReservation | None = None,
) -> CommandRow:
    """A command on a range of blocks: what it does to the medium also says what a reservation does to it, as a rule."""
    length = cdb_length(code)
    if under_reservation is None:
        under_reservation = UnderReservation.WRITE if medium is MediumAccess.WRITE else UnderReservation.READ
    return row(
        code,
        handler,
        flags + _LBA_AND_LENGTH[length],
        direction,
        under_reservation,
        timeout_seconds,
        medium=medium,
        ignored=old_flags + GROUP_NUMBER[length],
    )
