"""Sessions of simulated initiators: opened again when they are lost, and CDBs for what hosts ask."""

import asyncio
from dataclasses import dataclass

from initiator_shim.initiator_task import ScsiOutcome
from initiator_shim.initiator_transport import IscsiSession
from initiator_shim.session_errors import SessionError
from scripts.simulation.arrays import IQN
from storage_model.nexus import ITNexus
from storage_model.spec.scsi_cdb import OperationCode, PersistentReserveIn, PersistentReserveOut
from storage_model.volume import Buffer

_LOGIN_SECONDS = 4.0


@dataclass
class Client:
    """One initiator port, and where it logs in. A command port (``pair_client.CommandPort``)."""

    name: str
    isid: bytes
    host: str
    port: int
    keepalive: float | None = 2.0

    def __post_init__(self) -> None:
        self._session: IscsiSession | None = None
        self._opening = asyncio.Lock()

    @property
    def nexus(self) -> ITNexus:
        return ITNexus(self.name, self.isid)

    async def execute(
        self, lun: int, cdb: bytes, data_out: Buffer = b"", data_in_length: int = 0, timeout: float = 8.0
    ) -> ScsiOutcome:
        """Raises SessionError; then a new session is made before the next command, which ends what is left of this."""
        session = await self.session()
        try:
            return await session.execute(lun, cdb, data_out, data_in_length, timeout)
        except SessionError:
            session.close()
            raise

    async def session(self) -> IscsiSession:
        async with self._opening:
            if self._session is None or self._session.ended.done():
                self._session = None
                self._session = await IscsiSession.connect(
                    self.host, self.port, IQN, self.name, self.isid, _LOGIN_SECONDS, keepalive=self.keepalive
                )
            return self._session

    def close(self) -> None:
        if self._session is not None:
            self._session.close()


def _ten(code: OperationCode, lba: int, count: int) -> bytes:
    return bytes((code, 0)) + lba.to_bytes(4) + b"\0" + count.to_bytes(2) + b"\0"


def write_cdb(lba: int, count: int, *, fua: bool = False) -> bytes:
    cdb = bytearray(_ten(OperationCode.WRITE_10, lba, count))
    cdb[1] = 0x08 if fua else 0
    return bytes(cdb)


def read_cdb(lba: int, count: int) -> bytes:
    return _ten(OperationCode.READ_10, lba, count)


FLUSH = _ten(OperationCode.SYNCHRONIZE_CACHE_10, 0, 0)
RESERVE = bytes((OperationCode.RESERVE_6, 0, 0, 0, 0, 0))
RELEASE = bytes((OperationCode.RELEASE_6, 0, 0, 0, 0, 0))


def reserve_out_cdb(action: PersistentReserveOut, scope_and_type: int, length: int) -> bytes:
    return bytes((OperationCode.PERSISTENT_RESERVE_OUT, action, scope_and_type, 0, 0)) + length.to_bytes(4) + b"\0"


def reserve_in_cdb(action: PersistentReserveIn, length: int) -> bytes:
    return bytes((OperationCode.PERSISTENT_RESERVE_IN, action, 0, 0, 0, 0, 0)) + length.to_bytes(2) + b"\0"
