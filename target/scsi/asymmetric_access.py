"""Asymmetric logical unit access: the states of the target port groups, and what runs in each (SPC-4 5.15.2).

Each target port is a group of its own, of the same number, and a group's state holds for every logical unit.
"""

from collections.abc import Iterable, Mapping

from storage_model.errors import CheckCondition
from storage_model.spec.scsi_cdb import MaintenanceIn, MaintenanceOut, OperationCode, ServiceActionIn16
from storage_model.spec.scsi_sense import AscAscq, SenseKey
from storage_model.spec.scsi_target_port_groups import AccessState, StatusCode, TargetPortGroup
from target.scsi.command_row import CommandRow

_C = OperationCode
_IN_ANY_STATE: frozenset[tuple[int, int | None]] = frozenset(
    {
        (_C.INQUIRY, None),
        (_C.REPORT_LUNS, None),
        (_C.REQUEST_SENSE, None),
        (_C.MAINTENANCE_IN, MaintenanceIn.REPORT_TARGET_PORT_GROUPS),
        (_C.MAINTENANCE_OUT, MaintenanceOut.SET_TARGET_PORT_GROUPS),
        # Not in the standard's lists, which say what must run, not what may: they are asked before anything else.
        (_C.MAINTENANCE_IN, MaintenanceIn.REPORT_SUPPORTED_OPERATION_CODES),
        (_C.MAINTENANCE_IN, MaintenanceIn.REPORT_SUPPORTED_TASK_MANAGEMENT_FUNCTIONS),
    }
)
"""SPC-4 5.15.2.4.5: what runs in the unavailable state, and so in standby, too."""

_IN_STANDBY = frozenset(
    {
        _C.MODE_SELECT_6,
        _C.MODE_SENSE_6,
        _C.MODE_SELECT_10,
        _C.MODE_SENSE_10,
        _C.LOG_SELECT,
        _C.LOG_SENSE,
        _C.PERSISTENT_RESERVE_IN,
        _C.PERSISTENT_RESERVE_OUT,
    }
)
"""SPC-4 5.15.2.4.4: what runs in standby beside these, with any service action."""
_CAPACITY = frozenset({(_C.READ_CAPACITY_10, None), (_C.SERVICE_ACTION_IN_16, ServiceActionIn16.READ_CAPACITY_16)})
"""Allowed in standby beyond the list: an initiator that cannot size a disk on its standby path drops that path."""
_PAIR_CONTROL = frozenset({_C.PAIR_CONTROL_IN, _C.PAIR_CONTROL_OUT})
"""Ours: who is about to move a pair to the other array comes this way, in every state."""
_BUFFERS = frozenset({_C.WRITE_BUFFER, _C.READ_BUFFER_10})
_ECHO_MODES = frozenset({0x0A, 0x0B})  # echo buffer, and its descriptor

_NOT_ACCESSIBLE = {
    AccessState.STANDBY: AscAscq.LOGICAL_UNIT_NOT_ACCESSIBLE_TARGET_PORT_IN_STANDBY_STATE,
    AccessState.UNAVAILABLE: AscAscq.LOGICAL_UNIT_NOT_ACCESSIBLE_TARGET_PORT_IN_UNAVAILABLE_STATE,
}


class TargetPortGroups:
    """The groups' states by number. All are active/optimized until somebody says otherwise."""

    def __init__(self, groups: Iterable[int] = (1,)) -> None:
        self._states = dict.fromkeys(sorted(groups), AccessState.ACTIVE_OPTIMIZED)
        self._status = dict.fromkeys(self._states, StatusCode.NONE)
        self.restricted: dict[int, AccessState] = {}
        """The groups in standby or unavailable: usually none, and all that the data path looks at."""

    def __contains__(self, group: int) -> bool:
        return group in self._states

    def __len__(self) -> int:
        return len(self._states)

    @property
    def numbers(self) -> tuple[int, ...]:
        return tuple(self._states)

    def state(self, group: int) -> AccessState:
        return self._states[group]

    def replace(self, states: Mapping[int, AccessState]) -> None:
        """These are the groups now, and that is how they begin."""
        self._states = dict(sorted(states.items()))
        self._status = dict.fromkeys(self._states, StatusCode.NONE)
        self._restrict()

    def change(self, states: Mapping[int, AccessState], status: StatusCode) -> dict[int, AccessState]:
        """Put groups into states; those that were in another one. Every group must be there."""
        changed = {group: state for group, state in states.items() if self._states[group] is not state}
        for group, state in changed.items():
            self._states[group], self._status[group] = state, status
        self._restrict()
        return changed

    def _restrict(self) -> None:
        self.restricted.clear()
        self.restricted.update((group, state) for group, state in self._states.items() if state in _NOT_ACCESSIBLE)

    def descriptors(self) -> list[TargetPortGroup]:
        """In the form of REPORT TARGET PORT GROUPS: one port in each group, of the same number."""
        return [TargetPortGroup(group, state, (group,), self._status[group]) for group, state in self._states.items()]

    def check(self, group: int, row: CommandRow, cdb: bytes) -> None:
        """Raises CheckCondition for a command that does not run in the state that the group is in."""
        state = self.restricted.get(group)
        if state is not None and not _runs(state, row, cdb):
            raise CheckCondition(SenseKey.NOT_READY, _NOT_ACCESSIBLE[state])


def _runs(state: AccessState, row: CommandRow, cdb: bytes) -> bool:
    code, key = row.operation_code, (row.operation_code, row.service_action)
    if key in _IN_ANY_STATE or code in _PAIR_CONTROL:
        return True
    if code in _BUFFERS:
        return cdb[1] & 0x1F in _ECHO_MODES
    if state is not AccessState.STANDBY:
        return False
    return code in _IN_STANDBY or key in _CAPACITY
