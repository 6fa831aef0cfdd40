"""The Volume that hosts see where a pair is configured: a filter over the local half. [C]

Without a pair it passes straight through; otherwise the role says which data path a command takes.
"""

from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from storage_model.errors import CheckCondition
from storage_model.pair_state import PairRole
from storage_model.spec.scsi_sense import AscAscq, SenseKey
from storage_model.volume import Buffer, DirectVolume, Extent, FileRange, NotReady
from target.remote_copy.pair_half import PairHalf
from target.remote_copy.primary_volume import PrimaryVolume
from target.remote_copy.secondary_volume import SecondaryVolume

T = TypeVar("T")


class PairedVolume:
    """Implements the ports ``Volume``, ``MirroredVolume`` and, where the half's own volume does, ``DirectVolume``."""

    def __init__(self, half: PairHalf, primary: PrimaryVolume, secondary: SecondaryVolume) -> None:
        self._half = half
        self._direct = half.volume if isinstance(half.volume, DirectVolume) else None
        self._primary = primary
        self._secondary = secondary
        self.size_bytes = half.volume.size_bytes
        self.block_length = half.volume.block_length

    def read_now(self, offset_bytes: int, length_bytes: int) -> Buffer | None:
        """At every role: what has to be fetched first, or may be stale by now, is for :meth:`read`."""
        if self._direct is None or not self._half.settled:
            return None
        return self._direct.read_now(offset_bytes, length_bytes)

    def lend_now(self, offset_bytes: int, length_bytes: int) -> FileRange | None:
        """As :meth:`read_now`."""
        if self._direct is None or not self._half.settled:
            return None
        return self._direct.lend_now(offset_bytes, length_bytes)

    def write_now(self, offset_bytes: int, data: Buffer) -> bool:
        """Without a pair: every other write waits for the other array or for a mark."""
        half = self._half
        if self._direct is None or half.role is not PairRole.SMPL or half.gate.closed or not half.settled:
            return False
        return self._direct.write_now(offset_bytes, data)

    async def read(self, offset_bytes: int, length_bytes: int) -> Buffer:
        """At the S-VOL, what the last mirrored writes left."""
        if self._half.role is PairRole.P_VOL:
            return await self._primary.read(offset_bytes, length_bytes)
        return await self._half.volume.read(offset_bytes, length_bytes)

    def write_soon(self, offset_bytes: int, data: Buffer, result: T) -> Coroutine[Any, Any, T] | None:
        """At the P-VOL."""
        return self._primary.write_soon(offset_bytes, data, result)

    async def write(self, offset_bytes: int, data: Buffer, *, fua: bool = False) -> None:
        """Acknowledged when every half that counts has it."""
        await self._update(offset_bytes, len(data), data, fua)

    async def unmap(self, offset_bytes: int, length_bytes: int) -> None:
        """Travels to the other half like a write."""
        await self._update(offset_bytes, length_bytes, None, False)

    async def _update(self, offset_bytes: int, length_bytes: int, data: Buffer | None, fua: bool) -> None:
        half = self._half
        owner = half.record.decided.owner
        if half.gate.closed:
            await half.gate.enter()
        else:
            half.gate.enter_now()
        try:
            if half.record.decided.owner != owner:
                raise CheckCondition(
                    SenseKey.ABORTED_COMMAND, AscAscq.NO_ADDITIONAL_SENSE
                )  # it was let through to the owner before: look again
            role = half.role
            if role is PairRole.P_VOL:
                await self._primary.write(offset_bytes, length_bytes, data, fua=fua)
            elif role is PairRole.S_VOL:
                if not half.s_vol_open:
                    raise CheckCondition(SenseKey.DATA_PROTECT, AscAscq.WRITE_PROTECTED)
                await self._secondary.write(offset_bytes, length_bytes, data, fua=fua)
            elif half.doubtful_owner:
                raise NotReady("the volume may have become half of a pair: the write waits for the link")
            elif data is None:
                await half.volume.unmap(offset_bytes, length_bytes)
            else:
                await half.volume.write(offset_bytes, data, fua=fua)
        finally:
            half.gate.leave()

    async def flush(self) -> None:
        """Both media, while both halves count."""
        half = self._half
        await half.gate.enter()  # the other half would refuse a flush of an epoch that is over
        try:
            if half.role is PairRole.P_VOL:
                await self._primary.flush()
            else:
                await half.volume.flush()
        finally:
            half.gate.leave()

    async def block_status(self, offset_bytes: int, length_bytes: int) -> Sequence[Extent]:
        """Of the local half."""
        return await self._half.volume.block_status(offset_bytes, length_bytes)

    async def close(self) -> None:
        """Closes the local half's volume."""
        await self._half.volume.close()
