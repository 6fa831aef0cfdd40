"""Records: what is written is found again, and nothing else passes for a record."""

from pathlib import Path

import pytest

from scripts.failover_drill.records import (
    RECORD_BYTES,
    AcknowledgementLog,
    Record,
    read_acknowledgements,
    records_in,
)


def test_a_record_is_one_block_and_comes_back() -> None:
    record = Record(70, 10, 123456789012)
    assert len(record.encode()) == RECORD_BYTES
    assert Record.decode(record.encode()) == record


@pytest.mark.parametrize("position", [0, 8, 20, 300, RECORD_BYTES - 1])
def test_one_wrong_bit_anywhere_is_noticed(position: int) -> None:
    block = bytearray(Record(73, 11, 7).encode())
    block[position] ^= 0x10
    assert Record.decode(bytes(block)) is None


def test_a_torn_block_is_noticed() -> None:
    """Half of one record and half of the next: each half is intact, the block is not."""
    torn = Record(70, 10, 5).encode()[:256] + Record(70, 10, 6).encode()[256:]
    assert Record.decode(torn) is None


@pytest.mark.parametrize("block", [bytes(RECORD_BYTES), b"", b"PVRECORD", bytes(RECORD_BYTES + 1)])
def test_other_blocks_are_no_records(block: bytes) -> None:
    assert Record.decode(block) is None


def test_a_record_counts_only_in_its_place() -> None:
    right, elsewhere, other_volume = Record(70, 10, 4), Record(70, 10, 9), Record(73, 11, 6)
    data = right.encode() + elsewhere.encode() + other_volume.encode() + bytes(RECORD_BYTES)
    assert list(records_in(data, 70, 4)) == [right, None, None, None]


def test_acknowledgements_of_both_hosts_come_back_by_volume(tmp_path: Path) -> None:
    for host in (10, 11):
        log = AcknowledgementLog(tmp_path / f"{host}.log")
        log.acknowledge(Record(70, host, host))
        log.acknowledge(Record(73, host, 100 + host))
        log.close()
    found = read_acknowledgements([tmp_path / "10.log", tmp_path / "11.log"])
    assert found == {70: {10, 11}, 73: {110, 111}}


def test_a_line_cut_short_by_a_kill_does_not_count(tmp_path: Path) -> None:
    log = tmp_path / "10.log"
    log.write_text("70 10 1\n70 10 2\n70 10 3")
    assert read_acknowledgements([log]) == {70: {1, 2}}
