"""The initiator session against PDUs written by hand."""

from dataclasses import dataclass, field, replace
from typing import TypeVar

import pytest

from initiator_shim.initiator import InitiatorSession
from initiator_shim.initiator_login import SessionParameters
from initiator_shim.initiator_task import Completed, Ended, Event, Failed, LoggedIn, ScsiOutcome
from initiator_shim.session_errors import (
    CommandRejected,
    CommandTimeout,
    LoginRedirected,
    LoginRefused,
    SessionLost,
)
from storage_model.errors import LocalProtocolError
from storage_model.spec.iscsi_codes import RESERVED_TAG, LoginStatus, Stage
from storage_model.spec.iscsi_pdu import (
    AsyncMessagePdu,
    DataInPdu,
    DataOutPdu,
    LoginRequestPdu,
    LoginResponsePdu,
    LogoutRequestPdu,
    LogoutResponsePdu,
    NopInPdu,
    NopOutPdu,
    Pdu,
    R2TPdu,
    RejectPdu,
    ScsiCommandPdu,
    ScsiResponsePdu,
    TaskManagementRequestPdu,
    TaskManagementResponsePdu,
    TextRequestPdu,
    TextResponsePdu,
    decode_pdu,
    sense_segment,
)
from storage_model.spec.iscsi_stream import EncodablePdu, PduStream, encode_pdu
from storage_model.spec.iscsi_text import format_text, parse_text
from storage_model.spec.scsi_task import TaskFunction

PARAMETERS = SessionParameters(
    "iqn.2026-11.org.example:host", bytes.fromhex("800000000001"), "iqn.2026-11.org.example:t"
)
ANSWER = {"InitialR2T": "No", "ImmediateData": "Yes", "FirstBurstLength": "1024", "MaxRecvDataSegmentLength": "512"}
TEST_UNIT_READY = bytes(6)

T = TypeVar("T", bound=Pdu)


@dataclass
class Bench:
    session: InitiatorSession = field(default_factory=lambda: InitiatorSession(PARAMETERS, 5.0))
    events: list[Event] = field(default_factory=list)
    now: float = 0.0
    digests: bool = False

    def __post_init__(self) -> None:
        self._stream = PduStream(1 << 24)

    def sent(self) -> list[Pdu]:
        return [decode_pdu(raw) for raw in self._stream.receive_data(b"".join(self.session.data_to_send()))]

    def sent_one(self, kind: type[T]) -> T:
        (pdu,) = self.sent()
        assert isinstance(pdu, kind)
        return pdu

    def receive(self, *pdus: EncodablePdu) -> list[Event]:
        wire = b"".join(b"".join(encode_pdu(pdu, self.digests, self.digests)) for pdu in pdus)
        events = self.session.receive_data(wire, self.now)
        self.events += events
        return events

    def log_in(self, answer: dict[str, str] | None = None, max_cmd_sn: int = 32) -> "Bench":
        self.sent()
        self.receive(login_response({"AuthMethod": "None"}, Stage.SECURITY_NEGOTIATION, stat_sn=0))
        self.sent()
        events = self.receive(login_response(ANSWER | (answer or {}), stat_sn=1, max_cmd_sn=max_cmd_sn))
        assert events == [LoggedIn(self.session.negotiated)]
        return self

    def command(self, cdb: bytes = TEST_UNIT_READY, data_out: bytes = b"", data_in_length: int = 0) -> int:
        return self.session.command(0, cdb, data_out, data_in_length, self.now + 10)

    def at(self, now: float) -> list[Event]:
        self.now = now
        return self.session.handle_deadline(now)


def login_response(
    pairs: dict[str, str],
    stage: Stage = Stage.LOGIN_OPERATIONAL_NEGOTIATION,
    *,
    stat_sn: int,
    max_cmd_sn: int = 32,
    cont: bool = False,
    status: int = 0,
) -> LoginResponsePdu:
    final = stage == Stage.LOGIN_OPERATIONAL_NEGOTIATION
    return LoginResponsePdu(
        transit=not cont,
        cont=cont,
        csg=stage,
        nsg=(Stage.FULL_FEATURE_PHASE if final else Stage.LOGIN_OPERATIONAL_NEGOTIATION) if not cont else 0,
        tsih=7 if final else 0,
        stat_sn=stat_sn,
        exp_cmd_sn=1,
        max_cmd_sn=max_cmd_sn,
        status=status,
        data=format_text(pairs),
    )


def good(itt: int, stat_sn: int, max_cmd_sn: int = 32) -> ScsiResponsePdu:
    return ScsiResponsePdu(itt=itt, stat_sn=stat_sn, exp_cmd_sn=2, max_cmd_sn=max_cmd_sn)


@pytest.fixture
def bench() -> Bench:
    return Bench().log_in()


def failure(events: list[Event]) -> Exception:
    (event,) = events
    assert isinstance(event, Failed | Ended)
    return event.error


# ---- login


def test_two_stages_of_login() -> None:
    bench = Bench()
    first = bench.sent_one(LoginRequestPdu)
    assert (first.csg, first.nsg, first.transit, first.isid) == (0, 1, True, PARAMETERS.isid)
    assert parse_text(first.data) == {
        "InitiatorName": PARAMETERS.initiator_name,
        "SessionType": "Normal",
        "TargetName": "iqn.2026-11.org.example:t",
        "AuthMethod": "None",
    }
    bench.receive(login_response({"AuthMethod": "None"}, Stage.SECURITY_NEGOTIATION, stat_sn=40))
    second = bench.sent_one(LoginRequestPdu)
    assert (second.csg, second.nsg, second.exp_stat_sn) == (1, 3, 41)
    assert bench.receive(login_response(ANSWER, stat_sn=41)) == [LoggedIn(bench.session.negotiated)]
    held = bench.session.negotiated
    assert (held.tsih, held.initial_r2t, held.first_burst_length) == (7, False, 1024)
    assert held.target_max_recv_data_segment_length == 512


def test_a_continued_answer_is_asked_for() -> None:
    bench = Bench()
    bench.sent()
    bench.receive(login_response({"AuthMethod": "None"}, Stage.SECURITY_NEGOTIATION, stat_sn=0))
    bench.sent()
    assert bench.receive(login_response({"HeaderDigest": "None"}, stat_sn=1, cont=True)) == []
    more = bench.sent_one(LoginRequestPdu)
    assert (more.transit, bytes(more.data)) == (False, b"")
    assert len(bench.receive(login_response({"DataDigest": "None"}, stat_sn=2))) == 1


def test_a_key_that_the_target_offers_is_answered() -> None:
    bench = Bench()
    bench.sent()
    bench.receive(
        login_response({"AuthMethod": "None", "TaskReporting": "FastAbort", "X-new": "1"}, Stage(0), stat_sn=0)
    )
    answer = parse_text(bench.sent_one(LoginRequestPdu).data)
    assert answer["X-new"] == "NotUnderstood"
    assert answer["TaskReporting"] == "Reject"


@pytest.mark.parametrize("status", [LoginStatus.AUTHENTICATION_FAILURE, LoginStatus.NOT_FOUND, 0x0399])
def test_a_refused_login_says_why(status: int) -> None:
    error = failure(Bench().receive(login_response({}, stat_sn=0, status=status)))
    assert isinstance(error, LoginRefused) and error.status == status


def test_a_redirection_says_where() -> None:
    moved = login_response({"TargetAddress": "10.0.0.2:3260,1"}, stat_sn=0, status=LoginStatus.TARGET_MOVED_PERMANENTLY)
    error = failure(Bench().receive(moved))
    assert isinstance(error, LoginRedirected) and error.address == "10.0.0.2:3260"


def test_a_choice_that_was_not_offered_is_a_broken_target() -> None:
    bench = Bench()
    bench.receive(login_response({"AuthMethod": "None"}, Stage.SECURITY_NEGOTIATION, stat_sn=0))
    error = failure(bench.receive(login_response({"HeaderDigest": "CRC32C"}, stat_sn=1)))
    assert isinstance(error, SessionLost) and "HeaderDigest" in str(error)


def test_silence_at_login_ends_the_session() -> None:
    bench = Bench()
    assert bench.session.next_deadline() == 5.0
    assert bench.at(4.9) == []
    assert isinstance(failure(bench.at(5.0)), SessionLost)
    assert bench.session.next_deadline() is None


def test_digests_hold_for_a_pdu_right_behind_the_last_response() -> None:
    parameters = replace(PARAMETERS, header_digest="CRC32C", data_digest="CRC32C")
    bench = Bench(InitiatorSession(parameters, 5.0))
    bench.receive(login_response({"AuthMethod": "None"}, Stage.SECURITY_NEGOTIATION, stat_sn=0))
    bench.sent()
    last = login_response({"HeaderDigest": "CRC32C", "DataDigest": "CRC32C"}, stat_sn=1)
    ping = NopInPdu(ttt=3, stat_sn=2, exp_cmd_sn=1, max_cmd_sn=32)
    wire = b"".join(encode_pdu(last)) + b"".join(encode_pdu(ping, True, True))
    assert len(bench.session.receive_data(wire, 0.0)) == 1
    pong = NopOutPdu(immediate=True, ttt=3, cmd_sn=1, exp_stat_sn=2)
    assert b"".join(bench.session.data_to_send()) == b"".join(encode_pdu(pong, True, True))


# ---- commands and data


def test_a_read_in_several_segments(bench: Bench) -> None:
    itt = bench.command(b"\x28" + bytes(9), data_in_length=1000)
    sent = bench.sent_one(ScsiCommandPdu)
    assert (sent.read, sent.write, sent.expected_data_transfer_length, sent.cmd_sn) == (True, False, 1000, 1)
    assert bench.receive(DataInPdu(final=False, itt=itt, data=b"a" * 512, max_cmd_sn=32)) == []
    events = bench.receive(
        DataInPdu(
            itt=itt, buffer_offset=512, data=b"b" * 88, status_present=True, stat_sn=2, underflow=True,
            residual_count=400, exp_cmd_sn=2, max_cmd_sn=32,
        )
    )  # fmt: skip
    assert events == [Completed(itt, ScsiOutcome(0, b"", b"a" * 512 + b"b" * 88, 400))]


def test_sense_and_overflow_reach_the_caller(bench: Bench) -> None:
    itt = bench.command(data_in_length=4)
    sense = bytes.fromhex("700005000000000a00000000240000000000")
    response = ScsiResponsePdu(
        itt=itt, status=2, stat_sn=2, overflow=True, residual_count=9, max_cmd_sn=32, data=sense_segment(sense)
    )
    assert bench.receive(response) == [Completed(itt, ScsiOutcome(2, sense, b"", -9))]


def test_a_write_sends_immediate_then_unsolicited_then_solicited_data(bench: Bench) -> None:
    data = bytes(range(256)) * 8
    itt = bench.command(b"\x2a" + bytes(9), data_out=data)
    command, unsolicited = bench.sent()
    assert isinstance(command, ScsiCommandPdu) and isinstance(unsolicited, DataOutPdu)
    assert (command.write, command.final, bytes(command.data)) == (True, False, data[:512])
    assert (unsolicited.ttt, unsolicited.final, unsolicited.buffer_offset) == (RESERVED_TAG, True, 512)
    assert bytes(unsolicited.data) == data[512:1024]
    bench.receive(R2TPdu(itt=itt, ttt=77, buffer_offset=1024, desired_data_transfer_length=1024, max_cmd_sn=32))
    solicited = bench.sent()
    assert [(p.ttt, p.data_sn, p.buffer_offset, p.final) for p in solicited if isinstance(p, DataOutPdu)] == [
        (77, 0, 1024, False),
        (77, 1, 1536, True),
    ]
    assert b"".join(bytes(p.data) for p in solicited if isinstance(p, DataOutPdu)) == data[1024:]
    assert bench.receive(good(itt, 2)) == [Completed(itt, ScsiOutcome(0))]


@pytest.mark.parametrize(
    ("initial_r2t", "immediate", "sizes"),
    [("Yes", "Yes", [512]), ("Yes", "No", [0]), ("No", "No", [0, 512, 512]), ("No", "Yes", [512, 512])],
)
def test_what_is_sent_unasked(initial_r2t: str, immediate: str, sizes: list[int]) -> None:
    parameters = replace(PARAMETERS, initial_r2t=initial_r2t == "Yes", immediate_data=immediate == "Yes")
    bench = Bench(InitiatorSession(parameters, 5.0)).log_in({"InitialR2T": initial_r2t, "ImmediateData": immediate})
    bench.command(b"\x2a" + bytes(9), data_out=bytes(2048))
    sent = bench.sent()
    assert [len(p.data) for p in sent if isinstance(p, ScsiCommandPdu | DataOutPdu)] == sizes
    assert isinstance(sent[0], ScsiCommandPdu) and sent[0].final == (len(sizes) == 1)


def test_commands_wait_for_the_window() -> None:
    bench = Bench().log_in(max_cmd_sn=2)
    itts = [bench.command() for _ in range(4)]
    assert [p.cmd_sn for p in bench.sent() if isinstance(p, ScsiCommandPdu)] == [1, 2]
    bench.receive(good(itts[0], 2, max_cmd_sn=3))
    assert bench.sent_one(ScsiCommandPdu).itt == itts[2]
    bench.receive(good(itts[1], 3, max_cmd_sn=1))  # a smaller MaxCmdSN is ignored (§4.2.2.1)
    assert bench.sent() == []
    bench.receive(NopInPdu(stat_sn=4, exp_cmd_sn=4, max_cmd_sn=9))
    assert bench.sent_one(ScsiCommandPdu).itt == itts[3]


def test_bidirectional_commands_are_refused(bench: Bench) -> None:
    with pytest.raises(LocalProtocolError):
        bench.command(data_out=b"x", data_in_length=1)


# ---- timeouts and task management


def test_a_late_command_is_aborted_and_its_late_words_ignored(bench: Bench) -> None:
    itt = bench.command(data_in_length=512)
    bench.sent()
    assert bench.session.next_deadline() == 10
    error = failure(bench.at(10))
    assert isinstance(error, CommandTimeout)
    abort = bench.sent_one(TaskManagementRequestPdu)
    assert (abort.function, abort.referenced_task_tag, abort.ref_cmd_sn) == (TaskFunction.ABORT_TASK, itt, 1)
    late = DataInPdu(itt=itt, data=bytes(512), max_cmd_sn=32)
    assert bench.receive(late, good(itt, 2), TaskManagementResponsePdu(itt=abort.itt, stat_sn=3, max_cmd_sn=32)) == []
    error = failure(bench.receive(late))
    assert isinstance(error, SessionLost)


def test_a_command_that_was_never_sent_needs_no_abort() -> None:
    bench = Bench().log_in(max_cmd_sn=0)
    bench.command()
    assert isinstance(failure(bench.at(10)), CommandTimeout)
    assert bench.sent() == []


def test_an_unanswered_abort_ends_the_session(bench: Bench) -> None:
    bench.command()
    bench.at(10)
    deadline = bench.session.next_deadline()
    assert deadline is not None
    assert isinstance(failure(bench.at(deadline)), SessionLost)


def test_task_management(bench: Bench) -> None:
    itt = bench.session.task_management(TaskFunction.LOGICAL_UNIT_RESET, 5, RESERVED_TAG, 10)
    sent = bench.sent_one(TaskManagementRequestPdu)
    assert (sent.function, sent.lun[1], sent.immediate, sent.cmd_sn) == (5, 5, True, 1)
    assert bench.receive(TaskManagementResponsePdu(response=0, itt=itt, stat_sn=2, max_cmd_sn=32)) == [
        Completed(itt, 0)
    ]


# ---- the rest of full feature


def test_a_ping_of_the_target_is_answered(bench: Bench) -> None:
    assert bench.receive(NopInPdu(ttt=0x55, stat_sn=2, exp_cmd_sn=1, max_cmd_sn=32)) == []
    pong = bench.sent_one(NopOutPdu)
    assert (pong.itt, pong.ttt, pong.immediate) == (RESERVED_TAG, 0x55, True)


def test_silence_is_pinged_and_then_given_up() -> None:
    bench = Bench(InitiatorSession(PARAMETERS, 5.0, keepalive=2.0)).log_in()
    assert bench.session.next_deadline() == 2.0
    assert bench.at(2.0) == []
    itt = bench.sent_one(NopOutPdu).itt
    bench.now = 3.0
    bench.receive(NopInPdu(itt=itt, stat_sn=2, exp_cmd_sn=1, max_cmd_sn=32))
    assert bench.session.next_deadline() == 5.0
    assert bench.at(5.0) == []
    assert bench.session.next_deadline() == 7.0
    events = bench.at(7.0)
    assert isinstance(events[-1], Ended) and "silent" in str(events[-1].error)


def test_a_text_answer_in_parts(bench: Bench) -> None:
    itt = bench.session.text({"SendTargets": "All"}, 10)
    assert bytes(bench.sent_one(TextRequestPdu).data) == b"SendTargets=All\0"
    part = TextResponsePdu(final=False, cont=True, itt=itt, ttt=9, stat_sn=2, max_cmd_sn=32, data=b"TargetName=a\0Targ")
    assert bench.receive(part) == []
    assert bench.sent_one(TextRequestPdu).ttt == 9
    last = TextResponsePdu(itt=itt, stat_sn=3, max_cmd_sn=32, data=b"etAddress=h:1,1\0")
    assert bench.receive(last) == [Completed(itt, [("TargetName", "a"), ("TargetAddress", "h:1,1")])]


def test_logout(bench: Bench) -> None:
    itt = bench.session.logout(10)
    assert bench.receive(LogoutResponsePdu(itt=itt, stat_sn=2, max_cmd_sn=32)) == [Completed(itt, 0)]


def test_a_reject_fails_its_request(bench: Bench) -> None:
    itt = bench.command()
    header = bench.sent_one(ScsiCommandPdu).encode_bhs()
    events = bench.receive(RejectPdu(reason=9, data=header, stat_sn=2, max_cmd_sn=32))
    assert isinstance(failure(events), CommandRejected)
    assert isinstance(events[0], Failed) and events[0].itt == itt


def test_target_failure_is_not_a_scsi_status(bench: Bench) -> None:
    itt = bench.command()
    events = bench.receive(ScsiResponsePdu(itt=itt, response=1, stat_sn=2, max_cmd_sn=32))
    assert isinstance(failure(events), CommandRejected)


def test_the_end_of_the_connection_fails_everything_once(bench: Bench) -> None:
    itts = {bench.command(), bench.command(), bench.session.ping(10)}
    events = bench.session.connection_lost("cable cut")
    assert {event.itt for event in events if isinstance(event, Failed)} == itts
    assert isinstance(events[-1], Ended)
    assert bench.session.connection_lost("again") == []
    with pytest.raises(SessionLost):
        bench.command()


def test_a_target_that_asks_us_to_log_out(bench: Bench) -> None:
    """What is under way ends first, nothing new is begun, then comes the Logout (RFC 7143 §11.9.1, event 1)."""
    itt = bench.command()
    bench.sent()
    assert bench.receive(AsyncMessagePdu(async_event=1, parameter3=5, stat_sn=2, max_cmd_sn=32)) == []
    assert bench.sent() == []
    with pytest.raises(SessionLost):
        bench.command()
    (done,) = bench.receive(good(itt, 3))
    assert isinstance(done, Completed)
    logout = bench.sent_one(LogoutRequestPdu)
    assert logout.reason == 0 and not bench.session.ended
    bench.receive(LogoutResponsePdu(itt=logout.itt, stat_sn=4, max_cmd_sn=32))
    assert bench.session.ended


@pytest.mark.parametrize("event", [2, 3])
def test_a_target_that_wants_us_gone(bench: Bench, event: int) -> None:
    assert isinstance(failure(bench.receive(AsyncMessagePdu(async_event=event, stat_sn=2, max_cmd_sn=32))), SessionLost)


BROKEN = {
    "status lost": lambda itt: [good(itt, 9)],
    "unknown task": lambda itt: [good(itt + 1, 2)],
    "data for nobody": lambda itt: [DataInPdu(itt=itt + 1, data=b"x", max_cmd_sn=32)],
    "data out of order": lambda itt: [DataInPdu(itt=itt, buffer_offset=4, data=b"x", max_cmd_sn=32)],
    "too much data": lambda itt: [DataInPdu(itt=itt, data=bytes(513), max_cmd_sn=32)],
    "R2T for a read": lambda itt: [R2TPdu(itt=itt, desired_data_transfer_length=1, max_cmd_sn=32)],
    "an initiator's PDU": lambda itt: [NopOutPdu(itt=itt)],
    "login again": lambda itt: [login_response({}, stat_sn=2)],
}


@pytest.mark.parametrize("pdus", BROKEN.values(), ids=BROKEN)
def test_a_target_that_breaks_the_protocol_ends_the_session(bench: Bench, pdus) -> None:
    itt = bench.command(data_in_length=512)
    events = bench.receive(*pdus(itt))
    assert isinstance(events[-1], Ended) and isinstance(events[-1].error, SessionLost)
    assert bench.session.ended


def test_bytes_of_any_kind_never_raise(bench: Bench) -> None:
    for value in range(256):
        fresh = Bench().log_in()
        fresh.session.receive_data(bytes((value,)) * 48 + bytes(1000), 0.0)
