"""Pair records survive the process, belong to one array, and are never half read."""

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from storage_model.errors import UserError
from storage_model.nexus import ITNexus
from storage_model.pair import Owner, PairEpoch, PairRecord, encode_nexuses
from storage_model.pair_reservation import (
    ReservationEffects,
    ReservationEntry,
    ReservationProposal,
    ReservationRecord,
)
from storage_model.pair_state import FenceLevel, PairState, Side
from storage_model.persistent_reservation import PersistentReservation, Registration, ReservationType
from storage_model.spec.scsi_sense import AscAscq
from storage_model.volume import MediumFailure
from target import metadata_store
from target.metadata_store import MetadataStore, ReservationNotes

OWNER = Owner("30095", ITNexus("iqn.2026-11.org.pairvol:host-ä", bytes.fromhex("00023d0000aa"), 2))
EPOCH = PairEpoch(7, "30095", PairState.COPY, Side.S_VOL, FenceLevel.DATA, True, OWNER, True)
RECORDS = [
    PairRecord(),
    PairRecord(EPOCH, PairState.PAIR, equal=True),
    PairRecord(EPOCH, PairState.PSUE, PairEpoch(8)),
    PairRecord(PairEpoch(0xFFFFFFFF), PairState.SMPL),
    PairRecord(EPOCH, PairState.PSUS, withdrawn=(OWNER.nexus, ITNexus("iqn.2026-11.org.pairvol:host-b", bytes(6)))),
    PairRecord(EPOCH, PairState.PSUS, swap_in_doubt=True),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metadata.sqlite"


@pytest.mark.parametrize("record", RECORDS)
async def test_record_is_there_when_the_array_comes_back(path: Path, record: PairRecord) -> None:
    with MetadataStore(path, "30095") as store:
        await store.save_pair("quorum0", PairRecord(EPOCH, PairState.COPY))
        await store.save_pair("quorum0", record)
        await store.save_pair("data0", PairRecord(EPOCH, PairState.PSUS))
        assert store.load_pair("quorum0") == record
    with MetadataStore(path, "30095") as store:
        assert store.load_pair("quorum0") == record
        assert store.load_pair("data0") == PairRecord(EPOCH, PairState.PSUS)
        assert store.load_pair("new") == PairRecord()


async def test_saved_is_durable_without_a_close(path: Path) -> None:
    with MetadataStore(path, "30095") as store:
        await store.save_pair("quorum0", RECORDS[1])
        with MetadataStore(path, "30095") as other:  # as after kill -9: nobody closed it
            assert other.load_pair("quorum0") == RECORDS[1]
        mode, synchronous = (
            store._database.execute(f"PRAGMA {p}").fetchone()[0] for p in ("journal_mode", "synchronous")
        )
        assert (mode, synchronous) == ("wal", 2)  # FULL: a commit returns when the medium has it


async def test_in_memory_without_a_path() -> None:
    with MetadataStore(None, "30095") as store:
        await store.save_pair("quorum0", RECORDS[1])
        assert store.load_pair("quorum0") == RECORDS[1]


def test_another_arrays_metadata_is_refused(path: Path) -> None:
    MetadataStore(path, "30095").close()
    with pytest.raises(UserError, match=r"metadata\.sqlite: belongs to array 30095, not to array 30096"):
        MetadataStore(path, "30096")
    MetadataStore(path, "30095").close()


def test_another_versions_metadata_is_refused(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(UserError, match="schema 99"):
        MetadataStore(path, "30095")


@pytest.mark.parametrize(
    "content", [b"this is no database, but long enough to look at" * 50, b"SQLite format 3\0" + b"\xff" * 5000]
)
def test_file_that_is_no_database(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"metadata\.sqlite: cannot be used as the array's metadata"):
        MetadataStore(path, "30095")
    assert path.read_bytes() == content


def test_path_that_cannot_be_opened(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing" / "metadata.sqlite"):
        with pytest.raises(UserError, match="cannot be used as the array's metadata"):
            MetadataStore(path, "30095")


@pytest.mark.parametrize(
    ("column", "value"), [("decided", "{}"), ("decided", "x"), ("state", "OTHER"), ("accepted", "[]")]
)
async def test_record_that_cannot_be_read(path: Path, column: str, value: str) -> None:
    with MetadataStore(path, "30095") as store:
        await store.save_pair("quorum0", RECORDS[2])
    database = sqlite3.connect(path)
    with database:
        database.execute(f"UPDATE pair SET {column} = ?", (value,))  # noqa: S608 - the test's own words
    database.close()
    with MetadataStore(path, "30095") as store, pytest.raises(UserError, match="quorum0 cannot be read"):
        store.load_pair("quorum0")


async def test_failed_save_is_told_and_changes_nothing(path: Path) -> None:
    with MetadataStore(path, "30095") as store:
        await store.save_pair("quorum0", RECORDS[1])
        store._database.execute("PRAGMA query_only = ON")
        with pytest.raises(MediumFailure, match="quorum0"):
            await store.save_pair("quorum0", RECORDS[2])
        store._database.execute("PRAGMA query_only = OFF")
        assert store.load_pair("quorum0") == RECORDS[1]
        await store.save_pair("quorum0", RECORDS[2])
        assert store.load_pair("quorum0") == RECORDS[2]


HOLDER = ITNexus("iqn.2026-11.org.pairvol:host-ä", bytes.fromhex("00023d0000aa"), 2)
RESERVED = PersistentReservation(
    {HOLDER: Registration((1 << 64) - 1, True), OWNER.nexus: Registration(1)},
    ReservationType.EXCLUSIVE_ACCESS,
    HOLDER,
    generation=7,
    aptpl=True,
)
KEPT = replace(RESERVED, generation=0)


async def test_reservation_is_there_when_the_array_comes_back(path: Path) -> None:
    with MetadataStore(path, "30095") as store:
        await store.save_reservation("data0", RESERVED)
        assert store.load_reservation("data0") == KEPT
        assert store.load_reservation("data1") == PersistentReservation()
        with MetadataStore(path, "30095") as other:  # as after kill -9: nobody closed it
            assert other.load_reservation("data0") == KEPT
        await store.save_reservation("data0", None)
        await store.save_reservation("data1", None)
    with MetadataStore(path, "30095") as store:
        assert store.load_reservation("data0") == PersistentReservation()


async def test_failed_save_of_a_reservation_changes_nothing(path: Path) -> None:
    with MetadataStore(path, "30095") as store:
        await store.save_reservation("data0", RESERVED)
        store._database.execute("PRAGMA query_only = ON")
        for reservation in (None, replace(RESERVED, holder=OWNER.nexus)):
            with pytest.raises(MediumFailure, match="volume data0"):
                await store.save_reservation("data0", reservation)
        assert store.load_reservation("data0") == KEPT


async def test_reservation_that_cannot_be_read(path: Path) -> None:
    with MetadataStore(path, "30095") as store:
        await store.save_reservation("data0", RESERVED)
        store._database.execute("UPDATE persistent_reservation SET state = '{}'")
        with pytest.raises(UserError, match="the persistent reservation of volume data0 cannot be read"):
            store.load_reservation("data0")


VERSION_1 = """
CREATE TABLE pair (name TEXT PRIMARY KEY, decided TEXT NOT NULL, state TEXT NOT NULL, accepted TEXT,
    equal INTEGER NOT NULL) STRICT;
CREATE TABLE array (serial TEXT PRIMARY KEY, identity TEXT NOT NULL) STRICT;
CREATE TABLE peer (serial TEXT PRIMARY KEY, identity TEXT NOT NULL) STRICT;
INSERT INTO array VALUES ('30095', 'cafe');
INSERT INTO peer VALUES ('30096', 'beef');
PRAGMA user_version = 1;
"""


async def test_metadata_of_version_1_are_taken_over(path: Path) -> None:
    """As they were written before there were persistent reservations: nothing in them changes."""
    database = sqlite3.connect(path)
    with database:
        database.executescript(VERSION_1)
        row = ("quorum0", EPOCH.encode(), "PAIR", None, 1)
        database.execute("INSERT INTO pair VALUES (?, ?, ?, ?, ?)", row)
    database.close()
    for _ in range(2):
        with MetadataStore(path, "30095") as store:
            assert store.identity == "cafe" and store.load_peer("30096") == "beef"
            assert store.load_pair("quorum0") == PairRecord(EPOCH, PairState.PAIR, equal=True)
            assert store._database.execute("PRAGMA user_version").fetchone() == (5,)
            await store.save_reservation("data0", RESERVED)
    with MetadataStore(path, "30095") as store:
        assert store.load_reservation("data0") == KEPT


async def test_metadata_of_version_3_are_taken_over(path: Path) -> None:
    """As they were written while withdrawals were kept in memory only, and pairs had no reservations."""
    database = sqlite3.connect(path)
    with database:
        database.executescript(VERSION_1.replace("user_version = 1", "user_version = 3"))
        row = ("quorum0", EPOCH.encode(), "PAIR", None, 1)
        database.execute("INSERT INTO pair VALUES (?, ?, ?, ?, ?)", row)
        columns = "(volume TEXT PRIMARY KEY, state TEXT NOT NULL, file TEXT)"
        database.execute(f"CREATE TABLE persistent_reservation {columns} STRICT")
    database.close()
    reserved = ReservationRecord(ReservationEntry(7, 1, RESERVED))
    with MetadataStore(path, "30095") as store:
        record = store.load_pair("quorum0")
        assert record == PairRecord(EPOCH, PairState.PAIR, equal=True)
        record = replace(record, withdrawn=(OWNER.nexus,))
        await store.save_pair("quorum0", record)
        assert store.load_pair_reservation("quorum0") == ReservationRecord()
        await store.save_pair_reservation("quorum0", reserved)
    with MetadataStore(path, "30095") as store:
        assert store.load_pair("quorum0") == record
        assert store.load_pair_reservation("quorum0") == reserved


async def test_metadata_of_version_4_are_taken_over(path: Path) -> None:
    """As they were written while a swap in doubt was kept in memory only."""
    database = sqlite3.connect(path)
    with database:
        database.executescript(VERSION_1.replace("user_version = 1", "user_version = 4"))
        database.execute("ALTER TABLE pair ADD COLUMN withdrawn TEXT NOT NULL DEFAULT '[]'")
        row = ("quorum0", EPOCH.encode(), "PSUS", None, 1, encode_nexuses((OWNER.nexus,)))
        database.execute("INSERT INTO pair VALUES (?, ?, ?, ?, ?, ?)", row)
    database.close()
    record = PairRecord(EPOCH, PairState.PSUS, equal=True, withdrawn=(OWNER.nexus,))
    with MetadataStore(path, "30095") as store:
        assert store.load_pair("quorum0") == record
        await store.save_pair("quorum0", replace(record, swap_in_doubt=True))
    with MetadataStore(path, "30095") as store:
        assert store.load_pair("quorum0") == replace(record, swap_in_doubt=True)


async def test_upgrade_that_is_broken_off_leaves_the_old_version(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = sqlite3.connect(path)
    with database:
        database.executescript(VERSION_1)
    database.close()
    with monkeypatch.context() as broken:
        broken.setattr(metadata_store, "_SCHEMA", "CREATE TABLE array (serial TEXT);")  # there is one already
        with pytest.raises(UserError, match="cannot be used as the array's metadata"):
            MetadataStore(path, "30095")
    with MetadataStore(path, "30095") as store:
        assert store.identity == "cafe"


@pytest.mark.parametrize("text", ["", "{", "1", "[1]", '[["x", "00", 1]]', '[["x", "00023d0000aa"]]'])
async def test_withdrawals_that_cannot_be_read(path: Path, text: str) -> None:
    with MetadataStore(path, "30095") as store:
        await store.save_pair("quorum0", RECORDS[1])
        store._database.execute("UPDATE pair SET withdrawn = ?", (text,))
        with pytest.raises(UserError, match="the metadata of pair quorum0 cannot be read"):
            store.load_pair("quorum0")


async def test_reservation_of_another_file_by_that_name_is_ignored(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Names may be those that the command line counts: with a volume fewer, the next one has the name."""
    with MetadataStore(path, "30095") as store:
        await ReservationNotes(store, "volume0", "data.img").save(RESERVED)
        for file in ("other.img", ""):
            caplog.clear()
            assert store.load_reservation("volume0", file) == PersistentReservation()
            (warned,) = caplog.records
            assert warned.levelname == "WARNING"
            assert warned.getMessage() == (
                "volume volume0: the persistent reservations kept under this name were made on data.img,"
                f" not on {file or 'a volume in memory'}: ignored"
            )
        caplog.clear()
        assert store.load_reservation("volume0", "data.img") == KEPT, "with the right file they are there again"
        assert ReservationNotes(store, "volume0", "data.img").load() == KEPT
        assert not caplog.records


async def test_reservations_of_version_2_count_for_the_file_that_is_there(path: Path) -> None:
    """They did not say which file they were made on."""
    database = sqlite3.connect(path)
    with database:
        database.executescript(VERSION_1.replace("user_version = 1", "user_version = 2"))
        database.execute("CREATE TABLE persistent_reservation (volume TEXT PRIMARY KEY, state TEXT NOT NULL) STRICT")
        database.execute("INSERT INTO persistent_reservation VALUES ('data0', ?)", (RESERVED.encode(),))
    database.close()
    for _ in range(2):
        with MetadataStore(path, "30095") as store:
            assert store.load_reservation("data0", "data.img") == KEPT
    with MetadataStore(path, "30095") as store:
        await store.save_reservation("data0", RESERVED, "data.img")
        assert store.load_reservation("data0", "other.img") == PersistentReservation()


async def test_records_of_a_group_are_saved_as_one(path: Path) -> None:
    before = {"data": RECORDS[1], "log": RECORDS[1]}
    after = {"data": RECORDS[2], "log": RECORDS[2]}
    with MetadataStore(path, "30095") as store:
        await store.save_pairs(before)
        store._database.execute(
            "CREATE TRIGGER full BEFORE INSERT ON pair WHEN NEW.name = 'log' BEGIN SELECT RAISE(FAIL, 'full'); END"
        )
        with pytest.raises(MediumFailure, match="data, log"):
            await store.save_pairs(after)
        assert {name: store.load_pair(name) for name in before} == before, "nor is the one that could be written"
        store._database.execute("DROP TRIGGER full")
        await store.save_pairs(after)
    with MetadataStore(path, "30095") as store:
        assert {name: store.load_pair(name) for name in after} == after


@pytest.mark.parametrize("grouped", [False, True])
async def test_the_table_of_a_pair_goes_with_the_pair(path: Path, grouped: bool) -> None:
    """In one transaction: the next pair of that name must not find it."""
    effects = ReservationEffects(
        OWNER.nexus, 7, ((OWNER.nexus, AscAscq.REGISTRATIONS_PREEMPTED),), frozenset({OWNER.nexus})
    )
    entry = ReservationEntry(7, 3, replace(RESERVED, generation=5, aptpl=False))
    record = ReservationRecord(entry, ReservationProposal(ReservationEntry(8, 4), entry.order, effects))
    with MetadataStore(path, "30095") as store:
        assert store.load_pair_reservation("quorum0") == ReservationRecord()
        for name in ("quorum0", "data0"):
            await store.save_pair(name, PairRecord(EPOCH, PairState.PAIR))
            await store.save_pair_reservation(name, record)
    with MetadataStore(path, "30095") as store:
        assert store.load_pair_reservation("quorum0") == record
        await store.save_pair("quorum0", PairRecord(EPOCH, PairState.PSUE))
        assert store.load_pair_reservation("quorum0") == record
        smpl = PairRecord(PairEpoch(9), PairState.SMPL)
        await (store.save_pairs({"quorum0": smpl, "log0": smpl}) if grouped else store.save_pair("quorum0", smpl))
        assert store.load_pair_reservation("quorum0") == ReservationRecord()
        assert store.load_pair_reservation("data0") == record


@pytest.mark.parametrize(
    "damage", ["UPDATE pair_reservation SET decided = 'nonsense'", "UPDATE pair_reservation SET accepted = '{}'"]
)
async def test_the_table_of_a_pair_that_cannot_be_read(path: Path, damage: str) -> None:
    with MetadataStore(path, "30095") as store:
        await store.save_pair_reservation("quorum0", ReservationRecord())
        with store._database as database:
            database.execute(damage)
        with pytest.raises(UserError, match="persistent reservation of pair quorum0 cannot be read"):
            store.load_pair_reservation("quorum0")
