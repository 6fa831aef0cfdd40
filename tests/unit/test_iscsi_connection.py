"""The full feature phase of one connection: data both ways, digests, text, keepalive, logout, limits."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage_model.spec.iscsi_pdu import (
    RESERVED_TAG,
    DataInPdu,
    DataOutPdu,
    LogoutRequestPdu,
    LogoutResponsePdu,
    NopInPdu,
    NopOutPdu,
    R2TPdu,
    RejectPdu,
    RejectReason,
    ScsiResponsePdu,
    TextRequestPdu,
    TextResponsePdu,
)
from storage_model.spec.iscsi_text import format_text, parse_pairs
from storage_model.spec.scsi_task import ScsiStatus
from target.iscsi.connection import Phase
from target.iscsi.events import Limits, LogoutReceived
from target.iscsi.outstanding_commands import SharedRoom
from target.scsi.task import ScsiTask, TaskOutcome
from tests.iscsi_driver import INITIATOR, IQN, Driver, good


def logged_in(limits: Limits | None = None, **pairs: str) -> Driver:
    driver = Driver(good, limits=limits)
    driver.login(**pairs)
    return driver


def discovery() -> Driver:
    driver = Driver()
    pairs = {"InitiatorName": INITIATOR, "SessionType": "Discovery", "MaxRecvDataSegmentLength": "512"}
    driver.send(driver.login_request(pairs))
    driver.connection.accept_login(1)
    driver.received()
    return driver


@pytest.mark.parametrize("digest", ["None", "CRC32C"])
def test_read_is_cut_to_segments_and_bursts_and_ends_with_status(digest: str) -> None:
    driver = logged_in(MaxRecvDataSegmentLength="600", MaxBurstLength="1024", HeaderDigest=digest, DataDigest=digest)
    answers = driver.send(driver.read(5, 2050))
    assert all(isinstance(pdu, DataInPdu) for pdu in answers)
    data_in = [pdu for pdu in answers if isinstance(pdu, DataInPdu)]
    assert [len(pdu.data) for pdu in data_in] == [600, 424, 600, 424, 2]
    assert [pdu.final for pdu in data_in] == [False, True, False, True, True]
    assert [pdu.status_present for pdu in data_in] == [False, False, False, False, True]
    assert [pdu.data_sn for pdu in data_in] == [0, 1, 2, 3, 4]
    assert [pdu.buffer_offset for pdu in data_in] == [0, 600, 1024, 1624, 2048]
    assert b"".join(bytes(pdu.data) for pdu in data_in) == bytes(index & 0xFF for index in range(2050))


def test_failed_read_sends_its_data_and_then_the_sense() -> None:
    driver = Driver(lambda task: TaskOutcome(ScsiStatus.CHECK_CONDITION, bytes(100), b"\x70\0\3"))
    driver.login()
    data, response = driver.send(driver.read(5, 512))
    assert isinstance(data, DataInPdu) and data.final and not data.status_present
    assert isinstance(response, ScsiResponsePdu)
    assert (response.status, response.exp_data_sn, bytes(response.data)) == (2, 1, b"\0\3\x70\0\3")
    assert (response.underflow, response.residual_count) == (True, 412)


@settings(max_examples=30)
@given(st.booleans(), st.booleans(), st.booleans(), st.integers(1, 5000), st.integers(1, 3))
def test_write_in_all_four_combinations(
    initial_r2t: bool, immediate_data: bool, digests: bool, length: int, outstanding: int
) -> None:
    driver = logged_in(
        InitialR2T="Yes" if initial_r2t else "No",
        ImmediateData="Yes" if immediate_data else "No",
        FirstBurstLength="700",
        MaxBurstLength="1024",
        MaxOutstandingR2T=str(outstanding),
        DataDigest="CRC32C" if digests else "None",
        HeaderDigest="CRC32C" if digests else "None",
    )
    source = bytes(index * 5 & 0xFF for index in range(length))
    immediate = min(length, 300) if immediate_data else 0
    unasked = immediate if initial_r2t else min(length, 700)
    answers = driver.send(driver.write(9, length, source[:immediate], final=immediate == unasked))
    if immediate != unasked:
        assert answers == []
        answers = driver.send(DataOutPdu(itt=9, buffer_offset=immediate, data=source[immediate:unasked]))
    while isinstance(answers[0], R2TPdu):
        assert len(answers) <= outstanding
        batch = []
        for r2t in answers:
            assert isinstance(r2t, R2TPdu)
            start, end = r2t.buffer_offset, r2t.buffer_offset + r2t.desired_data_transfer_length
            middle = (start + end) // 2
            parts = ((0, start, middle), (1, middle, end))
            batch += [
                DataOutPdu(final=b == end, itt=9, ttt=r2t.ttt, data_sn=n, buffer_offset=a, data=source[a:b])
                for n, a, b in parts
            ]
        answers = driver.send(*batch)
    (response,) = answers
    assert isinstance(response, ScsiResponsePdu) and response.status == ScsiStatus.GOOD
    assert bytes(driver.tasks[0].data_out) == source


def test_one_receive_of_many_commands_is_answered_in_one_batch() -> None:
    driver = logged_in()
    assert len(driver.send(*(driver.read(itt, 64) for itt in range(50)))) == 50
    answers = driver.send(*(driver.read(itt, 64) for itt in range(3)))
    assert [pdu.stat_sn for pdu in answers if isinstance(pdu, DataInPdu)] == [51, 52, 53]


def test_header_digest_error_drops_the_connection() -> None:
    driver = logged_in(HeaderDigest="CRC32C", DataDigest="CRC32C")
    assert driver.send_bytes(driver.write(3, 4, b"abcd").encode_bhs() + bytes(4)) == []
    assert driver.end_reason == "header digest does not match"


def test_damaged_data_out_fails_its_command() -> None:
    driver = logged_in(DataDigest="CRC32C", InitialR2T="Yes", ImmediateData="No")
    (r2t,) = driver.send(driver.write(3, 8))
    assert isinstance(r2t, R2TPdu)
    data_out = DataOutPdu(itt=3, ttt=r2t.ttt, data=b"12345678")
    reject, response = driver.send_bytes(data_out.encode_bhs() + b"12345678" + bytes(4))
    assert isinstance(reject, RejectPdu) and reject.reason == RejectReason.DATA_DIGEST_ERROR
    assert bytes(reject.data) == data_out.encode_bhs()
    assert isinstance(response, ScsiResponsePdu) and bytes(response.data)[14:16] == b"\x47\x05"
    assert driver.tasks == []


def test_nop_out_is_echoed_up_to_our_peers_segment_length() -> None:
    driver = logged_in(MaxRecvDataSegmentLength="512")
    (echo,) = driver.send(NopOutPdu(immediate=True, itt=77, cmd_sn=100, data=bytes(range(256)) * 3))
    assert isinstance(echo, NopInPdu)
    assert (echo.itt, echo.ttt, bytes(echo.data)) == (77, RESERVED_TAG, bytes(range(256)) * 2)
    assert driver.send(NopOutPdu(immediate=True, cmd_sn=100)) == []


def test_keepalive() -> None:
    driver = logged_in(Limits(nop_interval=30, nop_timeout=10))
    assert driver.connection.next_deadline() == 30
    driver.connection.handle_deadline(30)
    (ping,) = driver.received()
    assert isinstance(ping, NopInPdu) and ping.itt == RESERVED_TAG and ping.ttt != RESERVED_TAG
    assert driver.connection.next_deadline() == 40
    driver.now = 35
    assert driver.send(NopOutPdu(immediate=True, ttt=ping.ttt, cmd_sn=100)) == []
    assert driver.connection.next_deadline() == 65
    driver.connection.handle_deadline(65)
    driver.connection.handle_deadline(75)
    assert driver.connection.phase is Phase.ENDED


def test_send_targets_in_discovery_is_cut_to_the_peers_segment_length() -> None:
    driver = discovery()
    (response,) = driver.send(TextRequestPdu(itt=4, cmd_sn=100, data=format_text({"SendTargets": "All"})))
    assert isinstance(response, TextResponsePdu) and response.final and response.ttt == RESERVED_TAG
    assert parse_pairs(response.data) == [("TargetName", IQN), ("TargetAddress", "127.0.0.1:3260,1")]
    assert driver.send(driver.read(1, 10, cmd_sn=101))[0].opcode == RejectPdu.opcode


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        ("", [("TargetName", IQN), ("TargetAddress", "127.0.0.1:3260,1")]),
        (IQN.upper(), [("TargetName", IQN), ("TargetAddress", "127.0.0.1:3260,1")]),
        ("iqn.2026-11.org.example:other", []),
        ("All", [("SendTargets", "Reject")]),
    ],
)
def test_send_targets_in_a_normal_session(value: str, answer: list[tuple[str, str]]) -> None:
    driver = logged_in()
    (response,) = driver.send(TextRequestPdu(itt=4, cmd_sn=100, data=format_text({"SendTargets": value})))
    assert isinstance(response, TextResponsePdu) and parse_pairs(response.data) == answer


def test_text_both_continued_and_answered_in_pieces() -> None:
    driver = discovery()
    keys = format_text({f"X-{index:03}": "1" for index in range(60)})
    (response,) = driver.send(TextRequestPdu(itt=4, cmd_sn=100, final=False, cont=True, data=keys[:100]))
    assert isinstance(response, TextResponsePdu) and not response.final and not response.cont and not response.data
    request = TextRequestPdu(itt=4, ttt=response.ttt, cmd_sn=101, data=keys[100:])
    text, cmd_sn = b"", 102
    while True:
        (response,) = driver.send(request)
        assert isinstance(response, TextResponsePdu) and len(response.data) <= 512
        text += bytes(response.data)
        if response.final:
            break
        assert response.cont
        request = TextRequestPdu(itt=4, ttt=response.ttt, cmd_sn=cmd_sn)
        cmd_sn += 1
    assert parse_pairs(text) == [(f"X-{index:03}", "NotUnderstood") for index in range(60)]
    assert cmd_sn > 103


def test_text_limits_and_parameters() -> None:
    driver = logged_in(Limits(text_bytes=100))
    (response,) = driver.send(TextRequestPdu(itt=4, cmd_sn=100, data=format_text({"MaxRecvDataSegmentLength": "1024"})))
    assert isinstance(response, TextResponsePdu) and response.data == b""
    assert driver.connection.parameters.initiator_max_recv_data_segment_length == 1024
    (response,) = driver.send(TextRequestPdu(itt=5, cmd_sn=101, data=format_text({"InitialR2T": "No"})))
    assert isinstance(response, TextResponsePdu) and parse_pairs(response.data) == [("InitialR2T", "Reject")]
    for number, request in enumerate((b"x" * 101, b"no key", format_text({"A": "1"}))):
        ttt = RESERVED_TAG if number < 2 else 12345
        (reject,) = driver.send(TextRequestPdu(itt=6, ttt=ttt, cmd_sn=102 + number, data=request))
        assert isinstance(reject, RejectPdu) and reject.reason == RejectReason.PROTOCOL_ERROR


def test_logout_waits_for_the_portal() -> None:
    driver = logged_in()
    assert driver.send(LogoutRequestPdu(reason=0, itt=8, cid=7, cmd_sn=100)) == []
    assert isinstance(driver.events[-1], LogoutReceived)
    assert driver.send(driver.read(9, 10)) == []  # nothing runs any more
    driver.connection.logout_done()
    (response,) = driver.received()
    assert isinstance(response, LogoutResponsePdu) and (response.response, response.itt) == (0, 8)
    assert driver.end_reason == ""


@pytest.mark.parametrize(("reason", "cid", "response"), [(1, 8, 1), (2, 7, 2)])
def test_logout_that_cannot_be(reason: int, cid: int, response: int) -> None:
    driver = logged_in()
    (answer,) = driver.send(LogoutRequestPdu(reason=reason, itt=8, cid=cid, cmd_sn=100))
    assert isinstance(answer, LogoutResponsePdu) and answer.response == response
    assert driver.connection.phase is Phase.FULL_FEATURE


def test_paused_writing_and_the_data_in_limit_hold_commands_back() -> None:
    driver = logged_in(Limits(data_in=1000))
    driver.connection.pause_writing(True)
    assert driver.send(driver.read(1, 600), driver.read(2, 600), driver.read(3, 600)) == []
    driver.connection.pause_writing(False)
    events = driver.connection.next_events()
    assert len(events) == 1  # the next would pass the limit until the first is written
    driver._handle(events)
    assert [pdu.itt for pdu in driver.received() if isinstance(pdu, DataInPdu)] == [1, 2, 3]


def test_the_room_of_all_connections_holds_back_all_but_one_command_of_each() -> None:
    room, limits = SharedRoom(), Limits(data_of_all=1000)
    greedy, other = Driver(limits=limits, room=room), Driver(limits=limits, room=room)
    greedy.login()
    other.login(InitialR2T="Yes", ImmediateData="No")
    greedy.send(greedy.read(1, 700))
    assert other.send(other.read(1, 400), other.read(2, 200)) == []
    assert [task.tag for task in other.tasks] == [1]  # over the limit, but the first one; the second waits
    (r2t,) = other.send(other.write(3, 100))
    assert isinstance(r2t, R2TPdu)  # the first of its kind
    assert room.in_use == 1200
    greedy.connection.end("")
    assert room.in_use == 500
    other._handle(other.connection.next_events())
    assert [task.tag for task in other.tasks] == [1, 2]
    greedy.connection.complete(greedy.commands[0], good(greedy.tasks[0]))
    assert room.in_use == 700  # what ends late was given back already


def test_r2ts_wait_for_memory() -> None:
    driver = Driver(limits=Limits(data_out=5000))
    driver.login(InitialR2T="Yes", ImmediateData="No", FirstBurstLength="512")
    answers = driver.send(driver.write(1, 4000), driver.write(2, 4000))
    assert [pdu.itt for pdu in answers if isinstance(pdu, R2TPdu)] == [1]
    (first,) = answers
    assert isinstance(first, R2TPdu)
    assert driver.send(DataOutPdu(itt=1, ttt=first.ttt, data=bytes(4000))) == []
    response, second = driver.complete(driver.commands[0])
    assert isinstance(response, ScsiResponsePdu | R2TPdu) and {response.itt, second.itt} == {1, 2}


def test_aborted_command_gets_no_response_and_gives_its_place_back() -> None:
    driver = Driver(limits=Limits(queue_depth=1))
    driver.login()
    assert driver.send(driver.read(1, 8), driver.read(2, 8)) == []
    assert [task.tag for task in driver.tasks] == [1]  # the second was outside of the window
    assert driver.complete(driver.commands[0], aborted=True) == []
    driver.cmd_sn = 101
    assert driver.send(driver.read(3, 8)) == []
    assert [task.tag for task in driver.tasks] == [1, 3]


def test_results_after_the_end_are_of_no_consequence() -> None:
    driver = Driver()
    driver.login()
    driver.send(driver.read(1, 8))
    driver.connection.end("peer is gone")
    assert driver.complete(driver.commands[0]) == []
    assert driver.send_bytes(bytes(48)) == []


@settings(max_examples=150)
@given(st.lists(st.binary(min_size=1, max_size=120), min_size=1, max_size=6), st.booleans())
def test_noise_never_raises(noise: list[bytes], login: bool) -> None:
    driver = logged_in() if login else Driver(good)
    for piece in noise:
        try:
            driver.send_bytes(piece)
        except ValueError as error:  # pragma: no cover
            pytest.fail(str(error))


@settings(max_examples=200)
@given(
    st.sampled_from([0x00, 0x01, 0x02, 0x04, 0x05, 0x06, 0x10, 0x03, 0x1F, 0x41, 0x42, 0x44, 0x46, 0x40]),
    st.binary(min_size=43, max_size=43),
    st.binary(max_size=40),
)
def test_any_pdu_in_order_is_survived(opcode: int, noise: bytes, data: bytes) -> None:
    driver = logged_in()
    lengths = len(data).to_bytes(4)
    bhs = bytearray(bytes((opcode,)) + noise[:3] + lengths + noise[3:])
    bhs[24:28] = driver.cmd_sn.to_bytes(4)
    driver.send_bytes(bytes(bhs) + data + bytes(-len(data) % 4))
    assert driver.connection.phase in (Phase.FULL_FEATURE, Phase.LOGGING_OUT)


def test_extended_cdb() -> None:
    driver = logged_in()
    driver.send(driver.command(1, cdb=b"\x7f" + bytes(15), ahs=bytes.fromhex("0011 01 00") + bytes(range(16))))
    assert driver.tasks[0].cdb == b"\x7f" + bytes(15) + bytes(range(16))
    driver.send(driver.command(2, ahs=bytes.fromhex("0005 02 00 00000010")))
    assert len(driver.tasks[1].cdb) == 16


def test_task_carries_the_nexus() -> None:
    driver = logged_in()
    driver.send(driver.read(7, 100, lun=bytes.fromhex("4101000000000000"), attribute=2))
    (task,) = driver.tasks
    assert isinstance(task, ScsiTask)
    assert (task.lun, task.tag, task.data_in_length, task.attribute) == (257, 7, 100, 2)
    assert task.nexus.initiator_name == INITIATOR
