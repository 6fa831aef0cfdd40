"""Several portal groups on loopback sockets: sessions in each, redirections, and the end of the portal."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from storage_model.nexus import ITNexus
from storage_model.spec.iscsi_pdu import (
    AsyncEvent,
    LoginStatus,
    LogoutRequestPdu,
    LogoutResponsePdu,
    TextRequestPdu,
    TextResponsePdu,
)
from storage_model.spec.iscsi_text import format_text, parse_pairs, parse_text
from storage_model.spec.scsi_task import TaskFunction, TaskFunctionResponse
from target.iscsi.events import Limits
from target.iscsi.portal import IscsiPortal
from target.scsi.lun_mask import LunMask
from target.scsi.task import ScsiTask, TaskOutcome
from tests.iscsi_driver import INITIATOR, IQN, ISID, TARGET, good
from tests.unit.portal_client import CID, PortalClient

ELSEWHERE = "192.0.2.7:3260"


class Nexuses:
    """A SCSI side that knows who is there."""

    def __init__(self) -> None:
        self.here: set[ITNexus] = set()
        self.tasks: list[ScsiTask] = []

    async def begin(self, task: ScsiTask) -> TaskOutcome:
        self.tasks.append(task)
        return good(task)

    async def manage(
        self, nexus: ITNexus, function: TaskFunction, lun: int, referenced_tag: int
    ) -> TaskFunctionResponse:
        return TaskFunctionResponse.COMPLETE

    def luns_affected(self, nexus: ITNexus, function: TaskFunction, lun: int) -> set[int]:
        return set()

    def nexus_established(self, nexus: ITNexus, mask: LunMask | None = None) -> None:
        assert nexus not in self.here
        self.here.add(nexus)

    async def nexus_lost(self, nexus: ITNexus) -> None:
        self.here.remove(nexus)


Connect = Callable[[int], Awaitable[PortalClient]]


@pytest.fixture
def scsi() -> Nexuses:
    return Nexuses()


@pytest.fixture
async def portal(scsi: Nexuses) -> AsyncIterator[IscsiPortal]:
    portal = IscsiPortal(TARGET, scsi, Limits(logout_timeout=1))
    for tag in (1, 2):
        await portal.start("127.0.0.1:0", tag)
    yield portal
    async with asyncio.timeout(5):
        await portal.stop()


@pytest.fixture
async def connect(portal: IscsiPortal) -> AsyncIterator[Connect]:
    clients: list[PortalClient] = []

    async def connect(tag: int) -> PortalClient:
        clients.append(await PortalClient.connect(portal.groups[tag].addresses[0]))
        return clients[-1]

    yield connect
    for client in clients:
        client.writer.close()


def nexus(tag: int) -> ITNexus:
    return ITNexus(INITIATOR, ISID, tag)


async def test_one_initiator_port_has_a_session_in_each_group(connect: Connect, scsi: Nexuses) -> None:
    """RFC 7143 §4.4.3: they are different nexuses, and neither reinstates the other."""
    one, two = await connect(1), await connect(2)
    assert parse_text((await one.login()).data)["TargetPortalGroupTag"] == "1"
    assert parse_text((await two.login()).data)["TargetPortalGroupTag"] == "2"
    assert scsi.here == {nexus(1), nexus(2)}
    await one.read()
    await two.read()
    assert [task.nexus for task in scsi.tasks] == [nexus(1), nexus(2)]


async def test_a_second_login_to_the_same_group_reinstates(connect: Connect, scsi: Nexuses) -> None:
    one, two = await (await connect(1)).logged_in(), await (await connect(2)).logged_in()
    again = await (await connect(2)).logged_in()
    assert await two.closed()
    await again.read()
    await one.read()
    assert scsi.here == {nexus(1), nexus(2)}


async def test_a_tsih_belongs_to_its_group(connect: Connect) -> None:
    tsih = (await (await connect(1)).login()).tsih
    assert (await (await connect(2)).login(tsih=tsih)).status == LoginStatus.SESSION_DOES_NOT_EXIST
    assert (await (await connect(1)).login(tsih=tsih)).status == LoginStatus.TOO_MANY_CONNECTIONS


@pytest.mark.parametrize("tag", [1, 2])
async def test_discovery_lists_both_groups_first_the_one_that_was_asked(
    connect: Connect, portal: IscsiPortal, tag: int
) -> None:
    client = await (await connect(tag)).logged_in(
        data=format_text({"InitiatorName": INITIATOR, "SessionType": "Discovery"})
    )
    client.send(TextRequestPdu(itt=2, cmd_sn=1, data=format_text({"SendTargets": "All"})))
    response = await client.receive()
    assert isinstance(response, TextResponsePdu)
    other = 3 - tag
    assert parse_pairs(response.data) == [
        ("TargetName", IQN),
        ("TargetAddress", f"{portal.groups[tag].addresses[0]},{tag}"),
        ("TargetAddress", f"{portal.groups[other].addresses[0]},{other}"),
    ]


async def test_a_redirection_asks_the_sessions_of_its_group_to_log_out(
    connect: Connect, portal: IscsiPortal, scsi: Nexuses, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = await (await connect(1)).logged_in(), await (await connect(2)).logged_in()
    caplog.set_level(logging.INFO, "pairvol.iscsi")
    portal.redirect(2, ELSEWHERE)
    message = await two.message()
    assert (message.async_event, message.parameter3) == (AsyncEvent.LOGOUT_REQUESTED, 1)
    two.send(LogoutRequestPdu(itt=3, cmd_sn=1, cid=CID))
    assert isinstance(await two.receive(), LogoutResponsePdu)
    assert scsi.here == {nexus(1)}
    await one.read()  # and has heard nothing
    response = await (await connect(2)).login()
    assert response.status == LoginStatus.TARGET_MOVED_TEMPORARILY
    assert parse_text(response.data) == {"TargetAddress": ELSEWHERE}
    assert f"portal group 2: logins go to {ELSEWHERE}" in caplog.text
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_who_does_not_log_out_is_dropped(connect: Connect, portal: IscsiPortal) -> None:
    two = await (await connect(2)).logged_in()
    portal.redirect(2, ELSEWHERE)
    assert (await two.message()).async_event == AsyncEvent.LOGOUT_REQUESTED
    message = await two.message()
    assert (message.async_event, message.parameter1) == (AsyncEvent.CONNECTION_DROPPED, CID)
    assert await two.closed()


async def test_the_same_redirection_again_asks_nobody(
    connect: Connect, portal: IscsiPortal, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pairvol.iscsi")
    portal.redirect(2, ELSEWHERE)
    portal.redirect(2, ELSEWHERE)
    assert caplog.text.count("logins go to") == 1
    portal.redirect(2, "")
    two = await (await connect(2)).logged_in()
    portal.redirect(2, "")
    await two.read()


async def test_a_login_that_is_under_way_when_its_group_moves_ends(connect: Connect, portal: IscsiPortal) -> None:
    two = await connect(2)
    await two.login(transit=False, nsg=0)
    portal.redirect(2, ELSEWHERE)
    assert await two.closed()


async def test_a_graceful_stop_waits_for_logouts(connect: Connect, portal: IscsiPortal, scsi: Nexuses) -> None:
    client = await (await connect(1)).logged_in()
    stop = asyncio.create_task(portal.stop(gracefully=True))
    message = await client.message()
    assert (message.async_event, message.parameter3) == (AsyncEvent.LOGOUT_REQUESTED, 1)
    await client.read()  # served until it has gone
    assert not stop.done()
    client.send(LogoutRequestPdu(itt=3, cmd_sn=2, cid=CID))
    assert isinstance(await client.receive(), LogoutResponsePdu)
    async with asyncio.timeout(0.9):
        await stop
    assert scsi.here == set()


async def test_a_graceful_stop_does_not_wait_for_ever(connect: Connect, portal: IscsiPortal) -> None:
    client = await (await connect(1)).logged_in()
    started = time.monotonic()
    await portal.stop(gracefully=True)
    assert 0.9 < time.monotonic() - started < 1.7
    assert (await client.message()).async_event == AsyncEvent.LOGOUT_REQUESTED
    dropped = (AsyncEvent.CONNECTION_DROPPED, AsyncEvent.ALL_CONNECTIONS_DROPPED)
    assert (await client.message()).async_event in dropped  # its own second and the portal's end together
    assert await client.closed()


async def test_a_stop_at_once_says_so(connect: Connect, portal: IscsiPortal) -> None:
    client = await (await connect(1)).logged_in()
    async with asyncio.timeout(0.9):
        await portal.stop()
    assert (await client.message()).async_event == AsyncEvent.ALL_CONNECTIONS_DROPPED
    assert await client.closed()


async def test_the_log_names_nexus_and_group(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pairvol.iscsi")
    await (await connect(2)).logged_in()
    assert f"logged in as {INITIATOR},i,0x{ISID.hex()} to portal group 2, digests: none" in caplog.text
    await (await connect(1)).logged_in(data=format_text({"InitiatorName": INITIATOR, "SessionType": "Discovery"}))
    assert "logged in for discovery, portal group 1" in caplog.text
