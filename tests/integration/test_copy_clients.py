"""Copy offload as an independent initiator uses it: QEMU's ``convert -C``."""

import re
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio

from tests.integration.array_process import ArrayProcess, running_array
from tests.integration.client_tools import run_tool

pytestmark = pytest.mark.asyncio(loop_scope="module")

run = partial(run_tool, seconds=60.0)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def array(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ArrayProcess]:
    volumes = [word for size in ("64MiB", "64MiB", "32MiB,block=4096") for word in ("--volume", size)]
    words = ("--portal", "127.0.0.1:0", "--log-level", "debug", *volumes)
    async with running_array(tmp_path_factory.mktemp("array"), *words) as process:
        yield process


async def test_qemu_copies_offloaded(array: ArrayProcess, tmp_path: Path, require_tool: Callable[[str], str]) -> None:
    """``-C`` lets the array copy: the blocks do not come out of it."""
    qemu = require_tool("qemu-img")
    image = tmp_path / "image"
    image.write_bytes(b"".join(number.to_bytes(8, "big") for number in range(8 << 20)))
    source, destination, *_ = array.urls
    await run(qemu, "convert", "-n", "-f", "raw", "-O", "raw", str(image), source)
    await run(qemu, "convert", "-n", "-C", "-f", "raw", "-O", "raw", source, destination)
    assert "identical" in await run(qemu, "compare", "-f", "raw", "-F", "raw", str(image), destination)
    copied = re.findall(r"LUN [01]: (\d+) bytes copied for iqn\.2008-11\.org\.linux-kvm", array.log)
    assert sum(map(int, copied)) == 64 << 20
