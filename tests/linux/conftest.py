"""A guest with a real Linux kernel, and an array, for all tests of this folder. They need root."""

import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from scripts.failover_drill.processes import ProcessFailed
from tests.linux.guest import Guest
from tests.linux.guest_files import GuestFiles, GuestFilesMissing, guest_files
from tests.linux.linux_array import LinuxArray
from tests.linux.network import Network

_TOOLS = ("apt-get", "dpkg", "unshare", "nsenter", "taskset", "ip", "ss")
_IN_CI = os.environ.get("CI", "").lower() in ("true", "1")


def _cannot(reason: str) -> None:
    """Skip here; fail in CI, where a test that silently never runs would be worth nothing."""
    if _IN_CI:
        pytest.fail(f"{reason} (CI=true: not a skip)", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def linux_files(require_tool: Callable[[str], str]) -> Iterator[GuestFiles]:
    """The guest's kernel and programs, fetched at the first run."""
    if os.geteuid() != 0:
        _cannot("a Linux guest needs root: network namespace, TAP device")
    for tool in _TOOLS:
        require_tool(tool)
    try:
        with guest_files() as files:
            yield files
    except GuestFilesMissing as error:
        pytest.fail(f"the guest's packages cannot be fetched: {error}", pytrace=False)


@pytest.fixture(scope="session")
def linux_directory(linux_files: GuestFiles) -> Iterator[Path]:
    """Logs and volumes. A short path: the kernel keeps a socket there."""
    if kept := os.environ.get("PAIRVOL_LINUX_DIR"):
        Path(kept).mkdir(parents=True)
        yield Path(kept).resolve()
        return
    with tempfile.TemporaryDirectory(prefix="pairvol-linux-") as directory:
        yield Path(directory)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def network(linux_directory: Path) -> AsyncIterator[Network]:
    try:
        network = await Network.start(linux_directory)
    except ProcessFailed as error:
        pytest.fail(f"no network for the guest: {error}", pytrace=False)
    yield network
    await network.stop()


async def _boot(number: int, files: GuestFiles, network: Network, directory: Path) -> Guest:
    try:
        return await Guest.boot(number, files, network, directory)
    except ProcessFailed as error:
        pytest.fail(str(error), pytrace=False)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def guest(linux_files: GuestFiles, linux_directory: Path, network: Network) -> AsyncIterator[Guest]:
    """The first guest: a Linux machine with open-iscsi."""
    guest = await _boot(1, linux_files, network, linux_directory)
    yield guest
    await guest.power_off()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def second_guest(linux_files: GuestFiles, linux_directory: Path, network: Network) -> AsyncIterator[Guest]:
    guest = await _boot(2, linux_files, network, linux_directory)
    yield guest
    await guest.power_off()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def one_array(linux_directory: Path, network: Network) -> AsyncIterator[LinuxArray]:
    directory = linux_directory / "array"
    directory.mkdir()
    array = await LinuxArray.create(network, directory)
    yield array
    await array.stop()
    assert "Traceback" not in array.log, array.log


@pytest_asyncio.fixture(loop_scope="session")
async def array(request: pytest.FixtureRequest, one_array: LinuxArray) -> AsyncIterator[LinuxArray]:
    """The array, the same for all tests; as new after one that failed, so that the next shows a failure of its own."""
    failed_before = request.session.testsfailed
    yield one_array
    if request.session.testsfailed != failed_before:
        await one_array.start_afresh()
