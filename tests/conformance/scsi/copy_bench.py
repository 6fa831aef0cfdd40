"""Three units for copies: LUN 0 and 1 with 512-byte blocks, LUN 2 with 4096; the commands go to LUN 0."""

from dataclasses import replace

from storage_model.nexus import ITNexus
from storage_model.spec.scsi_copy import OWN_UNIT, CopyRequest, Cscd, ListIdUsage, Segment, encode_copy_request
from storage_model.spec.scsi_pages import DesignatorType
from storage_model.spec.scsi_sense import SegmentError, SenseData, decode_sense
from storage_model.spec.scsi_task import ScsiStatus
from storage_model.volume import Buffer
from target.scsi.device_server import DeviceServer
from target.scsi.logical_unit import LogicalUnit, UnitIdentity
from target.scsi.lun_mask import LunMask
from target.scsi.task import ScsiTask, TaskOutcome
from target.volumes.memory_volume import MemoryVolume
from tests.conformance.scsi.bench import NEXUS_A, NEXUS_B

SIZE = 4 << 20
PATTERN = bytes(range(256)) * (SIZE // 256)


class CopyBench:
    """Unit attentions are taken already; LUN 0 is full of ``PATTERN``."""

    def __init__(self, destination: MemoryVolume | None = None) -> None:
        volumes = (MemoryVolume(SIZE, 512), destination or MemoryVolume(SIZE, 512), MemoryVolume(SIZE, 4096))
        self.units = [LogicalUnit(lun, volume, UnitIdentity(f"30095-{lun}")) for lun, volume in enumerate(volumes)]
        self.server = DeviceServer(dict(enumerate(self.units)))
        self._tag = 0
        for nexus in (NEXUS_A, NEXUS_B):
            self.log_in(nexus)

    def log_in(self, nexus: ITNexus, mask: LunMask | None = None) -> None:
        self.server.nexus_established(nexus, mask)
        for unit in self.units:
            unit.unit_attentions.take(nexus)

    async def fill(self) -> "CopyBench":
        await self.units[0].volume.write(0, PATTERN)
        return self

    def cscd(self, lun: int, **changes: object) -> Cscd:
        """The unit by its NAA designator."""
        unit = self.units[lun]
        designators = unit.identity.unit_designators()
        naa = next(one for one in designators if one.designator_type == DesignatorType.NAA)
        return replace(Cscd(naa, unit.block_length), **changes)  # type: ignore[arg-type]

    def request(self, *segments: Segment, usage: ListIdUsage = ListIdUsage.HOLD, list_id: int = 7) -> bytes:
        """A parameter list whose CSCD descriptor n is LUN n."""
        return encode_copy_request(CopyRequest([self.cscd(lun) for lun in range(3)], segments, list_id, usage))

    def task(self, data: Buffer, nexus: ITNexus = NEXUS_A, lun: int = 0) -> ScsiTask:
        self._tag += 1
        cdb = b"\x83" + bytes(9) + len(data).to_bytes(4, "big") + b"\0\0"
        return ScsiTask(nexus, lun, self._tag, cdb, data)

    async def copy(self, data: Buffer, nexus: ITNexus = NEXUS_A, lun: int = 0) -> TaskOutcome:
        return await self.server.execute(self.task(data, nexus, lun))

    async def run(self, cdb: str, data: bytes = b"", nexus: ITNexus = NEXUS_A, lun: int = 0) -> TaskOutcome:
        self._tag += 1
        return await self.server.execute(ScsiTask(nexus, lun, self._tag, bytes.fromhex(cdb).ljust(16, b"\0"), data))

    async def good(self, *segments: Segment, nexus: ITNexus = NEXUS_A) -> None:
        outcome = await self.copy(self.request(*segments), nexus)
        assert outcome.status is ScsiStatus.GOOD, sense(outcome)

    async def refused(self, *segments: Segment, nexus: ITNexus = NEXUS_A) -> SenseData:
        return sense(await self.copy(self.request(*segments), nexus))

    async def content(self, lun: int) -> bytes:
        return bytes(await self.units[lun].volume.read(0, SIZE))


def sense(outcome: TaskOutcome) -> SenseData:
    assert outcome.status is ScsiStatus.CHECK_CONDITION, outcome
    return decode_sense(outcome.sense)


def segment_error(told: SenseData) -> SegmentError:
    assert told.segment is not None, "the sense data name no segment"
    return told.segment


def segment(source: int, destination: int, blocks: int, source_lba: int = 0, destination_lba: int = 0) -> Segment:
    return Segment(source, destination, blocks, source_lba, destination_lba)


__all__ = ["OWN_UNIT", "PATTERN", "SIZE", "CopyBench", "segment", "sense"]
