"""How many bytes of answers wait for a peer that does not read them.

A peer bounds what it asks for at once (``link_transport.READS_AT_ONCE``), so one that reads never has so many waiting.
To read nothing from it instead would end in two arrays that both wait for the other one to read.
"""

from collections import deque

from storage_model.spec.copy_frames import HEADER_LENGTH, MAX_READ_LENGTH, Frame

READS_AT_ONCE = 32
LIMIT_BYTES = 2 * READS_AT_ONCE * MAX_READ_LENGTH
"""Twice of what a peer reads at once: it asks for more than volumes' data."""
_OVERHEAD_BYTES = 256
"""Of an answer's objects in memory: most answers have no payload."""


class UnreadAnswers:
    """Counts by what was queued in the same stream before; while everything leaves at once, nothing counts."""

    def __init__(self) -> None:
        self._queued = 0
        self._answers: deque[tuple[int, int]] = deque()
        self._bytes = 0

    @property
    def too_many(self) -> bool:
        """True for a peer that asks, and does not read."""
        return self._bytes > LIMIT_BYTES

    def answer(self, frame: Frame) -> None:
        """An answer, or a notice, goes to the end of the queue."""
        size = HEADER_LENGTH + len(frame.payload) + _OVERHEAD_BYTES
        self._answers.append((self._queued, size))
        self._bytes += size

    def queued(self, length_bytes: int) -> None:
        """Bytes of any kind were added to the queue."""
        self._queued += length_bytes

    def waiting(self, length_bytes: int) -> None:
        """The queue is so long now: what was in front of that has left."""
        left = self._queued - length_bytes
        while self._answers and (not length_bytes or self._answers[0][0] < left):
            self._bytes -= self._answers.popleft()[1]
