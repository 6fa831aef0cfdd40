"""The link over real sockets with a key, with certificates, with both; who is refused, and what both logs say."""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from storage_model.secret import Secret
from storage_model.spec.copy_frames import Frame, FrameStream, FrameType, Hello
from target.remote_copy import link as link_machine
from target.remote_copy import link_connection, link_transport
from target.remote_copy.link_tls import LinkTls
from target.remote_copy.link_transport import LinkTransport
from tests.eventually import eventually
from tests.link_certificates import Authority

KEY = Secret(b"correct horse battery staple")
OTHER_KEY = Secret(b"wrong horse battery staple")
EXPIRED = {"begins": -3, "ends": -2}
ENDS = "30095", "30096"
LOG = "pairvol.link"


class End:
    """Answers every request with its payload."""

    def __init__(self, serial: str, key: Secret | None = None, tls: LinkTls | None = None) -> None:
        hello = Hello(serial, ENDS[serial == ENDS[0]], ())
        self.transport = LinkTransport(hello, lambda hello: None, self.lost, self.received, key=key, tls=tls)
        self.losses = 0

    async def lost(self, reason: str) -> None:
        self.losses += 1

    async def received(self, frame: Frame) -> None:
        self.transport.send(Frame(FrameType.ANSWER, request=frame.request, payload=frame.payload))

    @property
    def port(self) -> int:
        assert self.transport._server is not None
        return int(self.transport._server.sockets[0].getsockname()[1])


@contextlib.asynccontextmanager
async def connected(a: End, b: End) -> AsyncIterator[None]:
    await b.transport.start(("127.0.0.1", 0), ("127.0.0.1", 1))
    try:
        await a.transport.start(("127.0.0.1", 0), ("127.0.0.1", b.port))
        yield
    finally:
        await a.transport.stop()
        await b.transport.stop()


async def both_up(a: End, b: End) -> None:
    await eventually(lambda: a.transport.up and b.transport.up, what="both ends up")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def tls_of(authority: Authority, serial: str | None, **validity: int) -> LinkTls:
    return LinkTls.from_files(*authority.issue(f"array-{serial}", serial, **validity).words())


@pytest.mark.parametrize("secured", ["key", "tls", "key and tls"])
async def test_frames_of_every_size_go_both_ways(secured: str, authority: Authority) -> None:
    key = KEY if "key" in secured else None
    a, b = (End(serial, key, tls_of(authority, serial) if "tls" in secured else None) for serial in ENDS)
    async with connected(a, b):
        await both_up(a, b)
        payloads = [b"", b"x", bytes(65536), bytes(range(256)) * 16384]
        for end in (a, b):
            answers = await asyncio.gather(
                *(end.transport.request(Frame(FrameType.WRITE, payload=p)) for p in payloads)
            )
            assert [answer.payload for answer in answers] == payloads
        assert a.losses == b.losses == 0


Setup = Callable[[Authority, Authority], tuple[Secret | None, LinkTls | None]]
REFUSED: dict[str, tuple[Setup, Setup, str, str]] = {
    "another key": (
        lambda mine, _: (KEY, None), lambda mine, _: (OTHER_KEY, None),
        "refuses the link: array 30095 does not prove", "array 30095 does not prove that it has the key",
    ),
    "key at one end": (lambda mine, _: (KEY, None), lambda mine, _: (None, None), "has none", "has none"),
    "key at the other end": (lambda mine, _: (None, None), lambda mine, _: (KEY, None), "has none", "has none"),
    "another key in TLS": (
        lambda mine, _: (KEY, tls_of(mine, "30095")), lambda mine, _: (OTHER_KEY, tls_of(mine, "30096")),
        "does not prove", "does not prove",
    ),
    "another authority at the dialling end": (
        lambda _, other: (None, tls_of(other, "30095")), lambda mine, _: (None, tls_of(mine, "30096")),
        "TLS: ", "TLS: ",
    ),
    "expired at the dialling end": (
        lambda mine, _: (None, tls_of(mine, "30095", **EXPIRED)), lambda mine, _: (None, tls_of(mine, "30096")),
        "TLS: ", "not accepted: certificate has expired",
    ),
    "expired at the listening end": (
        lambda mine, _: (None, tls_of(mine, "30095")), lambda mine, _: (None, tls_of(mine, "30096", **EXPIRED)),
        "not accepted: certificate has expired", "TLS: ",
    ),
    "of another array, dialling": (
        lambda mine, _: (None, tls_of(mine, "30097")), lambda mine, _: (None, tls_of(mine, "30096")),
        "refuses the link: the certificate at the other end is for urn:pairvol:array:30097, not for",
        "the certificate at the other end is for urn:pairvol:array:30097, not for urn:pairvol:array:30095",
    ),
    "of another array, listening": (
        lambda mine, _: (None, tls_of(mine, "30095")), lambda mine, _: (None, tls_of(mine, "30097")),
        "is for urn:pairvol:array:30097", "is for urn:pairvol:array:30097",
    ),
    "of no array": (
        lambda mine, _: (None, tls_of(mine, None)), lambda mine, _: (None, tls_of(mine, "30096")),
        "is for no array", "is for no array",
    ),
    "TLS at the listening end only": (
        lambda mine, _: (None, None), lambda mine, _: (None, tls_of(mine, "30096")), "refused: ", "TLS: ",
    ),
    "TLS at the dialling end only": (
        lambda mine, _: (None, tls_of(mine, "30095")), lambda mine, _: (None, None), "TLS: ", "not a remote-copy frame",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
async def test_wrong_proof_is_refused_with_the_reason_in_both_logs(
    name: str, tmp_path: Path, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    setup_a, setup_b, told_by_a, told_by_b = REFUSED[name]
    other = Authority(tmp_path, "another-authority")
    a, b = End(ENDS[0], *setup_a(authority, other)), End(ENDS[1], *setup_b(authority, other))

    def told(peer: str, reason: str) -> bool:
        lines = [record.getMessage() for record in caplog.records if record.name == LOG]
        return any(f"link to array {peer} refused: " in line and reason in line for line in lines)

    async with connected(a, b):
        await eventually(lambda: told(ENDS[1], told_by_a), what="the reason in the log of the array that dials")
        await eventually(lambda: told(ENDS[0], told_by_b), what="the reason in the log of the array that listens")
        assert not a.transport.up and not b.transport.up and a.losses == b.losses == 0


async def test_old_versions_of_tls_are_refused(authority: Authority) -> None:
    b = End(ENDS[1], None, tls_of(authority, ENDS[1]))
    old = tls_of(authority, ENDS[0]).dialling
    old.minimum_version = ssl.TLSVersion.TLSv1_2
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    await b.transport.start(("127.0.0.1", 0), ("127.0.0.1", 1))
    try:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("127.0.0.1", b.port, ssl=old, server_hostname="")
    finally:
        await b.transport.stop()


# ------------------------------------------------------------------------------------- strangers beside a live link


@pytest.mark.parametrize("with_tls", [False, True])
async def test_flood_of_strangers_neither_ends_the_link_nor_keeps_the_peer_out(
    with_tls: bool, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silent ones and loud ones, more than there is room for, before the peer comes and while it is there."""
    for module in (link_machine, link_connection):
        monkeypatch.setattr(module, "SILENCE_LIMIT", 60.0)  # nobody goes for lack of words
    a, b = (End(serial, KEY, tls_of(authority, serial) if with_tls else None) for serial in ENDS)
    await b.transport.start(("127.0.0.1", 0), ("127.0.0.1", 1))
    strangers = []
    try:
        for _ in range(2):
            for number in range(4 * link_transport._CONNECTIONS_LIMIT):
                _, writer = await asyncio.open_connection("127.0.0.1", b.port)
                strangers.append(writer)
                if number % 2:
                    writer.write(b"\xff" * 65536)
            await eventually(lambda: len(b.transport.connections) <= link_transport._CONNECTIONS_LIMIT + 1, what="room")
            if a.transport._dialer is None:
                await a.transport.start(("127.0.0.1", 0), ("127.0.0.1", b.port))
            await both_up(a, b)
        assert (await a.transport.request(Frame(FrameType.FLUSH, payload=b"there"))).payload == b"there"
        assert a.losses == b.losses == 0
    finally:
        for writer in strangers:
            writer.transport.abort()
        await a.transport.stop()
        await b.transport.stop()


async def test_stranger_who_says_the_right_hello_does_not_take_the_links_place() -> None:
    """Without a key it would: a new connection of the peer replaces the old one."""
    a, b = End(ENDS[0], KEY), End(ENDS[1], KEY)
    async with connected(a, b):
        await both_up(a, b)
        reader, writer = await asyncio.open_connection("127.0.0.1", b.port)
        hello = Hello(*ENDS, (), nonce="c3" * 32, required=("key",))
        for frame in (hello.frame(), Frame(FrameType.AUTHENTICATE, payload=bytes(32))):
            writer.writelines(frame.encode())
        received = b""
        while data := await reader.read(4096):
            received += data
        writer.close()
        kinds = [frame.type for frame in FrameStream().receive_data(received)]
        assert kinds == [FrameType.HELLO, FrameType.REFUSED]
        assert a.transport.up and b.transport.up and a.losses == b.losses == 0


async def test_peer_that_comes_back_replaces_its_half_open_connection() -> None:
    a, again, b = End(ENDS[0], KEY), End(ENDS[0], KEY), End(ENDS[1], KEY)
    async with connected(a, b):
        await both_up(a, b)
        old = b.transport._connection
        dialer = a.transport._dialer
        assert dialer is not None
        dialer.cancel()  # the machine has lost its power: the old connection is there, and nobody speaks on it
        try:
            await again.transport.start(("127.0.0.1", 0), ("127.0.0.1", b.port))
            await eventually(lambda: b.transport._connection not in (None, old), what="the new connection in its place")
            await both_up(again, b)
            assert b.losses == 1
        finally:
            await again.transport.stop()


async def test_strangers_cannot_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    b = End(ENDS[1], KEY)
    with caplog.at_level(logging.WARNING, LOG):
        for number in range(1000):
            b.transport.refused(f"another reason {number}")
    assert len(caplog.records) == link_transport._REFUSALS_AT_ONCE


@pytest.mark.parametrize(
    ("host", "key", "warned"),
    [("127.0.0.1", None, False), ("::1", None, False), ("0.0.0.0", None, True), ("0.0.0.0", KEY, False)],
)
async def test_open_link_is_warned_about(
    host: str, key: Secret | None, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    b = End(ENDS[1], key)
    await b.transport.start((host, 0), ("127.0.0.1", 1))
    await b.transport.stop()
    assert ("open to everybody" in caplog.text) == warned
