"""The remote-copy port meets somebody who is not the other array: refused, with the reason in the log."""

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Self

import crc32c
import pytest

from storage_model.pair import PairEpoch
from storage_model.pair_state import PairState
from storage_model.spec.copy_frames import (
    MAX_HELLO_LENGTH,
    MAX_PAYLOAD_LENGTH,
    Frame,
    FrameStream,
    FrameType,
    Hello,
    PairOffer,
    encode_parts,
)
from storage_model.spec.pair_cdb import PairOut, StatusFlag
from storage_model.volume import MediumFailure
from target.array import Array
from target.config import parse_config
from target.metadata_store import MetadataStore
from tests.eventually import eventually
from tests.integration.array_process import READY_SECONDS
from tests.integration.pair_of_arrays import BLOCK, SERIALS, ArrayUnderTest, PairSpec, free_port, pair_of_arrays

ANSWER_SECONDS = 8.0
PAIR = PairSpec("data", fence="never")
OFFER = [["data", 1, 4 << 20, 512, False]]


class Stranger:
    """Somebody at the array's remote-copy port."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self._reader = reader
        self._stream = FrameStream()
        self.frames: list[Frame] = []

    @classmethod
    @asynccontextmanager
    async def connection(cls, port: int) -> AsyncIterator[Self]:
        stranger = cls(*await asyncio.open_connection("127.0.0.1", port))
        try:
            yield stranger
        finally:
            stranger.writer.transport.abort()
            with suppress(OSError):
                await stranger.writer.wait_closed()

    def send(self, *frames: Frame) -> None:
        for frame in frames:
            self.writer.writelines(frame.encode())

    async def receive(self) -> Frame:
        async with asyncio.timeout(ANSWER_SECONDS):
            while not self.frames:
                data = await self._reader.read(1 << 16)
                assert data, "the array hung up"
                self.frames += self._stream.receive_data(data)
        return self.frames.pop(0)

    async def hung_up(self) -> list[Frame]:
        """What came before the array hung up; fails when it does not."""
        with suppress(ConnectionError):
            async with asyncio.timeout(ANSWER_SECONDS):
                while data := await self._reader.read(1 << 16):
                    self.frames += self._stream.receive_data(data)
        return self.frames

    async def refusal(self) -> str:
        """The reason of the REFUSED frame before the array hung up."""
        (frame,) = [frame for frame in await self.hung_up() if frame.type is FrameType.REFUSED]
        return bytes(frame.payload).decode()


@asynccontextmanager
async def listening_array(directory: Path) -> AsyncIterator[tuple[ArrayUnderTest, int]]:
    """Array B, which listens, without array A; and its remote-copy port."""
    port = free_port()
    array = ArrayUnderTest("b", directory, [PAIR], f"127.0.0.1:{port}", "127.0.0.1:1")
    try:
        await array.start()
        yield array, port
        await assert_serving(array)
        assert "Traceback" not in array.log, array.log
    finally:
        await array.stop()


async def assert_serving(array: ArrayUnderTest) -> None:
    assert (await array.write(0, 1, b"\x5a" * BLOCK)).status == 0
    assert bytes((await array.read(0, 1)).data_in) == b"\x5a" * BLOCK


def hello_of(**changes: Any) -> Frame:
    """The HELLO that array A would send, changed."""
    document = {"versions": [1], "serial": SERIALS["a"], "peer": SERIALS["b"], "identity": "a stranger", "pairs": []}
    return Frame(FrameType.HELLO, payload=json.dumps({**document, **changes}).encode())


def hello_text(text: str) -> Frame:
    return Frame(FrameType.HELLO, payload=text.encode())


def frame_with_length(payload_length: int, kind: int = FrameType.HELLO) -> bytes:
    """Only a header, whose CRC is right."""
    header = struct.pack("!BBHIIQIII", kind, 0, 0, 0, 0, 0, 0, payload_length, 0)
    return header + crc32c.crc32c(header).to_bytes(4, "big")


def damaged_payload() -> bytes:
    header, payload = hello_of().encode()
    return bytes(header) + bytes(payload)[:-1] + b"!"


STRANGERS: dict[str, tuple[Callable[[], bytes | Frame], str]] = {
    "zeros": (lambda: bytes(4096), "not a remote-copy frame"),
    "another array": (lambda: hello_of(serial="31000"), "array 31000 is at the other end, but array 30095 is the"),
    "expects another": (lambda: hello_of(peer="31000"), "array 30095 expects array 31000"),
    "itself": (lambda: hello_of(serial=SERIALS["b"]), "array 30096 is at the other end"),
    "another version": (lambda: hello_of(versions=[7, 9]), "no common version: the peer speaks (7, 9)"),
    "no version": (lambda: hello_of(versions=[]), "no common version"),
    "infinite version": (lambda: hello_text('{"versions": [Infinity], "pairs": []}'), "HELLO cannot be read"),
    "half a hello": (lambda: hello_text('{"versions": [1]}'), "HELLO cannot be read"),
    "pairs of nothing": (lambda: hello_of(pairs=[[1, 2], 3]), "HELLO cannot be read"),
    "not json": (lambda: hello_text("versions=1"), "payload is not JSON"),
    "deep json": (lambda: hello_text("[" * 100_000), "payload is not JSON"),
    "not an object": (lambda: hello_text("[1, 2]"), "payload is not a JSON object"),
    "forged log line": (lambda: hello_of(serial="1\n2026-01-01 ERROR"), "array 1?2026-01-01 ERROR is at"),
    "endless serial": (lambda: hello_of(serial="9" * 100_000), "array 999999"),
    "half a character": (
        lambda: hello_text('{"versions": [1], "serial": "\\ud800", "peer": "", "identity": "", "pairs": []}'),
        "array ?",
    ),
    "no hello": (lambda: Frame(FrameType.WRITE, 1, 1, 1, 0, 512, payload=bytes(512)), "WRITE before HELLO"),
    "garbage": (lambda: b"GET / HTTP/1.1\r\nHost: array.example.org\r\n\r\n", "not a remote-copy frame"),
    "too long": (lambda: frame_with_length(MAX_PAYLOAD_LENGTH + 1), f"frame of {MAX_PAYLOAD_LENGTH + 1} bytes"),
    "unknown type": (lambda: frame_with_length(0, 99), "frame of unknown type 99"),
    "damaged": (damaged_payload, "HELLO frame: payload CRC32C does not match"),
}


async def test_strangers_are_refused(tmp_path: Path) -> None:
    async with listening_array(tmp_path) as (array, port):
        for name, (make, reason) in STRANGERS.items():
            known = len(array.log)
            async with Stranger.connection(port) as stranger:
                sent = make()
                stranger.writer.write(sent) if isinstance(sent, bytes) else stranger.send(sent)
                assert reason in await stranger.refusal(), name
            lines = array.log[known:].splitlines()
            assert len(lines) == 1 and f"link to array 30095 refused: {reason}" in lines[0], (name, lines)
            assert len(lines[0]) < 500


async def test_whoever_says_nothing_is_hung_up_on(tmp_path: Path) -> None:
    """Nothing at all, or so little at a time that a HELLO would take for ever."""
    async with listening_array(tmp_path) as (array, port):
        async with Stranger.connection(port) as silent, Stranger.connection(port) as dripping:
            dripping.writer.write(frame_with_length(MAX_HELLO_LENGTH))
            refusals = asyncio.gather(silent.refusal(), dripping.refusal())

            def drip() -> bool:
                dripping.writer.write(b"{")
                return refusals.done()

            await eventually(drip, what="both refused")
            assert set(await refusals) == {"no HELLO from the other end for 3 s"}
        assert array.log.count("link to array 30095 refused: no HELLO") == 1  # told once, not again and again


async def test_many_connections_are_not_kept(tmp_path: Path) -> None:
    async with listening_array(tmp_path) as (array, port):
        crowd = [await asyncio.open_connection("127.0.0.1", port) for _ in range(40)]
        await eventually(lambda: "too many connections" in array.log, what="a refusal in the log")
        await assert_serving(array)
        for _, writer in crowd:
            writer.transport.abort()

        async def linked() -> bool:
            async with Stranger.connection(port) as peer:
                peer.send(hello_of(pairs=OFFER))
                return [(await peer.receive()).type for _ in range(2)] == [FrameType.HELLO, FrameType.PAIR_STATUS]

        await eventually(linked, what="room for the other array")


async def test_nonsense_behind_a_proper_hello(tmp_path: Path) -> None:
    nonsense = [
        Frame(FrameType.PAIR_STATUS, 1, length_bytes=77, payload=encode_parts(PairEpoch().encode().encode(), b"")),
        Frame(FrameType.PAIR_STATUS, 1, payload=b"\xff" * 20),
        Frame(FrameType.PAIR_STATUS, 1, payload=encode_parts(b"[]", b"")),
        Frame(FrameType.PAIR_STATUS, 1, payload=encode_parts(b'{"epoch": ', b"")),
        Frame(FrameType.PROPOSE, 1, 1, 1, payload=b"{}"),
        Frame(FrameType.PROPOSE, 1, 1, 1, payload=encode_parts(b"\xff", b"{}", b"")),
        Frame(FrameType.REQUEST, 1, 1, payload=b"\xff\xff"),
        Frame(FrameType.REQUEST, 1, 1, payload=b'{"verb": "CREATE"}'),
        Frame(FrameType.HELLO),
    ]
    async with listening_array(tmp_path) as (array, port):
        for frame in nonsense:
            async with Stranger.connection(port) as peer:
                peer.send(hello_of(pairs=OFFER), frame)
                assert await peer.refusal(), frame
            await eventually(lambda: array.log.count("is up") == array.log.count("is down"), what="the link down")


async def test_frames_for_what_is_not_there_are_answered_so(tmp_path: Path) -> None:
    frames = [
        Frame(FrameType.WRITE, 1, 1, 5, 0, 512, payload=bytes(512)),  # of an epoch that never was
        Frame(FrameType.READ, 1, 2, 0, 1 << 60, 1 << 31),
        Frame(FrameType.WRITE, 99, 3, 0, 0, 512, payload=bytes(512)),  # of no pair
        Frame(FrameType.STATE, 1, 4, 0, length_bytes=77),
    ]
    async with listening_array(tmp_path) as (_, port), Stranger.connection(port) as peer:
        peer.send(hello_of(pairs=OFFER), Frame(FrameType.ANSWER, request=4711), *frames)
        answers: dict[int, int] = {}
        while len(answers) < len(frames):
            frame = await peer.receive()
            if frame.type is FrameType.ANSWER:
                answers[frame.request] = frame.flags
        assert set(answers) == {1, 2, 3, 4} and 0 not in answers.values()


async def test_a_new_connection_of_the_peer_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    """As after a power failure at the other site: the old connection is half open, nobody ever closes it."""
    offer = PairOffer("data", 1, 4 << 20, 512, False)
    status = Frame(FrameType.PAIR_STATUS, 1, payload=encode_parts(PairEpoch().encode().encode(), b""))
    hello = Hello(SERIALS["a"], SERIALS["b"], (offer,)).frame()
    async with listening_array(tmp_path) as (array, port), Stranger.connection(port) as old:
        old.send(hello, status)
        await array.until_linked()
        give_up_at = asyncio.get_running_loop().time() + 8
        while True:  # the array may have to tell its pairs of the loss first, and then wants to be dialled again
            async with Stranger.connection(port) as new:
                new.send(hello, status)
                frames = [await new.receive(), await new.receive()]
                if frames[1].type is FrameType.PAIR_STATUS:
                    await old.hung_up()
                    await array.until_linked()
                    return
            assert asyncio.get_running_loop().time() < give_up_at


IN_PROCESS = """
[array]
serial = "30096"
state_dir = "{0}"
portals = ["127.0.0.1:0"]
[[volumes]]
name = "v"
lun = 0
ldev = 1
file = "v.img"
size = "4MiB"
[remote_copy]
listen = "127.0.0.1:{1}"
peer = "127.0.0.1:1"
peer_serial = "30095"
[[pairs]]
name = "data"
volume = "v"
"""


@pytest.mark.parametrize("ends", ["saved", "failed", "link lost"])
async def test_whom_it_meets_is_durable_before_it_tells_what_it_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    saving, go_on = asyncio.Event(), asyncio.Event()
    save_peer = MetadataStore.save_peer

    async def slowly(store: MetadataStore, serial: str, identity: str) -> None:
        saving.set()
        await go_on.wait()
        if ends == "failed" and not store.load_peer("tried"):
            await save_peer(store, "tried", "once")
            raise MediumFailure("the metadata cannot be written")
        await save_peer(store, serial, identity)

    monkeypatch.setattr(MetadataStore, "save_peer", slowly)
    port = free_port()
    array = Array(parse_config(IN_PROCESS.format(tmp_path, port), "array.toml"))
    await array.start()
    (half,) = array._halves()
    status = Frame(FrameType.PAIR_STATUS, 1, payload=encode_parts(PairEpoch().encode().encode(), b""))
    try:
        async with Stranger.connection(port) as peer:
            peer.send(hello_of(pairs=OFFER), status)
            assert (await peer.receive()).type is FrameType.HELLO
            await saving.wait()
            assert not half.connected and not peer.frames
            if ends != "link lost":
                go_on.set()
            if ends == "saved":
                assert (await peer.receive()).type is FrameType.PAIR_STATUS
                await eventually(lambda: half.connected, what="the pair connected")
            if ends == "failed":
                assert "a medium of the other array failed" in await peer.refusal()
        go_on.set()
        await eventually(lambda: not half.link.up and not half.connected, what="the link down")

        async def met() -> bool:
            async with Stranger.connection(port) as again:
                again.send(hello_of(pairs=OFFER), status)
                return [(await again.receive()).type for _ in range(2)] == [FrameType.HELLO, FrameType.PAIR_STATUS]

        await eventually(met, what="the other array met")
    finally:
        go_on.set()
        await array.stop()


# -------------------------------------------------------------------------------------------------- two real arrays


async def test_wrong_serial_in_the_configuration_is_told_by_both_arrays(tmp_path: Path) -> None:
    port = free_port()
    listening = ArrayUnderTest("b", tmp_path, [PAIR], f"127.0.0.1:{port}", "127.0.0.1:1")
    dialling = ArrayUnderTest("a", tmp_path, [PAIR], f"127.0.0.1:{free_port()}", f"127.0.0.1:{port}")
    dialling.config.write_text(dialling.config.read_text().replace('peer_serial = "30096"', 'peer_serial = "30098"'))
    try:
        await listening.start()
        await dialling.start()
        told = "link to array 30098 refused: array 30096 is at the other end, but array 30098 is the configured peer"
        await eventually(lambda: told in dialling.log, within=READY_SECONDS, what="the reason at the array that dials")
        told = "link to array 30095 refused: "
        await eventually(lambda: told in listening.log, what="the reason at the array that listens")
        for array in (listening, dialling):
            await assert_serving(array)
            assert StatusFlag.LINK_UP not in (await array.status(0)).flags
            assert "Traceback" not in array.log
            assert array.log.count("refused: ") <= 3  # it is dialled again and again, and told once
    finally:
        await dialling.stop()
        await listening.stop()


async def test_a_stranger_does_not_disturb_a_pair(tmp_path: Path) -> None:
    async with pair_of_arrays(tmp_path, PAIR) as arrays:
        await arrays.create()
        assert arrays.cable.target is not None
        async with Stranger.connection(arrays.cable.target[1]) as stranger:
            stranger.send(hello_of(serial="31000"))
            assert "array 31000" in await stranger.refusal()
        assert (await arrays.a.write(0, 0, b"mirrored" * 64)).status == 0
        assert (await arrays.b.status(0)).state is PairState.PAIR
        assert arrays.equal()
        await arrays.a.control(0, PairOut.SPLIT)


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n" * 4, b""], ids=["another service", "nothing"])
async def test_the_configured_peer_address_is_some_other_service(answer: bytes, tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        array = ArrayUnderTest("a", tmp_path, [PAIR], f"127.0.0.1:{free_port()}", f"127.0.0.1:{port}")
        try:
            await array.start()
            await eventually(lambda: "link to array 30096 refused: " in array.log, what="a reason in the log")
            await assert_serving(array)
            assert "Traceback" not in array.log
        finally:
            await array.stop()
