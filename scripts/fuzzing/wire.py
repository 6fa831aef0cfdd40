"""One rude connection to the array: anything may be sent; what comes back is checked, counted and bounded in time."""

import asyncio
import contextlib
from collections import Counter

from scripts.fuzzing.findings import Finding
from storage_model.errors import RemoteProtocolError
from storage_model.spec.iscsi_pdu import (
    LoginResponsePdu,
    Pdu,
    RejectPdu,
    ScsiResponsePdu,
    decode_pdu,
    sense_from_segment,
)
from storage_model.spec.iscsi_stream import EncodablePdu, PduStream, encode_pdu
from storage_model.spec.scsi_sense import decode_sense

ANSWER_SECONDS = 15.0
_READ_BYTES = 1 << 16


class HungUp(Exception):
    """The array has closed the connection: that is its right."""


def describe(pdu: Pdu) -> str:
    """What an answer is counted as."""
    match pdu:
        case LoginResponsePdu():
            return f"Login Response {pdu.status:04X}h"
        case RejectPdu():
            return f"Reject {pdu.reason:02X}h"
        case ScsiResponsePdu():
            return describe_status(pdu.status, sense_from_segment(pdu.data))
    return type(pdu).__name__.removesuffix("Pdu")


def describe_status(status: int, sense: bytes) -> str:
    if not sense:
        return f"status {status:02X}h"
    decoded = decode_sense(sense)
    return f"sense {decoded.sense_key:X}h {decoded.asc_ascq >> 8:02X}h/{decoded.asc_ascq & 0xFF:02X}h"


class RudeConnection:
    """Answers are counted in ``responses``. Raises HungUp when the array ends it, Finding when it answers nonsense."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, responses: Counter[str]) -> None:
        self.header_digest = self.data_digest = False
        self.port = int(writer.get_extra_info("sockname")[1])
        self._reader = reader
        self._writer = writer
        self._responses = responses
        self._stream = PduStream(1 << 24)

    @classmethod
    async def open(cls, address: tuple[str, int], responses: Counter[str]) -> "RudeConnection":
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return cls(*await asyncio.open_connection(*address), responses)
        except (OSError, TimeoutError) as error:
            raise Finding(f"cannot connect: {type(error).__name__} {error}") from None

    async def close(self) -> None:
        self._writer.transport.abort()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    def digests(self, header: bool, data: bool) -> None:
        self.header_digest = self._stream.header_digest = header
        self.data_digest = self._stream.data_digest = data

    async def send(self, *pdus: EncodablePdu) -> None:
        parts = [part for pdu in pdus for part in encode_pdu(pdu, self.header_digest, self.data_digest)]
        await self.send_bytes(b"".join(bytes(part) for part in parts))

    async def send_bytes(self, data: bytes) -> None:
        """The array may stop to read while we do not, so nothing is waited for."""
        transport = self._writer.transport
        if not transport.is_closing() and transport.get_write_buffer_size() < 4 << 20:
            with contextlib.suppress(OSError):
                self._writer.write(data)
                await asyncio.sleep(0)

    def end_of_stream(self) -> None:
        with contextlib.suppress(OSError):
            self._writer.write_eof()

    async def answers(self, within: float) -> list[Pdu]:
        """What has come, at least something; nothing when ``within`` seconds pass without."""
        try:
            async with asyncio.timeout(within):
                data = await self._reader.read(_READ_BYTES)
        except TimeoutError:
            return []
        except OSError:
            raise HungUp from None
        if not data:
            raise HungUp
        try:
            pdus = [decode_pdu(raw) for raw in self._stream.receive_data(data)]
        except RemoteProtocolError as error:
            raise Finding(f"the array sent what is no PDU: {error}") from None
        self._responses.update(describe(pdu) for pdu in pdus)
        return pdus

    async def until_hung_up(self, within: float = ANSWER_SECONDS) -> None:
        """After the end of our stream the array must hang up as well."""
        with contextlib.suppress(HungUp):
            async with asyncio.timeout(within):
                while True:
                    await self.answers(within)
