"""Initiators that write self-describing blocks to the data pairs, through the shims, and read them back."""

import asyncio
from random import Random

from initiator_shim.initiator_task import ScsiOutcome
from initiator_shim.session_errors import SessionError
from scripts.simulation.clients import Client, read_cdb, write_cdb
from scripts.torture_drill.blocks import VolumeBlocks, encode
from scripts.torture_drill.journal import Journal
from scripts.torture_drill.volumes import BLOCK, SITES, PairedVolume
from storage_model.spec.scsi_sense import SenseKey, decode_sense
from storage_model.spec.scsi_task import ScsiStatus

COMMAND_SECONDS = 5.0
_UNIT_BLOCKS = 16
_BACK_OFF_SECONDS = 0.03
_READS = 0.15


class TorturedVolume:
    """A pair and what its blocks may contain; ``gate`` is shut while nobody may begin anything."""

    def __init__(self, pair: PairedVolume) -> None:
        self.pair = pair
        self.blocks = VolumeBlocks(pair.lun)
        self.gate = asyncio.Event()
        self.gate.set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._in_flight = 0

    def __enter__(self) -> None:
        self._in_flight += 1
        self._idle.clear()

    def __exit__(self, *_: object) -> None:
        self._in_flight -= 1
        if not self._in_flight:
            self._idle.set()

    async def shut(self) -> None:
        """Returns when nothing is under way."""
        self.gate.clear()
        await self._idle.wait()


class Initiator:
    """Numbered writes and checked reads over one session; ``number`` is the writer's in its blocks."""

    def __init__(self, number: int, client: Client, journal: Journal) -> None:
        self.number = number
        self.client = client
        self._journal = journal
        self._sequence = 0

    async def write(self, volume: TorturedVolume, lbas: range) -> ScsiOutcome:
        """Raises SessionError."""
        await self.client.session()
        self._sequence += 1
        number = self._sequence
        data = b"".join(encode(volume.pair.lun, self.number, lba, number) for lba in lbas)
        volume.blocks.begin(self.number, lbas, number)
        self._journal.counts["writes"] += 1
        outcome = await self.client.execute(
            volume.pair.lun, write_cdb(lbas.start, len(lbas)), data, timeout=COMMAND_SECONDS
        )
        if outcome.status == ScsiStatus.GOOD:
            self._journal.counts["writes acknowledged"] += 1
            volume.blocks.acknowledge(lbas, number)
        elif refused_untouched(outcome):
            volume.blocks.refuse(lbas, number)
        return outcome

    async def read(self, volume: TorturedVolume, lbas: range) -> None:
        """Blocks of its own, so that nobody writes them meanwhile. Raises SessionError."""
        await self.client.session()
        length = len(lbas) * BLOCK
        outcome = await self.client.execute(
            volume.pair.lun, read_cdb(lbas.start, len(lbas)), data_in_length=length, timeout=COMMAND_SECONDS
        )
        if outcome.status != ScsiStatus.GOOD or len(outcome.data_in) != length:
            return
        self._journal.counts["reads checked"] += 1
        for index, lba in enumerate(lbas):
            wrong = volume.blocks.wrong(lba, outcome.data_in[index * BLOCK : (index + 1) * BLOCK])
            if wrong:
                self._journal.violated(f"{volume.pair.name}, read by {self.client.name}: {wrong}")


def refused_untouched(outcome: ScsiOutcome) -> bool:
    """By its status the write reached no medium."""
    if outcome.status == ScsiStatus.RESERVATION_CONFLICT:
        return True
    # Not WRITE PROTECTED: a write that a swap overtook is told so, and its own array may have it.
    check_condition = outcome.status == ScsiStatus.CHECK_CONDITION
    return check_condition and decode_sense(outcome.sense).sense_key == SenseKey.UNIT_ATTENTION


class Writer:
    """One host's writer to one data volume: has every other unit of 16 blocks to itself."""

    def __init__(
        self, site: str, initiator: Initiator, volume: TorturedVolume, journal: Journal, random: Random
    ) -> None:
        self.site = site
        self._journal = journal
        self.initiator = initiator
        self._volume = volume
        self._random = random
        units = volume.pair.size_bytes * 3 // 4 // BLOCK // _UNIT_BLOCKS  # the rest is the second client's
        self._units = range(SITES.index(site), units, len(SITES))

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop``; what is under way then is finished."""
        while not stop.is_set():
            await self._volume.gate.wait()
            with self._volume:
                try:
                    served = await self._one()
                except SessionError as error:
                    self._journal.note(self.initiator.client.name, self._volume.pair.name, "fails:", error)
                    served = False
            # At the S-VOL nothing is written, and a fault may last.
            await asyncio.sleep(0 if served else _BACK_OFF_SECONDS * self._random.uniform(0.5, 2))

    async def _one(self) -> bool:
        random = self._random
        first = random.choice(self._units) * _UNIT_BLOCKS
        begin = random.randrange(_UNIT_BLOCKS)
        lbas = range(first + begin, first + random.randint(begin + 1, _UNIT_BLOCKS))
        if random.random() < _READS:
            await self.initiator.read(self._volume, lbas)
            return True
        return (await self.initiator.write(self._volume, lbas)).status == ScsiStatus.GOOD
