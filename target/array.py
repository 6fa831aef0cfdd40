"""The composition root: builds one array out of its configuration, starts it and stops it. [IO]"""

import asyncio
import logging
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from storage_model.differential_bitmap import DifferentialBitmap
from storage_model.errors import UserError
from storage_model.pair import PairRecord
from storage_model.pair_state import PairRole, PairState
from storage_model.spec.copy_frames import Answer, Frame, FrameType, Hello, PairOffer
from storage_model.volume import Volume, VolumeError
from target.config import ArrayConfig, PairConfig, VolumeConfig, parse_broker
from target.event_bus import EventBus
from target.iscsi.events import TargetDescription
from target.iscsi.portal import IscsiPortal
from target.metadata_store import MetadataStore
from target.remote_copy.link_transport import LinkTransport
from target.remote_copy.pair_control import PairControl
from target.remote_copy.pair_half import PairHalf, PairIdentity
from target.remote_copy.paired_volume import PairedVolume
from target.remote_copy.primary_volume import PrimaryVolume
from target.remote_copy.region_marks import RegionMarks
from target.remote_copy.secondary_volume import SecondaryVolume
from target.scsi.device_server import DeviceServer
from target.scsi.logical_unit import LogicalUnit, UnitIdentity
from target.volumes.bitmap_file import BitmapFile
from target.volumes.file_volume import FileVolume
from target.volumes.memory_volume import MemoryVolume

log = logging.getLogger("pairvol.array")

MAX_PAIRED_BYTES = 4 << 40
"""Of a volume with a pair: its differential bitmap travels to the other array in one frame."""

T = TypeVar("T")


async def _within(task: "asyncio.Task[T]", seconds: float) -> T:
    """Wait for the task, not longer than so many seconds; the task itself goes on."""
    return await asyncio.wait_for(asyncio.shield(task), seconds)


class Array:
    """One storage array: volumes, pairs, the link to the other array, and the iSCSI portals.

    ``start`` opens everything and raises UserError; ``stop`` closes everything. ``urls`` lists the LUNs once started.
    """

    def __init__(self, config: ArrayConfig) -> None:
        self._config = config
        self._state_dir = Path(config.state_dir) if config.state_dir is not None else None
        self._units: dict[int, LogicalUnit] = {}
        self._volumes: list[Volume] = []
        self._bitmaps: list[BitmapFile] = []
        self._controls: dict[str, PairControl] = {}
        self._by_ldev: dict[int, PairControl] = {}
        self._store: MetadataStore | None = None
        self._link: LinkTransport | None = None
        self._events: EventBus | None = None
        self._portal: IscsiPortal | None = None
        self._peer_identity: str | None = None
        self._meeting: asyncio.Task[None] | None = None
        self.urls: list[str] = []

    async def start(self) -> None:
        """Volumes first, the portals last: nobody is served by half an array."""
        config = self._config
        try:
            self._open_state()
            if config.broker is not None:
                self._events = EventBus(*parse_broker(config.broker, "events.broker"), config.serial)
                self._events.start()
            pairs = {pair.volume: pair for pair in config.pairs}
            self._link = self._make_link()
            for volume in config.volumes:
                self._add_unit(volume, pairs.get(volume.name))
            for control in self._controls.values():
                await control.half.marks.save()
                await control.start()
                self._publish(control.half)
            if self._link is not None and config.remote_copy is not None:
                await self._link.start(config.remote_copy.listen, config.remote_copy.peer)
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

    def _make_link(self) -> LinkTransport | None:
        remote_copy = self._config.remote_copy
        if remote_copy is None:
            return None
        assert self._store is not None
        hello = Hello(self._config.serial, remote_copy.peer_serial, (), identity=self._store.identity)
        self._peer_identity = self._store.load_peer(remote_copy.peer_serial)
        return LinkTransport(hello, self._link_opened, self._link_lost, self._received, self._known_peer)

    def _add_unit(self, config: VolumeConfig, pair: PairConfig | None) -> None:
        assert self._store is not None
        if pair is not None:
            self._check_not_lost(config, pair, self._store.load_pair(pair.name))
        volume = self._open_volume(config)
        self._volumes.append(volume)
        if pair is None:
            serial = sha256(f"{self._config.iqn} {config.name} {config.file or ''}".encode()).hexdigest()[:16]
            self._units[config.lun] = LogicalUnit(config.lun, volume, UnitIdentity(serial))
            return
        half, control = self._make_pair(config, pair, volume)
        paired = PairedVolume(half, control.primary, control.secondary)
        # Both halves have the same identity: the hosts see one volume (claim 5).
        serials = sorted((half.identity.serial, half.identity.peer_serial))
        serial = sha256(f"{serials[0]} {serials[1]} {pair.name}".encode()).hexdigest()[:16]
        self._units[config.lun] = LogicalUnit(config.lun, paired, UnitIdentity(serial), control)

    def _open_volume(self, config: VolumeConfig) -> Volume:
        if config.file is None:
            assert config.size_bytes is not None, "the configuration gives a volume in memory its size"
            return MemoryVolume(config.size_bytes, config.block_length)
        create = config.size_bytes is not None
        return FileVolume.open(self._path(config.file), config.size_bytes, config.block_length, create=create)

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

    def _make_pair(self, config: VolumeConfig, pair: PairConfig, volume: Volume) -> tuple[PairHalf, PairControl]:
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
        if not file.load(bitmap) and record.state is not PairState.SMPL:
            log.warning("pair %s: its bitmap is missing, so every region counts as different", pair.name)
            bitmap.mark_all()
        marks = RegionMarks(bitmap, file)
        half = PairHalf(identity, volume, record, marks, self._store, self._link, self._publish)
        control = PairControl(half, PrimaryVolume(half), SecondaryVolume(half), _within)
        self._controls[pair.name] = self._by_ldev[config.ldev] = control
        offer = PairOffer(pair.name, config.ldev, volume.size_bytes, volume.block_length, config.quorum)
        self._link.offer(offer)
        return half, control

    async def _start_portals(self) -> None:
        config = self._config
        server = DeviceServer(self._units, target_iqn=config.iqn)
        self._portal = IscsiPortal(TargetDescription(config.iqn), server)
        for host, port in config.portals:
            address = await self._portal.start(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
            self.urls += [f"iscsi://{address}/{config.iqn}/{lun}" for lun in sorted(self._units)]

    async def stop(self) -> None:
        """Portals first: what was acknowledged is in the volumes when they close."""
        if self._portal is not None:
            await self._portal.stop()
        if self._link is not None:
            await self._link.stop()
        for control in self._controls.values():
            await control.stop()
        if self._events is not None:
            await self._events.stop()
        if self._meeting is not None:
            await asyncio.gather(self._meeting, return_exceptions=True)
        for volume in self._volumes:
            try:
                await volume.close()
            except VolumeError as error:
                log.error("at the end: %s", error)
        for bitmap in self._bitmaps:
            bitmap.close()
        if self._store is not None:
            self._store.close()

    # ----------------------------------------------------------------------------------------------- the other array

    def _known_peer(self) -> str | None:
        """The identity that the other array must have: that of the one which the pairs here were made with."""
        paired = any(half.role is not PairRole.SMPL or half.register.in_doubt for half in self._halves())
        return self._peer_identity if paired else None

    def _halves(self) -> list[PairHalf]:
        return [control.half for control in self._controls.values()]

    def _link_opened(self, hello: Hello) -> None:
        if self._store is not None and hello.identity != self._peer_identity:
            self._peer_identity = hello.identity
            self._meeting = asyncio.create_task(self._store.save_peer(hello.serial, hello.identity))
        offers = {offer.name: offer for offer in hello.pairs}
        for name, control in self._controls.items():
            control.link_opened(offers.get(name))

    async def _link_lost(self, reason: str) -> None:
        await asyncio.gather(*(control.link_lost(reason) for control in self._controls.values()))

    async def _received(self, frame: Frame) -> None:
        control = self._by_ldev.get(frame.pair)
        if control is not None:
            await control.receive(frame)
        elif self._link is not None:
            self._link.send(Frame(FrameType.ANSWER, request=frame.request, flags=Answer.NO_SUCH_PAIR))

    def _publish(self, half: PairHalf) -> None:
        if self._events is not None:
            self._events.publish(half.status())
