"""A write up to MAXIMUM TRANSFER LENGTH (SBC-3 6.6.4) reaches the volume in pieces that a mirror can carry."""

from storage_model.spec.scsi_cdb import OperationCode, encode_block_cdb
from target.scsi.block_commands import VOLUME_WRITE_BYTES
from target.scsi.device_server import DeviceServer
from target.scsi.logical_unit import MAXIMUM_TRANSFER_BYTES, LogicalUnit, UnitIdentity
from target.volumes.memory_volume import MemoryVolume
from tests.conformance.scsi.bench import record_writes


async def test_pieces(bench, monkeypatch):
    volume = MemoryVolume(2 * MAXIMUM_TRANSFER_BYTES)
    bench.server = DeviceServer({0: LogicalUnit(0, volume, UnitIdentity("large"))})
    seen = record_writes(volume, monkeypatch)
    data = bytes(range(256)) * (MAXIMUM_TRANSFER_BYTES // 256 - 2)
    await bench.good(encode_block_cdb(OperationCode.WRITE_16, 3, len(data) // 512), data)
    sizes = [length for length, _ in seen]
    assert sum(sizes) == len(data) and max(sizes) == VOLUME_WRITE_BYTES
    assert await bench.good(encode_block_cdb(OperationCode.READ_16, 3, len(data) // 512)) == data
    too_long = MAXIMUM_TRANSFER_BYTES // 512 + 1
    assert (await bench.refused(encode_block_cdb(OperationCode.WRITE_16, 3, too_long))).field_pointer == 10
