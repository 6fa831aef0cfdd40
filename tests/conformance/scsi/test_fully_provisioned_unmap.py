"""UNMAP to a fully provisioned unit: the command does not exist (SBC-3 4.7.2, 5.28)."""

from storage_model.spec.scsi_pages import unmap_parameter_list

PARAMETERS = unmap_parameter_list([(0, 1)])
UNMAP = b"\x42" + bytes(6) + len(PARAMETERS).to_bytes(2, "big") + b"\0"
ONE_COMMAND = "a3 0c 01 42 0000 00000100"
ALL_COMMANDS = "a3 0c 00 00 0000 0000ffff"


async def test_is_an_unknown_operation_code(full_bench):
    await full_bench.good("2a 00 00000000 00 0001", b"f" * 512)
    sense = await full_bench.refused(UNMAP, PARAMETERS)
    assert (sense.sense_key, sense.asc_ascq) == (0x5, 0x2000)
    assert await full_bench.good("28 00 00000000 00 0001") == b"f" * 512


async def test_is_reported_as_not_supported(full_bench, bench):
    assert (await full_bench.good(ONE_COMMAND))[1] & 0x07 == 0b001
    assert (await bench.good(ONE_COMMAND))[1] & 0x07 == 0b011


async def test_is_not_among_all_commands(full_bench, bench):
    def operation_codes(data):
        return {data[4 + offset] for offset in range(0, int.from_bytes(data[:4], "big"), 8)}

    assert operation_codes(await bench.good(ALL_COMMANDS)) - operation_codes(await full_bench.good(ALL_COMMANDS)) == {
        0x42
    }
