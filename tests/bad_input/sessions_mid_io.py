"""The states in which a session can be when it ends, and the ways in which it can end."""

import socket
from collections.abc import Awaitable, Callable

from storage_model.spec.iscsi_pdu import (
    RESERVED_TAG,
    DataOutPdu,
    LogoutRequestPdu,
    R2TPdu,
    ScsiCommandPdu,
    TaskManagementRequestPdu,
    TextRequestPdu,
    TextResponsePdu,
)
from storage_model.spec.iscsi_stream import encode_pdu
from storage_model.spec.scsi_task import TaskFunction
from tests.bad_input.gated_array import (
    BLOCK,
    LUN_0,
    GatedArray,
    begin_login,
    block,
    log_in,
    not_answered_yet,
    read_command,
    reset,
    write_command,
)
from tests.eventually import eventually
from tests.integration.raw_initiator import RawInitiator

ORDERED = 2  # task attribute (RFC 7143 §11.3.1)

# ---------------------------------------------------------------------------------------------------- states to end in


async def _mid_r2t(array: GatedArray, initiator: RawInitiator) -> None:
    """Half of what an R2T asked for."""
    itt = initiator.command(write_command(0, blocks=1024))
    r2t = await initiator.expect(R2TPdu)
    initiator.send(DataOutPdu(final=False, lun=LUN_0, itt=itt, ttt=r2t.ttt, data=bytes(65536)))
    await not_answered_yet(initiator)


async def _mid_unsolicited(array: GatedArray, initiator: RawInitiator) -> None:
    """Immediate data, one unsolicited Data-Out, and the Final bit owed."""
    itt = initiator.command(write_command(0, block(1), blocks=1024, final=False))
    initiator.send(DataOutPdu(final=False, lun=LUN_0, itt=itt, ttt=RESERVED_TAG, buffer_offset=BLOCK, data=block(1)))
    await not_answered_yet(initiator)


async def _mid_data_in(array: GatedArray, initiator: RawInitiator) -> None:
    """Reads of 64 MiB, and nobody takes the data: the array has stopped to read as well."""
    initiator.pause()
    for _ in range(32):
        initiator.command(read_command(0, 4096))
    await eventually(lambda: not array.transport(initiator).is_reading(), what="a full socket")


async def _little_data_in(array: GatedArray, initiator: RawInitiator) -> None:
    """Nobody takes the data, but it is so little that the array goes on to read."""
    initiator.pause()
    initiator._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    array.transport(initiator).get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    initiator.command(read_command(0, 6144))
    await eventually(lambda: array.transport(initiator).get_write_buffer_size() > 0, what="data that does not leave")
    assert array.transport(initiator).is_reading()


async def write_in_a_thread(array: GatedArray, initiator: RawInitiator) -> None:
    array.volume.shut_gate()
    initiator.command(write_command(0, block(1)))
    await eventually(lambda: array.volume.waiting == 1)


async def large_write_in_a_thread(array: GatedArray, initiator: RawInitiator) -> None:
    """More than goes to the volume at once: its second half must never get there."""
    array.volume.shut_gate()
    itt = initiator.command(write_command(0, blocks=12288))
    sent = 0
    while sent < 12288 * BLOCK:
        r2t = await initiator.expect(R2TPdu)
        count = r2t.desired_data_transfer_length
        for start in range(0, count, 65536):
            size = min(65536, count - start)
            initiator.send(
                DataOutPdu(
                    final=start + size == count, lun=LUN_0, itt=itt, ttt=r2t.ttt, data_sn=start // 65536,
                    buffer_offset=r2t.buffer_offset + start, data=b"\1" * size,
                )
            )  # fmt: skip
        sent += count
    await eventually(lambda: array.volume.waiting == 1)


async def ordered_behind_a_write(array: GatedArray, initiator: RawInitiator) -> None:
    await write_in_a_thread(array, initiator)
    initiator.command(write_command(8, block(2)), attribute=ORDERED)
    initiator.command(write_command(16, block(3)))
    await eventually(lambda: len(array.unit.tasks) == 3)


async def compare_and_write_behind_a_write(array: GatedArray, initiator: RawInitiator) -> None:
    """It waits for the range, and a later write waits for it."""
    await write_in_a_thread(array, initiator)
    cdb = b"\x89" + bytes(12) + b"\1\0\0"
    data = block(0) + block(2)
    initiator.command(ScsiCommandPdu(write=True, lun=LUN_0, cdb=cdb, expected_data_transfer_length=1024, data=data))
    initiator.command(write_command(0, block(3)))
    await eventually(lambda: len(array.unit.tasks) == 3)


async def _more_writes_than_memory(array: GatedArray, initiator: RawInitiator) -> None:
    """100 MiB of writes: R2Ts for 64 of them, the others wait for room."""
    for _ in range(100):
        initiator.command(write_command(0, blocks=2048))
    assert sum(isinstance(pdu, R2TPdu) for pdu in await not_answered_yet(initiator)) >= 64


async def _hole_in_the_command_numbers(array: GatedArray, initiator: RawInitiator) -> None:
    initiator.cmd_sn += 1
    for _ in range(100):
        initiator.command(write_command(0, block(1, 16)))
    initiator.cmd_sn -= 101  # the number that is missing; a ping carries it as what comes next
    await not_answered_yet(initiator)


async def _half_a_pdu(array: GatedArray, initiator: RawInitiator) -> None:
    await not_answered_yet(initiator)
    whole = b"".join(bytes(part) for part in encode_pdu(write_command(0, block(1, 64), cmd_sn=initiator.cmd_sn)))
    initiator.send_bytes(whole[: len(whole) // 2])


async def _text_to_be_continued(array: GatedArray, initiator: RawInitiator) -> None:
    initiator.send(TextRequestPdu(final=False, cont=True, itt=77, cmd_sn=initiator.cmd_sn, data=b"X-half"))
    initiator.cmd_sn += 1
    await initiator.expect(TextResponsePdu)


async def _task_management_that_waits(array: GatedArray, initiator: RawInitiator) -> None:
    await write_in_a_thread(array, initiator)
    for itt in range(100, 110):
        initiator.send(TaskManagementRequestPdu(True, TaskFunction.LOGICAL_UNIT_RESET, LUN_0, itt, cmd_sn=99))
    assert await not_answered_yet(initiator) == []


State = Callable[[GatedArray, RawInitiator], Awaitable[None]]
STATES: dict[str, State] = {
    "mid R2T": _mid_r2t,
    "mid unsolicited data": _mid_unsolicited,
    "mid Data-In, unread": _mid_data_in,
    "little Data-In, unread": _little_data_in,
    "write in a thread": write_in_a_thread,
    "large write in a thread": large_write_in_a_thread,
    "ordered behind a write": ordered_behind_a_write,
    "compare and write behind a write": compare_and_write_behind_a_write,
    "more writes than memory": _more_writes_than_memory,
    "hole in the command numbers": _hole_in_the_command_numbers,
    "half a PDU": _half_a_pdu,
    "text to be continued": _text_to_be_continued,
    "task management that waits": _task_management_that_waits,
}
IN_THREADS = [name for name in STATES if "behind" in name or "thread" in name or "waits" in name]

# -------------------------------------------------------------------------------------------------------- ways to end


async def _fin(array: GatedArray, initiator: RawInitiator) -> None:
    initiator._writer.close()


async def _rst(array: GatedArray, initiator: RawInitiator) -> None:
    reset(initiator)


async def _half_close(array: GatedArray, initiator: RawInitiator) -> None:
    """The other half stays open until the array has hung up."""
    initiator._writer.write_eof()


async def _garbage(array: GatedArray, initiator: RawInitiator) -> None:
    initiator.send_bytes(b"\xff" * 4096)


async def logout(array: GatedArray, initiator: RawInitiator) -> None:
    initiator.send(LogoutRequestPdu(immediate=True, itt=0x7FFF0002, cmd_sn=initiator.cmd_sn))


async def _reinstatement(array: GatedArray, initiator: RawInitiator) -> None:
    begin_login(await array.initiator())


async def _reinstatement_given_up(array: GatedArray, initiator: RawInitiator) -> None:
    """Three logins that take the session's place, and then do not wait for it."""
    for _ in range(3):
        newcomer = await array.initiator()
        begin_login(newcomer)
        reset(newcomer)


async def _cold_reset(array: GatedArray, initiator: RawInitiator) -> None:
    other = await array.initiator()
    await log_in(other, 2)
    other.send(TaskManagementRequestPdu(True, TaskFunction.TARGET_COLD_RESET, LUN_0, 99, cmd_sn=other.cmd_sn))


async def _portal_stops(array: GatedArray, initiator: RawInitiator) -> None:
    await array.portal.stop()


ENDINGS: dict[str, State] = {
    "FIN": _fin,
    "RST": _rst,
    "half-close": _half_close,
    "garbage": _garbage,
    "logout": logout,
    "reinstatement": _reinstatement,
    "reinstatement given up": _reinstatement_given_up,
    "cold reset": _cold_reset,
    "portal stops": _portal_stops,
}
