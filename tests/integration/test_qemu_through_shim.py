"""QEMU writes to a P-VOL through the shim; the S-VOL's file becomes the same, and takes no writes of its own."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from storage_model.pair_state import PairState
from storage_model.spec.pair_cdb import PairOut
from tests.integration.client_tools import patterned, run_tool
from tests.integration.pair_of_arrays import PairOfArrays, PairSpec, pair_of_arrays, sense_of, write_cdb
from tests.integration.shims import ShimUnderTest, shim

SIZE = 16 << 20
DATA = PairSpec("data", "16MiB", "data")
RequireTool = Callable[[str], str]


@asynccontextmanager
async def two_sites(directory: Path) -> AsyncIterator[tuple[PairOfArrays, ShimUnderTest, ShimUnderTest]]:
    """A pair in PAIR, its P-VOL at site A, and a shim in front of either array."""
    async with (
        pair_of_arrays(directory, DATA) as arrays,
        shim(directory, arrays.a.port, name="shim-a") as at_a,
        shim(directory, arrays.b.port, name="shim-b") as at_b,
    ):
        await arrays.create()
        yield arrays, at_a, at_b
        for log in (arrays.a.log, arrays.b.log, at_a.log, at_b.log):
            assert "Traceback" not in log, log


async def qemu_io(tool: str, url: str, *commands: str, status: int = 0) -> str:
    words = [word for command in commands for word in ("-c", command)]
    return await run_tool(tool, "-f", "raw", *words, url, status=status)


async def test_an_image_converted_to_the_p_vol_is_on_both_sides(tmp_path: Path, require_tool: RequireTool) -> None:
    tool, image = require_tool("qemu-img"), tmp_path / "image"
    image.write_bytes(patterned(SIZE))
    async with two_sites(tmp_path) as (arrays, at_a, at_b):
        await run_tool(tool, "convert", "-n", "-f", "raw", "-O", "raw", str(image), at_a.urls[0])
        assert arrays.a.file("data") == image.read_bytes()
        assert arrays.b.file("data") == image.read_bytes()
        assert (await arrays.a.status(0)).state is PairState.PAIR
        # Both hosts read the same, each through its own shim.
        await run_tool(tool, "compare", "-f", "raw", "-F", "raw", at_a.urls[0], at_b.urls[0])


async def test_writes_of_all_kinds_are_on_both_sides(tmp_path: Path, require_tool: RequireTool) -> None:
    tool = require_tool("qemu-io")
    async with two_sites(tmp_path) as (arrays, at_a, _):
        await qemu_io(
            tool,
            at_a.urls[0],
            "write -P 0x5a 0 1M",
            "write -P 0x11 63k 3k",
            "write -f -P 0x22 8M 512k",
            "write -z 64k 64k",
            "discard 256k 64k",
            "aio_write -P 0x33 4M 64k",
            "aio_write -P 0x44 5M 64k",
            "aio_flush",
            "flush",
            "read -P 0x11 63k 1k",
            "read -P 0 64k 64k",
            "read -P 0x44 5M 64k",
        )
        data = arrays.a.file("data")
        assert data[8 << 20 : (8 << 20) + 512] == b"\x22" * 512 and data[64 << 10 : 65 << 10] == bytes(1024)
        assert arrays.equal()
        assert (await arrays.b.status(0)).state is PairState.PAIR


async def test_the_s_vol_takes_no_writes(tmp_path: Path, require_tool: RequireTool) -> None:
    tool = require_tool("qemu-io")
    async with two_sites(tmp_path) as (arrays, at_a, at_b):
        await qemu_io(tool, at_a.urls[0], "write -P 0x5a 0 64k")
        session = await at_b.host()
        outcome = await session.execute(0, write_cdb(0, 1), b"\xff" * 512)
        assert sense_of(outcome) == (0x7, 0x2700)
        await session.logout()
        await qemu_io(tool, at_b.urls[0], "write -P 0xff 0 64k", status=1)
        await qemu_io(tool, at_b.urls[0], "read -P 0x5a 0 64k")
        assert arrays.equal() and b"\xff" * 512 not in arrays.b.file("data")


async def test_split_and_resync_under_qemu(tmp_path: Path, require_tool: RequireTool) -> None:
    """While the pair is split the sides differ; the resync brings over what was written meanwhile."""
    tool = require_tool("qemu-io")
    async with two_sites(tmp_path) as (arrays, at_a, _):
        await qemu_io(tool, at_a.urls[0], "write -P 1 0 256k")
        await arrays.a.control(0, PairOut.SPLIT)
        await qemu_io(tool, at_a.urls[0], "write -P 2 64k 64k", "write -P 3 12M 4k")
        assert not arrays.equal()
        await arrays.a.control(0, PairOut.RESYNC)
        await arrays.a.until(0, PairState.PAIR)
        assert arrays.equal()
        await qemu_io(tool, at_a.urls[0], "write -P 4 12M 4k", "read -P 2 64k 64k")
        assert arrays.equal()


async def test_both_sides_show_one_volume(tmp_path: Path, require_tool: RequireTool) -> None:
    """The same size, name and designators (claim 5)."""
    inquiry = (require_tool("iscsi-inq"),)
    async with two_sites(tmp_path) as (_, at_a, at_b):
        for tool in (inquiry, (*inquiry, "-e", "1", "-c", "128"), (require_tool("iscsi-readcapacity16"),)):
            assert await run_tool(*tool, at_a.urls[0]) == await run_tool(*tool, at_b.urls[0])
        for side in (at_a, at_b):
            assert "16 MiB" in await run_tool(require_tool("qemu-img"), "info", side.urls[0])
