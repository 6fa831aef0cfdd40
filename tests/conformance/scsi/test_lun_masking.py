"""A masked unit does not exist for the nexus that may not see it (SAM-5 4.7, SPC-4 6.4.1, 6.35.1, RFC 7143 §11.5.1)."""

import asyncio

import pytest

from storage_model.nexus import ITNexus
from storage_model.spec.iscsi_codes import lun_from_bytes
from storage_model.spec.scsi_sense import AscAscq, SenseKey, decode_sense
from storage_model.spec.scsi_task import ScsiStatus, TaskFunction, TaskFunctionResponse
from target.scsi.device_server import DeviceServer
from target.scsi.logical_unit import LogicalUnit, UnitIdentity
from target.scsi.lun_mask import LunMask
from target.scsi.task import ScsiTask, TaskOutcome
from target.volumes.memory_volume import MemoryVolume
from tests.conformance.scsi.bench import BLOCK, SlowVolume
from tests.eventually import eventually

MASKED = ITNexus("iqn.2026-11.org.example:masked", b"\x80\0\0\0\0\x01")
OTHER = ITNexus("iqn.2026-11.org.example:other", b"\x80\0\0\0\0\x02")
TEST_UNIT_READY, READ, WRITE = "00", "28000000000000000100", "2a000000000000000100"
HIDDEN, SEEN = 0, 1
ONLY_SEEN = LunMask(frozenset({SEEN, 9}))  # 9 does not exist, and is not made up


def unit(lun: int, volume: MemoryVolume | None = None) -> LogicalUnit:
    return LogicalUnit(lun, volume or MemoryVolume(1 << 20, BLOCK), UnitIdentity(f"30095-{lun}"))


@pytest.fixture
def server() -> DeviceServer:
    """``MASKED`` sees LUN 1 of 0 and 1, ``OTHER`` sees both."""
    server = DeviceServer({HIDDEN: unit(HIDDEN), SEEN: unit(SEEN)})
    server.nexus_established(MASKED, ONLY_SEEN)
    server.nexus_established(OTHER)
    for lu in server.logical_units.values():
        lu.unit_attentions.take(MASKED)
        lu.unit_attentions.take(OTHER)
    return server


async def run(
    server: DeviceServer, cdb: str, nexus: ITNexus = MASKED, lun: int = HIDDEN, data: bytes = b""
) -> TaskOutcome:
    return await server.execute(ScsiTask(nexus, lun, 1, bytes.fromhex(cdb).ljust(16, b"\0"), data, 1 << 20))


async def luns(server: DeviceServer, nexus: ITNexus, lun: int, select_report: int = 0) -> list[int]:
    outcome = await run(server, f"a000{select_report:02x}000000000010000000", nexus, lun)
    assert outcome.status is ScsiStatus.GOOD
    data = bytes(outcome.data_in)
    assert int.from_bytes(data[:4], "big") == len(data) - 8
    return [lun_from_bytes(data[at : at + 8]) for at in range(8, len(data), 8)]


# ---------------------------------------------------------------------------------------------------------- commands


@pytest.mark.parametrize("addressed", [SEEN, HIDDEN, 5])
async def test_report_luns_lists_what_the_nexus_sees(server: DeviceServer, addressed: int) -> None:
    assert await luns(server, MASKED, addressed) == [SEEN]
    assert await luns(server, MASKED, addressed, 2) == [SEEN]
    assert await luns(server, OTHER, addressed) == [HIDDEN, SEEN]


async def test_report_luns_of_a_nexus_that_sees_nothing(server: DeviceServer) -> None:
    nobody = ITNexus("iqn.2026-11.org.example:nobody", bytes(6))
    server.nexus_established(nobody, LunMask(frozenset()))
    assert await luns(server, nobody, 0) == []


async def test_inquiry_says_that_no_unit_is_there(server: DeviceServer) -> None:
    """SPC-4 6.4.2: peripheral qualifier 011b, device type 1Fh."""
    outcome = await run(server, "120000002400")
    assert outcome.status is ScsiStatus.GOOD and bytes(outcome.data_in)[0] == 0x7F
    assert bytes((await run(server, "120000002400", OTHER)).data_in)[0] == 0x00


async def test_inquiry_tells_nothing_of_the_unit(server: DeviceServer) -> None:
    outcome = await run(server, "120180002400")  # its serial number
    assert outcome.status is ScsiStatus.CHECK_CONDITION
    assert (decode_sense(outcome.sense).sense_key, decode_sense(outcome.sense).asc_ascq) == (5, 0x2500)


async def test_request_sense_says_that_no_unit_is_there(server: DeviceServer) -> None:
    sense = decode_sense(bytes((await run(server, "030000001200")).data_in))
    assert (sense.sense_key, sense.asc_ascq) == (SenseKey.ILLEGAL_REQUEST, AscAscq.LOGICAL_UNIT_NOT_SUPPORTED)


@pytest.mark.parametrize("operation_code", [code for code in range(256) if code not in (0x03, 0x12, 0xA0)])
async def test_every_other_command_ends_with_25h(server: DeviceServer, operation_code: int) -> None:
    """Pair control, reservations and reset of the unit included."""
    for service_action in (0x00, 0x01, 0x10):
        outcome = await run(server, f"{operation_code:02x}{service_action:02x}", data=bytes(512))
        sense = decode_sense(outcome.sense)
        assert (sense.sense_key, sense.asc_ascq) == (SenseKey.ILLEGAL_REQUEST, AscAscq.LOGICAL_UNIT_NOT_SUPPORTED)


async def test_a_write_changes_nothing(server: DeviceServer) -> None:
    await run(server, WRITE, data=b"\xaa" * BLOCK)
    assert bytes((await run(server, READ, OTHER)).data_in) == bytes(BLOCK)


async def test_the_units_that_are_seen_work_as_ever(server: DeviceServer) -> None:
    assert (await run(server, WRITE, lun=SEEN, data=b"\xaa" * BLOCK)).status is ScsiStatus.GOOD
    assert bytes((await run(server, READ, OTHER, SEEN)).data_in) == b"\xaa" * BLOCK


async def test_a_unit_that_comes_later_is_seen_if_the_mask_has_it(server: DeviceServer) -> None:
    units = server.logical_units
    assert isinstance(units, dict)
    units[9], units[10] = unit(9), unit(10)
    assert await luns(server, MASKED, SEEN) == [SEEN, 9]
    assert await luns(server, OTHER, SEEN) == [HIDDEN, SEEN, 9, 10]


async def test_the_mask_ends_with_the_nexus(server: DeviceServer) -> None:
    """What the next login of the same initiator port may see, its own rule says."""
    await server.nexus_lost(MASKED)
    server.nexus_established(MASKED)
    assert await luns(server, MASKED, SEEN) == [HIDDEN, SEEN]


def test_without_masks_there_is_nothing_to_look_up(server: DeviceServer) -> None:
    bare = DeviceServer({HIDDEN: unit(HIDDEN)})
    bare.nexus_established(OTHER)
    assert not bare._masks and bare.units_of(OTHER) is bare.logical_units


# ---------------------------------------------------------------------------------------------- read-only for one nexus


@pytest.fixture
def read_only_server(server: DeviceServer) -> DeviceServer:
    server._masks[MASKED] = LunMask(None, read_only=True)
    return server


@pytest.mark.parametrize(
    ("cdb", "length"),
    [(WRITE, BLOCK), ("42000000000000001800", 24), ("93080000000000000000000000010000", BLOCK), ("04", 0)],
    ids=["WRITE(10)", "UNMAP", "WRITE SAME(16)", "FORMAT UNIT"],
)
async def test_read_only_nexus_may_not_write(read_only_server: DeviceServer, cdb: str, length: int) -> None:
    """SBC-3 4.12: DATA PROTECT, WRITE PROTECTED."""
    outcome = await run(read_only_server, cdb, data=bytes(length))
    sense = decode_sense(outcome.sense)
    assert (sense.sense_key, sense.asc_ascq) == (SenseKey.DATA_PROTECT, AscAscq.WRITE_PROTECTED)
    assert (await run(read_only_server, WRITE, OTHER, data=bytes(BLOCK))).status is ScsiStatus.GOOD


async def test_read_only_nexus_may_read_and_is_told(read_only_server: DeviceServer) -> None:
    """MODE SENSE, WP in the device-specific parameter (SBC-3 6.5.1)."""
    assert (await run(read_only_server, READ)).status is ScsiStatus.GOOD
    assert bytes((await run(read_only_server, "1a003f00ff00")).data_in)[2] & 0x80
    assert not bytes((await run(read_only_server, "1a003f00ff00", OTHER)).data_in)[2] & 0x80


async def test_read_only_nexus_may_not_control_pairs(read_only_server: DeviceServer) -> None:
    outcome = await run(read_only_server, "c101")
    assert decode_sense(outcome.sense).sense_key == SenseKey.DATA_PROTECT
    assert decode_sense((await run(read_only_server, "c101", OTHER)).sense).sense_key != SenseKey.DATA_PROTECT
    assert (await run(read_only_server, "c000000000000000000000000fff0000")).status is ScsiStatus.GOOD


# --------------------------------------------------------------------------------------------------- task management


@pytest.mark.parametrize(
    "function",
    [
        TaskFunction.ABORT_TASK,
        TaskFunction.ABORT_TASK_SET,
        TaskFunction.CLEAR_TASK_SET,
        TaskFunction.LOGICAL_UNIT_RESET,
    ],
)
async def test_task_management_of_a_masked_unit(server: DeviceServer, function: TaskFunction) -> None:
    """RFC 7143 §11.6.1: LUN does not exist."""
    assert await server.manage(MASKED, function, HIDDEN, 1) is TaskFunctionResponse.LUN_DOES_NOT_EXIST
    assert server.luns_affected(MASKED, function, HIDDEN) == ()


async def test_target_warm_reset_reaches_only_the_units_that_are_seen(server: DeviceServer) -> None:
    """RFC 7143 §11.5.1: subject to access controls for the requesting initiator."""
    assert await server.manage(MASKED, TaskFunction.TARGET_WARM_RESET, 0, 0) is TaskFunctionResponse.COMPLETE
    units = server.logical_units
    assert units[SEEN].unit_attentions.peek(OTHER) == AscAscq.SCSI_BUS_RESET_OCCURRED
    assert units[HIDDEN].unit_attentions.peek(OTHER) is None
    assert server.luns_affected(MASKED, TaskFunction.TARGET_WARM_RESET, 0) == {SEEN}


async def test_target_cold_reset_is_not_for_a_masked_nexus(server: DeviceServer) -> None:
    """It would end the sessions of those who use the units that it cannot see."""
    assert (
        await server.manage(MASKED, TaskFunction.TARGET_COLD_RESET, 0, 0) is TaskFunctionResponse.AUTHORIZATION_FAILED
    )
    assert server.logical_units[SEEN].unit_attentions.peek(OTHER) is None
    assert server.luns_affected(MASKED, TaskFunction.TARGET_COLD_RESET, 0) == ()
    assert await server.manage(OTHER, TaskFunction.TARGET_COLD_RESET, 0, 0) is TaskFunctionResponse.COMPLETE
    assert server.luns_affected(OTHER, TaskFunction.TARGET_COLD_RESET, 0) == {HIDDEN, SEEN}


async def test_a_reset_does_not_touch_a_command_on_a_masked_unit(slow_volume: SlowVolume) -> None:
    server = DeviceServer({HIDDEN: unit(HIDDEN, slow_volume), SEEN: unit(SEEN)})
    server.nexus_established(MASKED, ONLY_SEEN)
    task = ScsiTask(OTHER, HIDDEN, 7, bytes.fromhex(WRITE).ljust(16, b"\0"), b"\xaa" * BLOCK, 0)
    writing = asyncio.create_task(server.execute(task))
    await slow_volume.waiting.wait()
    async with asyncio.timeout(5):  # it does not wait for that command either
        await server.manage(MASKED, TaskFunction.TARGET_WARM_RESET, 0, 0)
    assert not task.aborted
    slow_volume.let_go.set()
    await eventually(writing.done, within=5, what="the write's end")
    assert writing.result().status is ScsiStatus.GOOD and not task.aborted
