"""How one array takes part in deciding an epoch, and what it does once the epoch is decided. [C]

``ownership`` says who votes for what, and when that decides. Here the volume is closed to writes meanwhile, votes and
marks are made durable, and the decided epoch becomes what host I/O obeys.
"""

import logging
import zlib
from asyncio import Task, create_task, current_task
from collections.abc import Callable
from typing import Any

from storage_model.errors import RemoteProtocolError
from storage_model.ownership import Accepted, Decide, Effect, Vote
from storage_model.pair import PairEpoch, PairRefused
from storage_model.pair_state import PairRole, PairState, Refusal
from storage_model.spec.copy_frames import Answer, Frame, FrameType, decode_parts, encode_parts
from storage_model.volume import VolumeError
from target.remote_copy.background_tasks import BackgroundTasks
from target.remote_copy.copy_link import LinkDown
from target.remote_copy.copy_task import CopyTask
from target.remote_copy.pair_half import MIRRORED, PairHalf
from target.remote_copy.pair_messages import decode_epoch
from target.remote_copy.primary_volume import PrimaryVolume

log = logging.getLogger("pairvol.pair")


class PairDecision:
    """Votes, decisions and their consequences for one half; every call but :meth:`give_vote` under ``half.changing``.

    ``entered`` is called after each epoch that was entered, ``mirroring`` when an epoch's copy has become PAIR.
    """

    def __init__(
        self,
        half: PairHalf,
        primary: PrimaryVolume,
        tasks: BackgroundTasks,
        entered: Callable[[], None],
        mirroring: Callable[[PairEpoch], None],
    ) -> None:
        self._half = half
        self._primary = primary
        self._tasks = tasks
        self._entered = entered
        self._mirroring = mirroring
        self.voting: Task[Any] | None = None
        """The task whose vote is out: whoever waits for it may give up, it does not."""
        self.coming: PairEpoch | None = None
        """What is being made durable at this moment, as a vote or as a decision."""

    @property
    def vote_is_free(self) -> bool:
        """False from before this half's vote until it is decided."""
        return self.coming is None and not self._half.register.in_doubt

    async def decide(self, value: PairEpoch, check_wanted: Callable[[], None]) -> None:
        """Have ``value`` decided by both arrays, and act on it. Raises PairRefused; then it may be in doubt.

        ``check_wanted`` raises PairRefused when nobody wants ``value`` any more; asked last before the vote.
        """
        half = self._half
        state = half.state
        await half.gate.close()
        try:
            if half.state is not state:
                raise PairRefused(Refusal.BUSY, "a fault came first")
            if state is PairState.PAIR and half.role is PairRole.P_VOL:
                await self._primary.forget_equal()
                if half.state is not state:
                    raise PairRefused(Refusal.BUSY, "a fault came first")
            check_wanted()
            await self.vote_durably(value)
            await self.propose(value)
        finally:
            self.voting = None
            half.gate.open()

    async def ask_again(self) -> None:
        """Propose once more what is in doubt although the link is up. Raises PairRefused when it stays so."""
        half, value = self._half, self._half.register.accepted
        assert value is not None
        await half.gate.close()
        self.voting = current_task()
        try:
            await self.propose(value)
        except PairRefused as refused:
            raise PairRefused(Refusal.IN_DOUBT, str(refused)) from None
        finally:
            self.voting = None
            half.gate.open()

    async def vote_durably(self, value: PairEpoch) -> None:
        """Give this array's vote, as the leader."""
        # From here on there is no way back: whoever waits for this task may give up, the task does not.
        effects = self._half.register.propose(value)
        self.voting, self.coming = current_task(), value
        try:
            await self.carry_out(effects, None)
        finally:
            self.coming = None

    def _vote(self, value: PairEpoch) -> list[Effect]:
        return self._half.register.voted(value)

    async def propose(self, value: PairEpoch) -> None:
        """Ask the other array for its vote; the volume is closed to writes."""
        half = self._half
        if half.peer is None:
            raise PairRefused(Refusal.NO_VOTE, "the link went down")
        payload = encode_parts(value.encode().encode(), half.record.decided.encode().encode(), self.packed_marks())
        try:
            reply = await half.link.request(
                Frame(FrameType.PROPOSE, half.peer.ldev, epoch=value.epoch, payload=payload)
            )
        except LinkDown as error:
            raise PairRefused(Refusal.NO_VOTE, str(error)) from None
        if reply.flags != Answer.DONE:
            raise PairRefused(Refusal.NO_VOTE, "the other array refuses")
        for effect in half.register.acknowledged(half.identity.peer_serial, value.epoch):
            if isinstance(effect, Decide):
                await self._enter(effect.value, bytes(reply.payload))
        if half.record.decided.epoch < value.epoch:
            raise PairRefused(Refusal.NO_VOTE, "the other array's vote does not count")

    async def decide_alone(self, value: PairEpoch) -> int:
        """An operator insists, in place of the other array's vote, which hears of it when the link is back."""
        half = self._half
        await half.gate.close()
        try:
            for effect in half.register.heard_decided(value):
                if isinstance(effect, Decide):
                    await self._enter(effect.value, None)
        finally:
            half.gate.open()
        return value.epoch

    async def _enter(self, value: PairEpoch, peer_bits: bytes | None) -> None:
        """Act on a decided epoch: marks first, then the record, then the copy. The volume is closed to writes."""
        half, self.coming = self._half, value
        self.stop_copying()
        await half.replicated.close()  # nor may a write of the epoch before, late on this medium, land in this one
        try:
            await self.prepare_marks(value, peer_bits)
            await half.save_decision(value)
            half.peer_suspended = value.state in (PairState.PSUS, PairState.PSUE)
            if value.state is PairState.SMPL:
                await half.marks.reset(marked=False)  # not earlier: a crash would leave a pair without its marks
            if not half.link.up:
                await half.suspend("the link went down while the pair changed")
        except BaseException:
            half.recall()
            raise
        finally:
            self.coming = None
            half.replicated.open()
        self.begin(value)

    def begin(self, value: PairEpoch) -> None:
        """The epoch was entered: what follows of itself."""
        half = self._half
        if half.state is PairState.COPY and half.role is PairRole.P_VOL:
            half.copying = create_task(self._copy(value))
            self._tasks.keep(half.copying)
        self._entered()

    def stop_copying(self) -> None:
        """The epoch that it belongs to is over."""
        if self._half.copying is not None:
            self._half.copying.cancel()
            self._half.copying = None

    async def prepare_marks(self, value: PairEpoch, peer_bits: bytes | None) -> None:
        """Durable on return: marks that ``value`` may need, before it is the record."""
        half = self._half
        role = value.role_of(half.identity.serial)
        if half.role is PairRole.SMPL and value.state in (PairState.COPY, PairState.PSUS, PairState.PSUE):
            await half.marks.reset(marked=True)  # nothing is known of what these volumes have in common
        elif value.state is PairState.COPY:
            if peer_bits is not None:
                await half.marks.merge(_unpacked(peer_bits, half))
        elif value.state is PairState.PAIR:
            await (
                half.volume.flush()
            )  # without a copy: what is not marked is equal on the media, not in the page caches
            await half.marks.reset(marked=False)
        elif value.state is PairState.PSUS and role is PairRole.S_VOL and half.state is not PairState.PSUS:
            # The P-VOL remembers what is not copied yet: from now on the S-VOL's marks are its own writes.
            await half.marks.reset(marked=False)

    def packed_marks(self) -> bytes:
        """The regions of this half that may differ, for the other array."""
        return zlib.compress(self._half.marks.bitmap.to_bytes(), 1)

    async def _copy(self, value: PairEpoch) -> None:
        half = self._half
        differing = len(half.marks)
        copy = CopyTask(half, self._primary)
        # This half's marks are durable: the other one's, as they were when the copy began, must not count a second time
        # when it breaks off.
        await self._tell(value.epoch, PairState.COPY)
        try:
            whole = await copy.run()
            if whole and differing:
                await self._primary.forget_equal()
        finally:
            said = copy.progress.line(half.pace.clock())
            left = f"; {len(half.marks)} of {differing} are left" if len(half.marks) else ""
            log.info("pair %s: %s%s", half.identity.name, said, left)
        if not whole:
            return
        async with half.changing:
            try:
                if half.register.in_doubt or not await half.save_mirroring(value.epoch):
                    return
            except VolumeError as error:
                await half.suspend(f"PAIR cannot be saved: {error}")  # COPY would stay, with nobody copying
                return
            await self._tell(value.epoch, PairState.PAIR)
        self._mirroring(value)

    async def _tell(self, epoch: int, state: PairState) -> None:
        half = self._half
        if half.peer is None:
            return
        frame = Frame(FrameType.STATE, half.peer.ldev, epoch=epoch, length_bytes=state)
        try:
            reply = await half.link.request(frame)
        except LinkDown:
            return  # the loss of the link suspends the pair by itself
        if reply.flags != Answer.DONE:
            await half.suspend(f"the other array does not follow into {state.name}: {Answer(reply.flags).name}")

    async def give_vote(self, frame: Frame) -> Frame:
        """Answer a PROPOSE. Raises RemoteProtocolError."""
        half = self._half
        value, decided, bits = _proposal(frame)
        async with half.changing:
            await half.gate.close()
            try:
                mine = self.packed_marks()
                effects = self._effects(value, decided)
                if value.state in MIRRORED and half.busy():  # what was voted for already stays so
                    effects = [effect for effect in effects if not isinstance(effect, Vote)]
                voted = await self.carry_out(effects, bits)
                await self.check_met()
            finally:
                half.gate.open()
        if not voted:
            return Frame(FrameType.ANSWER, flags=Answer.REFUSED)
        return Frame(FrameType.ANSWER, epoch=value.epoch, payload=mine)

    async def check_met(self) -> None:
        """What was entered for the other array's sake may have outlasted its connection, though there is one again."""
        if self._half.peer is None:
            await self._half.suspend("the link went down while the pair changed")

    def _effects(self, value: PairEpoch, decided: PairEpoch) -> list[Effect]:
        """Of a proposal. What has not met stays apart: it is made on an epoch that is none of this half's."""
        half, register = self._half, self._half.register
        if half.peer is None:
            return []
        if register.accepted is not None and register.accepted.group:
            # The group's vote is resolved for all its pairs, by its own answer or at the next meeting. What has been
            # decided is told all the same: the leader that asks again could not make it durable.
            return [Accepted(half.identity.peer_serial, value.epoch)] if value == register.decided else []
        return register.proposed(half.identity.peer_serial, value, decided)

    async def carry_out(self, effects: list[Effect], bits: bytes | None) -> bool:
        """Do what the register says, in its order; True if the vote it was asked for is given."""
        accepted = False
        for effect in effects:
            if isinstance(effect, Vote):
                accepted |= await self._give(effect.value, bits)
            elif isinstance(effect, Decide):
                await self._enter(effect.value, bits)
            elif isinstance(effect, Accepted):
                accepted = True
        return accepted

    async def _give(self, value: PairEpoch, bits: bytes | None) -> bool:
        """Vote for the leader's value. Where that decides it, the decision is the durable form of the vote."""
        if not self._half.register.own_vote_decides:
            await self._half.save_vote(value)
            return await self.carry_out(self._vote(value), bits)
        await self._enter(value, bits)
        return any(isinstance(effect, Accepted) for effect in self._vote(value))


def _unpacked(bits: bytes, half: PairHalf) -> bytes:
    size = len(half.marks.bitmap.to_bytes())
    try:
        unpacked = zlib.decompressobj().decompress(bits, size + 1)
    except zlib.error as error:
        raise RemoteProtocolError(f"differing regions cannot be read: {error}", 0) from None
    if len(unpacked) != size:
        raise RemoteProtocolError(f"{len(unpacked)} bytes of differing regions, {size} are needed", 0)
    return unpacked


def _proposal(frame: Frame) -> tuple[PairEpoch, PairEpoch, bytes]:
    value, decided, bits = decode_parts(frame.payload, 3)
    return decode_epoch(value), decode_epoch(decided), bits
