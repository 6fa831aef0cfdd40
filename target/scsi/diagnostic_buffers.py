"""The buffers of READ BUFFER and WRITE BUFFER: memory that holds no block of any volume (SPC-4 6.18, 6.49)."""

from storage_model.nexus import ITNexus

DATA_BUFFER_BYTES = 64 << 10
ECHO_BUFFER_BYTES = 4096
ECHO_BUFFERS = 64
"""Nexuses that have an echo buffer at a time: one more takes the place of the oldest."""


class DiagnosticBuffers:
    """One data buffer per logical unit, made at its first use, and an echo buffer for each nexus that wrote one."""

    __slots__ = ("_data", "_echoes", "_overwritten")

    def __init__(self) -> None:
        self._data = bytearray()
        self._echoes: dict[ITNexus, bytes] = {}
        self._overwritten: dict[ITNexus, None] = {}

    def write_data(self, offset: int, data: bytes) -> None:
        """``offset + len(data)`` is at most the buffer's size."""
        if not self._data:
            self._data = bytearray(DATA_BUFFER_BYTES)
        self._data[offset : offset + len(data)] = data

    def read_data(self, offset: int, length: int) -> bytes:
        """Fewer bytes at the end of the buffer; zeros where nothing was written."""
        length = min(length, DATA_BUFFER_BYTES - offset)
        return bytes(self._data[offset : offset + length]) if self._data else bytes(length)

    def write_echo(self, nexus: ITNexus, data: bytes) -> None:
        """``data`` is at most the echo buffer's size."""
        self._overwritten.pop(nexus, None)
        if nexus not in self._echoes and len(self._echoes) >= ECHO_BUFFERS:
            oldest = next(iter(self._echoes))
            del self._echoes[oldest]
            self._overwritten[oldest] = None
            if len(self._overwritten) > ECHO_BUFFERS:
                del self._overwritten[next(iter(self._overwritten))]
        self._echoes[nexus] = data

    def read_echo(self, nexus: ITNexus) -> bytes | None:
        """What the nexus wrote last; None when it wrote nothing."""
        return self._echoes.get(nexus)

    def echo_overwritten(self, nexus: ITNexus) -> bool:
        """Whether what the nexus wrote had to make room for another's. Told once, as a status is."""
        if nexus not in self._overwritten:
            return False
        del self._overwritten[nexus]
        return True

    def forget(self, nexus: ITNexus) -> None:
        """The nexus is gone, and what it wrote with it."""
        self._echoes.pop(nexus, None)
        self._overwritten.pop(nexus, None)
