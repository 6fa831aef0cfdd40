"""What a command's row says, and what its handler gets."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol, TypeAlias

from storage_model.errors import CheckCondition
from storage_model.spec.scsi_cdb import cdb_length
from storage_model.spec.scsi_pages import Designator
from storage_model.spec.scsi_sense import AscAscq, SenseKey
from storage_model.volume import Buffer
from target.scsi.logical_unit import LogicalUnit
from target.scsi.task import ScsiTask, TaskOutcome


class DataDirection(Enum):
    NONE = "none"
    IN = "in"
    OUT = "out"


class MediumAccess(Enum):
    """Whether the command needs the medium, and whether it changes it: what a pair and write protection look at."""

    NONE = "none"
    READ = "read"
    WRITE = "write"


class UnderReserve(Enum):
    """What happens while another nexus holds a SCSI-2 reservation (SPC-2 table 10, SBC-3 table 4)."""

    ALLOWED = "allowed"
    CONFLICT = "conflict"
    ALLOWED_TO_ALLOW_REMOVAL = "allowed when PREVENT is 0"
    ALLOWED_TO_START = "allowed when START is 1 and POWER CONDITION is 0"


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
    handler: "Handler"
    usage: bytes
    ignored: bytes
    direction: DataDirection
    medium: MediumAccess
    under_reserve: UnderReserve
    timeout_seconds: int
    unit_attention: bool
    length: int = field(init=False)
    forbidden: int = field(init=False)
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
        derive(self, "forbidden", ~known & ((1 << 8 * length) - 1))
        derive(self, "writes", self.medium is MediumAccess.WRITE)
        derive(self, "touches_medium", self.medium is not MediumAccess.NONE)

    def first_forbidden_byte(self, cdb: bytes) -> int:
        """The field pointer for a CDB that has a forbidden bit."""
        forbidden = self.forbidden.to_bytes(self.length, "big")
        return next(index for index in range(self.length) if cdb[index] & forbidden[index])


class DeviceServerPort(Protocol):
    """What a handler may ask of the device server around its logical unit."""

    @property
    def logical_units(self) -> Mapping[int, LogicalUnit]: ...

    @property
    def command_rows(self) -> Sequence[CommandRow]:
        """The command table, ordered by operation code and service action."""
        ...

    def port_designators(self, relative_target_port: int) -> tuple[Designator, ...]: ...


@dataclass(slots=True)
class CommandContext:
    """A command that has passed the checks. ``cdb`` has at least as many bytes as its operation code implies."""

    server: DeviceServerPort
    lu: LogicalUnit
    task: ScsiTask
    cdb: bytes
    row: CommandRow

    def data_in(self, data: bytes, allocation_length: int) -> TaskOutcome:
        """GOOD with parameter data, cut to the ALLOCATION LENGTH (SPC-4 4.2.5.6)."""
        cut = data[:allocation_length]
        return TaskOutcome(data_in=cut, transfer_length_bytes=len(cut))

    def parameter_list(self, length: int) -> Buffer:
        """The parameter list that the CDB announces; 1Ah/00h when the initiator sent less (SPC-4 4.2.5.5)."""
        data = self.task.data_out
        if len(data) < length:
            raise CheckCondition(SenseKey.ILLEGAL_REQUEST, AscAscq.PARAMETER_LIST_LENGTH_ERROR)
        return memoryview(data)[:length]


Handler: TypeAlias = Callable[[CommandContext], Awaitable[TaskOutcome]]
"""Returns the outcome, or raises ``CheckCondition`` or a ``VolumeError``: sense data is the device server's work."""


def invalid_field(byte: int) -> CheckCondition:
    """INVALID FIELD IN CDB, pointing at ``byte``."""
    return CheckCondition(SenseKey.ILLEGAL_REQUEST, AscAscq.INVALID_FIELD_IN_CDB, field_pointer=byte)


def invalid_parameter(byte: int) -> CheckCondition:
    """INVALID FIELD IN PARAMETER LIST, pointing at ``byte`` of the list."""
    return CheckCondition(
        SenseKey.ILLEGAL_REQUEST,
        AscAscq.INVALID_FIELD_IN_PARAMETER_LIST,
        field_pointer=byte,
        in_parameter_list=True,
    )
