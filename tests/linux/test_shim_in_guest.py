"""The pair-control software where it belongs: on the host, between its kernel's initiator and the array."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.linux.guest import Guest
from tests.linux.linux_array import BLOCKS_4096, DATA, PORTAL, TARGET, UNITS, LinuxArray
from tests.linux.shim_in_guest import SHIM_PORTAL, shim
from tests.linux.test_initiator import DATA_DIGEST, HEADER, LOGINS

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]

WHERE = {"TARGET": TARGET, "PORTAL": SHIM_PORTAL}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shim_in_guest(guest: Guest, one_array: LinuxArray) -> AsyncIterator[None]:
    async with shim(guest, PORTAL):
        yield


async def test_discovery(guest: Guest, array: LinuxArray, shim_in_guest: None) -> None:
    """through a shim in the guest: discovery"""
    await guest.run("discovery.sh", {**WHERE, "FOUND": f"{SHIM_PORTAL},1 {TARGET}"})


@pytest.mark.parametrize("how", ["plain", "both digests", "CHAP and both digests", "mutual CHAP"])
async def test_login(guest: Guest, array: LinuxArray, shim_in_guest: None, how: str) -> None:
    """through a shim in the guest: login"""
    initiator, settings = LOGINS[how]
    login = {"INITIATOR": initiator, "SETTINGS": " ".join(settings)}
    digests = {"HEADER_DIGEST": int(HEADER in settings), "DATA_DIGEST": int(DATA_DIGEST in settings)}
    await guest.run("login.sh", {**WHERE, **login, **digests})


@pytest.mark.parametrize("script", ["inquiry.sh", "reservation.sh", "reset.sh", "provisioning.sh"])
async def test_commands(guest: Guest, array: LinuxArray, shim_in_guest: None, script: str) -> None:
    """through a shim in the guest: sg3-utils"""
    await guest.run(script, {**WHERE, "LUNS": UNITS})


async def test_file_system(guest: Guest, array: LinuxArray, shim_in_guest: None) -> None:
    """through a shim in the guest: ext4 with files, checksums and fsck"""
    where = {**WHERE, "LUN": BLOCKS_4096, "MARKER": "through a shim"}
    await guest.run("filesystem_write.sh", where)
    await guest.run("filesystem_verify.sh", where)


async def test_fio(guest: Guest, array: LinuxArray, shim_in_guest: None) -> None:
    """through a shim in the guest: fio with verify"""
    await guest.run("fio.sh", {**WHERE, "LUN": DATA, "SETTINGS": ""})
