"""SPC-4 6.39."""

from storage_model.spec.scsi_sense import AscAscq, decode_sense
from storage_model.spec.scsi_task import ScsiStatus


async def test_no_sense_when_nothing_is_pending(bench):
    data = await bench.good("03 00 00 00 fc 00")
    assert len(data) == 18 and data[0] == 0x70
    assert (decode_sense(data).sense_key, decode_sense(data).asc_ascq) == (0, 0)


async def test_descriptor_format_when_asked(bench):
    assert (await bench.good("03 01 00 00 fc 00"))[0] == 0x72


async def test_unit_attention_is_told_as_data_and_cleared(bench):
    bench.lu.unit_attentions.establish(AscAscq.BUS_DEVICE_RESET_FUNCTION_OCCURRED)
    told = decode_sense(await bench.good("03 00 00 00 fc 00"))
    assert (told.sense_key, told.asc_ascq) == (0x6, 0x2903)
    await bench.good("00 00 00 00 00 00")


async def test_unknown_lun(bench):
    outcome = await bench.run("03 00 00 00 fc 00", lun=9)
    assert outcome.status is ScsiStatus.GOOD
    assert decode_sense(bytes(outcome.data_in)).asc_ascq == 0x2500
