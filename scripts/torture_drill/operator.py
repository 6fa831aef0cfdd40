"""The person with pairctl: disturbs pairs while they are tortured, and brings every pair back to PAIR."""

import asyncio
from random import Random

from initiator_shim.pair_client import PairRefused, pair_control
from initiator_shim.session_errors import SessionError
from scripts.torture_drill.cluster_hosts import Witness
from scripts.torture_drill.journal import Journal
from scripts.torture_drill.ownership_history import Answer, Request
from scripts.torture_drill.stage import Stage, until
from scripts.torture_drill.volumes import QUORUM, SITES, VOLUMES, PairedVolume
from scripts.torture_drill.writers import TorturedVolume
from storage_model.pair_state import PairRole, PairState, Refusal
from storage_model.spec.pair_cdb import PairControlOut, PairOption, PairOut, PairStatus
from storage_model.spec.scsi_sense import SenseKey

_SECONDS = 5.0
_REPAIR_SECONDS = 30.0
_THINK_SECONDS = 0.1
_SPLIT_WRITABLE = 0.25
_GOOD = {PairRole.P_VOL: PairOption.GOOD_P_VOL, PairRole.S_VOL: PairOption.GOOD_S_VOL}


class Operator:
    """Has sessions of his own with both arrays. ``writers`` tells which writers' blocks belong to a site."""

    def __init__(
        self,
        stage: Stage,
        volumes: dict[str, TorturedVolume],
        writers: dict[str, set[int]],
        witness: Witness,
        journal: Journal,
    ) -> None:
        self._stage = stage
        self._volumes = volumes
        self._writers = writers
        self._witness = witness
        self._journal = journal

    async def create_all(self) -> None:
        """At the very beginning; the volumes are empty."""
        for volume in VOLUMES:
            await self._ask(volume.p_site, volume, PairControlOut(PairOut.CREATE))
            await self.until_paired(volume)

    async def until_paired(self, volume: PairedVolume) -> None:
        """At both arrays. Raises NotInTime."""
        for site in SITES:

            async def paired(site: str = site) -> bool:
                return (await self._stage.sites[site].status(volume)).state is PairState.PAIR

            await until(paired, _REPAIR_SECONDS, f"{volume.name} in PAIR at array {site}")

    # ------------------------------------------------------------------------------------------------- disturbances

    async def arm(self) -> None:
        """Figure 10: the next RESERVE of the quorum volume is a race."""
        await self._try(SITES[0], QUORUM, PairControlOut(PairOut.SPLIT))

    async def run(self, stop: asyncio.Event, random: Random) -> None:
        """Splits, resyncs and swaps at random until ``stop``."""
        while not stop.is_set():
            volume, site = random.choice(VOLUMES), random.choice(SITES)
            draws = random.random(), random.random()
            try:
                await self._disturb(volume, site, *draws)
            except SessionError as error:
                self._journal.note("operator fails:", error)
            await asyncio.sleep(_THINK_SECONDS * random.uniform(0.2, 1.8))

    async def _disturb(self, volume: PairedVolume, site: str, chance: float, writable: float) -> None:
        status = await self._stage.sites[site].status(volume)
        tortured = self._volumes[volume.name]
        if status.state in (PairState.PAIR, PairState.COPY):
            if volume is QUORUM or writable > _SPLIT_WRITABLE:
                await self._try(site, volume, PairControlOut(PairOut.SPLIT))
            elif not tortured.blocks.diverged:
                # Whatever comes of it: from here on both volumes count as written.
                tortured.blocks.split_for_writes()
                if await self._try(site, volume, PairControlOut(PairOut.SPLIT, PairOption.S_VOL_WRITABLE)):
                    tortured.blocks.is_split()
        elif status.state is PairState.PSUS and not tortured.blocks.diverged and chance < 0.8:
            verb = PairOut.RESYNC if status.role is PairRole.P_VOL else PairOut.SWAP_RESYNC
            await self._try(site, volume, PairControlOut(verb))

    async def _try(self, site: str, volume: PairedVolume, command: PairControlOut) -> bool:
        try:
            await self._ask(site, volume, command)
        except SessionError as error:
            self._journal.note("operator fails:", volume.name, command.service_action.name, error)
            return False
        return True

    async def _ask(self, site: str, volume: PairedVolume, command: PairControlOut) -> None:
        """Raises PairRefused, or another SessionError."""
        self._journal.note("operator at", site, volume.name, command.service_action.name, repr(command.options))
        verb = command.service_action
        self._journal.counts[f"operator {verb.name.replace('_', ' ').lower()}"] += 1
        request = {PairOut.SPLIT: Request.SPLIT, PairOut.RESYNC: Request.RESYNC, PairOut.SWAP_RESYNC: Request.RESYNC}
        port = self._stage.sites[site].operator
        if volume is not QUORUM or verb not in request:
            await pair_control(port, volume.lun, command, b"", _SECONDS)
            return
        await port.session()
        number, answer = self._witness.begin(request[verb], "operator"), Answer.UNKNOWN
        try:
            await pair_control(port, volume.lun, command, b"", _SECONDS)
            answer = Answer.DONE
        except PairRefused as refused:
            if refused.sense is not None and refused.sense.sense_key == SenseKey.ILLEGAL_REQUEST:
                answer = Answer.REFUSED
            raise
        finally:
            self._witness.end(number, request[verb], "operator", answer)

    # ------------------------------------------------------------------------------------------------------ repairs

    async def repair(self, random: Random) -> None:
        """Every data pair to PAIR, at both arrays. Raises NotInTime."""
        for volume in VOLUMES:
            if volume is not QUORUM:
                await self.repair_one(volume, random)

    async def repair_one(self, volume: PairedVolume, random: Random) -> None:
        """Hosts go on writing, unless an operator has to say which writes are given up."""
        tortured = self._volumes[volume.name]
        if tortured.blocks.diverged:
            await tortured.shut()
        try:
            await until(lambda: self._step(volume, random), _REPAIR_SECONDS, f"{volume.name} brought to PAIR")
            if tortured.blocks.diverged:
                tortured.blocks.reunited()
        finally:
            tortured.gate.set()

    async def _step(self, volume: PairedVolume, random: Random) -> bool:
        """One verb, where it needs one; True when both arrays are in PAIR. Raises SessionError."""
        statuses = {name: await site.status(volume) for name, site in self._stage.sites.items()}
        if all(status.state is PairState.PAIR for status in statuses.values()):
            return True
        site = random.choice(SITES)
        status = statuses[site]
        if status.state is PairState.PSUE:
            await self._recover(site, volume, status)
        elif status.state is PairState.PSUS:
            await self._resync(site, volume, status, random)
        return False

    async def _recover(self, site: str, volume: PairedVolume, status: PairStatus) -> None:
        """The P-VOL is good, unless the array says that only the S-VOL is complete."""
        for good in (PairRole.P_VOL, PairRole.S_VOL):
            try:
                await self._name(site, volume, PairOut.RESYNC, status, good)
                return
            except PairRefused as refused:
                if refused.refusal is not Refusal.SUSPENDED_BY_ERROR:
                    raise

    async def _resync(self, site: str, volume: PairedVolume, status: PairStatus, random: Random) -> None:
        verb = PairOut.RESYNC if status.role is PairRole.P_VOL else PairOut.SWAP_RESYNC
        if volume is QUORUM and verb is PairOut.SWAP_RESYNC:
            return  # an owned one is not swapped
        if self._volumes[volume.name].blocks.diverged:
            await self._name(site, volume, verb, status, random.choice((PairRole.P_VOL, PairRole.S_VOL)))
        else:
            await self._ask(site, volume, PairControlOut(verb))

    async def _name(self, site: str, volume: PairedVolume, verb: PairOut, status: PairStatus, good: PairRole) -> None:
        """A side is named by its present role, in the epoch in which that was seen."""
        blocks = self._volumes[volume.name].blocks
        if blocks.diverged:
            loser = site if good is not status.role else next(name for name in SITES if name != site)
            blocks.discard(self._writers[loser])
        await self._ask(site, volume, PairControlOut(verb, _GOOD[good], expected_epoch=status.epoch))
