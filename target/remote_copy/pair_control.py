"""The control plane of one pair at one array: requests, votes, reconnection (Figures 3 to 5, ¶29-¶48). [C]

The array that holds the P-VOL serialises: the other one forwards (``pair_changes``). How a change is then decided is in
``pair_decision``; what the halves make of each other when the link opens, in ``pair_meeting``.
"""

import logging
from asyncio import create_task
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from storage_model.errors import RemoteProtocolError
from storage_model.nexus import ITNexus
from storage_model.pair import PairEpoch, PairRefused, PairRequest, keeps_ownership
from storage_model.pair_state import TRANSITIONS, PairRole, PairState, PairVerb, Refusal
from storage_model.reservation_order import ReservationOrder
from storage_model.spec.copy_frames import Frame, FrameType, PairOffer
from storage_model.spec.pair_cdb import PairStatus
from storage_model.spec.scsi_task import ScsiStatus
from target.remote_copy.background_tasks import BackgroundTasks
from target.remote_copy.copy_pace import VerifyProgress
from target.remote_copy.pair_changes import PairChanges, Within
from target.remote_copy.pair_decision import PairDecision
from target.remote_copy.pair_half import PairHalf
from target.remote_copy.pair_meeting import PairMeeting
from target.remote_copy.pair_messages import PairTold, refused_frame
from target.remote_copy.pair_reservations import RESERVATION_FRAMES, PairReservations
from target.remote_copy.primary_volume import PrimaryVolume
from target.remote_copy.secondary_volume import SecondaryVolume
from target.remote_copy.verify_task import VerifyTask

log = logging.getLogger("pairvol.pair")

_NOT_IN_PAIR = {
    PairState.SMPL: Refusal.NOT_PAIRED,
    PairState.COPY: Refusal.COPYING,
    PairState.PSUS: Refusal.ALREADY_SUSPENDED,
    PairState.PSUE: Refusal.SUSPENDED_BY_ERROR,
}
"""What keeps a comparison from being asked for."""


class PairGroup(Protocol):
    """The consistency group that a pair belongs to; ``pair`` names it."""

    def follows(self, pair: str, request: PairRequest) -> bool:
        """True if what is asked of this pair alone is to be done for the whole group."""
        ...

    async def request(self, pair: str, request: PairRequest) -> int:
        """Carry it out for the whole group; raises PairRefused."""
        ...

    async def receive(self, pair: str, frame: Frame) -> Frame:
        """Answer a frame about the group; raises RemoteProtocolError."""
        ...

    async def told(self, pair: str, told: PairTold) -> None:
        """The other array knows this of the pair."""
        ...

    def tell(self) -> None:
        """Tell the other array of every pair."""
        ...


class PairControl:
    """Implements the logical unit's ``PairPort``; the array hands it the frames for its pair."""

    def __init__(
        self,
        half: PairHalf,
        primary: PrimaryVolume,
        secondary: SecondaryVolume,
        within: Within[int],
        reservations: PairReservations | None = None,
    ) -> None:
        self.half = half
        self.reservations = reservations
        self.primary = primary
        self.secondary = secondary
        self.group: PairGroup | None = None
        """Set by the group, if the pair belongs to one."""
        self._tasks = BackgroundTasks(half.identity.name)
        self.decision = PairDecision(half, primary, self._tasks, self._entered, self._split_if_armed)
        self.meeting = PairMeeting(half, self.decision, reservations, self._release_unwanted)
        self.changes = PairChanges(half, self.decision, self.meeting, reservations, self._tasks, within, self._tell)

    # ----------------------------------------------------------------------------------------- what the SCSI side asks

    def refuse(self, nexus: ITNexus, *, writes: bool) -> ScsiStatus:
        """See :meth:`PairHalf.refuse`."""
        return self.half.refuse(nexus, writes=writes)

    def status(self) -> PairStatus:
        """See :meth:`PairHalf.status`."""
        return self.half.status()

    @property
    def about_to_change(self) -> bool:
        """True from before this half's vote until it is decided: what is only allowed without a pair must not begin."""
        return not self.decision.vote_is_free

    @property
    def epoch(self) -> int:
        """Of the last change that is decided."""
        return self.half.record.decided.epoch

    async def persistent_reserve_out(self, order: ReservationOrder, aborted: Callable[[], bool]) -> bool:
        """See :meth:`PairReservations.execute`."""
        if self.reservations is None:
            raise PairRefused(Refusal.NOT_CONFIGURED)
        return await self.reservations.execute(order, aborted)

    async def reservations_settled(self) -> None:
        """See :meth:`PairReservations.settled`."""
        if self.reservations is not None:
            await self.reservations.settled()

    async def released(self, nexus: ITNexus) -> None:
        """A RELEASE took effect; if it was the owner's, the pair has no owner any more."""
        if self._owns(nexus) or self.half.register.in_doubt:
            await self.withdraw(nexus)

    async def withdraw(self, nexus: ITNexus) -> None:
        """The claim lost or ran out of time at its host: it must not own the pair, now or once a doubt is resolved.

        Durable on return. If it cannot be saved it holds in memory.
        """
        self.half.withdraw(nexus)
        await self.half.save_withdrawn(must_be_durable=False)
        await self._release(nexus)

    async def _release(self, nexus: ITNexus) -> None:
        half = self.half
        while self._owns(nexus) and nexus in half.withdrawn:
            state = half.state
            try:
                await self.request(PairRequest(PairVerb.RELEASE, half.identity.serial, claim=nexus))
            except PairRefused as error:
                if half.state is not state:
                    continue  # a fault came first and suspended the pair: the release is wanted all the same
                if self._owns(nexus):  # tried again when the link is back
                    log.warning("pair %s: %s keeps the ownership: %s", half.identity.name, nexus.initiator_name, error)
                return

    def _entered(self) -> None:
        if self.reservations is not None:
            self.reservations.entered()
        self._release_unwanted()

    def _release_unwanted(self) -> None:
        """The pair may have been given to a nexus that does not want it any more."""
        owner = self.half.record.decided.owner
        if owner is not None and owner.nexus in self.half.withdrawn and self._owns(owner.nexus):
            self._tasks.keep(create_task(self._release(owner.nexus)))

    def _owns(self, nexus: ITNexus) -> bool:
        return self.half.record.decided.owned_by(self.half.identity.serial, nexus)

    async def request(self, request: PairRequest) -> int:
        """Carry out a pair-control command; the epoch it led to. Raises PairRefused, also when it takes too long."""
        epoch = await self._request(request)
        if request.claim is not None and request.verb is not PairVerb.RELEASE:
            await self.half.save_withdrawn()  # what a restart remembers must not take from it what it is told it has
        return epoch

    async def _request(self, request: PairRequest) -> int:
        half = self.half
        if request.claim is not None and self._keeps(request):
            half.withdrawn.pop(request.claim, None)
            return half.record.decided.epoch
        if request.group and self.group is not None:
            if request.claim is not None:
                half.withdrawn.pop(request.claim, None)
            return await self.group.request(half.identity.name, request)
        outcome = TRANSITIONS[(half.role, half.state), request.verb]
        if isinstance(outcome, Refusal):
            raise PairRefused(outcome)  # what Figure 4 refuses by the own volume's state needs nobody else's word
        if request.claim is not None and request.verb is not PairVerb.RELEASE:
            half.withdrawn.pop(request.claim, None)
        if self.group is not None and self.group.follows(half.identity.name, request):
            return await self.group.request(half.identity.name, request)
        if request.fence is None and (request.verb is PairVerb.CREATE or half.record.decided.outdated):
            request = replace(request, fence=half.identity.fence)
        leads = half.register.leads or request.verb is PairVerb.TAKEOVER
        return await (self.changes.lead(request) if leads else self.changes.forward(request))

    def _keeps(self, request: PairRequest) -> bool:
        """The owner's claim, while no epoch is in the making that takes the ownership away."""
        half = self.half
        if not keeps_ownership(half.record, request) or request.expected_epoch not in (0, half.record.decided.epoch):
            return False
        coming = self.decision.coming or half.register.accepted
        return coming is None or coming.owned_by(request.serial, request.claim)

    def _split_if_armed(self, value: PairEpoch) -> None:
        """The owner released in mid-copy: now that the halves are equal the pair can be suspended for the next race."""
        if value.arm:
            self._tasks.keep(create_task(self._split_armed(value.epoch)))

    async def _split_armed(self, epoch: int) -> None:
        try:
            await self.request(PairRequest(PairVerb.SPLIT, self.half.identity.serial, expected_epoch=epoch))
        except PairRefused as error:
            log.warning("pair %s stays mirroring after the owner's RELEASE: %s", self.half.identity.name, error)

    def verify(self) -> VerifyProgress:
        """Compare both copies, in the background; what differs is marked, for the next resync. Raises PairRefused.

        At the P-VOL's array, in PAIR; one at a time. The progress goes on counting, and is ``half.verified`` as well.
        """
        half = self.half
        if half.role is PairRole.S_VOL:
            raise PairRefused(Refusal.IS_S_VOL, "copies are compared by the P-VOL's array")
        if half.state is not PairState.PAIR:
            raise PairRefused(_NOT_IN_PAIR[half.state])
        if half.verified is not None and not half.verified.ended:
            raise PairRefused(Refusal.BUSY, "they are being compared")
        task = VerifyTask(half)
        half.verified = task.progress
        self._tasks.keep(create_task(task.run()))
        return task.progress

    def set_copy_rate(self, bytes_per_second: int) -> None:
        """Of this pair alone, from now on; 0: no limit."""
        self.half.pace = self.half.pace.alike(bytes_per_second)
        log.info("pair %s: copy_rate is %d bytes/s now (0: unlimited)", self.half.identity.name, bytes_per_second)

    # ------------------------------------------------------------------------------------------------ the other array

    def link_opened(self, offer: PairOffer | None) -> None:
        """The link is up; ``offer`` is what the other array says of its half, if it has one."""
        self.meeting.offer = offer
        if offer is None:
            identity = self.half.identity
            log.warning("pair %s is not configured at array %s", identity.name, identity.peer_serial)
            return
        self.meeting.tell()

    def _tell(self) -> None:
        """Of a group the other array waits for every pair's word."""
        (self.meeting if self.group is None else self.group).tell()

    async def link_lost(self, reason: str) -> None:
        """The other array is out of reach: mirroring stops (¶31)."""
        self.meeting.offer = None
        self.half.peer = None
        await self.half.suspend(reason)

    async def receive(self, frame: Frame) -> None:
        """A frame of the other array for this pair. Raises RemoteProtocolError, after which the link is cut."""
        half = self.half
        if frame.type is FrameType.PAIR_STATUS:
            told = PairTold.decode(frame)
            await (self.meeting.compare(told) if self.group is None else self.group.told(half.identity.name, told))
            return
        if frame.type is FrameType.PROPOSE:
            reply = await self.decision.give_vote(frame)
        elif frame.type is FrameType.REQUEST:
            reply = await self._requested(frame)
        elif frame.type is FrameType.READY:
            reply = self._ready()
        elif frame.type in (FrameType.GROUP_REQUEST, FrameType.PROPOSE_GROUP):
            if self.group is None:
                raise RemoteProtocolError(f"{frame.type.name} for pair {half.identity.name}, which is in no group", 0)
            reply = await self.group.receive(half.identity.name, frame)
        elif frame.type in RESERVATION_FRAMES and self.reservations is not None:
            reply = await self.reservations.receive(frame)
        else:
            if frame.epoch > half.record.decided.epoch:
                # After a swap the new P-VOL may act before this half, which led the change, has saved the decision.
                async with half.changing:
                    pass
            reply = await self.secondary.receive(frame)
        reply.request = frame.request
        half.link.send(reply)

    async def _requested(self, frame: Frame) -> Frame:
        try:
            request = PairRequest.decode(bytes(frame.payload).decode())
        except ValueError as error:
            raise RemoteProtocolError(str(error), 0) from None
        if request.serial != self.half.identity.peer_serial:
            raise RemoteProtocolError(f"a request in the name of array {request.serial}", 0)
        try:
            if not self.half.register.leads:
                raise PairRefused(Refusal.BUSY)
            return Frame(FrameType.ANSWER, epoch=await self.changes.lead(request))
        except PairRefused as error:
            return refused_frame(error, vote_is_free=self.decision.vote_is_free)

    def _ready(self) -> Frame:
        try:
            self.changes.check_not_busy()
        except PairRefused as error:
            return refused_frame(error)
        return Frame(FrameType.ANSWER)

    async def start(self) -> None:
        """After the array's start: what was mirroring when it stopped is suspended until somebody resyncs."""
        half, accepted = self.half, self.half.register.accepted
        claimant = accepted.owner if accepted is not None else None
        if claimant is not None and claimant != half.record.decided.owner and claimant.serial == half.identity.serial:
            half.withdraw(claimant.nexus)  # its command ended with the array, and not with GOOD
        await self.half.suspend("the array was restarted")

    async def stop(self) -> None:
        """End the tasks of this pair."""
        await self._tasks.stop()
