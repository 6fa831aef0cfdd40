"""Checks consistency groups (I9): decided as one, suspended as one, and each suspended S-VOL an image of that moment.

An array keeps what concerns several pairs in one transaction: each is looked at when it is durable. The image is seen
by writes that depend on one another: a step is written to the log, and when that is acknowledged to the data; the next
step begins when that is acknowledged as well. So the log is never behind the data, nor ahead by more than a step.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from scripts.simulation.journal import Journal
from scripts.simulation.ledger import Ledger
from storage_model.pair import PairEpoch, PairRecord
from storage_model.pair_state import PairState

LOG, DATA = "log0", "data0"
_SUSPENDED = (PairState.PSUS, PairState.PSUE)


def lba_of(writer: int) -> int:
    """The block of the log, and of the data, that only this writer writes."""
    return 64 + 2 * writer


Epochs = tuple[int, int]
"""Of the log and of the data."""


@dataclass(frozen=True)
class _Done:
    """The last step of a writer that is acknowledged on both, while both pairs were in PAIR in these epochs."""

    step: int
    serial: str
    epochs: Epochs


class Groups:
    """``pairs`` is the group; ``number_at`` reads the number that an array's volume has at an LBA;
    ``mirrors`` tells whether an array has the P-VOL of a pair that mirrors, which it may know before it is durable."""

    def __init__(
        self,
        journal: Journal,
        ledger: Ledger,
        serials: tuple[str, str],
        pairs: tuple[str, ...],
        number_at: Callable[[str, str, int], int],
        mirrors: Callable[[str, str], bool],
    ) -> None:
        self._journal = journal
        self._ledger = ledger
        self._serials = serials
        self._pairs = pairs
        self._number_at = number_at
        self._mirrors = mirrors
        self._ballots: dict[tuple[str, int], dict[str, PairEpoch]] = {}
        self._steps: dict[int, int] = {0: 0}
        self._done: dict[int, _Done] = {}
        self._suspended: tuple[str, Epochs] | None = None
        """The array with the P-VOLs, and the epochs, in which log and data were suspended as one."""
        self.images = 0
        """Looks at steps of a suspended group's S-VOLs."""

    # ----------------------------------------------------------------------------------------- what arrays make durable

    def saved(self, serial: str, before: Mapping[str, PairRecord], records: Mapping[str, PairRecord]) -> None:
        """One transaction of an array: what it changes, and what there was."""
        changed = {pair: record for pair, record in records.items() if pair in self._pairs}
        if not changed or len(self._pairs) < 2:
            return
        self._check_ballots(serial, changed)
        self._check_suspension(serial, {pair: before[pair] for pair in self._pairs}, changed)

    def _check_ballots(self, serial: str, changed: Mapping[str, PairRecord]) -> None:
        """Votes and decisions of a group come with those of all its pairs that they are about."""
        votes = {pair: r.accepted for pair, r in changed.items() if r.accepted is not None and r.accepted.group}
        if votes and (next(iter(votes)), next(iter(votes.values())).epoch) not in self._ballots:
            for pair, value in votes.items():
                self._ballots[pair, value.epoch] = votes
        for pair, record in changed.items():
            ballot = self._ballots.get((pair, record.decided.epoch), {})
            if ballot.get(pair) != record.decided:
                continue  # decided alone, or by an operator's force in its place
            for other, value in ballot.items():
                epoch = self._ledger.record(other, serial).decided.epoch
                if epoch < value.epoch and not self._ledger.truth(other).outdated:
                    self._journal.violated(
                        f"array {serial} has epoch {value.epoch - 1} of {other}, but of {pair}, which was decided with"
                        f" the next one, epoch {record.decided.epoch}"
                    )

    def _check_suspension(
        self, serial: str, before: Mapping[str, PairRecord], changed: Mapping[str, PairRecord]
    ) -> None:
        """A fault at the P-VOLs takes all pairs that mirror from there along: what follows is at none of the S-VOLs."""
        faulty = {
            pair
            for pair, record in changed.items()
            if record.state is PairState.PSUE
            and before[pair].state in (PairState.COPY, PairState.PAIR)
            and record.decided == before[pair].decided
            and self._mirrors(pair, serial)
        }
        left = {
            pair
            for pair in self._pairs
            if faulty and pair not in faulty and before[pair].decided.p_serial == serial and self._mirrors(pair, serial)
        }
        if left:
            self._journal.violated(
                f"array {serial} suspends {sorted(faulty)} by an error, and {sorted(left)} mirrors on"
            )
        if LOG not in self._pairs or not {LOG, DATA} & changed.keys():
            return
        log, data = (changed.get(pair, before[pair]) for pair in (LOG, DATA))
        if {log.decided.p_serial, data.decided.p_serial} != {serial}:
            moved = [r for r in changed.values() if r.state not in _SUSPENDED or r.decided.p_serial == serial]
            if moved or (self._suspended is not None and self._suspended[0] == serial):
                self._mirrors_again()
            return
        as_one = {LOG, DATA} <= changed.keys() and all(before[pair].state is PairState.PAIR for pair in (LOG, DATA))
        if as_one and log.state is data.state and log.state in _SUSPENDED:
            self._suspended = serial, (before[LOG].decided.epoch, before[DATA].decided.epoch)
        elif not (log.state in _SUSPENDED and data.state in _SUSPENDED and log.state is data.state):
            self._mirrors_again()

    # -------------------------------------------------------------------------------------------- writes in their order

    def step(self, value: int, step: int) -> None:
        """The number of a write, and whose step of its writer it is."""
        self._steps[value] = step

    def mirroring(self, serial: str) -> Epochs | None:
        """In which epochs both pairs are in PAIR, with their P-VOLs at an array."""
        log, data = (self._ledger.record(pair, serial) for pair in (LOG, DATA))
        whole = all(each.state is PairState.PAIR and each.decided.p_serial == serial for each in (log, data))
        return (log.decided.epoch, data.decided.epoch) if whole else None

    def done(self, writer: int, step: int, serial: str, logged: Epochs | None) -> None:
        """Acknowledged on log and data; ``logged`` is what :meth:`mirroring` said when it was on the log."""
        if logged is not None and self.mirroring(serial) == logged:
            self._done[writer] = _Done(step, serial, logged)

    def _mirrors_again(self) -> None:
        """Or is about to: the last look at the image."""
        self.check()
        self._suspended = None

    def check(self) -> None:
        """While the group is suspended: the S-VOLs."""
        if self._suspended is None:
            return
        serial, epochs = self._suspended
        other = next(each for each in self._serials if each != serial)
        for writer, done in self._done.items():
            if done.serial != serial or done.epochs != epochs:
                continue
            log, data = (self._steps.get(self._number_at(other, pair, lba_of(writer)), -1) for pair in (LOG, DATA))
            self.images += 1
            if not data <= log <= data + 1:
                self._journal.violated(
                    f"the suspended S-VOLs at array {other} are no image of one moment: the log is at step {log}, the"
                    f" data at step {data}, acknowledged were {done.step}"
                )
