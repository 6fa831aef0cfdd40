"""What an array must not forget, in SQLite: pair records with their votes, and persistent reservations. [IO]

One thread of its own does the work, since a commit waits for the medium. ``synchronous=FULL`` and one transaction per
change: what a call has returned from survives a crash of the process and of the machine.
"""

import asyncio
import logging
import sqlite3
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TypeAlias

from storage_model.errors import UserError
from storage_model.medium_operation import MediumOperation
from storage_model.pair import PairEpoch, PairRecord, decode_nexuses, encode_nexuses
from storage_model.pair_reservation import ReservationEntry, ReservationProposal, ReservationRecord
from storage_model.pair_state import PairState
from storage_model.persistent_reservation import PersistentReservation
from storage_model.volume import MediumFailure

log = logging.getLogger("pairvol.array")

_SCHEMA_VERSION = 5
_READABLE_VERSIONS = (0, 1, 2, 3, 4, _SCHEMA_VERSION)
"""0 is a new file. 1 had no reservations: it gets the table, as every table that is missing is made. 2 did not say
which file they were made on: they count for the one that has the volume's name now. 3 forgot withdrawals, and had no
reservations of pairs. 4 forgot that a swap was in doubt."""
_UPGRADES = (
    ((2,), "ALTER TABLE persistent_reservation ADD COLUMN file TEXT;"),
    ((1, 2, 3), "ALTER TABLE pair ADD COLUMN withdrawn TEXT NOT NULL DEFAULT '[]';"),
    ((1, 2, 3, 4), "ALTER TABLE pair ADD COLUMN swap_in_doubt INTEGER NOT NULL DEFAULT 0;"),
)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS pair (
    name     TEXT PRIMARY KEY,
    decided  TEXT NOT NULL,  -- the epoch's value as JSON
    state    TEXT NOT NULL,  -- SMPL, COPY, PAIR, PSUS or PSUE
    accepted TEXT,           -- this array's vote for the next epoch, while it is undecided
    equal    INTEGER NOT NULL, -- 1: the halves have been equal since the epoch began
    withdrawn TEXT NOT NULL DEFAULT '[]', -- nexuses that must not own the pair, as JSON
    swap_in_doubt INTEGER NOT NULL DEFAULT 0 -- 1: a swap out of this epoch was asked for, its outcome is unknown
) STRICT;
-- identity: drawn once; tells this array from another with the same serial number, and from itself without its memory
CREATE TABLE IF NOT EXISTS array (serial TEXT PRIMARY KEY, identity TEXT NOT NULL) STRICT;
-- what SANITIZE or FORMAT UNIT has begun on a volume and not finished, as JSON
CREATE TABLE IF NOT EXISTS operation (volume TEXT PRIMARY KEY, record TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS peer (serial TEXT PRIMARY KEY, identity TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS pair_reservation (
    name     TEXT PRIMARY KEY, -- of a pair that is not SMPL
    decided  TEXT NOT NULL,    -- the entry in force, as JSON
    accepted TEXT              -- this array's vote for the next one, while it is undecided
) STRICT;
-- while APTPL is on: registrations and what they hold, as JSON; file: the volume's, empty: in memory, NULL: any
CREATE TABLE IF NOT EXISTS persistent_reservation (volume TEXT PRIMARY KEY, state TEXT NOT NULL, file TEXT) STRICT;
"""

_Statement: TypeAlias = tuple[str, tuple[object, ...]]


class MetadataStore:
    """The metadata of one array; ``path`` None keeps it in memory (an array without pairs)."""

    def __init__(self, path: Path | None, serial: str) -> None:
        self._thread = ThreadPoolExecutor(1, "metadata")
        try:
            if path is not None:
                path.touch(mode=0o600)
            self._database = sqlite3.connect(":memory:" if path is None else path, check_same_thread=False)
        except (sqlite3.Error, OSError) as error:
            raise UserError(f"{path}: cannot be used as the array's metadata: {error}") from None
        try:
            self._open(serial, path)
        except BaseException:
            self._database.close()
            raise

    def _open(self, serial: str, path: Path | None) -> None:
        try:
            self._prepare(serial, path)
        except sqlite3.Error as error:
            raise UserError(f"{path}: cannot be used as the array's metadata: {error}") from None

    def _prepare(self, serial: str, path: Path | None) -> None:
        database = self._database
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version not in _READABLE_VERSIONS:
            raise UserError(f"{path}: written by another version of pairvol (schema {version}, not {_SCHEMA_VERSION})")
        upgrade = "".join(statement for versions, statement in _UPGRADES if version in versions)
        # In one transaction: a crash leaves the old version, or the new one.
        database.executescript(f"BEGIN; {upgrade} {_SCHEMA} PRAGMA user_version = {_SCHEMA_VERSION}; COMMIT")
        with database:
            known = database.execute("SELECT serial, identity FROM array").fetchone()
            if known is None:
                known = (serial, uuid.uuid4().hex)
                database.execute("INSERT INTO array VALUES (?, ?)", known)
            elif known[0] != serial:
                raise UserError(f"{path}: belongs to array {known[0]}, not to array {serial}")
        self.identity: str = known[1]

    def load_peer(self, serial: str) -> str | None:
        """The identity of the other array when it was last met. Called before the array serves."""
        row = self._database.execute("SELECT identity FROM peer WHERE serial = ?", (serial,)).fetchone()
        return None if row is None else str(row[0])

    async def save_peer(self, serial: str, identity: str) -> None:
        """Durable on return; raises MediumFailure."""
        await self._run("the other array's identity", "INSERT OR REPLACE INTO peer VALUES (?, ?)", (serial, identity))

    def load_operations(self) -> dict[str, MediumOperation]:
        """By volume name. Called while no operation is running."""
        rows = self._database.execute("SELECT volume, record FROM operation").fetchall()
        try:
            return {str(volume): MediumOperation.decode(record) for volume, record in rows}
        except ValueError as error:
            raise UserError(f"the metadata of an operation cannot be read: {error}") from None

    async def save_operation(self, volume_name: str, operation: MediumOperation | None) -> None:
        """Durable on return; None: nothing is to be done any more. Raises MediumFailure."""
        what = f"what is done to volume {volume_name}"
        if operation is None:
            await self._run(what, "DELETE FROM operation WHERE volume = ?", (volume_name,))
        else:
            values = volume_name, operation.encode()
            await self._run(what, "INSERT OR REPLACE INTO operation VALUES (?, ?)", values)

    def load_pair(self, name: str) -> PairRecord:
        """The record of a pair; of a new one, the empty record. Called before the array serves."""
        query = "SELECT decided, state, accepted, equal, withdrawn, swap_in_doubt FROM pair WHERE name = ?"
        row = self._database.execute(query, (name,)).fetchone()
        if row is None:
            return PairRecord()
        decided, state, accepted, equal, withdrawn, doubt = row
        try:
            value, vote = PairEpoch.decode(decided), PairEpoch.decode(accepted) if accepted else None
            return PairRecord(value, PairState[state], vote, bool(equal), decode_nexuses(withdrawn), bool(doubt))
        except (ValueError, KeyError) as error:
            raise UserError(f"the metadata of pair {name} cannot be read: {error}") from None

    async def save_pair(self, name: str, record: PairRecord) -> None:
        """Durable on return; raises MediumFailure: whoever needed the record to be durable must not go on."""
        await self._run_all(f"the record of pair {name}", _pair_work(name, record))

    async def save_pairs(self, records: Mapping[str, PairRecord]) -> None:
        """All of them, or after a crash none: one transaction. Durable on return; raises MediumFailure."""
        work = [statement for name, record in records.items() for statement in _pair_work(name, record)]
        await self._run_all(f"the records of the pairs {', '.join(records)}", work)

    def load_pair_reservation(self, name: str) -> ReservationRecord:
        """The persistent reservation of a pair; of a new one, nothing. Called before the array serves."""
        query = "SELECT decided, accepted FROM pair_reservation WHERE name = ?"
        row = self._database.execute(query, (name,)).fetchone()
        if row is None:
            return ReservationRecord()
        try:
            vote = ReservationProposal.decode(row[1]) if row[1] else None
            return ReservationRecord(ReservationEntry.decode(row[0]), vote)
        except ValueError as error:
            raise UserError(f"the persistent reservation of pair {name} cannot be read: {error}") from None

    async def save_pair_reservation(self, name: str, record: ReservationRecord) -> None:
        """Durable on return; raises MediumFailure, and then nothing has changed."""
        accepted = record.accepted.encode() if record.accepted is not None else None
        row = (name, record.decided.encode(), accepted)
        what = f"the persistent reservation of pair {name}"
        await self._run(what, "INSERT OR REPLACE INTO pair_reservation VALUES (?, ?, ?)", row)

    def load_reservation(self, volume: str, file: str = "") -> PersistentReservation:
        """What was reserved when the array ended, if APTPL was on; else nothing. Raises UserError.

        ``file`` as it is configured; empty: in memory. Another file by the same volume name is another volume.
        """
        query = "SELECT state, file FROM persistent_reservation WHERE volume = ?"
        row = self._database.execute(query, (volume,)).fetchone()
        if row is None:
            return PersistentReservation()
        if row[1] not in (None, file):
            log.warning(
                "volume %s: the persistent reservations kept under this name were made on %s, not on %s: ignored",
                volume,
                row[1] or "a volume in memory",
                file or "a volume in memory",
            )
            return PersistentReservation()
        try:
            return PersistentReservation.decode(row[0])
        except ValueError as error:
            raise UserError(f"the persistent reservation of volume {volume} cannot be read: {error}") from None

    async def save_reservation(self, volume: str, reservation: PersistentReservation | None, file: str = "") -> None:
        """Durable on return; None: nothing is kept. Raises MediumFailure, and then nothing has changed."""
        what = f"the persistent reservation of volume {volume}"
        if reservation is None:
            await self._run(what, "DELETE FROM persistent_reservation WHERE volume = ?", (volume,))
            return
        row = (volume, reservation.encode(), file)
        await self._run(what, "INSERT OR REPLACE INTO persistent_reservation VALUES (?, ?, ?)", row)

    async def _run(self, what: str, statement: str, values: tuple[object, ...]) -> None:
        await self._run_all(what, [(statement, values)])

    async def _run_all(self, what: str, work: Sequence[_Statement]) -> None:
        """In one transaction."""
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._commit, work)
        except sqlite3.Error as error:
            raise MediumFailure(f"{what} cannot be written to the metadata: {error}") from error

    def _commit(self, work: Sequence[_Statement]) -> None:
        with self._database:
            for statement, values in work:
                self._database.execute(statement, values)

    def close(self) -> None:
        """Waits for what is under way."""
        self._thread.shutdown()
        self._database.close()

    def __enter__(self) -> "MetadataStore":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _pair_work(name: str, record: PairRecord) -> list[_Statement]:
    accepted = record.accepted.encode() if record.accepted is not None else None
    row = (
        name,
        record.decided.encode(),
        record.state.name,
        accepted,
        record.equal,
        encode_nexuses(record.withdrawn),
        record.swap_in_doubt,
    )
    work: list[_Statement] = [("INSERT OR REPLACE INTO pair VALUES (?, ?, ?, ?, ?, ?, ?)", row)]
    if record.state is PairState.SMPL:  # in one with it: the next pair of this name must not find them
        work.append(("DELETE FROM pair_reservation WHERE name = ?", (name,)))
    return work


class ReservationNotes:
    """Implements ``ReservationStore`` for the volume in one file."""

    def __init__(self, store: MetadataStore, volume: str, file: str) -> None:
        self._store = store
        self._volume = volume
        self._file = file

    def load(self) -> PersistentReservation:
        """See :meth:`MetadataStore.load_reservation`."""
        return self._store.load_reservation(self._volume, self._file)

    async def save(self, reservation: PersistentReservation | None) -> None:
        """See :meth:`MetadataStore.save_reservation`."""
        await self._store.save_reservation(self._volume, reservation, self._file)
