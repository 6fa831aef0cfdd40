"""Data-Out of one command: immediate, unsolicited and solicited (RFC 7143 §4.2.5, §11.7, §11.8).

Nothing that the initiator sends wrongly here ends the connection: the transfer is marked failed, goes on to the Final
bits that are owed (§7.8 wants the status only after them), and then the command ends with the sense code of §11.4.7.2.
"""

from collections import deque
from dataclasses import dataclass

from storage_model.errors import RemoteProtocolError
from storage_model.spec.iscsi_pdu import RESERVED_TAG, DataOutPdu, R2TPdu, RejectReason
from storage_model.spec.scsi_sense import AscAscq, SenseKey
from storage_model.volume import Buffer
from target.iscsi.session import SessionParameters

UNEXPECTED_UNSOLICITED_DATA = (SenseKey.ABORTED_COMMAND, 0x0C0C)
INCORRECT_AMOUNT_OF_DATA = (SenseKey.ABORTED_COMMAND, 0x0C0D)
PROTOCOL_SERVICE_CRC_ERROR = (SenseKey.ABORTED_COMMAND, 0x4705)
TOO_LONG = (SenseKey.ILLEGAL_REQUEST, AscAscq.INVALID_FIELD_IN_CDB)


@dataclass(slots=True)
class _Burst:
    """One sequence of Data-Out PDUs, ended by the Final bit. Offsets into the command's data, in bytes."""

    ttt: int
    position: int
    end: int
    data_sn: int = 0


class WriteTransfer:
    """Collects ``expected_length`` bytes.

    ``failure`` is (sense key, ASC/ASCQ) once something went wrong. ``granted`` is set by the owner when there is memory
    for the whole command; no R2T is made before.
    """

    __slots__ = (
        "_bursts",
        "_data",
        "_next_r2t_offset",
        "_parameters",
        "_r2t_sn",
        "_received",
        "_unsolicited",
        "expected_length",
        "failure",
        "granted",
    )

    def __init__(
        self, expected_length: int, parameters: SessionParameters, immediate: Buffer, final: bool, max_length: int
    ) -> None:
        self.expected_length = expected_length
        self.failure: tuple[int, int] | None = TOO_LONG if expected_length > max_length else None
        self.granted = False
        self._parameters = parameters
        self._data: Buffer = immediate
        self._received = len(immediate)
        self._bursts: deque[_Burst] = deque()
        self._r2t_sn = 0
        self._unsolicited: _Burst | None = None
        first_burst = min(parameters.first_burst_length, parameters.max_burst_length, expected_length)
        if len(immediate) > first_burst:
            self._fail(INCORRECT_AMOUNT_OF_DATA)
        if immediate and not parameters.immediate_data:
            self._fail(UNEXPECTED_UNSOLICITED_DATA)
        if not final:
            if parameters.initial_r2t:
                self._fail(UNEXPECTED_UNSOLICITED_DATA)
            self._unsolicited = _Burst(RESERVED_TAG, len(immediate), first_burst)
        self._next_r2t_offset = len(immediate) if final else first_burst

    @property
    def done(self) -> bool:
        if self._unsolicited is not None or self._bursts:
            return False
        return self.failure is not None or self._received >= self.expected_length

    @property
    def data(self) -> Buffer:
        assert self.done and self.failure is None
        return self._data

    def receive(self, pdu: DataOutPdu, damaged: bool = False) -> None:
        """Takes one Data-Out PDU; ``damaged`` when its data digest did not match.

        Raises RemoteProtocolError (a RejectReason) when no sequence with that Target Transfer Tag is open.
        """
        burst = self._open_burst(pdu.ttt)
        if burst is None:
            # DataSequenceInOrder=Yes: R2Ts are answered in the order in which they went out (§13.19).
            raise RemoteProtocolError("Data-Out with a TTT that is not next", RejectReason.PROTOCOL_ERROR)
        if damaged or pdu.data_sn != burst.data_sn:
            # A gap in DataSN means that data was lost to a digest error (§7.9).
            self._fail(PROTOCOL_SERVICE_CRC_ERROR)
        elif pdu.buffer_offset != burst.position or pdu.buffer_offset + len(pdu.data) > burst.end:
            self._fail(INCORRECT_AMOUNT_OF_DATA)
        elif self.failure is None:
            self._store(pdu.buffer_offset, pdu.data)
            burst.position += len(pdu.data)
        burst.data_sn += 1
        if pdu.final:
            self._close(burst)

    def _open_burst(self, ttt: int) -> _Burst | None:
        burst = self._unsolicited if ttt == RESERVED_TAG else self._bursts[0] if self._bursts else None
        return burst if burst is not None and burst.ttt == ttt else None

    def place(self, ttt: int, data_sn: int, offset: int, length: int) -> memoryview | None:
        """Where the data of such a Data-Out belongs, so that it can be received there; None: it is not as it should be.

        :meth:`receive` has to be next.
        """
        burst = self._open_burst(ttt)
        if burst is None or self.failure is not None or data_sn != burst.data_sn:
            return None
        if offset != burst.position or offset + length > burst.end:
            return None
        return memoryview(self._room(offset + length))[offset : offset + length]

    def _room(self, end: int) -> bytearray:
        buffer = self._data
        if not isinstance(buffer, bytearray) or len(buffer) < end:
            # Unsolicited data may come before there is room for the whole command: it gets room for its own burst.
            whole, first = self.expected_length, self._parameters.first_burst_length
            buffer = bytearray(whole if self.granted else min(whole, first))
            buffer[: len(self._data)] = self._data
            self._data = buffer
        return buffer

    def _store(self, offset: int, data: Buffer) -> None:
        if not isinstance(data, memoryview) or data.obj is not self._data:  # else it was received where it belongs
            self._room(offset + len(data))[offset : offset + len(data)] = data
        self._received += len(data)

    def _close(self, burst: _Burst) -> None:
        if burst is self._unsolicited:
            self._unsolicited = None
            # Too little is an error only where FirstBurstLength bounds it (§11.4.7.2); else we ask for the rest.
            if burst.position != burst.end and self.expected_length > self._parameters.first_burst_length:
                self._fail(INCORRECT_AMOUNT_OF_DATA)
            self._next_r2t_offset = burst.position
            return
        self._bursts.popleft()
        if burst.position != burst.end:
            self._fail(INCORRECT_AMOUNT_OF_DATA)

    def _fail(self, sense: tuple[int, int]) -> None:
        if self.failure is None:
            self.failure = sense

    @property
    def wants_r2t(self) -> bool:
        return (
            self.failure is None
            and self._unsolicited is None
            and self._next_r2t_offset < self.expected_length
            and len(self._bursts) < self._parameters.max_outstanding_r2t
        )

    def solicit(self, ttt: int, itt: int, lun: bytes, stat_sn: int, exp_cmd_sn: int, max_cmd_sn: int) -> R2TPdu:
        """The next R2T; only when ``wants_r2t``. It carries StatSN without using it up (§11.8)."""
        assert self.wants_r2t
        offset = self._next_r2t_offset
        length = min(self._parameters.max_burst_length, self.expected_length - offset)
        self._next_r2t_offset += length
        self._bursts.append(_Burst(ttt, offset, offset + length))
        r2t_sn = self._r2t_sn
        self._r2t_sn += 1
        return R2TPdu(lun, itt, ttt, stat_sn, exp_cmd_sn, max_cmd_sn, r2t_sn, offset, length)
