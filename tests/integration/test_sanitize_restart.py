"""SANITIZE in a real array: other LUNs are served meanwhile, and a crash or a stop in the middle only delays it."""

import signal
from pathlib import Path

import pytest

from initiator_shim.initiator_task import ScsiOutcome
from initiator_shim.initiator_transport import IscsiSession
from storage_model.spec.scsi_sanitize import Overwrite
from storage_model.spec.scsi_sense import SenseData, decode_sense
from tests.eventually import eventually
from tests.integration.array_process import ArrayProcess

MIB = 1 << 20
SIZE = 16 * MIB
# One pass takes two seconds: the array is killed in the second one, of which it has to repeat nothing but the rest.
WORDS = (
    *("--portal", "127.0.0.1:0", "--background-rate", "8MiB"),
    *("--volume", "16MiB,file=sanitized.img", "--volume", "16MiB,file=other.img"),
)
PATTERN = b"\x5a\xa5"


async def started(directory: Path, name: str) -> ArrayProcess:
    return await ArrayProcess.start(directory, *WORDS, "--state-dir", str(directory / "state"), name=name)


async def sense_of(session: IscsiSession) -> SenseData:
    outcome = await session.execute(0, bytes.fromhex("03000000fc00"), data_in_length=252)
    return decode_sense(outcome.data_in)


async def start_sanitizing(session: IscsiSession) -> None:
    for lba in range(0, SIZE // 512, 2048):
        cdb = b"\x2a\0" + lba.to_bytes(4, "big") + b"\0\x08\0\0"
        assert not (await session.execute(0, cdb, b"secret!!" * (MIB // 8))).status
    data = Overwrite(PATTERN, 2).encode()
    assert not (await session.execute(0, bytes((0x48, 0x81, 0, 0, 0, 0, 0, 0, len(data), 0)), data)).status


async def is_half_done(session: IscsiSession) -> bool:
    told = await sense_of(session)
    assert str(told) == "2h 04h/1Bh" and told.progress is not None
    return told.progress > 0x8800


async def read(session: IscsiSession, lun: int, lba: int, blocks: int) -> ScsiOutcome:
    cdb = b"\x28\0" + lba.to_bytes(4, "big") + b"\0" + blocks.to_bytes(2, "big") + b"\0"
    return await session.execute(lun, cdb, data_in_length=blocks * 512)


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
async def test_it_goes_on_after_a_restart(tmp_path: Path, end: signal.Signals) -> None:
    array = await started(tmp_path, "array")
    try:
        session = await array.connect()
        await start_sanitizing(session)
        await eventually(lambda: is_half_done(session), within=20, what="more than half of it")
        await session.execute(1, bytes(6))
        assert (await read(session, 1, 0, 8)).data_in == bytes(4096), "the other unit is served"
        assert decode_sense((await read(session, 0, 0, 8)).sense).progress
        if end is signal.SIGKILL:
            await array.process.kill()
        else:
            session.close()
            await array.end_by(end)
        assert b"secret" not in (tmp_path / "state" / "sanitized.img").read_bytes(), "the first pass is on the medium"
        array = await started(tmp_path, "again")
        session = await array.connect()
        assert ((await sense_of(session)).progress or 0) >= 0x8000, "not from the beginning"
        assert str(decode_sense((await read(session, 0, 0, 8)).sense)) == "2h 04h/1Bh"
        await eventually(lambda: "is done" in array.log, within=20, what="its end")
        assert (await read(session, 0, 0, 256)).data_in == PATTERN * (256 * 256)
        assert (tmp_path / "state" / "sanitized.img").read_bytes() == PATTERN * (SIZE // 2)
        session.close()
        await array.end_by(signal.SIGTERM)
        assert "begins at 50 %" in array.log
        array = await started(tmp_path, "third")
        assert "sanitize" not in array.log, "it was done, and is not done again"
    finally:
        await array.process.end()
