"""pyscsi scripts on our device: the same against an array and through a shim, and sense data arrives."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pyscsi.pyscsi.scsi import SCSI
from pyscsi.pyscsi.scsi_sense import SCSICheckCondition

from initiator_shim.pyscsi_commands import PairControlInCommand, Release10, Reserve6, Reserve10
from initiator_shim.pyscsi_device import PyscsiDevice, ReservationConflict
from initiator_shim.session_errors import SessionLost
from scripts.failover_drill.processes import ChildProcess
from storage_model.errors import UserError
from storage_model.pair_state import PairRole
from storage_model.spec.scsi_task import TaskFunction
from tests.integration.shims import shim

TARGET = "iqn.2026-11.org.pairvol:scripts"


@asynccontextmanager
async def unit_url(directory: Path, through_shim: bool) -> AsyncIterator[str]:
    arguments = ["--portal", "127.0.0.1:0", "--volume", "8MiB", "--iqn", TARGET]
    array = await ChildProcess.start("array", [sys.executable, "-m", "target", *arguments], directory)
    try:
        (url, *_) = await array.until_ready(20)
        if not through_shim:
            yield url
            return
        async with shim(directory, int(url.split("/")[2].rpartition(":")[2])) as running:
            yield running.urls[0]
    finally:
        await array.end()


def script(url: str) -> None:
    """What a user would write: nothing here knows whether a shim is in the way."""
    with PyscsiDevice(url) as device, PyscsiDevice(url) as other:
        s = SCSI(device, 512)
        assert bytes(s.inquiry().result["t10_vendor_identification"]).strip() == b"PAIRVOL"
        assert s.readcapacity16().result["returned_lba"] == (8 << 20) // 512 - 1
        s.write10(5, 2, bytearray(b"x" * 1024))
        assert s.read16(5, 2).datain == bytearray(b"x" * 1024)
        with pytest.raises(SCSICheckCondition, match="LOGICAL BLOCK ADDRESS OUT OF RANGE") as caught:
            s.read10((8 << 20) // 512, 1)
        assert caught.value.data["sense_key"] == 5
        assert bytes(caught.value.sense)[12:14] == b"\x21\x00"
        device.execute(Reserve6())
        for refused in (Reserve10(), Reserve6()):
            with pytest.raises(ReservationConflict, match="RESERVATION CONFLICT"):
                other.execute(refused)
        with pytest.raises(RuntimeError):  # as with pyscsi's own device
            SCSI(other, 512).write10(5, 1, bytearray(512))
        device.execute(Release10())
        status = PairControlInCommand()
        other.execute(status)
        status.unmarshall()
        assert status.result["role"] is PairRole.SMPL
        assert device.task_management(TaskFunction.LOGICAL_UNIT_RESET) == 0
        with pytest.raises(other.CheckCondition, match="Unit Attention"):
            SCSI(other, 512).testunitready()


@pytest.mark.parametrize("through_shim", [False, True], ids=["array", "shim"])
async def test_a_script_runs_unchanged(tmp_path: Path, through_shim: bool) -> None:
    async with unit_url(tmp_path, through_shim) as url:
        await asyncio.to_thread(script, url)


@pytest.mark.parametrize("url", ["/dev/sg0", "iscsi://127.0.0.1:3260", "iscsi://127.0.0.1:3260/iqn.x"])
def test_an_incomplete_url_is_refused(url: str) -> None:
    with pytest.raises(UserError):
        PyscsiDevice(url)


def test_nobody_at_home() -> None:
    with pytest.raises(SessionLost, match="cannot connect"):
        PyscsiDevice("iscsi://127.0.0.1:1/iqn.2026-11.org.example:t/0")
