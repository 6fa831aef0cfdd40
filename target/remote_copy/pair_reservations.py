"""The persistent reservations of one pair at one array: orders, votes, reconnection (SPC-4 5.13). [C]

The array that holds the P-VOL makes the entries, the other one forwards its hosts' orders. Entries and epochs are
decided one at a time, in one order: both are made with ``half.changing`` held. ``pair_reservation`` says what a vote
means; while one is out whose entry may or may not be decided, who asks is told so, and nobody new is let in.
"""

import logging
from asyncio import Event, Semaphore
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

from storage_model.errors import CheckCondition, RemoteProtocolError
from storage_model.nexus import ITNexus
from storage_model.pair import PairRefused
from storage_model.pair_reservation import (
    ReservationEffects,
    ReservationEntry,
    ReservationProposal,
    ReservationRecord,
    attentions_missed,
    first_port,
    nexus_seen_from,
    seen_from,
)
from storage_model.pair_state import PairRole, Refusal
from storage_model.reservation_order import ReservationOrder
from storage_model.spec.copy_frames import Answer, Frame, FrameType, decode_json
from storage_model.spec.scsi_cdb import PersistentReserveOut
from storage_model.spec.scsi_persistent_reservation import TransportId
from storage_model.spec.scsi_sense import AscAscq
from storage_model.volume import VolumeError
from target.remote_copy.copy_link import LinkDown
from target.remote_copy.pair_half import PairHalf
from target.remote_copy.reservation_answers import outcome_of, refused, refused_because
from target.remote_copy.reservation_ports import ReservationRecordStore, ReservationUnit

log = logging.getLogger("pairvol.pair")

ATTEMPTS = 3
"""How often an order looks for the array that serialises the pair, which may move meanwhile."""

FORWARDED_LIMIT = 16
"""Orders at the other array at a time: it reads nothing more from the link while too many frames wait there, and one
of those may wait for a vote that comes over the link."""

RESERVATION_FRAMES = (FrameType.RESERVE_OUT, FrameType.RESERVATION, FrameType.ABORTED)

T = TypeVar("T")


@dataclass(slots=True)
class _Forwarded:
    """An order of the other array that waits here."""

    requester: ITNexus
    tag: int
    aborted: bool = False


class _Conflict(Exception):
    """The other array's unit is reserved by RESERVE."""


class PairReservations:
    """``unit`` is set before hosts are served."""

    unit: ReservationUnit

    def __init__(self, half: PairHalf, record: ReservationRecord, store: ReservationRecordStore) -> None:
        self._half = half
        self.record = record
        self._store = store
        self._base = first_port(half.identity.serial, half.identity.peer_serial)
        self._forwarded: list[_Forwarded] = []
        self._forwarding = Semaphore(FORWARDED_LIMIT)
        self._doomed: list[Event] = []

    def attach(self, unit: ReservationUnit) -> None:
        """Put into force what was kept over a restart. Without a pair nothing is."""
        self.unit = unit
        if self._half.role is PairRole.SMPL:
            self.record = ReservationRecord()
        self._show()

    @property
    def in_use(self) -> bool:
        """True if anybody is registered, or may be."""
        return self.record.in_use

    # --------------------------------------------------------------------------------------------------- hosts ask

    async def execute(self, order: ReservationOrder, aborted: Callable[[], bool]) -> bool:
        """See :meth:`target.scsi.logical_unit.PairPort.persistent_reserve_out`."""
        half = self._half
        order = replace(order, first_port=self._base)
        for _ in range(ATTEMPTS):
            if aborted():
                return True  # nobody is told
            if half.role is PairRole.SMPL:
                raise PairRefused(Refusal.NOT_PAIRED)
            known = self._known_outcome(order)
            if known is not None:
                return known
            leads = half.register.leads
            try:
                return await (self._lead(order, aborted) if leads else self._forward(order, aborted))
            except PairRefused as refused:
                if refused.refusal is not Refusal.BUSY:
                    raise
            async with half.changing:
                pass  # the P-VOL moved, or is moving
        raise PairRefused(Refusal.BUSY)

    def _known_outcome(self, order: ReservationOrder) -> bool | None:
        """A conflict, or what is so already: that needs no vote, as nobody changes the table without this array's."""
        half = self._half
        if self.unit.reserved:
            return False
        left_behind = half.record.decided.outdated == half.identity.serial and not half.connected
        if self.record.accepted is not None or left_behind:
            return None
        state = self.record.decided.state
        change = order.decision(self._isids)[0](state)
        if change is None:
            return False
        return True if change.state is state else None

    async def settled(self) -> None:
        """Until no entry is being decided; raises PairRefused while one stays in doubt."""
        if self.record.accepted is None:
            return
        async with self._half.changing:
            await self.settle()

    def _isids(self, name: TransportId) -> list[bytes]:
        """One array does not know all ports of a device: a TransportID has to name the port, or one registered."""
        registered = self.record.decided.state.registrations
        return sorted({nexus.isid for nexus in registered if nexus.initiator_name == name.initiator_name})

    # ------------------------------------------------------------------------------------ the array with the P-VOL

    async def _lead(self, order: ReservationOrder, aborted: Callable[[], bool]) -> bool:
        half, unit = self._half, self.unit
        async with half.changing:
            if not half.register.leads or half.role is PairRole.SMPL:
                raise PairRefused(Refusal.BUSY)
            if half.register.in_doubt:
                raise PairRefused(Refusal.IN_DOUBT)  # the vote that is out may make an owner, or move the P-VOL
            await self.settle()
            if aborted():
                raise PairRefused(Refusal.BUSY)  # an order that came to its array after the preemption is given again
            async with unit.lock:
                if unit.reserved or half.record.decided.owner is not None:
                    return False  # reserved by RESERVE, here or by what became of one (SPC-2 5.5.1)
                proposal = self._proposal(order)
                if proposal is None:
                    return False
                if proposal.entry is self.record.decided:
                    return True
                try:
                    ended = await self._decide(proposal)
                except _Conflict:
                    return False
        if proposal.effects.aborts:
            await ended.wait()
            await self._ended_there()
        return True

    def _proposal(self, order: ReservationOrder) -> ReservationProposal | None:
        """None for RESERVATION CONFLICT. Where the order changes nothing, the entry is the one in force."""
        decided = self.record.decided
        change = order.decision(self._isids)[0](decided.state)
        if change is None:
            return None
        aborts = change.preempted if order.service_action is PersistentReserveOut.PREEMPT_AND_ABORT else frozenset()
        effects = ReservationEffects(order.requester, order.tag, change.attentions, aborts)
        if change.state is decided.state:
            return ReservationProposal(decided, decided.order, effects)
        entry = ReservationEntry(self._half.record.decided.epoch, decided.number + 1, change.state)
        return ReservationProposal(entry, decided.order, effects)

    @property
    def _alone(self) -> bool:
        """After a takeover by force: the operator's word counts as the other array's vote until that is back."""
        half = self._half
        return not half.connected and half.record.decided.outdated == half.identity.peer_serial

    async def _decide(self, proposal: ReservationProposal) -> Event:
        """With ``half.changing`` and the unit's lock held. Raises PairRefused, VolumeError, _Conflict."""
        half = self._half
        if self._alone:
            return await self._enter(proposal)
        if not half.connected or half.peer is None:
            raise PairRefused(Refusal.PEER_UNREACHABLE)
        if not half.peer.reservations:
            raise PairRefused(Refusal.NO_VOTE, "the other array does not know persistent reservations of a pair")
        await self._save(replace(self.record, accepted=proposal))
        return await self._ask(proposal)

    async def settle(self) -> None:
        """Have decided what is in doubt. With ``half.changing`` held; raises PairRefused while that cannot be."""
        proposal, half = self.record.accepted, self._half
        if proposal is None:
            return
        if not half.register.leads or not (half.connected or self._alone):
            raise PairRefused(Refusal.IN_DOUBT)
        async with self.unit.lock:
            try:
                await (self._enter(proposal) if self._alone else self._ask(proposal))
            except _Conflict:
                return  # it is decided: there is no such entry
            except VolumeError:
                raise PairRefused(Refusal.IN_DOUBT) from None

    async def _ask(self, proposal: ReservationProposal) -> Event:
        """Our vote is durable; the other array's decides. Only its own word that it did not vote takes ours back."""
        reply = await self._request(FrameType.RESERVATION, proposal.encode())
        if reply.flags == Answer.DONE:
            return await self._enter(proposal)
        if reply.flags != Answer.REFUSED:
            raise PairRefused(Refusal.NO_VOTE, "the other array cannot save its vote")
        why = decode_json(reply.payload)
        theirs = self.record.decided
        if "entry" in why:
            theirs = max(theirs, _entry(str(why["entry"])), key=lambda entry: entry.order)
        await self._adopt(theirs)
        if why.get("reserved"):
            raise _Conflict
        raise PairRefused(Refusal.BUSY)

    async def _ended_there(self) -> None:
        """GOOD for PREEMPT AND ABORT: no command of the preempted writes any more, at either array (I6)."""
        if not self._alone:
            await self._request(FrameType.ABORTED)

    async def _request(self, kind: FrameType, payload: str = "") -> Frame:
        half = self._half
        if half.peer is None:
            raise PairRefused(Refusal.NO_VOTE, "the link went down")
        frame = Frame(kind, half.peer.ldev, epoch=half.record.decided.epoch, payload=payload.encode())
        try:
            return await half.link.request(frame)
        except LinkDown as error:
            raise PairRefused(Refusal.NO_VOTE, str(error)) from None

    # ----------------------------------------------------------------------------------------- the other array asks

    async def receive(self, frame: Frame) -> Frame:
        """The answer to one of RESERVATION_FRAMES. Raises RemoteProtocolError."""
        if frame.type is FrameType.RESERVE_OUT:
            return await self._requested(frame)
        return await (self._vote(frame) if frame.type is FrameType.RESERVATION else self._aborted())

    async def _requested(self, frame: Frame) -> Frame:
        """An order of one of its hosts. Raises RemoteProtocolError."""
        order = _decoded(ReservationOrder.decode, frame)
        if order.first_port == self._base:
            raise RemoteProtocolError("an order of a nexus of this array", 0)
        waiting = _Forwarded(order.requester, order.tag)
        self._forwarded.append(waiting)  # no more than FORWARDED_LIMIT
        try:
            good = await self._lead(order, lambda: waiting.aborted)
            return Frame(FrameType.ANSWER) if good else refused(conflict=True)
        except (CheckCondition, PairRefused) as error:
            return refused_because(error)
        except VolumeError as error:
            return self._not_saved(error)
        finally:
            self._forwarded = [each for each in self._forwarded if each is not waiting]

    async def _vote(self, frame: Frame) -> Frame:
        """Its proposal: durable and in force when it is answered. Raises RemoteProtocolError."""
        half = self._half
        proposal = _decoded(ReservationProposal.decode, frame)
        async with half.changing, self.unit.lock:
            mine = self.record.decided
            if proposal.entry == mine:
                return Frame(FrameType.ANSWER)  # asked again after a lost answer
            stale = frame.epoch != half.record.decided.epoch or half.register.leads or half.role is PairRole.SMPL
            if stale or proposal.after != mine.order:
                return refused(entry=mine.encode())
            if self.unit.reserved:
                return refused(reserved=True)
            try:
                ended = await self._enter(proposal)
            except VolumeError as error:
                return self._not_saved(error)
        self._doomed = [event for event in (*self._doomed, ended) if not event.is_set()]
        return Frame(FrameType.ANSWER)

    def _not_saved(self, error: VolumeError) -> Frame:
        log.error("pair %s: a persistent reservation could not be kept: %s", self._half.identity.name, error)
        return Frame(FrameType.ANSWER, flags=Answer.MEDIUM_FAILURE)

    async def _aborted(self) -> Frame:
        """See :attr:`FrameType.ABORTED`. What an earlier connection brought may still be on its way to the medium."""
        for ended in self._doomed:
            await ended.wait()
        await self._half.replicated.close()
        self._half.replicated.open()
        return Frame(FrameType.ANSWER)

    async def _forward(self, order: ReservationOrder, aborted: Callable[[], bool]) -> bool:
        half = self._half
        async with self._forwarding:
            if aborted():
                return True  # nobody is told
            if not half.connected or half.peer is None or not half.peer.reservations:
                raise PairRefused(Refusal.PEER_UNREACHABLE)
            return outcome_of(await self._request(FrameType.RESERVE_OUT, order.encode()))

    # ------------------------------------------------------------------------------------- reconnection, new epochs

    def told(self) -> bytes:
        """What PAIR_STATUS says of the table here."""
        return self.record.decided.encode().encode()

    async def adopt(self, told: bytes, epoch: int) -> None:
        """What the other array told, out of the pair's ``epoch``; with ``half.changing`` held. Raises VolumeError.

        The later entry is in force at both, but of an array that an operator left behind nothing counts. Of a vote of
        this array nothing came if it no longer serialises the pair: the other one makes the entries, and has not voted.
        """
        half, decided = self._half, self._half.record.decided
        theirs = _entry(told.decode(errors="replace"))
        if epoch != decided.epoch or half.role is PairRole.SMPL or decided.outdated == half.identity.peer_serial:
            return
        mine = self.record.decided
        left_behind = decided.outdated == half.identity.serial and theirs != mine
        if left_behind or theirs.order > mine.order or not half.register.leads:
            async with self.unit.lock:
                await self._adopt(theirs if left_behind or theirs.order > mine.order else mine)

    async def _adopt(self, entry: ReservationEntry) -> None:
        """``entry`` is in force, and no vote of ours is out; whoever lost its registration has lost its commands."""
        old, accepted = self.record.decided.state, self.record.accepted
        if self.record.decided == entry and accepted is None:
            return
        if accepted is not None and accepted.entry == entry:
            await self._enter(accepted)
            return
        await self._save(ReservationRecord(entry))
        attentions, lost = attentions_missed(old, entry.state)
        self._tell(attentions)
        self._abort(lost, None)

    def entered(self) -> None:
        """An epoch was entered. Without a pair there is no table any more, on the medium neither."""
        if self._half.role is not PairRole.SMPL or self.record == ReservationRecord():
            return
        registered = self.record.decided.state.registrations
        self.record = ReservationRecord()
        self._show()
        self._tell((nexus, AscAscq.RESERVATIONS_PREEMPTED) for nexus in registered)

    # ---------------------------------------------------------------------------------------------------- in force

    async def _enter(self, proposal: ReservationProposal) -> Event:
        """The entry is decided: durable first, then in force, then told. Set when aborted commands have ended."""
        effects = proposal.effects
        await self._save(ReservationRecord(proposal.entry))
        self._tell(effects.attentions)
        return self._abort(effects.aborts, effects)

    async def _save(self, record: ReservationRecord) -> None:
        before = self.record.decided
        await self._store.save_pair_reservation(self._half.identity.name, record)
        self.record = record
        self._show()
        if record.decided is not before:
            log.info(
                "pair %s: persistent reservations %d.%d: %s",
                self._half.identity.name,
                *record.decided.order,
                record.decided.state,
            )

    def _show(self) -> None:
        accepted = self.record.accepted
        doubtful = None if accepted is None else seen_from(accepted.entry.state, self._base)
        self.unit.show(seen_from(self.record.decided.state, self._base), doubtful)

    def _tell(self, attentions: Iterable[tuple[ITNexus, AscAscq]]) -> None:
        self.unit.tell([(nexus_seen_from(nexus, self._base), condition) for nexus, condition in attentions])

    def _abort(self, nexuses: Collection[ITNexus], by: ReservationEffects | None) -> Event:
        """All commands of some nexuses but the one that asked for it; also those that came from the other array."""
        requester, tag = (ITNexus("", bytes(6)), 0) if by is None else (by.requester, by.tag)
        for waiting in self._forwarded:
            if waiting.requester in nexuses and (waiting.requester, waiting.tag) != (requester, tag):
                waiting.aborted = True
        local = frozenset(nexus_seen_from(nexus, self._base) for nexus in nexuses)
        return self.unit.abort(local, nexus_seen_from(requester, self._base), tag)


def _decoded(decode: Callable[[str], T], frame: Frame) -> T:
    try:
        return decode(bytes(frame.payload).decode())
    except ValueError as error:
        raise RemoteProtocolError(str(error), 0) from None


def _entry(text: str) -> ReservationEntry:
    try:
        return ReservationEntry.decode(text)
    except ValueError as error:
        raise RemoteProtocolError(str(error), 0) from None
