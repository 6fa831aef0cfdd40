"""The struct decoders against the declared layouts."""

from hypothesis import given
from hypothesis import strategies as st

from storage_model.spec import scsi_cdb as cdb
from storage_model.spec.scsi_cdb import OperationCode

FLAGS, LBA_32, LBA_64 = st.integers(0, 0xFF), st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 64) - 1)


@given(st.binary(min_size=16, max_size=16))
def test_decoders_agree_with_the_layouts(raw):
    for decode, layout in (
        (cdb.decode_block_10, cdb.BLOCK_CDB_10),
        (cdb.decode_block_12, cdb.BLOCK_CDB_12),
        (cdb.decode_block_16, cdb.BLOCK_CDB_16),
    ):
        declared = layout.parse(raw)
        assert decode(raw) == (declared.flags, declared.lba, declared.transfer_length)
    declared = cdb.BLOCK_CDB_6.parse(raw)
    assert cdb.decode_block_6(raw) == (0, declared.lba, declared.transfer_length or 256)


@given(FLAGS, LBA_32, st.integers(0, 0xFFFF), LBA_64, st.integers(0, (1 << 32) - 1))
def test_decode_is_the_inverse_of_encode(flags, lba, short, long_lba, long):
    ten = cdb.encode_block_cdb(OperationCode.WRITE_10, lba, short, flags)
    twelve = cdb.encode_block_cdb(OperationCode.WRITE_12, lba, long, flags)
    sixteen = cdb.encode_block_cdb(OperationCode.WRITE_16, long_lba, long, flags)
    assert (len(ten), len(twelve), len(sixteen)) == (10, 12, 16)
    assert cdb.decode_block_cdb(ten) == (flags, lba, short)
    assert cdb.decode_block_cdb(twelve) == (flags, lba, long)
    assert cdb.decode_block_cdb(sixteen) == (flags, long_lba, long)


@given(st.integers(0, (1 << 21) - 1), st.integers(1, 256))
def test_six_bytes(lba, count):
    assert cdb.decode_block_cdb(cdb.encode_block_cdb(OperationCode.READ_6, lba, count)) == (0, lba, count)


def test_lengths_by_group():
    """SPC-4 table 19."""
    assert [cdb.cdb_length(code) for code in (0x12, 0x28, 0x5E, 0x88, 0xA0, 0xC0)] == [6, 10, 10, 16, 12, 16]
