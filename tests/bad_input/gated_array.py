"""An array in this process whose medium waits at a gate, and a count of everything that it holds for its peers."""

import asyncio
import gc
import os
import socket
import struct
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from storage_model.spec.iscsi_pdu import NopInPdu, NopOutPdu, Pdu, ScsiCommandPdu, ScsiResponsePdu, lun_to_bytes
from storage_model.volume import Buffer
from target.iscsi.connection import Connection, Phase
from target.iscsi.events import Limits, TargetDescription
from target.iscsi.outstanding_commands import Command
from target.iscsi.portal import IscsiPortal
from target.scsi.device_server import DeviceServer
from target.scsi.logical_unit import LogicalUnit, UnitIdentity
from target.volumes.memory_volume import MemoryVolume
from tests.eventually import eventually
from tests.integration.raw_initiator import RawInitiator

IQN = "iqn.2026-11.org.pairvol:gated"
BLOCK = 512
VOLUME_BYTES = 64 << 20
LUN_0, LUN_1 = lun_to_bytes(0), lun_to_bytes(1)
GATE_SECONDS = 20.0


class GatedVolume(MemoryVolume):
    """Writes run in threads, as those of a file do, and each waits there until ``open_gate``.

    ``waiting`` counts writes at the gate; ``written`` lists (offset, first byte) of those that reached the medium.
    """

    def __init__(self, threads: int = 4) -> None:
        super().__init__(VOLUME_BYTES, BLOCK)
        self.written: list[tuple[int, int]] = []
        self.waiting = 0
        self._gate = threading.Event()
        self._gate.set()
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="gated-volume")

    def shut_gate(self) -> None:
        self._gate.clear()

    def open_gate(self) -> None:
        self._gate.set()

    async def write(self, offset_bytes: int, data: Buffer, *, fua: bool = False) -> None:
        self.waiting += 1
        try:
            await asyncio.get_running_loop().run_in_executor(self._executor, self._in_thread, offset_bytes, data)
        finally:
            self.waiting -= 1
        await super().write(offset_bytes, data, fua=fua)

    def _in_thread(self, offset_bytes: int, data: Buffer) -> None:
        """What counts as on the medium is what the thread has done, whether or not anybody waits for it."""
        if not self._gate.wait(GATE_SECONDS):
            raise AssertionError("a test left the gate shut")
        self.written.append((offset_bytes, data[0]))

    async def close(self) -> None:
        self.open_gate()
        await asyncio.to_thread(self._executor.shutdown)
        await super().close()


def write_command(lba: int, data: bytes = b"", blocks: int | None = None, **fields: Any) -> ScsiCommandPdu:
    """WRITE(10), by default with all of its data as immediate data."""
    count = len(data) // BLOCK if blocks is None else blocks
    cdb = b"\x2a\0" + lba.to_bytes(4, "big") + b"\0" + count.to_bytes(2, "big") + bytes(7)
    pdu = ScsiCommandPdu(write=True, lun=LUN_0, cdb=cdb, expected_data_transfer_length=count * BLOCK, data=data)
    return replace(pdu, **fields)


def read_command(lba: int, blocks: int, **fields: Any) -> ScsiCommandPdu:
    cdb = b"\x28\0" + lba.to_bytes(4, "big") + b"\0" + blocks.to_bytes(2, "big") + bytes(7)
    pdu = ScsiCommandPdu(read=True, lun=LUN_0, cdb=cdb, expected_data_transfer_length=blocks * BLOCK)
    return replace(pdu, **fields)


TEST_UNIT_READY = ScsiCommandPdu(lun=LUN_0, cdb=bytes(16))
RESERVE_6 = ScsiCommandPdu(lun=LUN_0, cdb=b"\x16" + bytes(15))


def block(value: int, count: int = 1) -> bytes:
    return bytes((value,)) * (BLOCK * count)


@dataclass
class GatedArray:
    """Two logical units, the first one gated. Initiators made with :meth:`initiator` are closed with the array."""

    portal: IscsiPortal
    server: DeviceServer
    volume: GatedVolume
    sockets_at_start: int
    initiators: list[RawInitiator] = field(default_factory=list)

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.portal.addresses[0].rpartition(":")
        return host, int(port)

    @property
    def unit(self) -> LogicalUnit:
        return self.server.logical_units[0]

    async def initiator(self) -> RawInitiator:
        """A connection that has not logged in."""
        initiator = RawInitiator(*await asyncio.open_connection(*self.address))
        self.initiators.append(initiator)
        return initiator

    async def session(self, isid: int = 1, **pairs: str) -> RawInitiator:
        """A session that has heard of the power on."""
        initiator = await self.initiator()
        await log_in(initiator, isid, **pairs)
        for lun in (LUN_0, LUN_1):
            initiator.command(TEST_UNIT_READY, lun=lun)
            assert (await initiator.expect(ScsiResponsePdu)).status in (0, 2)
        return initiator

    def serving(self, initiator: RawInitiator) -> Any:
        """The array's end of the connection; None when it is over."""
        return next((one for one in self.portal._serving if one._peer.endswith(f":{initiator.port}")), None)

    def transport(self, initiator: RawInitiator) -> asyncio.Transport:
        transport = self.serving(initiator)._transport
        assert isinstance(transport, asyncio.Transport)
        return transport

    def phase(self, initiator: RawInitiator) -> Phase:
        serving = self.serving(initiator)
        return Phase.ENDED if serving is None else serving._connection.phase

    def has_dropped(self, initiator: RawInitiator) -> bool:
        """No command of the initiator's starts any more, or those that run are aborted already."""
        if self.phase(initiator) in (Phase.LOGGING_OUT, Phase.ENDED):
            return True
        tasks = self.unit.tasks.all()
        return bool(tasks) and all(task.aborted for task in tasks)

    async def read_block(self, lba: int) -> bytes:
        return bytes(await self.volume.read(lba * BLOCK, BLOCK))

    def holds(self) -> dict[str, int]:
        """Everything that peers can make this array hold; what is zero is left out."""
        counts = {
            "connections": len(self.portal._serving),
            "sessions": len(self.portal.sessions),
            "portal tasks": len(self.portal._tasks),
            "asyncio tasks": len(asyncio.all_tasks()) - 1,
            "writes in the volume": self.volume.waiting,
        }
        for lun, unit in self.server.logical_units.items():
            counts |= {
                f"tasks of LUN {lun}": len(unit.tasks),
                f"watchers of LUN {lun}": len(unit.tasks._watchers),
                f"ordered tasks of LUN {lun}": len(unit.tasks.ordered),
                f"ranges of LUN {lun}": len(unit.write_ranges._shared) + len(unit.write_ranges.exclusive),
                f"holders of LUN {lun}": int(unit.reservation.holder is not None),
                f"removal prevented at LUN {lun}": len(unit.prevents_removal),
                f"nexuses of LUN {lun}": len(unit.unit_attentions.known) + len(unit.unit_attentions.pending),
            }
        return {name: count for name, count in counts.items() if count}

    async def settled(self, *expected_connections: RawInitiator) -> None:
        """Wait until nothing is held but the connections named, and until their buffers are free as well."""
        for initiator in self.initiators:
            if initiator not in expected_connections:
                await initiator.close()
        await eventually(lambda: not self.holds(), what="nothing held", within=5)
        # No gc.collect(): what a dead connection had must not wait for the collector either.
        left, sockets = live_objects(), sockets_open()
        assert not left, left
        assert sockets <= self.sockets_at_start, sockets


def live_objects() -> dict[str, int]:
    """Connections and commands that still exist, whoever refers to them."""
    counts = {"Connection": 0, "Command": 0}
    for thing in gc.get_objects():
        if isinstance(thing, Connection | Command):
            counts[type(thing).__name__] += 1
    return {name: count for name, count in counts.items() if count}


def sockets_open() -> int:
    """File descriptors of this process that are sockets, those of the event loop included."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the descriptor of this very listing
            count += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
    return count


@asynccontextmanager
async def gated_array(limits: Limits | None = None, threads: int = 4) -> AsyncIterator[GatedArray]:
    """At its end nothing may be left, except what an assertion of the test has failed on already."""
    volume = GatedVolume(threads)
    units = {
        0: LogicalUnit(0, volume, UnitIdentity("gated")),
        1: LogicalUnit(1, MemoryVolume(1 << 20), UnitIdentity("plain")),
    }
    server = DeviceServer(units, target_iqn=IQN)
    portal = IscsiPortal(TargetDescription(IQN), server, limits or Limits())
    await portal.start("127.0.0.1:0")
    array = GatedArray(portal, server, volume, sockets_open())
    try:
        yield array
    finally:
        volume.open_gate()
        for initiator in array.initiators:
            await initiator.close()
        async with asyncio.timeout(10):
            await portal.stop()
            await volume.close()


async def log_in(initiator: RawInitiator, isid: int = 1, **pairs: str) -> None:
    begin_login(initiator, isid, **pairs)
    response = await initiator.receive()
    assert getattr(response, "status", None) == 0, response


def begin_login(initiator: RawInitiator, isid: int = 1, **pairs: str) -> None:
    """The one login request; the answer may be long in coming."""
    names = {"InitiatorName": "iqn.2026-11.org.example:host", "TargetName": IQN, "SessionType": "Normal"}
    initiator.send(initiator.login_request({**names, **pairs}, isid=bytes((0x80, 0, 0, 0, 0, isid))))


async def not_answered_yet(initiator: RawInitiator) -> list[Pdu]:
    """What the array has answered so far, by a ping that it answers after it: nothing is waited for in vain."""
    ping = NopOutPdu(immediate=True, itt=0x7FFF0001, cmd_sn=initiator.cmd_sn)
    initiator.send(ping)
    answers: list[Pdu] = []
    while not isinstance(pdu := await initiator.receive(), NopInPdu) or pdu.itt != ping.itt:
        answers.append(pdu)
    return answers


def reset(initiator: RawInitiator) -> None:
    """RST instead of FIN: SO_LINGER with no time at all. Nothing where the array has hung up already."""
    writer = initiator._writer
    sock = writer.get_extra_info("socket")
    if sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
