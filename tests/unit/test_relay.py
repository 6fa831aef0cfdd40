"""The relay between a scripted host and a scripted array: what passes, what is changed, what is held."""

from dataclasses import dataclass, field

import pytest

from initiator_shim.relay import HELD_BACK_BYTES_MAX, ArbitrationNeeded, Event, LoginStarted, Redirected, Relay
from storage_model.errors import RemoteProtocolError
from storage_model.nexus import ITNexus
from storage_model.spec.iscsi_codes import LoginStatus, Opcode, Stage, lun_to_bytes
from storage_model.spec.iscsi_pdu import (
    DataInPdu,
    LoginRequestPdu,
    LoginResponsePdu,
    LogoutRequestPdu,
    LogoutResponsePdu,
    NopInPdu,
    NopOutPdu,
    RejectPdu,
    ScsiCommandPdu,
    ScsiResponsePdu,
    TaskManagementRequestPdu,
    TaskManagementResponsePdu,
    TextRequestPdu,
    TextResponsePdu,
)
from storage_model.spec.iscsi_stream import EncodablePdu, PduStream, RawPdu, encode_pdu
from storage_model.spec.iscsi_text import format_text, parse_pairs

HOST_NAME = "iqn.2026-11.org.example:host"
TARGET = "iqn.2026-11.org.example:array"
ISID = bytes.fromhex("800102030405")
SHIM, ARRAY = "127.0.0.1:3261", "10.0.0.1:3260"
RESERVE_6 = bytes((0x16,)).ljust(16, b"\0")
RESERVE_10 = bytes((0x56,)).ljust(16, b"\0")
READ_10 = bytes((0x28,)).ljust(16, b"\0")
GOOD, CHECK_CONDITION, CONFLICT = 0x00, 0x02, 0x18


@dataclass
class Bench:
    """A relay with its two ends; ``digests`` is what the ends use once login is over."""

    relay: Relay = field(default_factory=lambda: Relay(SHIM))
    digests: bool = False
    events: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.relay.array_connected(ARRAY)
        self._host_stream = PduStream(1 << 20)
        self._array_stream = PduStream(1 << 20)

    def wire(self, pdu: EncodablePdu) -> bytes:
        return b"".join(encode_pdu(pdu, self.digests, self.digests))

    def host_sends(self, *pdus: EncodablePdu) -> list[RawPdu]:
        """Answers what reaches the array."""
        self.events += self.relay.receive_from_host(b"".join(map(self.wire, pdus)))
        return self._array_stream.receive_data(b"".join(self.relay.data_to_array()))

    def array_sends(self, *pdus: EncodablePdu) -> list[RawPdu]:
        """Answers what reaches the host."""
        self.events += self.relay.receive_from_array(b"".join(map(self.wire, pdus)))
        return self.host_receives()

    def host_receives(self) -> list[RawPdu]:
        return self._host_stream.receive_data(b"".join(self.relay.data_to_host()))

    def decide(self, itt: int, won: bool) -> list[RawPdu]:
        self.events += self.relay.arbitration_decided(itt, won)
        return self.host_receives()

    def log_in(self, offer: dict[str, str] | None = None, answer: dict[str, str] | None = None) -> None:
        names = {"InitiatorName": HOST_NAME, "TargetName": TARGET, "SessionType": "Normal"}
        self.host_sends(login_request(names | (offer or {})))
        self.array_sends(login_response({"TargetPortalGroupTag": "1"} | (answer or {})))
        self.events.clear()

    def use_digests(self) -> None:
        self.digests = True
        for stream in (self._host_stream, self._array_stream):
            stream.header_digest = stream.data_digest = True


def login_request(pairs: dict[str, str], **changes: object) -> LoginRequestPdu:
    fields: dict[str, object] = {
        "transit": True,
        "csg": Stage.LOGIN_OPERATIONAL_NEGOTIATION,
        "nsg": Stage.FULL_FEATURE_PHASE,
        "isid": ISID,
        "itt": 1,
        "data": format_text(pairs),
    }
    return LoginRequestPdu(**{**fields, **changes})  # type: ignore[arg-type]


def login_response(pairs: dict[str, str], **changes: object) -> LoginResponsePdu:
    fields: dict[str, object] = {
        "transit": True,
        "csg": Stage.LOGIN_OPERATIONAL_NEGOTIATION,
        "nsg": Stage.FULL_FEATURE_PHASE,
        "isid": ISID,
        "tsih": 1,
        "itt": 1,
        "exp_cmd_sn": 1,
        "max_cmd_sn": 32,
        "data": format_text(pairs),
    }
    return LoginResponsePdu(**{**fields, **changes})  # type: ignore[arg-type]


def command(itt: int, cdb: bytes, lun: int = 0) -> ScsiCommandPdu:
    return ScsiCommandPdu(itt=itt, cdb=cdb, lun=lun_to_bytes(lun), cmd_sn=itt)


def response(itt: int, status: int = GOOD, stat_sn: int = 5, data: bytes = b"") -> ScsiResponsePdu:
    return ScsiResponsePdu(itt=itt, status=status, stat_sn=stat_sn, exp_cmd_sn=9, max_cmd_sn=40, data=data)


def texts(pdus: list[RawPdu]) -> list[tuple[str, str]]:
    (pdu,) = pdus
    return parse_pairs(pdu.data)


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.log_in()
    return bench


def held(bench: Bench, itt: int = 7, cdb: bytes = RESERVE_6, lun: int = 0) -> ArbitrationNeeded:
    """A RESERVE that the array has answered with GOOD."""
    bench.host_sends(command(itt, cdb, lun))
    assert bench.array_sends(response(itt)) == []
    event = bench.events.pop()
    assert isinstance(event, ArbitrationNeeded)
    return event


# ---- login and text


def test_the_login_names_the_nexus() -> None:
    bench = Bench()
    bench.host_sends(login_request({"InitiatorName": HOST_NAME, "TargetName": TARGET}))
    assert bench.events == [LoginStarted(HOST_NAME, ISID, TARGET)]
    assert bench.relay.nexus == ITNexus(HOST_NAME, ISID, 1)


def test_a_discovery_login_names_no_target() -> None:
    bench = Bench()
    bench.host_sends(login_request({"InitiatorName": HOST_NAME, "SessionType": "Discovery"}))
    assert bench.events == [LoginStarted(HOST_NAME, ISID, None)]


@pytest.mark.parametrize(
    ("key", "offered", "relayed"),
    [
        ("MaxConnections", "8", "1"),
        ("MaxConnections", "1", "1"),
        ("ErrorRecoveryLevel", "2", "0"),
        ("MaxRecvDataSegmentLength", "16777215", "1048576"),
        ("MaxRecvDataSegmentLength", "65536", "65536"),
        ("MaxBurstLength", "16776192", "16776192"),
    ],
)
def test_what_a_relay_cannot_honour_is_negotiated_down(key: str, offered: str, relayed: str) -> None:
    bench = Bench()
    pairs = texts(bench.host_sends(login_request({"InitiatorName": HOST_NAME, key: offered})))
    assert pairs == [("InitiatorName", HOST_NAME), (key, relayed)]
    assert texts(bench.array_sends(login_response({key: offered}))) == [(key, relayed)]


def test_authentication_passes_byte_for_byte() -> None:
    bench = Bench()
    data = b"CHAP_N=host\0CHAP_R=0xdeadBEEF00\0CHAP_I=7\0CHAP_C=0b/+==\0"
    (relayed,) = bench.host_sends(login_request({}, data=data, csg=0, nsg=1))
    assert bytes(relayed.data) == data
    (relayed,) = bench.array_sends(login_response({}, data=data, csg=0, nsg=1))
    assert bytes(relayed.data) == data


def test_a_pair_cut_by_the_c_bit_is_still_capped() -> None:
    bench = Bench()
    first = login_request({}, data=b"InitiatorName=" + HOST_NAME.encode() + b"\0MaxConn", cont=True, transit=False)
    second = login_request({}, data=b"ections=4\0TargetName=" + TARGET.encode() + b"\0")
    whole = b"".join(bytes(pdu.data) for pdu in bench.host_sends(first, second))
    assert parse_pairs(whole) == [("InitiatorName", HOST_NAME), ("MaxConnections", "1"), ("TargetName", TARGET)]
    assert bench.relay.target_name == TARGET


def test_send_targets_shows_the_shim_once_for_each_target() -> None:
    bench = Bench()
    bench.log_in({"SessionType": "Discovery"})
    bench.host_sends(TextRequestPdu(itt=2, data=format_text({"SendTargets": "All"})))
    found = [
        ("TargetName", TARGET),
        ("TargetAddress", "10.9.9.9:3260,2"),
        ("TargetAddress", f"{ARRAY},1"),
        ("TargetName", TARGET + "2"),
        ("TargetAddress", "[fe80::1]:3260,3"),
    ]
    assert texts(bench.array_sends(TextResponsePdu(itt=2, data=format_text(found)))) == [
        ("TargetName", TARGET),
        ("TargetAddress", f"{SHIM},1"),  # the portal group of the portal that the shim has dialled
        ("TargetName", TARGET + "2"),
        ("TargetAddress", f"{SHIM},3"),
    ]


def test_a_redirection_leads_back_to_the_shim() -> None:
    bench = Bench()
    bench.host_sends(login_request({"InitiatorName": HOST_NAME, "TargetName": TARGET}))
    bench.events.clear()
    moved = login_response(
        {"TargetAddress": "10.0.0.2:3260"}, status=LoginStatus.TARGET_MOVED_TEMPORARILY, transit=False
    )
    assert texts(bench.array_sends(moved)) == [("TargetAddress", SHIM)]
    assert bench.events == [Redirected(HOST_NAME, "10.0.0.2:3260")]
    assert bench.relay.in_login


def test_an_answer_that_outgrows_its_pdu_ends_the_connection() -> None:
    bench = Bench(Relay("a-very-long-name-of-a-shim." * 30 + ":3261"))
    bench.log_in({"SessionType": "Discovery", "MaxRecvDataSegmentLength": "512"})
    with pytest.raises(RemoteProtocolError, match="does not fit"):
        bench.array_sends(TextResponsePdu(itt=2, data=format_text([("TargetName", "t"), ("TargetAddress", ARRAY)])))


# ---- passing through


def test_every_other_pdu_passes_unchanged_however_it_is_cut(bench: Bench) -> None:
    down: list[EncodablePdu] = [
        command(3, READ_10),
        NopOutPdu(itt=4, data=b"ping!"),
        TextRequestPdu(itt=5, data=b"X-a=b\0"),
    ]
    up: list[EncodablePdu] = [
        DataInPdu(itt=3, data=b"d" * 700),
        response(3, CHECK_CONDITION, data=b"\0\2ab"),
        NopInPdu(itt=4, data=b"ping!"),
    ]
    for byte in b"".join(map(bench.wire, down)):
        assert bench.relay.receive_from_host(bytes((byte,))) == []
    for byte in b"".join(map(bench.wire, up)):
        assert bench.relay.receive_from_array(bytes((byte,))) == []
    assert b"".join(bench.relay.data_to_array()) == b"".join(map(bench.wire, down))
    assert b"".join(bench.relay.data_to_host()) == b"".join(map(bench.wire, up))


def test_digests_hold_from_the_pdu_behind_the_last_login_response() -> None:
    bench = Bench()
    bench.host_sends(login_request({"InitiatorName": HOST_NAME, "HeaderDigest": "CRC32C,None", "DataDigest": "CRC32C"}))
    last = login_response({"HeaderDigest": "CRC32C", "DataDigest": "CRC32C"})
    nop = b"".join(encode_pdu(NopInPdu(ttt=9, data=b"abc"), True, True))
    bench.relay.receive_from_array(bench.wire(last) + nop)
    assert b"".join(bench.relay.data_to_host()) == bench.wire(last) + nop


def test_a_digest_that_the_array_declines_is_not_used() -> None:
    bench = Bench()
    bench.log_in({"HeaderDigest": "CRC32C,None"}, {"HeaderDigest": "None"})
    (relayed,) = bench.host_sends(command(3, READ_10))
    assert relayed.bhs == command(3, READ_10).encode_bhs()


def test_a_damaged_segment_goes_on_under_its_own_digest_for_the_receiver_to_see() -> None:
    bench = Bench()
    bench.log_in({"DataDigest": "CRC32C"}, {"DataDigest": "CRC32C"})
    wire = bytearray(b"".join(encode_pdu(NopOutPdu(itt=4, data=b"ping"), False, True)))
    wire[48] ^= 1
    bench.relay.receive_from_host(wire)
    assert b"".join(bench.relay.data_to_array()) == wire


def test_a_damaged_segment_never_goes_on_under_a_digest_that_the_relay_computes() -> None:
    bench = Bench()
    bench.log_in({"DataDigest": "CRC32C"}, {"DataDigest": "CRC32C"})
    wire = bytearray(b"".join(encode_pdu(TextRequestPdu(itt=4, data=b"X-a=b"), False, True)))
    wire[48] ^= 1
    with pytest.raises(RemoteProtocolError, match="digest"):
        bench.relay.receive_from_host(wire)
    assert bench.relay.data_to_array() == []


def test_a_damaged_good_of_a_reserve_ends_the_connection_unseen() -> None:
    bench = Bench()
    bench.log_in({"HeaderDigest": "CRC32C"}, {"HeaderDigest": "CRC32C"})
    bench.relay.receive_from_host(b"".join(encode_pdu(command(7, RESERVE_6), True)))
    bench.relay.data_to_array()
    wire = bytearray(b"".join(encode_pdu(response(7), True)))
    wire[27] ^= 1  # StatSN
    with pytest.raises(RemoteProtocolError, match="header digest"):
        bench.relay.receive_from_array(wire)
    assert bench.relay.data_to_host() == []


def test_long_data_goes_on_as_it_arrives(bench: Bench) -> None:
    up = bench.wire(DataInPdu(itt=3, data=bytes(1 << 18)))
    bench.relay.receive_from_array(up[:5000])
    assert b"".join(bench.relay.data_to_host()) == up[:5000]
    bench.relay.receive_from_array(up[5000:])
    assert b"".join(bench.relay.data_to_host()) == up[5000:]


# ---- RESERVE


@pytest.mark.parametrize("cdb", [RESERVE_6, RESERVE_10])
def test_a_good_reserve_is_held_and_released_as_it_came(bench: Bench, cdb: bytes) -> None:
    event = held(bench, itt=7, cdb=cdb, lun=3)
    assert event == ArbitrationNeeded(ITNexus(HOST_NAME, ISID, 1), 3, 7)
    assert bench.relay.is_wanted(7)
    (released,) = bench.decide(7, won=True)
    assert released.bhs == response(7).encode_bhs()


def test_a_lost_reserve_differs_in_its_status_alone(bench: Bench) -> None:
    held(bench)
    (released,) = bench.decide(7, won=False)
    assert released.bhs == response(7, CONFLICT).encode_bhs()


def test_a_lost_reserve_has_a_new_header_digest() -> None:
    bench = Bench()
    bench.log_in({"HeaderDigest": "CRC32C", "DataDigest": "CRC32C"}, {"HeaderDigest": "CRC32C", "DataDigest": "CRC32C"})
    bench.use_digests()
    held(bench)
    (released,) = bench.decide(7, won=False)  # the host's stream checks the digest
    assert released.bhs == response(7, CONFLICT).encode_bhs()


def test_nothing_overtakes_a_held_response_and_the_host_may_go_on_sending(bench: Bench) -> None:
    held(bench)
    assert bench.array_sends(NopInPdu(ttt=1, stat_sn=6), response(8, stat_sn=6)) == []
    assert [pdu.opcode for pdu in bench.host_sends(command(9, READ_10))] == [Opcode.SCSI_COMMAND]
    released = bench.decide(7, won=True)
    assert [(pdu.opcode, pdu.itt) for pdu in released[::2]] == [(Opcode.SCSI_RESPONSE, 7), (Opcode.SCSI_RESPONSE, 8)]
    assert released[1].opcode == Opcode.NOP_IN


def test_the_array_is_not_read_when_too_much_is_held_back(bench: Bench) -> None:
    held(bench)
    bench.host_sends(command(8, READ_10))
    data = DataInPdu(itt=8, data=bytes(1 << 18))
    while bench.relay.wants_array_data:
        bench.array_sends(data)
    assert len(bench.relay._held_back) <= HELD_BACK_BYTES_MAX + (1 << 19)
    bench.decide(7, won=True)
    assert bench.relay.wants_array_data


def test_a_second_good_behind_a_held_one_is_held_in_its_turn(bench: Bench) -> None:
    bench.host_sends(command(7, RESERVE_6, lun=0), command(8, RESERVE_6, lun=1))
    assert bench.array_sends(response(7), response(8, stat_sn=6), NopInPdu(ttt=1)) == []
    assert bench.events == [ArbitrationNeeded(ITNexus(HOST_NAME, ISID, 1), 0, 7)]
    assert [pdu.itt for pdu in bench.decide(7, won=True)] == [7]
    assert bench.events[1:] == [ArbitrationNeeded(ITNexus(HOST_NAME, ISID, 1), 1, 8)]
    assert [pdu.bhs[3] for pdu in bench.decide(8, won=False)] == [CONFLICT, 0]


@pytest.mark.parametrize("status", [CHECK_CONDITION, 0x08, CONFLICT, 0x28])
def test_any_other_end_of_a_reserve_is_the_hosts_at_once(bench: Bench, status: int) -> None:
    bench.host_sends(command(7, RESERVE_6))
    (relayed,) = bench.array_sends(response(7, status))
    assert relayed.bhs == response(7, status).encode_bhs()
    assert bench.events == []


def test_where_nothing_is_arbitrated_even_an_aborted_reserve_keeps_its_good(bench: Bench) -> None:
    held(bench)
    bench.host_sends(TaskManagementRequestPdu(function=1, referenced_task_tag=7, itt=9))
    bench.relay.pass_on(7)
    (released,) = bench.host_receives()
    assert released.bhs[3] == GOOD


ABORTS: dict[str, EncodablePdu] = {
    "ABORT TASK": TaskManagementRequestPdu(function=1, referenced_task_tag=7, itt=9),
    "ABORT TASK SET": TaskManagementRequestPdu(function=2, lun=lun_to_bytes(2), itt=9),
    "CLEAR TASK SET": TaskManagementRequestPdu(function=4, lun=lun_to_bytes(2), itt=9),
    "LOGICAL UNIT RESET": TaskManagementRequestPdu(function=5, lun=lun_to_bytes(2), itt=9),
    "TARGET WARM RESET": TaskManagementRequestPdu(function=6, itt=9),
    "TARGET COLD RESET": TaskManagementRequestPdu(function=7, itt=9),
    "LOGOUT": LogoutRequestPdu(itt=9),
}


@pytest.mark.parametrize("abort", ABORTS.values(), ids=ABORTS)
def test_a_held_reserve_that_the_host_aborts_is_never_good(bench: Bench, abort: EncodablePdu) -> None:
    held(bench, lun=2)
    assert len(bench.host_sends(abort)) == 1
    assert not bench.relay.is_wanted(7)
    assert bench.array_sends(TaskManagementResponsePdu(response=1, itt=9, stat_sn=6)) == []
    released = bench.decide(7, won=True)
    assert [(pdu.itt, pdu.bhs[3]) for pdu in released] == [(7, CONFLICT), (9, 0)]


@pytest.mark.parametrize("abort", ABORTS.values(), ids=ABORTS)
def test_a_good_that_crosses_the_abort_on_its_way_is_never_good(bench: Bench, abort: EncodablePdu) -> None:
    bench.host_sends(command(7, RESERVE_6, lun=2), abort)
    assert bench.array_sends(response(7)) == []
    assert not bench.relay.is_wanted(7)
    (released,) = bench.decide(7, won=True)
    assert released.bhs[3] == CONFLICT


@pytest.mark.parametrize(
    "other",
    [
        TaskManagementRequestPdu(function=1, referenced_task_tag=6, itt=9),
        TaskManagementRequestPdu(function=5, lun=lun_to_bytes(1), itt=9),
    ],
)
def test_an_abort_of_something_else_changes_nothing(bench: Bench, other: EncodablePdu) -> None:
    held(bench, lun=2)
    bench.host_sends(other)
    (released,) = bench.decide(7, won=True)
    assert released.bhs[3] == GOOD


def test_the_tag_of_a_reserve_that_ended_without_response_is_free(bench: Bench) -> None:
    bench.host_sends(command(7, RESERVE_6), ABORTS["ABORT TASK"])
    bench.array_sends(TaskManagementResponsePdu(itt=9, stat_sn=5))
    bench.host_sends(command(7, READ_10))
    (relayed,) = bench.array_sends(response(7, stat_sn=6))
    assert relayed.bhs[3] == GOOD
    assert bench.events == []


def test_a_rejected_reserve_is_forgotten(bench: Bench) -> None:
    bench.host_sends(command(7, RESERVE_6))
    bench.array_sends(RejectPdu(reason=4, data=command(7, RESERVE_6).encode_bhs()))
    assert bench.array_sends(response(7)) != []


def test_a_status_in_data_in_cannot_slip_past(bench: Bench) -> None:
    bench.host_sends(command(7, RESERVE_6))
    with pytest.raises(RemoteProtocolError, match="RESERVE"):
        bench.array_sends(DataInPdu(itt=7, status_present=True))


def test_what_breaks_the_protocol_behind_a_held_response_does_not_hold_it_up(bench: Bench) -> None:
    held(bench)
    bench.host_sends(command(8, RESERVE_6))
    bench.array_sends(NopInPdu(ttt=1), DataInPdu(itt=8, status_present=True))
    with pytest.raises(RemoteProtocolError, match="RESERVE"):
        bench.decide(7, won=True)
    assert [pdu.opcode for pdu in bench.host_receives()] == [Opcode.SCSI_RESPONSE, Opcode.NOP_IN]


def test_a_lost_connection_lets_nothing_out(bench: Bench) -> None:
    held(bench)
    bench.array_sends(NopInPdu(ttt=1))
    bench.relay.connection_lost()
    assert not bench.relay.is_wanted(7)
    assert bench.decide(7, won=True) == []


def test_reserves_under_way_are_limited(bench: Bench) -> None:
    with pytest.raises(RemoteProtocolError, match="too many"):
        bench.host_sends(*(command(itt, RESERVE_6) for itt in range(1, 300)))


# ---- the end of a session


def test_a_logout_is_clean_once_the_array_has_confirmed_it(bench: Bench) -> None:
    bench.host_sends(LogoutRequestPdu(itt=9))
    assert not bench.relay.logged_out
    bench.array_sends(LogoutResponsePdu(itt=9))
    assert bench.relay.logged_out


@pytest.mark.parametrize("answer", [LogoutResponsePdu(itt=9, response=3), LogoutResponsePdu(itt=8)])
def test_a_logout_that_failed_is_no_logout(bench: Bench, answer: LogoutResponsePdu) -> None:
    bench.host_sends(LogoutRequestPdu(itt=9))
    bench.array_sends(answer)
    assert not bench.relay.logged_out


def test_a_logout_behind_a_held_reserve_is_not_told_before_the_host_is(bench: Bench) -> None:
    held(bench)
    bench.host_sends(LogoutRequestPdu(itt=9))
    bench.array_sends(LogoutResponsePdu(itt=9))
    assert not bench.relay.logged_out
    bench.decide(7, won=False)
    assert bench.relay.logged_out
