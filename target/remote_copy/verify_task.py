"""Compares both copies while hosts go on working: digests of regions travel, not the data. [C]

A region is looked at while nobody writes there; one that is being written is tried again at the end, and counts as
busy if it still is. What differs gets a lasting mark, so that the next resync copies it from the P-VOL; nothing is
changed here, since only an operator knows which side is right.
"""

import logging
from collections.abc import Iterable
from hashlib import blake2b

from storage_model.differential_bitmap import REGION_BYTES
from storage_model.pair_state import PairRole, PairState
from storage_model.spec.copy_frames import Answer, Frame, FrameType
from storage_model.volume import Buffer, VolumeError
from target.remote_copy.copy_link import LinkDown
from target.remote_copy.copy_pace import VerifyProgress
from target.remote_copy.pair_half import PairHalf

log = logging.getLogger("pairvol.pair")

CHUNK_REGIONS = 4
"""Regions whose digests are asked for at once, 256 KiB: a host's write there waits for so much at most."""
DIGEST_BYTES = 16
BUSY_LIMIT = 1024
"""Chunks that are tried a second time at most; others that were busy are only counted."""


def digests(data: Buffer) -> bytes:
    """One after the other, of each region; the last one may be short."""
    view = memoryview(data)
    return b"".join(
        blake2b(view[start : start + REGION_BYTES], digest_size=DIGEST_BYTES).digest()
        for start in range(0, len(view), REGION_BYTES)
    )


class VerifyTask:
    """One run through the volume, at the P-VOL's array, while the pair is in PAIR."""

    def __init__(self, half: PairHalf) -> None:
        self._half = half
        self.progress = VerifyProgress(half.marks.bitmap.region_count, half.pace.clock())
        self._epoch = half.record.decided.epoch

    async def run(self) -> VerifyProgress:
        """To the end, or until the pair changes or the link goes down."""
        progress, count = self.progress, self.progress.regions
        chunks = (range(first, min(first + CHUNK_REGIONS, count)) for first in range(0, count, CHUNK_REGIONS))
        try:
            for chunk in await self._through(chunks, BUSY_LIMIT):
                progress.busy += len(chunk) * (not await self._compare(chunk))
        except (LinkDown, VolumeError) as error:
            progress.reason = str(error)
        progress.ended = True
        log.info("pair %s: verified: %s", self._half.identity.name, progress.line())
        return progress

    async def _through(self, chunks: Iterable[range], limit: int) -> list[range]:
        """The chunks that were busy, to be tried again."""
        again: list[range] = []
        for chunk in chunks:
            await self._half.spend(len(chunk) * REGION_BYTES)
            if not await self._compare(chunk):
                if len(again) < limit:
                    again.append(chunk)
                else:
                    self.progress.busy += len(chunk)
        return again

    async def _compare(self, chunk: range) -> bool:
        """False: somebody is writing there. Raises LinkDown when there is nothing to compare with any more."""
        half = self._half
        await half.gate.enter()
        try:
            decided = half.record.decided
            if decided.epoch != self._epoch or half.role is not PairRole.P_VOL or half.state is not PairState.PAIR:
                raise LinkDown("the pair has changed")
            start = chunk.start * REGION_BYTES
            end = min(chunk.stop * REGION_BYTES, half.volume.size_bytes)
            held = half.ranges.exclude_now(start, end)
            if held is None:
                return False
            try:
                await self._compare_held(chunk, start, end - start)
            finally:
                half.ranges.release(held)
        finally:
            half.gate.leave()
        return True

    async def _compare_held(self, chunk: range, start: int, length: int) -> None:
        half = self._half
        if half.peer is None:
            raise LinkDown("the other array does not serve the pair any more")
        answer = half.link.request(Frame(FrameType.DIGEST, half.peer.ldev, 0, self._epoch, start, length))
        mine = digests(await half.volume.read(start, length))
        reply = await answer
        if reply.flags != Answer.DONE or len(reply.payload) != len(mine):
            raise LinkDown(f"the other array answers with {Answer(reply.flags).name}")
        theirs = bytes(reply.payload)
        for number, region in enumerate(chunk):
            at = slice(number * DIGEST_BYTES, (number + 1) * DIGEST_BYTES)
            if mine[at] != theirs[at]:
                await half.marks.last(range(region, region + 1))
                self.progress.differing += 1
        self.progress.compared += len(chunk)
        self.progress.speed.add(length, half.pace.clock())
