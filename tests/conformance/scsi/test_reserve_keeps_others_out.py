"""What a RESERVE keeps other nexuses from (SPC-2 table 10, SBC-3 table 4); test_reservation_matrix.py has the table."""

from storage_model.spec.scsi_task import ScsiStatus


async def test_prevent_conflicts_and_allow_does_not(bench):
    await bench.good("16", nexus=bench.nexus_b)
    assert (await bench.run("1e 00 00 00 01 00")).status is ScsiStatus.RESERVATION_CONFLICT
    await bench.good("1e 00 00 00 00 00")


async def test_starting_is_allowed_and_stopping_is_not(bench):
    await bench.good("16", nexus=bench.nexus_b)
    await bench.good("1b 00 00 00 01 00")
    for byte_4 in (0x00, 0x02, 0x11, 0x20):
        assert (await bench.run(bytes((0x1B, 0, 0, 0, byte_4)))).status is ScsiStatus.RESERVATION_CONFLICT


async def test_nothing_is_written_or_unmapped_past_a_reservation(bench):
    await bench.good("2a 00 00000000 00 0001", b"k" * 512)
    await bench.good("16")
    for cdb, data in (
        ("2e 00 00000000 00 0001", b"w" * 512),
        ("41 08 00000000 00 0001", bytes(512)),
        ("93 09 0000000000000000 00000001", b""),
        ("42 00 0000000000 0018", bytes(24)),
        ("89 00 0000000000000000 000000 01", b"k" * 512 + b"w" * 512),
    ):
        assert (await bench.run(cdb, data, bench.nexus_b)).status is ScsiStatus.RESERVATION_CONFLICT
    assert await bench.good("28 00 00000000 00 0001") == b"k" * 512
