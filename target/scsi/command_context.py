"""What a command's handler gets."""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from storage_model.errors import CheckCondition
from storage_model.nexus import ITNexus
from storage_model.spec.scsi_pages import Designator
from storage_model.spec.scsi_sense import AscAscq, SenseKey
from storage_model.spec.scsi_target_port_groups import AccessState
from storage_model.volume import Buffer
from target.scsi.asymmetric_access import TargetPortGroups
from target.scsi.command_row import CommandRow
from target.scsi.logical_unit import LogicalUnit
from target.scsi.task import ScsiTask, TaskOutcome


class DeviceServerPort(Protocol):
    """What a handler may ask of the device server around its logical unit."""

    def units_of(self, nexus: ITNexus) -> Mapping[int, LogicalUnit]:
        """The units that the nexus may see, by LUN."""
        ...

    @property
    def command_rows(self) -> Sequence[CommandRow]:
        """The command table, ordered by operation code and service action."""
        ...

    def read_only(self, nexus: ITNexus) -> bool:
        """True: every unit is write-protected for this nexus."""
        ...

    async def execute(self, task: ScsiTask) -> TaskOutcome:
        """Run a command as if an initiator had sent it; never raises."""
        ...

    def abort_in_transports(self, nexuses: Collection[ITNexus], lun: int) -> None:
        """Abort the commands of some nexuses for a unit that no transport has handed over yet."""
        ...

    def port_designators(self, relative_target_port: int) -> tuple[Designator, ...]: ...

    def scsi_ports(self) -> bytes:
        """The body of VPD page 88h."""
        ...

    @property
    def port_groups(self) -> TargetPortGroups: ...

    def set_access_states(self, states: Mapping[int, AccessState], *, by: ITNexus | None = None) -> None:
        """Put target port groups into states and tell every nexus but ``by``, who asked for it."""
        ...


class CommandContext:
    """A command that has passed the checks. ``cdb`` has at least as many bytes as its operation code implies."""

    __slots__ = ("cdb", "lu", "row", "server", "task")

    def __init__(self, server: DeviceServerPort, lu: LogicalUnit, task: ScsiTask, cdb: bytes, row: CommandRow) -> None:
        self.server = server
        self.lu = lu
        self.task = task
        self.cdb = cdb
        self.row = row

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


def invalid_field(byte: int, bit: int | None = None) -> CheckCondition:
    """INVALID FIELD IN CDB, pointing at ``byte`` and, when that is less than the byte, at the field's leftmost bit."""
    return CheckCondition(SenseKey.ILLEGAL_REQUEST, AscAscq.INVALID_FIELD_IN_CDB, field_pointer=byte, bit_pointer=bit)


def invalid_parameter(byte: int) -> CheckCondition:
    """INVALID FIELD IN PARAMETER LIST, pointing at ``byte`` of the list."""
    return CheckCondition(
        SenseKey.ILLEGAL_REQUEST,
        AscAscq.INVALID_FIELD_IN_PARAMETER_LIST,
        field_pointer=byte,
        in_parameter_list=True,
    )
