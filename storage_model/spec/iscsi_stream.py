"""Bytes to whole PDUs and back: BHS, AHS, header digest, data segment, padding, data digest (RFC 7143 §11.2).

Pure: give what came off the wire to :meth:`PduStream.receive_data`, take whole PDUs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import crc32c as castagnoli

from storage_model.errors import RemoteProtocolError
from storage_model.spec.iscsi_codes import BHS_LENGTH, RejectReason
from storage_model.volume import Buffer

DIGEST_LENGTH: Final = 4
_checksum: Final = castagnoli.crc32c
PADS: Final = (b"", b"\0\0\0", b"\0\0", b"\0")
"""What fills a data segment up to whole words, by its length modulo 4 (§11.2.3)."""
_NO_DATA: Final = memoryview(b"")
_NO_LENGTHS: Final = b"\0\0\0\0"  # TotalAHSLength and DataSegmentLength
_LONG: Final = 16 << 10  # a receive of this much may be the beginning of a single PDU
_WORTH_A_RECEIVE: Final = 4096  # less than this of a data segment is received together with what follows it


@dataclass(slots=True, init=False)
class RawPdu:
    """One PDU as it came: ``bhs`` is 48 bytes; ``data`` is without padding.

    ``data_digest_failed``: the data segment arrived damaged. The header is sound, so the receiver can still say which
    PDU it was (§7.8); the data must not be used.
    """

    bhs: bytes
    ahs: bytes
    data: Buffer
    data_digest_failed: bool

    def __init__(self, bhs: bytes, ahs: bytes = b"", data: Buffer = b"", data_digest_failed: bool = False) -> None:
        self.bhs = bhs  # written out: a generated constructor stays in the interpreter when this file is compiled
        self.ahs = ahs
        self.data = data
        self.data_digest_failed = data_digest_failed

    @property
    def opcode(self) -> int:
        return self.bhs[0] & 0x3F

    @property
    def immediate(self) -> bool:
        return bool(self.bhs[0] & 0x40)

    @property
    def itt(self) -> int:
        return int.from_bytes(self.bhs[16:20])

    def encode_bhs(self) -> bytes:
        """The BHS with its lengths made to fit ``ahs`` and ``data``, in case a relay changed them."""
        lengths = (len(self.ahs) << 22 | len(self.data)).to_bytes(4)
        return self.bhs if self.bhs[4:8] == lengths else self.bhs[:4] + lengths + self.bhs[8:]


class EncodablePdu(Protocol):
    """Anything that has a BHS: a RawPdu or one of ``iscsi_pdu``'s dataclasses."""

    def encode_bhs(self) -> bytes: ...


def crc32c(*parts: Buffer) -> bytes:
    """The CRC32C digest of ``parts`` as it stands on the wire: least significant byte first (§13.1, RFC 3720 B.4)."""
    crc = 0
    for part in parts:
        if part:
            crc = _checksum(part, crc)
    return crc.to_bytes(4, "little")


def encode_pdu(pdu: EncodablePdu, header_digest: bool = False, data_digest: bool = False) -> list[Buffer]:
    """The buffers to write for one PDU, in order; the data segment is passed on, not copied."""
    ahs: bytes = getattr(pdu, "ahs", b"")
    data: Buffer = getattr(pdu, "data", b"")
    header = pdu.encode_bhs() + ahs if ahs else pdu.encode_bhs()
    if header_digest:
        header += crc32c(header)
    if not data:
        return [header]
    pad = PADS[len(data) & 3]
    if data_digest:
        return [header, data, pad + crc32c(data, pad)]
    return [header, data, pad] if pad else [header, data]


class PduStream:
    """Cuts a byte stream into PDUs.

    ``header_digest`` and ``data_digest`` are switched on by the owner when login ends; they and
    ``max_data_segment_length`` take effect at the next PDU. Memory is bounded by one header, one data segment and what
    one call was given. ``bytes`` passed in are referred to by the PDUs that come out; any other buffer is copied first,
    so that the caller may use it again.

    A data segment that is longer than one receive need not be copied: ``place``, given its BHS and its length in bytes,
    may say where it belongs (None: nowhere yet), and :meth:`space` says where the rest of it can be received.
    """

    def __init__(self, max_data_segment_length: int) -> None:
        self.max_data_segment_length = max_data_segment_length
        self.header_digest = False
        self.data_digest = False
        self.place: Callable[[bytes, int], memoryview | None] | None = None
        self._head = bytearray()  # of a PDU whose header is not whole yet
        self._bhs = b""
        self._ahs = b""
        self._segment: memoryview | None = None  # of the data of a PDU that spans receives
        self._filled = 0
        self._tail = bytearray()  # what came of its padding and digest
        self._tail_length = 0

    def receive_data(self, data: Buffer) -> list[RawPdu]:
        """The PDUs that ``data`` completes.

        Raises RemoteProtocolError, its reason a :class:`RejectReason`, when the stream cannot be followed any further:
        a header digest that does not match, or a data segment longer than we declared.
        """
        pdus: list[RawPdu] = []
        if not isinstance(data, bytes):
            if len(data) >= _LONG and self._segment is None and not self._head and self._begin_long(memoryview(data)):
                return pdus
            data = bytes(data)
        position, end = 0, len(data)
        if self._segment is not None:
            position = self._fill_segment(memoryview(data), pdus)
        elif self._head:
            position = self._fill_head(memoryview(data), pdus)
        bare = not self.header_digest
        while end - position >= BHS_LENGTH:
            if bare and data[position + 4 : position + 8] == _NO_LENGTHS:  # most commands: nothing but a BHS
                pdus.append(RawPdu(data[position : position + BHS_LENGTH], b"", _NO_DATA))
                position += BHS_LENGTH
                continue
            used = self._whole_pdu(data, position, end, pdus)
            if not used:
                return pdus
            position += used
        if position < end:
            self._head += data[position:]
        return pdus

    def _begin_long(self, view: memoryview) -> bool:
        """True when ``view`` is the beginning of one long PDU: it is copied once, to where it belongs."""
        header_length = self._header_length(view[4])
        if len(view) < header_length:
            return False
        bhs = bytes(view[:BHS_LENGTH])
        length, tail_length = self._segment_lengths(bhs)
        if len(view) >= header_length + length + tail_length:
            return False
        ahs = self._check_header(bhs, bytes(view[BHS_LENGTH:header_length]))
        self._begin_segment(bhs, ahs, length, tail_length)
        self._fill_segment(view[header_length:], [])
        return True

    def space(self) -> memoryview | None:
        """Where the rest of a long data segment belongs; tell :meth:`fill` how much of it was received there."""
        segment = self._segment
        if segment is None or len(segment) - self._filled < _WORTH_A_RECEIVE:
            return None
        return segment[self._filled :]

    def fill(self, count: int) -> list[RawPdu]:
        """``count`` bytes, more than none, were received into what :meth:`space` has just answered."""
        pdus: list[RawPdu] = []
        self._filled += count
        self._end_segment(pdus)
        return pdus

    def _header_length(self, total_ahs_words: int) -> int:
        return BHS_LENGTH + 4 * total_ahs_words + (DIGEST_LENGTH if self.header_digest else 0)

    def _segment_lengths(self, bhs: bytes) -> tuple[int, int]:
        """Bytes that follow the header: data, then padding and digest; both 0 without a data segment (§11.2.3)."""
        length = bhs[5] << 16 | bhs[6] << 8 | bhs[7]
        if length > self.max_data_segment_length:
            raise RemoteProtocolError(
                f"data segment of {length} bytes, but MaxRecvDataSegmentLength is {self.max_data_segment_length}",
                RejectReason.PROTOCOL_ERROR,
            )
        if not length:
            return 0, 0
        return length, (-length & 3) + (DIGEST_LENGTH if self.data_digest else 0)

    def _whole_pdu(self, data: bytes, start: int, end: int, pdus: list[RawPdu]) -> int:
        """Takes the PDU at ``start``; when it is not whole, keeps its beginning and answers 0."""
        segment_start = start + self._header_length(data[start + 4])
        if end < segment_start:
            self._head += data[start:]
            return 0
        bhs, ahs = data[start : start + BHS_LENGTH], b""
        if segment_start - start > BHS_LENGTH:
            ahs = self._check_header(bhs, data[start + BHS_LENGTH : segment_start])
        length, tail_length = self._segment_lengths(bhs)
        segment_end = segment_start + length
        if end < segment_end + tail_length:
            self._begin_segment(bhs, ahs, length, tail_length)
            self._fill_segment(memoryview(data)[segment_start:], pdus)
            return 0
        segment = memoryview(data)[segment_start:segment_end] if length else _NO_DATA
        failed = (
            length > 0 and self.data_digest and self._damaged(segment, data[segment_end : segment_end + tail_length])
        )
        pdus.append(RawPdu(bhs, ahs, segment, failed))
        return segment_end + tail_length - start

    def _check_header(self, bhs: bytes, rest: bytes) -> bytes:
        """``rest`` is AHS and digest; answers the AHS."""
        ahs = rest[: 4 * bhs[4]]
        if self.header_digest and crc32c(bhs, ahs) != rest[len(ahs) :]:
            raise RemoteProtocolError("header digest does not match", RejectReason.PROTOCOL_ERROR)
        return ahs

    def _damaged(self, segment: memoryview, tail: bytes | bytearray) -> bool:
        """``tail`` is padding and digest; the digest covers the padding (§11.2.3)."""
        return crc32c(segment, bytes(tail[:-DIGEST_LENGTH])) != tail[-DIGEST_LENGTH:]

    def _fill_head(self, view: memoryview, pdus: list[RawPdu]) -> int:
        """Goes on with a header that began in an earlier receive; answers how much of ``view`` it took."""
        position = self._extend_head(view, 0, BHS_LENGTH)
        if len(self._head) < BHS_LENGTH:
            return position
        header_length = self._header_length(self._head[4])
        position = self._extend_head(view, position, header_length)
        if len(self._head) < header_length:
            return position
        head = bytes(self._head)
        self._head.clear()
        bhs = head[:BHS_LENGTH]
        ahs = self._check_header(bhs, head[BHS_LENGTH:])
        length, tail_length = self._segment_lengths(bhs)
        if not length:
            pdus.append(RawPdu(bhs, ahs, _NO_DATA))
            return position
        self._begin_segment(bhs, ahs, length, tail_length)
        return position + self._fill_segment(view[position:], pdus)

    def _extend_head(self, view: memoryview, position: int, wanted: int) -> int:
        take = max(0, min(wanted - len(self._head), len(view) - position))
        self._head += view[position : position + take]
        return position + take

    def _begin_segment(self, bhs: bytes, ahs: bytes, length: int, tail_length: int) -> None:
        self._bhs, self._ahs = bhs, ahs
        place = self.place(bhs, length) if self.place is not None else None
        self._segment = memoryview(bytearray(length)) if place is None else place
        self._filled = 0
        self._tail.clear()
        self._tail_length = tail_length

    def _fill_segment(self, view: memoryview, pdus: list[RawPdu]) -> int:
        """Goes on with the data segment, its padding and its digest; answers how much of ``view`` they took."""
        segment, filled = self._segment, self._filled
        assert segment is not None
        take = min(len(segment) - filled, len(view))
        segment[filled : filled + take] = view[:take]
        self._filled = filled + take
        end = min(take + self._tail_length - len(self._tail), len(view))
        self._tail += view[take:end]
        self._end_segment(pdus)
        return end

    def _end_segment(self, pdus: list[RawPdu]) -> None:
        segment = self._segment
        assert segment is not None
        if self._filled < len(segment) or len(self._tail) < self._tail_length:
            return
        self._segment = None
        failed = self.data_digest and self._damaged(segment, self._tail)
        pdus.append(RawPdu(self._bhs, self._ahs, segment.toreadonly(), failed))
