"""PDUs on their way out of one connection: StatSN, digests, and how much waits to be written."""

from storage_model.spec.iscsi_stream import PADS, EncodablePdu, RawPdu, crc32c, encode_pdu
from storage_model.volume import FileRange
from target.iscsi.session import CommandWindow
from target.sendable import Sendable


class Outgoing:
    """Collects the buffers of one batch. ``queued_bytes`` is about what :meth:`take` would hand out."""

    def __init__(self, window: CommandWindow[RawPdu]) -> None:
        self.window = window
        self.header_digest = False
        self.data_digest = False
        self.stat_sn = 0
        self.queued_bytes = 0
        self._buffers: list[Sendable] = []

    def take_stat_sn(self) -> int:
        """The StatSN of a PDU that carries status; the next one gets the next (RFC 7143 §4.2.2.2)."""
        stat_sn = self.stat_sn
        self.stat_sn = (stat_sn + 1) & 0xFFFFFFFF
        return stat_sn

    def send(self, pdu: EncodablePdu) -> None:
        for buffer in encode_pdu(pdu, self.header_digest, self.data_digest):
            self._buffers.append(buffer)
            self.queued_bytes += len(buffer)

    def put(self, bhs: bytes, data: Sendable = b"") -> None:
        """A PDU that has no AHS, as its BHS and its data segment: what most answers are."""
        if self.header_digest:
            bhs += crc32c(bhs)
        self._buffers.append(bhs)
        if data:
            self._buffers.append(data)
            if self.data_digest:
                assert not isinstance(data, FileRange)  # its bytes would have to be known
                pad = PADS[len(data) & 3]
                self._buffers.append(pad + crc32c(data, pad))
            elif len(data) & 3:
                self._buffers.append(PADS[len(data) & 3])
        self.queued_bytes += len(bhs) + len(data)

    def take(self) -> list[Sendable]:
        buffers, self._buffers = self._buffers, []
        self.queued_bytes = 0
        return buffers
