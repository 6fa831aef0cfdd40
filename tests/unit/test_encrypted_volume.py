"""A volume that is encrypted on its medium: what hosts see, what the medium has, and a key that can be lost."""

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage_model.errors import UserError
from storage_model.volume import MediumFailure
from target.volumes.block_cipher import BlockCipher
from target.volumes.encrypted_volume import EncryptedVolume, KeyFile, KeyInMemory
from target.volumes.file_volume import FileVolume
from target.volumes.memory_volume import MemoryVolume

SIZE = 1 << 20


@pytest.fixture
def stored() -> MemoryVolume:
    return MemoryVolume(SIZE, 512)


@pytest.fixture
def volume(stored: MemoryVolume) -> EncryptedVolume:
    return EncryptedVolume(stored, KeyInMemory())


def test_the_vectors_of_ieee_1619() -> None:
    """XTS-AES-256, vector 10: data unit FFh, a plaintext of 00h to FFh twice."""
    key = bytes.fromhex(
        "2718281828459045235360287471352662497757247093699959574966967627"
        "3141592653589793238462643383279502884197169399375105820974944592"
    )
    plain = bytes(range(256)) * 2
    encrypted = BlockCipher(key, 512).encrypt(0xFF, plain)
    assert encrypted[:32].hex() == "1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b"
    assert BlockCipher(key, 512).decrypt(0xFF, encrypted) == plain


@given(st.binary(min_size=1, max_size=2048), st.integers(0, 1 << 40))
def test_there_and_back(data: bytes, first_block: int) -> None:
    cipher = BlockCipher(os.urandom(64), 512)
    blocks = data.ljust(-(-len(data) // 512) * 512, b"\1")
    encrypted = cipher.encrypt(first_block, blocks)
    assert encrypted != blocks
    assert cipher.decrypt(first_block, encrypted) == blocks


@pytest.mark.parametrize("length", [512, 4096, 256 << 10])
async def test_hosts_read_what_they_wrote(volume: EncryptedVolume, stored: MemoryVolume, length: int) -> None:
    data = b"secret!!" * (length // 8)
    await volume.write(1024, data)
    assert await volume.read(1024, length) == data
    assert b"secret" not in bytes(await stored.read(0, SIZE))
    assert bytes(await volume.read(1024 + length - 512, 512)) == data[:512], "any block alone"


async def test_equal_blocks_differ_on_the_medium(volume: EncryptedVolume, stored: MemoryVolume) -> None:
    await volume.write(0, b"k" * 1024)
    assert await stored.read(0, 512) != await stored.read(512, 512)


async def test_what_was_never_written_or_is_unmapped_reads_as_zeros(volume: EncryptedVolume) -> None:
    await volume.write(512, b"k" * 2048)
    await volume.unmap(1024, 512)
    assert await volume.read(0, 4096) == bytes(512) + b"k" * 512 + bytes(512) + b"k" * 1024 + bytes(1536)
    extents = await volume.block_status(0, 4096)
    assert [extent.mapped for extent in extents] == [False, True, False, True, False]


async def test_written_zeros_are_encrypted_like_other_data(volume: EncryptedVolume, stored: MemoryVolume) -> None:
    await volume.write(0, bytes(512))
    assert any(await stored.read(0, 512)) and not any(await volume.read(0, 512))


async def test_atomic_writes_are_encrypted(volume: EncryptedVolume, stored: MemoryVolume) -> None:
    await volume.write_atomic(0, b"k" * 512)
    assert await volume.read(0, 512) == b"k" * 512 and await stored.read(0, 512) != b"k" * 512


async def test_another_key_makes_noise_of_it(volume: EncryptedVolume) -> None:
    await volume.write(0, b"k" * 512)
    await volume.replace_key()
    noise = bytes(await volume.read(0, 1024))
    assert noise[:512] != b"k" * 512 and noise[512:] == bytes(512)
    await volume.write(0, b"n" * 512)
    assert await volume.read(0, 512) == b"n" * 512


# ---------------------------------------------------------------------------------------------------- key files


async def test_a_key_file_serves_again(tmp_path: Path) -> None:
    path = tmp_path / "data.img"
    for turn in range(2):
        key = KeyFile.open(path)
        file = FileVolume.open(path, SIZE, create=True)
        volume = EncryptedVolume(file, key)
        if turn:
            assert await volume.read(0, 512) == b"k" * 512
        await volume.write(0, b"k" * 512)
        await volume.close()
    assert stat.S_IMODE((tmp_path / "data.img.key").stat().st_mode) == 0o600


async def test_a_replaced_key_is_overwritten(tmp_path: Path) -> None:
    key = KeyFile.open(tmp_path / "data.img")
    before, file = key.key, (tmp_path / "data.img.key")
    inode = file.stat().st_ino
    await EncryptedVolume(MemoryVolume(SIZE, 512), key).replace_key()
    assert file.read_bytes() == key.key != before and len(key.key) == 64
    assert file.stat().st_ino == inode, "in place: a new file would leave the old key on the disk"


async def test_a_key_that_cannot_be_replaced(tmp_path: Path) -> None:
    key = KeyFile.open(tmp_path / "data.img")
    volume = EncryptedVolume(MemoryVolume(SIZE, 512), key)
    (tmp_path / "data.img.key").unlink()
    with pytest.raises(MediumFailure, match="the key cannot be replaced"):
        await volume.replace_key()


def test_a_volume_without_its_key_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "data.img").write_bytes(bytes(512))
    with pytest.raises(UserError, match=r"data\.img: its key .*data\.img\.key is missing"):
        KeyFile.open(tmp_path / "data.img")
    assert not (tmp_path / "data.img.key").exists()


def test_a_key_that_others_can_read(tmp_path: Path) -> None:
    KeyFile.open(tmp_path / "data.img")
    (tmp_path / "data.img.key").chmod(0o640)
    with pytest.raises(UserError, match="others can read it"):
        KeyFile.open(tmp_path / "data.img")


def test_a_key_of_another_length(tmp_path: Path) -> None:
    KeyFile.open(tmp_path / "data.img")
    (tmp_path / "data.img.key").write_bytes(bytes(63))
    with pytest.raises(UserError, match="63 bytes are not a key"):
        KeyFile.open(tmp_path / "data.img")


@pytest.mark.parametrize("call", ["pwrite", "fsync"])
def test_a_crash_while_the_key_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """There are no data yet: the next start makes another key."""

    class Crash(BaseException):
        pass

    def crash(*_: object) -> None:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(os, call, crash)
        patch.setattr(os, "unlink", lambda path: None)  # nor does anybody clean up
        with pytest.raises(Crash):
            KeyFile.open(tmp_path / "data.img")
    assert len(KeyFile.open(tmp_path / "data.img").key) == 64


def test_a_key_that_another_process_makes_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link, theirs = os.link, b"t" * 64

    def late(source: str, path: Path) -> None:
        path.touch(0o600)
        path.write_bytes(theirs)
        link(source, path)

    monkeypatch.setattr(os, "link", late)
    with pytest.raises(UserError, match="exists"):
        KeyFile.open(tmp_path / "data.img")
    assert [path.name for path in tmp_path.iterdir()] == ["data.img.key"]
    assert (tmp_path / "data.img.key").read_bytes() == theirs
