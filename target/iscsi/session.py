"""A session: its negotiated parameters, its CmdSN window, and the table of all sessions (RFC 7143 §4.2)."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from storage_model.spec.serial_number import in_window, serial_add

T = TypeVar("T")
MAX_TSIH = 0xFFFF


@dataclass(slots=True)
class SessionParameters:
    """Negotiated values, here with the standard's defaults (§13). Lengths in bytes.

    ``max_recv_data_segment_length`` is ours, ``initiator_max_recv_data_segment_length`` the peer's.
    """

    header_digest: bool = False
    data_digest: bool = False
    initial_r2t: bool = True
    immediate_data: bool = True
    max_burst_length: int = 262144
    first_burst_length: int = 65536
    max_outstanding_r2t: int = 1
    max_recv_data_segment_length: int = 8192
    initiator_max_recv_data_segment_length: int = 8192


class CommandWindow(Generic[T]):
    """CmdSN ordering and flow control (§4.2.2.1).

    ``active`` counts commands that were delivered and are not answered yet: each keeps one place of the window, so
    MaxCmdSN never goes back. At most ``size`` items wait for a hole to be filled.
    """

    def __init__(self, first_cmd_sn: int, size: int) -> None:
        self.exp_cmd_sn = first_cmd_sn
        self.active = 0
        self._size = size
        self._waiting: dict[int, T | None] = {}

    @property
    def max_cmd_sn(self) -> int:
        return (self.exp_cmd_sn + self._size - self.active - 1) & 0xFFFFFFFF

    def take(self, cmd_sn: int) -> bool:
        """True when that number is the next and nothing waits: it counts as received. Else :meth:`receive` decides."""
        if cmd_sn != self.exp_cmd_sn or self._waiting or self.active >= self._size:
            return False
        self.exp_cmd_sn = (cmd_sn + 1) & 0xFFFFFFFF
        return True

    def open(self, cmd_sn: int) -> bool:
        """True when a command of that number would be taken in."""
        return in_window(cmd_sn, self.exp_cmd_sn, self.max_cmd_sn)

    def receive(self, cmd_sn: int, item: T) -> list[T]:
        """The items that can now be delivered, in order.

        A number outside of the window, or one that came already, is ignored silently, as the standard demands.
        """
        if self.take(cmd_sn):
            return [item]
        if not self.open(cmd_sn) or cmd_sn in self._waiting:
            return []
        self._waiting[cmd_sn] = item
        return self._deliver()

    def cancel(self, cmd_sn: int) -> list[T]:
        """The number counts as received, its item will not be delivered; the items that this lets through."""
        if self.open(cmd_sn):
            self._waiting[cmd_sn] = None
        return self._deliver()

    def _deliver(self) -> list[T]:
        ready: list[T] = []
        while self.exp_cmd_sn in self._waiting:
            item = self._waiting.pop(self.exp_cmd_sn)
            self.exp_cmd_sn = serial_add(self.exp_cmd_sn, 1)
            if item is not None:
                ready.append(item)
        return ready


@dataclass(frozen=True, slots=True)
class SessionKey:
    """One session per initiator port and target portal group (§4.4.3): a second login reinstates."""

    initiator_name: str
    isid: bytes
    portal_group_tag: int = 1


class SessionTable(Generic[T]):
    """Sessions by initiator port, with their TSIHs. ``T`` is what the portal keeps for one session."""

    def __init__(self) -> None:
        self._sessions: dict[SessionKey, tuple[int, T]] = {}
        self._tsihs: set[int] = set()  # of the sessions above, so that a login does not look at all of them
        self._last_tsih = 0

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, key: SessionKey) -> T | None:
        entry = self._sessions.get(key)
        return entry[1] if entry else None

    def new_tsih(self) -> int:
        """Never 0, never that of a living session. The number of sessions is far below 2**16."""
        assert len(self._tsihs) < MAX_TSIH - 1
        tsih = self._last_tsih % MAX_TSIH + 1
        while tsih in self._tsihs:
            tsih = tsih % MAX_TSIH + 1
        self._last_tsih = tsih
        return tsih

    def add(self, key: SessionKey, session: T) -> int:
        """Its new TSIH."""
        assert key not in self._sessions, "a session must end before it is reinstated"
        tsih = self.new_tsih()
        self._sessions[key] = (tsih, session)
        self._tsihs.add(tsih)
        return tsih

    def remove(self, key: SessionKey, session: T) -> None:
        """Takes the session out, unless it is not in (any more)."""
        if self.get(key) is session:
            self._tsihs.discard(self._sessions.pop(key)[0])

    def has_tsih(self, key: SessionKey, tsih: int) -> bool:
        entry = self._sessions.get(key)
        return entry is not None and entry[0] == tsih
