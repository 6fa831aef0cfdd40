"""The pair volume's state machine as data: one transition table, and nothing else.

Figure 3 gives the states and their names, Figure 4 the answers to *pair resync* and *pair swap resync*, ¶29-¶36 the
words. ``TRANSITIONS`` is the only place that says what a verb does in which state; the conformance test of Figure 4,
the array and the documentation all read it.
"""

from enum import Enum, IntEnum


class PairRole(IntEnum):
    """Which half of the pair a volume is."""

    SMPL = 0
    P_VOL = 1
    S_VOL = 2

    @property
    def label(self) -> str:
        """As the operators of real arrays write it."""
        return {PairRole.SMPL: "SMPL", PairRole.P_VOL: "P-VOL", PairRole.S_VOL: "S-VOL"}[self]


class PairState(IntEnum):
    """Figure 3 and ¶30-¶31."""

    SMPL = 0
    """No pair."""
    COPY = 1
    """Copying: the halves are not yet equal."""
    PAIR = 2
    """Every update of the P-VOL is duplicated."""
    PSUS = 3
    """Suspended on purpose: updates of the P-VOL are remembered, not reflected."""
    PSUE = 4
    """Suspended by a fault."""


class FenceLevel(IntEnum):
    """What a P-VOL write does when it cannot be mirrored."""

    NEVER = 1
    """It succeeds; the pair goes PSUE and the region is remembered."""
    DATA = 2
    """It fails, and goes on failing until the pair is mirrored again, deleted, or its half taken over by force."""
    STATUS = 3
    """It fails only if the other array cannot be told that the pair is suspended."""


class Side(IntEnum):
    """A side of the pair, where a command has to name one."""

    NONE = 0
    P_VOL = 1
    S_VOL = 2


class PairVerb(Enum):
    """What pair-control software may ask of a pair."""

    CREATE = "create"
    SPLIT = "split"
    RESYNC = "resync"
    SWAP_RESYNC = "swap resync"
    RECOVER = "resync, good side named"
    SWAP_RECOVER = "swap resync, good side named"
    DELETE = "delete"
    RELEASE = "release by the owner"
    TAKEOVER = "forced takeover"


class Refusal(Enum):
    """Why the array ends a pair-control command abnormally: sense key, ASC/ASCQ, and words for a person.

    ASC 80h is the first vendor-specific one (SPC-4 4.5.2.1). A refusal that may pass by itself has the sense key NOT
    READY, one that stands until somebody changes the pair has ILLEGAL REQUEST.
    """

    NOT_PAIRED = (0x5, 0x8001, "the volume is not paired (SMPL)")
    IS_P_VOL = (0x5, 0x8002, "the own volume is the P-VOL")
    IS_S_VOL = (0x5, 0x8003, "the own volume is the S-VOL")
    COPYING = (0x5, 0x8004, "the pair is copying (COPY)")
    MIRRORING = (0x5, 0x8005, "the pair is mirroring (PAIR)")
    SUSPENDED_BY_ERROR = (0x5, 0x8006, "the pair is suspended by an error (PSUE): name the good side")
    EPOCH_MOVED = (0x5, 0x8007, "the pair changed since its epoch was read")
    ALREADY_PAIRED = (0x5, 0x8008, "the volume is already paired")
    ALREADY_SUSPENDED = (0x5, 0x8009, "the pair is already suspended (PSUS)")
    NOT_CONFIGURED = (0x5, 0x800A, "no pair is configured for this volume, here or at the other array")
    BOTH_WRITTEN = (0x5, 0x800B, "both sides were written while suspended: name the good side")
    OWNED = (0x5, 0x800C, "the quorum volume has an owner")
    VOLUMES_DIFFER = (0x5, 0x800D, "the two volumes differ in size, block length or kind")
    NOT_QUORUM = (0x5, 0x800E, "ownership is claimed of a volume that is not a quorum volume")
    OUTDATED = (0x5, 0x800F, "this half is outdated or incomplete, and would be promoted: force to name it good")
    PEER_REACHABLE = (0x5, 0x8014, "the other array can be reached: no takeover by force")
    GROUP_DIVIDED = (0x5, 0x8015, "the group's P-VOLs are at both arrays: change its pairs one by one")
    RESERVED = (0x5, 0x8016, "hosts are registered with the volume (persistent reservations)")
    PEER_UNREACHABLE = (0x2, 0x8010, "the other array cannot be reached")
    IN_DOUBT = (0x2, 0x8011, "an epoch is voted for but not known to be decided")
    NO_VOTE = (0x2, 0x8012, "the other array did not vote in time")
    BUSY = (0x2, 0x8013, "another change of this pair is under way")

    def __init__(self, sense_key: int, asc_ascq: int, text: str) -> None:
        self.sense_key = sense_key
        self.asc_ascq = asc_ascq
        self.text = text


_COPY, _PAIR, _PSUS, _PSUE = PairState.COPY, PairState.PAIR, PairState.PSUS, PairState.PSUE
_P, _S = PairRole.P_VOL, PairRole.S_VOL
_SMPL = (PairRole.SMPL, PairState.SMPL)

Half = tuple[PairRole, PairState]
"""One half of a pair as its own array sees it; (SMPL, SMPL) is the ninth row of Figure 4."""

TRANSITIONS: dict[tuple[Half, PairVerb], Half | Refusal] = {
    # paircreate: SMPL -> COPY. The role is the caller's choice; here the local volume becomes the P-VOL.
    (_SMPL, PairVerb.CREATE): (_P, _COPY),
    ((_P, _COPY), PairVerb.CREATE): Refusal.ALREADY_PAIRED,
    ((_P, _PAIR), PairVerb.CREATE): Refusal.ALREADY_PAIRED,
    ((_P, _PSUS), PairVerb.CREATE): Refusal.ALREADY_PAIRED,
    ((_P, _PSUE), PairVerb.CREATE): Refusal.ALREADY_PAIRED,
    ((_S, _COPY), PairVerb.CREATE): Refusal.ALREADY_PAIRED,
    ((_S, _PAIR), PairVerb.CREATE): Refusal.ALREADY_PAIRED,
    ((_S, _PSUS), PairVerb.CREATE): Refusal.ALREADY_PAIRED,
    ((_S, _PSUE), PairVerb.CREATE): Refusal.ALREADY_PAIRED,
    # pairsplit: PAIR, COPY -> PSUS, from either array (¶31).
    (_SMPL, PairVerb.SPLIT): Refusal.NOT_PAIRED,
    ((_P, _COPY), PairVerb.SPLIT): (_P, _PSUS),
    ((_P, _PAIR), PairVerb.SPLIT): (_P, _PSUS),
    ((_P, _PSUS), PairVerb.SPLIT): Refusal.ALREADY_SUSPENDED,
    ((_P, _PSUE), PairVerb.SPLIT): Refusal.SUSPENDED_BY_ERROR,
    ((_S, _COPY), PairVerb.SPLIT): (_S, _PSUS),
    ((_S, _PAIR), PairVerb.SPLIT): (_S, _PSUS),
    ((_S, _PSUS), PairVerb.SPLIT): Refusal.ALREADY_SUSPENDED,
    ((_S, _PSUE), PairVerb.SPLIT): Refusal.SUSPENDED_BY_ERROR,
    # Figure 4, upper half: pair resync ends normally only at a P-VOL in PSUS (130).
    (_SMPL, PairVerb.RESYNC): Refusal.NOT_PAIRED,
    ((_P, _COPY), PairVerb.RESYNC): Refusal.COPYING,
    ((_P, _PAIR), PairVerb.RESYNC): Refusal.MIRRORING,
    ((_P, _PSUS), PairVerb.RESYNC): (_P, _COPY),
    ((_P, _PSUE), PairVerb.RESYNC): Refusal.SUSPENDED_BY_ERROR,
    ((_S, _COPY), PairVerb.RESYNC): Refusal.COPYING,
    ((_S, _PAIR), PairVerb.RESYNC): Refusal.MIRRORING,
    ((_S, _PSUS), PairVerb.RESYNC): Refusal.IS_S_VOL,
    ((_S, _PSUE), PairVerb.RESYNC): Refusal.SUSPENDED_BY_ERROR,
    # Figure 4, lower half: pair swap resync ends normally only at an S-VOL in PSUS (131), which becomes the P-VOL.
    (_SMPL, PairVerb.SWAP_RESYNC): Refusal.NOT_PAIRED,
    ((_P, _COPY), PairVerb.SWAP_RESYNC): Refusal.COPYING,
    ((_P, _PAIR), PairVerb.SWAP_RESYNC): Refusal.MIRRORING,
    ((_P, _PSUS), PairVerb.SWAP_RESYNC): Refusal.IS_P_VOL,
    ((_P, _PSUE), PairVerb.SWAP_RESYNC): Refusal.SUSPENDED_BY_ERROR,
    ((_S, _COPY), PairVerb.SWAP_RESYNC): Refusal.COPYING,
    ((_S, _PAIR), PairVerb.SWAP_RESYNC): Refusal.MIRRORING,
    ((_S, _PSUS), PairVerb.SWAP_RESYNC): (_P, _COPY),
    ((_S, _PSUE), PairVerb.SWAP_RESYNC): Refusal.SUSPENDED_BY_ERROR,
    # An operator who names the good side may resync from either array, and out of PSUE.
    (_SMPL, PairVerb.RECOVER): Refusal.NOT_PAIRED,
    ((_P, _COPY), PairVerb.RECOVER): Refusal.COPYING,
    ((_P, _PAIR), PairVerb.RECOVER): Refusal.MIRRORING,
    ((_P, _PSUS), PairVerb.RECOVER): (_P, _COPY),
    ((_P, _PSUE), PairVerb.RECOVER): (_P, _COPY),
    ((_S, _COPY), PairVerb.RECOVER): Refusal.COPYING,
    ((_S, _PAIR), PairVerb.RECOVER): Refusal.MIRRORING,
    ((_S, _PSUS), PairVerb.RECOVER): (_S, _COPY),
    ((_S, _PSUE), PairVerb.RECOVER): (_S, _COPY),
    (_SMPL, PairVerb.SWAP_RECOVER): Refusal.NOT_PAIRED,
    ((_P, _COPY), PairVerb.SWAP_RECOVER): Refusal.COPYING,
    ((_P, _PAIR), PairVerb.SWAP_RECOVER): Refusal.MIRRORING,
    ((_P, _PSUS), PairVerb.SWAP_RECOVER): Refusal.IS_P_VOL,
    ((_P, _PSUE), PairVerb.SWAP_RECOVER): Refusal.IS_P_VOL,
    ((_S, _COPY), PairVerb.SWAP_RECOVER): Refusal.COPYING,
    ((_S, _PAIR), PairVerb.SWAP_RECOVER): Refusal.MIRRORING,
    ((_S, _PSUS), PairVerb.SWAP_RECOVER): (_P, _COPY),
    ((_S, _PSUE), PairVerb.SWAP_RECOVER): (_P, _COPY),
    # pairsplit -S: from any state, back to single volumes.
    (_SMPL, PairVerb.DELETE): Refusal.NOT_PAIRED,
    ((_P, _COPY), PairVerb.DELETE): _SMPL,
    ((_P, _PAIR), PairVerb.DELETE): _SMPL,
    ((_P, _PSUS), PairVerb.DELETE): _SMPL,
    ((_P, _PSUE), PairVerb.DELETE): _SMPL,
    ((_S, _COPY), PairVerb.DELETE): _SMPL,
    ((_S, _PAIR), PairVerb.DELETE): _SMPL,
    ((_S, _PSUS), PairVerb.DELETE): _SMPL,
    ((_S, _PSUE), PairVerb.DELETE): _SMPL,
    # RELEASE by the owner leaves the pair armed (PSUS): Figure 4 would answer every later RESERVE in PAIR abnormally,
    # and nobody could win again. An owner is always at the P-VOL's array.
    (_SMPL, PairVerb.RELEASE): Refusal.NOT_PAIRED,
    ((_P, _COPY), PairVerb.RELEASE): (_P, _PSUS),
    ((_P, _PAIR), PairVerb.RELEASE): (_P, _PSUS),
    ((_P, _PSUS), PairVerb.RELEASE): (_P, _PSUS),
    ((_P, _PSUE), PairVerb.RELEASE): (_P, _PSUE),
    ((_S, _COPY), PairVerb.RELEASE): Refusal.IS_S_VOL,
    ((_S, _PAIR), PairVerb.RELEASE): Refusal.IS_S_VOL,
    ((_S, _PSUS), PairVerb.RELEASE): Refusal.IS_S_VOL,
    ((_S, _PSUE), PairVerb.RELEASE): Refusal.IS_S_VOL,
    # An operator's word in place of the other array's vote: only while mirroring has stopped. At a P-VOL it opens what
    # the fence level holds back.
    (_SMPL, PairVerb.TAKEOVER): Refusal.NOT_PAIRED,
    ((_P, _COPY), PairVerb.TAKEOVER): Refusal.COPYING,
    ((_P, _PAIR), PairVerb.TAKEOVER): Refusal.MIRRORING,
    ((_P, _PSUS), PairVerb.TAKEOVER): Refusal.IS_P_VOL,
    ((_P, _PSUE), PairVerb.TAKEOVER): (_P, _PSUE),
    ((_S, _COPY), PairVerb.TAKEOVER): Refusal.COPYING,
    ((_S, _PAIR), PairVerb.TAKEOVER): Refusal.MIRRORING,
    ((_S, _PSUS), PairVerb.TAKEOVER): (_P, _PSUE),
    ((_S, _PSUE), PairVerb.TAKEOVER): (_P, _PSUE),
}

HALVES: tuple[Half, ...] = (_SMPL, *((role, state) for role in (_P, _S) for state in (_COPY, _PAIR, _PSUS, _PSUE)))
"""The nine rows of Figure 4, in its order."""
