"""A pyscsi device on our own initiator: scripts written for pyscsi run against an array or through a shim. [IO]

    with PyscsiDevice("iscsi://127.0.0.1:3260/iqn.2026-11.org.pairvol:site-a/0") as device:
        s = SCSI(device, 512)
        print(s.inquiry().result)

Unlike pyscsi's ISCSIDevice it hands the sense data on.
"""

import asyncio
import secrets
import threading
from collections.abc import Coroutine
from typing import Any, ClassVar, TypeVar

import pyscsi.pyscsi.scsi_enum_command as scsi_enum_command
from pyscsi.pyscsi.scsi_exception import SCSIDeviceCommandExceptionMeta
from pyscsi.pyscsi.scsi_sense import SCSICheckCondition

from initiator_shim.config import parse_unit_url
from initiator_shim.initiator_chap import ChapCredentials
from initiator_shim.initiator_task import ScsiOutcome
from initiator_shim.initiator_transport import DEFAULT_INITIATOR_NAME, IscsiSession
from initiator_shim.pair_client import UNIT_ATTENTIONS_MAX
from storage_model.errors import UserError
from storage_model.spec.scsi_sense import FIXED_CURRENT, FIXED_LENGTH, SenseData, decode_sense, encode_sense
from storage_model.spec.scsi_task import ScsiStatus, TaskFunction

_Result = TypeVar("_Result")
_TEST_UNIT_READY = bytes(6)


class ScsiStatusError(RuntimeError):
    """A status other than GOOD and CHECK CONDITION; pyscsi's own device raises a bare RuntimeError for these."""

    def __init__(self, status: int) -> None:
        known = status in ScsiStatus._value2member_map_
        super().__init__(ScsiStatus(status).name.replace("_", " ") if known else f"status {status:02X}h")
        self.status = status


class ReservationConflict(ScsiStatusError):
    """RESERVATION CONFLICT (SAM-5 5.3.1)."""

    def __init__(self) -> None:
        super().__init__(ScsiStatus.RESERVATION_CONFLICT)


class _LoopThread:
    """An event loop in a thread of its own, for callers that are not coroutines."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="pyscsi device", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, _Result]) -> _Result:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class PyscsiDevice(metaclass=SCSIDeviceCommandExceptionMeta):
    """One logical unit, ``iscsi://HOST:PORT/TARGET/LUN``. Usable wherever pyscsi takes a device.

    A CHECK CONDITION raises ``device.CheckCondition``, which is a pyscsi SCSICheckCondition; its ``sense`` attribute,
    like the command's, is the raw sense data. RESERVATION CONFLICT raises ReservationConflict, a RuntimeError.
    """

    CheckCondition: ClassVar[Any]  # made by the metaclass
    _session: IscsiSession

    def __init__(
        self,
        device: str,
        initiator_name: str = DEFAULT_INITIATOR_NAME,
        isid: bytes | None = None,
        timeout: float = 30.0,
        chap: ChapCredentials | None = None,
    ) -> None:
        unit = parse_unit_url(device, "device")
        if unit.target_name is None or unit.lun is None:
            raise UserError(f"device {device}: target and LUN are needed, iscsi://HOST:PORT/TARGET/LUN")
        self._file_name = device
        self._opcodes = scsi_enum_command.spc
        self._devicetype: int | None = None
        self._lun = unit.lun
        self._timeout = timeout
        self._loop: _LoopThread | None = _LoopThread()
        self.initiator_name = initiator_name
        self.isid = isid or b"\x80" + secrets.token_bytes(5)
        try:
            self._session = self._loop.run(
                IscsiSession.connect(
                    unit.address.host,
                    unit.address.port,
                    unit.target_name,
                    initiator_name,
                    self.isid,
                    timeout,
                    chap=chap,
                )
            )
            self._clear_unit_attentions()
        except BaseException:
            self._loop.stop()
            self._loop = None
            raise

    def __enter__(self) -> "PyscsiDevice":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._file_name!r})"

    def close(self) -> None:
        """Logs out; more than once does no harm."""
        if self._loop is not None:
            self._loop.run(self._session.logout())
            self._loop.stop()
            self._loop = None

    def execute(self, cmd: Any) -> None:
        """Runs a pyscsi command: fills its ``datain`` and ``sense``, or raises."""
        outcome = self._run_cdb(bytes(cmd.cdb), bytes(cmd.dataout), len(cmd.datain))
        cmd.datain[: len(outcome.data_in)] = outcome.data_in
        cmd.sense = bytearray(outcome.sense)
        if outcome.status == ScsiStatus.CHECK_CONDITION:
            raise self._check_condition(outcome.sense)
        if outcome.status == ScsiStatus.RESERVATION_CONFLICT:
            raise ReservationConflict
        if outcome.status != ScsiStatus.GOOD:
            raise ScsiStatusError(outcome.status)

    def task_management(self, function: TaskFunction) -> int:
        """For example LOGICAL_UNIT_RESET; answers the response code of RFC 7143 §11.6.1."""
        assert self._loop is not None, "the device is closed"
        return self._loop.run(self._session.task_management(function, self._lun, timeout=self._timeout))

    @property
    def opcodes(self) -> Any:
        return self._opcodes

    @opcodes.setter
    def opcodes(self, value: Any) -> None:
        self._opcodes = value

    @property
    def devicetype(self) -> int | None:
        return self._devicetype

    @devicetype.setter
    def devicetype(self, value: int | None) -> None:
        self._devicetype = value

    def _run_cdb(self, cdb: bytes, data_out: bytes, data_in_length: int) -> ScsiOutcome:
        assert self._loop is not None, "the device is closed"
        return self._loop.run(self._session.execute(self._lun, cdb, data_out, data_in_length, self._timeout))

    def _clear_unit_attentions(self) -> None:
        """As libiscsi does when it connects: scripts expect a unit that has told its past."""
        for _ in range(UNIT_ATTENTIONS_MAX):
            if self._run_cdb(_TEST_UNIT_READY, b"", 0).status == ScsiStatus.GOOD:
                return

    def _check_condition(self, sense: bytes) -> SCSICheckCondition:
        """pyscsi reads current errors in fixed format only (70h, 18 bytes); the raw bytes are kept beside."""
        readable = sense
        if len(sense) < FIXED_LENGTH or sense[0] & 0x7F != FIXED_CURRENT:
            try:
                readable = encode_sense(decode_sense(sense))
            except ValueError:
                readable = encode_sense(SenseData(0, 0))
        error: SCSICheckCondition = type(self).CheckCondition(bytearray(readable))
        error.sense = bytearray(sense)
        return error
