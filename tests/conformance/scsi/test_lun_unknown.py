"""SAM-5 4.7, SPC-4 annex F: LOGICAL UNIT NOT SUPPORTED."""

import pytest

from storage_model.spec.scsi_sense import decode_sense
from storage_model.spec.scsi_task import ScsiStatus


@pytest.mark.parametrize("cdb", ["00", "28 00 00000000 00 0001", "25", "12 01 00 00 ff", "1a 00 3f 00 ff", "c0"])
async def test_other_commands_are_refused(bench, cdb):
    outcome = await bench.run(cdb, lun=3)
    assert outcome.status is ScsiStatus.CHECK_CONDITION
    sense = decode_sense(outcome.sense)
    assert (sense.sense_key, sense.asc_ascq) == (0x5, 0x2500)
