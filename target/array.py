"""The composition root: builds one array out of its configuration, starts it and stops it. [IO]"""

import asyncio
import logging
import os
import time
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, TypeVar

from storage_model.differential_bitmap import DifferentialBitmap
from storage_model.errors import UserError
from storage_model.pair import PairRecord
from storage_model.pair_state import PairRole, PairState
from storage_model.spec.copy_frames import Answer, Frame, FrameType, Hello, PairOffer
from storage_model.volume import Volume, VolumeError
from target.addresses import format_address
from target.config import ArrayConfig, PairConfig, VolumeConfig, consistency_groups, parse_broker
from target.iscsi.access import AccessControl
from target.iscsi.events import TargetDescription
from target.iscsi.portal import IscsiPortal
from target.link_security import LinkSecurity, load_link_security
from target.medium_operations import MediumOperations
from target.metadata_store import MetadataStore, ReservationNotes
from target.portal_config import every_group
from target.reload import changed_copy_rates, checked_growth, state_changes, volume_changes
from target.remote_copy.copy_pace import CopyPace
from target.remote_copy.group_control import GroupControl
from target.remote_copy.link_transport import LinkTransport
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
from target.secret_files import load_access_rules
from target.volumes.bitmap_file import BitmapFile
from target.volumes.encrypted_volume import EncryptedVolume, KeyFile, KeyInMemory
from target.volumes.file_volume import FileVolume
from target.volumes.memory_volume import MemoryVolume

if TYPE_CHECKING:
    from target.event_bus import EventBus

log = logging.getLogger("pairvol.array")

REMOVAL_TIMEOUT = 5.0  # seconds that the commands of a volume that goes have to end by themselves
MAX_PAIRED_BYTES = 4 << 40
"""Of a volume with a pair: its differential bitmap travels to the other array in one frame."""
MAX_GROUP_BYTES = 12 << 40
"""Of all volumes of a consistency group: their bitmaps travel in one frame."""

T = TypeVar("T")


def _pace(bytes_per_second: int) -> CopyPace:
    return CopyPace(bytes_per_second, time.monotonic, asyncio.sleep)


async def _within(task: "asyncio.Task[T]", seconds: float) -> T:
    """Wait for the task, not longer than so many seconds; the task itself goes on."""
    return await asyncio.wait_for(asyncio.shield(task), seconds)


class _UnitKind(TypedDict):
    write_protected: bool
    removable: bool
    thin: bool
    physical_block_length: int | None


def _unit_kind(config: VolumeConfig) -> _UnitKind:
    return {
        "write_protected": config.write_protected,
        "removable": config.removable,
        "thin": config.thin,
        "physical_block_length": config.physical_block_length,
    }


class Array:
    """One storage array: volumes, pairs, the link to the other array, and the iSCSI portals.

    ``start`` opens everything and raises UserError; ``stop`` closes everything. ``urls`` lists the LUNs once started.
    """

    def __init__(self, config: ArrayConfig) -> None:
        self._config = config
        self._state_dir = Path(config.state_dir) if config.state_dir is not None else None
        self._units: dict[int, LogicalUnit] = {}
        self._volumes: dict[str, FileVolume | MemoryVolume] = {}
        self._keys: dict[str, KeyFile | KeyInMemory] = {}
        self._bitmaps: list[BitmapFile] = []
        self._controls: dict[str, PairControl] = {}
        self._by_ldev: dict[int, PairControl] = {}
        self._group_names = consistency_groups(config.pairs)
        self._groups: dict[str, GroupControl] = {}
        self._store: MetadataStore | None = None
        self._link: LinkTransport | None = None
        self._events: EventBus | None = None
        self._server = DeviceServer(self._units, target_iqn=config.iqn)
        self._portal: IscsiPortal | None = None
        self._access = AccessControl(random_bytes=os.urandom)
        self._pace = _pace(config.copy_rate)
        self._peer_identity: str | None = None
        self._meeting: asyncio.Task[None] | None = None
        self.urls: list[str] = []

    async def start(self) -> None:
        """Volumes first, the portals last: nobody is served by half an array."""
        config = self._config
        try:
            self._access.rules = load_access_rules(config.access)  # before a file is made
            security = None if config.remote_copy is None else load_link_security(config.remote_copy)
            self._open_state()
            if config.broker is not None:
                from target.event_bus import EventBus  # its library takes a sixth of the start of an array

                self._events = EventBus(*parse_broker(config.broker, "events.broker"), config.serial)
                self._events.start()
            pairs = {pair.volume: pair for pair in config.pairs}
            self._link = self._make_link(security or LinkSecurity())
            for volume in config.volumes:
                self._add_unit(volume, pairs.get(volume.name))
            self._make_groups()
            for control in self._controls.values():
                await control.start()
                self._publish(control.half)
            if self._link is not None and config.remote_copy is not None:
                await self._link.start(config.remote_copy.listen, config.remote_copy.peer)
            for unit in self._units.values():
                self._operations.resume(unit)
            await self._start_portals()
        except BaseException:
            await self.stop()
            raise

    def _open_state(self) -> None:
        path = self._state_dir
        if path is not None:
            try:
                path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                reason = "not a directory" if isinstance(error, FileExistsError) else error.strerror
                raise UserError(f"state directory {path}: {reason}") from None
        elif self._config.pairs:
            raise UserError(f"{self._config.source}: array.state_dir is missing: pairs must survive a restart")
        self._store = MetadataStore(path and path / "metadata.sqlite", self._config.serial)
        self._operations = MediumOperations(self._store, self._config.background_rate)

    def _make_link(self, security: LinkSecurity) -> LinkTransport | None:
        remote_copy = self._config.remote_copy
        if remote_copy is None:
            return None
        assert self._store is not None
        hello = Hello(self._config.serial, remote_copy.peer_serial, (), identity=self._store.identity)
        self._peer_identity = self._store.load_peer(remote_copy.peer_serial)
        handlers = (self._link_opened, self._link_lost, self._received, self._known_peer)
        return LinkTransport(hello, *handlers, write_now=self._write_now, key=security.key, tls=security.tls)

    def _add_unit(self, config: VolumeConfig, pair: PairConfig | None) -> None:
        assert self._store is not None
        if pair is not None:
            self._check_not_lost(config, pair, self._store.load_pair(pair.name))
        volume = self._open_volume(config)
        self._volumes[config.name] = volume
        if pair is None:
            self._units[config.lun] = self._unpaired_unit(config, volume)
            return
        if self._store.load_reservation(config.name, config.file or "").registrations:
            log.warning(
                "volume %s: the persistent reservations that it had by itself do not hold while it belongs to a pair",
                config.name,
            )
        half, control, reservations = self._make_pair(config, pair, volume)
        paired = PairedVolume(half, control.primary, control.secondary)
        # Both halves have the same identity: the hosts see one volume (claim 5).
        serials = sorted((half.identity.serial, half.identity.peer_serial))
        serial = sha256(f"{serials[0]} {serials[1]} {pair.name}".encode()).hexdigest()[:16]
        unit = LogicalUnit(config.lun, paired, UnitIdentity(serial), control, **_unit_kind(config))
        self._operations.attach(unit, config.name, config.file)
        half.busy = lambda: unit.operation is not None
        reservations.attach(UnitReservation(self._server, unit))
        self._units[config.lun] = unit

    def _unpaired_unit(self, config: VolumeConfig, stored: FileVolume | MemoryVolume) -> LogicalUnit:
        volume: Volume = EncryptedVolume(stored, self._keys[config.name]) if config.encrypted else stored
        serial = sha256(f"{self._config.iqn} {config.name} {config.file or ''}".encode()).hexdigest()[:16]
        assert self._store is not None
        notes = ReservationNotes(self._store, config.name, config.file or "")
        unit = LogicalUnit(
            config.lun,
            volume,
            UnitIdentity(serial),
            # Without a state directory nothing is kept, and an initiator that wants it kept is told so.
            reservation_store=notes if self._state_dir is not None else None,
            **_unit_kind(config),
        )
        unit.reservation.put_into_force(notes.load())
        self._operations.attach(unit, config.name, config.file)
        return unit

    def _open_volume(self, config: VolumeConfig) -> FileVolume | MemoryVolume:
        if config.encrypted:  # first: a file that is there without its key stays as it is
            self._keys[config.name] = KeyInMemory() if config.file is None else KeyFile.open(self._path(config.file))
        if config.file is None:
            assert config.size_bytes is not None, "the configuration gives a volume in memory its size"
            return MemoryVolume(config.size_bytes, config.block_length)
        return FileVolume.open(
            self._path(config.file),
            config.size_bytes,
            config.block_length,
            create=config.size_bytes is not None,
            read_only=config.write_protected,
            thin=config.thin,
        )

    def _path(self, file: str) -> Path:
        return Path(file) if self._state_dir is None else self._state_dir / file

    def _check_not_lost(self, config: VolumeConfig, pair: PairConfig, record: PairRecord) -> None:
        """A new, empty file in the place of a paired volume would pass for its data."""
        if config.file is not None and record.state is not PairState.SMPL and not self._path(config.file).exists():
            raise UserError(
                f"volume file {self._path(config.file)} is missing, but pair {pair.name} is {record.state.name}:"
                " restore it. If it is lost: pairctl delete --force at the other array, start here with an empty state"
                " directory, create the pair anew from the other side"
            )

    def _make_pair(
        self, config: VolumeConfig, pair: PairConfig, volume: Volume
    ) -> tuple[PairHalf, PairControl, PairReservations]:
        remote_copy = self._config.remote_copy
        assert (
            self._store is not None
            and self._state_dir is not None
            and self._link is not None
            and remote_copy is not None
        )
        identity = PairIdentity(
            pair.name,
            pair.group,
            config.name,
            self._config.serial,
            remote_copy.peer_serial,
            config.ldev,
            config.quorum,
            pair.fence,
        )
        if volume.size_bytes > MAX_PAIRED_BYTES:
            raise UserError(
                f"{self._config.source}: volume {config.name} has {volume.size_bytes} bytes,"
                f" {MAX_PAIRED_BYTES} are the limit for a volume with a pair"
            )
        bitmap = DifferentialBitmap(volume.size_bytes)
        file = BitmapFile(self._state_dir / f"{pair.name}.bitmap")
        self._bitmaps.append(file)
        record = self._store.load_pair(pair.name)
        paired = record.state is not PairState.SMPL
        if not file.load(bitmap, paired=paired) and paired:
            log.warning("pair %s: its bitmap is missing, so every region counts as different", pair.name)
        marks = RegionMarks(bitmap, file)
        half = PairHalf(identity, volume, record, marks, self._store, self._link, self._publish)
        half.pace = self._pace_of(pair.copy_rate)
        reservations = PairReservations(half, self._store.load_pair_reservation(pair.name), self._store)
        control = PairControl(half, PrimaryVolume(half), SecondaryVolume(half), _within, reservations)
        self._controls[pair.name] = self._by_ldev[config.ldev] = control
        group = pair.group if pair.group in self._group_names else ""
        offer = PairOffer(pair.name, config.ldev, volume.size_bytes, volume.block_length, config.quorum, group, True)
        self._link.offer(offer)
        return half, control, reservations

    def _make_groups(self) -> None:
        """Of the pairs that share a group's name; one that is alone is decided alone."""
        assert self._store is not None
        for name in sorted(self._group_names):
            members = {pair.name: self._controls[pair.name] for pair in self._config.pairs if pair.group == name}
            size = sum(control.half.volume.size_bytes for control in members.values())
            if size > MAX_GROUP_BYTES:
                raise UserError(
                    f"{self._config.source}: the volumes of group {name} have {size} bytes together,"
                    f" {MAX_GROUP_BYTES} are the limit"
                )
            self._groups[name] = GroupControl(name, members, self._store, _within)

    def _pace_of(self, copy_rate: int | None) -> CopyPace:
        """None: what all pairs without a rate of their own share."""
        return self._pace if copy_rate is None else _pace(copy_rate)

    async def _start_portals(self) -> None:
        config = self._config
        self._portal = IscsiPortal(TargetDescription(config.iqn), self._server, access=self._access)
        self._server.transports.append(self._portal)
        groups = every_group(config.portals, config.portal_groups)
        self._server.port_groups.replace({group.tag: group.access_state for group in groups})
        for group in groups:
            self._portal.redirect(group.tag, group.redirect)
        for group in groups:
            for address in group.portals:
                bound = await self._portal.start(format_address(address), group.tag)
                self.urls += [f"iscsi://{bound}/{config.iqn}/{lun}" for lun in sorted(self._units)]

    async def reload(self, config: ArrayConfig) -> None:
        """Take over what may change while the array runs: volumes, access, copy rates, groups' states.

        Raises UserError when anything else has changed or cannot be had; then all is as before, but for volumes that
        had grown already.
        """
        assert self._portal is not None
        changes = volume_changes(self._config, config)
        growing = [(volume, size) for volume in changes.kept if (size := self._growth(volume, config)) is not None]
        rules = load_access_rules(config.access)
        opened: dict[str, FileVolume | MemoryVolume] = {}
        try:
            for volume in changes.added:
                opened[volume.name] = self._open_volume(volume)
            for volume, size in growing:
                await self._grow(volume, size)
            for volume in changes.removed:
                await self._remove(volume)
        except BaseException:
            await asyncio.gather(*(volume.close() for volume in opened.values()))
            raise
        for volume in changes.added:
            self._volumes[volume.name] = opened[volume.name]
            self._units[volume.lun] = self._unpaired_unit(volume, opened[volume.name])
            self._operations.resume(self._units[volume.lun])
            self._server.inventory_changed(volume.lun)
            log.info("volume %s is there: LUN %d", volume.name, volume.lun)
        old, self._config = self._config, config
        self._access.rules = rules
        self._portal.check_access()
        self._server.set_access_states(state_changes(old, config))
        self._pace.bytes_per_second = config.copy_rate
        for name, rate in changed_copy_rates(old, config).items():
            self._controls[name].half.pace = self._pace_of(rate)
        for group in every_group(config.portals, config.portal_groups):
            self._portal.redirect(group.tag, group.redirect)

    def _growth(self, config: VolumeConfig, new: ArrayConfig) -> int | None:
        """The size that the volume grows to; None: it does not."""
        volume = self._volumes[config.name]
        pair = next((pair.name for pair in self._config.pairs if pair.volume == config.name), None)
        file_bytes = volume.file_bytes() if isinstance(volume, FileVolume) else volume.size_bytes
        size = checked_growth(config, volume.size_bytes, file_bytes, new.source, pair)
        return None if size == volume.size_bytes else size

    async def _grow(self, config: VolumeConfig, size_bytes: int) -> None:
        volume = self._volumes[config.name]
        await volume.grow(size_bytes)
        self._units[config.lun].capacity_changed()
        log.info("volume %s has grown to %d bytes", config.name, size_bytes)

    async def _remove(self, config: VolumeConfig) -> None:
        """Its commands end by themselves, and are answered, or are aborted; then it is closed."""
        unit = self._units.pop(config.lun)
        self._server.inventory_changed(config.lun)
        try:
            await self._end_work(unit)
        except asyncio.CancelledError:  # the array stops: it closes this one as it does the others
            self._units[config.lun] = unit
            raise
        try:
            await self._volumes.pop(config.name).close()
        except VolumeError as error:
            log.error("volume %s at its removal: %s", config.name, error)
        log.info("volume %s is gone: LUN %d", config.name, config.lun)

    async def _end_work(self, unit: LogicalUnit) -> None:
        try:
            async with asyncio.timeout(REMOVAL_TIMEOUT):
                await self._server.drained(unit)
        except TimeoutError:
            await self._server.abort_all(unit)
        await self._operations.detach(unit)

    async def stop(self, *, gracefully: bool = False) -> None:
        """Portals first: what was acknowledged is in the volumes when they close.

        ``gracefully``: initiators are asked to log out, and have a second for it.
        """
        if self._portal is not None:
            await self._portal.stop(gracefully=gracefully)
        for unit in self._units.values():
            await self._operations.detach(unit)
        if self._link is not None:
            await self._link.stop()
        for group in self._groups.values():
            await group.stop()
        for control in self._controls.values():
            await control.stop()
        if self._events is not None:
            await self._events.stop()
        if self._meeting is not None:
            await asyncio.gather(self._meeting, return_exceptions=True)
        await self._close_volumes()
        for bitmap in self._bitmaps:
            bitmap.close()
        if self._store is not None:
            self._store.close()

    async def _close_volumes(self) -> None:
        gate = asyncio.Semaphore(16)  # side by side: a thousand flushes one after the other would take seconds

        async def close(volume: FileVolume | MemoryVolume) -> None:
            async with gate:
                try:
                    await volume.close()
                except VolumeError as error:
                    log.error("at the end: %s", error)

        await asyncio.gather(*(close(volume) for volume in self._volumes.values()))

    # ----------------------------------------------------------------------------------------------- the other array

    def _known_peer(self) -> str | None:
        """The identity that the other array must have: that of the one which the pairs here were made with."""
        paired = any(half.role is not PairRole.SMPL or half.register.in_doubt for half in self._halves())
        return self._peer_identity if paired else None

    def _halves(self) -> list[PairHalf]:
        return [control.half for control in self._controls.values()]

    def _link_opened(self, hello: Hello) -> None:
        if self._store is None or hello.identity == self._peer_identity:
            self._meet(hello)
        else:
            self._meeting = asyncio.create_task(self._meet_anew(hello, self._store))

    async def _meet_anew(self, hello: Hello, store: MetadataStore) -> None:
        """Durable first: after a vote and a crash, another one by this serial number would pass for this one."""
        await store.save_peer(hello.serial, hello.identity)
        self._peer_identity, self._meeting = hello.identity, None
        self._meet(hello)

    def _meet(self, hello: Hello) -> None:
        offers = {offer.name: offer for offer in hello.pairs}
        for name, control in self._controls.items():
            if control.group is None:
                offer = offers.get(name)
                if offer is not None and offer.group:
                    log.error("pair %s is in group %s at array %s, and alone here", name, offer.group, hello.serial)
                    offer = None
                control.link_opened(offer)
        for group in self._groups.values():
            group.link_opened(offers)

    async def _link_lost(self, reason: str) -> None:
        if self._meeting is not None:  # the pairs hear of the link before they hear of its loss
            await asyncio.wait([self._meeting])
            self._meeting = None
        await asyncio.gather(*(control.link_lost(reason) for control in self._controls.values()))

    def _write_now(self, frame: Frame) -> bool:
        control = self._by_ldev.get(frame.pair)
        return control is not None and control.secondary.write_now(frame)

    async def _received(self, frame: Frame) -> None:
        if self._meeting is not None:
            await asyncio.shield(self._meeting)
        control = self._by_ldev.get(frame.pair)
        if control is not None:
            await control.receive(frame)
        elif self._link is not None:
            self._link.send(Frame(FrameType.ANSWER, request=frame.request, flags=Answer.NO_SUCH_PAIR))

    def _publish(self, half: PairHalf) -> None:
        if self._events is not None:
            self._events.publish(half.status())
