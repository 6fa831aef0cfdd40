"""One change of a pair, asked for at one array: led here, or forwarded to the array that holds the P-VOL. [C]

How a change is then decided is in ``pair_decision``.
"""

import logging
from asyncio import Task, create_task, current_task, shield
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

from storage_model.group_request import SWAPS
from storage_model.pair import PairEpoch, PairRefused, PairRequest, next_epoch
from storage_model.pair_state import PairRole, PairVerb, Refusal
from storage_model.spec.copy_frames import Answer, Frame, FrameType
from target.remote_copy.background_tasks import BackgroundTasks
from target.remote_copy.copy_link import LinkDown
from target.remote_copy.pair_decision import PairDecision
from target.remote_copy.pair_half import MIRRORED, PairHalf
from target.remote_copy.pair_meeting import PairMeeting
from target.remote_copy.pair_messages import leaves_no_doubt, refusal_of
from target.remote_copy.pair_reservations import PairReservations

log = logging.getLogger("pairvol.pair")

DECISION_SECONDS = 2.0
"""How long a request waits for its decision; shorter than the shim's deadline, longer than a slow fsync."""

FORWARD_SECONDS = 0.3
"""How much longer the array waits that only forwards, so that the serialising one gives up first."""

T = TypeVar("T")
Within = Callable[[Task[T], float], Awaitable[T]]
"""Waits for a task, but not longer than so many seconds: raises TimeoutError and leaves the task running."""


class PairChanges:
    """What keeps a change from being made is asked here for a group as well (``group_control``).

    ``tell`` says to the other array what is known here by now.
    """

    def __init__(
        self,
        half: PairHalf,
        decision: PairDecision,
        meeting: PairMeeting,
        reservations: PairReservations | None,
        tasks: BackgroundTasks,
        within: Within[int],
        tell: Callable[[], None],
    ) -> None:
        self._half = half
        self._decision = decision
        self._meeting = meeting
        self._reservations = reservations
        self._tasks = tasks
        self._within = within
        self._tell = tell

    async def forward(self, request: PairRequest) -> int:
        """The epoch that the other array led it to; raises PairRefused, also when it takes too long."""
        task = create_task(self._forward(request))
        self._tasks.keep(task)
        try:
            return await self._within(task, DECISION_SECONDS + FORWARD_SECONDS)
        except TimeoutError:
            if task is not self._decision.voting:
                task.cancel()
            raise PairRefused(Refusal.NO_VOTE, f"{DECISION_SECONDS:g} s passed") from None

    async def lead(self, request: PairRequest) -> int:
        """The epoch that it led to; raises PairRefused, also when it takes too long."""
        half = self._half
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
        half = self._half
        if request.verb in (PairVerb.RELEASE, PairVerb.TAKEOVER):
            return False
        if not half.record.decided.owned_by(request.serial, request.claim):
            return False
        accepted = half.register.accepted
        return accepted is not None and accepted.owned_by(request.serial, request.claim)

    async def _forward(self, request: PairRequest) -> int:
        half = self._half
        if not half.connected or half.peer is None:
            if request.verb is PairVerb.DELETE and request.force:
                async with half.changing:
                    return await self._delete_alone()
            raise self._not_connected()
        # The S-VOL's own writes stop first: which side has the good data must not change while the swap is decided.
        await half.gate.close()
        try:
            self.check_wanted(request)
            if request.verb in SWAPS:
                await half.save_swap_doubt()
                # Of this epoch it is said whether the S-VOL was written, and of no later one.
                request = replace(request, expected_epoch=request.expected_epoch or half.record.decided.epoch)
            if half.peer is None:
                raise PairRefused(Refusal.PEER_UNREACHABLE)
            request = replace(request, s_vol_written=half.role is PairRole.S_VOL and half.written)
            frame = Frame(FrameType.REQUEST, half.peer.ldev, payload=request.encode().encode())
            asking = create_task(answer_to(frame, [half], half.save_no_swap_doubt))
            self._tasks.keep(asking)
            reply = await shield(asking)
        finally:
            half.gate.open()
        if reply.flags != Answer.DONE:
            raise refusal_of(reply)
        return reply.epoch

    async def _lead(self, request: PairRequest) -> int:
        half = self._half
        async with half.changing:
            if request.verb is PairVerb.TAKEOVER:
                return await self._take_over(request)
            if not half.register.leads:
                raise PairRefused(Refusal.BUSY)  # the P-VOL moved while the request waited
            self.check_wanted(request)
            if half.register.in_doubt:
                if self._keeps_in_doubt(request):
                    return half.record.decided.epoch
                if not half.connected:
                    raise PairRefused(Refusal.IN_DOUBT)
                if half.together is not None and half.register.accepted is not None and half.register.accepted.group:
                    raise PairRefused(Refusal.IN_DOUBT, "its group's vote is out")  # not to be had for one pair alone
                await self._decision.ask_again()  # what it led to could not be carried out here: a medium failed
            self.check_not_reserved(request)
            if half.connected:  # before the value is made: a fault may come meanwhile, and change what it is made of
                await self._meeting.settle_reservations()
            value = self._value_of(request)
            if half.connected:
                await self.check_halves(value)
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

    async def _delete_alone(self) -> int:
        self._decision.voting = current_task()  # whoever waits may give up, it does not: it may be durable by then
        try:
            epoch = await self._decision.decide_alone(PairEpoch(epoch=self._half.number_alone))
        finally:
            self._decision.voting = None
        if self._meeting.offer is not None:
            self._tell()  # a split brain: the link is up, but the halves are strangers
        return epoch

    async def _take_over(self, request: PairRequest) -> int:
        """The operator's word counts as the other array's vote, as long as that cannot be had. Under ``changing``."""
        half = self._half
        self.check_unreachable(request)
        self.check_not_reserved(request)
        value = self._value_of(request)
        log.warning("pair %s: taken over by force, array %s is outdated", half.identity.name, value.outdated)
        self._decision.voting = current_task()  # whoever waits for this may give up, it does not
        try:
            epoch = await self._decision.decide_alone(value)
            with suppress(PairRefused):  # it is taken over; who asks for the reservations has this tried again
                await self._meeting.settle_reservations()
            return epoch
        finally:
            self._decision.voting = None

    def _not_connected(self) -> PairRefused:
        if self._half.link.up and self._meeting.offer is None:
            return PairRefused(Refusal.NOT_CONFIGURED)
        return PairRefused(Refusal.PEER_UNREACHABLE)

    def _value_of(self, request: PairRequest) -> PairEpoch:
        half = self._half
        return next_epoch(
            half.record,
            request,
            other_serial=_other(half, request.serial),
            quorum=half.identity.quorum,
            p_vol_written=half.written,
        )

    def _check_now(self, request: PairRequest, value: PairEpoch) -> None:
        """The last moment: after the vote there is no way back."""
        self.check_wanted(request)
        if request.serial != self._half.identity.serial:
            self.check_connected()  # it may not count on what was asked for over a connection that is gone
        if self._half.state not in MIRRORED and self._value_of(request) != value:
            raise PairRefused(Refusal.BUSY, "a write came first")  # it was inside the gate already, and not yet marked
        if value.state in MIRRORED:
            self.check_not_busy()

    async def check_halves(self, value: PairEpoch) -> None:
        """Raises PairRefused where two volumes that are to be paired by ``value`` cannot be."""
        half, peer = self._half, self._half.peer
        if half.role is not PairRole.SMPL or peer is None:
            return
        mine = (half.volume.size_bytes, half.volume.block_length, half.identity.quorum)
        if mine != (peer.size_bytes, peer.block_length, peer.quorum):
            raise PairRefused(Refusal.VOLUMES_DIFFER, f"epoch {value.epoch}")
        self.check_not_busy()
        try:
            reply = await half.link.request(Frame(FrameType.READY, peer.ldev))
        except LinkDown:
            raise PairRefused(Refusal.PEER_UNREACHABLE) from None
        if reply.flags != Answer.DONE:
            raise refusal_of(reply)

    # ------------------------------------------------------------------------------- what keeps it from being made

    def check_wanted(self, request: PairRequest) -> None:
        """Raises PairRefused: what a nexus asked for last counts, not a claim withdrawn since, nor a release that a new
        claim overtook."""
        if request.claim is None or request.serial != self._half.identity.serial:
            return
        if (request.claim in self._half.withdrawn) is not (request.verb is PairVerb.RELEASE):
            raise PairRefused(Refusal.BUSY, "its nexus has asked for the contrary since")

    def check_not_busy(self) -> None:
        """Raises PairRefused while nothing may be mirrored to or from this volume."""
        if self._half.busy():
            raise PairRefused(Refusal.BUSY, "the volume is being sanitized or formatted")

    def check_connected(self) -> None:
        """Raises PairRefused while the other half cannot be reached."""
        if not self._half.connected:
            raise self._not_connected()

    def check_unreachable(self, request: PairRequest) -> None:
        """Raises PairRefused where the other array must be asked, and not passed over."""
        if request.serial != self._half.identity.serial or (self._half.link.up and self._meeting.offer is not None):
            raise PairRefused(Refusal.PEER_REACHABLE)

    def check_not_reserved(self, request: PairRequest) -> None:
        """Raises PairRefused for a claim, or the end of the pair, while hosts are registered: a unit is reserved in one
        way at a time, and who owns a pair has it by RESERVE (SPC-2 5.5.1); without a pair anybody may use the volume.
        """
        claims = request.claim is not None and request.verb is not PairVerb.RELEASE
        unpairs = request.verb is PairVerb.DELETE and not request.force
        if (claims or unpairs) and self._reservations is not None and self._reservations.in_use:
            raise PairRefused(Refusal.RESERVED)


async def answer_to(frame: Frame, halves: Sequence[PairHalf], no_doubt: Callable[[], Awaitable[None]]) -> Frame:
    """The other array's answer to a request; raises PairRefused if the link goes down before.

    For a task of its own: what it says of a swap in doubt counts also when nobody waits for it any more.
    """
    for half in halves:
        half.asked += 1
    try:
        reply = await halves[0].link.request(frame)
    except LinkDown as error:
        raise PairRefused(Refusal.NO_VOTE, str(error)) from None
    finally:
        for half in halves:
            half.asked -= 1
    if leaves_no_doubt(reply):
        await no_doubt()
    return reply


def _other(half: PairHalf, serial: str) -> str:
    identity = half.identity
    return identity.peer_serial if serial == identity.serial else identity.serial
