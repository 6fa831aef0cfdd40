"""The P-VOL's data path: every write is marked, then made at both halves, then acknowledged (¶30). [C]"""

from asyncio import Lock
from collections.abc import Awaitable, Coroutine
from contextlib import suppress
from typing import Any, NoReturn, TypeVar

from storage_model.differential_bitmap import REGION_BYTES
from storage_model.errors import CheckCondition
from storage_model.pair_state import FenceLevel, PairRole, PairState
from storage_model.spec.copy_frames import MAX_READ_LENGTH, Answer, Frame, FrameType, WriteFlag
from storage_model.spec.scsi_sense import AscAscq, SenseKey
from storage_model.volume import Buffer, DirectVolume, NotReady, ReplicationRefused, VolumeError
from target.remote_copy.copy_link import LinkDown
from target.remote_copy.pair_half import MIRRORED, PairHalf
from target.scsi.block_range_lock import BlockRange

T = TypeVar("T")

# An operation on an enumeration costs more than the rest of its line.
_ZEROS, _FUA, _DONE = int(WriteFlag.ZEROS), int(WriteFlag.FUA), int(Answer.DONE)


class PrimaryVolume:
    """Host I/O to the half while it is the P-VOL."""

    def __init__(self, half: PairHalf) -> None:
        self._half = half
        self._direct = half.volume if isinstance(half.volume, DirectVolume) else None
        self._forgetting = Lock()

    async def read(self, offset_bytes: int, length_bytes: int) -> Buffer:
        """Never stale: what only the S-VOL has is fetched first, and nothing read while the P-VOL may have moved."""
        half = self._half
        if half.fetching or half.doubtful_role:
            await half.gate.enter()  # what is fetched is written here: no change of the pair may come in between
            try:
                if half.role is not PairRole.P_VOL:
                    raise CheckCondition(SenseKey.ABORTED_COMMAND, AscAscq.NO_ADDITIONAL_SENSE)
                if half.doubtful_role:
                    raise NotReady("the other array may have become the P-VOL's: the read waits for the link")
                if half.fetching:
                    await self.fetch(offset_bytes, length_bytes)
            finally:
                half.gate.leave()
        return await half.volume.read(offset_bytes, length_bytes)

    def write_soon(self, offset_bytes: int, data: Buffer, result: T) -> Coroutine[Any, Any, T] | None:
        """Nearly every write: it waits for the other array only, not for a change, a neighbour, a mark or a thread.

        It is made at this half and on its way to the other one; what is answered waits for that, and is to be awaited.
        None: nothing was begun. Not inside the gate yet: asked for as late as now, the pair is as it is seen.
        """
        half, direct, end = self._half, self._direct, offset_bytes + len(data)
        if direct is None or not half.mirroring or half.gate.closed or not half.settled:
            return None
        held = half.ranges.exclude_now(offset_bytes, end)
        if held is None:
            return None
        regions = half.marks.bitmap.regions(offset_bytes, end - offset_bytes)
        if not half.marks.begin_marked(regions):
            half.ranges.release(held)
            return None
        half.gate.enter_now()
        equal = True
        try:
            if direct.write_now(offset_bytes, data):
                equal = False
                answer = half.link.request(self._frame(FrameType.WRITE, offset_bytes, end - offset_bytes, 0, data))
                return self._mirrored(answer, held, regions, result)
        except VolumeError as error:
            return self._failed(error, held, regions)
        except BaseException:
            self._end(held, regions, equal=equal)
            raise
        self._end(held, regions, equal=True)
        return None

    def _end(self, held: BlockRange, regions: range, *, equal: bool) -> None:
        self._half.marks.end(regions, equal=equal)
        self._half.ranges.release(held)
        self._half.gate.leave()

    async def _failed(self, error: VolumeError, held: BlockRange, regions: range) -> NoReturn:
        """Some of it may be here by now, and whoever asked need not try again."""
        try:
            await self._half.suspend(f"the local volume fails: {error}")
        finally:
            self._end(held, regions, equal=False)
        raise error

    async def _mirrored(self, answer: Awaitable[Frame], held: BlockRange, regions: range, result: T) -> T:
        half = self._half
        try:
            try:
                await self._both_have(answer, regions)
            finally:
                half.ranges.release(held)
            if half.marks.crowded or half.marks.ahead_due:
                await self._keep_marks()
        finally:
            half.gate.leave()
        return result

    async def write(self, offset_bytes: int, length_bytes: int, data: Buffer | None, *, fua: bool) -> None:
        """``data`` None makes a hole. The caller is inside the gate."""
        half = self._half
        if half.fetching:
            await self.fetch(offset_bytes, length_bytes)
        # Overlapping writes one after the other: so they reach both halves in the same order.
        end = offset_bytes + length_bytes
        held = half.ranges.exclude_now(offset_bytes, end) or await half.ranges.exclude(offset_bytes, end)
        try:
            if half.role is not PairRole.P_VOL:
                raise CheckCondition(
                    SenseKey.ABORTED_COMMAND, AscAscq.NO_ADDITIONAL_SENSE
                )  # the roles were swapped while the write waited: look again
            if half.doubtful_owner:
                raise NotReady("the other array may have become the P-VOL's: the write waits for the link")
            if half.doubtful_data:
                raise NotReady("the S-VOL's data may have been named good: the write waits for the link")
            if half.state in MIRRORED:
                await self._mirror(offset_bytes, length_bytes, data, fua)
            else:
                await self._write_alone(offset_bytes, length_bytes, data, fua)
        finally:
            half.ranges.release(held)
        if half.marks.crowded or half.marks.ahead_due:
            await self._keep_marks()

    async def flush(self) -> None:
        """Both media, while both halves count. The caller is inside the gate."""
        if self._half.state not in MIRRORED:
            await self._half.volume.flush()
            await self._check_flushed_alone()
        elif not await self._flush_both():
            await self._check_fence()

    async def _check_flushed_alone(self) -> None:
        """After a fault: is it enough that this half's medium has what was acknowledged before the flush?"""
        half = self._half
        self._check_fetched()
        if half.state is PairState.PSUE and half.record.decided.fence is FenceLevel.DATA and len(half.marks.bitmap):
            await self._check_fence()  # what is marked was acknowledged at both, but maybe not flushed at the other one

    async def forget_equal(self) -> None:
        """Clear the marks of the regions that are equal on both media; suspends the pair if they cannot be flushed."""
        half = self._half
        async with self._forgetting:
            half.marks.begin_forgetting()
            with suppress(VolumeError):  # it has suspended the pair
                if await self._flush_both():
                    half.marks.forget()

    async def _keep_marks(self) -> None:
        """In COPY there is a crowd for the copy, whose own regions are many more and forgotten soon: no host waits."""
        marks = self._half.marks
        if marks.ahead_due:
            await marks.mark_ahead()
        if marks.crowded and self._half.state is PairState.PAIR and not self._forgetting.locked():
            await self.forget_equal()

    async def _flush_both(self) -> bool:
        """True if both media have everything that was acknowledged before; otherwise the pair is suspended."""
        half = self._half
        answer = half.link.request(self._frame(FrameType.FLUSH))
        try:
            await half.volume.flush()
        except VolumeError as error:
            # Told once: the next flush succeeds without what was lost, and must not make its marks forgotten.
            await half.suspend(f"the local volume fails: {error}")
            raise
        try:
            reply = await answer
            if reply.flags == Answer.DONE:
                return True
            reason = f"the other array answers a flush with {Answer(reply.flags).name}"
        except LinkDown as error:
            reason = str(error)
        await half.suspend(reason)
        return False

    async def _mirror(self, offset_bytes: int, length_bytes: int, data: Buffer | None, fua: bool) -> None:
        half = self._half
        regions = half.marks.bitmap.regions(offset_bytes, length_bytes)
        if not half.marks.begin_marked(regions):
            await half.marks.begin(regions)
        # Until all is fetched a mark means that the S-VOL is right, whichever array fails: so its medium has to be, and
        # not its page cache. This half's medium need not: what it loses is fetched again.
        await self._write_both(offset_bytes, length_bytes, data, fua, regions, durable_there=half.fetching)

    async def _write_both(
        self,
        offset_bytes: int,
        length_bytes: int,
        data: Buffer | None,
        fua: bool,
        regions: range,
        *,
        durable_there: bool = False,
    ) -> None:
        """The regions are marked; their marks of this write end with it."""
        half = self._half
        flags = (_FUA if fua or durable_there else 0) | (_ZEROS if data is None else 0)
        frame = self._frame(FrameType.WRITE, offset_bytes, length_bytes, flags, b"" if data is None else data)
        answer = half.link.request(frame)  # on its way while the local half is written
        try:
            await self._write_local(offset_bytes, length_bytes, data, fua)
        except BaseException as error:
            half.marks.end(regions, equal=False)
            if isinstance(error, VolumeError):
                await half.suspend(f"the local volume fails: {error}")
            raise
        await self._both_have(answer, regions)

    async def _both_have(self, answer: Awaitable[Frame], regions: range) -> None:
        """This half has the write; the marks end with the answer of the other array."""
        half = self._half
        equal = False
        try:
            reply = await answer
            equal = reply.flags == _DONE
            if not equal:
                reason = f"the other array answers a write with {Answer(reply.flags).name}"
        except LinkDown as error:
            reason = str(error)
        finally:
            half.marks.end(regions, equal=equal)
        if not equal:
            await half.suspend(reason)
            await self._check_fence()

    async def _write_alone(self, offset_bytes: int, length_bytes: int, data: Buffer | None, fua: bool) -> None:
        half = self._half
        if half.state is PairState.PSUE:
            await self._check_fence()
        await half.marks.last(half.marks.bitmap.regions(offset_bytes, length_bytes))
        await self._write_local(offset_bytes, length_bytes, data, fua)

    async def _write_local(self, offset_bytes: int, length_bytes: int, data: Buffer | None, fua: bool) -> None:
        if data is None:
            await self._half.volume.unmap(offset_bytes, length_bytes)
        else:
            await self._half.volume.write(offset_bytes, data, fua=fua)

    async def _check_fence(self) -> None:
        """After a fault: may a write that only the P-VOL has be acknowledged?"""
        half = self._half
        # Marks mean here that the S-VOL's data is good: the resync would put that in the place of this write.
        self._check_fetched()
        fence = half.record.decided.fence
        if fence is FenceLevel.DATA:
            raise ReplicationRefused("fence level data: the write cannot be mirrored")
        if fence is FenceLevel.STATUS and not await self._tell_suspended():
            raise ReplicationRefused("fence level status: the other array cannot be told that the pair is suspended")

    def _check_fetched(self) -> None:
        """After a fault: has this half all that was acknowledged, or is some of it at the other array only?"""
        if self._half.fetching:
            raise NotReady("the pair broke off before the P-VOL had everything: resync it first")

    async def _tell_suspended(self) -> bool:
        half = self._half
        if not half.peer_suspended and half.connected:
            try:
                reply = await half.link.request(self._frame(FrameType.STATE, length_bytes=PairState.PSUE))
                half.peer_suspended = reply.flags == Answer.DONE
            except LinkDown:
                pass
        return half.peer_suspended

    async def fetch(self, offset_bytes: int, length_bytes: int) -> None:
        """Bring the regions up to date that only the S-VOL has; raises NotReady when it cannot be reached."""
        marks = self._half.marks
        regions = marks.bitmap.regions(offset_bytes, length_bytes)
        first = marks.next_lasting(regions.start)
        while first is not None and first < regions.stop:
            end = first + 1
            while end < regions.stop and marks.lasting(end):
                end += 1
            await self._fetch_run(range(first, end))
            first = marks.next_lasting(end)

    async def _fetch_run(self, run: range) -> None:
        """Neighbouring regions together, without those that somebody else has brought meanwhile."""
        half, marks = self._half, self._half.marks
        held = await half.ranges.exclude(run.start * REGION_BYTES, run.stop * REGION_BYTES)
        try:
            missing = [region for region in run if marks.lasting(region)]
            if not missing:
                return
            start = missing[0] * REGION_BYTES
            length = min((missing[-1] + 1) * REGION_BYTES, half.volume.size_bytes) - start
            if len(missing) == missing[-1] + 1 - missing[0]:
                for at in range(start, start + length, MAX_READ_LENGTH):
                    await self._fetch_bytes(at, min(MAX_READ_LENGTH, start + length - at))
            else:  # a region between them is newer here than there
                for region in missing:
                    at = region * REGION_BYTES
                    await self._fetch_bytes(at, min(REGION_BYTES, half.volume.size_bytes - at))
            for region in missing:
                marks.copied(region)
            if half.progress is not None:
                half.progress.regions += len(missing)
        finally:
            half.ranges.release(held)

    async def _fetch_bytes(self, start: int, length: int) -> None:
        half = self._half
        if half.state is PairState.PSUE:
            raise NotReady("the region is at the other array only, and the pair is suspended")
        try:
            reply = await half.link.request(self._frame(FrameType.READ, start, length, WriteFlag.ZEROS))
        except LinkDown as error:
            await half.suspend(str(error))
            raise NotReady(f"the region is at the other array only: {error}") from None
        if reply.flags == Answer.DONE and not len(reply.payload):
            await half.volume.unmap(start, length)
            return
        if reply.flags != Answer.DONE or len(reply.payload) != length:
            await half.suspend(f"the other array answers a read with {Answer(reply.flags).name}")
            raise NotReady("the region is at the other array only, and it cannot be read there")
        if half.progress is not None:
            half.progress.fetched_bytes += length
        await half.volume.write(start, reply.payload)

    def _frame(
        self, kind: FrameType, offset_bytes: int = 0, length_bytes: int = 0, flags: int = 0, payload: Buffer = b""
    ) -> Frame:
        half = self._half
        ldev = half.peer.ldev if half.peer is not None else 0
        return Frame(kind, ldev, 0, half.record.decided.epoch, offset_bytes, length_bytes, flags, payload)
