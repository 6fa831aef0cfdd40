"""VPD page 8Fh (SPC-4 7.8.17) tells what is there, and standard INQUIRY says so with 3PC (SPC-4 6.4.2)."""

import struct

from storage_model.spec.scsi_task import ScsiStatus


async def descriptors(bench):
    page = await bench.good("12 01 8f 04 00 00")
    assert page[1] == 0x8F and int.from_bytes(page[2:4], "big") == len(page) - 4
    found, rest = {}, page[4:]
    while rest:
        kind, length = struct.unpack(">HH", rest[:4])
        assert length % 4 == 0
        found[kind], rest = rest[4 : 4 + length], rest[4 + length :]
    assert list(found) == sorted(found)
    return found


async def test_3pc(bench):
    assert (await bench.good("12 00 00 00 ff 00"))[5] & 0x08


async def test_supported_commands_are_those_of_the_table(bench):
    listed = (await descriptors(bench))[0x0001]
    assert listed[: 1 + listed[0]] == bytes((9, 0x83, 1, 0x00, 0x84, 4, 0x00, 0x01, 0x03, 0x04))
    for opcode, action in ((0x83, 0x00), (0x84, 0x00), (0x84, 0x01), (0x84, 0x03), (0x84, 0x04)):
        assert (await bench.run(bytes((opcode, action, 0)))).sense[12:14] != b"\x20\x00"
    for opcode, action in ((0x83, 0x01), (0x84, 0x05)):
        outcome = await bench.run(bytes((opcode, action, 0)))
        assert outcome.status is ScsiStatus.CHECK_CONDITION and outcome.sense[12:14] == b"\x24\x00"


async def test_parameter_data_and_descriptors_are_the_operating_parameters(bench):
    found = await descriptors(bench)
    operating = await bench.good("84 03 00 00 00 00 00 00 00 00 00 00 ff ff 00 00")
    assert found[0x0004][4:16] == operating[8:16] + operating[20:24]
    assert found[0x0008][:3] == operating[43:46]
    assert found[0x000C][:4] == b"\x00\x02\xff\xff"
    general = found[0x8001]
    assert len(general) == 32
    assert general[:12] == (operating[36] * 1).to_bytes(4, "big") * 2 + operating[16:20]
    assert general[12] == operating[37] == 9
    assert found[0xC001] == bytes(28)
