"""Persistent reservations of a real array process: libiscsi's suites, several paths, kill -9 and a restart."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from initiator_shim.initiator_transport import DEFAULT_ISID, IscsiSession
from storage_model.spec.iscsi_pdu import DataOutPdu, R2TPdu, ScsiCommandPdu, ScsiResponsePdu
from storage_model.spec.scsi_persistent_reservation import (
    BasicParameters,
    FullStatus,
    MoveParameters,
    TransportId,
    decode_full_status,
)
from storage_model.spec.scsi_sense import decode_sense
from storage_model.spec.scsi_task import ScsiStatus
from tests.integration.array_process import HOST, ArrayProcess, running_array
from tests.integration.client_tools import run_tool
from tests.integration.raw_initiator import RawInitiator

SUITES = {  # and how many tests each has
    "PrinReadKeys": 2,
    "PrinServiceactionRange": 1,
    "PrinReportCapabilities": 1,
    "ProutRegister": 1,
    "ProutReserve": 13,
    "ProutClear": 1,
    "ProutPreempt": 1,
}
SUITE_SECONDS = 120.0
REGISTER, RESERVE, CLEAR, PREEMPT_AND_ABORT, REGISTER_AND_MOVE = 0, 1, 3, 5, 7
EXCLUSIVE_ACCESS, WRITE_EXCLUSIVE_REGISTRANTS_ONLY = 3, 5
OTHER = "iqn.2026-11.org.example:other"
OTHER_ISID = bytes.fromhex("00023d0000aa")
WRITE, READ = bytes.fromhex("2a000000000000000100"), bytes.fromhex("28000000000000000100")
BLOCK = 512

TWO_PORTAL_GROUPS = """
[array]
portals = ["127.0.0.1:0"]
state_dir = "{state}"
[[portal_groups]]
tag = 2
portals = ["127.0.0.1:0"]
[[volumes]]
name = "data0"
lun = 0
size = "64MiB"
"""


async def run_suite(tool: str, suite: str, *urls: str) -> str:
    """The output of the suite, which must have passed and left nothing out."""
    output = await run_tool(tool, "-d", "-t", f"ALL.{suite}", *urls, seconds=SUITE_SECONDS)
    assert not re.search("skipped", output, re.IGNORECASE), output
    counts = re.search(r"^ +tests +(\d+) +(\d+) +(\d+) +0 ", output, re.MULTILINE)
    assert counts and set(counts.groups()) == {str(SUITES[suite])}, output
    return output


@pytest.fixture
def two_groups(tmp_path: Path) -> Path:
    config = tmp_path / "array.toml"
    config.write_text(TWO_PORTAL_GROUPS.format(state=tmp_path / "state"))
    return config


@pytest.mark.slow
async def test_libiscsi_suites(tmp_path: Path, two_groups: Path, require_tool: Callable[[str], str]) -> None:
    """Each alone, and with a second URL through the other target port."""
    tool = require_tool("iscsi-test-cu")
    async with running_array(tmp_path, "--config", str(two_groups)) as array:
        assert len(array.urls) == 2 and array.urls[0] != array.urls[1]
        for suite in SUITES:
            await run_suite(tool, suite, array.urls[0])
            await run_suite(tool, suite, *array.urls)
        assert "Traceback" not in array.log and "internal error" not in array.log


async def out(session: IscsiSession, action: int, data: bytes, kind: int = 0) -> int:
    """Status of a PERSISTENT RESERVE OUT."""
    cdb = bytes((0x5F, action, kind, 0, 0)) + len(data).to_bytes(4, "big") + b"\0"
    return int((await session.execute(0, cdb, data)).status)


async def full_status(session: IscsiSession) -> tuple[int, list[FullStatus]]:
    """PRGENERATION and the descriptors."""
    outcome = await session.execute(0, bytes((0x5E, 3, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0)), data_in_length=0xFFFF)
    assert outcome.status == 0
    data = bytes(outcome.data_in)
    return int.from_bytes(data[:4], "big"), decode_full_status(data)


async def write(session: IscsiSession, data: bytes = b"w" * BLOCK) -> int:
    return int((await session.execute(0, WRITE, data)).status)


@pytest.mark.parametrize("aptpl", [True, False])
async def test_kill_9(tmp_path: Path, aptpl: bool) -> None:
    """With APTPL the reservation is enforced by the next process, from its first command on; without it is gone."""
    words = ("--portal", "127.0.0.1:0", "--state-dir", str(tmp_path / "state"), "--volume", "64MiB,name=data0")
    array = await ArrayProcess.start(tmp_path, *words)
    try:
        holder = await array.connect()
        assert await out(holder, REGISTER, BasicParameters(0, 0xA, aptpl=aptpl).encode()) == 0
        assert await out(holder, RESERVE, BasicParameters(0xA).encode(), EXCLUSIVE_ACCESS) == 0
    finally:
        await array.process.kill()
    async with running_array(tmp_path, *words, name="again") as array:
        other = await array.connect(OTHER, OTHER_ISID)
        assert await write(other) == (ScsiStatus.RESERVATION_CONFLICT if aptpl else 0)
        generation, descriptors = await full_status(other)
        assert generation == 0
        holder = await array.connect()
        kept = FullStatus(0xA, TransportId(HOST, DEFAULT_ISID), 1, holder=True, type_code=EXCLUSIVE_ACCESS)
        assert descriptors == ([kept] if aptpl else [])
        if not aptpl:
            return
        assert await write(holder) == 0
        # The same host under a new ISID is another nexus, and the log tells its administrator.
        changed = await array.connect(isid=OTHER_ISID)
        assert await write(changed) == ScsiStatus.RESERVATION_CONFLICT
        assert "a changed ISID makes a conflict" in array.log
        assert await out(holder, CLEAR, BasicParameters(0xA).encode()) == 0
        assert await write(changed) == 0


async def test_cleared_stays_cleared(tmp_path: Path) -> None:
    words = ("--portal", "127.0.0.1:0", "--state-dir", str(tmp_path / "state"), "--volume", "64MiB")
    async with running_array(tmp_path, *words) as array:
        holder = await array.connect()
        assert await out(holder, REGISTER, BasicParameters(0, 0xA, aptpl=True).encode()) == 0
        assert await out(holder, RESERVE, BasicParameters(0xA).encode(), EXCLUSIVE_ACCESS) == 0
        assert await out(holder, CLEAR, BasicParameters(0xA).encode()) == 0
    async with running_array(tmp_path, *words, name="again") as array:
        assert await write(await array.connect(OTHER, OTHER_ISID)) == 0


async def test_another_path_is_another_nexus(tmp_path: Path, two_groups: Path) -> None:
    """ALL_TG_PT registers an initiator port at every target port, and REGISTER AND MOVE goes from one to another."""
    async with running_array(tmp_path, "--config", str(two_groups)) as array:
        second = array.urls[1].removeprefix("iscsi://").split("/")[0].rpartition(":")
        address = second[0], int(second[2])
        paths = [await array.connect(), await IscsiSession.connect(*address, array.iqn, HOST, DEFAULT_ISID)]
        await paths[1].execute(0, bytes(6))
        assert await out(paths[0], REGISTER, BasicParameters(0, 0xA).encode()) == 0
        assert await out(paths[0], RESERVE, BasicParameters(0xA).encode(), WRITE_EXCLUSIVE_REGISTRANTS_ONLY) == 0
        assert [await write(path) for path in paths] == [0, ScsiStatus.RESERVATION_CONFLICT]
        assert "through another target port it is another nexus" in array.log
        assert await out(paths[0], REGISTER, BasicParameters(0xA, 0xB, all_tg_pt=True).encode()) == 0
        assert [await write(path) for path in paths] == [0, 0]
        target = MoveParameters(0xB, 0xC, 2, TransportId(OTHER, OTHER_ISID).encode()).encode()
        assert await out(paths[0], REGISTER_AND_MOVE, target) == 0
        _, descriptors = await full_status(paths[0])
        assert {(status.key, status.relative_target_port, status.holder) for status in descriptors} == {
            (0xB, 0, False),
            (0xC, 2, True),
        }
        (shared,) = [status for status in descriptors if status.key == 0xB]
        assert shared.all_target_ports


async def test_preempt_and_abort_of_a_write_that_waits_for_its_data(tmp_path: Path) -> None:
    """The write was not in the task set yet. Its data come after the answer, and are never written."""
    async with running_array(tmp_path) as array, RawInitiator.connection(array.address) as victim:
        winner = await array.connect(OTHER, OTHER_ISID)
        await victim.log_in(array.iqn, InitialR2T="Yes", ImmediateData="Yes")
        victim.command(ScsiCommandPdu(cdb=bytes(16)))  # hears of the power on
        await victim.expect(ScsiResponsePdu)
        register = BasicParameters(0, 0xA).encode()
        cdb = bytes((0x5F, REGISTER, 0, 0, 0, 0, 0, 0, len(register))) + bytes(7)
        victim.command(ScsiCommandPdu(write=True, cdb=cdb, expected_data_transfer_length=24, data=register))
        assert (await victim.expect(ScsiResponsePdu)).status == 0
        assert await out(winner, REGISTER, BasicParameters(0, 0xB).encode()) == 0
        assert await write(winner, b"k" * BLOCK) == 0
        itt = victim.command(
            ScsiCommandPdu(write=True, cdb=WRITE.ljust(16, b"\0"), expected_data_transfer_length=BLOCK)
        )
        wanted = await victim.expect(R2TPdu)
        assert await out(winner, PREEMPT_AND_ABORT, BasicParameters(0xB, 0xA).encode()) == 0
        victim.send(DataOutPdu(itt=itt, ttt=wanted.ttt, data=b"l" * BLOCK))
        victim.command(ScsiCommandPdu(cdb=bytes(16)))  # is answered after the Data-Out was taken in
        response = await victim.expect(ScsiResponsePdu)
        assert response.itt != itt and decode_sense(bytes(response.data[2:])).asc_ascq == 0x2A05
        assert bytes((await winner.execute(0, READ, data_in_length=BLOCK)).data_in) == b"k" * BLOCK
