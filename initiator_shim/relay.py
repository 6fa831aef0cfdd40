"""The inline filter: iSCSI PDUs between one host connection and one array connection, sans-IO.

Everything passes through unchanged (Figure 6), but for three things. Login text is watched, and what a relay cannot
honour is negotiated down. Addresses that would lead the host past the shim become the shim's own. And a RESERVE that
the array answered with GOOD is not answered to the host until it has been arbitrated (Figure 5): the direction from
array to host stands still, the GOOD with it, until :meth:`Relay.arbitration_decided` lets it out as GOOD or as
RESERVATION CONFLICT.

After login the relay sees only the PDUs that this takes (:class:`PduScan`); all others go on in the memory that they
arrived in, digests and all, even before they have arrived whole.

A RESERVE that the host has aborted (or whose logical unit or target it resets, or whose session it logs out) while it
was under way or held never ends with GOOD: the order of StatSN puts its response before that of the abort, an initiator
may believe it, and by then the claim is withdrawn.
"""

from dataclasses import dataclass, replace

from initiator_shim.pdu_scan import Interest, PduScan
from initiator_shim.relay_text import MAX_RECV_DATA_SEGMENT_LENGTH, LoginWatch, TextStream
from storage_model.errors import RemoteProtocolError
from storage_model.nexus import ITNexus
from storage_model.spec.iscsi_codes import LoginStatus, Opcode, RejectReason, Stage, lun_from_bytes
from storage_model.spec.iscsi_stream import RawPdu, encode_pdu
from storage_model.spec.scsi_cdb import OperationCode
from storage_model.volume import Buffer

HELD_BACK_BYTES_MAX = 1 << 20  # from the array, behind a held response; then its socket is not read
RESERVES_MAX = 256

_LOGIN_SEGMENT_LENGTH = 8192
_PROTOCOL_ERROR = RejectReason.PROTOCOL_ERROR
_GOOD, _RESERVATION_CONFLICT = 0x00, 0x18  # SAM-5 5.3.1
_RESERVES = frozenset((OperationCode.RESERVE_6, OperationCode.RESERVE_10))
_LOGGED_OUT = 0  # RFC 7143 §11.15.1
_ABORT_TASK = 1  # RFC 7143 §11.5.1
_ONE_UNIT = (2, 4, 5)  # ABORT TASK SET, CLEAR TASK SET, LOGICAL UNIT RESET
_WHOLE_TARGET = (6, 7)  # TARGET WARM RESET, TARGET COLD RESET

_OF_THE_HOST: dict[int, Interest] = {
    Opcode.SCSI_COMMAND: Interest.TAG_OR_OPERATION,
    Opcode.TASK_MANAGEMENT_REQUEST: Interest.ALWAYS,
    Opcode.TEXT_REQUEST: Interest.ALWAYS,
    Opcode.LOGOUT_REQUEST: Interest.ALWAYS,
}
_OF_THE_ARRAY: dict[int, Interest] = {
    Opcode.SCSI_RESPONSE: Interest.TAG,
    Opcode.DATA_IN: Interest.TAG,
    Opcode.TEXT_RESPONSE: Interest.ALWAYS,
    Opcode.LOGOUT_RESPONSE: Interest.ALWAYS,
    Opcode.REJECT: Interest.ALWAYS,
}


@dataclass(frozen=True, slots=True)
class LoginStarted:
    """The host has named itself: time to connect to the array. ``target_name`` is None for discovery."""

    initiator_name: str
    isid: bytes
    target_name: str | None


@dataclass(frozen=True, slots=True)
class Redirected:
    """The array sends the host to ``address`` (``host:port``); the host was told to come back here."""

    initiator_name: str
    address: str


@dataclass(frozen=True, slots=True)
class ArbitrationNeeded:
    """The array answered a RESERVE with GOOD (112); the answer is held. Ask :meth:`Relay.is_wanted` before deciding."""

    nexus: ITNexus
    lun: int
    itt: int


Event = LoginStarted | Redirected | ArbitrationNeeded


@dataclass(slots=True)
class _Reserve:
    itt: int
    lun: int
    aborted: bool = False


class Relay:
    """One host connection and its array connection.

    ``own_address`` is the shim's, as the host reaches it: ``host:port``. The ``receive`` methods raise
    RemoteProtocolError (reason: a RejectReason) when one side cannot be followed any further: both connections must
    then be closed.
    """

    def __init__(self, own_address: str, target_port: int = 1) -> None:
        self._login = LoginWatch(own_address)
        self._target_port = target_port
        self._isid = bytes(6)
        self.in_login = True
        self._login_seen = False
        self._from_host = PduScan(_LOGIN_SEGMENT_LENGTH)
        self._from_array = PduScan(_LOGIN_SEGMENT_LENGTH)
        self._host_text = TextStream(self._login.from_host)
        self._array_text = TextStream(self._login.from_array)
        self._to_host: list[Buffer] = []
        self._to_array: list[Buffer] = []
        self._reserves: dict[int, _Reserve] = {}  # sent to the array, not answered yet
        self._held: _Reserve | None = None
        self._held_response: RawPdu | None = None
        self._held_back = bytearray()  # what the array has sent behind it, unread
        self._logout_itt: int | None = None
        self.logged_out = False
        """The array has confirmed the host's logout: that the connection ends is in good order."""
        self.closed = False

    @property
    def initiator_name(self) -> str:
        """As the host spells it, empty before it does. Until the array has accepted it, nobody has looked at it."""
        return self._login.initiator_name

    @property
    def nexus(self) -> ITNexus:
        """The I_T nexus that the array sees."""
        return ITNexus(self._login.initiator_name, self._isid, self._target_port)

    @property
    def target_name(self) -> str | None:
        return self._login.target_name

    @property
    def discovery(self) -> bool:
        """The host has asked for a discovery session (RFC 7143 §13.21)."""
        return self._login.discovery

    def array_connected(self, address: str) -> None:
        """``address``, ``host:port``, is where the array was reached: the host is told that portal's group."""
        self._login.array_address = address

    @property
    def wants_array_data(self) -> bool:
        """False: leave the array's socket unread, so that the array stops sending."""
        return len(self._held_back) <= HELD_BACK_BYTES_MAX

    @property
    def holds(self) -> bool:
        """A response is held, and what the array sends is held back."""
        return self._held is not None

    def data_to_host(self) -> list[Buffer]:
        """What to write next; parts of what was received, so that it must be written before that memory is reused."""
        outgoing, self._to_host = self._to_host, []
        return outgoing

    def data_to_array(self) -> list[Buffer]:
        """As :meth:`data_to_host`."""
        outgoing, self._to_array = self._to_array, []
        return outgoing

    def unseen(self, *, from_host: bool) -> int:
        """How many of the bytes that come next from one side may go to the other without having been received here."""
        if self.closed or (self._held is not None and not from_host):
            return 0
        return (self._from_host if from_host else self._from_array).unseen

    def passed_unseen(self, count: int, *, from_host: bool) -> None:
        """So many did."""
        (self._from_host if from_host else self._from_array).passed_unseen(count)

    def connection_lost(self) -> None:
        """Either connection is gone, and with it the nexus: what is held must never come out."""
        self.closed = True
        self._held_back = bytearray()
        self._reserves.clear()

    # ------------------------------------------------------------------------------------------------ host to array

    def receive_from_host(self, data: Buffer) -> list[Event]:
        events: list[Event] = []
        view, position = memoryview(data), 0
        while position < len(view):
            position, raw = self._from_host.advance(view, position, self._to_array)
            if raw is not None:
                self._relay_to_array(raw, events)
        return events

    def _relay_to_array(self, raw: RawPdu, events: list[Event]) -> None:
        self._check_digest(raw)
        match raw.opcode:
            case Opcode.SCSI_COMMAND:
                self._note_command(raw)
            case Opcode.LOGIN_REQUEST if self.in_login:
                raw = self._login_request(raw, events)
            case Opcode.TEXT_REQUEST:
                raw = self._text(raw, self._host_text, self._login.array_segment_limit)
            case Opcode.TASK_MANAGEMENT_REQUEST:
                self._note_task_management(raw)
            case Opcode.LOGOUT_REQUEST:
                self._logout_itt = raw.itt
                self._abort_all()
        self._to_array += self._encoded(raw)

    def _note_command(self, raw: RawPdu) -> None:
        """Marks RESERVE(6) and RESERVE(10) by ITT (110, 111)."""
        if raw.bhs[32] in _RESERVES:
            if len(self._reserves) >= RESERVES_MAX:
                raise RemoteProtocolError("too many RESERVE commands at once", RejectReason.TASK_IN_PROGRESS)
            self._reserves[raw.itt] = _Reserve(raw.itt, lun_from_bytes(raw.bhs[8:16]))
        elif self._reserves:
            # An aborted RESERVE may end without a response; then its tag is free for another command.
            self._reserves.pop(raw.itt, None)

    def _note_task_management(self, raw: RawPdu) -> None:
        function, lun = raw.bhs[1] & 0x7F, lun_from_bytes(raw.bhs[8:16])
        referenced_task_tag = int.from_bytes(raw.bhs[20:24])
        for reserve in self._open_reserves():
            if (
                function in _WHOLE_TARGET
                or (function in _ONE_UNIT and reserve.lun == lun)
                or (function == _ABORT_TASK and reserve.itt == referenced_task_tag)
            ):
                reserve.aborted = True

    def _abort_all(self) -> None:
        for reserve in self._open_reserves():
            reserve.aborted = True

    def _open_reserves(self) -> list[_Reserve]:
        return [*self._reserves.values(), *([self._held] if self._held else [])]

    def _login_request(self, raw: RawPdu, events: list[Event]) -> RawPdu:
        self._isid = raw.bhs[8:14]
        relayed = self._text(raw, self._host_text, _LOGIN_SEGMENT_LENGTH)
        if not self._login_seen:
            self._login_seen = True
            target_name = None if self._login.discovery else self._login.target_name
            events.append(LoginStarted(self._login.initiator_name, self._isid, target_name))
        return relayed

    # ------------------------------------------------------------------------------------------------ array to host

    def receive_from_array(self, data: Buffer) -> list[Event]:
        events: list[Event] = []
        self._read_from_array(memoryview(data), events)
        return events

    def _read_from_array(self, view: memoryview, events: list[Event]) -> None:
        """Up to the next response that must be held; the rest is held back behind it."""
        position = 0
        while position < len(view):
            if self._held is not None:
                self._held_back += view[position:]
                return
            position, raw = self._from_array.advance(view, position, self._to_host)
            if raw is not None:
                self._relay_to_host(raw, events)

    def _relay_to_host(self, raw: RawPdu, events: list[Event]) -> None:
        self._check_digest(raw)
        login_ends = False
        match raw.opcode:
            case Opcode.SCSI_RESPONSE if raw.itt in self._reserves:
                if self._hold(raw, events):
                    return
            case Opcode.DATA_IN if raw.bhs[1] & 1 and raw.itt in self._reserves:
                # A status that travels with data would slip past the arbitration, and RESERVE has no data.
                raise RemoteProtocolError("the array answers a RESERVE with data", _PROTOCOL_ERROR)
            case Opcode.LOGIN_RESPONSE if self.in_login:
                raw, login_ends = self._login_response(raw, events)
            case Opcode.TEXT_RESPONSE:
                raw = self._text(raw, self._array_text, self._login.host_segment_limit)
            case Opcode.LOGOUT_RESPONSE if raw.itt == self._logout_itt:
                self.logged_out = raw.bhs[2] == _LOGGED_OUT
            case Opcode.REJECT:
                self._reserves.pop(int.from_bytes(bytes(raw.data[16:20])), None)
        self._to_host += self._encoded(raw)
        if login_ends:
            self._enter_full_feature()

    def _hold(self, raw: RawPdu, events: list[Event]) -> bool:
        """112: on GOOD the response is held, and whatever comes behind it; any other end is the host's at once."""
        reserve = self._reserves.pop(raw.itt)
        response, status = raw.bhs[2], raw.bhs[3]
        if response != 0 or status != _GOOD:
            return False
        self._held, self._held_response = reserve, raw
        events.append(ArbitrationNeeded(self.nexus, reserve.lun, reserve.itt))
        return True

    def is_wanted(self, itt: int) -> bool:
        """False: the host has aborted the held RESERVE or is gone, so the decision can only be RESERVATION CONFLICT."""
        return not self.closed and self._held is not None and self._held.itt == itt and not self._held.aborted

    def pass_on(self, itt: int) -> list[Event]:
        """There was nothing to arbitrate: the held response goes out as it came (Figure 6)."""
        return self._release(itt, good=True)

    def arbitration_decided(self, itt: int, won: bool) -> list[Event]:
        """Lets the held response out, GOOD (117) or RESERVATION CONFLICT (116), and what waited behind it.

        ``won`` for a RESERVE that :meth:`is_wanted` denies is RESERVATION CONFLICT all the same. Call it with False
        only after the local reservation was given back.
        """
        return self._release(itt, good=won and self.is_wanted(itt))

    def _release(self, itt: int, good: bool) -> list[Event]:
        events: list[Event] = []
        if self.closed:
            return events
        assert self._held is not None and self._held.itt == itt and self._held_response is not None
        response = self._held_response
        self._held = self._held_response = None
        self._to_host += self._encoded(response if good else _as_conflict(response))
        held_back, self._held_back = self._held_back, bytearray()
        self._read_from_array(memoryview(held_back), events)
        return events

    def _login_response(self, raw: RawPdu, events: list[Event]) -> tuple[RawPdu, bool]:
        status = int.from_bytes(raw.bhs[36:38])
        relayed = self._text(raw, self._array_text, _LOGIN_SEGMENT_LENGTH)
        if status >> 8 == LoginStatus.TARGET_MOVED_TEMPORARILY >> 8 and self._login.redirected_to:
            events.append(Redirected(self._login.initiator_name, self._login.redirected_to))
        transit, next_stage = raw.bhs[1] & 0x80, raw.bhs[1] & 3
        return relayed, bool(transit) and next_stage == Stage.FULL_FEATURE_PHASE and status == LoginStatus.SUCCESS

    def _enter_full_feature(self) -> None:
        """From the next PDU on: digests as negotiated, segments as long as we let the sides declare (§13.1, §13.12)."""
        self.in_login = False
        for scan, interests in ((self._from_host, _OF_THE_HOST), (self._from_array, _OF_THE_ARRAY)):
            scan.begin_full_feature_phase(
                interests,
                self._reserves,
                _RESERVES,
                header_digest=self._login.header_digest,
                data_digest=self._login.data_digest,
                max_data_segment_length=MAX_RECV_DATA_SEGMENT_LENGTH,
            )

    # ------------------------------------------------------------------------------------------------ both directions

    def _text(self, raw: RawPdu, text: TextStream, limit: int) -> RawPdu:
        """The PDU with its text passed through ``text``; C set or F clear means that a pair may go on in the next."""
        more_follows = bool(raw.bhs[1] & 0x40)
        if raw.opcode in (Opcode.TEXT_REQUEST, Opcode.TEXT_RESPONSE):
            more_follows = more_follows or not raw.bhs[1] & 0x80
        return replace(raw, data=text.pass_on(raw.data, more_follows, limit))

    def _encoded(self, raw: RawPdu) -> list[Buffer]:
        if self.in_login:
            return encode_pdu(raw)
        return encode_pdu(raw, self._login.header_digest, self._login.data_digest)

    def _check_digest(self, raw: RawPdu) -> None:
        """A damaged segment must not go on under a digest that we compute; without recovery the session ends."""
        if raw.data_digest_failed:
            raise RemoteProtocolError("data digest does not match", RejectReason.DATA_DIGEST_ERROR)


def _as_conflict(response: RawPdu) -> RawPdu:
    """The held SCSI Response with another status: same StatSN, same window (RFC 7143 §11.4)."""
    bhs = response.bhs
    return replace(response, bhs=bhs[:3] + bytes((_RESERVATION_CONFLICT,)) + bhs[4:])
