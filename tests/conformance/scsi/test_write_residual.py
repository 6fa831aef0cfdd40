"""RFC 7143 §11.4.5.1: Data-Out of another length than the CDB asks for."""

import pytest

from storage_model.spec.scsi_cdb import OperationCode, encode_block_cdb
from storage_model.spec.scsi_task import ScsiStatus

WRITES = [OperationCode.WRITE_10, OperationCode.WRITE_12, OperationCode.WRITE_16, OperationCode.WRITE_AND_VERIFY_10]


@pytest.mark.parametrize("code", WRITES, ids=lambda code: code.name)
@pytest.mark.parametrize(
    ("count", "sent", "written"), [(1, 0, 0), (1, 200, 0), (2, 512, 512), (1, 1024, 512), (2, 900, 512)]
)
async def test_whole_blocks_that_came_and_no_more(bench, code, count, sent, written):
    await bench.good(encode_block_cdb(OperationCode.WRITE_10, 0, 3), b"a" * 1536)
    outcome = await bench.run(encode_block_cdb(code, 0, count), b"b" * sent)
    assert outcome.status is ScsiStatus.GOOD and outcome.transfer_length_bytes == 512 * count
    after = await bench.good(encode_block_cdb(OperationCode.READ_10, 0, 3))
    assert after == b"b" * written + b"a" * (1536 - written)
