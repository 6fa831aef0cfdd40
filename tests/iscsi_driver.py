"""An initiator's side of one sans-IO Connection, for tests: PDUs in, PDUs out, no socket, no clock."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

from storage_model.spec.iscsi_pdu import (
    LoginRequestPdu,
    LoginResponsePdu,
    Pdu,
    ScsiCommandPdu,
    Stage,
    decode_pdu,
)
from storage_model.spec.iscsi_stream import EncodablePdu, PduStream, encode_pdu
from storage_model.spec.iscsi_text import format_text, parse_text
from storage_model.volume import Buffer
from target.iscsi.access import AccessControl
from target.iscsi.connection import Connection
from target.iscsi.events import (
    ConnectionEnded,
    Event,
    Limits,
    LoginCompleted,
    TargetDescription,
)
from target.iscsi.outstanding_commands import Command, SharedRoom
from target.scsi.task import ScsiTask, TaskOutcome

IQN = "iqn.2026-11.org.pairvol:test"
INITIATOR = "iqn.2026-11.org.example:host"
TARGET = TargetDescription(IQN)
ISID = bytes.fromhex("80cafe000001")
NAMES = {"InitiatorName": INITIATOR, "TargetName": IQN, "SessionType": "Normal"}


class Driver:
    """Logs in on demand and answers commands with ``execute``; without it they stay open in ``commands``."""

    def __init__(
        self,
        execute: Callable[[ScsiTask], TaskOutcome] | None = None,
        *,
        limits: Limits | None = None,
        access: AccessControl | None = None,
        peer_host: str = "127.0.0.1",
        target: TargetDescription = TARGET,
        room: SharedRoom | None = None,
        lends: bool = False,
    ) -> None:
        self.connection = Connection(
            target,
            local_address="127.0.0.1:3260",
            now=0.0,
            limits=limits,
            access=access,
            peer_host=peer_host,
            room=room,
            lends=lends,
        )
        self.now = 0.0
        self.events: list[Event] = []
        self.commands: list[Command] = []
        self.tasks: list[ScsiTask] = []
        self.cmd_sn = 100
        self.header_digest = self.data_digest = False
        self._execute = execute
        self._stream = PduStream(1 << 24)

    def send_bytes(self, data: bytes) -> list[Pdu]:
        self._handle(self.connection.receive_data(data, self.now))
        return self.received()

    def send(self, *pdus: EncodablePdu) -> list[Pdu]:
        """Sends them in one piece; what came back."""
        return self.send_bytes(
            b"".join(bytes(part) for pdu in pdus for part in encode_pdu(pdu, self.header_digest, self.data_digest))
        )

    def received(self) -> list[Pdu]:
        answers: list[Pdu] = []
        while True:
            data = b"".join(cast(list[Buffer], self.connection.data_to_send()))
            if not data:
                return answers
            answers += [decode_pdu(raw) for raw in self._stream.receive_data(data)]
            self._handle(self.connection.next_events())

    def _handle(self, events: list[Event]) -> None:
        while events:
            for event in events:
                self.events.append(event)
                if isinstance(event, Command):
                    self.tasks.append(event.task)
                    if self._execute is None:
                        self.commands.append(event)
                    else:
                        self.connection.complete(event, self._execute(event.task))
            events = self.connection.next_events()

    def complete(self, event: Command, outcome: TaskOutcome | None = None, aborted: bool = False) -> list[Pdu]:
        event.task.aborted = aborted
        self.connection.complete(event, outcome or TaskOutcome())
        self._handle(self.connection.next_events())
        return self.received()

    def login_request(self, pairs: Mapping[str, str] | None = None, **fields: Any) -> LoginRequestPdu:
        request = LoginRequestPdu(
            transit=True,
            csg=Stage.LOGIN_OPERATIONAL_NEGOTIATION,
            nsg=Stage.FULL_FEATURE_PHASE,
            isid=ISID,
            itt=1,
            cid=7,
            cmd_sn=self.cmd_sn,
            data=format_text(NAMES if pairs is None else pairs),
        )
        return replace(request, **fields)

    def login(self, **pairs: str) -> dict[str, str]:
        """The whole login in one exchange, with ``pairs`` beside the names; the target's answers."""
        assert self.send(self.login_request({**NAMES, **pairs})) == []
        assert isinstance(self.events[-1], LoginCompleted)
        self.connection.accept_login(1)
        (response,) = self.received()
        assert isinstance(response, LoginResponsePdu)
        assert response.status == 0 and response.transit and response.tsih == 1
        answers = parse_text(response.data)
        self.header_digest = self._stream.header_digest = answers.get("HeaderDigest") == "CRC32C"
        self.data_digest = self._stream.data_digest = answers.get("DataDigest") == "CRC32C"
        return answers

    def command(self, itt: int, **fields: Any) -> ScsiCommandPdu:
        """The next command in order, unless ``cmd_sn`` says otherwise."""
        if "cmd_sn" not in fields:
            fields["cmd_sn"] = self.cmd_sn
            if not fields.get("immediate"):
                self.cmd_sn += 1
        return ScsiCommandPdu(itt=itt, **fields)

    def write(self, itt: int, length: int, data: bytes = b"", final: bool = True, **fields: Any) -> ScsiCommandPdu:
        return self.command(itt, write=True, expected_data_transfer_length=length, data=data, final=final, **fields)

    def read(self, itt: int, length: int, **fields: Any) -> ScsiCommandPdu:
        return self.command(itt, read=True, expected_data_transfer_length=length, **fields)

    @property
    def end_reason(self) -> str | None:
        """Why the connection ended; None while it lives."""
        reasons = [event.reason for event in self.events if isinstance(event, ConnectionEnded)]
        return reasons[0] if reasons else None


def good(task: ScsiTask) -> TaskOutcome:
    """Every command succeeds; reads give the bytes 0, 1, 2 … of the length asked for, but not more than 64 KiB."""
    data = bytes(index & 0xFF for index in range(min(task.data_in_length, 65536)))
    return TaskOutcome(data_in=data, transfer_length_bytes=len(data) or len(task.data_out))
