"""What a logical unit's copy manager remembers of its copies, for RECEIVE COPY RESULTS (SPC-4 6.4.3.2)."""

from dataclasses import dataclass

from storage_model.nexus import ITNexus
from storage_model.spec.scsi_copy import (
    MAXIMUM_CONCURRENT_COPIES,
    CopyCommandStatus,
    CopyRequest,
    ListIdUsage,
)

REMEMBERED_COPIES = 256
"""Copies that have ended and whose list identifier is kept; the oldest is forgotten first."""


@dataclass(slots=True)
class CopyOperation:
    """One EXTENDED COPY; ``sense`` is what a failed one ended with."""

    nexus: ITNexus
    list_identifier: int
    usage: ListIdUsage
    status: CopyCommandStatus = CopyCommandStatus.IN_PROGRESS
    segments_processed: int = 0
    transferred_bytes: int = 0
    sense: bytes = b""


class CopyOperations:
    """By I_T nexus and list identifier: one initiator never meets the copies of another."""

    __slots__ = ("_identified", "_running")

    def __init__(self) -> None:
        self._identified: dict[tuple[ITNexus, int], CopyOperation] = {}
        self._running = 0

    @property
    def full(self) -> bool:
        return self._running >= MAXIMUM_CONCURRENT_COPIES

    def begin(self, nexus: ITNexus, request: CopyRequest) -> CopyOperation | None:
        """None: the nexus has a copy under way by that list identifier."""
        copy = CopyOperation(nexus, request.list_identifier, request.list_id_usage)
        if copy.usage is not ListIdUsage.NO_LIST_ID:
            key = nexus, copy.list_identifier
            before = self._identified.pop(key, None)
            if before is not None and before.status is CopyCommandStatus.IN_PROGRESS:
                self._identified[key] = before
                return None
            self._identified[key] = copy
        self._running += 1
        return copy

    def end(self, copy: CopyOperation) -> None:
        self._running -= 1
        if self._identified.get((copy.nexus, copy.list_identifier)) is not copy:
            return
        if copy.usage is ListIdUsage.DISCARD:
            del self._identified[copy.nexus, copy.list_identifier]
        elif len(self._identified) > REMEMBERED_COPIES:
            ended = (key for key, old in self._identified.items() if old.status is not CopyCommandStatus.IN_PROGRESS)
            del self._identified[next(ended)]

    def find(self, nexus: ITNexus, list_identifier: int) -> CopyOperation | None:
        return self._identified.get((nexus, list_identifier))

    def forget(self, copy: CopyOperation) -> None:
        """Its details have been read."""
        self._identified.pop((copy.nexus, copy.list_identifier), None)

    def drop(self, nexus: ITNexus | None = None) -> None:
        """The nexus was lost, or the unit reset (None: of every nexus); no copy of theirs is under way any more."""
        self._identified = {
            key: copy
            for key, copy in self._identified.items()
            if (nexus is not None and key[0] != nexus) or copy.status is CopyCommandStatus.IN_PROGRESS
        }
