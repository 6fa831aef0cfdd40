"""What is asked of the arrays and nodes after the failure, and made into checks."""

import asyncio
from dataclasses import replace

from initiator_shim.session_errors import SessionError
from scripts.failover_drill import checks
from scripts.failover_drill.checks import Check, Statuses, owner_site
from scripts.failover_drill.disk import CommandFailed, Disk, describe
from scripts.failover_drill.node_protocol import Event, Fields, Order
from scripts.failover_drill.records import RECORD_BYTES, Record, records_in
from scripts.failover_drill.scenario import (
    DATA_PAIRS,
    EXPECTATIONS,
    NUMBERS,
    QUORUM,
    Failure,
    PairedVolume,
    Site,
)
from scripts.failover_drill.stage import Stage

_READ_BLOCKS = 512
_INTRUDER_BLOCK = 2
"""Nobody else writes this block of the quorum volume."""


class Proof:
    """``before`` is the quorum pair in Figure 11, ``marks`` the number of events of each node when the failure came."""

    def __init__(self, stage: Stage, failure: Failure, owner: Site, before: Statuses, marks: dict[Site, int]) -> None:
        self.expectation = EXPECTATIONS[failure, owner]
        self.marks = marks
        self._stage = stage
        self._owner = owner
        self._before = before
        self._before_counts = {volume: len(numbers) for volume, numbers in stage.acknowledged().items()}
        self._quiesced: dict[Site, Fields] = {}

    def _good(self) -> list[Site]:
        """The sites whose RESERVE after the failure was answered GOOD."""
        return [
            site
            for site, node in self._stage.nodes.items()
            if any(event["event"] == Event.RESERVE and event["good"] for event in node.events[self.marks[site] :])
        ]

    async def quiesce(self) -> None:
        """Applications stop, so that what is on the volumes can be counted."""
        deadline = self._stage.timing.step_deadline
        living = [site for site in Site if self._stage.host_lives(site)]
        answers = await asyncio.gather(*(self._stage.nodes[site].order(Order.QUIESCE, deadline) for site in living))
        self._quiesced = dict(zip(living, answers, strict=True))

    async def checks(self) -> list[Check]:
        """Everything that must hold, in the order in which a reader wants it."""
        good = self._good()
        after = await self._stage.statuses(QUORUM)
        winner = good[0] if len(good) == 1 else None
        found = [checks.failure_outcome(self.expectation, self._owner, good)]
        found.append(checks.ownership_after(self.expectation, self._before, after, winner))
        if all(self._stage.array_lives(site) for site in Site):
            found.append(checks.arrays_agree(after))
        found += self._parts_played(winner)
        found += await self._writes_refused(owner_site(after))
        found.append(checks.states_are("Figure 13, quorum pair", frozenset({self.expectation.quorum}), after))
        for pair in DATA_PAIRS:
            statuses = await self._stage.statuses(pair)
            name = f"Figure 13, data pair {pair.title}"
            found.append(checks.states_are(name, frozenset({self.expectation.data}), statuses))
        found += await self._records(winner)
        return found

    def _parts_played(self, winner: Site | None) -> list[Check]:
        """The winner runs what it should and renews its ownership; everybody else has stopped its applications."""
        found = []
        for site, answer in self._quiesced.items():
            host = f"host {NUMBERS[site].host}"
            if site is not winner:
                detail = f"it is {answer['part']}"
                found.append(Check(f"{host} stopped its applications and left", answer["part"] == "retired", detail))
                continue
            detail = f"{answer['renewals']} renewals since, it is {answer['part']}"
            found.append(
                Check(
                    f"{host} still owns: its renewals are GOOD",
                    answer["part"] == "owner" and answer["renewals"] > 0,
                    detail,
                )
            )
            found.append(self._applications_go_on(site))
        return found

    def _applications_go_on(self, winner: Site) -> Check:
        """Records were acknowledged after the failure, on both volumes or on the winner's own."""
        counts = {volume: len(numbers) for volume, numbers in self._stage.acknowledged().items()}
        volumes = [pair.p_volume for pair in DATA_PAIRS if self.expectation.takeover or pair.home is winner]
        new = {volume: counts.get(volume, 0) - self._before_counts.get(volume, 0) for volume in volumes}
        what = "both applications" if self.expectation.takeover else "its own application"
        detail = ", ".join(f"{count} new records on {volume}" for volume, count in new.items())
        return Check(f"host {NUMBERS[winner].host} continues {what}", all(count > 0 for count in new.values()), detail)

    async def _writes_refused(self, owner: Site | None) -> list[Check]:
        """Nobody but the owner writes to the quorum volume: not the loser, nor anybody who goes around the shims."""
        found = []
        deadline = self._stage.timing.step_deadline
        for site in self._quiesced:
            if site is not owner and self._stage.array_lives(site):
                answer = await self._stage.nodes[site].order(Order.WRITE_QUORUM, deadline)
                found.append(checks.refused(f"host {NUMBERS[site].host}", answer["status"]))
        intruder = Record(QUORUM.p_volume, 0, 0).encode()
        for site in filter(self._stage.array_lives, Site):
            outcome = await self._stage.views[site].disks[QUORUM.lun].try_write(_INTRUDER_BLOCK, intruder)
            found.append(checks.refused(f"a stranger, straight to array {NUMBERS[site].array},", describe(outcome)))
        return found

    async def _records(self, winner: Site | None) -> list[Check]:
        """Read every acknowledged record back: at the winner's array, which took over, else where each was written."""
        acknowledged = self._stage.acknowledged()
        found = []
        for pair in DATA_PAIRS:
            numbers = acknowledged.get(pair.p_volume, set())
            where = winner if self.expectation.takeover and winner is not None else pair.home
            if self._stage.array_lives(where):
                found.append(await self._readable_at(where, pair, numbers))
            else:
                found.append(self._surviving_copy(pair, numbers))
        return found

    async def checks_after_repair(self, quorum: Statuses) -> list[Check]:
        """Nothing moved while the arrays were apart, and nothing was lost: each array has every record."""
        found = [checks.arrays_agree(quorum)]
        owner = owner_site(quorum)
        found.append(Check("the owner is still the same", owner is self._owner, checks.owner_words(owner)))
        acknowledged = self._stage.acknowledged()
        found += [
            await self._readable_at(site, pair, acknowledged.get(pair.p_volume, set()))
            for pair in DATA_PAIRS
            for site in Site
        ]
        return [replace(check, name=f"after the repair: {check.name}") for check in found]

    async def _readable_at(self, site: Site, pair: PairedVolume, numbers: set[int]) -> Check:
        records = await self._read(site, pair, max(numbers, default=0))
        return checks.records_readable(pair.p_volume, numbers, records, f"array {NUMBERS[site].array}")

    def _surviving_copy(self, pair: PairedVolume, acknowledged: set[int]) -> Check:
        """The S-VOL of a dead array's P-VOL has every record that was acknowledged.

        It may not be read while the pair is suspended by an error, since nobody said that it is the good side; so this
        looks into the file behind it, as an operator who considers to say so would want to.
        """
        survivor = pair.home.other
        data = self._stage.volume_file(survivor, pair).read_bytes()[: (max(acknowledged, default=0) + 1) * RECORD_BYTES]
        records = {record.sequence for record in records_in(data, pair.p_volume, 0) if record is not None}
        place = f"array {NUMBERS[survivor].array}, in the file of volume {pair.number_at(survivor)}"
        return checks.records_readable(pair.p_volume, acknowledged, records, place)

    async def _read(self, site: Site, pair: PairedVolume, last: int) -> set[int]:
        """The numbers of the records found on the pair's volume at this array, up to ``last``."""
        disk: Disk = self._stage.views[site].disks[pair.lun]
        found: set[int] = set()
        for first in range(0, last + 1, _READ_BLOCKS):
            try:
                data = await disk.read(first, min(_READ_BLOCKS, last + 1 - first))
            except (CommandFailed, SessionError):
                continue  # what cannot be read counts as missing, and the check says which
            found |= {record.sequence for record in records_in(data, pair.p_volume, first) if record is not None}
        return found
