"""One PDU at a time out of a receive, as long as login may still switch digests on.

A target may send its first full-feature PDU right behind the last Login Response, in one segment; whether that PDU has
a header digest is known only when the Login Response has been read.
"""

from collections.abc import Callable, Iterator

from storage_model.spec.iscsi_stream import PduStream, RawPdu
from storage_model.volume import Buffer

_WORD = 4


class WordFeed:
    """Feeds a PduStream by four-byte words until ``in_login`` answers False, then whole.

    Every PDU is a whole number of words (RFC 7143 §11.1), so that no step passes the end of a PDU.
    """

    def __init__(self, stream: PduStream, in_login: Callable[[], bool]) -> None:
        self.stream = stream
        self._in_login = in_login
        self._fed_bytes = 0

    def receive_data(self, data: Buffer) -> Iterator[RawPdu]:
        """The PDUs that ``data`` completes; each must be handled before the next is asked for."""
        position = 0
        while position < len(data) and self._in_login():
            step = _WORD - self._fed_bytes % _WORD
            word = bytes(data[position : position + step])
            self._fed_bytes += len(word)
            position += len(word)
            yield from self.stream.receive_data(word)
        if position < len(data):
            yield from self.stream.receive_data(data[position:] if position else data)
