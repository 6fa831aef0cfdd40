"""A plain initiator on one socket of a portal under test: PDUs out, PDUs in, each wait bounded."""

import asyncio
from dataclasses import replace
from typing import Self

import pytest

from storage_model.spec.iscsi_pdu import (
    AsyncMessagePdu,
    DataInPdu,
    LoginRequestPdu,
    LoginResponsePdu,
    LoginStatus,
    Pdu,
    ScsiCommandPdu,
    Stage,
    decode_pdu,
)
from storage_model.spec.iscsi_stream import EncodablePdu, PduStream, encode_pdu
from storage_model.spec.iscsi_text import format_text
from tests.iscsi_driver import ISID, NAMES

ANSWER_SECONDS = 5.0
CID = 5


def read_command(itt: int, cmd_sn: int, cdb: bytes = b"\x28") -> ScsiCommandPdu:
    return ScsiCommandPdu(itt=itt, read=True, expected_data_transfer_length=8, cmd_sn=cmd_sn, cdb=cdb.ljust(16, b"\0"))


class PortalClient:
    """``receive`` raises EOFError when the portal has closed the connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self._reader = reader
        self._stream = PduStream(1 << 24)
        self._pdus: list[Pdu] = []

    @classmethod
    async def connect(cls, address: str) -> Self:
        """``address``: ``host:port``."""
        host, _, port = address.rpartition(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    def send(self, *pdus: EncodablePdu) -> None:
        self.writer.writelines(bytes(part) for pdu in pdus for part in encode_pdu(pdu))

    async def receive(self) -> Pdu:
        async with asyncio.timeout(ANSWER_SECONDS):
            while not self._pdus:
                data = await self._reader.read(65536)
                if not data:
                    raise EOFError
                self._pdus += [decode_pdu(raw) for raw in self._stream.receive_data(data)]
        return self._pdus.pop(0)

    async def login(self, **changes: object) -> LoginResponsePdu:
        request = LoginRequestPdu(
            transit=True, csg=Stage.LOGIN_OPERATIONAL_NEGOTIATION, nsg=Stage.FULL_FEATURE_PHASE, isid=ISID, cid=CID,
            cmd_sn=1, data=format_text(NAMES),
        )  # fmt: skip
        self.send(replace(request, **changes))  # type: ignore[arg-type]
        response = await self.receive()
        assert isinstance(response, LoginResponsePdu)
        return response

    async def logged_in(self, **changes: object) -> Self:
        assert (await self.login(**changes)).status == LoginStatus.SUCCESS
        return self

    async def message(self) -> AsyncMessagePdu:
        pdu = await self.receive()
        assert isinstance(pdu, AsyncMessagePdu)
        return pdu

    async def read(self) -> None:
        """The first command of a session, and its answer."""
        self.send(read_command(itt=1, cmd_sn=1))
        assert isinstance(await self.receive(), DataInPdu)

    async def closed(self) -> bool:
        """The portal closes the connection, and sends nothing more before."""
        with pytest.raises(EOFError):
            await self.receive()
        return True

    async def closed_after_the_rest(self) -> bool:
        """The portal closes the connection, whatever it still sends."""
        try:
            while True:
                await self.receive()
        except (EOFError, ConnectionResetError):
            return True
