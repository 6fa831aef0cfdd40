"""The portal on a loopback socket, with a SCSI side that only records."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from dataclasses import replace

import pytest

from storage_model.errors import UserError
from storage_model.loopback import UNPACED_CONGESTION_CONTROL
from storage_model.nexus import ITNexus
from storage_model.spec.iscsi_pdu import (
    DataInPdu,
    LoginStatus,
    LogoutRequestPdu,
    LogoutResponsePdu,
    NopOutPdu,
    ScsiCommandPdu,
    ScsiResponsePdu,
    TaskManagementRequestPdu,
    TaskManagementResponsePdu,
    TextRequestPdu,
    TextResponsePdu,
)
from storage_model.spec.iscsi_stream import encode_pdu
from storage_model.spec.iscsi_text import format_text, parse_pairs
from storage_model.spec.scsi_task import TaskFunction, TaskFunctionResponse
from target.iscsi.events import Limits
from target.iscsi.portal import IscsiPortal
from target.iscsi.serving import Serving
from target.scsi.lun_mask import LunMask
from target.scsi.task import ScsiTask, TaskOutcome
from tests.iscsi_driver import INITIATOR, IQN, TARGET, good
from tests.unit.portal_client import PortalClient, read_command

WAIT, FAIL = b"\xc0", b"\xc1"  # CDBs of the fake SCSI side


class FakeScsiPort:
    def __init__(self) -> None:
        self.log: list[str] = []
        self.waiting: dict[int, tuple[ScsiTask, asyncio.Future[None]]] = {}

    async def begin(self, task: ScsiTask) -> TaskOutcome:
        if task.cdb[:1] == FAIL:
            raise AssertionError("a bug")
        if task.cdb[:1] == WAIT:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.waiting[task.tag] = (task, future)
            await future
        return good(task)

    async def manage(
        self, nexus: ITNexus, function: TaskFunction, lun: int, referenced_tag: int
    ) -> TaskFunctionResponse:
        self.log.append(function.name)
        await self._abort()
        return TaskFunctionResponse.COMPLETE

    async def _abort(self) -> None:
        for task, future in self.waiting.values():
            task.aborted = True
            if not future.done():
                future.set_result(None)
        await asyncio.sleep(0)
        self.waiting.clear()

    def luns_affected(self, nexus: ITNexus, function: TaskFunction, lun: int) -> Collection[int]:
        return {lun}

    def nexus_established(self, nexus: ITNexus, mask: LunMask | None = None) -> None:
        self.log.append(f"established {nexus.isid[-1]}")

    async def nexus_lost(self, nexus: ITNexus) -> None:
        await self._abort()
        self.log.append(f"lost {nexus.isid[-1]}")


Connect = Callable[[], Awaitable[PortalClient]]


@pytest.fixture
def scsi() -> FakeScsiPort:
    return FakeScsiPort()


@pytest.fixture
async def portal(scsi: FakeScsiPort) -> AsyncIterator[IscsiPortal]:
    portal = IscsiPortal(TARGET, scsi, Limits(connections=4, login_timeout=0.2))
    await portal.start("127.0.0.1:0")
    yield portal
    async with asyncio.timeout(5):
        await portal.stop()


@pytest.fixture
async def connect(portal: IscsiPortal) -> AsyncIterator[Connect]:
    clients: list[PortalClient] = []

    async def connect() -> PortalClient:
        clients.append(await PortalClient.connect(portal.addresses[0]))
        return clients[-1]

    yield connect
    for client in clients:
        client.writer.close()


async def test_commands_that_do_not_wait_pass_those_that_do(connect: Connect, scsi: FakeScsiPort) -> None:
    client = await connect()
    assert (await client.login()).status == LoginStatus.SUCCESS
    client.send(read_command(1, 1, WAIT), read_command(2, 2))
    fast = await client.receive()
    assert isinstance(fast, DataInPdu) and fast.itt == 2
    scsi.waiting[1][1].set_result(None)
    slow = await client.receive()
    assert isinstance(slow, DataInPdu) and slow.itt == 1 and slow.status_present


async def test_logout_loses_the_nexus_before_it_is_answered(connect: Connect, scsi: FakeScsiPort) -> None:
    client = await connect()
    await client.login()
    client.send(read_command(1, 1, WAIT), LogoutRequestPdu(itt=2, cmd_sn=2))
    response = await client.receive()
    assert isinstance(response, LogoutResponsePdu) and scsi.log == ["established 1", "lost 1"]
    assert await client.closed_after_the_rest()


async def test_reinstatement_ends_the_older_session_first(connect: Connect, scsi: FakeScsiPort) -> None:
    older, newer, other = await connect(), await connect(), await connect()
    first = await older.login()
    assert (await other.login(isid=bytes(6))).status == LoginStatus.SUCCESS
    older.send(read_command(1, 1, WAIT))
    second = await newer.login()
    assert second.status == LoginStatus.SUCCESS and second.tsih not in (0, first.tsih)
    assert scsi.log == ["established 1", "established 0", "lost 1", "established 1"]
    assert await older.closed_after_the_rest()
    other.send(read_command(1, 1))
    assert isinstance(await other.receive(), DataInPdu)


async def test_login_that_names_a_session(connect: Connect) -> None:
    one, two, three = await connect(), await connect(), await connect()
    tsih = (await one.login()).tsih
    assert (await two.login(tsih=tsih)).status == LoginStatus.TOO_MANY_CONNECTIONS
    assert (await three.login(tsih=tsih + 1)).status == LoginStatus.SESSION_DOES_NOT_EXIST
    assert await two.closed_after_the_rest() and await three.closed_after_the_rest()


async def test_lost_connection_is_a_lost_nexus(connect: Connect, scsi: FakeScsiPort, portal: IscsiPortal) -> None:
    client = await connect()
    await client.login()
    (serving,) = portal._serving
    client.writer.close()
    async with asyncio.timeout(5):
        await serving.over.wait()
    assert scsi.log == ["established 1", "lost 1"] and len(portal.sessions) == 0


async def test_task_management_response_comes_after_the_aborted_command(connect: Connect, scsi: FakeScsiPort) -> None:
    client = await connect()
    await client.login()
    client.send(read_command(1, 1, WAIT), read_command(4, 2))
    assert isinstance(await client.receive(), DataInPdu)  # the second passes the first, which runs
    client.send(TaskManagementRequestPdu(function=5, itt=2, cmd_sn=3))
    response = await client.receive()  # and no SCSI Response before it
    assert isinstance(response, TaskManagementResponsePdu) and response.response == 0
    assert response.max_cmd_sn - response.exp_cmd_sn == Limits().queue_depth - 1
    client.send(TaskManagementRequestPdu(function=7, itt=3, cmd_sn=3))
    assert isinstance(await client.receive(), TaskManagementResponsePdu)
    assert await client.closed_after_the_rest()
    assert scsi.log[1:3] == ["LOGICAL_UNIT_RESET", "TARGET_COLD_RESET"]


async def test_nothing_is_received_after_a_cold_reset(
    connect: Connect, scsi: FakeScsiPort, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that an initiator sends as soon as it has the response is for its next session."""
    client = await connect()
    await client.login()
    at_once = b"".join(bytes(part) for part in encode_pdu(NopOutPdu(immediate=True, itt=2, cmd_sn=2)))

    async def nothing_to_abort() -> None:
        pass

    def receive_into(_: Serving, buffer: memoryview) -> int:
        buffer[: len(at_once)] = at_once
        return len(at_once)

    monkeypatch.setattr(scsi, "_abort", nothing_to_abort)
    monkeypatch.setattr(Serving, "_receive_into", receive_into)
    client.send(TaskManagementRequestPdu(function=7, itt=1, cmd_sn=1))
    assert isinstance(await client.receive(), TaskManagementResponsePdu)
    assert await client.closed()


async def test_reset_by_another_nexus_ends_writes_that_wait_for_data(connect: Connect) -> None:
    writer, resetter = await connect(), await connect()
    await writer.login()
    await resetter.login(isid=bytes(6))
    write = ScsiCommandPdu(itt=1, write=True, expected_data_transfer_length=4096, cmd_sn=1)
    writer.send(write)
    assert (await writer.receive()).opcode == 0x31
    resetter.send(TaskManagementRequestPdu(function=6, itt=3, cmd_sn=1))
    assert isinstance(await resetter.receive(), TaskManagementResponsePdu)
    writer.send(NopOutPdu(immediate=True, itt=9, cmd_sn=2))
    nop = await writer.receive()
    assert nop.opcode == 0x20 and getattr(nop, "max_cmd_sn", 0) == 1 + Limits().queue_depth


async def test_discovery_reports_the_address_that_was_reached(connect: Connect, portal: IscsiPortal) -> None:
    client = await connect()
    pairs = {"InitiatorName": INITIATOR, "SessionType": "Discovery"}
    assert (await client.login(data=format_text(pairs))).tsih != 0
    client.send(TextRequestPdu(itt=2, cmd_sn=1, data=format_text({"SendTargets": "All"})))
    response = await client.receive()
    assert isinstance(response, TextResponsePdu)
    assert parse_pairs(response.data) == [("TargetName", IQN), ("TargetAddress", f"{portal.addresses[0]},1")]


async def test_a_bug_ends_one_session_without_a_traceback(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pairvol.iscsi")
    one, two = await connect(), await connect()
    await one.login()
    await two.login(isid=bytes(6))
    one.send(read_command(1, 1, FAIL))
    assert await one.closed_after_the_rest()
    two.send(read_command(1, 1))
    assert isinstance(await two.receive(), DataInPdu)
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert "internal error" in record.getMessage() and record.exc_info is None


async def test_garbage_is_one_log_line(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    client = await connect()
    client.writer.write(b"GET / HTTP/1.1\r\nHost: example\r\nAccept: */*\r\n\r\n" + bytes(48))
    assert await client.closed_after_the_rest()
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "connection dropped" in record.getMessage()


async def test_silent_connections_end_at_the_login_deadline(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    client = await connect()
    assert await client.closed_after_the_rest()
    assert "login not finished within 0.2 s" in caplog.text


async def test_connection_limit(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    clients = [await connect() for _ in range(4)]
    for index, client in enumerate(clients):
        await client.login(isid=bytes((0, 0, 0, 0, 0, index)))
    fifth = await connect()
    assert (await fifth.login(isid=bytes(5) + b"\xff")).status == LoginStatus.OUT_OF_RESOURCES
    assert await fifth.closed_after_the_rest() and "4 are the limit" in caplog.text
    clients[0].send(read_command(1, 1))
    assert isinstance(await clients[0].receive(), DataInPdu)


async def test_slow_reader_holds_commands_back_not_memory(connect: Connect, portal: IscsiPortal) -> None:
    portal.limits = replace(portal.limits, data_in=1 << 20)
    client = await connect()
    await client.login()
    count = 120
    size = 65536
    client.send(*(replace(read_command(itt, 1 + itt), expected_data_transfer_length=size) for itt in range(count)))
    received = 0
    while received < count * size:
        pdu = await client.receive()
        assert isinstance(pdu, DataInPdu | ScsiResponsePdu)
        received += len(pdu.data)
    assert received == count * size


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000", "192.0.2.1:0"])
async def test_bad_portal_address(address: str, portal: IscsiPortal) -> None:
    with pytest.raises(UserError, match="portal"):
        await portal.start(address)


async def test_port_in_use(portal: IscsiPortal) -> None:
    address = portal.addresses[0]
    with pytest.raises(UserError, match=f"^portal {address}: cannot listen: Address already in use$"):
        await portal.start(address)


async def test_ipv6(portal: IscsiPortal) -> None:
    try:
        bound = await portal.start("[::1]:0")
    except UserError:
        pytest.skip("no IPv6 loopback")
    assert bound.startswith("[::1]:")


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
async def test_only_a_portal_that_stays_inside_this_machine_sends_without_the_systems_choice(host: str) -> None:
    portal = IscsiPortal(TARGET, FakeScsiPort())
    _, _, port = (await portal.start(f"{host}:0")).rpartition(":")
    client = await PortalClient.connect(f"127.0.0.1:{port}")
    await client.logged_in()
    (serving,) = portal._serving
    chosen = serving._transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
    with socket.socket() as new:
        systems = new.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
    assert chosen.rstrip(b"\0") == (UNPACED_CONGESTION_CONTROL if host == "127.0.0.1" else systems.rstrip(b"\0"))
    client.writer.close()
    await portal.stop()
