"""Data-In that the kernel sends from the page cache: which reads, and that the bytes are the same."""

import os
import random
import socket
from asyncio.trsock import TransportSocket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import cast

import pytest

from storage_model.spec.iscsi_pdu import DataInPdu, ScsiCommandPdu, ScsiResponsePdu
from storage_model.spec.iscsi_stream import encode_pdu
from storage_model.spec.iscsi_text import format_text
from storage_model.spec.scsi_task import ScsiStatus, TaskAttribute
from storage_model.volume import Buffer, FileRange
from target.iscsi.outstanding_commands import LENT_BYTES_MIN
from target.iscsi.portal import IscsiPortal
from target.scsi.device_server import DeviceServer
from target.scsi.logical_unit import LogicalUnit, UnitIdentity
from target.scsi.task import ScsiTask, TaskOutcome
from target.sendable import Sendable
from target.socket_writing import FileRangeLost, read_ranges, send_now
from target.volumes.file_volume import FileVolume
from target.volumes.page_cache import PAGE_BYTES, PageCache
from tests.eventually import eventually
from tests.iscsi_driver import NAMES, TARGET, Driver
from tests.unit.portal_client import PortalClient

SIZE = 4 << 20
CONTENT = random.Random(76592).randbytes(SIZE)
BLOCK = 512


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    descriptor = os.open(path, os.O_RDWR)
    yield descriptor
    os.close(descriptor)


# ---------------------------------------------------------------- which commands


class Initiator(Driver):
    """Reads are answered with what is in file 9, which is never looked at, where the transport lets them be."""

    def __init__(self, **login: str) -> None:
        super().__init__(self._answer, lends=True)
        self.login(**{"MaxRecvDataSegmentLength": "262144", **login})

    def _answer(self, task: ScsiTask) -> TaskOutcome:
        if task.may_borrow:
            return TaskOutcome(transfer_length_bytes=task.data_in_length, lent=FileRange(9, 0, task.data_in_length))
        return TaskOutcome(data_in=bytes(task.data_in_length), transfer_length_bytes=task.data_in_length)

    def execute(self, *commands: ScsiCommandPdu) -> list[Sendable]:
        """What would be sent, without what the stream of a driver would make of it."""
        events = self.connection.receive_data(b"".join(pdu.encode_bhs() for pdu in commands), self.now)
        self._handle(events)
        return self.connection.data_to_send()


def ranges(buffers: list[Sendable]) -> list[FileRange]:
    return [buffer for buffer in buffers if isinstance(buffer, FileRange)]


def statuses(buffers: list[Sendable]) -> list[int]:
    """Of the SCSI Responses."""
    return [
        bytes(buffer)[3] for buffer in buffers if not isinstance(buffer, FileRange) and bytes(buffer[:1]) == b"\x21"
    ]


def test_a_long_read_is_lent_and_a_short_one_is_not() -> None:
    host = Initiator()
    assert ranges(host.execute(host.read(1, LENT_BYTES_MIN))) == [FileRange(9, 0, LENT_BYTES_MIN)]
    assert not ranges(host.execute(host.read(2, LENT_BYTES_MIN - BLOCK)))


def test_it_is_cut_into_the_initiators_data_segments() -> None:
    host = Initiator(MaxRecvDataSegmentLength="65536")
    buffers = host.execute(host.read(1, 160 << 10))
    assert ranges(buffers) == [FileRange(9, 0, 65536), FileRange(9, 65536, 65536), FileRange(9, 131072, 32768)]
    assert len(buffers) == 6


def test_an_initiator_that_takes_only_short_data_segments_is_lent_nothing() -> None:
    host = Initiator(MaxRecvDataSegmentLength="8192")
    assert not ranges(host.execute(host.read(1, 65536)))


def test_more_than_the_initiator_expects_is_cut_off() -> None:
    host = Driver(lambda task: TaskOutcome(transfer_length_bytes=SIZE, lent=FileRange(9, 0, SIZE)), lends=True)
    host.login(MaxRecvDataSegmentLength="65536")
    host._handle(host.connection.receive_data(host.read(1, 65536).encode_bhs(), 0.0))
    header, data = host.connection.data_to_send()
    assert data == FileRange(9, 0, 65536)
    pdu = DataInPdu.decode(cast(bytes, header), b"", b"")
    assert pdu.overflow and pdu.residual_count == SIZE - 65536


def test_with_a_data_digest_nothing_is_lent() -> None:
    host = Initiator(DataDigest="CRC32C")
    assert not ranges(host.execute(host.read(1, 65536)))


def test_with_a_header_digest_it_is() -> None:
    host = Initiator(HeaderDigest="CRC32C")
    pdu = host.read(1, 65536)
    host._handle(host.connection.receive_data(b"".join(map(bytes, encode_pdu(pdu, header_digest=True))), 0.0))
    assert ranges(host.connection.data_to_send())


def test_a_transport_that_cannot_is_lent_nothing() -> None:
    host = Driver(lambda task: TaskOutcome(data_in=bytes(2) if task.may_borrow else bytes(1)))
    host.login()
    (answer,) = host.send(host.read(1, 65536))
    assert isinstance(answer, DataInPdu) and len(answer.data) == 1


# ---------------------------------------------------------------- an initiator that asks for an order (SAM-5 8.6)

ORDERED = {"attribute": TaskAttribute.ORDERED}


def test_an_ordered_command_comes_again_when_a_lent_read_before_it_may_not_have_arrived() -> None:
    host = Initiator()
    host.execute(host.read(1, 65536))
    assert statuses(host.execute(host.command(2, **ORDERED))) == [ScsiStatus.BUSY]
    assert statuses(host.execute(host.command(3, **ORDERED))) == [ScsiStatus.GOOD]
    assert not ranges(host.execute(host.read(4, 65536)))


def test_an_ordered_command_runs_when_the_read_has_been_acknowledged() -> None:
    host = Initiator()
    buffers = host.execute(host.read(1, 65536))
    stat_sn = DataInPdu.decode(cast(bytes, buffers[0]), b"", b"").stat_sn
    assert statuses(host.execute(host.command(2, exp_stat_sn=stat_sn + 1, **ORDERED))) == [ScsiStatus.GOOD]
    assert not ranges(host.execute(host.read(3, 65536)))


def test_an_ordered_command_in_the_same_segment_as_the_read_before_it() -> None:
    host = Initiator()
    buffers = host.execute(host.read(1, 65536), host.command(2, **ORDERED))
    assert not ranges(buffers) and statuses(buffers) == [ScsiStatus.GOOD]


# ---------------------------------------------------------------- the page cache


def test_what_was_written_is_in_the_cache_and_what_was_thrown_out_is_not(file: int) -> None:
    cache = PageCache(file)
    if not cache.has(0, SIZE):
        assert not cache.can_tell, "the file has just been written"
        pytest.skip("this kernel does not tell: cachestat(2) came with Linux 6.5")
    assert cache.has(5 * PAGE_BYTES + 512, 512) and cache.has(SIZE - 512, 512)
    os.fsync(file)
    os.posix_fadvise(file, 0, SIZE, os.POSIX_FADV_DONTNEED)
    if cache.has(0, SIZE):
        pytest.skip("the file system keeps the pages: it lies in memory")
    assert cache.can_tell
    os.pread(file, SIZE, 0)
    assert cache.has(0, SIZE)


def test_a_kernel_that_does_not_tell_is_not_asked_again(file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("target.volumes.page_cache._CACHESTAT", 0xFFFF)
    cache = PageCache(file)
    assert not cache.has(0, 512) and not cache.can_tell and not cache.has(0, 512)


# ---------------------------------------------------------------- sockets


@pytest.fixture
async def pair() -> AsyncIterator[tuple[socket.socket, socket.socket]]:
    listening = socket.create_server(("127.0.0.1", 0))
    near = socket.create_connection(listening.getsockname())
    far, _ = listening.accept()
    near.setblocking(False)
    with listening, near, far:
        yield near, far


def send(near: socket.socket, buffers: list[Sendable]) -> list[Buffer]:
    return send_now(TransportSocket(near), near.fileno(), buffers)


@pytest.mark.parametrize("seed", range(20))
def test_what_arrives_and_what_is_left_are_what_was_to_be_sent(
    seed: int, file: int, pair: tuple[socket.socket, socket.socket]
) -> None:
    """Buffers and ranges of all lengths, also more than a socket takes and more than one system call does."""
    choose = random.Random(seed)
    near, far = pair
    buffers: list[Sendable] = []
    for _ in range(choose.choice((1, 3, 40, 1500))):
        if choose.random() < 0.3:
            start = choose.randrange(SIZE - 1)
            length = min(SIZE - start, choose.choice((1, 48, 4096, 70_000, 1 << 20)))
            buffers.append(FileRange(file, start, length))
        else:
            buffers.append(
                choose.choice((bytes, bytearray, memoryview))(choose.randbytes(choose.choice((1, 48, 5000))))
            )
    wanted = b"".join(read_ranges(buffers))
    rest = b"".join(send(near, buffers))
    near.shutdown(socket.SHUT_WR)
    got = b"".join(iter(lambda: far.recv(1 << 20), b""))
    assert got + rest == wanted


def test_a_full_socket_takes_nothing(file: int, pair: tuple[socket.socket, socket.socket]) -> None:
    near, _ = pair
    while not send(near, [bytes(1 << 20)]):
        pass
    data = FileRange(file, 4096, 65536)
    assert b"".join(send(near, [b"header", data])) == b"header" + CONTENT[4096 : 4096 + 65536]
    assert b"".join(send(near, [data])) == CONTENT[4096 : 4096 + 65536]


def test_a_file_that_was_cut_short_under_us(file: int, pair: tuple[socket.socket, socket.socket]) -> None:
    os.ftruncate(file, 8192)
    with pytest.raises(FileRangeLost, match="ends before byte 8192"):
        send(pair[0], [b"header", FileRange(file, 8192, 512)])
    with pytest.raises(FileRangeLost, match="ends before byte 65536"):
        send(pair[0], [b"header", FileRange(file, 0, 65536)])
    with pytest.raises(FileRangeLost, match="ends before byte 65536"):
        read_ranges([FileRange(file, 0, 65536)])


# ---------------------------------------------------------------- all of it


READ_10 = 0x28


def read_blocks(itt: int, lba: int, count: int) -> ScsiCommandPdu:
    cdb = bytes((READ_10, 0, *lba.to_bytes(4), 0, *count.to_bytes(2), 0))
    return ScsiCommandPdu(
        itt=itt, read=True, expected_data_transfer_length=count * BLOCK, cmd_sn=itt, cdb=cdb.ljust(16, b"\0")
    )


@pytest.fixture
async def volume(tmp_path: Path) -> AsyncIterator[FileVolume]:
    (tmp_path / "volume").write_bytes(CONTENT)
    volume = FileVolume.open(tmp_path / "volume", SIZE)
    yield volume
    await volume.close()


@pytest.fixture
async def host(volume: FileVolume) -> AsyncIterator[PortalClient]:
    server = DeviceServer({0: LogicalUnit(0, volume, UnitIdentity("0"))})
    portal = IscsiPortal(TARGET, server)
    client = await PortalClient.connect(await portal.start("127.0.0.1:0"))
    await client.logged_in(data=format_text({**NAMES, "MaxRecvDataSegmentLength": "262144"}))
    client.send(ScsiCommandPdu(itt=1, cmd_sn=1, cdb=bytes(16)))
    assert isinstance(await client.receive(), ScsiResponsePdu)  # power on
    yield client
    client.writer.close()
    await portal.stop()


async def test_reads_through_the_portal_are_lent(
    host: PortalClient, volume: FileVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More at a time than the socket takes, from an initiator that is in no hurry."""
    lent: list[int] = []
    lend_now = volume.lend_now

    def watched(offset_bytes: int, length_bytes: int) -> FileRange | None:
        found = lend_now(offset_bytes, length_bytes)
        lent.append(found.length_bytes if found else 0)
        return found

    monkeypatch.setattr(volume, "lend_now", watched)
    if watched(0, SIZE // 4) is None:
        pytest.skip("this kernel does not tell what is cached: cachestat(2) came with Linux 6.5")
    count = SIZE // 4 // BLOCK
    host.send(*(read_blocks(itt, itt % 4 * count, count) for itt in range(2, 34)))
    await eventually(lambda: len(lent) > 2, what="the first reads")
    data: dict[int, bytes] = dict.fromkeys(range(2, 34), b"")
    while any(len(part) < count * BLOCK for part in data.values()):
        pdu = await host.receive()
        assert isinstance(pdu, DataInPdu) and pdu.buffer_offset == len(data[pdu.itt])
        data[pdu.itt] += pdu.data
    for itt, part in data.items():
        start = itt % 4 * count * BLOCK
        assert part == CONTENT[start : start + count * BLOCK]
    assert len(lent) == 33 and set(lent) == {SIZE // 4}


async def test_a_volume_file_that_is_cut_short_ends_the_connection_and_nothing_else(
    host: PortalClient, volume: FileVolume, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    os.truncate(volume.path, 4096)
    monkeypatch.setattr(volume, "lend_now", lambda offset, length: FileRange(volume._descriptor, offset, length))
    host.send(read_blocks(2, 1024, 256))
    with pytest.raises((EOFError, ConnectionResetError)):
        await host.receive()
    assert "the volume's file ends before byte 524288" in caplog.text and "internal error" not in caplog.text
