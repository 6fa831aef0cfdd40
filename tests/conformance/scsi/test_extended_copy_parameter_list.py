"""SPC-4 6.4.3, 6.4.5, 6.4.6: a parameter list that is wrong is refused before anything is copied."""

import struct

import pytest

from storage_model.spec.scsi_copy import (
    MAXIMUM_CSCD_DESCRIPTORS,
    MAXIMUM_DESCRIPTOR_LIST_LENGTH,
    MAXIMUM_SEGMENT_DESCRIPTORS,
    ListIdUsage,
)
from tests.conformance.scsi.copy_bench import SIZE, CopyBench, segment, sense

CSCD, SEGMENT = 16, 16 + 3 * 32  # where the first of each is in the bench's lists


@pytest.fixture
def bench():
    return CopyBench()


async def refused(bench, data):
    told = sense(await bench.copy(data))
    assert await bench.content(1) == bytes(SIZE)
    return told


@pytest.mark.parametrize("length", range(1, 16 + 3 * 32 + 28))
async def test_cut_off_anywhere(bench, length):
    """1Ah/00h PARAMETER LIST LENGTH ERROR, at every length from 1 up."""
    whole = bench.request(segment(0, 1, 1))
    assert len(whole) == 16 + 3 * 32 + 28
    assert str(await refused(bench, whole[:length])) == "5h 1Ah/00h"


async def test_longer_than_the_initiator_sent(bench):
    task = bench.task(bench.request(segment(0, 1, 1)))
    task.data_out = task.data_out[:-1]
    assert str(sense(await bench.server.execute(task))) == "5h 1Ah/00h"


@pytest.mark.parametrize(
    ("offset", "value", "code", "pointer"),
    [
        (1, 0x08, "26h/00h", 1),  # LIST ID USAGE 01b
        (1, 0x18, "26h/00h", 0),  # no list identifier, and one is there
        (3, 95, "26h/00h", 2),  # CSCD DESCRIPTOR LIST LENGTH: it ends inside the third
        (11, 27, "26h/00h", 8),
        (15, 1, "1Ah/00h", None),  # inline data that are not there
        (CSCD, 0xE0, "26h/07h", CSCD),  # a Fibre Channel descriptor
        (CSCD, 0x02, "26h/07h", CSCD),
        (CSCD + 5, 0x13, "26h/00h", CSCD + 5),  # ASSOCIATION: a target port's designator
        (CSCD + 7, 21, "26h/00h", CSCD + 7),
        (SEGMENT, 0x00, "26h/09h", SEGMENT),  # block to stream
        (SEGMENT, 0xE4, "26h/09h", SEGMENT),
        (SEGMENT + 3, 0x17, "26h/00h", SEGMENT + 2),
    ],
)
async def test_field(bench, offset, value, code, pointer):
    data = bytearray(bench.request(segment(0, 1, 1)))
    data[offset] = value
    told = await refused(bench, data)
    assert (str(told), told.field_pointer) == (f"5h {code}", pointer)
    assert told.in_parameter_list is (pointer is not None)


async def test_inline_data(bench):
    """26h/0Bh INLINE DATA LENGTH EXCEEDED: MAXIMUM INLINE DATA LENGTH is 0."""
    data = bytearray(bench.request(segment(0, 1, 1)) + b"x")
    data[15] = 1
    assert str(await refused(bench, bytes(data))) == "5h 26h/0Bh"


def lists(bench, cscds, segments):
    whole = bench.request(segment(0, 1, 1))
    one_cscd, one_segment = whole[CSCD : CSCD + 32], whole[SEGMENT:]
    header = struct.pack(">BBH4xII", 1, 0, 32 * cscds, 28 * segments, 0)
    return header + one_cscd * cscds + one_segment * segments


async def test_too_many_descriptors(bench):
    assert str(await refused(bench, lists(bench, MAXIMUM_CSCD_DESCRIPTORS + 1, 1))) == "5h 26h/06h"
    assert str(await refused(bench, lists(bench, 1, MAXIMUM_SEGMENT_DESCRIPTORS + 1))) == "5h 26h/08h"


async def test_longer_than_the_maximum_descriptor_list_length(bench):
    data = lists(bench, MAXIMUM_CSCD_DESCRIPTORS + 1, MAXIMUM_SEGMENT_DESCRIPTORS + 1)
    assert len(data) > 16 + MAXIMUM_DESCRIPTOR_LIST_LENGTH
    assert str(await refused(bench, data)) == "5h 1Ah/00h"


async def test_as_much_as_is_allowed(bench):
    data = lists(bench, MAXIMUM_CSCD_DESCRIPTORS, MAXIMUM_SEGMENT_DESCRIPTORS)
    assert not (await bench.copy(data)).status


async def test_lu_id_type_is_ignored(bench):
    data = bytearray(bench.request(segment(0, 1, 1)))
    data[CSCD + 1] |= 0x80
    assert not (await bench.copy(bytes(data))).status


async def test_no_list_identifier(bench):
    assert not (await bench.copy(bench.request(segment(0, 1, 1), usage=ListIdUsage.NO_LIST_ID, list_id=0))).status
