"""RECEIVE COPY RESULTS (SPC-4 6.3): what became of a copy, told to the nexus that asked for it."""

import asyncio
import struct

import pytest

from storage_model.spec.scsi_copy import MAXIMUM_CONCURRENT_COPIES, ListIdUsage
from storage_model.spec.scsi_sense import AscAscq, decode_sense
from storage_model.spec.scsi_task import ScsiStatus
from target.scsi.copy_operations import REMEMBERED_COPIES
from tests.conformance.scsi.bench import NEXUS_A, NEXUS_B
from tests.conformance.scsi.copy_bench import CopyBench, segment, segment_error, sense
from tests.conformance.scsi.test_extended_copy_abort import SlowDestination

STATUS, DATA, PARAMETERS, FAILURE = 0x00, 0x01, 0x03, 0x04


def cdb(action, list_id=7, length=0xFFFF):
    return (bytes((0x84, action, list_id)) + bytes(7) + length.to_bytes(4, "big")).hex()


async def ask(bench, action, list_id=7, nexus=NEXUS_A):
    return await bench.run(cdb(action, list_id), nexus=nexus)


async def good(bench, action, list_id=7):
    outcome = await ask(bench, action, list_id)
    assert not outcome.status, outcome
    return bytes(outcome.data_in)


async def unknown(bench, action, list_id=7, nexus=NEXUS_A):
    told = sense(await ask(bench, action, list_id, nexus))
    return (str(told), told.field_pointer) == ("5h 24h/00h", 2)


async def test_status_of_a_completed_copy():
    bench = await CopyBench().fill()
    await bench.good(segment(0, 1, 4), segment(0, 1, 4))
    assert await good(bench, STATUS) == struct.pack(">IBHBI", 8, 0x01, 2, 0, 4096)
    assert await good(bench, STATUS) == struct.pack(">IBHBI", 8, 0x01, 2, 0, 4096), "it may be asked again"


async def test_status_while_it_runs():
    volume = SlowDestination()
    bench = await CopyBench(volume).fill()
    running = asyncio.create_task(bench.copy(bench.request(segment(0, 2, 8), segment(0, 1, 8))))
    await volume.waiting.wait()
    assert await good(bench, STATUS) == struct.pack(">IBHBI", 8, 0x00, 1, 0, 4096)
    assert await unknown(bench, FAILURE) and await unknown(bench, DATA)
    again = sense(await bench.copy(bench.request(segment(0, 2, 8))))
    assert str(again) == "5h 00h/16h", "OPERATION IN PROGRESS: a list identifier twice"
    assert not (await bench.copy(bench.request(segment(0, 2, 8)), NEXUS_B)).status, "another nexus has its own"
    volume.let_go.set()
    assert not (await running).status


async def test_details_of_a_failed_copy():
    bench = await CopyBench().fill()
    outcome = await bench.copy(bench.request(segment(0, 1, 4), segment(9, 1, 4)))
    assert await good(bench, STATUS) == struct.pack(">IBHBI", 8, 0x02, 1, 0, 2048)
    details = await good(bench, FAILURE)
    available, status, length = struct.unpack(">I52xBxH", details[:60])
    assert (available, status, length) == (len(details) - 4, 0x02, len(details) - 60)
    assert details[60:] == outcome.sense
    assert await unknown(bench, FAILURE) and await unknown(bench, STATUS), "told once, then forgotten"


async def test_no_failure_has_no_details():
    bench = await CopyBench().fill()
    await bench.good(segment(0, 1, 4))
    assert (await good(bench, FAILURE))[:4] == bytes(4)


async def test_no_data_are_held():
    bench = await CopyBench().fill()
    await bench.good(segment(0, 1, 4))
    assert await good(bench, DATA) == bytes(4)


@pytest.mark.parametrize("action", [STATUS, DATA, FAILURE])
async def test_a_copy_that_is_not_there(action):
    bench = await CopyBench().fill()
    assert await unknown(bench, action)
    await bench.good(segment(0, 1, 4))
    assert await unknown(bench, action, list_id=8)
    assert await unknown(bench, action, nexus=NEXUS_B), "another nexus's copy"


@pytest.mark.parametrize(("usage", "list_id"), [(ListIdUsage.DISCARD, 7), (ListIdUsage.NO_LIST_ID, 0)])
async def test_a_copy_that_is_not_to_be_kept(usage, list_id):
    bench = await CopyBench().fill()
    assert not (await bench.copy(bench.request(segment(0, 1, 4), usage=usage, list_id=list_id))).status
    assert await unknown(bench, STATUS, list_id)


@pytest.mark.parametrize("how", ["lost", "reset"])
async def test_forgotten_with_the_nexus_and_at_a_reset(how):
    bench = await CopyBench().fill()
    await bench.good(segment(0, 1, 4))
    if how == "lost":
        await bench.server.nexus_lost(NEXUS_A)
    else:
        bench.units[0].reset(AscAscq.BUS_DEVICE_RESET_FUNCTION_OCCURRED)
    bench.units[0].unit_attentions.pending.clear()
    assert await unknown(bench, STATUS)


async def test_operating_parameters_are_the_limits():
    data = await good(await CopyBench().fill(), PARAMETERS)
    fields = struct.unpack(">IB3xHHIIIII2xHBBBB3xB", data[:44])
    assert fields == (42, 1, 64, 64, 64 * 60, 256 << 20, 0, 0, 0, 16, 16, 9, 0, 0, 2)
    assert data[44:] == b"\x02\xe4"
    assert not (await CopyBench().run(cdb(PARAMETERS, list_id=9))).status, "the list identifier is ignored"
    assert len((await CopyBench().run(cdb(PARAMETERS, length=7))).data_in) == 7


async def test_more_copies_at_a_time_than_told_are_sent_away():
    volume = SlowDestination()
    bench = await CopyBench(volume).fill()
    lists = [bench.request(segment(0, 1, 8), list_id=number) for number in range(MAXIMUM_CONCURRENT_COPIES + 1)]
    running = [asyncio.create_task(bench.copy(one)) for one in lists[:-1]]
    await volume.waiting.wait()
    assert (await bench.copy(lists[-1])).status is ScsiStatus.BUSY
    volume.let_go.set()
    assert {(await one).status for one in running} == {ScsiStatus.GOOD}
    assert not (await bench.copy(lists[-1])).status


async def test_only_so_many_are_remembered():
    bench = await CopyBench().fill()
    nexuses = [NEXUS_A, NEXUS_B]
    for number in range(REMEMBERED_COPIES + 10):
        request = bench.request(segment(0, 1, 1), list_id=number % 256)
        assert not (await bench.copy(request, nexuses[number // 256])).status
    assert len(bench.units[0].copies._identified) == REMEMBERED_COPIES
    assert await unknown(bench, STATUS, list_id=0), "the oldest is forgotten"
    assert not (await ask(bench, STATUS, 5, NEXUS_B)).status


async def test_descriptor_format_of_the_details():
    """As the control mode page had it when the copy ended (D_SENSE)."""
    bench = await CopyBench().fill()
    bench.units[0].descriptor_sense = True
    await bench.copy(bench.request(segment(0, 9, 4)))
    raw = (await good(bench, FAILURE))[60:]
    assert raw[0] == 0x72 and segment_error(decode_sense(raw)).number == 0
