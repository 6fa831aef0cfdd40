"""Programs that others wrote, against an array that asks for CHAP: libiscsi's tools, QEMU, pyscsi with cython-iscsi.

Each one way and mutual, with and without header digests (libiscsi has no data digest). QEMU cannot do mutual CHAP.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import ModuleType

import pytest
import pytest_asyncio

from tests.bad_input.chap_array import ChapArray, chap_array
from tests.chap_login import SECRET, TARGET_SECRET, TARGET_USER, USER
from tests.integration.client_tools import patterned, run_tool
from tests.integration.shims import shim

pytestmark = pytest.mark.asyncio(loop_scope="module")

SIZE = 16 << 20
CLIENT = "iqn.2026-11.org.example:client"
MASKED = "iqn.2026-11.org.example:masked"
RULES = (
    f"initiator={CLIENT}*,address=127.0.0.0/8,"
    f"chap-user={USER},chap-secret-file=host.secret,mutual-user={TARGET_USER},mutual-secret-file=array.secret",
    f"initiator={MASKED},lun=1,read-only,chap-user={USER},chap-secret-file=host.secret",
    # What libiscsi's Python binding and QEMU call themselves, and the shim.
    f"initiator=iscsi:*,chap-user={USER},chap-secret-file=host.secret,"
    f"mutual-user={TARGET_USER},mutual-secret-file=array.secret",
    f"initiator=*pairvol-shim,chap-user={USER},chap-secret-file=host.secret",
)
RequireTool = Callable[[str], str]
Login = tuple[str, dict[str, str]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def array(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ChapArray]:
    async with chap_array(tmp_path_factory.mktemp("array"), *RULES) as array:
        yield array
        assert "ERROR" not in array.process.log
        for secret in (SECRET, TARGET_SECRET):
            assert secret.decode() not in array.process.log


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def through_shim(array: ChapArray, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[str, int]]:
    """The address of a shim that logs in to the array with CHAP itself, and relays the logins of others."""
    directory = tmp_path_factory.mktemp("shim")
    secret = directory / "secret"
    secret.write_bytes(SECRET)
    secret.chmod(0o600)
    words = ("--chap-user", USER, "--chap-secret-file", str(secret))
    async with shim(directory, array.process.address[1], *words) as front:
        yield "127.0.0.1", front.port


@pytest.fixture(params=["array", "shim"])
def address(request: pytest.FixtureRequest, array: ChapArray) -> tuple[str, int]:
    if request.param == "shim":
        found: tuple[str, int] = request.getfixturevalue("through_shim")
        return found
    return array.process.address


LOGINS = pytest.mark.parametrize(
    ("mutual", "digest"), [(False, False), (False, True), (True, False), (True, True)],
    ids=["one way", "one way, digest", "mutual", "mutual, digest"],
)  # fmt: skip


def url(
    address: tuple[str, int],
    path: str = "",
    *,
    secret: bytes = SECRET,
    target_secret: bytes | None = None,
    digest: bool = False,
) -> str:
    """As libiscsi takes it: user and secret before the address, the target's among the arguments."""
    arguments = []
    if target_secret is not None:
        arguments += [f"target_user={TARGET_USER}", f"target_password={target_secret.decode()}"]
    if digest:
        arguments.append("header_digest=crc32c")
    host, port = address
    return f"iscsi://{USER}%{secret.decode()}@{host}:{port}{path}" + ("?" + "&".join(arguments) if arguments else "")


def unit(array: ChapArray, lun: int = 0) -> str:
    return f"/{array.process.iqn}/{lun}"


# ------------------------------------------------------------------------------------------------- libiscsi's programs


@pytest.mark.parametrize("mutual", [False, True])
async def test_iscsi_ls(mutual: bool, array: ChapArray, address: tuple[str, int], require_tool: RequireTool) -> None:
    """Discovery, and a session for each unit."""
    target_secret = TARGET_SECRET if mutual else None
    output = await run_tool(require_tool("iscsi-ls"), "-i", CLIENT, "-s", url(address, target_secret=target_secret))
    assert f"Target:{array.process.iqn} Portal:{address[0]}:{address[1]},1" in output
    assert [line.split()[0] for line in output.splitlines() if "Lun:" in line] == ["Lun:0", "Lun:1"]


@LOGINS
@pytest.mark.parametrize(
    ("tool", "text"), [("iscsi-inq", "Vendor:PAIRVOL"), ("iscsi-readcapacity16", "512"), ("iscsi-swp", "SWP:")]
)
async def test_libiscsi_tools(
    tool: str,
    text: str,
    mutual: bool,
    digest: bool,
    array: ChapArray,
    address: tuple[str, int],
    require_tool: RequireTool,
) -> None:
    target_secret = TARGET_SECRET if mutual else None
    where = url(address, unit(array), target_secret=target_secret, digest=digest)
    assert text in await run_tool(require_tool(tool), "-i", CLIENT, where)


async def test_iscsi_swp_changes_the_page(array: ChapArray, require_tool: RequireTool) -> None:
    tool, where = require_tool("iscsi-swp"), url(array.process.address, unit(array, 1), target_secret=TARGET_SECRET)
    for word, before, after in (("on", "SWP:0", "SWP:1"), ("off", "SWP:1", "SWP:0")):
        assert before in await run_tool(tool, "-i", CLIENT, "--swp", word, where)
        assert after in await run_tool(tool, "-i", CLIENT, where)


async def test_secrets_by_the_environment(
    array: ChapArray, address: tuple[str, int], require_tool: RequireTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    _environment(monkeypatch)
    host, port = address
    where = f"iscsi://{host}:{port}{unit(array)}"
    assert "Vendor:PAIRVOL" in await run_tool(require_tool("iscsi-inq"), "-i", CLIENT, where)


def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIBISCSI_CHAP_USERNAME", USER)
    monkeypatch.setenv("LIBISCSI_CHAP_PASSWORD", SECRET.decode())
    monkeypatch.setenv("LIBISCSI_CHAP_TARGET_USERNAME", TARGET_USER)
    monkeypatch.setenv("LIBISCSI_CHAP_TARGET_PASSWORD", TARGET_SECRET.decode())


# ------------------------------------------------------------------------------------------------------ what is refused


async def test_wrong_secret(array: ChapArray, address: tuple[str, int], require_tool: RequireTool) -> None:
    where = url(address, unit(array), secret=b"some other secret")
    output = await run_tool(require_tool("iscsi-inq"), "-i", CLIENT, where, status=10)
    assert "Authentication failure(513)" in output


async def test_no_secret(array: ChapArray, address: tuple[str, int], require_tool: RequireTool) -> None:
    where = f"iscsi://{address[0]}:{address[1]}{unit(array)}"
    output = await run_tool(require_tool("iscsi-inq"), "-i", CLIENT, where, status=10)
    assert "Authentication failure(513)" in output


async def test_discovery_without_a_secret(address: tuple[str, int], require_tool: RequireTool) -> None:
    output = await run_tool(require_tool("iscsi-ls"), "-i", CLIENT, f"iscsi://{address[0]}:{address[1]}", status=10)
    assert "Target:" not in output and "513" in output


async def test_a_client_notices_a_target_without_the_mutual_secret(
    array: ChapArray, address: tuple[str, int], require_tool: RequireTool
) -> None:
    where = url(address, unit(array), target_secret=b"some other secret")
    output = await run_tool(require_tool("iscsi-inq"), "-i", CLIENT, where, status=10)
    assert "Invalid CHAP_R response from the target" in output


async def test_a_stranger(array: ChapArray, address: tuple[str, int], require_tool: RequireTool) -> None:
    """The right secret under a name that no rule has."""
    where = url(address, unit(array))
    output = await run_tool(require_tool("iscsi-inq"), "-i", "iqn.2026-11.org.example:x", where, status=10)
    assert "Authorization failure(514)" in output


async def test_masked_units(array: ChapArray, address: tuple[str, int], require_tool: RequireTool) -> None:
    output = await run_tool(require_tool("iscsi-ls"), "-i", MASKED, "-s", url(address))
    assert [line.split()[0] for line in output.splitlines() if "Lun:" in line] == ["Lun:1"]
    await run_tool(require_tool("iscsi-inq"), "-i", MASKED, url(address, unit(array, 1)))
    output = await run_tool(require_tool("iscsi-inq"), "-i", MASKED, url(address, unit(array, 0)), status=10)
    assert "LOGICAL_UNIT_NOT_SUPPORTED" in output


# ---------------------------------------------------------------------------------------------------------------- QEMU


def _qemu_words(array: ChapArray, address: tuple[str, int], digest: bool, secret: Path) -> list[str]:
    """The secret in a file, as QEMU wants it."""
    host, port = address
    options = {
        "driver": "iscsi",
        "transport": "tcp",
        "portal": f"{host}:{port}",
        "target": array.process.iqn,
        "lun": "0",
        "user": USER,
        "password-secret": "chap",
        "initiator-name": CLIENT + "-qemu",
        "header-digest": "crc32c" if digest else "none",
    }
    words = ",".join(f"{key}={value}" for key, value in options.items())
    return ["--object", f"secret,id=chap,file={secret}", "--image-opts", words]


@pytest.fixture
def qemu_secret(tmp_path: Path) -> Path:
    path = tmp_path / "chap"
    path.write_bytes(SECRET)
    return path


@pytest.mark.parametrize("digest", [False, True])
async def test_qemu_img(
    digest: bool,
    array: ChapArray,
    address: tuple[str, int],
    qemu_secret: Path,
    require_tool: RequireTool,
    tmp_path: Path,
) -> None:
    tool, image, back = require_tool("qemu-img"), tmp_path / "image", tmp_path / "back"
    image.write_bytes(patterned(SIZE))
    disk = _qemu_words(array, address, digest, qemu_secret)
    output = await run_tool(tool, "info", *disk[:2], "--output=json", *disk[2:])
    assert json.loads(output)["virtual-size"] == SIZE
    await run_tool(tool, "convert", *disk[:2], "-n", "-f", "raw", "--target-image-opts", str(image), disk[3])
    await run_tool(tool, "convert", *disk, "-O", "raw", str(back))
    assert back.read_bytes() == image.read_bytes()


@pytest.mark.parametrize("digest", [False, True])
async def test_qemu_io(
    digest: bool, array: ChapArray, address: tuple[str, int], qemu_secret: Path, require_tool: RequireTool
) -> None:
    commands = ("write -P 0x5a 0 64k", "flush", "read -P 0x5a 0 64k", "write -z 8k 4k", "read -P 0 8k 4k")
    words = [word for command in commands for word in ("-c", command)]
    output = await run_tool(require_tool("qemu-io"), *_qemu_words(array, address, digest, qemu_secret), *words)
    assert output.count("wrote ") == 2 and "Pattern verification failed" not in output


async def test_qemu_with_a_wrong_secret(
    array: ChapArray, address: tuple[str, int], qemu_secret: Path, require_tool: RequireTool
) -> None:
    qemu_secret.write_bytes(b"some other secret")
    words = _qemu_words(array, address, False, qemu_secret)
    assert "Authentication failure" in await run_tool(require_tool("qemu-io"), *words, "-c", "quit", status=1)


# ------------------------------------------------------------------------------------------- pyscsi and cython-iscsi


def _with_pyscsi(url: str) -> None:
    """With pyscsi's own device class; it blocks, so it has a thread."""
    from pyscsi.pyiscsi.iscsi_device import ISCSIDevice
    from pyscsi.pyscsi.scsi import SCSI

    with SCSI(ISCSIDevice(url), 512) as scsi:
        scsi.testunitready()
        assert scsi.inquiry().result["t10_vendor_identification"].strip() == b"PAIRVOL"
        data = bytearray(patterned(4 * 512, seed=84))
        scsi.write16(17, 4, data)
        assert scsi.read16(17, 4).datain == data


async def test_pyscsi(
    array: ChapArray,
    address: tuple[str, int],
    require_module: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the environment: this device makes its URL its initiator name, so that a secret in it would be sent."""
    iscsi = require_module("iscsi")
    for enumeration in (iscsi.iscsi_session_type, iscsi.iscsi_header_digest, iscsi.scsi_xfer_dir):
        for name, value in vars(enumeration).items():
            if name.isupper():
                monkeypatch.setattr(iscsi, name, value, raising=False)
    _environment(monkeypatch)
    async with asyncio.timeout(20):
        await asyncio.to_thread(_with_pyscsi, f"iscsi://{address[0]}:{address[1]}{unit(array)}")
