"""Connections that never log in (StarWind, Microsoft): few per address, little memory, a short life.

Whoever has the secret always gets in, and a session that is there is never shut out.
"""

import asyncio
import gc
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from storage_model.spec.iscsi_pdu import LoginResponsePdu, ScsiCommandPdu, ScsiResponsePdu
from target.iscsi.access import AccessControl
from target.iscsi.events import Limits
from target.iscsi.portal import IscsiPortal
from target.scsi.device_server import DeviceServer
from target.scsi.logical_unit import LogicalUnit, UnitIdentity
from target.volumes.memory_volume import MemoryVolume
from tests.bad_input.chap_array import CHAP, chap_array
from tests.chap_login import control
from tests.eventually import eventually
from tests.integration.raw_initiator import RUDE, RawInitiator
from tests.iscsi_driver import IQN, TARGET

CAP = 4
LIMITS = Limits(login_connections=6, login_connections_per_address=CAP, login_timeout=30)
NAMES = {"InitiatorName": RUDE, "TargetName": IQN, "SessionType": "Normal"}


def portal_with(limits: Limits, access: AccessControl | None = None) -> IscsiPortal:
    unit = LogicalUnit(0, MemoryVolume(1 << 20, 512), UnitIdentity("30095-0"))
    return IscsiPortal(TARGET, DeviceServer({0: unit}), limits, access)


@pytest.fixture
async def portal() -> AsyncIterator[IscsiPortal]:
    portal = portal_with(LIMITS)
    await portal.start("127.0.0.1:0")
    yield portal
    async with asyncio.timeout(5):
        await portal.stop()


def address(portal: IscsiPortal, host: str = "127.0.0.1") -> tuple[str, int]:
    return host, int(portal.addresses[0].rpartition(":")[2])


class Crowd(AsyncExitStack):
    """Connections that hold still; each in the list has the local address that it came from."""

    def __init__(self, portal: IscsiPortal) -> None:
        super().__init__()
        self._portal = portal
        self.members: list[RawInitiator] = []

    async def join(self, source: str = "127.0.0.1") -> RawInitiator:
        """One more, and the portal has taken notice of it."""
        reader, writer = await asyncio.open_connection(*address(self._portal), local_addr=(source, 0))
        member = RawInitiator(reader, writer)
        self.push_async_callback(member.close)
        self.members.append(member)
        here = (source, member.port)
        await eventually(
            lambda: any((s.host, _port(s)) == here for s in self._portal._serving), within=5, what="accept"
        )
        return member


def _port(serving: object) -> int:
    return int(str(getattr(serving, "_peer", ":0")).rpartition(":")[2])


async def assert_serving(initiator: RawInitiator) -> None:
    for _ in range(2):  # the first may be told of the power on
        initiator.command(ScsiCommandPdu(cdb=bytes(16)))
        response = await initiator.expect(ScsiResponsePdu)
    assert response.status == 0


# ------------------------------------------------------------------------------------------------------------- the caps


async def test_the_oldest_silent_connection_of_an_address_makes_room(portal: IscsiPortal) -> None:
    async with Crowd(portal) as crowd:
        for _ in range(CAP + 2):
            await crowd.join()
        for member in crowd.members[:2]:
            assert await member.hung_up() == []
        assert len(portal._admission) == CAP


async def test_an_address_does_not_take_the_places_of_another(portal: IscsiPortal) -> None:
    async with Crowd(portal) as crowd:
        other = await crowd.join("127.0.0.2")
        for _ in range(2 * CAP):
            await crowd.join()
        await other.log_in(IQN)
        await assert_serving(other)


async def test_at_the_total_cap_the_most_crowded_address_makes_room(portal: IscsiPortal) -> None:
    async with Crowd(portal) as crowd:
        first = [await crowd.join() for _ in range(CAP)]
        others = [await crowd.join(f"127.0.0.{host}") for host in (2, 3, 4)]
        assert await first[0].hung_up() == []
        assert len(portal._admission) == LIMITS.login_connections
        for index, member in enumerate((*others, *first[1:])):
            member.send(member.login_request(NAMES, isid=bytes((0, 0, 0, 0, 0, index))))
            assert (await member.expect(LoginResponsePdu)).status == 0


async def test_a_session_is_never_shut_out(portal: IscsiPortal) -> None:
    """Sessions are counted apart: silent connections take neither their places nor their turn."""
    async with Crowd(portal) as crowd:
        session = await crowd.join()
        await session.log_in(IQN)
        for _ in range(5 * CAP):
            await crowd.join()
            await assert_serving(session)


async def test_a_new_login_gets_in_through_a_crowd(portal: IscsiPortal) -> None:
    async with Crowd(portal) as crowd:
        for number in range(3):
            for _ in range(2 * CAP):
                await crowd.join()
            newcomer = await crowd.join()
            newcomer.send(newcomer.login_request(NAMES, isid=bytes((0, 0, 0, 0, 1, number))))
            assert (await newcomer.expect(LoginResponsePdu)).status == 0


async def test_a_login_under_way_stays_when_silent_ones_can_go(portal: IscsiPortal) -> None:
    async with Crowd(portal) as crowd:
        honest = await crowd.join()
        honest.send(honest.login_request(NAMES, transit=False, nsg=0))
        assert (await honest.expect(LoginResponsePdu)).status == 0
        for _ in range(3 * CAP):
            await crowd.join()
        honest.send(honest.login_request({}))
        assert (await honest.expect(LoginResponsePdu)).transit


async def test_places_come_back_when_connections_go(portal: IscsiPortal) -> None:
    for _ in range(3):
        async with Crowd(portal) as crowd:
            members = [await crowd.join() for _ in range(CAP)]
            assert len(portal._admission) == CAP
            await members[0].log_in(IQN)
            assert len(portal._admission) == CAP - 1
        await eventually(lambda: not portal._serving, within=5, what="everybody's end")
        assert len(portal._admission) == 0 and not portal._logged_in


# ------------------------------------------------------------------------------------------------------ time and memory


async def test_silent_and_slow_connections_end_with_the_login_timeout() -> None:
    """A byte now and then does not buy more time: the deadline is the login's."""
    portal = portal_with(Limits(login_timeout=0.5))
    await portal.start("127.0.0.1:0")
    async with Crowd(portal) as crowd:
        silent, slow = await crowd.join(), await crowd.join()
        request = iter(slow.login_request(NAMES).encode_bhs() + bytes(1 << 16))

        def over_after_another_byte() -> bool:
            slow.send_bytes(bytes((next(request),)))
            return not portal._serving

        await eventually(over_after_another_byte, within=2, what="the end of both")
        assert await silent.hung_up() == await slow.hung_up() == []
    await portal.stop()


async def test_memory_of_silent_connections() -> None:
    """Less than 48 KiB each of ours, whatever it sends of a login that it does not finish."""
    count = 100
    portal = portal_with(Limits(login_connections_per_address=count + 1), control())
    await portal.start("127.0.0.1:0")
    async with Crowd(portal) as crowd:
        await crowd.join()
        gc.collect()
        tracemalloc.start()
        try:
            before = _of_the_target()
            for _ in range(count):
                member = await crowd.join()
                # A header that announces the longest segment, and all of it but the last byte.
                member.send_bytes(member.login_request({}, data=bytes(8192)).encode_bhs() + bytes(8191))
            await eventually(lambda: _waiting_segments(portal) == count, within=10, what="all that was sent")
            after = _of_the_target()
        finally:
            tracemalloc.stop()
    await portal.stop()
    assert (after - before) / count < 48 << 10


def _of_the_target() -> int:
    """Bytes that our own code holds, asyncio's part of a connection included, the test's not."""
    gc.collect()
    here = tracemalloc.Filter(False, __file__)
    return sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces([here]).traces)


def _waiting_segments(portal: IscsiPortal) -> int:
    streams = [serving._connection._stream for serving in portal._serving if serving._connection is not None]
    return sum(stream._segment is not None and stream._filled == 8191 for stream in streams)


async def test_answers_that_nobody_reads(portal: IscsiPortal) -> None:
    """They are as few as the requests that one login may have."""
    async with Crowd(portal) as crowd:
        member = await crowd.join()
        member.pause()
        keys = {f"{'K' * 60}{index:02}": "" for index in range(60)}
        requests = [member.login_request(NAMES | keys, transit=False, nsg=0)]
        requests += [member.login_request({}, transit=False, nsg=0)] * 200
        member.send(*requests)
        (serving,) = portal._serving
        await eventually(lambda: not portal._serving or serving._transport.is_closing(), within=5, what="its end")
        assert serving._transport.get_write_buffer_size() < 64 << 10


# ------------------------------------------------------------------------------------------------------- a live array


@pytest.mark.slow
async def test_a_crowd_at_a_live_array(tmp_path: Path) -> None:
    """Three times the cap, then the same again: sessions go on, and who has the secret logs in."""
    limits = Limits()
    async with chap_array(tmp_path, CHAP) as array, AsyncExitStack() as stack:
        session = await array.log_in("iqn.2026-11.org.example:early")
        await session.execute(0, bytes(6))
        status = Path(f"/proc/{array.process.process.pid}/status")
        resident = _resident(status)
        for _ in range(2):
            for _ in range(3 * limits.login_connections_per_address):
                await stack.enter_async_context(RawInitiator.connection(array.process.address))
            assert (await session.execute(0, bytes(6))).status == 0
            await array.log_in_and_out()
        assert "more connections that have not logged in than we allow" in array.process.log
        assert _resident(status) - resident < 16 << 20
        await session.logout()


def _resident(status: Path) -> int:
    (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1]) << 10
