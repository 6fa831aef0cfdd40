"""Makes the two halves equal, run by run of regions, while hosts go on working. [C]

The direction is the epoch's: the P-VOL sends the regions that differ, or after a swap fetches those that only the
S-VOL has. Either way the P-VOL's array drives it. A region loses its mark when it is equal, so that a copy that
breaks off goes on with what was left.
"""

from asyncio import Event, TaskGroup, wait

from storage_model.differential_bitmap import REGION_BYTES
from storage_model.pair_state import PairState
from storage_model.spec.copy_frames import Answer, Frame, FrameType, WriteFlag
from storage_model.volume import Buffer, VolumeError
from target.remote_copy.copy_link import LinkDown
from target.remote_copy.copy_pace import CopyProgress
from target.remote_copy.pair_half import PairHalf
from target.remote_copy.primary_volume import PrimaryVolume

CHUNK_REGIONS = 16
"""Neighbouring regions that travel together: 1 MiB. A host's write there waits for so much at most."""
RUN_REGIONS = 256
"""Neighbouring regions that are looked at together, and travel in one frame where they are a hole: 16 MiB."""
CHECKPOINT_REGIONS = 1024
"""So much is copied between two flushes of both media, after which the marks are durably gone: what a crash of either
array makes the next resync repeat (64 MiB)."""
WINDOW = 4
"""Chunks under way at once; with their copies in the link's buffers, some 8 MiB."""
CHUNK_SECONDS = 0.1
"""With a limit to the rate, a chunk is what it allows in this time: a link that is so slow holds up no write longer."""


class CopyTask:
    """One run through the marked regions."""

    def __init__(self, half: PairHalf, primary: PrimaryVolume) -> None:
        self._half = half
        self._primary = primary
        self._next = 0
        self._unflushed = 0
        self._due = Event()
        self._over = False
        self.progress = half.progress = CopyProgress(len(half.marks), half.pace.clock())

    async def run(self) -> bool:
        """True when no region differs any more; False if the pair left COPY, in which case the marks stay."""
        async with TaskGroup() as group:
            workers = [group.create_task(self._work()) for _ in range(WINDOW)]
            checkpoints = group.create_task(self._checkpoints())
            await wait(workers)
            self._over = True
            self._due.set()
            await checkpoints
        return self._half.state is PairState.COPY and not len(self._half.marks)

    async def _work(self) -> None:
        half = self._half
        while half.state is PairState.COPY:
            run = self._take()
            if not run:
                return
            if half.fetching:
                await self._each(self._chunks(run), hole=False)
                continue
            for piece, hole in await self._pieces(run):
                await self._each([piece] if hole else self._chunks(piece), hole=hole)

    async def _checkpoints(self) -> None:
        """Beside the copying: one at a time, as often as the media allow it."""
        half = self._half
        while True:
            await self._due.wait()
            self._due.clear()
            if self._over or half.state is not PairState.COPY:
                return
            self._unflushed = 0
            await half.gate.enter()
            try:
                if half.state is PairState.COPY:
                    await self._primary.forget_equal()
                    await half.marks.save()
            except VolumeError as error:
                await half.suspend(f"copying: {error}")
            finally:
                half.gate.leave()

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

    def _chunks(self, run: range) -> list[range]:
        rate = self._half.pace.bytes_per_second
        step = max(1, min(CHUNK_REGIONS, int(rate * CHUNK_SECONDS) // REGION_BYTES)) if rate else CHUNK_REGIONS
        return [run[start : start + step] for start in range(0, len(run), step)]

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

    async def _each(self, chunks: list[range], *, hole: bool) -> None:
        half = self._half
        for chunk in chunks:
            if not hole:
                await half.spend(len(chunk) * REGION_BYTES)  # outside the gate: whoever waits here is in no way
            await half.gate.enter()
            try:
                if half.state is not PairState.COPY:
                    return
                await self._copy(chunk, hole=hole)
                self._unflushed += len(chunk)
                if self._unflushed >= CHECKPOINT_REGIONS:
                    self._due.set()
            except (LinkDown, VolumeError) as error:
                # The others end by themselves: cancelled, one could leave the gate with its write still under way.
                await half.suspend(f"copying: {error}")
            finally:
                half.gate.leave()

    async def _copy(self, chunk: range, *, hole: bool) -> None:
        half = self._half
        start, length = self._bytes(chunk)
        if half.fetching:
            await self._primary.fetch(start, length)
            self.progress.speed.add(length, half.pace.clock())
            return
        held = await half.ranges.exclude(start, start + length)
        try:
            if hole and any(extent.mapped for extent in await half.volume.block_status(start, length)):
                hole = False  # written meanwhile
            if hole:
                await self._send(start, length, None)
                self.progress.hole_regions += len(chunk)
            else:
                for part in self._chunks(chunk):
                    at, count = self._bytes(part)
                    await self._send(at, count, await half.volume.read(at, count))
            for region in chunk:
                half.marks.copied(region)
            self.progress.regions += len(chunk)
            self.progress.speed.add(length, half.pace.clock())
        finally:
            half.ranges.release(held)

    def _bytes(self, regions: range) -> tuple[int, int]:
        start = regions.start * REGION_BYTES
        return start, min(regions.stop * REGION_BYTES, self._half.volume.size_bytes) - start

    async def _send(self, start: int, length: int, data: Buffer | None) -> None:
        """``data`` None makes a hole."""
        half = self._half
        if half.peer is None:
            raise LinkDown("the other array does not serve the pair any more")
        frame = Frame(FrameType.WRITE, half.peer.ldev, 0, half.record.decided.epoch, start, length)
        if data is None:
            frame.flags = WriteFlag.ZEROS
        else:
            frame.payload = data
            self.progress.sent_bytes += length
        reply = await half.link.request(frame)
        if reply.flags != Answer.DONE:
            raise LinkDown(f"the other array answers with {Answer(reply.flags).name}")
