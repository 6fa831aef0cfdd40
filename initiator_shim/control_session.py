"""The shim's own session with an array target: kept open, opened again when lost. [IO]

It is a nexus of its own, never the host's, and survives the host's logins and resets.
"""

import asyncio
import logging

from initiator_shim.config import Address
from initiator_shim.initiator_chap import ChapCredentials
from initiator_shim.initiator_task import ScsiOutcome
from initiator_shim.initiator_transport import IscsiSession
from initiator_shim.logical_units import relative_target_port, report_luns
from initiator_shim.session_errors import SessionLost
from storage_model.errors import PairvolError
from storage_model.volume import Buffer

_RETRY_SECONDS = (0.1, 0.25, 0.5, 1.0)  # the last one again and again
_KEEPALIVE_SECONDS = 5.0
_LOGIN_SECONDS = 3.0
_log = logging.getLogger(__name__)


class ControlSession:
    """A command port (``pair_client.CommandPort``) that outlives connections.

    Commands wait for a session within their own timeout; one that was in flight when a session was lost fails.
    """

    def __init__(
        self,
        array: Address,
        target_name: str,
        initiator_name: str,
        isid: bytes,
        chap: ChapCredentials | None = None,
    ) -> None:
        self.array = array
        self.target_name = target_name
        self.target_port = 1  # relative target port identifier, as the array's own nexuses have it
        self.luns: list[int] = []
        self._initiator_name = initiator_name
        self._isid = isid
        self._chap = chap
        self._session: IscsiSession | None = None
        self._ready = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    async def start(self, *, must_connect: bool) -> None:
        """With ``must_connect`` the first attempt is made here, and its SessionError reaches the caller."""
        if must_connect:
            await self._open()
        self._keeper = asyncio.create_task(self._keep_open(), name=f"control session {self.target_name}")

    async def stop(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        if self._session is not None:
            await self._session.logout(timeout=1.0)

    async def execute(
        self, lun: int, cdb: bytes, data_out: Buffer = b"", data_in_length: int = 0, timeout: float = 30.0
    ) -> ScsiOutcome:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        try:
            async with asyncio.timeout_at(deadline):
                await self._ready.wait()
        except TimeoutError:
            raise SessionLost("the array cannot be reached") from None
        assert self._session is not None
        return await self._session.execute(lun, cdb, data_out, data_in_length, deadline - loop.time())

    def drop(self) -> None:
        """Start over: the same initiator port logging in again makes the array forget our tasks (RFC 7143 §6.3.5).

        So a command that was not answered in time cannot take effect after one that is sent later.
        """
        if self._session is not None:
            self._session.close()

    async def _open(self) -> None:
        session = await IscsiSession.connect(
            self.array.host,
            self.array.port,
            self.target_name,
            self._initiator_name,
            self._isid,
            _LOGIN_SECONDS,
            keepalive=_KEEPALIVE_SECONDS,
            chap=self._chap,
        )
        try:
            self.luns = await report_luns(session)
            port = await relative_target_port(session, self.luns[0]) if self.luns else None
        except BaseException:
            session.close()
            raise
        self.target_port = port or self.target_port
        self._session = session
        self._ready.set()

    async def _keep_open(self) -> None:
        failures = 0
        while True:
            if self._session is not None:
                error = await asyncio.shield(self._session.ended)
                self._session = None
                self._ready.clear()
                _log.warning("control session with %s at %s lost: %s", self.target_name, self.array, error)
            try:
                await self._open()
                failures = 0
                _log.info("control session with %s at %s open", self.target_name, self.array)
            except PairvolError as error:
                if not failures:
                    _log.warning("control session with %s at %s: %s; trying again", self.target_name, self.array, error)
                await asyncio.sleep(_RETRY_SECONDS[min(failures, len(_RETRY_SECONDS) - 1)])
                failures += 1
