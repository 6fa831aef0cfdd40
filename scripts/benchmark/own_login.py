"""Logging in with little effort: what our own client does before it works, and a storm of logins."""

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

from scripts.benchmark.servers import BenchmarkError
from storage_model.spec.iscsi_codes import lun_to_bytes
from storage_model.spec.iscsi_pdu import LoginRequestPdu, LoginResponsePdu, Opcode, ScsiCommandPdu, Stage
from storage_model.spec.iscsi_stream import crc32c
from storage_model.spec.iscsi_text import format_text, parse_text

INITIATOR = "iqn.2026-11.org.example:benchmark"
ANSWER_SECONDS = 30.0
BHS_LENGTH, DIGEST_LENGTH = 48, 4
MAX_SEGMENT, FIRST_BURST = 262144, 65536
_MAX_BURST = 1048576
_PARALLEL_LOGINS = 16


class Capacity(NamedTuple):
    """Of one unit: how many blocks, and of how many bytes."""

    lun: int
    blocks: int
    block_length: int


@dataclass(frozen=True, slots=True)
class Unit:
    """A logical unit behind a portal."""

    host: str
    port: int
    target: str
    lun: int

    @classmethod
    def of(cls, url: str) -> "Unit":
        parts = urlsplit(url)
        target, lun = parts.path.lstrip("/").rsplit("/", 1)
        assert parts.hostname is not None and parts.port is not None
        return cls(parts.hostname, parts.port, target, int(lun))


class LoginTexts:
    """The two requests of a login as open-iscsi and libiscsi send them, but for the ISID."""

    def __init__(self, target: str, digests: bool = False) -> None:
        digest = "CRC32C" if digests else "None"
        names = {"InitiatorName": INITIATOR, "TargetName": target, "SessionType": "Normal", "AuthMethod": "None"}
        operational = {
            "HeaderDigest": digest, "DataDigest": digest, "InitialR2T": "No", "ImmediateData": "Yes",
            "MaxRecvDataSegmentLength": str(MAX_SEGMENT), "MaxBurstLength": str(_MAX_BURST),
            "FirstBurstLength": str(FIRST_BURST), "DefaultTime2Wait": "0", "DefaultTime2Retain": "0",
            "MaxOutstandingR2T": "1", "MaxConnections": "1", "ErrorRecoveryLevel": "0", "DataPDUInOrder": "Yes",
            "DataSequenceInOrder": "Yes",
        }  # fmt: skip
        self.digests = digests
        self._security = _request(Stage.SECURITY_NEGOTIATION, Stage.LOGIN_OPERATIONAL_NEGOTIATION, names)
        self._operational = _request(Stage.LOGIN_OPERATIONAL_NEGOTIATION, Stage.FULL_FEATURE_PHASE, operational)

    def requests(self, number: int) -> Iterator[bytes]:
        """For the initiator port with this number; each is an I_T nexus of its own (RFC 7143 §11.12.5, type 10b)."""
        isid = b"\x80" + number.to_bytes(5)
        for request in (self._security, self._operational):
            yield request[:8] + isid + request[14:]


def _request(stage: Stage, following: Stage, pairs: dict[str, str]) -> bytes:
    pdu = LoginRequestPdu(transit=True, csg=stage, nsg=following, itt=1, cmd_sn=1, data=format_text(pairs))
    return pdu.encode_bhs() + bytes(pdu.data) + bytes(-len(pdu.data) % 4)


def log_in(unit: Unit, texts: LoginTexts, number: int) -> tuple[socket.socket, dict[str, str]]:
    """A connection in full feature phase, and what the target said in its last answer. Raises BenchmarkError."""
    connection = socket.create_connection((unit.host, unit.port), timeout=ANSWER_SECONDS)
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        answers: dict[str, str] = {}
        for request in texts.requests(number):
            connection.sendall(request)
            answers = _login_answer(connection)
        connection.settimeout(None)
    except BaseException:
        connection.close()
        raise
    return connection, answers


def _login_answer(connection: socket.socket) -> dict[str, str]:
    bhs = _receive_exactly(connection, BHS_LENGTH)
    if bhs[0] & 0x3F != Opcode.LOGIN_RESPONSE:
        raise BenchmarkError(f"the login is answered with PDU {bhs[0]:02X}h")
    length = int.from_bytes(bhs[5:8])
    text = _receive_exactly(connection, length + -length % 4)[:length]
    response = LoginResponsePdu.decode(bhs, b"", text)
    if response.status:
        raise BenchmarkError(f"the login is refused with {response.status:04X}h")
    if not response.transit:
        raise BenchmarkError("the target wants a longer login")
    return parse_text(text)


def _receive_exactly(connection: socket.socket, length: int) -> bytes:
    received = bytearray()
    while len(received) < length:
        data = connection.recv(length - len(received))
        if not data:
            raise BenchmarkError("the server hung up")
        received += data
    return bytes(received)


def capacity(connection: socket.socket, lun: int, digests: bool, cmd_sn: int) -> Capacity:
    """READ CAPACITY(16), after the unit attention of a new nexus."""
    cdb = bytes((0x9E, 0x10)) + bytes(8) + (32).to_bytes(4) + b"\0\0"
    for attempt in range(3):
        bhs = ScsiCommandPdu(
            read=True, lun=lun_to_bytes(lun), itt=attempt, expected_data_transfer_length=32, cmd_sn=cmd_sn,
            immediate=True, cdb=cdb,
        ).encode_bhs()  # fmt: skip
        connection.sendall(bhs + crc32c(bhs) if digests else bhs)
        data, status = _one_answer(connection, digests)
        if not status and len(data) >= 12:
            return Capacity(lun, int.from_bytes(data[:8]) + 1, int.from_bytes(data[8:12]))
    raise BenchmarkError(f"LUN {lun} does not say how large it is")


def _one_answer(connection: socket.socket, digests: bool) -> tuple[bytes, int]:
    """The data and the status of the only command in flight."""
    digest, found = (DIGEST_LENGTH if digests else 0), b""
    while True:
        bhs = _receive_exactly(connection, BHS_LENGTH + digest)
        length = int.from_bytes(bhs[5:8])
        data = _receive_exactly(connection, length + -length % 4 + digest)[:length] if length else b""
        if bhs[0] == Opcode.DATA_IN:
            found += data
        if bhs[0] == Opcode.SCSI_RESPONSE or (bhs[0] == Opcode.DATA_IN and bhs[1] & 1):
            return found, bhs[3]


def storm(unit: Unit, count: int, hold: int, first: int = 0) -> tuple[float, list[socket.socket]]:
    """``count`` logins, 16 at a time, at most ``hold`` sessions open at once; seconds, and the sessions still open."""
    texts = LoginTexts(unit.target)
    held: list[socket.socket] = []

    def one(number: int) -> None:
        held.append(log_in(unit, texts, number)[0])
        if len(held) > hold:
            held.pop(0).close()

    started = time.perf_counter()
    with ThreadPoolExecutor(min(_PARALLEL_LOGINS, hold)) as threads:
        list(threads.map(one, range(first, first + count)))
    return time.perf_counter() - started, held
