"""An initiator that costs little beside a server: its commands are encoded before the clock starts.

It is for what the C clients cannot do (data digests, many sessions and LUNs in one process, random writes, a storm of
logins). It trusts the server: only statuses are looked at, and the digests of what it receives are not checked, so that
digests on and off differ by what they cost the server. What it sends carries right ones.

    python -m scripts.benchmark.own_client --count 10000 --length 4096 --depth 32 iscsi://HOST:PORT/IQN/LUN [URL...]

prints {"operations", "seconds", "cpu"} as JSON.
"""

import argparse
import json
import random
import select
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from struct import Struct
from typing import NamedTuple

from scripts.benchmark.own_login import (
    ANSWER_SECONDS,
    BHS_LENGTH,
    DIGEST_LENGTH,
    FIRST_BURST,
    Capacity,
    LoginTexts,
    Unit,
    capacity,
    log_in,
    storm,
)
from scripts.benchmark.servers import BenchmarkError
from storage_model.spec.iscsi_codes import lun_to_bytes
from storage_model.spec.iscsi_pdu import DataOutPdu, Opcode, ScsiCommandPdu
from storage_model.spec.iscsi_stream import crc32c
from storage_model.volume import Buffer

_RECEIVE_BYTES = 1 << 20
_NO_TAG = 0xFFFFFFFF
_WORD = Struct(">I")


class Place(NamedTuple):
    """Where one command reads or writes."""

    lun: int
    lba: int
    blocks: int


@dataclass(frozen=True, slots=True)
class Work:
    """What one session does: ``count`` operations of ``length`` bytes, ``depth`` in flight, round the units."""

    count: int
    length: int
    depth: int
    write: bool
    digests: bool


class Session:
    """One connection and its encoded commands. ``send`` keeps ``depth`` in flight; ``receive`` takes what has come."""

    def __init__(self, connection: socket.socket, answers: dict[str, str], work: Work, payload: bytes) -> None:
        self.completed = 0
        self.connection = connection
        self._work = work
        self._payload = payload
        self._segment = int(answers.get("MaxRecvDataSegmentLength", "8192"))
        first_burst = min(int(answers.get("FirstBurstLength", str(FIRST_BURST))), self._segment)
        self._immediate = min(work.length, first_burst) if work.write else 0
        if answers.get("ImmediateData") == "No":
            self._immediate = 0
        self._headers: list[bytes] = []
        self._luns: list[bytes] = []
        self._sent = 0
        self._data_parts: dict[tuple[int, int], tuple[Buffer, ...]] = {}
        self._inbox = bytearray(_RECEIVE_BYTES)
        self._view = memoryview(self._inbox)
        self._have = 0
        self._skip = 0
        self._header_bytes = BHS_LENGTH + (DIGEST_LENGTH if work.digests else 0)

    @property
    def done(self) -> bool:
        return self.completed == self._work.count

    def encode(self, places: Sequence[Place]) -> None:
        """One READ(16) or WRITE(16) per place."""
        opcode, work = (0x8A, self._work) if self._work.write else (0x88, self._work)
        for number, (lun, lba, blocks) in enumerate(places):
            cdb = bytes((opcode, 0)) + lba.to_bytes(8) + blocks.to_bytes(4) + b"\0\0"
            bhs = ScsiCommandPdu(
                read=not work.write, write=work.write, final=True, lun=lun_to_bytes(lun), itt=number,
                expected_data_transfer_length=work.length, cmd_sn=1 + number, exp_stat_sn=0, cdb=cdb,
                data=self._payload[: self._immediate],
            ).encode_bhs()  # fmt: skip
            self._headers.append(self._sealed(bhs))
            self._luns.append(lun_to_bytes(lun))

    def _sealed(self, bhs: bytes) -> bytes:
        return bhs + crc32c(bhs) if self._work.digests else bhs

    def send(self, count: int) -> None:
        """The next ``count`` commands, as far as there are any, in one system call."""
        headers = self._headers[self._sent : self._sent + count]
        self._sent += len(headers)
        if not self._immediate:
            self._write([b"".join(headers)])
            return
        data = self._data(0, self._immediate)
        self._write([part for header in headers for part in (header, *data)])

    def _data(self, offset: int, length: int) -> tuple[Buffer, ...]:
        """A data segment with its padding and digest, made once."""
        parts = self._data_parts.get((offset, length))
        if parts is None:
            segment = self._payload[offset : offset + length]
            parts = (segment, crc32c(segment)) if self._work.digests else (segment,)
            self._data_parts[offset, length] = parts
        return parts

    def _write(self, parts: Sequence[Buffer]) -> None:
        while parts:
            some, parts = parts[:512], parts[512:]  # the system takes 1,024 at once
            total = sum(map(len, some))
            sent = self.connection.sendmsg(some)
            if sent < total:
                self.connection.sendall(b"".join(some)[sent:])

    def receive(self) -> int:
        """One receive; how many commands it completed. Raises BenchmarkError for anything but a GOOD status."""
        received = self.connection.recv_into(self._view[self._have :])
        if not received:
            raise BenchmarkError("the server hung up")
        end, position, before = self._have + received, 0, self.completed
        if self._skip:
            position = min(self._skip, end)
            self._skip -= position
        header_bytes, digest, inbox = self._header_bytes, self._header_bytes - BHS_LENGTH, self._inbox
        while end - position >= header_bytes:
            length = _WORD.unpack_from(inbox, position + 4)[0] & 0xFFFFFF
            opcode = inbox[position]
            if opcode == 0x25:  # Data-In, with the status when bit 0 is set
                if inbox[position + 1] & 1:
                    self._complete(position)
            elif opcode == 0x21:
                self._complete(position)
            else:
                self._other(position)
            position += header_bytes
            if length:
                segment = (length + 3 & ~3) + digest
                if segment > end - position:
                    self._skip = segment - (end - position)
                    position = end
                else:
                    position += segment
        self._have = end - position
        if self._have:
            self._view[: self._have] = bytes(self._view[position:end])
        return self.completed - before

    def _complete(self, position: int) -> None:
        if self._inbox[position + 3]:
            raise BenchmarkError(f"a command ended with status {self._inbox[position + 3]:02X}h")
        self.completed += 1

    def _other(self, position: int) -> None:
        opcode = self._inbox[position]
        if opcode == Opcode.R2T:
            self._answer_r2t(bytes(self._view[position : position + BHS_LENGTH]))
        elif opcode == Opcode.NOP_IN and _WORD.unpack_from(self._inbox, position + 20)[0] == _NO_TAG:
            return
        else:
            raise BenchmarkError(f"the server sent PDU {opcode:02X}h")

    def _answer_r2t(self, r2t: bytes) -> None:
        """The Data-Outs of one R2T, cut as the target declared (§11.8, §11.7)."""
        itt, ttt = int.from_bytes(r2t[16:20]), int.from_bytes(r2t[20:24])
        offset, wanted = int.from_bytes(r2t[40:44]), int.from_bytes(r2t[44:48])
        parts: list[Buffer] = []
        for data_sn, begin in enumerate(range(offset, offset + wanted, self._segment)):
            length = min(self._segment, offset + wanted - begin)
            pdu = DataOutPdu(
                final=begin + length == offset + wanted, lun=self._luns[itt], itt=itt, ttt=ttt, data_sn=data_sn,
                buffer_offset=begin, data=self._payload[begin : begin + length],
            )  # fmt: skip
            parts += [self._sealed(pdu.encode_bhs()), *self._data(begin, length)]
        self._write(parts)


def run(sessions: Sequence[Session], depth: int) -> tuple[float, float]:
    """Everything, to the end; seconds of wall time and of our CPU time."""
    poll = select.epoll()
    by_descriptor = {session.connection.fileno(): session for session in sessions}
    for descriptor in by_descriptor:
        poll.register(descriptor, select.EPOLLIN)
    busy = time.process_time()
    started = time.perf_counter()
    for session in sessions:
        session.send(depth)
    left = len(sessions)
    while left:
        ready = poll.poll(ANSWER_SECONDS)
        if not ready:
            raise BenchmarkError(f"the server has been silent for {ANSWER_SECONDS:g} s")
        for descriptor, _ in ready:
            session = by_descriptor[descriptor]
            completed = session.receive()
            if completed:
                session.send(completed)
                left -= session.done
    seconds = time.perf_counter() - started
    poll.close()
    return seconds, time.process_time() - busy


def places(units: Sequence[Capacity], options: argparse.Namespace, seed: int) -> list[Place]:
    """Of the commands of one session, round the units."""
    draw = random.Random(seed)
    walks = [_walk(unit, options, draw) for unit in units]
    count = options.count // options.sessions
    return list(islice((next(walk) for walk in cycle(walks)), count))


def _walk(unit: Capacity, options: argparse.Namespace, draw: random.Random) -> Iterator[Place]:
    """Through one unit without end, in order from anywhere or at random."""
    blocks = options.length // unit.block_length
    slots, step = unit.blocks // blocks, 1
    if options.blocks:  # always the same places, spread over the whole volume
        slots, step = options.blocks, slots // options.blocks
    number = draw.randrange(slots)
    while True:
        yield Place(unit.lun, number * step * blocks, blocks)
        number = draw.randrange(slots) if options.random else (number + 1) % slots


def payload(length: int) -> bytes:
    """What every write writes."""
    return random.Random(length).randbytes(length)


def open_sessions(units: Sequence[Unit], options: argparse.Namespace) -> list[Session]:
    """Logged in, each with its commands encoded."""
    texts = LoginTexts(units[0].target, options.digests)
    work = Work(options.count // options.sessions, options.length, options.depth, options.write, options.digests)
    data = payload(options.length)
    sessions = []
    for number in range(options.sessions):
        connection, answers = log_in(units[0], texts, number)
        capacities = [capacity(connection, unit.lun, options.digests, 1) for unit in units]
        session = Session(connection, answers, work, data)
        session.encode(places(capacities, options, number))
        sessions.append(session)
    return sessions


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("own_client", description="A load on iSCSI units; JSON on standard output.")
    parser.add_argument("urls", nargs="+", metavar="URL", help="units of one target; the load goes round them")
    parser.add_argument("--count", type=int, default=10000, help="operations, of all sessions together")
    parser.add_argument("--length", type=int, default=4096, help="bytes per operation")
    parser.add_argument("--depth", type=int, default=32, help="operations in flight per session")
    parser.add_argument("--sessions", type=int, default=1)
    parser.add_argument("--blocks", type=int, default=0, help="so many places, spread over the volume (0: all)")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--random", action="store_true")
    parser.add_argument("--digests", action="store_true", help="CRC32C of headers and data")
    parser.add_argument("--storm", type=int, default=0, metavar="N", help="N logins instead")
    parser.add_argument("--hold", type=int, default=64, help="sessions open at once in a storm")
    return parser


def main(words: Sequence[str] | None = None) -> int:
    """Entry point; the exit status."""
    options = _arguments().parse_args(words)
    units = [Unit.of(url) for url in options.urls]
    try:
        if options.storm:
            busy = time.process_time()
            seconds, held = storm(units[0], options.storm, options.hold)
            result: dict[str, float] = {"operations": options.storm, "cpu": time.process_time() - busy}
            for connection in held:
                connection.close()
        else:
            seconds, busy = run(open_sessions(units, options), options.depth)
            result = {"operations": options.count // options.sessions * options.sessions, "cpu": busy}
    except (BenchmarkError, OSError) as error:
        print(f"own client: {error}", file=sys.stderr)
        return 1
    print(json.dumps(result | {"seconds": seconds}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
