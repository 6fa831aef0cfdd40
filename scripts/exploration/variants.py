"""Known-bad arrays and shims: each breaks one rule, and the explorer must catch it.

A checker that cannot fail proves nothing. The product knows nothing of this: a variant replaces functions of it in this
process for as long as a search runs. ``scope`` is the one, of those of a full run, in which the shortest way to the
violation is looked for, within its bound.
"""

from asyncio import create_task
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

from initiator_shim import arbitration
from initiator_shim.arbitration import Decision
from initiator_shim.pair_client import CommandPort
from scripts.exploration.scope import SCOPES, Scope
from storage_model import pair
from storage_model.nexus import ITNexus
from storage_model.ownership import EpochRegister
from storage_model.pair import PairEpoch, PairRecord, PairRequest
from storage_model.pair_state import PairVerb
from storage_model.spec.copy_frames import Frame, PairOffer
from target.remote_copy import pair_changes
from target.remote_copy.pair_control import PairControl
from target.remote_copy.pair_decision import PairDecision
from target.remote_copy.pair_half import MIRRORED, PairHalf, swap_doubted
from target.remote_copy.pair_meeting import PairMeeting
from target.remote_copy.pair_messages import PairTold
from target.remote_copy.primary_volume import PrimaryVolume
from target.remote_copy.region_marks import RegionMarks
from target.scsi import pair_commands
from target.scsi.logical_unit import LogicalUnit

_TAKEOVERS, _RACE, _CUT, _CRASH, _RELEASE, _SWAP, _IMPATIENT, _FORGOTTEN, _AGAIN, _WRITES = (
    SCOPES[name] for name in "takeovers race cut failure-crash release swap impatient forgotten again one-write".split()
)
_OPEN_S_VOL, _BOTH_BY_FORCE = SCOPES["open-s-vol"], SCOPES["both-by-force"]

Patches = list[tuple[Any, str, Any]]


@dataclass(frozen=True, slots=True)
class Variant:
    """``patches`` makes (owner, attribute, replacement) of each function that is replaced."""

    name: str
    about: str
    scope: Scope
    patches: Callable[[], Patches]

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The product is broken inside."""
        patchers = [patch.object(*where) for where in self.patches()]
        for patcher in patchers:
            patcher.start()
        try:
            yield
        finally:
            for patcher in reversed(patchers):
                patcher.stop()


def _resync_is_a_no_op() -> Patches:
    honest = PairControl.request

    async def request(self: PairControl, request: PairRequest) -> int:
        if request.verb in (PairVerb.RESYNC, PairVerb.SWAP_RESYNC) and self.half.state in MIRRORED:
            return self.half.record.decided.epoch
        return await honest(self, request)

    return [(PairControl, "request", request)]


def _good_before_the_peers_vote() -> Patches:
    honest = PairDecision.propose

    async def propose(self: PairDecision, value: PairEpoch) -> None:
        self._tasks.keep(create_task(honest(self, value)))
        self._half.register.heard_decided(value)
        await self._enter(value, None)

    return [(PairDecision, "propose", propose)]


def _told_before_durable() -> Patches:
    async def save_vote(self: PairHalf, value: PairEpoch) -> None:
        self.hold(replace(self.record, accepted=value))
        self._kept = create_task(self._store.save_pair(self.identity.name, self.record))  # type: ignore[attr-defined]

    return [(PairHalf, "save_vote", save_vote)]


def _decision_told_before_durable() -> Patches:
    async def save_decision(self: PairHalf, value: PairEpoch) -> None:
        self.hold(PairRecord(value, value.state))
        self._kept = create_task(self._store.save_pair(self.identity.name, self.record))  # type: ignore[attr-defined]

    return [(PairHalf, "save_decision", save_decision)]


def _epoch_is_not_checked() -> Patches:
    honest = PairControl.request

    async def request(self: PairControl, request: PairRequest) -> int:
        return await honest(self, replace(request, expected_epoch=0))

    return [(PairControl, "request", request)]


def _promise_is_forgotten() -> Patches:
    honest = PairHalf.recall

    def recall(self: PairHalf) -> None:
        self.hold(replace(self.record, accepted=None))
        honest(self)

    return [(PairHalf, "recall", recall)]


def _change_never_ends() -> Patches:
    honest = PairDecision.give_vote

    async def give_vote(self: PairDecision, frame: Frame) -> Frame:
        reply = await honest(self, frame)
        await self._half.changing.acquire()
        return reply

    return [(PairDecision, "give_vote", give_vote)]


def _two_votes() -> Patches:
    return [
        (EpochRegister, "in_doubt", property(lambda self: False)),
        (EpochRegister, "_expect_free_vote", lambda self, value: None),
    ]


def _reservation_is_kept() -> Patches:
    async def give_back(port: CommandPort, nexus: ITNexus, lun: int, lost: Decision) -> Decision:
        return lost

    return [(arbitration, "give_back", give_back)]


def _claim_reserves_nothing() -> Patches:
    async def hold_for(lu: LogicalUnit, claim: ITNexus) -> pair_commands._Hold:
        return pair_commands._Hold.BEFORE

    return [(pair_commands, "_hold_for", hold_for)]


def _withdrawn_claims_count() -> Patches:
    async def withdraw(self: PairControl, nexus: ITNexus) -> None:
        return

    return [(PairControl, "withdraw", withdraw)]


def _withdrawals_are_forgotten() -> Patches:
    honest = PairControl.start

    async def start(self: PairControl) -> None:
        self.half.withdrawn.clear()
        await honest(self)

    return [(PairControl, "start", start)]


def _suspended_writes_are_not_marked() -> Patches:
    async def last(self: RegionMarks, regions: Any) -> None:
        return

    return [(RegionMarks, "last", last)]


def _marks_are_not_merged() -> Patches:
    async def merge(self: RegionMarks, bits: bytes) -> None:
        return

    return [(RegionMarks, "merge", merge)]


def _acknowledged_without_the_mirror() -> Patches:
    async def mirror(self: PrimaryVolume, offset_bytes: int, length_bytes: int, data: Any, fua: bool) -> None:
        await self._write_local(offset_bytes, length_bytes, data, fua)

    return [(PrimaryVolume, "_mirror", mirror), (PrimaryVolume, "write_soon", lambda *ignored: None)]


def _doubt_grants_writes() -> Patches:
    return [(PairHalf, "doubtful_owner", property(lambda self: False))]


def _suspension_is_not_told() -> Patches:
    honest = PairMeeting._tell

    def tell(self: PairMeeting, offer: PairOffer) -> None:
        if self._half.peer is None:  # as the link opens, and never again
            honest(self, offer)

    return [(PairMeeting, "_tell", tell)]


def _outdated_is_promoted() -> Patches:
    honest = pair.next_epoch

    def next_epoch(record: PairRecord, request: PairRequest, **others: Any) -> PairEpoch:
        force = request.force or request.verb is PairVerb.TAKEOVER
        return honest(record, replace(request, force=force), **others)

    return [(pair_changes, "next_epoch", next_epoch)]


def _swap_doubt_is_not_durable() -> Patches:
    async def save_swap_doubt(self: PairHalf) -> None:
        self.record = swap_doubted(self.record)

    return [(PairHalf, "save_swap_doubt", save_swap_doubt)]


def _later_force_wins() -> Patches:
    honest = PairMeeting.reconcilable

    def reconcilable(self: PairMeeting, told: PairTold) -> bool:
        return honest(self, told) or told.decided.epoch != self._half.record.decided.epoch

    return [(PairMeeting, "reconcilable", reconcilable)]


_ALL = (
    Variant("resync-is-a-no-op", "resync succeeds as a no-op in COPY and PAIR", _RACE, _resync_is_a_no_op),
    Variant("good-before-vote", "GOOD before the other array has voted", _RACE, _good_before_the_peers_vote),
    Variant("vote-told-early", "the leader tells its vote before it is durable", _RACE, _told_before_durable),
    Variant(
        "decision-told-early", "the voter answers before its vote is durable", _RACE, _decision_told_before_durable
    ),
    Variant(
        "epoch-unchecked", "a late resync is accepted although the epoch has moved", _RELEASE, _epoch_is_not_checked
    ),
    Variant("promise-forgotten", "a restarted array forgets for what it voted", _CRASH, _promise_is_forgotten),
    Variant("two-votes", "an array votes for a second value while the first is in doubt", _CUT, _two_votes),
    Variant("change-never-ends", "a lock is not given back: the next change waits for ever", _CUT, _change_never_ends),
    Variant("reservation-kept", "the loser's reservation is not given back", _RACE, _reservation_is_kept),
    Variant(
        "reservation-lost", "an older attempt gives the winner's reservation back", _AGAIN, _claim_reserves_nothing
    ),
    Variant("withdrawal-ignored", "a claim that lost may yet be decided", _IMPATIENT, _withdrawn_claims_count),
    Variant(
        "withdrawal-forgotten", "a restarted array forgets whom it refused", _FORGOTTEN, _withdrawals_are_forgotten
    ),
    Variant("doubt-grants-writes", "the old owner goes on while a vote for another is out", _CUT, _doubt_grants_writes),
    Variant(
        "suspended-writes-unmarked", "writes while suspended leave no mark", _WRITES, _suspended_writes_are_not_marked
    ),
    Variant("marks-not-merged", "a swap forgets the old P-VOL's marks", _WRITES, _marks_are_not_merged),
    Variant(
        "mirror-skipped", "a write is acknowledged without the other copy", _WRITES, _acknowledged_without_the_mirror
    ),
    Variant(
        "suspension-untold",
        "a suspension that became durable late is not told",
        _SWAP,
        _suspension_is_not_told,
    ),
    Variant(
        "outdated-promoted",
        "a half that a takeover left behind is promoted, without force",
        _TAKEOVERS,
        _outdated_is_promoted,
    ),
    Variant(
        "later-force-wins",
        "of two takeovers by force the one with the higher epoch counts at both arrays",
        _BOTH_BY_FORCE,
        _later_force_wins,
    ),
    Variant(
        "swap-doubt-not-durable",
        "a restarted array forgets that a swap is in doubt, and opens the S-VOL",
        _OPEN_S_VOL,
        _swap_doubt_is_not_durable,
    ),
)
VARIANTS = {variant.name: variant for variant in _ALL}
