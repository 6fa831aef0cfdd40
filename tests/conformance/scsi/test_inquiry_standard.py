"""SPC-4 6.4.2."""

from storage_model.spec.scsi_task import ScsiStatus


async def test_standard_data(bench):
    data = await bench.good("12 00 00 00 ff 00")
    assert len(data) == 96
    assert data[0] == 0x00 and data[2] == 0x06 and data[3] & 0x0F == 2 and data[4] == 91
    assert data[7] == 0x02
    assert (data[8:16], data[16:32], data[32:36]) == (b"PAIRVOL ", b"VIRTUAL DISK    ", b"0001")
    assert data[58:66].hex() == "00a00960046004c0"


async def test_allocation_length_is_obeyed_to_the_byte(bench):
    for length in (0, 1, 5, 36, 95, 96, 97):
        outcome = await bench.run(bytes((0x12, 0, 0, 0, length, 0)))
        assert len(outcome.data_in) == outcome.transfer_length_bytes == min(length, 96)


async def test_page_code_without_evpd_is_refused(bench):
    sense = await bench.refused("12 00 83 00 ff 00")
    assert (sense.asc_ascq, sense.field_pointer) == (0x2400, 2)


async def test_unknown_lun_says_that_no_unit_is_there(bench):
    outcome = await bench.run("12 00 00 00 60 00", lun=7)
    assert outcome.status is ScsiStatus.GOOD and outcome.data_in[0] == 0x7F
