"""The CopyLink port: how one half of a pair speaks to the other array."""

from collections.abc import Awaitable
from typing import Protocol

from storage_model.spec.copy_frames import Frame


class LinkDown(Exception):
    """The link is down, or went down before the answer came: whether the peer acted on the request is unknown."""


class CopyLink(Protocol):
    """Frames to the other array. While the link is up a request is answered, or the link goes down, in bounded time."""

    @property
    def up(self) -> bool:
        """True between the peer's accepted HELLO and the link's failure."""
        ...

    def request(self, frame: Frame) -> Awaitable[Frame]:
        """Send at once, in the order of calls; awaiting gives the ANSWER or raises LinkDown.

        A READ may have to wait for others before it is sent.
        """
        ...

    def send(self, frame: Frame) -> None:
        """Send an answer or a notice; lost without a word if the link is down."""
        ...
