"""Pair-control commands over a session: CDB out, status or refusal back. [C]

PAIR CONTROL IN and OUT execute on the logical unit that the pair is about (see ``storage_model.spec.pair_cdb``).
"""

from typing import Protocol

from initiator_shim.initiator_task import ScsiOutcome
from initiator_shim.session_errors import SessionError
from storage_model.pair_state import Refusal
from storage_model.spec.pair_cdb import PairControlOut, PairStatus, encode_report_status
from storage_model.spec.scsi_sense import AscAscq, SenseData, SenseKey, decode_sense
from storage_model.spec.scsi_task import ScsiStatus
from storage_model.volume import Buffer

STATUS_LENGTH_BYTES = 4096
UNIT_ATTENTIONS_MAX = 4
_REFUSALS = {(refusal.sense_key, refusal.asc_ascq): refusal for refusal in Refusal}


class CommandPort(Protocol):
    """What runs SCSI commands: an IscsiSession, the shim's control session, or a simulated array.

    Raises SessionError when there is no SCSI status; ``timeout`` is in seconds.
    """

    async def execute(
        self, lun: int, cdb: bytes, data_out: Buffer = b"", data_in_length: int = 0, timeout: float = 30.0
    ) -> ScsiOutcome: ...


class PairRefused(SessionError):
    """The array ended a pair-control command abnormally. ``refusal`` is None for a reason that is not a pair's."""

    def __init__(self, status: int, sense: SenseData | None) -> None:
        self.status = status
        self.sense = sense
        self.refusal = None if sense is None else _REFUSALS.get((sense.sense_key, sense.asc_ascq))
        super().__init__(self.refusal.text if self.refusal else _describe(status, sense))

    @property
    def not_a_pair_array(self) -> bool:
        """The logical unit does not know pair-control commands at all, so that it cannot be a quorum volume."""
        return self.sense is not None and (
            (self.sense.sense_key, self.sense.asc_ascq)
            == (SenseKey.ILLEGAL_REQUEST, AscAscq.INVALID_COMMAND_OPERATION_CODE)
        )


def _describe(status: int, sense: SenseData | None) -> str:
    if sense is not None:
        return f"the array answered CHECK CONDITION, sense {sense}"
    known = status in ScsiStatus._value2member_map_
    return f"the array answered {ScsiStatus(status).name.replace('_', ' ') if known else f'status {status:02X}h'}"


async def execute_past_unit_attention(
    port: CommandPort, lun: int, cdb: bytes, data_out: Buffer, data_in_length: int, timeout: float
) -> ScsiOutcome:
    """A unit attention is about the past, and the command was not executed (SAM-5 5.14): send it again.

    The reset that a cluster sends before its RESERVE raises one for every nexus, ours included.
    """
    for _ in range(UNIT_ATTENTIONS_MAX):
        outcome = await port.execute(lun, cdb, data_out, data_in_length, timeout)
        sense = _sense(outcome)
        if sense is None or sense.sense_key != SenseKey.UNIT_ATTENTION:
            break
    return outcome


async def report_pair_status(port: CommandPort, lun: int, timeout: float) -> PairStatus:
    """REPORT PAIR STATUS. Raises PairRefused, or another SessionError."""
    cdb = encode_report_status(STATUS_LENGTH_BYTES)
    outcome = await execute_past_unit_attention(port, lun, cdb, b"", STATUS_LENGTH_BYTES, timeout)
    _check(outcome)
    try:
        return PairStatus.decode(outcome.data_in)
    except ValueError as error:
        raise SessionError(str(error)) from None


async def pair_control(
    port: CommandPort, lun: int, command: PairControlOut, parameter_list: bytes, timeout: float
) -> None:
    """PAIR CONTROL OUT; returns on GOOD. Raises PairRefused, or another SessionError."""
    assert command.parameter_list_length == len(parameter_list)
    _check(await execute_past_unit_attention(port, lun, command.encode(), parameter_list, 0, timeout))


def _check(outcome: ScsiOutcome) -> None:
    if outcome.status != ScsiStatus.GOOD:
        raise PairRefused(outcome.status, _sense(outcome))


def _sense(outcome: ScsiOutcome) -> SenseData | None:
    try:
        return decode_sense(outcome.sense) if outcome.status == ScsiStatus.CHECK_CONDITION else None
    except ValueError:
        return None
