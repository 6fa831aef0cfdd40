"""MemoryVolume against a plain array of bytes."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from target.volumes.memory_volume import CHUNK_BYTES, MemoryVolume

BLOCKS = 3 * CHUNK_BYTES // 512
RANGE = st.tuples(st.integers(0, BLOCKS - 1), st.integers(1, 200)).map(lambda r: (r[0], min(r[1], BLOCKS - r[0])))
STEP = st.tuples(st.sampled_from(["write", "unmap"]), RANGE, st.integers(1, 255))


@given(st.lists(STEP, max_size=20))
async def test_it_behaves_like_an_array(steps):
    volume = MemoryVolume(BLOCKS * 512)
    model, mapped = bytearray(BLOCKS * 512), [False] * BLOCKS
    for kind, (block, count), fill in steps:
        if kind == "write":
            await volume.write(block * 512, bytes([fill]) * count * 512)
        else:
            await volume.unmap(block * 512, count * 512)
            fill = 0
        model[block * 512 : (block + count) * 512] = bytes([fill]) * count * 512
        mapped[block : block + count] = [kind == "write"] * count
    assert await volume.read(0, BLOCKS * 512) == model
    extents = await volume.block_status(0, BLOCKS * 512)
    assert [extent.mapped for extent in extents for _ in range(extent.length_bytes // 512)] == mapped
    assert all(a.mapped != b.mapped for a, b in itertools.pairwise(extents))


async def test_a_read_is_a_snapshot():
    volume = MemoryVolume(1 << 20)
    before = await volume.read(0, 512)
    await volume.write(0, b"x" * 512)
    assert before == bytes(512)


async def test_a_huge_volume_is_sparse():
    volume = MemoryVolume(16 << 40)
    await volume.write((16 << 40) - 512, b"e" * 512)
    assert [extent.mapped for extent in await volume.block_status(0, 16 << 40)] == [False, True]
    await volume.unmap(0, 16 << 40)
    assert [extent.mapped for extent in await volume.block_status(0, 16 << 40)] == [False]
