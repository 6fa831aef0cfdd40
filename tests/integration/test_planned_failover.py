"""A portal group moves to another array: its hosts are asked to log out, and sent there when they log in again."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from initiator_shim.initiator_transport import IscsiSession
from storage_model.spec.iscsi_pdu import AsyncEvent, AsyncMessagePdu
from tests.eventually import eventually
from tests.integration.array_process import STOP_SECONDS, ArrayProcess, running_array
from tests.integration.client_tools import run_tool
from tests.integration.raw_initiator import RawInitiator

RequireTool = Callable[[str], str]
CONFIG = '[array]\nportals = ["127.0.0.1:0"]\n[[volumes]]\nname = "v"\nsize = "4MiB"\n'
END_SECONDS = 10.0
READ_0 = bytes.fromhex("2800 00000000 00 0001 00")


async def end_of(session: IscsiSession) -> str:
    """Why it ended, or will in a moment."""
    async with asyncio.timeout(END_SECONDS):
        return str(await session.ended)


@dataclass
class Site:
    """Two arrays with one name, which a host cannot tell apart; ``move`` sends the hosts of the first to the second."""

    here: ArrayProcess
    there: ArrayProcess
    config: Path

    @property
    def elsewhere(self) -> str:
        return self.there.urls[0].split("/")[2]

    async def move(self) -> None:
        self.config.write_text(CONFIG + f'[[portal_groups]]\ntag = 1\nredirect = "{self.elsewhere}"\n')
        os.kill(self.here.process.pid, signal.SIGHUP)
        await eventually(lambda: "configuration reloaded" in self.here.log, what="the reload")


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    config = tmp_path / "here.toml"
    config.write_text(CONFIG)
    words = ("--portal", "127.0.0.1:0", "--volume", "4MiB")
    async with (
        running_array(tmp_path, "--config", str(config), name="here") as here,
        running_array(tmp_path, *words, name="there") as there,
    ):
        yield Site(here, there, config)


async def test_our_initiator_logs_out_and_follows(site: Site) -> None:
    session = await site.here.connect()
    await site.move()
    assert "logged out, as the target asked" in await end_of(session)
    again = await site.here.connect()
    host, _, port = site.elsewhere.rpartition(":")
    assert "logged in as" in site.there.log
    await eventually(lambda: f"login redirected to {host}:{port}" in site.here.log)
    await again.logout()
    assert "WARNING" not in site.here.log


async def test_iscsi_ls_and_iscsi_inq_follow(site: Site, require_tool: RequireTool) -> None:
    await site.move()
    host, port = site.here.address
    output = await run_tool(require_tool("iscsi-ls"), f"iscsi://{host}:{port}")
    assert f"Target:{site.here.iqn} Portal:{site.elsewhere},1" in output and f"{port},1" not in output
    assert "Vendor:PAIRVOL" in await run_tool(require_tool("iscsi-inq"), site.here.urls[0])
    assert "libiscsi:iscsi-inq,i," in site.there.log


async def test_qemu_moves_in_the_middle_of_its_work(site: Site, require_tool: RequireTool) -> None:
    """libiscsi honours the request, is redirected at its new login, and QEMU sees no error."""
    commands = ("write -P 1 0 64k", "sleep 1500", "write -P 2 0 64k", "read -P 2 0 64k")
    words = [word for command in commands for word in ("-c", command)]
    qemu = asyncio.create_task(run_tool(require_tool("qemu-io"), "-f", "raw", *words, site.here.urls[0]))
    try:
        await eventually(lambda: "logged in as" in site.here.log, what="QEMU's login")
        await site.move()
        output = await qemu
    finally:
        qemu.cancel()
        with suppress(asyncio.CancelledError):
            await qemu
    assert "Pattern verification failed" not in output and "error" not in output.lower(), output
    session = await site.there.connect()
    assert (await session.execute(0, READ_0, data_in_length=512)).data_in == b"\x02" * 512
    await session.logout()
    assert "no logout" not in site.here.log


async def test_a_terminated_array_asks_its_hosts_to_log_out(site: Site) -> None:
    session = await site.there.connect()
    assert await site.there.end_by(signal.SIGTERM) < STOP_SECONDS
    assert "logged out, as the target asked" in await end_of(session)


async def test_an_interrupted_array_does_not_wait_for_anybody(site: Site) -> None:
    session = await site.there.connect()
    assert await site.there.end_by(signal.SIGINT) < STOP_SECONDS
    assert "the target drops the connection" in await end_of(session)


async def test_a_host_that_does_not_listen_delays_the_end_by_a_second(site: Site) -> None:
    async with RawInitiator.connection(site.there.address) as deaf:
        await deaf.log_in(site.there.iqn)
        assert 0.9 < await site.there.end_by(signal.SIGTERM) < STOP_SECONDS
        request, *_ = [pdu for pdu in await deaf.hung_up() if isinstance(pdu, AsyncMessagePdu)]
        assert (request.async_event, request.parameter3) == (AsyncEvent.LOGOUT_REQUESTED, 1)


async def test_moved_back(site: Site) -> None:
    await site.move()
    site.config.write_text(CONFIG)
    os.kill(site.here.process.pid, signal.SIGHUP)
    await eventually(lambda: site.here.log.count("configuration reloaded") == 2, what="the second reload")
    session: IscsiSession = await site.here.connect()
    assert "logged in as" in site.here.log and "logged in as" not in site.there.log
    await session.logout()
