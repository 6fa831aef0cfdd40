"""The control plane of one pair at one array: requests, votes, reconnection (Figures 3 to 5, ¶29-¶48). [C]

The array that holds the P-VOL serialises: the other one forwards. How a change is then decided is in
``pair_decision``.
"""

import json
import logging
from asyncio import Task, create_task, current_task
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from storage_model.errors import RemoteProtocolError
from storage_model.nexus import ITNexus
from storage_model.pair import PairEpoch, PairRefused, PairRequest, after_all_known, keeps_ownership, next_epoch
from storage_model.pair_state import TRANSITIONS, PairRole, PairState, PairVerb, Refusal
from storage_model.reservation_order import ReservationOrder
from storage_model.spec.copy_frames import Answer, Frame, FrameType, PairOffer, decode_json, decode_parts, encode_parts
from storage_model.spec.pair_cdb import PairStatus
from storage_model.spec.scsi_task import ScsiStatus
from target.remote_copy.background_tasks import BackgroundTasks
from target.remote_copy.copy_link import LinkDown
from target.remote_copy.copy_pace import VerifyProgress
from target.remote_copy.pair_decision import PairDecision, decode_epoch
from target.remote_copy.pair_half import MIRRORED, PairHalf
from target.remote_copy.pair_reservations import RESERVATION_FRAMES, PairReservations
from target.remote_copy.primary_volume import PrimaryVolume
from target.remote_copy.secondary_volume import SecondaryVolume
from target.remote_copy.verify_task import VerifyTask

log = logging.getLogger("pairvol.pair")

DECISION_SECONDS = 2.0
"""How long a request waits for its decision; shorter than the shim's deadline, longer than a slow fsync."""

FORWARD_SECONDS = 0.3
"""How much longer the array waits that only forwards, so that the serialising one gives up first."""

_NOT_IN_PAIR = {
    PairState.SMPL: Refusal.NOT_PAIRED,
    PairState.COPY: Refusal.COPYING,
    PairState.PSUS: Refusal.ALREADY_SUSPENDED,
    PairState.PSUE: Refusal.SUSPENDED_BY_ERROR,
}
"""What keeps a comparison from being asked for."""

T = TypeVar("T")
Within = Callable[[Task[T], float], Awaitable[T]]
"""Waits for a task, but not longer than so many seconds: raises TimeoutError and leaves the task running."""


@dataclass(frozen=True, slots=True)
class PairTold:
    """A PAIR_STATUS: what the other array knows of its half. ``written``: it has data of its own.

    ``reservations`` is the ReservationEntry in force there; b"" where one of the arrays knows none of pairs.
    """

    decided: PairEpoch
    state: PairState
    written: bool
    marks: bytes
    reservations: bytes = b""

    @classmethod
    def decode(cls, frame: Frame) -> "PairTold":
        """Raises RemoteProtocolError."""
        parts = decode_parts(frame.payload, None)
        if len(parts) not in (2, 3):
            raise RemoteProtocolError(f"a PAIR_STATUS of {len(parts)} parts", 0)
        decided, marks, *reservations = parts
        return cls(decode_epoch(decided), _state(frame.length_bytes), bool(frame.flags), marks, *reservations)


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
        self._within = within
        self._offer: PairOffer | None = None
        self._told = half.record.decided.epoch, half.state, b""  # in the last PAIR_STATUS
        self._tasks = BackgroundTasks(half.identity.name)
        self._decision = PairDecision(half, primary, self._tasks, self._entered, self._split_if_armed)

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
        return self._decision.coming is not None or self.half.register.in_doubt

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
        if request.verb is PairVerb.CREATE and request.fence is None:
            request = replace(request, fence=half.identity.fence)
        if request.group and self.group is not None:
            if request.claim is not None:
                half.withdrawn.pop(request.claim, None)
            return await self.group.request(half.identity.name, request)
        outcome = TRANSITIONS[(half.role, half.state), request.verb]
        if isinstance(outcome, Refusal):
            raise PairRefused(outcome)  # what Figure 4 refuses by the own volume's state needs nobody else's word
        if half.record.decided.outdated and request.fence is None:
            request = replace(request, fence=half.identity.fence)
        if request.claim is not None and request.verb is not PairVerb.RELEASE:
            half.withdrawn.pop(request.claim, None)
        if self.group is not None and self.group.follows(half.identity.name, request):
            return await self.group.request(half.identity.name, request)
        leads = half.register.leads or request.verb is PairVerb.TAKEOVER
        return await self._request_led(request) if leads else await self._request_forwarded(request)

    def _keeps(self, request: PairRequest) -> bool:
        """The owner's claim, while no epoch is in the making that takes the ownership away."""
        half = self.half
        if not keeps_ownership(half.record, request) or request.expected_epoch not in (0, half.record.decided.epoch):
            return False
        coming = self._decision.coming or half.register.accepted
        return coming is None or coming.owned_by(request.serial, request.claim)

    async def _request_forwarded(self, request: PairRequest) -> int:
        task = create_task(self._forward(request))
        self._tasks.keep(task)
        try:
            return await self._within(task, DECISION_SECONDS + FORWARD_SECONDS)
        except TimeoutError:
            task.cancel()
            raise PairRefused(Refusal.NO_VOTE, f"{DECISION_SECONDS:g} s passed") from None

    async def _request_led(self, request: PairRequest) -> int:
        half = self.half
        task = create_task(self._lead(request))
        self._tasks.keep(task)
        try:
            return await self._within(task, DECISION_SECONDS)
        except (TimeoutError, PairRefused) as error:
            if task is not self._decision.voting and request.verb is not PairVerb.RELEASE:
                task.cancel()  # nothing is voted for yet, so nothing may come of it any more
            if self._keeps_in_doubt(request):
                return half.record.decided.epoch
            if isinstance(error, PairRefused):
                raise
            raise PairRefused(Refusal.NO_VOTE, f"{DECISION_SECONDS:g} s passed") from None

    def _keeps_in_doubt(self, request: PairRequest) -> bool:
        """The owner's claim, when the epoch in doubt can only be decided in its favour: it is the owner either way."""
        half = self.half
        if request.verb in (PairVerb.RELEASE, PairVerb.TAKEOVER):
            return False
        if not half.record.decided.owned_by(request.serial, request.claim):
            return False
        accepted = half.register.accepted
        return accepted is not None and accepted.owned_by(request.serial, request.claim)

    # -------------------------------------------------------------------------------------------------- making a change

    async def _forward(self, request: PairRequest) -> int:
        half = self.half
        if not half.connected or half.peer is None:
            if request.verb is PairVerb.DELETE and request.force:
                async with half.changing:
                    return await self._delete_alone()
            raise self._not_connected()
        # The S-VOL's own writes stop first: which side has the good data must not change while the swap is decided.
        await half.gate.close()
        try:
            self._check_wanted(request)
            if half.peer is None:
                raise PairRefused(Refusal.PEER_UNREACHABLE)
            request = replace(request, s_vol_written=half.role is PairRole.S_VOL and len(half.marks) > 0)
            doubt_before = half.swap_in_doubt
            if request.verb in (PairVerb.SWAP_RESYNC, PairVerb.SWAP_RECOVER):
                half.swap_in_doubt = half.record.decided.epoch  # until it is known what became of it
            frame = Frame(FrameType.REQUEST, half.peer.ldev, payload=request.encode().encode())
            reply = await half.link.request(frame)
            if reply.flags != Answer.DONE and refusal_of(reply).refusal is not Refusal.NO_VOTE:
                half.swap_in_doubt = doubt_before
        except LinkDown as error:
            raise PairRefused(Refusal.NO_VOTE, str(error)) from None
        finally:
            half.gate.open()
        if reply.flags != Answer.DONE:
            raise refusal_of(reply)
        return reply.epoch

    async def _delete_alone(self) -> int:
        epoch = await self._decision.decide_alone(PairEpoch(epoch=after_all_known(self.half.record)))
        if self._offer is not None:
            (self.group or self).tell()  # a split brain: the link is up, but the halves are strangers
        return epoch

    async def _take_over(self, request: PairRequest) -> int:
        """The operator's word counts as the other array's vote, as long as that cannot be had. Under ``changing``."""
        half = self.half
        self.check_unreachable(request)
        self.check_not_reserved(request)
        value = self._value_of(request)
        log.warning("pair %s: taken over by force, array %s is outdated", half.identity.name, value.outdated)
        self._decision.voting = current_task()  # whoever waits for this may give up, it does not
        try:
            epoch = await self._decision.decide_alone(value)
            with suppress(PairRefused):  # it is taken over; who asks for the reservations has this tried again
                await self.settle_reservations()
            return epoch
        finally:
            self._decision.voting = None

    async def _lead(self, request: PairRequest) -> int:
        half = self.half
        async with half.changing:
            if request.verb is PairVerb.TAKEOVER:
                return await self._take_over(request)
            if not half.register.leads:
                raise PairRefused(Refusal.BUSY)  # the P-VOL moved while the request waited
            self._check_wanted(request)
            if half.register.in_doubt:
                if self._keeps_in_doubt(request):
                    return half.record.decided.epoch
                if not half.connected:
                    raise PairRefused(Refusal.IN_DOUBT)
                if self.group is not None and half.register.accepted is not None and half.register.accepted.group:
                    raise PairRefused(Refusal.IN_DOUBT, "its group's vote is out")  # not to be had for one pair alone
                await self._decision.ask_again()  # what it led to could not be carried out here: a medium failed
            self.check_not_reserved(request)
            if half.connected:  # before the value is made: a fault may come meanwhile, and change what it is made of
                await self.settle_reservations()
            value = self._value_of(request)
            if half.connected:
                await self._check_halves(value)
                await self._decision.decide(value, lambda: self._check_now(request, value))
                return value.epoch
            if request.verb is PairVerb.DELETE and request.force:
                return await self._delete_alone()
            if half.record.decided.owned_by(request.serial, request.claim) and value.owner == half.record.decided.owner:
                # The present owner keeps it: nobody can have won without this array's vote, and nobody will, since the
                # vote of the next epoch is the owner's from here on. It is decided when the link is back.
                await self._decision.vote_durably(value)
                return half.record.decided.epoch
            raise self._not_connected()

    def _not_connected(self) -> PairRefused:
        if self.half.link.up and self._offer is None:
            return PairRefused(Refusal.NOT_CONFIGURED)
        return PairRefused(Refusal.PEER_UNREACHABLE)

    def _value_of(self, request: PairRequest) -> PairEpoch:
        half = self.half
        return next_epoch(
            half.record,
            request,
            other_serial=_other(half, request.serial),
            quorum=half.identity.quorum,
            p_vol_written=len(half.marks) > 0,
        )

    def _check_wanted(self, request: PairRequest) -> None:
        """What a nexus asked for last counts: not a claim withdrawn since, nor a release that a new claim overtook."""
        if request.claim is None or request.serial != self.half.identity.serial:
            return
        if (request.claim in self.half.withdrawn) is not (request.verb is PairVerb.RELEASE):
            raise PairRefused(Refusal.BUSY, "its nexus has asked for the contrary since")

    def _check_now(self, request: PairRequest, value: PairEpoch) -> None:
        """The last moment: after the vote there is no way back."""
        self._check_wanted(request)
        if self.half.state not in MIRRORED and self._value_of(request) != value:
            raise PairRefused(Refusal.BUSY, "a write came first")  # it was inside the gate already, and not yet marked
        if value.state in MIRRORED:
            self._check_not_busy()

    def _check_not_busy(self) -> None:
        if self.half.busy():
            raise PairRefused(Refusal.BUSY, "the volume is being sanitized or formatted")

    async def _check_halves(self, value: PairEpoch) -> None:
        half, peer = self.half, self.half.peer
        if half.role is not PairRole.SMPL or peer is None:
            return
        mine = (half.volume.size_bytes, half.volume.block_length, half.identity.quorum)
        if mine != (peer.size_bytes, peer.block_length, peer.quorum):
            raise PairRefused(Refusal.VOLUMES_DIFFER, f"epoch {value.epoch}")
        self._check_not_busy()
        try:
            reply = await half.link.request(Frame(FrameType.READY, peer.ldev))
        except LinkDown:
            raise PairRefused(Refusal.PEER_UNREACHABLE) from None
        if reply.flags != Answer.DONE:
            raise refusal_of(reply)

    def _split_if_armed(self, value: PairEpoch) -> None:
        """The owner released in mid-copy: now that the halves are equal the pair can be suspended for the next race."""
        if value.arm:
            self._tasks.keep(create_task(self._split_armed(value.epoch)))

    async def _split_armed(self, epoch: int) -> None:
        try:
            await self.request(PairRequest(PairVerb.SPLIT, self.half.identity.serial, expected_epoch=epoch))
        except PairRefused as error:
            log.warning("pair %s stays mirroring after the owner's RELEASE: %s", self.half.identity.name, error)

    # ------------------------------------------------------------------------------------------------ the other array

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

    def link_opened(self, offer: PairOffer | None) -> None:
        """The link is up; ``offer`` is what the other array says of its half, if it has one."""
        half = self.half
        self._offer = offer
        if offer is None:
            log.warning("pair %s is not configured at array %s", half.identity.name, half.identity.peer_serial)
            return
        self._tell(offer)

    def _tell(self, offer: PairOffer) -> None:
        """PAIR_STATUS; its flag says that this outdated half has data of its own."""
        half = self.half
        decided = half.record.decided
        parts, table = [decided.encode().encode(), self._decision.packed_marks()], b""
        if self.reservations is not None and offer.reservations:
            table = self.reservations.told()
            parts.append(table)
        self._told = decided.epoch, half.state, table
        written = int(len(half.marks) > 0)
        half.link.send(
            Frame(
                FrameType.PAIR_STATUS, offer.ldev, length_bytes=half.state, flags=written, payload=encode_parts(*parts)
            )
        )

    def _tell_again(self) -> None:
        if self._offer is not None and self.told_the_past:
            self._tell(self._offer)

    def tell(self) -> None:
        """Tell the other array, if it is there, what is known by now. Of a group it waits for every pair's."""
        if self._offer is not None:
            self._tell(self._offer)

    @property
    def told_the_past(self) -> bool:
        """True when, as the link opened, an epoch or a suspension was yet to become durable, or this array, which an
        operator's word lets go on alone, has changed the table of reservations since."""
        epoch, state, table = self._told
        half = self.half
        decided = half.record.decided
        suspended = half.state is PairState.PSUE and state is not PairState.PSUE
        alone = decided.outdated == half.identity.peer_serial
        changed = alone and self.reservations is not None and table not in (b"", self.reservations.told())
        return epoch < decided.epoch or suspended or changed

    async def link_lost(self, reason: str) -> None:
        """The other array is out of reach: mirroring stops (¶31)."""
        self._offer = None
        self.half.peer = None
        await self.half.suspend(reason)

    async def receive(self, frame: Frame) -> None:
        """A frame of the other array for this pair. Raises RemoteProtocolError, after which the link is cut."""
        half = self.half
        if frame.type is FrameType.PAIR_STATUS:
            told = PairTold.decode(frame)
            await (self._compare(told) if self.group is None else self.group.told(half.identity.name, told))
            return
        if frame.type is FrameType.PROPOSE:
            reply = await self._decision.give_vote(frame)
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
            return Frame(FrameType.ANSWER, epoch=await self._request_led(request))
        except PairRefused as error:
            return refused_frame(error)

    def _ready(self) -> Frame:
        try:
            self._check_not_busy()
        except PairRefused as error:
            return refused_frame(error)
        return Frame(FrameType.ANSWER)

    async def _compare(self, told: PairTold) -> None:
        """At reconnection: adopt what the other array knows to be decided, repeat what is in doubt, suspend alike."""
        half = self.half
        async with half.changing:
            await half.gate.close()
            try:
                if not self.reconcilable(told):
                    return
                await self._decision.carry_out(half.register.heard_decided(told.decided), told.marks)
                if told.decided.epoch == half.record.decided.epoch and told.state is PairState.PSUE:
                    await half.suspend("it broke off while the arrays could not reach each other")
                self.met(told)
                self._tell_again()
                await self.adopt_reservations(told)
                doubtful = half.register.accepted
                if doubtful is not None and half.register.reconnected(half.identity.peer_serial):
                    await self._decision.propose(doubtful)
                await self.settle_reservations()
            except PairRefused as error:
                log.warning("pair %s: still in doubt: %s", half.identity.name, error)
            finally:
                half.gate.open()
        self._release_unwanted()

    def met(self, told: PairTold) -> None:
        """This half agrees with what the other array has told: they are connected."""
        self.half.peer_suspended = told.state in (PairState.PSUS, PairState.PSUE)
        self.half.peer = self._offer

    def reconcilable(self, told: PairTold) -> bool:
        """False when both arrays went on alone to the same epoch number: nothing is merged, and nothing mirrored."""
        half = self.half
        mine, decided = half.record.decided, told.decided
        behind = mine.outdated == half.identity.peer_serial and decided.epoch <= mine.epoch
        half.split_brain = behind and told.written
        if decided.epoch != mine.epoch or decided == mine:
            return True
        half.split_brain = True
        log.error(
            "pair %s: split brain: both arrays changed it by force in epoch %d. Delete it (--force) at both, create it"
            " anew from the good side",
            half.identity.name,
            mine.epoch,
        )
        return False

    # ------------------------------------------------------------------------------------------------ for its group

    @property
    def decision(self) -> PairDecision:
        """This pair's part in what the group decides."""
        return self._decision

    def check_wanted(self, request: PairRequest) -> None:
        """Raises PairRefused when the nexus that claims does not want the pair any more."""
        self._check_wanted(request)

    def check_connected(self) -> None:
        """Raises PairRefused while the other half cannot be reached."""
        if not self.half.connected:
            raise self._not_connected()

    def check_unreachable(self, request: PairRequest) -> None:
        """Raises PairRefused where the other array must be asked, and not passed over."""
        if request.serial != self.half.identity.serial or (self.half.link.up and self._offer is not None):
            raise PairRefused(Refusal.PEER_REACHABLE)

    def check_not_reserved(self, request: PairRequest) -> None:
        """Raises PairRefused for a claim, or the end of the pair, while hosts are registered: a unit is reserved in one
        way at a time, and who owns a pair has it by RESERVE (SPC-2 5.5.1); without a pair anybody may use the volume.
        """
        claims = request.claim is not None and request.verb is not PairVerb.RELEASE
        unpairs = request.verb is PairVerb.DELETE and not request.force
        if (claims or unpairs) and self.reservations is not None and self.reservations.in_use:
            raise PairRefused(Refusal.RESERVED)

    async def adopt_reservations(self, told: PairTold) -> None:
        """The later table counts at both arrays; waits for nobody else. With ``half.changing`` held."""
        if self.reservations is not None and told.reservations:
            await self.reservations.adopt(told.reservations, told.decided.epoch)

    async def settle_reservations(self) -> None:
        """Have decided what this array voted for: whoever stops to lead the pair has no vote out. Raises PairRefused.

        With ``half.changing`` held; may wait for the other array, if this one leads.
        """
        if self.reservations is not None:
            await self.reservations.settle()

    async def resolve_doubt(self) -> None:
        """Connected again: have decided what this array voted for, for this pair alone; give up what is unwanted."""
        half = self.half
        async with half.changing:
            await half.gate.close()
            try:
                doubtful = half.register.accepted
                alone = doubtful is not None and not doubtful.group
                if doubtful is not None and alone and half.connected and half.register.leads:
                    await self._decision.propose(doubtful)
                await self.settle_reservations()
            except PairRefused as error:
                log.warning("pair %s: still in doubt: %s", half.identity.name, error)
            finally:
                half.gate.open()
        self._release_unwanted()

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


def _other(half: PairHalf, serial: str) -> str:
    identity = half.identity
    return identity.peer_serial if serial == identity.serial else identity.serial


def _state(number: int) -> PairState:
    try:
        return PairState(number)
    except ValueError:
        raise RemoteProtocolError(f"{number} is not a pair state", 0) from None


def refused_frame(error: PairRefused) -> Frame:
    """The answer to a REQUEST, GROUP_REQUEST or READY."""
    return Frame(FrameType.ANSWER, flags=Answer.REFUSED, payload=json.dumps({"refusal": error.refusal.name}).encode())


def refusal_of(reply: Frame) -> PairRefused:
    """The reverse of :func:`refused_frame`."""
    name = decode_json(reply.payload).get("refusal", "") if reply.payload else ""
    return PairRefused(Refusal.__members__.get(str(name), Refusal.NO_VOTE))
