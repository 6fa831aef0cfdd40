"""Programs that others wrote, against a zero-configuration array: libiscsi's tools, QEMU, pyscsi with cython-iscsi."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import ModuleType

import pytest
import pytest_asyncio

from tests.integration.array_process import ArrayProcess, running_array
from tests.integration.client_tools import patterned, run_tool

pytestmark = pytest.mark.asyncio(loop_scope="module")

SIZE = 64 << 20
RequireTool = Callable[[str], str]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def array(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ArrayProcess]:
    """LUN 0 of 512-byte blocks in memory, LUN 1 of 4096-byte blocks in a file."""
    directory = tmp_path_factory.mktemp("array")
    volumes = ("--volume", "64MiB", "--volume", f"64MiB,block=4096,file={directory / 'disk.img'}")
    async with running_array(directory, "--portal", "127.0.0.1:0", *volumes) as process:
        yield process
        assert "ERROR" not in process.log


async def test_iscsi_ls(array: ArrayProcess, require_tool: RequireTool) -> None:
    host, port = array.address
    output = await run_tool(require_tool("iscsi-ls"), "-s", f"iscsi://{host}:{port}")
    assert f"Target:{array.iqn} Portal:{host}:{port},1" in output
    luns = [line.split() for line in output.splitlines() if "Lun:" in line]
    assert [line[0] for line in luns] == ["Lun:0", "Lun:1"]
    assert all("Type:DIRECT_ACCESS" in " ".join(line) for line in luns)


async def test_iscsi_inq(array: ArrayProcess, require_tool: RequireTool) -> None:
    output = await run_tool(require_tool("iscsi-inq"), array.urls[0])
    assert "Vendor:PAIRVOL" in output and "Peripheral Device Type:DIRECT_ACCESS" in output


@pytest.mark.parametrize(
    ("page", "text"),
    [
        (0x00, "Page:0xb0 BLOCK_LIMITS"),
        (0x80, "Unit Serial Number:["),
        (0x83, "DEVICE DESIGNATOR #0"),
        (0xB0, "maximum transfer length:"),
        (0xB1, "Medium Rotation Rate:"),
    ],
)
async def test_iscsi_inq_vital_product_data(
    page: int, text: str, array: ArrayProcess, require_tool: RequireTool
) -> None:
    assert text in await run_tool(require_tool("iscsi-inq"), "-e", "1", "-c", str(page), array.urls[0])


@pytest.mark.parametrize(("lun", "block"), [(0, 512), (1, 4096)])
async def test_iscsi_readcapacity16(lun: int, block: int, array: ArrayProcess, require_tool: RequireTool) -> None:
    output = await run_tool(require_tool("iscsi-readcapacity16"), array.urls[lun])
    assert f"LBA:{SIZE // block - 1}" in output.replace("RETURNED LOGICAL BLOCK ADDRESS", "LBA").replace(": ", ":")
    assert str(block) in output


@pytest.mark.parametrize("lun", [0, 1])
async def test_qemu_img_info(lun: int, array: ArrayProcess, require_tool: RequireTool) -> None:
    output = await run_tool(require_tool("qemu-img"), "info", "--output=json", array.urls[lun])
    assert json.loads(output)["virtual-size"] == SIZE


@pytest.mark.parametrize("lun", [0, 1])
async def test_qemu_img_convert_there_and_back(
    lun: int, array: ArrayProcess, require_tool: RequireTool, tmp_path: Path
) -> None:
    tool, image, back = require_tool("qemu-img"), tmp_path / "image", tmp_path / "back"
    image.write_bytes(patterned(SIZE))
    await run_tool(tool, "convert", "-n", "-f", "raw", "-O", "raw", str(image), array.urls[lun])
    await run_tool(tool, "convert", "-f", "raw", "-O", "raw", array.urls[lun], str(back))
    assert back.read_bytes() == image.read_bytes()
    await run_tool(tool, "compare", "-f", "raw", "-F", "raw", str(image), array.urls[lun])


@pytest.mark.parametrize("lun", [0, 1])
async def test_qemu_io(lun: int, array: ArrayProcess, require_tool: RequireTool) -> None:
    commands = [
        "write -P 0x5a 0 64k",
        "write -P 0xa5 60k 8k",
        "write -P 0x11 63M 1M",
        "write -f -P 0x22 1M 4k",  # FUA
        "flush",
        "write -z 8k 4k",
        "discard 16k 16k",
        "read -P 0x5a 0 8k",
        "read -P 0 8k 4k",
        "read -P 0x5a 12k 4k",
        "read -P 0xa5 60k 8k",
        "read -P 0x11 63M 1M",
        "read -P 0x22 1M 4k",
    ]
    words = [word for command in commands for word in ("-c", command)]
    output = await run_tool(require_tool("qemu-io"), "-f", "raw", *words, array.urls[lun])
    assert output.count("wrote ") == 5 and "Pattern verification failed" not in output


async def test_qemu_io_notices_a_wrong_pattern(array: ArrayProcess, require_tool: RequireTool) -> None:
    """The test above can fail."""
    words = ("-f", "raw", "-c", "write -P 1 0 4k", "-c", "read -P 2 0 4k", array.urls[0])
    with pytest.raises(AssertionError, match="Pattern verification failed"):
        await run_tool(require_tool("qemu-io"), *words)


# ------------------------------------------------------------------------------------------- pyscsi and cython-iscsi


def _with_pyscsi(url: str) -> None:
    """As in pyscsi's examples, with pyscsi's own device class; it blocks, so it has a thread."""
    from pyscsi.pyiscsi.iscsi_device import ISCSIDevice
    from pyscsi.pyscsi.scsi import SCSI

    with SCSI(ISCSIDevice(url), 512) as scsi:
        scsi.testunitready()
        inquiry = scsi.inquiry().result
        assert inquiry["t10_vendor_identification"].strip() == b"PAIRVOL"
        assert inquiry["peripheral_device_type"] == 0
        pages = scsi.inquiry(evpd=1, page_code=0).result["vpd_pages"]
        assert list(pages) == sorted(pages) and {0x00, 0x80, 0x83} <= set(pages)
        for capacity in (scsi.readcapacity10().result, scsi.readcapacity16().result):
            assert (capacity["returned_lba"], capacity["block_length"]) == (SIZE // 512 - 1, 512)
        data = bytearray(patterned(4 * 512, seed=83))
        for write, read in ((scsi.write10, scsi.read10), (scsi.write12, scsi.read12), (scsi.write16, scsi.read16)):
            data.reverse()
            write(17, 4, data)
            assert read(17, 4).datain == data
            assert read(18, 1).datain == data[512:1024]
        # It passes on no sense data, and its CheckCondition falls over that.
        with pytest.raises((ISCSIDevice.CheckCondition, TypeError)):
            scsi.read10(SIZE // 512, 1)
        assert scsi.reportluns().result["luns"] is not None


async def test_pyscsi(
    array: ArrayProcess, require_module: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    iscsi = require_module("iscsi")
    # The newest pyscsi (2.1.0) knows the constants under the names that they had before cython-iscsi 1.0.
    for enumeration in (iscsi.iscsi_session_type, iscsi.iscsi_header_digest, iscsi.scsi_xfer_dir):
        for name, value in vars(enumeration).items():
            if name.isupper():
                monkeypatch.setattr(iscsi, name, value, raising=False)
    async with asyncio.timeout(20):
        await asyncio.to_thread(_with_pyscsi, array.urls[0])
