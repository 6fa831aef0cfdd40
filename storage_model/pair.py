"""One pair as both arrays agree on it, and the rule that makes the next agreement out of a request.

Every change of a pair that both arrays must see alike (creation, split, resync, swap, deletion, a new owner) is a
numbered *epoch* with one value, :class:`PairEpoch`. How the two arrays agree on a value is ``ownership``'s business;
this file says which value a request asks for, or why it is refused. The state may move on inside an epoch: COPY
becomes PAIR when everything is copied, and COPY or PAIR becomes PSUE on a fault.
"""

import json
from dataclasses import dataclass, replace
from typing import Any

from storage_model.nexus import ITNexus
from storage_model.pair_state import TRANSITIONS, FenceLevel, PairRole, PairState, PairVerb, Refusal, Side


class PairRefused(Exception):
    """A pair-control request ends abnormally; ``refusal`` says why, ``detail`` adds words for the log."""

    def __init__(self, refusal: Refusal, detail: str = "") -> None:
        super().__init__(refusal.text + (f" ({detail})" if detail else ""))
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class Owner:
    """Who owns a quorum volume: the I_T nexus, and the serial number of the array at which it reached it first."""

    serial: str
    nexus: ITNexus

    def __str__(self) -> str:
        return f"{self.nexus.initiator_name} at array {self.serial}"


@dataclass(frozen=True, slots=True)
class PairEpoch:
    """The value of one epoch.

    ``p_serial`` is the array that holds the P-VOL ("" without a pair). ``state`` is the state the epoch begins in.
    ``source`` is the side whose data is good where the halves differ; it matters in COPY. ``arm`` asks the P-VOL's
    array to split the pair as soon as it is equal again (an owner that released in mid-copy). ``outdated`` is the array
    whose half a forced takeover left behind ("" when there was none): not promotable until somebody names a good side.
    ``group`` is the consistency group whose pairs were decided together by this value ("": the pair alone): while it is
    a vote, it can only be resolved for all of them.
    """

    epoch: int = 0
    p_serial: str = ""
    state: PairState = PairState.SMPL
    source: Side = Side.P_VOL
    fence: FenceLevel = FenceLevel.NEVER
    s_vol_writable: bool = False
    owner: Owner | None = None
    arm: bool = False
    outdated: str = ""
    group: str = ""

    def role_of(self, serial: str) -> PairRole:
        """Which half the array with this serial number holds."""
        if self.state is PairState.SMPL:
            return PairRole.SMPL
        return PairRole.P_VOL if serial == self.p_serial else PairRole.S_VOL

    def owned_by(self, serial: str, nexus: ITNexus | None) -> bool:
        """True if exactly this nexus at this array is the owner."""
        return self.owner is not None and self.owner.serial == serial and self.owner.nexus == nexus

    def encode(self) -> str:
        """One line of JSON: the form in the metadata store and on the link."""
        owner = None if self.owner is None else [self.owner.serial, *_fields(self.owner.nexus)]
        return json.dumps(
            {
                "epoch": self.epoch,
                "p": self.p_serial,
                "state": self.state.name,
                "source": self.source.name,
                "fence": self.fence.name,
                "s_vol_writable": self.s_vol_writable,
                "owner": owner,
                "arm": self.arm,
                **({"outdated": self.outdated} if self.outdated else {}),
                **({"group": self.group} if self.group else {}),
            }
        )

    @classmethod
    def decode(cls, text: str) -> "PairEpoch":
        """From :meth:`encode`'s form; raises ValueError on anything else."""
        try:
            fields: dict[str, Any] = json.loads(text)
            owner = None
            if fields["owner"] is not None:
                serial, *nexus = fields["owner"]
                owner = Owner(str(serial), _nexus(*nexus))
            return cls(
                _uint32(fields["epoch"]),
                str(fields["p"]),
                PairState[fields["state"]],
                Side[fields["source"]],
                FenceLevel[fields["fence"]],
                bool(fields["s_vol_writable"]),
                owner,
                bool(fields["arm"]),
                str(fields.get("outdated", "")),
                str(fields.get("group", "")),
            )
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise ValueError(f"not a pair epoch: {text[:80]!r}: {error!r}") from None


@dataclass(frozen=True, slots=True)
class PairRecord:
    """What one array durably knows of a pair: what was decided, the state since then, and its own undecided vote.

    ``equal``: the halves have been equal since the epoch began. In PSUE it tells a mirror that broke, whose P-VOL has
    everything, from a copy that broke off, where only the epoch's ``source`` does; in PSUS, a pair that was split when
    it was equal, whose S-VOL is a whole image of that moment. ``withdrawn``: nexuses of this array, the oldest first,
    that were refused or have released since they claimed: a claim of theirs that is yet decided must not own the pair.
    ``swap_in_doubt``: an S-VOL that a split had opened for writes has asked for a swap out of this epoch, and told
    whether it had writes of its own; until it is known what becomes of that it takes none.
    """

    decided: PairEpoch = PairEpoch()
    state: PairState = PairState.SMPL
    accepted: PairEpoch | None = None
    equal: bool = False
    withdrawn: tuple[ITNexus, ...] = ()
    swap_in_doubt: bool = False


@dataclass(frozen=True, slots=True)
class PairRequest:
    """A pair-control command on its way to the array that serialises the pair.

    ``serial`` is the array that received it; ``expected_epoch`` 0 makes it unconditional. ``claim`` is the nexus for
    whom a RESYNC or SWAP RESYNC claims ownership. ``s_vol_written``: the requesting S-VOL took writes of its own since
    the split. ``force``: the operator accepts that acknowledged writes are discarded. ``group``: it is about every pair
    of the pair's consistency group.
    """

    verb: PairVerb
    serial: str
    expected_epoch: int = 0
    claim: ITNexus | None = None
    fence: FenceLevel | None = None
    good_side: Side = Side.NONE
    s_vol_writable: bool = False
    remote_p_vol: bool = False
    no_copy: bool = False
    s_vol_written: bool = False
    force: bool = False
    group: bool = False

    def encode(self) -> str:
        """One line of JSON for the link."""
        claim = None if self.claim is None else _fields(self.claim)
        fields = {name: getattr(self, name) for name in self.__slots__}
        fields.update(
            verb=self.verb.name, claim=claim, fence=self.fence and self.fence.name, good_side=self.good_side.name
        )
        return json.dumps(fields)

    @classmethod
    def decode(cls, text: str) -> "PairRequest":
        """From :meth:`encode`'s form; raises ValueError on anything else."""
        try:
            fields: dict[str, Any] = json.loads(text)
            if fields["claim"] is not None:
                fields["claim"] = _nexus(*fields["claim"])
            fields["expected_epoch"] = _uint32(fields["expected_epoch"])
            fields["serial"] = str(fields["serial"])
            fields["verb"] = PairVerb[fields["verb"]]
            fields["fence"] = FenceLevel[fields["fence"]] if fields["fence"] else None
            fields["good_side"] = Side[fields["good_side"]]
            return cls(**fields)
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise ValueError(f"not a pair request: {text[:80]!r}: {error!r}") from None


def _uint32(number: object) -> int:
    if not isinstance(number, int) or not 0 <= number <= 0xFFFFFFFF:
        raise ValueError(f"{number!r} is not a 32-bit number")
    return number


def encode_nexuses(nexuses: tuple[ITNexus, ...]) -> str:
    """One line of JSON: the form in the metadata store."""
    return json.dumps([_fields(nexus) for nexus in nexuses])


def decode_nexuses(text: str) -> tuple[ITNexus, ...]:
    """From :func:`encode_nexuses`'s form; raises ValueError on anything else."""
    try:
        return tuple(_nexus(*fields) for fields in json.loads(text))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"not a list of nexuses: {text[:80]!r}: {error!r}") from None


def _fields(nexus: ITNexus) -> list[object]:
    return [nexus.initiator_name, nexus.isid.hex(), nexus.target_port]


def _nexus(name: object, isid: str, port: object) -> ITNexus:
    if not isinstance(port, int) or not 0 <= port <= 0xFFFF or len(isid) != 12:
        raise ValueError(f"{name!r}, {isid!r}, {port!r} is not a nexus")
    return ITNexus(str(name), bytes.fromhex(isid), port)


def keeps_ownership(record: PairRecord, request: PairRequest) -> bool:
    """True if the claim's nexus owns the pair already, so that the owner's repeated RESERVE needs no transition.

    In COPY, PAIR and PSUE Figure 4 refuses everybody else, so the owner is told GOOD at once. In PSUS the pair is
    armed: another site's swap resync would be normal, so the owner has to win an epoch like everybody else (Figure
    12).
    """
    owned = record.decided.owned_by(request.serial, request.claim)
    claims = request.claim is not None and request.verb not in (PairVerb.RELEASE, PairVerb.TAKEOVER)
    return claims and owned and record.state is not PairState.PSUS


def next_epoch(
    record: PairRecord, request: PairRequest, *, other_serial: str, quorum: bool, p_vol_written: bool
) -> PairEpoch:
    """The value that ``request`` asks to be decided, from Figure 4 and the rules of ownership.

    ``other_serial`` is the array that ``request.serial`` is not; ``p_vol_written`` says that the P-VOL took writes
    since the split. Raises PairRefused.
    """
    decided = record.decided
    if request.expected_epoch and request.expected_epoch != decided.epoch:
        raise PairRefused(Refusal.EPOCH_MOVED, f"read {request.expected_epoch}, now {decided.epoch}")
    if request.claim is not None and not quorum:
        raise PairRefused(Refusal.NOT_QUORUM)
    role = decided.role_of(request.serial)
    outcome = TRANSITIONS[(role, record.state), request.verb]
    if isinstance(outcome, Refusal):
        raise PairRefused(outcome)
    new_role, new_state = outcome
    if request.verb is PairVerb.TAKEOVER:
        return forced_epoch(record, request, other_serial=other_serial)
    base = replace(decided, epoch=decided.epoch + 1, state=new_state, arm=False, group="")
    if request.verb is PairVerb.CREATE:
        return _created(base, request, other_serial)
    if request.verb is PairVerb.DELETE:
        if decided.owner is not None and not request.force:
            raise PairRefused(Refusal.OWNED, str(decided.owner))  # without a pair, anybody may write the volume
        if _p_vol_lacks_data(record) and not request.force:
            # What the P-VOL has promised and not fetched yet it would not show any more.
            copying = record.state is PairState.COPY
            raise PairRefused(Refusal.COPYING if copying else Refusal.SUSPENDED_BY_ERROR, "only the S-VOL is complete")
        return PairEpoch(epoch=base.epoch)
    if request.verb is PairVerb.SPLIT:
        return _split(base, record, request)
    if request.verb is PairVerb.RELEASE:
        return _released(base, record, request)
    return _resynced(base, record, request, new_role, p_vol_written)


def _created(base: PairEpoch, request: PairRequest, other_serial: str) -> PairEpoch:
    p_serial = other_serial if request.remote_p_vol else request.serial
    state = PairState.PAIR if request.no_copy else PairState.COPY
    fence = request.fence or FenceLevel.NEVER
    return replace(base, p_serial=p_serial, state=state, source=Side.P_VOL, fence=fence, owner=None)


def _p_vol_lacks_data(record: PairRecord) -> bool:
    """After a swap the P-VOL serves what it still has to fetch from the S-VOL, until both are equal."""
    unequal = record.state is PairState.COPY or (record.state is PairState.PSUE and not record.equal)
    return unequal and record.decided.source is Side.S_VOL


def _split(base: PairEpoch, record: PairRecord, request: PairRequest) -> PairEpoch:
    if _p_vol_lacks_data(record):
        # Split now, it would be left without what it has not fetched yet.
        raise PairRefused(Refusal.COPYING)
    return replace(base, s_vol_writable=request.s_vol_writable)


def _released(base: PairEpoch, record: PairRecord, request: PairRequest) -> PairEpoch:
    if not record.decided.owned_by(request.serial, request.claim):
        raise PairRefused(Refusal.EPOCH_MOVED, "the nexus is not the owner")
    if record.state is PairState.COPY and record.decided.source is Side.S_VOL:
        return replace(base, state=PairState.COPY, owner=None, arm=True)
    return replace(base, owner=None, s_vol_writable=False)


def _resynced(
    base: PairEpoch, record: PairRecord, request: PairRequest, new_role: PairRole, p_vol_written: bool
) -> PairEpoch:
    decided = record.decided
    swapped = (new_role is PairRole.P_VOL) != (decided.role_of(request.serial) is PairRole.P_VOL)
    if swapped and decided.owner is not None and request.claim is None:
        raise PairRefused(Refusal.OWNED, str(decided.owner))
    good = request.good_side or Side.P_VOL
    if swapped and request.good_side is Side.NONE and request.s_vol_written:
        if p_vol_written:
            raise PairRefused(Refusal.BOTH_WRITTEN)
        good = Side.S_VOL
    if request.claim is not None and new_role is not PairRole.P_VOL:
        raise PairRefused(Refusal.IS_S_VOL, "an owner is at the P-VOL's array")
    unfinished = not record.equal and (record.state is PairState.PSUE or p_vol_written)
    if unfinished and good is not decided.source and not request.force:
        # The copy broke off: the other side has regions that were never brought up to date (never promoted by itself).
        refusal = Refusal.SUSPENDED_BY_ERROR if record.state is PairState.PSUE else Refusal.OUTDATED
        raise PairRefused(refusal, f"only the {decided.source.name} is complete; force to discard it")
    if swapped:
        good = Side.S_VOL if good is Side.P_VOL else Side.P_VOL  # named by the old roles, recorded by the new ones
    owner = decided.owner if request.claim is None else Owner(request.serial, request.claim)
    p_serial = request.serial if new_role is PairRole.P_VOL else decided.p_serial
    fence = decided.fence
    if decided.outdated:
        fence = request.fence or fence  # the takeover had opened what the fence level held back
    return replace(base, p_serial=p_serial, source=good, fence=fence, owner=owner, s_vol_writable=False, outdated="")


def after_all_known(record: PairRecord) -> int:
    """The number of an epoch that this array makes alone: above what it voted for, which may be decided elsewhere."""
    return max(record.decided.epoch, record.accepted.epoch if record.accepted else 0) + 1


def forced_epoch(record: PairRecord, request: PairRequest, *, other_serial: str) -> PairEpoch:
    """The value that an operator's forced takeover makes at ``request.serial``, without the other array's vote.

    The half that is left behind is outdated from here on: whoever adopts this epoch there is the S-VOL of a pair in
    PSUE, and stays so until a resync names the good side. Raises PairRefused: an outdated half, and one that was never
    complete, is promoted only if ``request.force`` says that it is meant.
    """
    decided = record.decided
    owner = decided.owner if decided.owner is not None and decided.owner.serial == request.serial else None
    own_side = Side.P_VOL if request.serial == decided.p_serial else Side.S_VOL
    whole = record.equal or decided.source is own_side
    if (decided.outdated == request.serial or not whole) and not request.force:
        raise PairRefused(Refusal.OUTDATED)
    return PairEpoch(
        after_all_known(record),
        request.serial,
        PairState.PSUE,
        Side.P_VOL,
        FenceLevel.NEVER,
        owner=owner if request.claim is None else Owner(request.serial, request.claim),
        outdated=other_serial,
    )
