"""Several initiators at once, each doing anything at any time to a medium that stops and goes: at the end all rests.

The cases that a person thinks of are in ``test_abort_drop_reinstatement_during_io``; these are the others.
"""

import asyncio
import random
from collections.abc import Callable

import pytest

from storage_model.spec.iscsi_pdu import (
    NopInPdu,
    NopOutPdu,
    ScsiCommandPdu,
    TaskManagementRequestPdu,
    TaskManagementResponsePdu,
)
from storage_model.spec.scsi_task import TaskFunction
from tests.bad_input.gated_array import (
    LUN_0,
    LUN_1,
    RESERVE_6,
    TEST_UNIT_READY,
    GatedArray,
    begin_login,
    block,
    gated_array,
    log_in,
    read_command,
    reset,
    write_command,
)
from tests.eventually import eventually
from tests.integration.raw_initiator import RawInitiator

INITIATORS = 3
STEPS = 60
FUNCTIONS = [function for function in TaskFunction if function is not TaskFunction.TARGET_COLD_RESET]
Action = Callable[[GatedArray, RawInitiator, random.Random], None]


def _write(array: GatedArray, initiator: RawInitiator, chance: random.Random) -> None:
    initiator.command(write_command(chance.randrange(8), block(1)), attribute=chance.choice((1, 1, 1, 2, 3)))


def _write_without_data(array: GatedArray, initiator: RawInitiator, chance: random.Random) -> None:
    initiator.command(write_command(0, blocks=1024))


def _compare_and_write(array: GatedArray, initiator: RawInitiator, chance: random.Random) -> None:
    cdb = b"\x89" + bytes(8) + bytes((chance.randrange(8),)) + bytes(3) + b"\1\0\0"
    data = block(1) + block(1)
    initiator.command(ScsiCommandPdu(write=True, lun=LUN_0, cdb=cdb, expected_data_transfer_length=1024, data=data))


def _read(array: GatedArray, initiator: RawInitiator, chance: random.Random) -> None:
    initiator.command(read_command(0, chance.choice((1, 2048))))


def _reserve(array: GatedArray, initiator: RawInitiator, chance: random.Random) -> None:
    initiator.command(RESERVE_6, lun=chance.choice((LUN_0, LUN_1)))


def _manage(array: GatedArray, initiator: RawInitiator, chance: random.Random) -> None:
    back = chance.randrange(1, 6)
    initiator.send(
        TaskManagementRequestPdu(
            True, chance.choice(FUNCTIONS), LUN_0, chance.getrandbits(30), initiator.itt - back + 1 & 0xFFFFFFFF,
            cmd_sn=initiator.cmd_sn, ref_cmd_sn=initiator.cmd_sn - back & 0xFFFFFFFF,
        )
    )  # fmt: skip


def _stop_or_go(array: GatedArray, initiator: RawInitiator, chance: random.Random) -> None:
    if chance.random() < 0.5:
        array.volume.shut_gate()
    else:
        array.volume.open_gate()


ACTIONS: list[tuple[Action, int]] = [
    (_write, 6),
    (_write_without_data, 2),
    (_compare_and_write, 3),
    (_read, 2),
    (_reserve, 1),
    (_manage, 3),
    (_stop_or_go, 3),
]


@pytest.mark.parametrize("seed", range(12))
async def test_all_is_at_rest_at_the_end(seed: int) -> None:
    chance = random.Random(seed)
    actions = [action for action, weight in ACTIONS for _ in range(weight)]
    async with gated_array() as array:
        sessions = [await array.session(isid) for isid in range(INITIATORS)]
        for _ in range(STEPS):
            which = chance.randrange(INITIATORS)
            if chance.random() < 0.12:
                sessions[which] = await _new_session(array, sessions[which], which, chance)
            else:
                chance.choice(actions)(array, sessions[which], chance)
            await asyncio.sleep(0)
        for initiator in sessions:
            _manage(array, initiator, chance)
        array.volume.open_gate()
        for initiator in sessions:
            await _still_served(initiator)
        await eventually(lambda: not array.volume.waiting and not len(array.portal._tasks), what="the medium at rest")
        for unit in array.server.logical_units.values():
            assert not len(unit.tasks) and not unit.tasks._watchers
            assert not unit.write_ranges._shared and not unit.write_ranges.exclusive
        assert len(array.portal.sessions) == len(array.portal._serving) == INITIATORS
        await array.settled()


async def _new_session(array: GatedArray, older: RawInitiator, isid: int, chance: random.Random) -> RawInitiator:
    """In the place of the older one, which goes first or is pushed aside; some give up before they are let in."""
    way = chance.randrange(4)
    if way == 0:
        reset(older)
    elif way == 1:
        older._writer.write_eof()
    for _ in range(chance.choice((0, 0, 2))):
        impatient = await array.initiator()
        begin_login(impatient, isid)
        reset(impatient)
    newcomer = await array.initiator()
    login = asyncio.create_task(log_in(newcomer, isid))
    await eventually(lambda: array.has_dropped(older), what="the end of the session before")
    array.volume.open_gate()
    await login
    newcomer.command(TEST_UNIT_READY)
    return newcomer


async def _still_served(initiator: RawInitiator) -> None:
    """A ping is answered after whatever else comes, and so is a last task management function."""
    initiator.send(
        TaskManagementRequestPdu(True, TaskFunction.ABORT_TASK_SET, LUN_0, 0x7FFF0004, cmd_sn=initiator.cmd_sn)
    )
    managed = pinged = False
    while not (managed and pinged):
        pdu = await initiator.receive()
        if isinstance(pdu, TaskManagementResponsePdu) and pdu.itt == 0x7FFF0004:
            managed = True
            initiator.send(NopOutPdu(True, itt=0x7FFF0001, cmd_sn=initiator.cmd_sn))
        pinged = pinged or (isinstance(pdu, NopInPdu) and pdu.itt == 0x7FFF0001)
