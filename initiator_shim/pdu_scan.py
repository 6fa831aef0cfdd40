"""Finds, in one direction of a connection, the few PDUs that the relay must see; all else goes on as it came.

After login nearly every byte is none of the relay's business. A scan therefore reads 33 bytes of each Basic Header
Segment and skips the rest, which need not have arrived yet; what lies between two PDUs of interest is handed on in one
run, neither copied nor collected nor encoded again. Cutting every PDU out and rebuilding it cost 29 µs per 4 KiB
command, most of it in objects and copies.

Digests pass from end to end with the bytes that they cover: the receiver checks them, and nothing that this machine
does to the bytes in between can get a good digest. Only the PDUs that are taken out have theirs checked here.

The lengths that the scan follows come from headers that it has not checked. That is sound because the receiver does
check: a damaged header reaches it in front of everything that the scan, having lost its place, may misread later, and
all that it can do is end the connection, since nothing says where the next PDU begins (RFC 7143 §7.8). It will not
believe a GOOD behind it. What the scan misreads as a PDU of interest would still have to pass a header digest before
the relay acts upon it. Checking every header here would cost a CRC per PDU and prevent nothing.
"""

from collections.abc import Container, Mapping
from enum import IntEnum
from struct import Struct

from storage_model.errors import RemoteProtocolError
from storage_model.spec.iscsi_codes import BHS_LENGTH, RejectReason
from storage_model.spec.iscsi_stream import DIGEST_LENGTH, PduStream, RawPdu
from storage_model.volume import Buffer

_OPCODE_BYTES = 256  # the first byte: the opcode, and the I bit above it (RFC 7143 §11.2.1)
# Opcode; TotalAHSLength and DataSegmentLength; ITT; the operation code, when it is a SCSI Command (RFC 7143 §11.3).
_PEEK = Struct(">B3xI8xI12xB")


class Interest(IntEnum):
    """When a PDU with some opcode is of interest."""

    NEVER = 0
    ALWAYS = 1
    TAG = 2
    """When its Initiator Task Tag is a watched one."""
    TAG_OR_OPERATION = 3
    """A SCSI Command: then, too, when its operation code is a watched one."""


_ALWAYS, _COMMAND = int(Interest.ALWAYS), int(Interest.TAG_OR_OPERATION)


class PduScan:
    """One direction of a connection, from its first byte on.

    ``login_segment_length``: the DataSegmentLength that no PDU may exceed as long as login lasts. Until
    :meth:`begin_full_feature_phase` every PDU is taken out. Memory is bounded by one PDU that is being taken out, or
    one header.
    """

    def __init__(self, login_segment_length: int) -> None:
        self._stream = PduStream(login_segment_length)
        self._interests = bytes((Interest.ALWAYS,)) * _OPCODE_BYTES
        self._tags: Container[int] = ()
        self._operations: Container[int] = ()
        self._max_data_segment_length = login_segment_length
        self._header_length, self._data_digest = BHS_LENGTH, 0  # in bytes, the header with its digest but without AHS
        self._head = b""  # of a header that is not whole yet
        self._to_skip = 0  # the rest of a PDU whose beginning went on
        self._to_take = 0  # the rest of a PDU whose beginning is in the stream

    def begin_full_feature_phase(
        self,
        interests: Mapping[int, Interest],
        tags: Container[int],
        operations: Container[int] = (),
        *,
        header_digest: bool,
        data_digest: bool,
        max_data_segment_length: int,
    ) -> None:
        """From the next PDU on. ``interests`` has the opcodes that matter; ``tags`` may change at any time."""
        self._interests = bytes(interests.get(byte & 0x3F, Interest.NEVER) for byte in range(_OPCODE_BYTES))
        self._tags, self._operations = tags, operations
        self._header_length = BHS_LENGTH + (DIGEST_LENGTH if header_digest else 0)
        self._data_digest = DIGEST_LENGTH if data_digest else 0
        self._max_data_segment_length = max_data_segment_length

    def advance(self, data: memoryview, position: int, passed: list[Buffer]) -> tuple[int, RawPdu | None]:
        """Goes through ``data`` from ``position`` to its end, or to the end of the first PDU of interest.

        Answers how far it got, and that PDU. What goes on unseen is appended to ``passed``, in order: parts of
        ``data`` itself. What must be kept for the next call is copied, so that the memory may be used again then.
        Raises RemoteProtocolError (reason: a RejectReason) for a data segment that is longer than it may be, or for a
        damaged header of a PDU that is taken out.
        """
        if self._head:
            wanted = BHS_LENGTH - len(self._head)
            self._head += data[position : position + wanted]
            position = min(position + wanted, len(data))
            if len(self._head) < BHS_LENGTH:
                return position, None
            head, self._head = memoryview(self._head), b""
            _, pdu = self._walk(head, 0, passed)
            if pdu is not None:
                return position, pdu
        return self._walk(data, position, passed)

    @property
    def unseen(self) -> int:
        """How many of the bytes that come next go on whatever they are: the rest of a PDU of no interest."""
        return self._to_skip

    def passed_unseen(self, count: int) -> None:
        """So many of them went on without :meth:`advance`."""
        self._to_skip -= count

    def _walk(self, data: memoryview, position: int, passed: list[Buffer]) -> tuple[int, RawPdu | None]:
        """The hot loop, 0.4 µs for a PDU: what it needs of ``self`` is in local names."""
        if self._to_take:
            return self._take(data, position)
        start, end = position, len(data)
        interests, tags, operations, peek = self._interests, self._tags, self._operations, _PEEK.unpack_from
        longest, header_length, data_digest = self._max_data_segment_length, self._header_length, self._data_digest
        position += self._to_skip
        last = end - BHS_LENGTH  # where a whole header may begin
        while position <= last:
            first, lengths, itt, operation = peek(data, position)
            interest = interests[first]
            if interest and (interest == _ALWAYS or itt in tags or (interest == _COMMAND and operation in operations)):
                if position > start:
                    passed.append(data[start:position])
                self._to_skip = 0
                self._begin_taking(lengths)
                return self._take(data, position)
            if lengths > longest:  # too long, or there is an AHS, whose length stands in the upper byte
                if position > start:
                    passed.append(data[start:position])
                    start = position
                position += self._pdu_length(lengths)
            elif lengths:
                position += header_length + (lengths + 3 & ~3) + data_digest
            else:
                position += header_length
        if position < end:
            self._to_skip, self._head = 0, bytes(data[position:])
            end = position
        else:
            self._to_skip = position - end
        if end > start:
            passed.append(data[start:end])
        return len(data), None

    def _pdu_length(self, lengths: int) -> int:
        """With AHS, padding and digests; ``lengths`` are the BHS's bytes 4 to 7 (RFC 7143 §11.2.1)."""
        length = lengths & 0xFFFFFF
        if length > self._max_data_segment_length:
            raise RemoteProtocolError(
                f"data segment of {length} bytes, but MaxRecvDataSegmentLength is {self._max_data_segment_length}",
                RejectReason.PROTOCOL_ERROR,
            )
        segment_length = (length + 3 & ~3) + self._data_digest if length else 0
        return self._header_length + (lengths >> 24) * 4 + segment_length

    def _begin_taking(self, lengths: int) -> None:
        """The stream gets its rules here, so that a PDU that the end of login catches half-way keeps its own."""
        self._to_take = self._pdu_length(lengths)
        stream = self._stream
        stream.header_digest, stream.data_digest = self._header_length > BHS_LENGTH, self._data_digest > 0
        stream.max_data_segment_length = self._max_data_segment_length

    def _take(self, data: memoryview, position: int) -> tuple[int, RawPdu | None]:
        piece = bytes(data[position : position + self._to_take])
        self._to_take -= len(piece)
        pdus = self._stream.receive_data(piece)
        return position + len(piece), (pdus[0] if pdus else None)
