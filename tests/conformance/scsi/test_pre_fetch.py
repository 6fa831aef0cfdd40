"""PRE-FETCH 10 and 16 (SBC-3 5.7, 5.8)."""

import pytest

from storage_model.spec.scsi_cdb import OperationCode as Code
from storage_model.spec.scsi_cdb import encode_block_cdb
from storage_model.spec.scsi_task import ScsiStatus

CODES = [Code.PRE_FETCH_10, Code.PRE_FETCH_16]


@pytest.mark.parametrize("code", CODES, ids=lambda code: code.name)
@pytest.mark.parametrize("flags", [0x00, 0x02], ids=["", "IMMED"])
async def test_good_without_data(bench, code, flags):
    """GOOD, never CONDITION MET: nothing is said of what the cache holds."""
    for lba, count in ((0, 0), (0, 1), (2047, 1), (5, 0), (0, 2048)):
        outcome = await bench.run(encode_block_cdb(code, lba, count, flags))
        assert outcome.status is ScsiStatus.GOOD and not outcome.data_in


@pytest.mark.parametrize("code", CODES, ids=lambda code: code.name)
@pytest.mark.parametrize("flags", [0x00, 0x02], ids=["", "IMMED"])
async def test_beyond_the_end(bench, code, flags):
    """SBC-3 4.5.2: told with IMMED as well."""
    sense = await bench.refused(encode_block_cdb(code, 2040, 9, flags))
    assert (sense.sense_key, sense.asc_ascq) == (0x5, 0x2100)
