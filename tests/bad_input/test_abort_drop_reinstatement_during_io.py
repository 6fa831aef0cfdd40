"""Sessions that end badly while commands run: nothing is left, nothing is written late, nothing acknowledged is lost.

The medium's writes run in threads and wait there at a gate. So "while it runs" is a state that a test holds, not luck.
"""

import asyncio
import random
from functools import partial

import pytest

from storage_model.spec.iscsi_pdu import (
    RESERVED_TAG,
    DataInPdu,
    LoginResponsePdu,
    LogoutResponsePdu,
    NopInPdu,
    NopOutPdu,
    ScsiCommandPdu,
    ScsiResponsePdu,
    TaskManagementRequestPdu,
    TaskManagementResponsePdu,
    sense_from_segment,
)
from storage_model.spec.scsi_task import ScsiStatus, TaskFunction
from target.iscsi import serving
from target.iscsi.connection import Phase
from target.iscsi.events import Limits
from tests.bad_input.gated_array import (
    LUN_0,
    RESERVE_6,
    TEST_UNIT_READY,
    GatedArray,
    begin_login,
    block,
    gated_array,
    log_in,
    not_answered_yet,
    read_command,
    reset,
    write_command,
)
from tests.bad_input.sessions_mid_io import (
    ENDINGS,
    IN_THREADS,
    STATES,
    compare_and_write_behind_a_write,
    large_write_in_a_thread,
    logout,
    ordered_behind_a_write,
    write_in_a_thread,
)
from tests.conformance.scsi.bench import ABORTING_FUNCTIONS
from tests.eventually import eventually
from tests.integration.raw_initiator import RawInitiator

ABORT_TASK = TaskFunction.ABORT_TASK

# What is not read cannot end anything; what is in the middle of a PDU becomes its second half.
DEAF = {
    ("mid Data-In, unread", "garbage"),
    ("mid Data-In, unread", "logout"),
    ("half a PDU", "logout"),
    ("half a PDU", "garbage"),
}
CASES = [(state, ending) for state in STATES for ending in ENDINGS if (state, ending) not in DEAF]


@pytest.mark.parametrize(("state", "ending"), CASES)
async def test_nothing_is_left(state: str, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Task sets, block ranges, sessions, nexuses, buffers, asyncio tasks, file descriptors: as before it came."""
    monkeypatch.setattr(serving, "LINGER_TIMEOUT", 0.2)
    initial_r2t = "No" if "unsolicited" in state else "Yes"
    # An array that does not read notices by its pings only that nobody is there any more.
    limits = Limits(nop_interval=0.3, nop_timeout=0.3) if state == "mid Data-In, unread" else Limits()
    async with gated_array(limits) as array:
        assert array.holds() == {}
        initiator = await array.session(InitialR2T=initial_r2t, FirstBurstLength="65536")
        await STATES[state](array, initiator)
        assert array.holds() != {}
        written = len(array.volume.written)
        await ENDINGS[ending](array, initiator)
        await eventually(lambda: array.has_dropped(initiator), what="the end of the session, or its tasks aborted")
        if state in IN_THREADS and ending != "portal stops":
            assert len(array.portal.sessions) >= 1  # while the thread has not come back, the nexus is not gone
        array.volume.open_gate()
        # Our side of the connection is still there, and nobody reads.
        await eventually(lambda: array.serving(initiator) is None, what="the end of the connection")
        await array.settled()
        # Of what had not begun nothing is written: at most the one piece that the thread had in hand.
        assert len(array.volume.written) - written <= (1 if state in IN_THREADS else 0)


# --------------------------------------------------------------------------------- nothing is written after the answer

OF_ALL_NEXUSES = ABORTING_FUNCTIONS[2:]
RUNNING = {
    "write in a thread": (write_in_a_thread, 1),
    "large write in a thread": (large_write_in_a_thread, 1),
    "ordered behind a write": (ordered_behind_a_write, 3),
    "compare and write behind a write": (compare_and_write_behind_a_write, 3),
}


def manage(initiator: RawInitiator, function: TaskFunction, referenced: int = RESERVED_TAG) -> None:
    initiator.send(
        TaskManagementRequestPdu(
            True, function, LUN_0, 0x7FFF0003, referenced, cmd_sn=initiator.cmd_sn, ref_cmd_sn=initiator.cmd_sn - 1
        )
    )


@pytest.mark.parametrize(
    ("function", "requester"),
    [(function, "the same session") for function in ABORTING_FUNCTIONS]
    + [(function, "another nexus") for function in OF_ALL_NEXUSES],
)
@pytest.mark.parametrize("state", RUNNING)
async def test_task_management_answers_after_the_last_write(state: str, function: TaskFunction, requester: str) -> None:
    """SAM-5 7: the response says that the tasks have ended, so that none of them writes after it."""
    begin, commands = RUNNING[state]
    async with gated_array() as array:
        initiator = await array.session()
        await begin(array, initiator)
        manager = initiator
        if requester == "another nexus":
            manager = await array.initiator()
            await log_in(manager, 2)
        manage(manager, function, initiator.itt - commands + 1)  # of ABORT TASK: the write that is in the thread
        assert await not_answered_yet(manager) == []
        array.volume.open_gate()
        response = await _answer_to_management(manager)
        written = list(array.volume.written)
        assert response.response == 0
        if function is ABORT_TASK:
            assert written[0] == (0, 1)
            await eventually(lambda: not len(array.unit.tasks))  # the others go on
            assert (0, 1) not in array.volume.written[1:]
        else:
            assert len(written) == 1  # what the thread had in hand, and nothing of what was to follow
            assert not len(array.unit.tasks) and not array.volume.waiting
            await array.settled()
            assert array.volume.written == written


async def _answer_to_management(initiator: RawInitiator) -> TaskManagementResponsePdu:
    """No aborted command is answered before it, nor ever (RFC 7143 §4.2.3.3); those of ABORT TASK's siblings are."""
    while True:
        pdu = await initiator.receive()
        if isinstance(pdu, TaskManagementResponsePdu):
            return pdu
        assert isinstance(pdu, ScsiResponsePdu) and pdu.itt != initiator.itt - 2, pdu


async def test_aborted_commands_are_not_answered_and_their_room_is_given_back() -> None:
    """Neither before nor after the response; and the command window is as wide as before."""
    async with gated_array() as array:
        initiator = await array.session()
        wide = await window(initiator)
        await ordered_behind_a_write(array, initiator)
        manage(initiator, TaskFunction.ABORT_TASK_SET)
        assert await not_answered_yet(initiator) == []
        array.volume.open_gate()
        assert (await initiator.expect(TaskManagementResponsePdu)).response == 0
        assert await not_answered_yet(initiator) == []
        assert await window(initiator) == wide
        initiator.command(write_command(0, block(9)))
        assert (await initiator.expect(ScsiResponsePdu)).status == ScsiStatus.GOOD
        assert await array.read_block(0) == block(9)


async def window(initiator: RawInitiator) -> int:
    initiator.send(NopOutPdu(immediate=True, itt=0x7FFF0009, cmd_sn=initiator.cmd_sn))
    pdu = await initiator.expect(NopInPdu)
    return pdu.max_cmd_sn - pdu.exp_cmd_sn


async def test_a_clear_task_set_tells_the_other_nexus() -> None:
    """TAS is 0: 2Fh/00h is all that it hears of its write (SAM-5 5.6)."""
    async with gated_array() as array:
        initiator, other = await array.session(1), await array.session(2)
        await write_in_a_thread(array, initiator)
        manage(other, TaskFunction.CLEAR_TASK_SET)
        await not_answered_yet(other)
        array.volume.open_gate()
        assert (await other.expect(TaskManagementResponsePdu)).response == 0
        initiator.command(write_command(0, block(2)))
        response = await initiator.expect(ScsiResponsePdu)
        assert (response.itt, response.status) == (initiator.itt, ScsiStatus.CHECK_CONDITION)
        assert sense_from_segment(response.data)[12:14] == b"\x2f\0"


# ------------------------------------------------------------------------------------------------------- reinstatement


@pytest.mark.parametrize("state", RUNNING)
@pytest.mark.parametrize("ending", ["reinstatement", "drop and login", "RST and login", "logout and login"])
async def test_a_login_is_answered_after_the_last_write_of_the_session_before(state: str, ending: str) -> None:
    """§6.3.5: what the initiator reads after its login is what stays."""
    async with gated_array() as array:
        initiator = await array.session()
        await RUNNING[state][0](array, initiator)
        if ending != "reinstatement":
            await ENDINGS[{"drop": "FIN", "RST": "RST", "logout": "logout"}[ending.split()[0]]](array, initiator)
        newcomer = await array.initiator()
        login = asyncio.create_task(log_in(newcomer))
        # The login has come (its connection waits for the session's end), and the older session is on its way out.
        await eventually(lambda: array.has_dropped(initiator) and array.phase(newcomer) is Phase.ESTABLISHING)
        assert not login.done() and len(array.unit.tasks) >= 1
        array.volume.open_gate()
        await login
        written = list(array.volume.written)
        assert len(written) == 1 and not len(array.unit.tasks) and not array.volume.waiting
        # The new session's own write comes after everything of the older one, and stays.
        newcomer.command(TEST_UNIT_READY)
        newcomer.command(write_command(0, block(9)))
        await newcomer.expect(ScsiResponsePdu)
        assert (await newcomer.expect(ScsiResponsePdu)).status == ScsiStatus.GOOD
        assert await array.read_block(0) == block(9)
        await array.settled()
        assert array.volume.written == [*written, (0, 9)]


async def test_a_logout_is_answered_after_the_last_write() -> None:
    async with gated_array() as array:
        initiator = await array.session()
        await ordered_behind_a_write(array, initiator)
        await logout(array, initiator)
        await eventually(lambda: array.has_dropped(initiator))
        array.volume.open_gate()
        assert (await initiator.expect(LogoutResponsePdu)).response == 0
        assert len(array.volume.written) == 1 and not len(array.unit.tasks)
        assert await initiator.hung_up() == []
        await array.settled()


async def test_a_reservation_outlives_the_writes_under_it() -> None:
    """Another initiator must not get it while a write of its last holder can still reach the medium."""
    async with gated_array() as array:
        initiator, other = await array.session(1), await array.session(2)
        initiator.command(RESERVE_6)
        assert (await initiator.expect(ScsiResponsePdu)).status == ScsiStatus.GOOD
        await write_in_a_thread(array, initiator)
        reset(initiator)
        await eventually(lambda: array.has_dropped(initiator))
        other.command(RESERVE_6)
        assert (await other.expect(ScsiResponsePdu)).status == ScsiStatus.RESERVATION_CONFLICT
        array.volume.open_gate()
        await eventually(lambda: array.serving(initiator) is None)
        other.command(RESERVE_6)
        assert (await other.expect(ScsiResponsePdu)).status == ScsiStatus.GOOD
        assert len(array.volume.written) == 1


async def test_of_many_logins_for_one_session_the_last_stays() -> None:
    """Each ends the one before it, also those that wait; the older ones are hung up on."""
    async with gated_array() as array:
        initiator = await array.session()
        await write_in_a_thread(array, initiator)
        newcomers = [await array.initiator() for _ in range(10)]
        for newcomer in newcomers:
            begin_login(newcomer)
        await eventually(lambda: all(array.phase(newcomer) is Phase.ESTABLISHING for newcomer in newcomers))
        array.volume.open_gate()
        await eventually(lambda: len(array.portal._serving) == 1, what="one connection left")
        (last,) = [newcomer for newcomer in newcomers if array.serving(newcomer) is not None]
        response = await last.expect(LoginResponsePdu)
        assert response.status == 0 and response.tsih
        last.command(TEST_UNIT_READY)
        assert await last.expect(ScsiResponsePdu)
        assert len(array.portal.sessions) == 1 and len(array.unit.unit_attentions.known) == 1
        await array.settled()


async def test_others_are_served_while_a_session_ends_slowly() -> None:
    async with gated_array() as array:
        initiator, other = await array.session(1), await array.session(2)
        await large_write_in_a_thread(array, initiator)
        reset(initiator)
        await eventually(lambda: array.has_dropped(initiator))
        other.command(read_command(0, 8))
        assert isinstance(await other.receive(), DataInPdu)


# -------------------------------------------------------------------------------- nothing that was acknowledged is lost


@pytest.mark.parametrize("seed", range(4))
async def test_no_acknowledged_write_is_lost(seed: int) -> None:
    """Sessions end in every way at any moment of a stream of writes; each new one finds all that was acknowledged.

    A block holds its version. Between sessions it may be ahead of what was acknowledged, by what was under way; once
    the next session is there, it stays as it is.
    """
    chance = random.Random(seed)
    acknowledged, sent = [0] * 8, [0] * 8
    async with gated_array() as array:
        initiator = await array.session()
        for _ in range(20):
            found = [(await array.read_block(lba))[0] for lba in range(8)]
            for lba, version in enumerate(found):
                assert acknowledged[lba] <= version <= sent[lba]
            acknowledged, sent = list(found), list(found)
            await _write_for_a_while(array, initiator, chance, acknowledged, sent)
            await ENDINGS[chance.choice(["FIN", "RST", "half-close", "garbage", "logout", "reinstatement"])](
                array, initiator
            )
            login = asyncio.create_task(array.session())
            await eventually(partial(array.has_dropped, initiator))
            array.volume.open_gate()
            initiator = await login
        assert sum(sent) > 100
        await array.settled()


async def _write_for_a_while(
    array: GatedArray, initiator: RawInitiator, chance: random.Random, acknowledged: list[int], sent: list[int]
) -> None:
    """Some writes, one per block at a time; ends with some of them under way."""
    pending: dict[int, int] = {}
    for _ in range(chance.randrange(1, 40)):
        lba = chance.randrange(8)
        if lba in pending.values() or (pending and chance.random() < 0.5):
            array.volume.open_gate()
            response = await initiator.expect(ScsiResponsePdu)
            assert response.status == ScsiStatus.GOOD
            acknowledged[pending[response.itt]] = sent[pending[response.itt]]
            del pending[response.itt]
            continue
        if chance.random() < 0.3:
            array.volume.shut_gate()
        sent[lba] += 1
        pending[initiator.command(write_command(lba, block(sent[lba])))] = lba


# ------------------------------------------------------------------------------------------ what changes a whole medium

ERASING = {
    "block erase": ScsiCommandPdu(lun=LUN_0, cdb=b"\x48\x82" + bytes(14)),
    "block erase, waited for": ScsiCommandPdu(lun=LUN_0, cdb=b"\x48\x02" + bytes(14)),
    "format": ScsiCommandPdu(lun=LUN_0, cdb=b"\x04" + bytes(15)),
}


@pytest.mark.parametrize("erasing", ERASING)
@pytest.mark.parametrize("ending", ["abort task set", "LUN reset", "RST", "logout"])
async def test_an_erasure_that_was_aborted_before_it_began_does_not_begin(erasing: str, ending: str) -> None:
    """It waits for an older write. Once begun, nothing stops it (SBC-3 4.11.2); but here it is not."""
    async with gated_array() as array:
        initiator = await array.session()
        initiator.command(write_command(8, block(7)))
        assert (await initiator.expect(ScsiResponsePdu)).status == ScsiStatus.GOOD
        await write_in_a_thread(array, initiator)
        initiator.command(ERASING[erasing])
        await eventually(lambda: len(array.unit.tasks) == 2)
        match ending:
            case "abort task set":
                manage(initiator, TaskFunction.ABORT_TASK_SET)
            case "LUN reset":
                manage(initiator, TaskFunction.LOGICAL_UNIT_RESET)
            case way:
                await ENDINGS[way](array, initiator)
        await eventually(lambda: all(task.aborted for task in array.unit.tasks.all()))
        array.volume.open_gate()
        await eventually(lambda: not len(array.unit.tasks))
        assert array.unit.operation is None
        await array.settled()
        assert await array.read_block(8) == block(7)
