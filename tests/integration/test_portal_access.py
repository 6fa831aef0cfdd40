"""The portal and access: masks reach the SCSI side, resets stop at them, new rules end sessions that they refuse."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from storage_model.secret import Secret
from storage_model.spec.iscsi_pdu import (
    AsyncMessagePdu,
    DataOutPdu,
    LoginResponsePdu,
    R2TPdu,
    ScsiCommandPdu,
    ScsiResponsePdu,
    TaskManagementRequestPdu,
    TaskManagementResponsePdu,
    lun_to_bytes,
)
from storage_model.spec.scsi_task import TaskFunctionResponse
from target.iscsi.access import AccessControl, AccessRule
from target.iscsi.chap import ChapAccount
from target.iscsi.portal import IscsiPortal
from target.scsi.device_server import DeviceServer
from target.scsi.logical_unit import LogicalUnit, UnitIdentity
from target.scsi.lun_mask import LunMask
from target.volumes.memory_volume import MemoryVolume
from tests.chap_login import counting_bytes
from tests.integration.raw_initiator import RawInitiator
from tests.iscsi_driver import IQN, TARGET

MASKED, ALL = "iqn.2026-11.org.example:masked", "iqn.2026-11.org.example:all"
RULES = (AccessRule(MASKED, mask=LunMask(frozenset({1}))), AccessRule(ALL))
WRITE = ScsiCommandPdu(
    write=True,
    lun=lun_to_bytes(0),
    cdb=b"\x2a\0\0\0\0\0\0\0\x08\0" + bytes(6),
    expected_data_transfer_length=4096,
)
"""Eight blocks, none of them immediate: the target asks for them."""
LogIn = Callable[[str], Awaitable[RawInitiator]]


@pytest.fixture
def access() -> AccessControl:
    return AccessControl(RULES, counting_bytes())


@pytest.fixture
async def portal(access: AccessControl) -> AsyncIterator[IscsiPortal]:
    units = {lun: LogicalUnit(lun, MemoryVolume(1 << 20, 512), UnitIdentity(f"30095-{lun}")) for lun in (0, 1)}
    portal = IscsiPortal(TARGET, DeviceServer(units), access=access)
    await portal.start("127.0.0.1:0")
    yield portal
    async with asyncio.timeout(5):
        await portal.stop()


@pytest.fixture
async def log_in(portal: IscsiPortal) -> AsyncIterator[LogIn]:
    host, _, port = portal.addresses[0].rpartition(":")
    async with AsyncExitStack() as stack:

        async def log_in(name: str) -> RawInitiator:
            initiator = await stack.enter_async_context(RawInitiator.connection((host, int(port))))
            initiator.send(initiator.login_request({"InitiatorName": name, "TargetName": IQN}))
            assert (await initiator.expect(LoginResponsePdu)).status == 0
            for lun in (0, 1):
                await status(initiator, lun)  # told of the power on
            return initiator

        yield log_in


async def status(initiator: RawInitiator, lun: int) -> int:
    """Of TEST UNIT READY."""
    initiator.command(ScsiCommandPdu(lun=lun_to_bytes(lun), cdb=bytes(16)))
    return (await initiator.expect(ScsiResponsePdu)).status


async def manage(initiator: RawInitiator, function: int, lun: int = 0) -> TaskFunctionResponse:
    request = TaskManagementRequestPdu(function=function, immediate=True, lun=lun_to_bytes(lun), itt=0x7000)
    initiator.send(replace(request, cmd_sn=initiator.cmd_sn))
    return TaskFunctionResponse((await initiator.expect(TaskManagementResponsePdu)).response)


async def test_the_mask_of_the_rule_holds_for_the_session(log_in: LogIn) -> None:
    masked, other = await log_in(MASKED), await log_in(ALL)
    assert [await status(masked, lun) for lun in (0, 1)] == [2, 0]
    assert [await status(other, lun) for lun in (0, 1)] == [0, 0]


@pytest.mark.parametrize(
    ("function", "response"),
    [
        (4, TaskFunctionResponse.LUN_DOES_NOT_EXIST),
        (5, TaskFunctionResponse.LUN_DOES_NOT_EXIST),
        (6, TaskFunctionResponse.COMPLETE),
        (7, TaskFunctionResponse.AUTHORIZATION_FAILED),
    ],
    ids=["CLEAR TASK SET", "LOGICAL UNIT RESET", "TARGET WARM RESET", "TARGET COLD RESET"],
)
async def test_a_write_that_waits_for_data_outlives_a_reset_by_who_cannot_see_its_unit(
    function: int, response: TaskFunctionResponse, log_in: LogIn
) -> None:
    masked, other = await log_in(MASKED), await log_in(ALL)
    itt = other.command(WRITE)
    r2t = await other.expect(R2TPdu)
    assert await manage(masked, function) is response
    other.send(_data_out(r2t))
    written = await other.expect(ScsiResponsePdu)
    assert (written.itt, written.status) == (itt, 0)
    assert await status(masked, 1) in (0, 2)  # its session goes on; a reset of its own unit it is told of


async def test_a_write_that_waits_for_data_ends_by_a_reset_of_who_sees_its_unit(log_in: LogIn) -> None:
    """The test above can fail."""
    resetter, other = await log_in(ALL), await log_in(MASKED)
    write = replace(WRITE, lun=lun_to_bytes(1))
    other.command(write)
    r2t = await other.expect(R2TPdu)
    assert await manage(resetter, 6) is TaskFunctionResponse.COMPLETE
    other.send(_data_out(r2t))
    assert await status(other, 1) == 2  # the reset's unit attention, and no answer to the write before it


def _data_out(r2t: R2TPdu) -> DataOutPdu:
    return DataOutPdu(final=True, lun=r2t.lun, itt=r2t.itt, ttt=r2t.ttt, data=bytes(r2t.desired_data_transfer_length))


# --------------------------------------------------------------------------------------------------------- other rules


async def dropped(initiator: RawInitiator) -> bool:
    """It was told so, and the connection is closed."""
    pdus = await initiator.hung_up()
    return all(isinstance(pdu, AsyncMessagePdu) for pdu in pdus)


ACCOUNT = ChapAccount("joe", Secret(b"correct horse battery"))


@pytest.mark.parametrize(
    "rules",
    [
        (AccessRule(ALL),),
        (AccessRule(MASKED, mask=LunMask(frozenset({0, 1}))), AccessRule(ALL)),
        (AccessRule(MASKED, mask=LunMask(frozenset({1}), read_only=True)), AccessRule(ALL)),
        (AccessRule(MASKED, mask=LunMask(frozenset({1})), chap=ACCOUNT), AccessRule(ALL)),
        (AccessRule("*:m*"), AccessRule(ALL)),
    ],
    ids=["no rule any more", "other units", "read-only", "CHAP", "another rule comes first"],
)
async def test_a_session_whose_access_has_changed_ends(
    rules: tuple[AccessRule, ...], log_in: LogIn, portal: IscsiPortal, access: AccessControl
) -> None:
    masked, other = await log_in(MASKED), await log_in(ALL)
    access.rules = rules
    portal.check_access()
    assert await dropped(masked)
    assert await status(other, 0) == 0


@pytest.mark.parametrize(
    "rules",
    [
        RULES,
        (AccessRule("iqn.2026-11.org.example:new"), *RULES),
        (AccessRule("*:masked", mask=LunMask(frozenset({1}))), AccessRule("*")),
    ],
    ids=["the same", "one more", "written in another way"],
)
async def test_a_session_whose_access_is_the_same_goes_on(
    rules: tuple[AccessRule, ...], log_in: LogIn, portal: IscsiPortal, access: AccessControl
) -> None:
    masked, other = await log_in(MASKED), await log_in(ALL)
    access.rules = rules
    portal.check_access()
    assert [await status(masked, 1), await status(other, 0)] == [0, 0]


async def test_a_login_under_way_does_not_slip_through(portal: IscsiPortal, access: AccessControl) -> None:
    """It was begun under a rule that is gone."""
    host, _, port = portal.addresses[0].rpartition(":")
    async with RawInitiator.connection((host, int(port))) as initiator:
        initiator.send(initiator.login_request({"InitiatorName": ALL, "TargetName": IQN}, transit=False, nsg=0))
        assert (await initiator.expect(LoginResponsePdu)).status == 0
        access.rules = RULES[:1]
        portal.check_access()
        assert await dropped(initiator)


async def test_new_logins_are_under_the_new_rules(log_in: LogIn, access: AccessControl) -> None:
    access.rules = (AccessRule(MASKED),)
    masked = await log_in(MASKED)
    assert [await status(masked, lun) for lun in (0, 1)] == [0, 0]
