"""What ``pairctl verify`` and ``pairctl rate`` do at an array, and what they tell. [C]"""

from collections.abc import Callable, Sequence

from initiator_shim.pair_client import CommandPort, PairRefused, pair_control
from initiator_shim.pair_display import PairUnit
from initiator_shim.pair_exit_codes import EX_INVSTP, EX_VOLCUR, OK, refusal_number, refusal_words
from initiator_shim.pair_progress import readable_bytes
from storage_model.pair_state import PairRole, PairState, Refusal
from storage_model.spec.pair_cdb import RATE_LENGTH, PairControlOut, PairOut, PairStatus, VerifyState, encode_copy_rate

Tell = Callable[[str], None]
"""Takes a sentence for the operator."""


async def begin_verify(port: CommandPort, units: Sequence[PairUnit], timeout: float, tell: Tell) -> int:
    """Have each pair compared; none of a group unless all are in a state for it. One that is compared goes on."""
    units = [unit for unit in units if unit.status.verify is not VerifyState.RUNNING]
    for unit in units if len(units) > 1 else ():
        if unit.status.role is not PairRole.P_VOL or unit.status.state is not PairState.PAIR:
            tell(f"verify {unit.status.pair_name}: {EX_INVSTP} {refusal_words(EX_INVSTP)}: not a P-VOL in PAIR;"
                 " no pair of the group is being compared")  # fmt: skip
            return EX_INVSTP
    return await _each(port, units, PairControlOut(PairOut.VERIFY), b"", "verify", timeout, tell)


async def set_copy_rate(port: CommandPort, units: Sequence[PairUnit], rate: int, timeout: float, tell: Tell) -> int:
    """``rate`` in bytes per second; 0: unlimited."""
    command = PairControlOut(PairOut.SET_COPY_RATE, parameter_list_length=RATE_LENGTH)
    number = await _each(port, units, command, encode_copy_rate(rate), "rate", timeout, tell)
    for unit in units if number == OK else ():
        if unit.status.role is PairRole.S_VOL:
            tell(f"rate {unit.status.pair_name}: this array drives no copies of it before a swap: ask the P-VOL's")
    return number


async def _each(
    port: CommandPort,
    units: Sequence[PairUnit],
    command: PairControlOut,
    parameter_list: bytes,
    verb: str,
    timeout: float,
    tell: Tell,
) -> int:
    for unit in units:
        try:
            await pair_control(port, unit.lun, command, parameter_list, timeout)
        except PairRefused as refused:
            number = refusal_number(refused.refusal)
            hint = ""
            if verb == "verify" and refused.refusal is Refusal.IS_S_VOL:
                hint = f"; ask the P-VOL's array, {unit.status.peer_serial}"
            tell(f"{verb} {unit.status.pair_name}: {number} {refusal_words(number)}: {refused}{hint}")
            return number
    return OK


def verifying(units: Sequence[PairUnit]) -> bool:
    """True while any pair is being compared."""
    return any(unit.status.verify is VerifyState.RUNNING for unit in units)


def verify_outcome(status: PairStatus) -> tuple[int, str]:
    """The exit status that stands for the comparison, and a line about it."""
    name, total = status.pair_name, readable_bytes(status.size_bytes)
    compared = readable_bytes(status.verified_bytes)
    if status.verify is not VerifyState.ENDED:
        return EX_INVSTP, f"{name}: broken off after {compared} of {total}: the pair has changed, or a fault came"
    busy = f", {readable_bytes(status.verify_busy_bytes)} not compared: busy" if status.verify_busy_bytes else ""
    if not status.verify_differing_bytes:
        return OK, f"{name}: {compared} compared, equal{busy}"
    differing = readable_bytes(status.verify_differing_bytes)
    return (
        EX_VOLCUR,
        f"{name}: {compared} compared, {differing} in regions that differ{busy}: copied by split, resync",
    )
