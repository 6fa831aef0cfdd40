"""``pairctl takeover``: which way leads to a P-VOL at this array (horctakeover).

The plan is made from what the array reports; each step of it is conditional on the epoch that was read, so that a
pair that moves on meanwhile is refused and not taken over twice.
"""

from dataclasses import dataclass
from enum import Enum, IntEnum

from initiator_shim.pair_exit_codes import EX_INVSTP, EX_VOLCRE, EX_VOLCUR, refusal_number
from storage_model.pair_state import FenceLevel, PairRole, PairState, Refusal
from storage_model.spec.pair_cdb import PairStatus, StatusFlag


class TakeoverResult(IntEnum):
    """CCI's result codes, which are exit statuses."""

    NOP = 0
    """The volume is the P-VOL already."""
    SWAP = 1
    """P-VOL and S-VOL have changed places."""
    SVOL = 2
    """The S-VOL was made the P-VOL by force, without the other array."""
    PVOL_SMPL = 3
    """CCI's P-VOL that leaves its pair. Never the result here: the pair remembers what differs."""
    PVOL_PSUE = 4
    """The P-VOL takes writes again, by force, without the other array."""
    SVOL_SSUS = 5
    """The pair was suspended, but the places could not be changed: the S-VOL stays suspended."""


class Way(Enum):
    """How a pair gets there."""

    STAY = "nothing to do"
    SWAP = "swap resync"
    SPLIT_AND_SWAP = "split, then swap resync"
    FORCE = "takeover by force"


@dataclass(frozen=True, slots=True)
class Plan:
    way: Way
    result: TakeoverResult


class TakeoverImpossible(Exception):
    """``number`` is the exit status, the text a sentence for the operator."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(text)
        self.number = number


_BY_FORCE = "the other array cannot be reached: only takeover --force, where its data since then may be given up"


def plan_takeover(status: PairStatus, *, force: bool) -> Plan:
    """For one pair; raises TakeoverImpossible. ``force``: the operator has confirmed it."""
    linked = bool(status.flags & StatusFlag.LINK_UP)
    if status.role is PairRole.SMPL:
        raise TakeoverImpossible(EX_INVSTP, Refusal.NOT_PAIRED.text)
    if status.role is PairRole.P_VOL:
        if status.state is not PairState.PSUE or status.fence is FenceLevel.NEVER:
            return Plan(Way.STAY, TakeoverResult.NOP)
        if linked:
            raise TakeoverImpossible(EX_INVSTP, Refusal.SUSPENDED_BY_ERROR.text)
        if not force:
            raise TakeoverImpossible(
                EX_INVSTP, f"fence level {status.fence.name.lower()} holds writes back, and {_BY_FORCE}"
            )
        return Plan(Way.FORCE, TakeoverResult.PVOL_PSUE)
    if not linked:
        if not force:
            raise TakeoverImpossible(EX_VOLCUR, _BY_FORCE)
        return Plan(Way.FORCE, TakeoverResult.SVOL)
    if status.state is PairState.PSUS:
        return Plan(Way.SWAP, TakeoverResult.SWAP)
    if status.state is PairState.PAIR:
        return Plan(Way.SPLIT_AND_SWAP, TakeoverResult.SWAP)
    refusal = Refusal.COPYING if status.state is PairState.COPY else Refusal.SUSPENDED_BY_ERROR
    raise TakeoverImpossible(EX_VOLCUR, refusal.text)


def takeover_number(refusal: Refusal | None) -> int:
    """The exit status for a step that the array refused."""
    if refusal is Refusal.BOTH_WRITTEN:
        return EX_VOLCRE
    return EX_VOLCUR if refusal is Refusal.OUTDATED else refusal_number(refusal)
