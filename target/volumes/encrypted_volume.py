"""A filter that encrypts what another volume stores, so that CRYPTOGRAPHIC ERASE has a key to change. [IO]

The key of a volume in a file lies beside it: it keeps nobody out who can read both. What it is for is to be lost: when
it has been replaced, what was written before is noise, at once and wherever the medium may keep copies of it.
A block of zeros on the medium is a hole, or was never written, and reads as zeros; no data become one when encrypted,
but by an accident of one in 2 to the power of 4096.
"""

import asyncio
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from storage_model.errors import UserError
from storage_model.volume import AtomicVolume, Buffer, Extent, MediumFailure, Volume
from target.volumes.block_cipher import KEY_BYTES, BlockCipher
from target.volumes.directory_sync import sync_parent_directory

_DIRECT_BYTES = 64 << 10
"""Larger pieces are encrypted in a thread."""


class StoredVolume(Volume, AtomicVolume, Protocol):
    """What can be encrypted: a volume in a file or in memory."""


class KeyFile:
    """A key in a file of its own; ``open`` makes it for a volume that is new."""

    def __init__(self, path: Path, key: bytes) -> None:
        self._path = path
        self.key = key

    @classmethod
    def open(cls, volume: Path) -> "KeyFile":
        """The key of the volume in the file ``volume``; raises UserError."""
        path = volume.with_name(volume.name + ".key")
        try:
            if volume.exists() and volume.stat().st_size and not path.exists():
                raise UserError(f"volume file {volume}: its key {path} is missing, without which it cannot be read")
            if not path.exists():
                _make(path)
            if path.stat().st_mode & 0o077:
                raise UserError(f"key file {path}: others can read it (chmod 600)")
            key = path.read_bytes()
        except OSError as error:
            raise UserError(f"key file {path}: {error.strerror}") from None
        if len(key) != KEY_BYTES:
            raise UserError(f"key file {path}: {len(key)} bytes are not a key of {KEY_BYTES}")
        return cls(path, key)

    def replace(self) -> bytes:
        """Overwrite the key in place, durable on return; raises OSError, and then either key may be there."""
        key = os.urandom(KEY_BYTES)
        _write(self._path, key)
        self.key = key
        return key


class KeyInMemory:
    """For a volume in memory."""

    def __init__(self) -> None:
        self.key = os.urandom(KEY_BYTES)

    def replace(self) -> bytes:
        self.key = os.urandom(KEY_BYTES)
        return self.key


def _make(path: Path) -> None:
    """A new key under a name of its own first: after a crash there is a whole key or none."""
    descriptor, name = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)  # only its owner can read it
    os.close(descriptor)
    try:
        _write(Path(name), os.urandom(KEY_BYTES))
        os.link(name, path)  # not renamed: a key that another process has made since stays
    finally:
        os.unlink(name)
    sync_parent_directory(path)


def _write(path: Path, key: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.pwrite(descriptor, key, 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class EncryptedVolume:
    """Implements ``Volume``, ``AtomicVolume`` and ``KeyedVolume`` over ``stored``, which it does not own."""

    def __init__(self, stored: StoredVolume, key: KeyFile | KeyInMemory) -> None:
        self._stored = stored
        self._key = key
        self._cipher = BlockCipher(key.key, stored.block_length)

    @property
    def size_bytes(self) -> int:
        return self._stored.size_bytes

    @property
    def block_length(self) -> int:
        return self._stored.block_length

    async def read(self, offset_bytes: int, length_bytes: int) -> Buffer:
        data = await self._stored.read(offset_bytes, length_bytes)
        return await _off_the_loop(self._decrypt, offset_bytes, data)

    async def write(self, offset_bytes: int, data: Buffer, *, fua: bool = False) -> None:
        await self._stored.write(offset_bytes, await _off_the_loop(self._encrypt, offset_bytes, data), fua=fua)

    async def write_atomic(self, offset_bytes: int, data: Buffer) -> None:
        await self._stored.write_atomic(offset_bytes, await _off_the_loop(self._encrypt, offset_bytes, data))

    async def forget_atomic_writes(self) -> None:
        await self._stored.forget_atomic_writes()

    async def flush(self) -> None:
        await self._stored.flush()

    async def unmap(self, offset_bytes: int, length_bytes: int) -> None:
        await self._stored.unmap(offset_bytes, length_bytes)

    async def block_status(self, offset_bytes: int, length_bytes: int) -> Sequence[Extent]:
        return await self._stored.block_status(offset_bytes, length_bytes)

    async def close(self) -> None:
        await self._stored.close()

    async def replace_key(self) -> None:
        try:
            key = await asyncio.to_thread(self._key.replace)
        except OSError as error:
            raise MediumFailure(f"the key cannot be replaced: {error.strerror}") from error
        self._cipher = BlockCipher(key, self.block_length)

    def _encrypt(self, offset_bytes: int, data: Buffer) -> Buffer:
        return self._cipher.encrypt(offset_bytes // self.block_length, data)

    def _decrypt(self, offset_bytes: int, data: Buffer) -> Buffer:
        view, length = memoryview(data), self.block_length
        zeros = bytes(length)
        if view == bytes(len(view)):
            return data
        plain = self._cipher.decrypt(offset_bytes // length, data)
        for at in range(0, len(view), length):
            if view[at : at + length] == zeros:
                plain[at : at + length] = zeros
        return plain


async def _off_the_loop(work: Callable[[int, Buffer], Buffer], offset_bytes: int, data: Buffer) -> Buffer:
    if len(data) <= _DIRECT_BYTES:
        return work(offset_bytes, data)
    return await asyncio.to_thread(work, offset_bytes, data)
