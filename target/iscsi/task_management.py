"""Task management requests of one session: what the connection answers itself, what it hands on (RFC 7143 §11.5)."""

from collections.abc import Callable

from storage_model.errors import RemoteProtocolError
from storage_model.spec.iscsi_pdu import RESERVED_TAG, RejectReason, TaskManagementRequestPdu, lun_from_bytes
from storage_model.spec.iscsi_stream import RawPdu
from storage_model.spec.scsi_task import TaskFunction, TaskFunctionResponse
from storage_model.spec.serial_number import serial_lt
from target.iscsi.events import TaskManagementReceived
from target.iscsi.outstanding_commands import OutstandingCommands
from target.iscsi.session import CommandWindow

ABORTS_ALL = (TaskFunction.TARGET_WARM_RESET, TaskFunction.TARGET_COLD_RESET)
_ABORTS_LUN = (TaskFunction.ABORT_TASK_SET, TaskFunction.CLEAR_TASK_SET, TaskFunction.LOGICAL_UNIT_RESET)
_FUNCTIONS = frozenset(TaskFunction)


class TaskManagementRequests:
    """Those that are not answered yet, by ITT; at most ``limit``."""

    def __init__(self, window: CommandWindow[RawPdu], limit: int) -> None:
        self._window = window
        self._limit = limit
        self._itts: set[int] = set()

    def __len__(self) -> int:
        return len(self._itts)

    def done(self, itt: int) -> None:
        self._itts.discard(itt)

    def receive(
        self, pdu: TaskManagementRequestPdu, tasks: OutstandingCommands, deliver: Callable[[RawPdu], None]
    ) -> TaskManagementReceived | TaskFunctionResponse:
        """What the SCSI side has to do, or the response where it has nothing to do with it.

        ``deliver`` takes what an aborted number held up. Raises RemoteProtocolError (a RejectReason).
        """
        if pdu.itt == RESERVED_TAG or pdu.itt in self._itts or pdu.itt in tasks:
            raise RemoteProtocolError("ITT is in use", RejectReason.TASK_IN_PROGRESS)
        if len(self._itts) >= self._limit:
            raise RemoteProtocolError("too much task management", RejectReason.IMMEDIATE_COMMAND_REJECT)
        self._itts.add(pdu.itt)
        if pdu.function not in _FUNCTIONS:
            return TaskFunctionResponse.NOT_SUPPORTED
        function, lun = TaskFunction(pdu.function), lun_from_bytes(pdu.lun)
        if function is TaskFunction.TASK_REASSIGN:
            return TaskFunctionResponse.REASSIGN_NOT_SUPPORTED
        if function is TaskFunction.ABORT_TASK and self._abort_here(pdu, lun, tasks, deliver):
            return TaskFunctionResponse.COMPLETE
        if function in _ABORTS_LUN or function in ABORTS_ALL:
            # Now, since what comes after this request in the same receive is not affected.
            tasks.abort_not_running(lambda command: function in ABORTS_ALL or command.lun == lun)
        return TaskManagementReceived(pdu.itt, function, lun, pdu.referenced_task_tag)

    def _abort_here(
        self, pdu: TaskManagementRequestPdu, lun: int, tasks: OutstandingCommands, deliver: Callable[[RawPdu], None]
    ) -> bool:
        """ABORT TASK of a command that the SCSI side has not seen (§11.5.1, §11.6.1)."""
        itt = pdu.referenced_task_tag
        if tasks.abort_not_running(lambda command: command.itt == itt and command.lun == lun):
            return True
        # On its way, or waiting for a hole to be filled: its number counts as received, the command will not run.
        if itt in tasks or not serial_lt(pdu.ref_cmd_sn, pdu.cmd_sn) or not self._window.open(pdu.ref_cmd_sn):
            return False
        for ready in self._window.cancel(pdu.ref_cmd_sn):
            deliver(ready)
        return True
