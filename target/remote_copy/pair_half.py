"""The local half of one pair: what is durably known of it, and what follows for host I/O. [C]

Everything that handles a pair at this array shares this object: the control plane (``pair_control``) changes it, the
data path (``primary_volume``, ``secondary_volume``, ``copy_task``) obeys it.
"""

import logging
from asyncio import Lock, Task
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, TypedDict

from storage_model.differential_bitmap import REGION_BYTES
from storage_model.errors import CheckCondition
from storage_model.nexus import ITNexus
from storage_model.ownership import EpochRegister
from storage_model.pair import PairEpoch, PairRecord, after_all_known
from storage_model.pair_state import FenceLevel, PairRole, PairState, Side
from storage_model.spec.copy_frames import PairOffer
from storage_model.spec.pair_cdb import PairStatus, StatusFlag, VerifyState
from storage_model.spec.scsi_sense import AscAscq, SenseKey
from storage_model.spec.scsi_task import ScsiStatus
from storage_model.volume import Volume, VolumeError
from target.remote_copy.copy_link import CopyLink
from target.remote_copy.copy_pace import CopyPace, CopyProgress, VerifyProgress
from target.remote_copy.region_marks import RegionMarks
from target.remote_copy.write_gate import WriteGate
from target.scsi.block_range_lock import BlockRangeLock

log = logging.getLogger("pairvol.pair")

WITHDRAWN_LIMIT = 256
"""Nexuses whose last claim was withdrawn; the oldest is forgotten first."""

MIRRORED = (PairState.COPY, PairState.PAIR)
"""The states in which a P-VOL's writes go to both halves."""


@dataclass(frozen=True, slots=True)
class PairIdentity:
    """What the configuration says of a pair and its local half; ``ldev`` is the local volume's number."""

    name: str
    group: str
    volume_name: str
    serial: str
    peer_serial: str
    ldev: int
    quorum: bool
    fence: FenceLevel


class _WorkStatus(TypedDict, total=False):
    """Fields of PairStatus."""

    bytes_per_second: int
    verify: VerifyState
    verified_bytes: int
    verify_differing_bytes: int
    verify_busy_bytes: int


class RecordStore(Protocol):
    """Keeps pair records."""

    async def save_pair(self, name: str, record: PairRecord) -> None:
        """Durable on return."""
        ...


class Suspension(Protocol):
    """What a fault of one pair does to a consistency group."""

    async def suspend(self, faulty: "PairHalf", reason: str) -> None:
        """See :meth:`PairHalf.suspend`."""
        ...


class PairHalf:
    """State by attribute; who may change what is said at each.

    Five things may be in doubt, until the other array has been heard:

    ======================  ================================================  ======================================
    what                    true while                                        what it keeps from happening
    ======================  ================================================  ======================================
    ``register.in_doubt``   a vote of this half is out                        another change of the pair
    ``doubtful_owner``      that vote moves the ownership or the P-VOL        writes, but to an opened S-VOL that is
                                                                              no quorum volume
    ``doubtful_data``       it names the S-VOL's data good                    writes at the P-VOL, whose data would go
    ``doubtful_role``       it moves the P-VOL, or a decision yet to be       reads at the P-VOL, which might be stale
                            saved here does
    ``swap_in_doubt``       this half, the S-VOL's, has asked for a swap      writes to an S-VOL that a split opened
                            out of the present epoch, and got no answer
    ======================  ================================================  ======================================
    """

    def __init__(
        self,
        identity: PairIdentity,
        volume: Volume,
        record: PairRecord,
        marks: RegionMarks,
        store: RecordStore,
        link: CopyLink,
        changed: Callable[["PairHalf"], None] = lambda half: None,
    ) -> None:
        self.identity = identity
        self.volume = volume
        self.marks = marks
        self.link = link
        self.hold(record)
        self.recall()
        self.gate = WriteGate()
        """Passed by what hosts and the copy task do here."""
        self.replicated = WriteGate()
        """Passed by what the other array sends; its connection may be gone while a write of it is still under way."""
        self.ranges = BlockRangeLock()
        self.changing = Lock()
        """Held by whoever changes the pair: one change at a time."""
        self.copying: Task[None] | None = None
        self.pace = CopyPace()
        """How fast copies go; the array may share one between pairs."""
        self.progress: CopyProgress | None = None
        """Of the copy under way, or of the last one."""
        self.verified: VerifyProgress | None = None
        """Of the comparison under way, or of the last one."""
        self.peer: PairOffer | None = None
        """What the other array says of its half; None while the link is down or the peer has no such pair."""
        self.peer_suspended = False
        """True when the other array is known to show the pair as suspended: what fence level *status* asks for."""
        self.split_brain = False
        """What the other array says of its outdated half, or its decided epoch, cannot be reconciled with this half."""
        self.heard_apart = 0
        """The number of such an epoch: what this array decides alone to end it must count at both."""
        self.asked = 0
        """Requests to swap that the other array has yet to answer: ``record.swap_in_doubt`` holds at least as long."""
        self.withdrawn = dict.fromkeys(record.withdrawn)
        """Nexuses that must not own the pair, even if a claim of theirs is yet decided: durable with the next save."""
        self.busy: Callable[[], bool] = lambda: False
        """True while SANITIZE or FORMAT UNIT has the volume, or has failed there: nothing may be mirrored then."""
        self.together: Suspension | None = None
        """In a consistency group: what suspends all its pairs at once."""
        self.saving = Lock()
        """Held while the record is being made durable."""
        self._store = store
        self._changed = changed

    def recall(self) -> None:
        """The register knows what is durable: at the start, and when what it decided could not be carried out."""
        identity, record = self.identity, self.record
        voters = tuple(sorted((identity.serial, identity.peer_serial)))
        self.register = EpochRegister(identity.serial, voters, record.decided, record.accepted)

    @property
    def state(self) -> PairState:
        """The state of the pair as this half knows it."""
        return self.record.state

    @property
    def connected(self) -> bool:
        """True if the other half can be reached."""
        return self.peer is not None and self.link.up

    @property
    def number_alone(self) -> int:
        """Of an epoch that this array makes alone: above what it knows, and above what it was told of in vain."""
        return max(after_all_known(self.record), self.heard_apart + 1)

    @property
    def settled(self) -> bool:
        """True if nothing about the pair is in doubt, and no region has to be fetched before it can be read."""
        register = self.register
        return register.accepted is None and register.decided.epoch == self.record.decided.epoch and not self.fetching

    def hold(self, record: PairRecord) -> None:
        """``record`` holds from now on. What commands ask of it is found out here, once, and not for each of them."""
        self.record = record
        state = record.state
        self.role = record.decided.role_of(self.identity.serial)
        """Which half is ours."""
        p_vol, mirrored = self.role is PairRole.P_VOL, state in MIRRORED
        behind = p_vol and record.decided.source is Side.S_VOL and not record.equal
        self.fetching = behind and state in (PairState.COPY, PairState.PSUE)
        """True at a P-VOL that still lacks regions which the S-VOL has (after a swap)."""
        self.mirroring = p_vol and mirrored
        """True at a P-VOL whose writes go to both halves."""
        self.replicating = self.role is PairRole.S_VOL and mirrored
        """True at an S-VOL that takes what the other array writes."""

    @property
    def _split_brain_stands(self) -> bool:
        return self.split_brain and (bool(self.record.decided.outdated) or not self.connected)

    @property
    def written(self) -> bool:
        """True if this half may have what the other one lacks.

        After a split out of COPY that is also what was copied or mirrored but not flushed at the other array, which may
        have lost its power since; one out of PAIR flushes first.
        """
        marks = self.marks
        return len(marks) > 0 or (not self.record.equal and len(marks.bitmap) > 0)

    @property
    def wrote_outdated(self) -> bool:
        """True at a half that a forced takeover left behind, if it has data of its own: nothing of it is merged."""
        return self.record.decided.outdated == self.identity.serial and self.written

    @property
    def doubtful_owner(self) -> bool:
        """True while a vote is out that may already have moved the ownership or the roles."""
        accepted, decided = self.register.accepted, self.record.decided
        return accepted is not None and (accepted.owner, accepted.p_serial) != (decided.owner, decided.p_serial)

    @property
    def doubtful_data(self) -> bool:
        """True while a vote is out that puts the S-VOL's data in the place of the P-VOL's."""
        accepted = self.register.accepted
        return accepted is not None and accepted.state is PairState.COPY and accepted.source is Side.S_VOL

    @property
    def doubtful_role(self) -> bool:
        """True from our vote until our record of it if that moves the P-VOL, which may have newer data by now."""
        latest = self.register.accepted or self.register.decided
        return latest.p_serial not in ("", self.record.decided.p_serial)

    async def save_vote(self, value: PairEpoch) -> None:
        """Our vote for ``value``, durable on return."""
        await self._save(lambda record: replace(record, accepted=value))

    async def save_decision(self, value: PairEpoch) -> None:
        """``value`` is decided; durable on return."""
        await self._save(lambda record: decided_record(record, value))

    async def save_mirroring(self, epoch: int) -> bool:
        """COPY has become PAIR, unless the pair moved on since ``epoch``; durable on return. True if it is PAIR now."""
        await self._save(lambda record: moved_inside(record, epoch, (PairState.COPY,), PairState.PAIR))
        return self.state is PairState.PAIR and self.record.decided.epoch == epoch

    async def save_swap_doubt(self) -> None:
        """A swap is about to be asked for; durable on return."""
        await self._save(swap_doubted)

    async def save_no_swap_doubt(self) -> None:
        """Nothing can come any more of what was asked for, and answered. If it cannot be saved it holds in memory."""
        await self._save(self.no_swap_doubted, must_be_durable=False)

    def no_swap_doubted(self, record: PairRecord) -> PairRecord:
        """The record, unless something was asked for meanwhile."""
        return record if self.asked else replace(record, swap_in_doubt=False)

    def withdraw(self, nexus: ITNexus) -> None:
        """A request of its that timed out may still be on its way, here or at the other array: until it claims anew."""
        self.withdrawn[nexus] = None
        if len(self.withdrawn) > WITHDRAWN_LIMIT:
            del self.withdrawn[next(iter(self.withdrawn))]

    async def save_withdrawn(self, *, must_be_durable: bool = True) -> None:
        """What was withdrawn, or claimed anew, is durable on return."""
        await self._save(lambda record: record, must_be_durable=must_be_durable)

    async def suspend(self, reason: str) -> None:
        """A fault stops mirroring: COPY or PAIR becomes PSUE (¶31).

        Durable on return, so that a write that only one half has may then be acknowledged. If it cannot be saved it
        holds in memory: after a restart what was mirroring is suspended in any case.

        Needs no lock of the control plane: a change that waits for the writes inside the gate must not wait for their
        fault. In a consistency group it suspends every pair that is mirroring: what is acknowledged from then on is at
        none of the S-VOLs, so that they stay an image of one moment.
        """
        if self.together is not None:
            await self.together.suspend(self, reason)
            return
        epoch = self.record.decided.epoch
        before = self.state
        await self._save(lambda record: moved_inside(record, epoch, MIRRORED, PairState.PSUE), must_be_durable=False)
        if before is not self.state:
            self.suspended(reason)

    def suspended(self, reason: str) -> None:
        """The record says PSUE by now."""
        self.peer_suspended = False
        log.warning("pair %s is suspended by an error: %s", self.identity.name, reason)

    async def _save(self, change: Callable[[PairRecord], PairRecord], *, must_be_durable: bool = True) -> None:
        async with self.saving:
            before = self.record
            record = replace(change(before), withdrawn=tuple(self.withdrawn))
            if record == before:
                return
            try:
                await self._store.save_pair(self.identity.name, record)
            except VolumeError as error:
                if must_be_durable:
                    raise
                log.error("pair %s: %s", self.identity.name, error)
            self.put(record)

    def put(self, record: PairRecord) -> None:
        """``record`` is durable, or holds all the same; the caller has :attr:`saving`."""
        before = self.record
        self.hold(record)
        if (before.decided, before.state) != (record.decided, record.state):
            self._log_change(before)
            self._changed(self)

    def _log_change(self, before: PairRecord) -> None:
        decided = self.record.decided
        owner = f", owner {decided.owner or 'none'}" if self.identity.quorum else ""
        log.info(
            "pair %s: %s %s -> %s %s, epoch %d%s",
            self.identity.name,
            before.decided.role_of(self.identity.serial).label,
            before.state.name,
            self.role.label,
            self.state.name,
            decided.epoch,
            owner,
        )

    async def spend(self, count: int) -> None:
        """Returns when a copy may go on for ``count`` bytes; ``pace`` may become another one meanwhile."""
        while not await (pace := self.pace).spend(count, lambda: self.pace is pace):
            pass

    def refuse(self, nexus: ITNexus, *, writes: bool) -> ScsiStatus:
        """What host access ends with before it touches the medium: GOOD, or a conflict with the owner (claim 1).

        Raises CheckCondition for the S-VOL: no writes (¶26), no reads while it is being copied to.
        """
        if writes and self.identity.quorum and not self._may_update_quorum(nexus):
            return ScsiStatus.RESERVATION_CONFLICT
        if self.role is PairRole.S_VOL:
            if writes and not self.s_vol_open:
                raise CheckCondition(SenseKey.DATA_PROTECT, AscAscq.WRITE_PROTECTED)
            if self.state in (PairState.COPY, PairState.PSUE):
                raise CheckCondition(SenseKey.NOT_READY, AscAscq.LOGICAL_UNIT_NOT_READY_CAUSE_NOT_REPORTABLE)
        return ScsiStatus.GOOD

    @property
    def s_vol_open(self) -> bool:
        """True at an S-VOL that a split opened for writes, unless a swap may have been decided without them."""
        decided = self.record.decided
        return self.state is PairState.PSUS and decided.s_vol_writable and not self.record.swap_in_doubt

    def _may_update_quorum(self, nexus: ITNexus) -> bool:
        decided = self.record.decided
        if self.doubtful_owner:
            return False
        return decided.owner is None or decided.owned_by(self.identity.serial, nexus)

    def status(self) -> PairStatus:
        """What REPORT PAIR STATUS answers."""
        identity, decided = self.identity, self.record.decided
        flags = StatusFlag.CONFIGURED
        for flag, holds in (
            (StatusFlag.QUORUM, identity.quorum),
            (StatusFlag.LINK_UP, self.connected),
            (StatusFlag.S_VOL_WRITABLE, decided.s_vol_writable),
            (StatusFlag.IN_DOUBT, self.register.in_doubt or self.record.swap_in_doubt),
            (StatusFlag.OUTDATED, decided.outdated == identity.serial),
            (StatusFlag.PEER_OUTDATED, decided.outdated == identity.peer_serial),
            (StatusFlag.SPLIT_BRAIN, self._split_brain_stands or self.wrote_outdated),
        ):
            if holds:
                flags |= flag
        regions = self.marks.bitmap.region_count
        differing = 0 if self.role is PairRole.SMPL else len(self.marks)
        return PairStatus(
            role=self.role,
            state=self.state,
            fence=identity.fence if self.role is PairRole.SMPL else decided.fence,
            flags=flags,
            copy_percent=100 if not differing else min(99, 100 * (regions - differing) // regions),
            epoch=decided.epoch,
            ldev=identity.ldev,
            peer_ldev=self.peer.ldev if self.peer is not None else 0,
            differing_bytes=min(differing * REGION_BYTES, self.volume.size_bytes),
            size_bytes=self.volume.size_bytes,
            serial=identity.serial,
            peer_serial=identity.peer_serial,
            owner_serial=decided.owner.serial if decided.owner else "",
            owner=decided.owner.nexus if decided.owner else None,
            pair_name=identity.name,
            group_name=identity.group,
            volume_name=identity.volume_name,
            copy_rate=self.pace.bytes_per_second,
            **self._work_status(),
        )

    def _work_status(self) -> "_WorkStatus":
        """Of the copy or the comparison under way, and what the last comparison found."""
        verified, copied, now = self.verified, self.progress, self.pace.clock()
        status = _WorkStatus(bytes_per_second=0)
        if self.state is PairState.COPY and copied is not None:
            status["bytes_per_second"] = int(copied.speed.per_second(now))
        if verified is None:
            return status
        if not verified.ended:
            status["verify"] = VerifyState.RUNNING
            status["bytes_per_second"] = int(verified.speed.per_second(now))
        else:
            status["verify"] = VerifyState.BROKEN_OFF if verified.reason else VerifyState.ENDED
        size = self.volume.size_bytes
        status["verified_bytes"] = min(size, verified.compared * REGION_BYTES)
        status["verify_differing_bytes"] = min(size, verified.differing * REGION_BYTES)
        status["verify_busy_bytes"] = min(size, verified.busy * REGION_BYTES)
        return status


def moved_inside(record: PairRecord, epoch: int, states: tuple[PairState, ...], to: PairState) -> PairRecord:
    """The state that the pair is in now, if it is in one of ``states`` of this epoch; else the record as it is."""
    if record.decided.epoch != epoch or record.state not in states:
        return record
    return replace(record, state=to, equal=record.equal or to is PairState.PAIR)


def swap_doubted(record: PairRecord) -> PairRecord:
    """A swap is asked of the other array: from now on an S-VOL that a split has opened takes no writes."""
    opened = record.state is PairState.PSUS and record.decided.s_vol_writable
    return replace(record, swap_in_doubt=True) if opened else record


def decided_record(record: PairRecord, value: PairEpoch) -> PairRecord:
    """What is known once ``value`` is decided; no vote is out any more."""
    return PairRecord(value, value.state, equal=_begins_equal(record, value))


def _begins_equal(record: PairRecord, value: PairEpoch) -> bool:
    """An epoch that begins suspended (a split, a RELEASE, a forced takeover) leaves what was equal before."""
    suspended = value.state in (PairState.PSUS, PairState.PSUE)
    return value.state is PairState.PAIR or (suspended and record.equal)
