"""Makes the two halves equal, region by region, while hosts go on working. [C]

The direction is the epoch's: the P-VOL sends the regions that differ, or after a swap fetches those that only the
S-VOL has. Either way the P-VOL's array drives it.
"""

from asyncio import TaskGroup

from storage_model.differential_bitmap import REGION_BYTES
from storage_model.pair_state import PairState
from storage_model.spec.copy_frames import Answer, Frame, FrameType, WriteFlag
from storage_model.volume import VolumeError
from target.remote_copy.copy_link import LinkDown
from target.remote_copy.pair_half import PairHalf
from target.remote_copy.primary_volume import PrimaryVolume

CHUNK_REGIONS = 16
"""Neighbouring regions that travel together: 1 MiB."""
WINDOW = 4
"""Chunks under way at once."""


class CopyTask:
    """One run through the marked regions."""

    def __init__(self, half: PairHalf, primary: PrimaryVolume) -> None:
        self._half = half
        self._primary = primary
        self._next = 0

    async def run(self) -> bool:
        """True when no region differs any more; False if the pair left COPY, in which case the marks stay."""
        async with TaskGroup() as group:
            for _ in range(WINDOW):
                group.create_task(self._work())
        return self._half.state is PairState.COPY and not len(self._half.marks)

    async def _work(self) -> None:
        half = self._half
        while half.state is PairState.COPY:
            chunk = self._take()
            if not chunk:
                return
            await half.gate.enter()
            try:
                if half.state is PairState.COPY:
                    await self._copy(chunk)
            except (LinkDown, VolumeError) as error:
                # The others end by themselves: cancelled, one could leave the gate with its write still under way.
                await half.suspend(f"copying: {error}")
            finally:
                half.gate.leave()

    def _take(self) -> range:
        marks = self._half.marks
        first = marks.next_lasting(self._next)
        if first is None:
            return range(0)
        end = first + 1
        while end - first < CHUNK_REGIONS and end < marks.bitmap.region_count and marks.lasting(end):
            end += 1
        self._next = end
        return range(first, end)

    async def _copy(self, chunk: range) -> None:
        half = self._half
        start = chunk.start * REGION_BYTES
        length = min(chunk.stop * REGION_BYTES, half.volume.size_bytes) - start
        if half.fetching:
            await self._primary.fetch(start, length)
            return
        held = await half.ranges.exclude(start, start + length)
        try:
            await self._send(start, length)
            for region in chunk:
                half.marks.copied(region)
        finally:
            half.ranges.release(held)

    async def _send(self, start: int, length: int) -> None:
        half = self._half
        if half.peer is None:
            raise LinkDown("the other array does not serve the pair any more")
        hole = not any(extent.mapped for extent in await half.volume.block_status(start, length))
        frame = Frame(FrameType.WRITE, half.peer.ldev, 0, half.record.decided.epoch, start, length)
        if hole:
            frame.flags = WriteFlag.ZEROS
        else:
            frame.payload = await half.volume.read(start, length)
        reply = await half.link.request(frame)
        if reply.flags != Answer.DONE:
            raise LinkDown(f"the other array answers with {Answer(reply.flags).name}")
