"""One real array without its sockets and disks: device server, pair control and votes, stepped by hand.

What takes time at an array is an input here. The metadata store's write is pending until it is told to be durable; who
waits for a decision gives up when told to; frames and commands arrive when they are delivered. The medium and the
bitmap are written at once. A crash is not an input: a new machine is made of the :class:`DiskImage` that was left.
"""

import asyncio
import logging
from asyncio import Future
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from scripts.exploration.array_ports import BLOCK, LinkEnd, NumberVolume
from scripts.exploration.fingerprint import Fingerprint
from scripts.exploration.stepped_loop import TURNS_MAX, SteppedLoop
from storage_model.differential_bitmap import PAGE_BYTES, DifferentialBitmap
from storage_model.nexus import ITNexus
from storage_model.pair import PairEpoch, PairRecord
from storage_model.pair_state import FenceLevel, PairRole
from storage_model.spec.copy_frames import Answer, Frame, FrameStream, FrameType, PairOffer, decode_parts
from storage_model.spec.scsi_sense import SenseKey, decode_sense
from storage_model.spec.scsi_task import ScsiStatus, TaskFunction
from target.remote_copy.pair_control import PairControl
from target.remote_copy.pair_half import PairHalf, PairIdentity
from target.remote_copy.paired_volume import PairedVolume
from target.remote_copy.primary_volume import PrimaryVolume
from target.remote_copy.region_marks import RegionMarks
from target.remote_copy.secondary_volume import SecondaryVolume
from target.scsi.device_server import DeviceServer
from target.scsi.logical_unit import LogicalUnit, UnitIdentity
from target.scsi.task import ScsiTask, TaskOutcome
from target.scsi.task_manager import TaskSet
from target.scsi.unit_attention import UnitAttentions

SERIALS = ("30095", "30096")
LUN = 0
LINK = -1
"""In an :class:`Output`: it goes to the other array."""
_UNIT_ATTENTIONS_MAX = 4

log = logging.getLogger("pairvol")


@dataclass(frozen=True, slots=True)
class DiskImage:
    """All that survives a crash: the pair's record, the bitmap, and the volume, whose content is one number."""

    record: PairRecord
    marked: bool = False
    content: int = 0


class Output(NamedTuple):
    """What an array says: a frame to the other one (``to`` is LINK), or the outcome of a command to a session."""

    to: int
    what: str
    data: bytes
    told_epoch: int = 0
    """The epoch that the frame says to be voted for or decided; 0 for none."""
    durable_epoch: int = 0
    """What this array has durably voted for or adopted when it says so."""


class Command(NamedTuple):
    """A SCSI command on its way; ``tag`` 0 is the host's own session, which has one command at a time."""

    what: str
    tag: int
    cdb: bytes
    data: bytes = b""


class View(NamedTuple):
    """What the explorer has to know of an array at rest."""

    image: DiskImage
    saving: PairRecord | None
    """What is not durable yet: a crash may lose it, or just not."""
    waiting: int
    """How many wait for a decision and could give up."""
    record: PairRecord
    owner: ITNexus | None
    """Who may update the quorum volume here now, as its owner at the P-VOL."""
    role: PairRole
    fetches: bool
    """What is read here would be fetched from the other array first."""
    holder: ITNexus | None
    link_up: bool
    losing: bool
    """The loss of the link is still being dealt with: no new one yet."""
    busy: tuple[int, ...]
    """Sessions with commands under way."""
    starting: bool
    """Neither link nor portals are open yet."""
    resting: bool
    """False after an input that ended early."""
    idle: bool
    errors: tuple[str, ...]


def nexus_of(host: int, site: int, *, control: bool = False) -> ITNexus:
    """The host's own session, or that of its shim."""
    what = "shim" if control else "host"
    return ITNexus(f"iqn.2026-11.org.pairvol:{what}-{host}-{'ab'[site]}", bytes.fromhex("00023d000001"))


class ArrayMachine:
    """Started from an image; each ``input_`` is one method below by name, with its arguments."""

    def __init__(self, site: int, image: DiskImage, hosts: tuple[int, ...], fence: FenceLevel) -> None:
        self.loop = SteppedLoop.make()
        self.site = site
        self.record = image.record
        self.saving: tuple[PairRecord, Future[None]] | None = None
        self.waiting: list[Future[None]] = []
        self.outputs: list[Output] = []
        self.losing: asyncio.Task[None] | None = None
        self.sessions: list[asyncio.Task[None]] = []
        self._names: dict[ITNexus, int] = {}
        self._logins: dict[ITNexus, _Login] = {}
        self.volume = NumberVolume(image.content)
        self.pages = {0: bytes([1]) + bytes(PAGE_BYTES - 1)} if image.marked else {}
        bitmap = DifferentialBitmap(BLOCK)
        if image.marked:
            bitmap.load(self.pages[0])
        serial, peer = SERIALS[site], SERIALS[1 - site]
        identity = PairIdentity("quorum0", "", "quorum", serial, peer, 10 + site, True, fence)
        asyncio.events._set_running_loop(self.loop)
        try:
            self.link = LinkEnd(self.loop, self.carry)
            self.half = PairHalf(identity, self.volume, image.record, RegionMarks(bitmap, self), self, self.link)
            self.control = PairControl(
                self.half, PrimaryVolume(self.half), SecondaryVolume(self.half), self._wait_within
            )
            paired = PairedVolume(self.half, self.control.primary, self.control.secondary)
        finally:
            asyncio.events._set_running_loop(None)
        self.unit = LogicalUnit(LUN, paired, UnitIdentity("1"), self.control)
        self.server = DeviceServer({LUN: self.unit})
        for host in hosts:
            for control in (False, True):
                nexus = nexus_of(host, site, control=control)
                self._names[nexus] = host
                self.server.nexus_established(nexus)
        self.unit.unit_attentions.pending.clear()  # told at their logins
        self.starting = self._spawn(self.control.start())
        self.loop.run_until_quiet()

    # ----------------------------------------------------------------------------------------------------------- inputs

    def apply(self, step: tuple[Any, ...]) -> tuple[Output, ...]:
        """One input, until the array is at rest; what it said meanwhile.

        ``("early", turns, *step)`` ends after so many turns of the loop: the next input comes before the array is at
        rest.
        """
        name, *arguments = step
        turns = TURNS_MAX
        if name == "early":
            turns, name, *arguments = arguments
        asyncio.events._set_running_loop(self.loop)
        try:
            getattr(self, name)(*arguments)
        finally:
            asyncio.events._set_running_loop(None)
        self.loop.turn(turns)
        outputs, self.outputs = self.outputs, []
        return tuple(outputs)

    def rest(self) -> None:
        """No input: the array comes to rest."""

    def link_opened(self) -> None:
        """The other array's HELLO is here."""
        self.link.up = True
        self.control.link_opened(PairOffer("quorum0", 11 - self.site, BLOCK, BLOCK, True))

    def link_lost(self) -> None:
        """The connection is gone, as this end sees it."""
        self.link.fail()
        self.losing = self._spawn(self.control.link_lost("the link is cut"))

    def frame(self, data: bytes) -> None:
        """A frame of the other array arrives."""
        (frame,) = FrameStream().receive_data(data)
        if frame.type is FrameType.ANSWER:
            self.link.answered(frame)
            return
        frame.request = self.link.asked(frame.request)
        self.link.handling(frame.request, self._spawn(self._receive(frame)))

    def saved(self) -> None:
        """What was being saved is durable."""
        assert self.saving is not None
        self.record, future = self.saving
        self.saving = None
        future.set_result(None)

    def impatient(self, number: int) -> None:
        """One that waits for a decision gives up: so many seconds have passed."""
        _awaken(self.waiting[number])

    def command(self, host: int, command: Command) -> None:
        """A SCSI command arrives; the shim's own session has tags above 0."""
        nexus = nexus_of(host, self.site, control=command.tag > 0)
        self.sessions.append(self._spawn(self._execute(nexus, command)))

    def reset(self, host: int) -> None:
        """LOGICAL UNIT RESET."""
        self.sessions.append(self._spawn(self._reset(nexus_of(host, self.site))))

    def gone(self, host: int) -> None:
        """The host's sessions have ended with its shim; it logs in again."""
        self.relogin(host)
        self._log_in_again(nexus_of(host, self.site))

    def relogin(self, host: int) -> None:
        """The shim's own session was dropped and opened again: reinstatement waits for the commands of the old one."""
        self._log_in_again(nexus_of(host, self.site, control=True))

    # ------------------------------------------------------------------------------------- ports of the code under test

    async def save_pair(self, name: str, record: PairRecord) -> None:
        """``RecordStore``: one at a time, and to its end also if whoever asked for it has given up."""
        while self.saving is not None:
            await asyncio.shield(self.saving[1])
        future = self.loop.create_future()
        self.saving = record, future
        await asyncio.shield(future)

    async def save(self, pages: Mapping[int, bytes]) -> None:
        """``MarkStore``: at once."""
        self.pages.update(pages)

    async def _wait_within(self, task: "asyncio.Task[int]", seconds: float) -> int:
        waiter: Future[None] = self.loop.create_future()
        task.add_done_callback(lambda _: _awaken(waiter))
        self.waiting.append(waiter)
        try:
            await waiter
        finally:
            self.waiting.remove(waiter)
        if not task.done():
            raise TimeoutError
        return task.result()

    # ----------------------------------------------------------------------------------------------------- what it does

    def carry(self, frame: Frame) -> None:
        """Send a frame to the other array."""
        data = b"".join(bytes(part) for part in frame.encode())
        accepted = self.record.accepted
        durable = max(self.record.decided.epoch, accepted.epoch if accepted is not None else 0)
        self.outputs.append(Output(LINK, frame.type.name, data, _told_epoch(frame), durable))

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        return self.loop.create_task(coroutine)

    async def _receive(self, frame: Frame) -> None:
        try:
            epoch, content = frame.epoch, self.volume.content
            await self.control.receive(frame)
            if frame.type is FrameType.WRITE and self.volume.content != content:
                assert epoch == self.half.record.decided.epoch, "I5: a write of a past epoch has landed"
        except Exception as error:
            self.loop.errors.append(f"a frame of the other array ends with {error!r}")

    async def _execute(self, nexus: ITNexus, command: Command) -> None:
        login = self._logins.get(nexus)
        if login is not None:
            await login.done.wait()
            if login.dropped:
                return  # its session is gone before it was there
        for _ in range(_UNIT_ATTENTIONS_MAX):
            task = ScsiTask(nexus, LUN, command.tag, command.cdb, command.data, 4096)
            outcome = await self.server.execute(task)
            if command.tag or not _is_unit_attention(outcome):  # the shim's own code deals with its own
                break
        if not task.aborted:
            head = bytes([command.tag, outcome.status, len(outcome.sense)])
            data = head + outcome.sense + bytes(outcome.data_in)
            self.outputs.append(Output(self._names[nexus], command.what, data))

    async def _reset(self, nexus: ITNexus) -> None:
        await self.server.manage(nexus, TaskFunction.LOGICAL_UNIT_RESET, LUN, 0)
        self.outputs.append(Output(self._names[nexus], "LUN RESET", bytes([0, ScsiStatus.GOOD, 0])))

    def _log_in_again(self, nexus: ITNexus) -> None:
        if nexus in self._logins:
            self._logins[nexus].dropped = True
        self._logins[nexus] = login = _Login()
        self.sessions.append(self._spawn(self._lose(nexus, login)))

    async def _lose(self, nexus: ITNexus, login: "_Login") -> None:
        await self.server.nexus_lost(nexus)
        if self._logins.get(nexus) is login:
            del self._logins[nexus]
        login.done.set()
        self.server.nexus_established(nexus)
        self.unit.unit_attentions.pending.pop(nexus, None)

    # ---------------------------------------------------------------------------------------------------- how it stands

    def image(self, *, with_pending: bool) -> DiskImage:
        """What a crash now would leave."""
        record = self.saving[0] if with_pending and self.saving is not None else self.record
        return DiskImage(record, bool(self.pages and any(self.pages[0])), self.volume.content)

    def digest(self) -> bytes:
        """See :class:`Fingerprint`."""
        self.sessions = [task for task in self.sessions if not task.done()]
        unit = self.unit
        return Fingerprint({"TaskSet": _tasks_of}).digest(
            (
                self.image(with_pending=False),
                self.saving,
                self.waiting,
                self.starting.done(),
                self.half,
                self.control,
                self.link,
                self.losing if self.losing is not None and not self.losing.done() else None,
                unit.reservation.holder,
                unit.reservation_journal.lock,
                _tasks_of(unit.tasks),
                _attentions_of(unit.unit_attentions),
                unit.write_ranges,
                sorted((self._names[nexus], str(nexus)) for nexus in self._logins),
                self.sessions,
                self.loop.tasks,
                [(handle._callback, handle._args) for handle in self.loop.ready],  # type: ignore[attr-defined]
                tuple(self.loop.errors),
            )
        )

    def view(self) -> View:
        half, decided = self.half, self.half.record.decided
        sessions = self.unit.tasks.all()
        nexus = decided.owner.nexus if decided.owner is not None else None
        valid = decided.owned_by(half.identity.serial, nexus) and not half.doubtful_owner
        # While a decision is made durable nobody writes: the gate is closed, and who waits there must look again.
        valid &= not half.gate.closed or half.gate.inside > 0
        return View(
            image=self.image(with_pending=False),
            saving=None if self.saving is None else self.saving[0],
            waiting=len(self.waiting),
            record=half.record,
            owner=nexus if valid and half.role is PairRole.P_VOL else None,
            role=half.role,
            fetches=half.fetching and half.marks.lasting(0),
            holder=self.unit.reservation.holder,
            link_up=self.link.up,
            losing=self.losing is not None and not self.losing.done(),
            busy=tuple(sorted({self._names[task.nexus] for task in sessions})),
            starting=not self.starting.done(),
            resting=not self.loop.ready,
            idle=not self.loop.tasks and not self.loop.ready,
            errors=tuple(self.loop.errors),
        )


class _Login:
    """A session that replaces one whose commands have yet to end; ``dropped`` before that by the next one."""

    def __init__(self) -> None:
        self.done = asyncio.Event()
        self.dropped = False


def _told_epoch(frame: Frame) -> int:
    if frame.type is FrameType.PAIR_STATUS:
        return PairEpoch.decode(decode_parts(frame.payload, 2)[0].decode()).epoch
    answers = frame.type is FrameType.ANSWER and frame.flags == Answer.DONE
    return frame.epoch if answers or frame.type is FrameType.PROPOSE else 0


def _awaken(future: "Future[None]") -> None:
    if not future.done():
        future.set_result(None)


def _tasks_of(tasks: TaskSet) -> Any:
    """By position: the set's own keys are addresses."""
    place = {key: number for number, key in enumerate(tasks._tasks)}
    watchers = [(sorted(place[key] for key in waiting), notify) for waiting, notify in tasks._watchers]
    return list(tasks._tasks.values()), watchers


def _attentions_of(attentions: UnitAttentions) -> Any:
    return sorted((str(nexus), tuple(queue)) for nexus, queue in attentions.pending.items())


def _is_unit_attention(outcome: TaskOutcome) -> bool:
    if outcome.status != ScsiStatus.CHECK_CONDITION:
        return False
    return decode_sense(outcome.sense).sense_key == SenseKey.UNIT_ATTENTION
