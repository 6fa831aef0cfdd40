"""Two real halves of a pair in one event loop: the wire between them is a list of frames, the disks are dictionaries.

A test may cut the wire at a chosen frame, hold a write on a medium, make callers impatient, and crash an array: what
its stores had not finished saving is then lost.
"""

import asyncio
import itertools
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from storage_model.differential_bitmap import PAGE_BYTES, REGION_BYTES, DifferentialBitmap
from storage_model.nexus import ITNexus
from storage_model.pair import PairRecord, PairRefused, PairRequest
from storage_model.pair_reservation import ReservationRecord
from storage_model.pair_state import FenceLevel, PairRole, PairState, PairVerb, Refusal, Side
from storage_model.spec.copy_frames import Answer, Frame, FrameStream, FrameType, PairOffer
from storage_model.spec.scsi_task import ScsiStatus
from storage_model.volume import Buffer
from target.remote_copy.copy_link import LinkDown
from target.remote_copy.pair_control import PairControl
from target.remote_copy.pair_half import PairHalf, PairIdentity
from target.remote_copy.pair_reservations import PairReservations
from target.remote_copy.paired_volume import PairedVolume
from target.remote_copy.primary_volume import PrimaryVolume
from target.remote_copy.region_marks import RegionMarks
from target.remote_copy.secondary_volume import SecondaryVolume
from target.scsi.device_server import DeviceServer
from target.scsi.logical_unit import LogicalUnit, UnitIdentity
from target.scsi.unit_reservation import UnitReservation
from target.volumes.memory_volume import MemoryVolume

BLOCK = 512
SERIALS = {"a": "30095", "b": "30096"}
REGIONS = 12


class HeldVolume(MemoryVolume):
    """A medium whose writes wait while ``hold`` is clear; reads while ``hold_reads`` is, with the data already read."""

    def __init__(self) -> None:
        super().__init__(REGIONS * REGION_BYTES, BLOCK)
        self.hold = asyncio.Event()
        self.hold.set()
        self.writing = asyncio.Event()
        self.hold_reads = asyncio.Event()
        self.hold_reads.set()

    async def read(self, offset_bytes: int, length_bytes: int) -> Buffer:
        data = await super().read(offset_bytes, length_bytes)
        await self.hold_reads.wait()
        return data

    async def write(self, offset_bytes: int, data: Buffer, *, fua: bool = False) -> None:
        if not self.hold.is_set():
            self.writing.set()
            await self.hold.wait()
        await super().write(offset_bytes, data, fua=fua)


class Disk:
    """What survives a crash of one array: the pair's record and its reservations, the bitmap's pages, the volume."""

    def __init__(self) -> None:
        self.record = PairRecord()
        self.reservations = ReservationRecord()
        self.entries: list[ReservationRecord] = []
        self.pages: dict[int, bytes] = {}
        self.volume = HeldVolume()
        self.records: list[PairRecord] = []
        self.fails: Exception | None = None
        self.running = asyncio.Event()
        """While clear, nothing becomes durable."""
        self.running.set()

    def put(self, record: PairRecord) -> None:
        """``record`` is durable. The table of reservations goes with the pair."""
        self.record = record
        self.records.append(record)
        if record.state is PairState.SMPL:
            self.reservations = ReservationRecord()


class _Stores:
    """One start's access to the disk; it is gone with the crash. Saving takes two turns of the loop."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self.alive = True

    async def save_pair(self, name: str, record: PairRecord) -> None:
        await self._turn()
        self._disk.put(record)
        await asyncio.sleep(0)

    async def save_pair_reservation(self, name: str, record: ReservationRecord) -> None:
        await self._turn()
        self._disk.reservations = record
        self._disk.entries.append(record)
        await asyncio.sleep(0)

    async def save(self, pages: Mapping[int, bytes]) -> None:
        await self._turn()
        self._disk.pages.update(pages)
        await asyncio.sleep(0)

    async def _turn(self) -> None:
        await asyncio.sleep(0)
        await self._disk.running.wait()
        if not self.alive:
            await asyncio.get_running_loop().create_future()  # never: the process is gone
        if self._disk.fails is not None:
            raise self._disk.fails


class Station(ABC):
    """What is at one end of the wire: an array, with the pairs that it serves."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.serial = SERIALS[name]
        self.peer_serial = SERIALS["b" if name == "a" else "a"]
        self.wire: Wire
        self.end: End
        self.impatient = asyncio.Event()
        """Set: whoever waits for a decision gives up now."""

    @abstractmethod
    def offers(self) -> dict[str, PairOffer]: ...

    @abstractmethod
    def link_opened(self, offers: dict[str, PairOffer]) -> None: ...

    @abstractmethod
    async def link_lost(self) -> None: ...

    @abstractmethod
    def serves(self, ldev: int) -> bool: ...

    @abstractmethod
    async def receive(self, frame: Frame) -> None: ...

    @abstractmethod
    async def end_tasks(self) -> None: ...

    async def wait(self, task: "asyncio.Task[int]", seconds: float) -> int:
        patience = asyncio.create_task(self.impatient.wait())
        try:
            await asyncio.wait({task, patience}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            patience.cancel()
        if not task.done():
            raise TimeoutError
        return task.result()


class Site(Station):
    """One array, as far as the pair goes."""

    def __init__(
        self, name: str, fence: FenceLevel, quorum: bool, *, pair: str = "quorum0", group: str = "", ldev: int = 0
    ) -> None:
        super().__init__(name)
        self.ldev = ldev + (10 if name == "a" else 20)
        self.pair_name, self.group = pair, group
        self.identity = PairIdentity(
            pair, group or "qgrp", "quorum", self.serial, self.peer_serial, self.ldev, quorum, fence
        )
        self.disk = Disk()
        self.knows_reservations = True
        self._stores: _Stores | None = None
        self.half: PairHalf
        self.control: PairControl
        self.volume: PairedVolume
        self.reservations: PairReservations
        self.lu: LogicalUnit
        self.server: DeviceServer

    async def start(self) -> None:
        self.load(End(self))
        await self.control.start()

    def load(self, end: "End") -> None:
        """What the disk has, in memory."""
        bitmap = DifferentialBitmap(self.disk.volume.size_bytes)
        saved = bytearray(bitmap.to_bytes())
        for page, data in self.disk.pages.items():
            saved[page * PAGE_BYTES : (page + 1) * PAGE_BYTES] = data
        bitmap.load(bytes(saved))
        self._stores = _Stores(self.disk)
        self.half = PairHalf(
            self.identity, self.disk.volume, self.disk.record, RegionMarks(bitmap, self._stores), self._stores, end
        )
        self.reservations = PairReservations(self.half, self.disk.reservations, self._stores)
        primary, secondary = PrimaryVolume(self.half), SecondaryVolume(self.half)
        self.control = PairControl(self.half, primary, secondary, self.wait, self.reservations)
        self.volume = PairedVolume(self.half, primary, secondary)
        self.lu = LogicalUnit(0, self.volume, UnitIdentity(self.pair_name), self.control)
        self.server = DeviceServer({0: self.lu})
        self.reservations.attach(UnitReservation(self.server, self.lu))
        self.end = end

    def forget(self) -> None:
        """What is not saved yet will not be."""
        assert self._stores is not None
        self._stores.alive = False

    async def crash(self) -> None:
        """Nothing that is not saved yet will be."""
        self.forget()
        self.wire.cut()
        await self.end_tasks()
        await self.wire.drop_handlers(self)

    # ------------------------------------------------------------------------------------------ what the wire does

    def offers(self) -> dict[str, PairOffer]:
        return {self.pair_name: self.offer}

    def link_opened(self, offers: dict[str, PairOffer]) -> None:
        self.control.link_opened(offers[self.pair_name])

    async def link_lost(self) -> None:
        await self.control.link_lost("the wire is cut")

    def serves(self, ldev: int) -> bool:
        return ldev == self.ldev

    async def receive(self, frame: Frame) -> None:
        await self.control.receive(frame)

    async def end_tasks(self) -> None:
        await self.control.stop()

    @property
    def offer(self) -> PairOffer:
        size, quorum = self.disk.volume.size_bytes, self.identity.quorum
        return PairOffer(self.pair_name, self.ldev, size, BLOCK, quorum, self.group, self.knows_reservations)

    # ------------------------------------------------------------------------------------------ what hosts do

    def nexus(self, host: str = "host") -> ITNexus:
        return ITNexus(f"iqn.2026-11.org.pairvol:{host}-{self.name}", bytes.fromhex("00023d000001"))

    async def do(self, verb: PairVerb, **fields: Any) -> int:
        return await self.control.request(PairRequest(verb, self.serial, **fields))

    async def claim(self, host: str = "host", *, epoch: int = 0) -> int:
        verb = PairVerb.RESYNC if self.half.role is PairRole.P_VOL else PairVerb.SWAP_RESYNC
        return await self.do(verb, claim=self.nexus(host), expected_epoch=epoch)

    async def write(self, lba: int, text: str, host: str = "host") -> bool:
        """False on RESERVATION CONFLICT; raises CheckCondition or VolumeError."""
        if self.control.refuse(self.nexus(host), writes=True) is not ScsiStatus.GOOD:
            return False
        soon = self.volume.write_soon(lba * BLOCK, block(text), True)
        if soon is not None:
            return await soon
        await self.volume.write(lba * BLOCK, block(text))
        return True

    async def read(self, lba: int) -> str:
        self.control.refuse(self.nexus(), writes=False)
        return bytes(await self.volume.read(lba * BLOCK, BLOCK)).rstrip(b"\0").decode()

    async def medium(self, lba: int) -> str:
        return bytes(await self.disk.volume.read(lba * BLOCK, BLOCK)).rstrip(b"\0").decode()

    @property
    def owner(self) -> ITNexus | None:
        owner = self.half.record.decided.owner
        return None if owner is None else owner.nexus


def block(text: str) -> bytes:
    return text.encode().ljust(BLOCK, b"\0")


class End:
    """``CopyLink`` of one station."""

    def __init__(self, site: Station) -> None:
        self._site = site
        self._number = 0
        self._waiting: dict[int, asyncio.Future[Frame]] = {}
        self._asked: dict[int, tuple[int, int]] = {}
        self._ours = itertools.count(1)

    @property
    def up(self) -> bool:
        return self._site.wire.up

    def request(self, frame: Frame) -> Awaitable[Frame]:
        future: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        if not self.up:
            _fail(future)
            return future
        self._number += 1
        frame.request = self._number
        self._waiting[self._number] = future
        self._site.wire.carry(self._site, frame)
        return future

    def send(self, frame: Frame) -> None:
        wire = self._site.wire
        if frame.type is FrameType.ANSWER:
            connection, frame.request = self._asked.pop(frame.request)
            if connection != wire.connection:
                return
        if self.up:
            wire.carry(self._site, frame)

    def asked(self, connection: int, number: int) -> int:
        """As the transport does it: an answer goes to the connection that the request came from, or nowhere."""
        ours = next(self._ours)
        self._asked[ours] = (connection, number)
        return ours

    def answered(self, frame: Frame) -> None:
        future = self._waiting.pop(frame.request, None)
        if future is not None and not future.done():
            future.set_result(frame)

    def fail(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            _fail(future)


def _fail(future: "asyncio.Future[Frame]") -> None:
    if not future.done():
        future.set_exception(LinkDown("the wire is cut"))
        future.exception()


Condition = Callable[[Frame], bool]


class Wire:
    """Carries frames in order, one a turn of the loop. What a handler raises is an error of the test."""

    def __init__(self, a: Station, b: Station) -> None:
        self.sites = (a, b)
        a.wire = b.wire = self
        self.up = False
        self.carried: list[Frame] = []
        self.errors: list[BaseException] = []
        self.connection = 0
        self._losses: dict[asyncio.Task[None], Station] = {}
        self._handlers: dict[asyncio.Task[None], Station] = {}
        self._trap: tuple[Condition, bool] | None = None

    async def connect(self) -> None:
        self._trap = None
        await asyncio.sleep(0)  # a trap that has been stepped on cuts now
        if self.up:
            return
        await asyncio.gather(*self._losses, return_exceptions=True)
        self._losses.clear()
        self.up = True
        self.connection += 1
        a, b = self.sites
        a.link_opened(b.offers())
        b.link_opened(a.offers())

    def cut(self) -> None:
        if not self.up:
            return
        self.up = False
        for site in self.sites:
            site.end.fail()
            self._losses[asyncio.create_task(site.link_lost())] = site

    def cut_at(self, condition: Condition, *, delivered: bool) -> None:
        """At the next frame that meets the condition: before it arrives, or just after."""
        self._trap = condition, delivered

    def carry(self, sender: Station, frame: Frame) -> None:
        data = b"".join(bytes(part) for part in frame.encode())
        asyncio.get_running_loop().call_soon(self._deliver, self.connection, sender, data)

    def _deliver(self, connection: int, sender: Station, data: bytes) -> None:
        if not self.up or connection != self.connection:
            return
        (frame,) = FrameStream().receive_data(data)
        trapped = self._trap is not None and self._trap[0](frame)
        if trapped and self._trap is not None and not self._trap[1]:
            self._spring()
            return
        self.carried.append(replace(frame))
        receiver = self.sites[1 - self.sites.index(sender)]
        if frame.type is FrameType.ANSWER:
            receiver.end.answered(frame)
        elif not receiver.serves(frame.pair):
            self.carry(receiver, Frame(FrameType.ANSWER, request=frame.request, flags=Answer.NO_SUCH_PAIR))
        else:
            frame.request = receiver.end.asked(connection, frame.request)
            task = asyncio.create_task(self._receive(receiver, frame))
            self._handlers[task] = receiver
            task.add_done_callback(self._handlers.pop)
        if trapped:
            asyncio.get_running_loop().call_soon(self._spring)

    def _spring(self) -> None:
        self._trap = None
        self.cut()

    async def _receive(self, receiver: Station, frame: Frame) -> None:
        try:
            await receiver.receive(frame)
        except Exception as error:
            self.errors.append(error)
            self.cut()

    async def drop_handlers(self, site: Station) -> None:
        """Also what deals with the loss of the wire."""
        tasks = [task for task, receiver in (self._handlers | self._losses).items() if receiver is site]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def stop(self) -> None:
        self.cut()
        await asyncio.gather(*self._losses, return_exceptions=True)
        for site in self.sites:
            await site.end_tasks()
            await self.drop_handlers(site)
        assert not self.errors, self.errors


class Pair:
    """Both sites, and what a test does to both at once."""

    def __init__(self, fence: FenceLevel = FenceLevel.NEVER, quorum: bool = True) -> None:
        self.a = Site("a", fence, quorum)
        self.b = Site("b", fence, quorum)
        self.wire = Wire(self.a, self.b)

    async def start(self) -> None:
        await self.a.start()
        await self.b.start()
        await self.connect()

    async def connect(self) -> None:
        await self.wire.connect()
        await self.quiet()

    async def quiet(self) -> None:
        """Until nothing moves any more; timers do not exist here, so that this is soon."""
        for _ in range(400):
            await asyncio.sleep(0)

    async def proposed(self) -> None:
        """Until the next PROPOSE has arrived."""
        before = len(self.wire.carried)
        for _ in range(400):
            await asyncio.sleep(0)
            if any(frame.type is FrameType.PROPOSE for frame in self.wire.carried[before:]):
                return
        raise AssertionError("nothing was proposed")

    async def until(self, state: PairState) -> None:
        await self.quiet()
        assert (self.a.half.state, self.b.half.state) == (state, state)

    async def mirror(self) -> None:
        """A is the P-VOL's array, in PAIR."""
        await self.a.do(PairVerb.CREATE)
        await self.until(PairState.PAIR)

    async def arm(self) -> None:
        await self.mirror()
        await self.a.do(PairVerb.SPLIT)
        await self.until(PairState.PSUS)

    @property
    def p_vol(self) -> Site:
        return self.a if self.a.half.role is PairRole.P_VOL else self.b

    async def recover(self) -> None:
        """An operator resyncs out of PSUE, naming the side that is complete."""
        p_vol = self.p_vol
        record = p_vol.half.record
        good = Side.P_VOL if record.equal else record.decided.source
        await p_vol.do(PairVerb.RECOVER, good_side=good)
        await self.until(PairState.PAIR)

    def check_agreement(self) -> None:
        """I1: one value per epoch, in all that was ever durable at either array."""
        values: dict[int, Any] = {}
        for site in (self.a, self.b):
            for record in site.disk.records:
                decided = record.decided
                assert values.setdefault(decided.epoch, decided) == decided

    async def stop(self) -> None:
        for site in (self.a, self.b):
            site.disk.running.set()
            site.disk.volume.hold.set()
            site.disk.volume.hold_reads.set()
            site.disk.fails = None
        await self.quiet()
        await self.wire.stop()
        self.check_agreement()


async def refusal(command: Awaitable[int]) -> Refusal | None:
    """None: the command ended normally."""
    try:
        await asyncio.wait_for(command, 5)
    except PairRefused as refused:
        return refused.refusal
    return None


def is_type(kind: FrameType) -> Condition:
    return lambda frame: frame.type is kind


def answers_proposal(wire: Wire) -> Condition:
    """The ANSWER to the last PROPOSE."""

    def condition(frame: Frame) -> bool:
        proposals = [carried.request for carried in wire.carried if carried.type is FrameType.PROPOSE]
        return frame.type is FrameType.ANSWER and frame.request in proposals[-1:] and bool(frame.payload)

    return condition
