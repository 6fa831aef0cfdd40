"""The one gate that every command and task management function passes (SAM-5 5 to 7). [C]

Order of the checks, from the precedence of SAM-5 5.3.3 and the commands each standard exempts:
 1. the logical unit exists (SAM-5 4.7; INQUIRY, REPORT LUNS and REQUEST SENSE have an answer of their own: SPC-4 6.4.1)
 2. the task set has room, and older ordered tasks have ended (SAM-5 8)
 3. the command exists (SPC-4 4.2.5); its row says how it is treated from here on
 4. unit attention after a reset (before RESERVATION CONFLICT)
 5. reservation, by RESERVE or persistent (before every other CHECK CONDITION)
 6. other unit attentions
 7. the access state of the target port (SPC-4 5.15.2)
 8. the bits of the CDB that the row does not know
 9. the medium: ready, not write protected
10. the pair that the unit belongs to
11. the handler
An unknown operation code is told after a reset's unit attention and before the reservation: it has no row that could
say whether it conflicts.
"""

import logging
from asyncio import Event
from collections.abc import Awaitable, Collection, Coroutine, Mapping, Sequence
from struct import Struct
from typing import Any, Final, Protocol

from storage_model.errors import CheckCondition
from storage_model.nexus import ITNexus
from storage_model.spec import scsi_pages as pages
from storage_model.spec.scsi_cdb import OperationCode
from storage_model.spec.scsi_sense import AscAscq, SenseData, SenseKey, encode_sense, sense_of
from storage_model.spec.scsi_target_port_groups import AccessState, StatusCode
from storage_model.spec.scsi_task import ScsiStatus, TaskAttribute, TaskFunction, TaskFunctionResponse
from storage_model.volume import MediumFailure, NotReady, ReplicationRefused, SpaceExhausted, VolumeError
from target.scsi.asymmetric_access import TargetPortGroups
from target.scsi.command_context import CommandContext, invalid_field
from target.scsi.command_row import CommandRow
from target.scsi.command_table import COMMAND_ROWS, ROWS_BY_OPCODE
from target.scsi.logical_unit import LogicalUnit
from target.scsi.lun_mask import LunMask, MaskedUnits
from target.scsi.primary_commands import check_ready
from target.scsi.reservation_gate import excluded
from target.scsi.task import CopyManagerTask, ScsiTask, TaskOutcome
from target.scsi.task_manager import abort
from target.scsi.unit_attention import RESET_CONDITIONS

_CDB_LENGTH: Final = 16
_CDB_WORDS: Final = Struct(">QQ")
_FLUSHING = (OperationCode.SYNCHRONIZE_CACHE_10, OperationCode.SYNCHRONIZE_CACHE_16, OperationCode.START_STOP_UNIT)
"""What fails in these is a write of earlier commands."""

# Python 3.11 runs a function for each access to a member of an enumeration: a tenth of a microsecond.
_GOOD, _SIMPLE = ScsiStatus.GOOD, TaskAttribute.SIMPLE

log = logging.getLogger("pairvol.scsi")


class TransportPort(Protocol):
    """A transport that hands over commands, and may hold some back until it has their data."""

    def abort_not_running_of(self, nexuses: Collection[ITNexus], lun: int) -> None:
        """Drop the commands of these nexuses for the unit that have not been handed over."""
        ...


class DeviceServer:
    """Serves one array's logical units to every nexus.

    ``logical_units`` maps LUN to unit and may change while serving. ``target_iqn`` names the target device in VPD page
    83h; ``port_groups`` has its target ports, by default one.
    """

    def __init__(
        self,
        logical_units: Mapping[int, LogicalUnit],
        *,
        target_iqn: str = "iqn.2026-11.org.pairvol:array",
        port_groups: TargetPortGroups | None = None,
    ) -> None:
        self.logical_units = logical_units
        self.transports: list[TransportPort] = []
        self.port_groups = port_groups or TargetPortGroups()
        self._target_iqn = target_iqn
        self._masks: dict[ITNexus, LunMask] = {}  # of the nexuses that do not see, or may not write, everything
        self._restricted = self.port_groups.restricted
        self._nexuses: set[ITNexus] = set()

    @property
    def command_rows(self) -> Sequence[CommandRow]:
        return COMMAND_ROWS

    def units_of(self, nexus: ITNexus) -> Mapping[int, LogicalUnit]:
        """The units that the nexus may see, by LUN: the one place that says so."""
        if self._masks:
            mask = self._masks.get(nexus)
            if mask is not None and mask.luns is not None:
                return MaskedUnits(self.logical_units, mask.luns)
        return self.logical_units

    def read_only(self, nexus: ITNexus) -> bool:
        """True: every unit is write-protected for this nexus."""
        return nexus in self._masks and self._masks[nexus].read_only

    def port_designators(self, relative_target_port: int) -> tuple[pages.Designator, ...]:
        return pages.port_designators(self._target_iqn, relative_target_port)

    def scsi_ports(self) -> bytes:
        return pages.scsi_ports(self._target_iqn, self.port_groups.numbers)

    def set_access_states(self, states: Mapping[int, AccessState], *, by: ITNexus | None = None) -> None:
        """SPC-4 5.15.2.6, 5.15.2.7: explicit when a nexus asks for it, which then needs no unit attention."""
        if by is not None and by in self._masks:
            # It may not change what those see and write whose units it must not even see.
            raise CheckCondition(SenseKey.ILLEGAL_REQUEST, AscAscq.ACCESS_DENIED_NO_ACCESS_RIGHTS)
        status = StatusCode.ALTERED_IMPLICITLY if by is None else StatusCode.ALTERED_BY_COMMAND
        changed = self.port_groups.change(states, status)
        if not changed:
            return
        for group, state in changed.items():
            log.info("target port group %d is %s%s", group, state, "" if by is None else f", as {by} asked")
        for lu in self.logical_units.values():
            lu.unit_attentions.establish(AscAscq.ASYMMETRIC_ACCESS_STATE_CHANGED, but=by)

    def abort_in_transports(self, nexuses: Collection[ITNexus], lun: int) -> None:
        """Abort the commands of some nexuses for a unit that still wait for their data, or for room."""
        for transport in self.transports:
            transport.abort_not_running_of(nexuses, lun)

    # --- commands

    async def execute(self, task: ScsiTask) -> TaskOutcome:
        """Run one command to its end; never raises for what an initiator or a volume did."""
        begun = self.begin(task)
        return begun if isinstance(begun, TaskOutcome) else await begun

    def begin(self, task: ScsiTask) -> TaskOutcome | Coroutine[Any, Any, TaskOutcome]:
        """The outcome, when nothing has to be waited for; else what has to be awaited for it.

        Most reads and writes end here, without a coroutine: those cost as much as all the checks. A command that does
        so has been in no task set, since nobody could have seen it there.
        """
        lu = self.units_of(task.nexus).get(task.lun)
        if lu is None:
            return self._execute_without_unit(task)
        tasks = lu.tasks
        if tasks.full:
            return TaskOutcome(ScsiStatus.TASK_SET_FULL)
        if tasks.ordered or task.attribute is not _SIMPLE:
            return self._in_turn(lu, task)
        try:
            admitted = self._admit(lu, task)
            outcome = admitted if isinstance(admitted, TaskOutcome) else admitted.row.handler(admitted)
        except CheckCondition as error:
            return _check_condition(error, lu)
        except VolumeError as error:
            return _check_condition(_volume_sense(error, task, lu), lu)
        if isinstance(outcome, TaskOutcome):
            return outcome
        tasks.enter(task)
        return self._finish(lu, task, outcome)

    async def _finish(self, lu: LogicalUnit, task: ScsiTask, rest: Awaitable[TaskOutcome]) -> TaskOutcome:
        try:
            return await rest
        except CheckCondition as error:
            return _check_condition(error, lu)
        except VolumeError as error:
            return _check_condition(_volume_sense(error, task, lu), lu)
        finally:
            lu.tasks.leave(task)

    def _in_turn(self, lu: LogicalUnit, task: ScsiTask) -> Coroutine[Any, Any, TaskOutcome]:
        """A task that may have to wait for older ones. It enters the set now: others may have to wait for it."""
        lu.tasks.enter(task)
        return self._finish(lu, task, self._after_older_tasks(lu, task))

    async def _after_older_tasks(self, lu: LogicalUnit, task: ScsiTask) -> TaskOutcome:
        await self._wait_for_turn(lu, task)
        admitted = self._admit(lu, task)
        outcome = admitted if isinstance(admitted, TaskOutcome) else admitted.row.handler(admitted)
        return outcome if isinstance(outcome, TaskOutcome) else await outcome

    def _admit(self, lu: LogicalUnit, task: ScsiTask) -> CommandContext | TaskOutcome:
        """The checks from 3 to 10: what the handler gets, or the status of a command that ends here."""
        nexus, cdb = task.nexus, task.cdb
        if len(cdb) < _CDB_LENGTH:
            cdb = cdb.ljust(_CDB_LENGTH, b"\0")
        entry = ROWS_BY_OPCODE[cdb[0]]
        row = entry if isinstance(entry, CommandRow) else None if entry is None else entry.get(cdb[1] & 0x1F)
        # An empty dict, a unit not held: the data path passes these by at the cost of one test each.
        attention = None
        if lu.unit_attentions.pending and (row is None or row.unit_attention):
            attention = _unit_attention(lu, task)
            if attention in RESET_CONDITIONS:
                raise _reported(lu, task)
        if row is None:
            raise _unsupported(entry is not None)
        if lu.reservation.held and excluded(lu.reservation.excludes(nexus), row, cdb):
            lu.conflict_log.conflict(task.lun, nexus)
            return TaskOutcome(ScsiStatus.RESERVATION_CONFLICT)
        if attention is not None:
            raise _reported(lu, task)
        if self._restricted:
            self.port_groups.check(nexus.target_port, row, cdb)
        first, second = _CDB_WORDS.unpack_from(cdb)
        if first & row.forbidden_words[0] or second & row.forbidden_words[1]:
            raise invalid_field(*row.first_forbidden_bit(cdb))
        if not lu.accessible:
            _check_accessible(lu, row)
        if row.touches_medium:
            if row.writes:
                if lu.write_protected:
                    raise CheckCondition(SenseKey.DATA_PROTECT, lu.write_protection)
                if self._masks and self.read_only(nexus):
                    raise CheckCondition(SenseKey.DATA_PROTECT, AscAscq.WRITE_PROTECTED)
            if lu.pair is not None:
                refused = lu.pair.refuse(nexus, writes=row.writes)
                if refused is not _GOOD:
                    return TaskOutcome(refused)
        return CommandContext(self, lu, task, cdb, row)

    def _execute_without_unit(self, task: ScsiTask) -> TaskOutcome:
        """A LUN where no unit is (SPC-4 6.4.1, 6.35.1, 6.39.1): these three answer, anything else is 25h/00h."""
        cdb = task.cdb.ljust(_CDB_LENGTH, b"\0")
        not_supported = CheckCondition(SenseKey.ILLEGAL_REQUEST, AscAscq.LOGICAL_UNIT_NOT_SUPPORTED)
        if cdb[0] == OperationCode.INQUIRY and not cdb[1] and not cdb[2]:
            data = pages.standard_inquiry("PAIRVOL", "", "", present=False)[: cdb[3] << 8 | cdb[4]]
        elif cdb[0] == OperationCode.REPORT_LUNS and cdb[2] <= 0x02 and int.from_bytes(cdb[6:10], "big") >= 16:
            luns = [] if cdb[2] == 0x01 else sorted(self.units_of(task.nexus))
            data = pages.report_luns(luns)[: int.from_bytes(cdb[6:10], "big")]
        elif cdb[0] == OperationCode.REQUEST_SENSE:
            sense = SenseData(not_supported.sense_key, not_supported.asc_ascq)
            data = encode_sense(sense, descriptor_format=bool(cdb[1] & 0x01))[: cdb[4]]
        else:
            return _check_condition(not_supported, None)
        return TaskOutcome(data_in=data, transfer_length_bytes=len(data))

    async def _wait_for_turn(self, lu: LogicalUnit, task: ScsiTask) -> None:
        """SAM-5 8.7. ACA does not exist here (NORMACA 0), so that a task of that attribute is an error."""
        if task.attribute is TaskAttribute.ACA:
            raise CheckCondition(SenseKey.ILLEGAL_REQUEST, AscAscq.INVALID_MESSAGE_ERROR)
        blockers = lu.tasks.blockers(task)
        if blockers:
            turn = Event()
            lu.tasks.when_ended(blockers, turn.set)
            lu.tasks.waiting_for_turn.append(task)
            try:
                await turn.wait()
            finally:
                lu.tasks.waiting_for_turn = [other for other in lu.tasks.waiting_for_turn if other is not task]
        if task.aborted:
            raise CheckCondition(SenseKey.ABORTED_COMMAND, AscAscq.NO_ADDITIONAL_SENSE)  # not sent: it was aborted

    # --- task management

    async def manage(
        self, nexus: ITNexus, function: TaskFunction, lun: int, referenced_tag: int
    ) -> TaskFunctionResponse:
        """Answers when the function has done its work: no aborted task writes after COMPLETE (SAM-5 7)."""
        if function in (TaskFunction.TARGET_WARM_RESET, TaskFunction.TARGET_COLD_RESET):
            if function is TaskFunction.TARGET_COLD_RESET and self.units_of(nexus) is not self.logical_units:
                # It would end the sessions of those whose units this nexus must not even see (RFC 7143 §11.5.1).
                return TaskFunctionResponse.AUTHORIZATION_FAILED
            for lu in list(self.units_of(nexus).values()):
                await self._reset(lu, AscAscq.SCSI_BUS_RESET_OCCURRED)
            return TaskFunctionResponse.COMPLETE
        if function is TaskFunction.TASK_REASSIGN:
            return TaskFunctionResponse.REASSIGN_NOT_SUPPORTED
        if function is TaskFunction.CLEAR_ACA:
            return TaskFunctionResponse.NOT_SUPPORTED
        unit = self.units_of(nexus).get(lun)
        if unit is None:
            return TaskFunctionResponse.LUN_DOES_NOT_EXIST
        if function is TaskFunction.LOGICAL_UNIT_RESET:
            await self._reset(unit, AscAscq.BUS_DEVICE_RESET_FUNCTION_OCCURRED)
        elif function is TaskFunction.ABORT_TASK:
            task = unit.tasks.find(nexus, referenced_tag)
            if task is None:
                return TaskFunctionResponse.TASK_DOES_NOT_EXIST
            await _abort_and_wait(unit, [task])
        elif function is TaskFunction.ABORT_TASK_SET:
            await _abort_and_wait(unit, unit.tasks.of_nexus(nexus))
        elif function is TaskFunction.CLEAR_TASK_SET:
            for other in await _abort_and_wait(unit, unit.tasks.all()) - {nexus}:
                # TAS is 0: the others' tasks end without a status, so that they are told this way (SAM-5 5.6).
                unit.unit_attentions.establish(AscAscq.COMMANDS_CLEARED_BY_ANOTHER_INITIATOR, only=other)
        return TaskFunctionResponse.COMPLETE

    def luns_affected(self, nexus: ITNexus, function: TaskFunction, lun: int) -> Collection[int]:
        """The units where ``manage`` aborts the commands of every nexus: of those, the ones that ``nexus`` may see."""
        visible = self.units_of(nexus)
        if function is TaskFunction.TARGET_WARM_RESET:
            return set(visible)
        if function is TaskFunction.TARGET_COLD_RESET:
            return set(visible) if visible is self.logical_units else ()
        one_unit = function in (TaskFunction.CLEAR_TASK_SET, TaskFunction.LOGICAL_UNIT_RESET)
        return {lun} if one_unit and lun in visible else ()

    async def _reset(self, lu: LogicalUnit, condition: AscAscq) -> None:
        """The reservation falls after the last write under it has ended, not before."""
        await _abort_and_wait(lu, lu.tasks.all())
        lu.reset(condition)

    # --- nexuses

    def nexus_established(self, nexus: ITNexus, mask: LunMask | None = None) -> None:
        """``mask`` holds until the nexus is lost; None: it sees everything."""
        if mask is not None:
            self._masks[nexus] = mask
        self._nexuses.add(nexus)
        for lu in self.units_of(nexus).values():
            lu.unit_attentions.add_nexus(nexus)

    async def nexus_lost(self, nexus: ITNexus) -> None:
        """SAM-5 6.3.4: its tasks end, then its reservations and its prevention of removal (SPC-2 5.5.1)."""
        self._nexuses.discard(nexus)  # first: a unit that comes meanwhile must not take it for one that is there
        for lu in list(self.logical_units.values()):
            await _abort_and_wait(lu, lu.tasks.of_nexus(nexus))
            lu.reservation.drop(nexus)
            lu.prevents_removal.discard(nexus)
            lu.diagnostic_buffers.forget(nexus)
            lu.copies.drop(nexus)
            lu.unit_attentions.remove_nexus(nexus)
        self._masks.pop(nexus, None)

    # --- units that come and go

    def inventory_changed(self, lun: int) -> None:
        """A unit was put into ``logical_units`` or taken out: who may see it hears so at every other one it sees.

        SPC-4 6.35: REPORTED LUNS DATA HAS CHANGED. At the new unit itself they hear of its power on.
        """
        new = self.logical_units.get(lun)
        for nexus in self._nexuses:
            mask = self._masks.get(nexus)
            if mask is not None and mask.luns is not None and lun not in mask.luns:
                continue
            for lu in self.units_of(nexus).values():
                if lu is new:
                    lu.unit_attentions.add_nexus(nexus)
                else:
                    lu.unit_attentions.establish(AscAscq.REPORTED_LUNS_DATA_HAS_CHANGED, only=nexus)

    async def drained(self, lu: LogicalUnit) -> None:
        """Returns when every command that the unit has now has ended."""
        ended = Event()
        lu.tasks.when_ended(lu.tasks.all(), ended.set)
        await ended.wait()

    async def abort_all(self, lu: LogicalUnit) -> None:
        """The same, for commands that do not end by themselves."""
        await _abort_and_wait(lu, lu.tasks.all())


async def _abort_and_wait(lu: LogicalUnit, tasks: list[ScsiTask]) -> set[ITNexus]:
    """Abort, wait until all have ended, and return the nexuses they belonged to."""
    nexuses = abort(tasks)
    if tasks:
        ended = Event()
        lu.tasks.when_ended(tasks, ended.set)
        await ended.wait()
    return nexuses


def _unit_attention(lu: LogicalUnit, task: ScsiTask) -> AscAscq | None:
    """The condition that the command has to report."""
    return None if isinstance(task, CopyManagerTask) else lu.unit_attentions.peek(task.nexus)


def _reported(lu: LogicalUnit, task: ScsiTask) -> CheckCondition:
    condition = lu.unit_attentions.take(task.nexus)
    assert condition is not None
    return CheckCondition(SenseKey.UNIT_ATTENTION, condition)


def _check_accessible(lu: LogicalUnit, row: CommandRow) -> None:
    if lu.operation is not None:
        lu.operation.check(row)
    if row.touches_medium:
        check_ready(lu)


def _unsupported(operation_code_known: bool) -> CheckCondition:
    """SPC-4 4.2.5.2: an unknown service action is a bad field of a known command."""
    if operation_code_known:
        return invalid_field(1, 4)
    return CheckCondition(SenseKey.ILLEGAL_REQUEST, AscAscq.INVALID_COMMAND_OPERATION_CODE, field_pointer=0)


def _volume_sense(error: VolumeError, task: ScsiTask, lu: LogicalUnit) -> CheckCondition:
    match error:
        case SpaceExhausted():
            return CheckCondition(SenseKey.DATA_PROTECT, AscAscq.SPACE_ALLOCATION_FAILED_WRITE_PROTECT)
        case ReplicationRefused():
            return CheckCondition(SenseKey.DATA_PROTECT, AscAscq.WRITE_PROTECTED)
        case NotReady():
            return CheckCondition(SenseKey.NOT_READY, AscAscq.LOGICAL_UNIT_NOT_READY_CAUSE_NOT_REPORTABLE)
        case MediumFailure():
            entry = ROWS_BY_OPCODE[task.cdb[0]]
            writes = isinstance(entry, CommandRow) and (entry.writes or entry.operation_code in _FLUSHING)
            lu.error_counters.count(task.cdb[0], writes=writes)
            return CheckCondition(
                SenseKey.MEDIUM_ERROR,
                AscAscq.WRITE_ERROR if writes else AscAscq.UNRECOVERED_READ_ERROR,
                # The first block that could not be read or written, where that is known (SBC-3 4.18.1).
                information=None if error.offset_bytes is None else error.offset_bytes // lu.block_length,
            )
        case _:
            return CheckCondition(SenseKey.HARDWARE_ERROR, AscAscq.INTERNAL_TARGET_FAILURE)


def _check_condition(error: CheckCondition, lu: LogicalUnit | None) -> TaskOutcome:
    """Where sense data is made, in the format that the control mode page asks for (SPC-4 7.5.8, D_SENSE)."""
    return TaskOutcome(
        ScsiStatus.CHECK_CONDITION,
        sense=encode_sense(sense_of(error), descriptor_format=lu is not None and lu.descriptor_sense),
    )
