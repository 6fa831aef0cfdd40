"""The S-VOL's data path: apply what the P-VOL's array sends, and say so. [C]"""

from asyncio import Lock

from storage_model.differential_bitmap import REGION_BYTES
from storage_model.pair_state import PairRole, PairState
from storage_model.spec.copy_frames import MAX_READ_LENGTH, Answer, Frame, FrameType, WriteFlag
from storage_model.volume import Buffer, DirectVolume, MediumFailure, SpaceExhausted, VolumeError
from target.remote_copy.pair_half import MIRRORED, PairHalf
from target.remote_copy.verify_task import CHUNK_REGIONS, digests

_ZEROS, _FUA = int(WriteFlag.ZEROS), int(WriteFlag.FUA)  # an operation on flags costs more than the rest of a write

_PIECE_BYTES = 256 << 10
"""What a volume writes without a thread, which would cost as much as its part of a long write."""


class SecondaryVolume:
    """Frames of the data path, at the half while it is the S-VOL."""

    def __init__(self, half: PairHalf) -> None:
        self._half = half
        self._keeping = Lock()
        self._kept_epoch = -1
        self._direct = half.volume if isinstance(half.volume, DirectVolume) else None

    def write_now(self, frame: Frame) -> bool:
        """Carry out a WRITE that needs no waiting; False: nothing was done, it is for :meth:`receive`."""
        half, payload = self._half, frame.payload
        if (
            self._direct is None
            or frame.flags
            or not half.replicating
            or half.replicated.closed
            or frame.epoch != half.record.decided.epoch
            or not payload
            or len(payload) != frame.length_bytes
            or frame.offset_bytes + frame.length_bytes > half.volume.size_bytes
        ):
            return False
        try:
            return self._direct.write_now(frame.offset_bytes, payload)
        except VolumeError:
            return False  # it is tried again, and met again

    async def receive(self, frame: Frame) -> Frame:
        """Carry out WRITE, READ, FLUSH or STATE; the answer's request number is the caller's to fill in.

        A frame of another epoch than the decided one is refused: its sender may have lost the P-VOL since.
        """
        half = self._half
        await half.replicated.enter()
        try:
            if frame.epoch != half.record.decided.epoch or half.role is not PairRole.S_VOL:
                return Frame(FrameType.ANSWER, flags=Answer.STALE_EPOCH)
            if frame.type is not FrameType.STATE and half.state not in MIRRORED:
                return Frame(FrameType.ANSWER, flags=Answer.STALE_EPOCH)
            return await self._carry_out(frame)
        except SpaceExhausted:
            return Frame(FrameType.ANSWER, flags=Answer.SPACE_EXHAUSTED)
        except (VolumeError, ValueError):
            return Frame(FrameType.ANSWER, flags=Answer.MEDIUM_FAILURE)
        finally:
            half.replicated.leave()

    async def _carry_out(self, frame: Frame) -> Frame:
        half = self._half
        if frame.type is FrameType.STATE:
            followed = await self._take_over_state(PairState(frame.length_bytes), frame.epoch)
            return Frame(FrameType.ANSWER, flags=Answer.DONE if followed else Answer.STALE_EPOCH)
        if frame.type is FrameType.FLUSH:
            await half.volume.flush()
            return Frame(FrameType.ANSWER)
        if frame.offset_bytes + frame.length_bytes > half.volume.size_bytes:
            raise MediumFailure(f"{frame.type.name} beyond the end of the volume")
        if frame.type is FrameType.DIGEST:
            if frame.length_bytes > CHUNK_REGIONS * REGION_BYTES:
                raise MediumFailure(f"digests of {frame.length_bytes} bytes at once")
            data = await half.volume.read(frame.offset_bytes, frame.length_bytes)
            return Frame(FrameType.ANSWER, payload=digests(data))
        if frame.type is FrameType.READ:
            if frame.length_bytes > MAX_READ_LENGTH:
                raise MediumFailure(f"READ of {frame.length_bytes} bytes at once")
            await self._keep_source(frame.epoch)
            if frame.flags & _ZEROS and not any(
                extent.mapped for extent in await half.volume.block_status(frame.offset_bytes, frame.length_bytes)
            ):
                return Frame(FrameType.ANSWER)
            data = await half.volume.read(frame.offset_bytes, frame.length_bytes)
            return Frame(FrameType.ANSWER, payload=data)
        if frame.flags & _ZEROS:
            await half.volume.unmap(frame.offset_bytes, frame.length_bytes)
            if frame.flags & _FUA:
                await half.volume.flush()
        elif len(frame.payload) != frame.length_bytes:
            raise MediumFailure(f"WRITE of {frame.length_bytes} bytes that carries {len(frame.payload)}")
        elif len(frame.payload) > _PIECE_BYTES and not frame.flags & _FUA:
            await self._write_pieces(frame.offset_bytes, memoryview(frame.payload))
        else:
            await half.volume.write(frame.offset_bytes, frame.payload, fua=frame.flags & _FUA != 0)
        return Frame(FrameType.ANSWER)

    async def _keep_source(self, epoch: int) -> None:
        """The P-VOL fetches: what its hosts have read must be here still when this array has lost its page cache.

        What is mirrored meanwhile has FUA, so that one flush is enough for an epoch.
        """
        async with self._keeping:
            if self._kept_epoch != epoch:
                await self._half.volume.flush()
                self._kept_epoch = epoch

    async def _write_pieces(self, offset_bytes: int, data: memoryview) -> None:
        for start in range(0, len(data), _PIECE_BYTES):
            await self._half.volume.write(offset_bytes + start, data[start : start + _PIECE_BYTES])

    async def _take_over_state(self, state: PairState, epoch: int) -> bool:
        """False when this half cannot follow: it has been suspended meanwhile, and the P-VOL has to know."""
        half = self._half
        if state is PairState.PSUE:
            await half.suspend("the other array says so")
        elif state is PairState.COPY:
            await half.marks.reset(marked=False)  # the P-VOL has them all, and clears them one by one
        elif state is PairState.PAIR:
            if not await half.save_mirroring(epoch):
                return False
            await half.marks.reset(marked=False)
        return True

    async def write(self, offset_bytes: int, length_bytes: int, data: Buffer | None, *, fua: bool) -> None:
        """A host's write to an S-VOL that a split opened for writing; remembered as the S-VOL's own."""
        half = self._half
        await half.marks.last(half.marks.bitmap.regions(offset_bytes, length_bytes))
        if data is None:
            await half.volume.unmap(offset_bytes, length_bytes)
        else:
            await half.volume.write(offset_bytes, data, fua=fua)
