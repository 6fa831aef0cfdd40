"""Sessions of a live array dropped in the middle of writes to a file: nothing leaks, nothing acknowledged is lost.

Threads write the file, and the array is ended and started again: what the initiators were told must be there.
"""

import asyncio
import os
import random
import socket
import struct
from pathlib import Path

from storage_model.spec.iscsi_pdu import (
    RESERVED_TAG,
    DataOutPdu,
    LogoutRequestPdu,
    R2TPdu,
    ScsiCommandPdu,
    ScsiResponsePdu,
    TaskManagementRequestPdu,
    lun_to_bytes,
)
from tests.eventually import eventually
from tests.integration.array_process import ArrayProcess, running_array
from tests.integration.raw_initiator import RawInitiator

BLOCK = 512
BLOCKS_PER_WRITE = 1024  # 512 KiB: an R2T, and a thread for the write
AREAS = 8
ROUNDS = 60
LUN = lun_to_bytes(0)


def write_command(area: int) -> ScsiCommandPdu:
    lba = (area * BLOCKS_PER_WRITE).to_bytes(4, "big")
    cdb = b"\x2a\0" + lba + b"\0" + BLOCKS_PER_WRITE.to_bytes(2, "big") + bytes(7)
    return ScsiCommandPdu(write=True, lun=LUN, cdb=cdb, expected_data_transfer_length=BLOCKS_PER_WRITE * BLOCK)


async def write(initiator: RawInitiator, area: int, version: int, share: float) -> bool:
    """All of it and GOOD: True; else so much of the data as ``share`` says, of 0.99 all of it, and no wait for GOOD."""
    itt = initiator.command(write_command(area))
    total = BLOCKS_PER_WRITE * BLOCK
    sent = 0
    while sent < share * total:
        r2t = await initiator.expect(R2TPdu)
        length, start = r2t.desired_data_transfer_length, 0
        while start < length and sent < share * total:
            size = min(65536, length - start)
            data = version.to_bytes(4, "big") * (size // 4)
            final = start + size == length
            initiator.send(DataOutPdu(final, LUN, itt, r2t.ttt, 0, start // 65536, r2t.buffer_offset + start, data))
            start, sent = start + size, sent + size
    if share < 1:
        return False
    response = await initiator.expect(ScsiResponsePdu)
    return response.status == 0


def drop(chance: random.Random, initiator: RawInitiator) -> None:
    """In one of the ways in which initiators go."""
    writer, way = initiator._writer, chance.randrange(5)
    if way == 0:
        initiator.send(LogoutRequestPdu(True, 0, 99, cmd_sn=initiator.cmd_sn))
    elif way == 1:
        initiator.send(TaskManagementRequestPdu(True, 5, LUN, 99, RESERVED_TAG, cmd_sn=initiator.cmd_sn))
    elif way == 2:
        initiator.send_bytes(b"\xff" * 100)
    elif way == 3:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def sockets_of(array: ArrayProcess) -> int:
    directory = Path(f"/proc/{array.process.pid}/fd")
    return sum(os.readlink(directory / name).startswith("socket:") for name in os.listdir(directory))


async def versions(array: ArrayProcess) -> list[set[int]]:
    """Of each area the versions that its blocks have."""
    session = await array.connect()
    found = []
    for area in range(AREAS):
        lba = (area * BLOCKS_PER_WRITE).to_bytes(4, "big")
        cdb = b"\x28\0" + lba + b"\0" + BLOCKS_PER_WRITE.to_bytes(2, "big") + b"\0"
        outcome = await session.execute(0, cdb, b"", BLOCKS_PER_WRITE * BLOCK)
        assert outcome.status == 0
        found.append({int.from_bytes(outcome.data_in[at : at + 4], "big") for at in range(0, len(outcome.data_in), 4)})
    await session.logout()
    return found


async def test_drops_in_the_middle_of_writes(tmp_path: Path) -> None:
    chance = random.Random(7143)
    words = ("--portal", "127.0.0.1:0", "--volume", f"8MiB,file={tmp_path / 'disk.img'}")
    acknowledged, sent = [0] * AREAS, [0] * AREAS
    async with running_array(tmp_path, *words) as array:
        resting = sockets_of(array)
        for _ in range(ROUNDS):
            initiator = RawInitiator(*await asyncio.open_connection(*array.address))
            await initiator.log_in(array.iqn, InitialR2T="Yes", ImmediateData="No")
            initiator.command(ScsiCommandPdu(lun=LUN))  # the power on
            await initiator.expect(ScsiResponsePdu)
            for _ in range(chance.randrange(3)):
                area = chance.randrange(AREAS)
                sent[area] += 1
                if await write(initiator, area, sent[area], share=1.0):
                    acknowledged[area] = sent[area]
            area = chance.randrange(AREAS)
            sent[area] += 1
            await write(initiator, area, sent[area], chance.choice((0.2, 0.7, 0.99)))
            drop(chance, initiator)
        await eventually(lambda: sockets_of(array) == resting, what="the sockets of the dropped sessions")
        found = await versions(array)
        await array.assert_serving()
    assert sum(acknowledged) > ROUNDS / 2
    before = [set(there) for there in found]
    for area, there in enumerate(found):
        # One whole write: the last that was acknowledged, or a later one whose data had all been sent.
        assert len(there) == 1
        assert acknowledged[area] <= there.pop() <= sent[area]
    async with running_array(tmp_path, *words, name="again") as array:
        assert await versions(array) == before
