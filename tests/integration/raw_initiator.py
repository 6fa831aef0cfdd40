"""An initiator without manners: a socket to an array's portal, and PDUs or bytes of any kind on it."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, Self, TypeVar

from storage_model.spec.iscsi_pdu import LoginRequestPdu, LoginResponsePdu, Pdu, ScsiCommandPdu, Stage, decode_pdu
from storage_model.spec.iscsi_stream import EncodablePdu, PduStream, encode_pdu
from storage_model.spec.iscsi_text import format_text, parse_text

ANSWER_SECONDS = 5.0
RUDE = "iqn.2026-11.org.example:rude"
ISID = bytes.fromhex("80cafe000001")

P = TypeVar("P")


class RawInitiator:
    """One TCP connection. Nothing is checked on the way out, and each wait for the array is bounded."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.cmd_sn = 1
        self.itt = 0
        self.header_digest = self.data_digest = False
        self._reader = reader
        self._writer = writer
        self._stream = PduStream(1 << 24)
        self._received: list[Pdu] = []
        self.port = int(writer.get_extra_info("sockname")[1])
        """Ours, by which the array's log names the connection."""

    @classmethod
    @asynccontextmanager
    async def connection(cls, address: tuple[str, int]) -> AsyncIterator[Self]:
        initiator = cls(*await asyncio.open_connection(*address))
        try:
            yield initiator
        finally:
            await initiator.close()

    async def close(self) -> None:
        self._writer.transport.abort()
        with suppress(OSError):
            await self._writer.wait_closed()

    def pause(self) -> None:
        """Take nothing any more."""
        transport = self._writer.transport
        assert isinstance(transport, asyncio.Transport)
        transport.pause_reading()

    # ------------------------------------------------------------------------------------------------------- sending

    def send_bytes(self, data: bytes) -> None:
        self._writer.write(data)

    def send(self, *pdus: EncodablePdu) -> None:
        for pdu in pdus:
            self._writer.writelines(encode_pdu(pdu, self.header_digest, self.data_digest))

    def command(self, pdu: ScsiCommandPdu, **fields: Any) -> int:
        """Send it as the next command in order, unless ``fields`` say otherwise; its ITT."""
        self.itt += 1
        self.send(replace(pdu, **{"itt": self.itt, "cmd_sn": self.cmd_sn, **fields}))
        self.cmd_sn += 1
        return self.itt

    def login_request(self, pairs: Mapping[str, str], **fields: Any) -> LoginRequestPdu:
        request = LoginRequestPdu(
            transit=True,
            csg=Stage.LOGIN_OPERATIONAL_NEGOTIATION,
            nsg=Stage.FULL_FEATURE_PHASE,
            isid=ISID,
            cid=1,
            cmd_sn=self.cmd_sn,
            data=format_text(pairs),
        )
        return replace(request, **fields)

    async def finish(self) -> list[Pdu]:
        """Say that nothing more comes, and wait until the array has read it all and hung up; what it answered."""
        with suppress(OSError):  # it may have hung up already
            self._writer.write_eof()
        return await self.hung_up()

    # ----------------------------------------------------------------------------------------------------- receiving

    async def receive(self) -> Pdu:
        """The next PDU; fails when the array hangs up or does not answer."""
        async with asyncio.timeout(ANSWER_SECONDS):
            while not self._received:
                data = await self._reader.read(1 << 16)
                assert data, "the array hung up"
                self._received += [decode_pdu(raw) for raw in self._stream.receive_data(data)]
        return self._received.pop(0)

    async def expect(self, kind: type[P]) -> P:
        """The next PDU, which must be of this kind."""
        pdu = await self.receive()
        assert isinstance(pdu, kind), pdu
        return pdu

    async def hung_up(self, within: float = ANSWER_SECONDS) -> list[Pdu]:
        """The PDUs that came before the array closed the connection; fails when it stays open."""
        with suppress(ConnectionError):
            async with asyncio.timeout(within):
                while data := await self._reader.read(1 << 16):
                    self._received += [decode_pdu(raw) for raw in self._stream.receive_data(data)]
        received, self._received = self._received, []
        return received

    async def log_in(self, iqn: str, **pairs: str) -> dict[str, str]:
        """A login as it should be, with ``pairs`` beside the names; the array's answers."""
        names = {"InitiatorName": RUDE, "TargetName": iqn, "SessionType": "Normal"}
        self.send(self.login_request({**names, **pairs}))
        response = await self.expect(LoginResponsePdu)
        assert response.status == 0 and response.transit
        answers = parse_text(response.data)
        self.header_digest = self._stream.header_digest = answers.get("HeaderDigest") == "CRC32C"
        self.data_digest = self._stream.data_digest = answers.get("DataDigest") == "CRC32C"
        return answers
