"""Bytes to whole PDUs and back: BHS, AHS, header digest, data segment, padding, data digest (RFC 7143 §11.2).

Pure: give what came off the wire to :meth:`PduStream.receive_data`, take whole PDUs.
"""

from dataclasses import dataclass
from typing import Protocol

import google_crc32c

from storage_model.errors import RemoteProtocolError
from storage_model.spec.iscsi_codes import BHS_LENGTH, RejectReason
from storage_model.volume import Buffer

DIGEST_LENGTH = 4
_PADS = (b"", b"\0\0\0", b"\0\0", b"\0")
_NO_DATA = memoryview(b"")


@dataclass(slots=True)
class RawPdu:
    """One PDU as it came: ``bhs`` is 48 bytes; ``data`` is without padding.

    ``data_digest_failed``: the data segment arrived damaged. The header is sound, so the receiver can still say which
    PDU it was (§7.8); the data must not be used.
    """

    bhs: bytes
    ahs: bytes = b""
    data: Buffer = b""
    data_digest_failed: bool = False

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
        crc = google_crc32c.extend(crc, part if isinstance(part, bytes) else bytes(part))
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
    pad = _PADS[len(data) & 3]
    if data_digest:
        return [header, data, pad + crc32c(data, pad)]
    return [header, data, pad] if pad else [header, data]


class PduStream:
    """Cuts a byte stream into PDUs.

    ``header_digest`` and ``data_digest`` are switched on by the owner when login ends; they and
    ``max_data_segment_length`` take effect at the next PDU. Memory is bounded by one header, one data segment and what
    one call was given. ``bytes`` passed in are referred to by the PDUs that come out; any other buffer is copied first,
    so that the caller may use it again.
    """

    def __init__(self, max_data_segment_length: int) -> None:
        self.max_data_segment_length = max_data_segment_length
        self.header_digest = False
        self.data_digest = False
        self._head = bytearray()  # of a PDU whose header is not whole yet
        self._bhs = b""
        self._ahs = b""
        self._segment: bytearray | None = None  # a data segment, padding and digest included, that spans receives
        self._filled = 0

    def receive_data(self, data: Buffer) -> list[RawPdu]:
        """The PDUs that ``data`` completes.

        Raises RemoteProtocolError, its reason a :class:`RejectReason`, when the stream cannot be followed any further:
        a header digest that does not match, or a data segment longer than we declared.
        """
        view = memoryview(data if isinstance(data, bytes) else bytes(data))
        pdus: list[RawPdu] = []
        position = 0
        if self._segment is not None:
            position = self._fill_segment(view, pdus)
        elif self._head:
            position = self._fill_head(view, pdus)
        while position < len(view):
            used = self._whole_pdu(view, position, pdus)
            if not used:
                break
            position += used
        return pdus

    def _header_length(self, total_ahs_words: int) -> int:
        return BHS_LENGTH + 4 * total_ahs_words + (DIGEST_LENGTH if self.header_digest else 0)

    def _segment_length(self, bhs: bytes) -> int:
        """Bytes that follow the header: data, padding and digest; 0 when there is no data segment (§11.2.3)."""
        length = bhs[5] << 16 | bhs[6] << 8 | bhs[7]
        if length > self.max_data_segment_length:
            raise RemoteProtocolError(
                f"data segment of {length} bytes, but MaxRecvDataSegmentLength is {self.max_data_segment_length}",
                RejectReason.PROTOCOL_ERROR,
            )
        if not length:
            return 0
        return (length + 3 & ~3) + (DIGEST_LENGTH if self.data_digest else 0)

    def _whole_pdu(self, view: memoryview, start: int, pdus: list[RawPdu]) -> int:
        """Takes the PDU at ``start``; when it is not whole, keeps its beginning and answers 0."""
        available = len(view) - start
        header_length = self._header_length(view[start + 4]) if available >= BHS_LENGTH else 0
        if not header_length or available < header_length:
            self._head += view[start:]
            return 0
        bhs = bytes(view[start : start + BHS_LENGTH])
        segment_start = start + header_length
        ahs = self._check_header(bhs, view[start + BHS_LENGTH : segment_start]) if header_length > BHS_LENGTH else b""
        segment_length = self._segment_length(bhs)
        if available - header_length < segment_length:
            self._begin_segment(bhs, ahs, segment_length, view[segment_start:])
            return 0
        pdus.append(self._finish(bhs, ahs, view[segment_start : segment_start + segment_length]))
        return header_length + segment_length

    def _check_header(self, bhs: bytes, rest: memoryview) -> bytes:
        """``rest`` is AHS and digest; answers the AHS."""
        ahs = bytes(rest[: 4 * bhs[4]])
        if self.header_digest and crc32c(bhs, ahs) != rest[len(ahs) :]:
            raise RemoteProtocolError("header digest does not match", RejectReason.PROTOCOL_ERROR)
        return ahs

    def _begin_segment(self, bhs: bytes, ahs: bytes, segment_length: int, beginning: memoryview) -> None:
        self._bhs, self._ahs = bhs, ahs
        self._segment = bytearray(segment_length)
        self._filled = len(beginning)
        self._segment[: self._filled] = beginning

    def _fill_head(self, view: memoryview, pdus: list[RawPdu]) -> int:
        """Goes on with a header that began in an earlier receive; answers how much of ``view`` it took."""
        position = self._extend_head(view, 0, BHS_LENGTH)
        if len(self._head) < BHS_LENGTH:
            return position
        header_length = self._header_length(self._head[4])
        position = self._extend_head(view, position, header_length)
        if len(self._head) < header_length:
            return position
        head = memoryview(bytes(self._head))
        self._head.clear()
        bhs = bytes(head[:BHS_LENGTH])
        ahs = self._check_header(bhs, head[BHS_LENGTH:])
        segment_length = self._segment_length(bhs)
        if not segment_length:
            pdus.append(self._finish(bhs, ahs, _NO_DATA))
            return position
        self._begin_segment(bhs, ahs, segment_length, _NO_DATA)
        return position + self._fill_segment(view[position:], pdus)

    def _extend_head(self, view: memoryview, position: int, wanted: int) -> int:
        take = max(0, min(wanted - len(self._head), len(view) - position))
        self._head += view[position : position + take]
        return position + take

    def _fill_segment(self, view: memoryview, pdus: list[RawPdu]) -> int:
        segment = self._segment
        assert segment is not None
        take = min(len(segment) - self._filled, len(view))
        segment[self._filled : self._filled + take] = view[:take]
        self._filled += take
        if self._filled == len(segment):
            self._segment = None
            pdus.append(self._finish(self._bhs, self._ahs, memoryview(segment).toreadonly()))
        return take

    def _finish(self, bhs: bytes, ahs: bytes, segment: memoryview) -> RawPdu:
        if not segment:
            return RawPdu(bhs, ahs, _NO_DATA)
        length = bhs[5] << 16 | bhs[6] << 8 | bhs[7]
        # The padding is covered by the digest (§11.2.3).
        failed = self.data_digest and crc32c(segment[:-DIGEST_LENGTH]) != segment[-DIGEST_LENGTH:]
        return RawPdu(bhs, ahs, segment[:length], failed)
