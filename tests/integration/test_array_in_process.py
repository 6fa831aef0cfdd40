"""An array in this process: what holds between its parts, which no host sees from outside."""

import asyncio
from pathlib import Path

import pytest

from storage_model.nexus import ITNexus
from storage_model.spec.scsi_sanitize import Overwrite
from storage_model.spec.scsi_task import ScsiStatus
from storage_model.volume import MediumFailure
from target import array as array_module
from target.array import Array
from target.config import ArrayConfig, parse_config
from target.scsi.task import ScsiTask
from target.volumes.file_volume import FileVolume

ARRAY = """
[array]
serial = "30095"
portals = ["127.0.0.1:0"]
background_rate = "1MiB"
state_dir = "{0}"
"""
VOLUME = '[[volumes]]\nname = "v{0}"\nlun = {0}\nldev = 1{0}\nfile = "v{0}.img"\nsize = "64MiB"\n'
PAIR = """
[remote_copy]
listen = "127.0.0.1:0"
peer = "127.0.0.1:9"
peer_serial = "30096"
[[pairs]]
name = "p"
volume = "v0"
"""
NEXUS = ITNexus("iqn.2026-11.org.example:a", b"\x80\0\0\0\0\x01")


def config(directory: Path, *sections: str) -> ArrayConfig:
    return parse_config(ARRAY.format(directory) + "".join(sections), "array.toml")


async def sanitize(array: Array, lun: int) -> None:
    """Begin it; at this pace it takes a minute."""
    data = Overwrite(b"\xaa").encode()
    cdb = bytes((0x48, 0x81, 0, 0, 0, 0, 0, 0, len(data), 0))
    outcome = await array._server.execute(ScsiTask(NEXUS, lun, 1, cdb.ljust(16, b"\0"), data))
    assert outcome.status is ScsiStatus.GOOD


@pytest.mark.parametrize("stopped_in", ["drained", "abort_all", "detach"])
async def test_an_array_that_stops_while_it_removes_a_volume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped_in: str
) -> None:
    """Wherever the removal is: the operation of that volume ends before its file is closed, and every file is."""
    opened: list[FileVolume] = []
    open_file = FileVolume.open

    def remember(*args: object, **options: object) -> FileVolume:
        opened.append(open_file(*args, **options))  # type: ignore[arg-type]
        return opened[-1]

    monkeypatch.setattr(FileVolume, "open", remember)
    array = Array(config(tmp_path, VOLUME.format(0), VOLUME.format(1)))
    await array.start()
    await sanitize(array, 0)
    operation = array._units[0].operation
    assert operation is not None
    reached = asyncio.Event()

    async def hang(_: object) -> None:
        reached.set()
        await asyncio.get_running_loop().create_future()

    with monkeypatch.context() as patch:
        if stopped_in == "abort_all":
            patch.setattr(array_module, "REMOVAL_TIMEOUT", 0.0)
            patch.setattr(array._server, "drained", hang)
        patch.setattr(array._operations if stopped_in == "detach" else array._server, stopped_in, hang)
        reloading = asyncio.create_task(array.reload(config(tmp_path, VOLUME.format(1), VOLUME.format(2))))
        waiting = asyncio.create_task(reached.wait())
        await asyncio.wait({reloading, waiting}, timeout=10, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        reloading.cancel()
        ends = await asyncio.gather(reloading, return_exceptions=True)
    await array.stop()
    assert reached.is_set() and isinstance(ends[0], asyncio.CancelledError), ends
    assert not operation.running
    assert len(opened) == 3
    for volume in opened:
        with pytest.raises(MediumFailure, match="is closed"):
            await volume.read(0, 512)


async def test_a_pair_knows_what_its_volume_is_busy_with(tmp_path: Path) -> None:
    array = Array(config(tmp_path, VOLUME.format(0), PAIR))
    await array.start()
    try:
        half = array._controls["p"].half
        assert not half.busy()
        await sanitize(array, 0)
        assert half.busy()
        operation = array._units[0].operation
        assert operation is not None
        await operation.stop()
        operation.operation = operation.operation.as_failed()
        assert half.busy(), "what has failed is not done"
        array._units[0].operation = None
        assert not half.busy()
    finally:
        await array.stop()


async def test_reservations_are_kept_for_the_file_they_were_made_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """SPC-4 5.13.5: APTPL keeps them for the logical unit, and another file by the volume's name is another one."""
    register = b"\x5f\x00\0\0\0\0\0\0\x18".ljust(16, b"\0")
    data = bytes(8) + bytes(7) + b"\x0a" + bytes(4) + b"\x01\0\0\0"

    async def registrations(volume: str, *, make: bool = False) -> int:
        array = Array(config(tmp_path, volume))
        await array.start()
        try:
            if make:
                outcome = await array._server.execute(ScsiTask(NEXUS, 0, 1, register, data))
                assert outcome.status is ScsiStatus.GOOD
            return len(array._units[0].reservation.persistent.registrations)
        finally:
            await array.stop()

    assert await registrations(VOLUME.format(0), make=True) == 1
    assert await registrations(VOLUME.format(0).replace("v0.img", "other.img")) == 0
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "volume v0: the persistent reservations kept under this name were made on v0.img, not on other.img: ignored"
    ]
    assert await registrations(VOLUME.format(0)) == 1
