"""Makes the two halves equal, run by run of regions, while hosts go on working. [C]

The direction is the epoch's: the P-VOL sends the regions that differ, or after a swap fetches those that only the
S-VOL has. Either way the P-VOL's array drives it. A region loses its mark when it is equal, so that a copy that
breaks off goes on with what was left.

Beside the copying the medium that is copied to is flushed again and again, so that it is never idle and no flush takes
long. Every second that is a checkpoint: the P-VOL's medium as well, after which the marks are durably gone. Without the
P-VOL's flush a mark must stay: its machine's crash could take from the P-VOL what the S-VOL has durably.
"""

from asyncio import Event, TaskGroup, wait
from collections.abc import Awaitable

from storage_model.differential_bitmap import REGION_BYTES
from storage_model.pair_state import PairState
from storage_model.spec.copy_frames import Answer, Frame, FrameType, WriteFlag
from storage_model.volume import Buffer, DirectVolume, VolumeError
from target.remote_copy.copy_link import LinkDown
from target.remote_copy.copy_pace import CopyProgress
from target.remote_copy.pair_half import PairHalf
from target.remote_copy.primary_volume import PrimaryVolume

CHUNK_REGIONS = 16
"""Neighbouring regions that are copied together: 1 MiB. A host's write there waits for so much at most."""
BUSY_CHUNK_REGIONS = 2
"""The same while hosts write: 128 KiB, so that less of the copy is before them in both arrays and on the link."""
RUN_REGIONS = 256
"""Neighbouring regions that are looked at together, and travel in one frame where they are a hole: 16 MiB."""
FLUSH_REGIONS = 1024
"""So much data (64 MiB) is copied before the medium that it is copied to is flushed, unless a flush is under way."""
UNFLUSHED_REGIONS = 4096
"""So much data (256 MiB) may be copied beside a flush: one that follows ends long before the link gives up on it."""
CHECKPOINT_SECONDS = 1.0
"""From one checkpoint to the next, if a flush does not take longer: what a crash of either array makes the next resync
repeat. A copy of less than so long has none but its end."""
WINDOW = 4
"""Chunks under way at once; with their copies in the link's buffers, some 8 MiB."""
CHUNK_SECONDS = 0.1
"""With a limit to the rate, a chunk is what it allows in this time: a link that is so slow holds up no write longer."""


class CopyTask:
    """One run through the marked regions."""

    def __init__(self, half: PairHalf, primary: PrimaryVolume) -> None:
        self._half = half
        self._primary = primary
        self._direct = half.volume if isinstance(half.volume, DirectVolume) else None
        self._next = 0
        self._inside = 0  # the gate, of this copy
        self._unflushed = 0  # regions of data since the last flush began
        self._due = Event()
        self._room = Event()  # below UNFLUSHED_REGIONS, or nobody flushes any more
        self._room.set()
        self._over = False
        self.progress = half.progress = CopyProgress(len(half.marks), half.pace.clock())
        self._checkpoint_at = self.progress.started + CHECKPOINT_SECONDS

    async def run(self) -> bool:
        """True when no region differs any more; False if the pair left COPY, in which case the marks stay."""
        async with TaskGroup() as group:
            workers = [group.create_task(self._work()) for _ in range(WINDOW)]
            flushes = group.create_task(self._flushes())
            await wait(workers)
            self._over = True
            self._due.set()
            await flushes
        return self._half.state is PairState.COPY and not len(self._half.marks)

    async def _work(self) -> None:
        half = self._half
        while half.state is PairState.COPY:
            run = self._take()
            if not run:
                return
            for piece, hole in [(run, False)] if half.fetching else await self._pieces(run):
                await self._each(piece, hole=hole)

    async def _flushes(self) -> None:
        """Beside the copying: one at a time, as often as the media allow it."""
        half = self._half
        while True:
            await self._due.wait()
            self._due.clear()
            if not self._over and half.state is PairState.COPY:
                self._unflushed = 0
                await self._flush()
            self._room.set()
            if self._over or half.state is not PairState.COPY:
                return

    async def _flush(self) -> None:
        half = self._half
        await self._enter()
        try:
            if half.state is not PairState.COPY:
                return
            now = half.pace.clock()
            if now >= self._checkpoint_at:
                self._checkpoint_at = now + CHECKPOINT_SECONDS
                await self._primary.forget_equal()
                await half.marks.save()
            elif half.fetching:
                await half.volume.flush()
            else:
                _check(await self._request(FrameType.FLUSH))
        except (LinkDown, VolumeError) as error:
            await half.suspend(f"copying: {error}")
        finally:
            self._leave()

    async def _enter(self) -> None:
        await self._half.gate.enter()
        self._inside += 1

    def _leave(self) -> None:
        self._inside -= 1
        self._half.gate.leave()

    def _copied_data(self, regions: int) -> None:
        self._unflushed += regions
        if self._unflushed >= UNFLUSHED_REGIONS:
            self._room.clear()
        if self._unflushed >= min(FLUSH_REGIONS, UNFLUSHED_REGIONS):
            self._due.set()

    def _take(self) -> range:
        marks = self._half.marks
        first = marks.next_lasting(self._next)
        if first is None:
            return range(0)
        end = first + 1
        while end - first < RUN_REGIONS and end < marks.bitmap.region_count and marks.lasting(end):
            end += 1
        self._next = end
        return range(first, end)

    def _chunk(self, run: range) -> range:
        """What is copied next of it."""
        half = self._half
        step = BUSY_CHUNK_REGIONS if half.gate.inside > self._inside else CHUNK_REGIONS
        rate = half.pace.bytes_per_second
        return run[: max(1, min(step, int(rate * CHUNK_SECONDS) // REGION_BYTES)) if rate else step]

    async def _pieces(self, run: range) -> list[tuple[range, bool]]:
        """The run in parts that are holes, or that have data. A hole may be written before it is its turn."""
        half = self._half
        try:
            start, length = self._bytes(run)
            extents = await half.volume.block_status(start, length)
        except VolumeError as error:
            await half.suspend(f"copying: {error}")
            return []
        known = sum(extent.length_bytes for extent in extents)  # more extents than are told at once: data
        mapped = set(half.marks.bitmap.regions(start + known, length - known))
        for extent in extents:
            if extent.mapped:
                mapped.update(half.marks.bitmap.regions(extent.offset_bytes, extent.length_bytes))
        pieces, begin = [], run.start
        for region in range(run.start + 1, run.stop + 1):
            if region == run.stop or (region in mapped) is not (begin in mapped):
                pieces.append((range(begin, region), begin not in mapped))
                begin = region
        return pieces

    async def _each(self, run: range, *, hole: bool) -> None:
        half = self._half
        while run:
            chunk = run if hole else self._chunk(run)
            run = run[len(chunk) :]
            if not hole:  # outside the gate: whoever waits here is in no way
                await half.spend(len(chunk) * REGION_BYTES)
                if half.state is PairState.COPY:  # else there may be no flush any more that makes room
                    await self._room.wait()
            await self._enter()
            try:
                if half.state is not PairState.COPY:
                    return
                await self._copy(chunk, hole=hole)
                if half.pace.clock() >= self._checkpoint_at:
                    self._due.set()
            except (LinkDown, VolumeError) as error:
                # The others end by themselves: cancelled, one could leave the gate with its write still under way.
                await half.suspend(f"copying: {error}")
            finally:
                self._leave()

    async def _copy(self, chunk: range, *, hole: bool) -> None:
        half = self._half
        start, length = self._bytes(chunk)
        if half.fetching:
            await self._primary.fetch(start, length)
            self.progress.speed.add(length, half.pace.clock())
            self._copied_data(len(chunk))
            return
        held = await half.ranges.exclude(start, start + length)
        try:
            if hole and any(extent.mapped for extent in await half.volume.block_status(start, length)):
                hole = False  # written meanwhile
            if hole:
                _check(await self._request(FrameType.WRITE, start, length, WriteFlag.ZEROS))
                self.progress.hole_regions += len(chunk)
            else:
                left = chunk
                while left:
                    part = self._chunk(left)
                    await self._send(*self._bytes(part))
                    left = left[len(part) :]
                self._copied_data(len(chunk))
            for region in chunk:
                half.marks.copied(region)
            self.progress.regions += len(chunk)
            self.progress.speed.add(length, half.pace.clock())
        finally:
            half.ranges.release(held)

    def _bytes(self, regions: range) -> tuple[int, int]:
        start = regions.start * REGION_BYTES
        return start, min(regions.stop * REGION_BYTES, self._half.volume.size_bytes) - start

    async def _send(self, start: int, length: int) -> None:
        data = self._direct.read_now(start, length) if self._direct is not None else None
        if data is None:
            data = await self._half.volume.read(start, length)
        self.progress.sent_bytes += length
        _check(await self._request(FrameType.WRITE, start, length, payload=data))

    def _request(
        self, kind: FrameType, start: int = 0, length: int = 0, flags: int = 0, payload: Buffer = b""
    ) -> Awaitable[Frame]:
        half = self._half
        if half.peer is None:
            raise LinkDown("the other array does not serve the pair any more")
        return half.link.request(
            Frame(kind, half.peer.ldev, 0, half.record.decided.epoch, start, length, flags, payload)
        )


def _check(reply: Frame) -> None:
    if reply.flags != Answer.DONE:
        raise LinkDown(f"the other array answers with {Answer(reply.flags).name}")
