"""The task set of one logical unit, and what task management does to it (SAM-5 7 and 8)."""

from collections.abc import Callable
from typing import Final

from storage_model.nexus import ITNexus
from storage_model.spec.scsi_task import TaskAttribute
from target.scsi.task import ScsiTask

TASK_SET_LIMIT = 2048
"""Commands in one task set; the next is answered TASK SET FULL. Well above what the CmdSN windows let in."""

_ORDERED: Final = TaskAttribute.ORDERED  # each access to a member of an enumeration runs a function of Python 3.11


class TaskSet:
    """Commands that have entered the device server and not ended yet.

    Aborting marks a task; it ends when its handler returns, since a write that a thread has begun cannot be called
    back. Whoever must know that nothing is written late waits with :meth:`when_ended`.
    """

    __slots__ = ("_tasks", "_watchers", "ordered", "waiting_for_turn")

    def __init__(self) -> None:
        self._tasks: dict[int, ScsiTask] = {}  # by id(): a task is itself, and tags are unique per nexus only
        self._watchers: list[tuple[set[int], Callable[[], None]]] = []
        self.ordered: list[ScsiTask] = []
        """ORDERED tasks that have not ended: while there is one, later tasks wait (SAM-5 8.7)."""
        self.waiting_for_turn: list[ScsiTask] = []

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def full(self) -> bool:
        return len(self._tasks) >= TASK_SET_LIMIT

    def enter(self, task: ScsiTask) -> None:
        """Only when the set is not full."""
        self._tasks[id(task)] = task
        if task.attribute is _ORDERED:
            self.ordered.append(task)

    def leave(self, task: ScsiTask) -> None:
        key = id(task)
        del self._tasks[key]
        if task.attribute is _ORDERED:
            self.ordered = [other for other in self.ordered if other is not task]
        if self._watchers:
            self._notify(key)

    def blockers(self, task: ScsiTask) -> list[ScsiTask]:
        """Older tasks that must end before ``task`` starts (SAM-5 8.7.2, 8.7.3).

        An ORDERED task waits for all older ones; a SIMPLE one for the older ORDERED ones; HEAD OF QUEUE for none.
        """
        if task.attribute is TaskAttribute.HEAD_OF_QUEUE:
            return []
        older = []
        for other in self._tasks.values():
            if other is task:
                break
            if task.attribute is TaskAttribute.ORDERED or other.attribute is TaskAttribute.ORDERED:
                older.append(other)
        return older

    def find(self, nexus: ITNexus, tag: int) -> ScsiTask | None:
        for task in self._tasks.values():
            if task.tag == tag and task.nexus == nexus:
                return task
        return None

    def waits_for_turn(self, task: ScsiTask) -> bool:
        return any(other is task for other in self.waiting_for_turn)

    def of_nexus(self, nexus: ITNexus) -> list[ScsiTask]:
        return [task for task in self._tasks.values() if task.nexus == nexus]

    def all(self) -> list[ScsiTask]:
        return list(self._tasks.values())

    def when_ended(self, tasks: list[ScsiTask], notify: Callable[[], None]) -> None:
        """Call ``notify`` once, when every one of ``tasks`` has left; at once if none is here."""
        waiting = {id(task) for task in tasks if self._tasks.get(id(task)) is task}
        if waiting:
            self._watchers.append((waiting, notify))
        else:
            notify()

    def _notify(self, key: int) -> None:
        watchers, self._watchers = self._watchers, []
        for waiting, notify in watchers:
            waiting.discard(key)
            if waiting:
                self._watchers.append((waiting, notify))
            else:
                notify()


def abort(tasks: list[ScsiTask]) -> set[ITNexus]:
    """Mark tasks aborted: they write nothing more and are not answered. Returns the nexuses they belong to."""
    for task in tasks:
        task.aborted = True
        if task.on_abort is not None:
            task.on_abort()
    return {task.nexus for task in tasks}
