"""Reads and writes that a volume can do at once are done without a coroutine; all others, and only they, wait."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storage_model.nexus import ITNexus
from storage_model.spec.scsi_task import ScsiStatus, TaskAttribute
from target.scsi import task_manager
from target.scsi.device_server import DeviceServer
from target.scsi.logical_unit import LogicalUnit, UnitIdentity
from target.scsi.task import ScsiTask, TaskOutcome
from target.volumes.file_volume import FileVolume
from target.volumes.memory_volume import MemoryVolume

NEXUS = ITNexus("iqn.2026-11.org.example:host", bytes(6))
TEST_UNIT_READY = bytes(6)


def read(lba: int = 0, flags: int = 0) -> bytes:
    return bytes((0x28, flags, 0, 0, 0, lba, 0, 0, 8, 0))


def write(flags: int = 0) -> bytes:
    return bytes((0x2A, flags, 0, 0, 0, 0, 0, 0, 8, 0))


@pytest.fixture
async def volume(tmp_path: Path) -> AsyncIterator[FileVolume]:
    volume = FileVolume.open(tmp_path / "volume", 1 << 20, create=True)
    await volume.write(0, bytes(range(256)) * 32)
    yield volume
    await volume.close()


@pytest.fixture
async def server(volume: FileVolume) -> DeviceServer:
    server = DeviceServer({0: LogicalUnit(0, volume, UnitIdentity("0"))})
    server.nexus_established(NEXUS)
    while (await server.execute(ScsiTask(NEXUS, 0, 1, TEST_UNIT_READY))).status is not ScsiStatus.GOOD:
        pass  # power on
    return server


async def test_a_cached_read_and_a_write_into_the_cache(server: DeviceServer) -> None:
    outcome = server.begin(ScsiTask(NEXUS, 0, 1, read(), data_in_length=4096))
    assert isinstance(outcome, TaskOutcome) and bytes(outcome.data_in) == bytes(range(256)) * 16
    outcome = server.begin(ScsiTask(NEXUS, 0, 2, write(), data_out=b"new!" * 1024))
    assert outcome == TaskOutcome(transfer_length_bytes=4096)
    outcome = server.begin(ScsiTask(NEXUS, 0, 3, read(), data_in_length=4096))
    assert isinstance(outcome, TaskOutcome) and outcome.data_in == b"new!" * 1024
    assert not len(server.logical_units[0].tasks)


@pytest.mark.parametrize(
    ("cdb", "attribute"),
    [
        (write(flags=0x08), TaskAttribute.SIMPLE),
        (read(flags=0x08), TaskAttribute.SIMPLE),
        (read(), TaskAttribute.ORDERED),
        (write(), TaskAttribute.HEAD_OF_QUEUE),
    ],
    ids=["FUA write", "FUA read", "ORDERED", "HEAD OF QUEUE"],
)
async def test_these_are_in_the_task_set_until_they_have_ended(
    server: DeviceServer, cdb: bytes, attribute: TaskAttribute
) -> None:
    task = ScsiTask(NEXUS, 0, 1, cdb, data_out=bytes(4096) if cdb[0] == 0x2A else b"", attribute=attribute)
    begun, tasks = server.begin(task), server.logical_units[0].tasks
    assert not isinstance(begun, TaskOutcome) and tasks.all() == [task]
    outcome = await begun
    assert outcome.status is ScsiStatus.GOOD and not len(tasks)


async def test_nothing_passes_an_ordered_task(server: DeviceServer) -> None:
    ordered = server.begin(ScsiTask(NEXUS, 0, 1, write(0x08), data_out=b"o" * 4096, attribute=TaskAttribute.ORDERED))
    later = server.begin(ScsiTask(NEXUS, 0, 2, read(), data_in_length=4096))
    assert not isinstance(ordered, TaskOutcome) and not isinstance(later, TaskOutcome)
    await ordered
    assert bytes((await later).data_in) == b"o" * 4096


async def test_nothing_is_written_into_the_range_of_a_compare_and_write(server: DeviceServer) -> None:
    ranges = server.logical_units[0].write_ranges
    held = await ranges.exclude(0, 1)
    begun = server.begin(ScsiTask(NEXUS, 0, 1, write(), data_out=bytes(4096)))
    assert not isinstance(begun, TaskOutcome)
    ranges.release(held)
    assert (await begun).status is ScsiStatus.GOOD


async def test_a_full_task_set_takes_no_command_however_short(
    server: DeviceServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_manager, "TASK_SET_LIMIT", 0)
    assert server.begin(ScsiTask(NEXUS, 0, 1, read(), data_in_length=4096)) == TaskOutcome(ScsiStatus.TASK_SET_FULL)


async def test_a_volume_that_takes_another_one_s_place_is_asked_itself(server: DeviceServer) -> None:
    lu = server.logical_units[0]
    lu.volume = MemoryVolume(1 << 20)
    begun = server.begin(ScsiTask(NEXUS, 0, 1, read(), data_in_length=4096))
    assert not isinstance(begun, TaskOutcome) and bytes((await begun).data_in) == bytes(4096)
