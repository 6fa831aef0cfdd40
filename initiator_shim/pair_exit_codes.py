"""``pairctl``'s exit statuses: CCI's, wherever CCI has one.

Three verbs answer by their exit status (``volchk``, ``evtwait``, ``takeover``), so that small numbers mean something
there; whatever goes wrong with them ends with a number above 220, never with the 2 of the other verbs.
"""

from collections.abc import Sequence

from storage_model.pair_state import PairRole, PairState, Refusal
from storage_model.spec.pair_cdb import PairStatus

OK, USER_ERROR, WAIT_TIMED_OUT, INTERRUPTED = 0, 2, 3, 130

# CCI's names, from the manual of its commands.
EX_CMDRJE = 221
"""The array rejects the command."""
EX_VOLCRE = 223
"""Takeover: both volumes have data of their own."""
EX_VOLCUR = 225
"""Takeover: the S-VOL's data is not current, or nobody can tell."""
EX_INVSTP = 228
"""The pair is not in a state for this."""
EX_EWSTOT = 233
"""evtwait: time is up."""
EX_EWSUSE = 234
"""evtwait: a pair was suspended by an error meanwhile."""
EX_ENQVOL = 236
"""The volumes of a group are not all P-VOL, all S-VOL or all SMPL."""
EX_ENORMT = 242
"""Nobody to ask: wrong arguments, no such pair, or the array cannot be reached."""

ANSWERING = frozenset({"volchk", "evtwait", "takeover"})
"""The verbs whose exit status is the answer."""

_REJECTED = frozenset(
    {
        Refusal.NOT_CONFIGURED,
        Refusal.VOLUMES_DIFFER,
        Refusal.NOT_QUORUM,
        Refusal.PEER_UNREACHABLE,
        Refusal.IN_DOUBT,
        Refusal.NO_VOTE,
        Refusal.BUSY,
    }
)


def refusal_number(refusal: Refusal | None) -> int:
    """EX_CMDRJE or EX_INVSTP."""
    return EX_CMDRJE if refusal is None or refusal in _REJECTED else EX_INVSTP


def refusal_words(number: int) -> str:
    """What CCI calls the number."""
    return {EX_INVSTP: "invalid state", EX_VOLCRE: "volume currency error", EX_VOLCUR: "volume currency error"}.get(
        number, "command rejected"
    )


_STATES = {PairState.COPY: 2, PairState.PAIR: 3, PairState.PSUS: 4, PairState.PSUE: 5}
_PDUB = 6


def volchk_status(statuses: Sequence[PairStatus], *, with_state: bool) -> int:
    """1 SMPL, 2 P-VOL, 3 S-VOL; ``with_state`` 11, 22-26 and 32-36: COPY, PAIR, PSUS, PSUE, PDUB.

    PDUB is a group whose pairs are in different states. A group of different roles is EX_ENQVOL.
    """
    roles = {status.role for status in statuses}
    if len(roles) != 1:
        return EX_ENQVOL
    (role,) = roles
    if not with_state:
        return role + 1
    if role is PairRole.SMPL:
        return 11
    states = {status.state for status in statuses}
    return 10 * (role + 1) + (_STATES[states.pop()] if len(states) == 1 else _PDUB)
