"""The login phase, seen from the initiator: stages, C bit, refusals with their status, limits."""

from typing import Any

import pytest

from storage_model.spec.iscsi_pdu import LoginRequestPdu, LoginResponsePdu, LoginStatus, NopOutPdu, Stage
from storage_model.spec.iscsi_text import format_text, parse_text
from target.iscsi.connection import Phase
from target.iscsi.events import ConnectionEnded, Limits, LoginCompleted
from tests.iscsi_driver import INITIATOR, IQN, ISID, NAMES, Driver

SECURITY, OPERATIONAL = Stage.SECURITY_NEGOTIATION, Stage.LOGIN_OPERATIONAL_NEGOTIATION


def exchange(driver: Driver, request: LoginRequestPdu) -> LoginResponsePdu:
    (response,) = driver.send(request)
    assert isinstance(response, LoginResponsePdu)
    return response


def test_operational_stage_alone() -> None:
    driver = Driver()
    answers = driver.login(MaxRecvDataSegmentLength="4096", InitialR2T="No", MaxBurstLength="8192")
    assert answers == {
        "TargetPortalGroupTag": "1",
        "MaxRecvDataSegmentLength": "262144",
        "InitialR2T": "No",
        "MaxBurstLength": "8192",
    }
    parameters = driver.connection.parameters
    assert parameters.initiator_max_recv_data_segment_length == 4096
    assert parameters.first_burst_length == 8192  # its default is more than the MaxBurstLength that was agreed
    completed = driver.events[0]
    assert isinstance(completed, LoginCompleted) and completed.nexus is not None
    assert (completed.nexus.initiator_name, completed.nexus.isid) == (INITIATOR, ISID)


def test_both_stages_and_a_stage_that_is_not_left_at_once() -> None:
    driver = Driver()
    first = driver.login_request({**NAMES, "AuthMethod": "CHAP,None"}, csg=SECURITY, nsg=0, transit=False)
    response = exchange(driver, first)
    assert parse_text(response.data)["AuthMethod"] == "None"
    assert (response.transit, response.csg, response.stat_sn) == (False, SECURITY, 0)
    response = exchange(driver, driver.login_request({}, csg=SECURITY, nsg=OPERATIONAL))
    assert (response.transit, response.csg, response.nsg, response.stat_sn) == (True, SECURITY, OPERATIONAL, 1)
    assert driver.send(driver.login_request({"HeaderDigest": "None"})) == []
    assert driver.connection.phase is Phase.ESTABLISHING
    driver.connection.accept_login(9)
    (last,) = driver.received()
    assert isinstance(last, LoginResponsePdu)
    assert (last.tsih, last.stat_sn, last.exp_cmd_sn, last.nsg) == (9, 2, 100, Stage.FULL_FEATURE_PHASE)


def test_security_straight_to_full_feature_keeps_the_default_segment_length() -> None:
    driver = Driver()
    driver.send(driver.login_request(csg=SECURITY))
    assert isinstance(driver.events[-1], LoginCompleted)
    assert driver.connection.parameters.max_recv_data_segment_length == 8192


def test_text_continued_over_several_requests() -> None:
    driver = Driver()
    text = format_text({**NAMES, "MaxBurstLength": "1024"})
    for piece in (text[:5], text[5:60]):
        response = exchange(driver, driver.login_request(data=piece, cont=True, transit=False, nsg=0))
        assert (response.data, response.transit, response.status) == (b"", False, 0)
    driver.send(driver.login_request(data=text[60:]))
    assert driver.connection.parameters.max_burst_length == 1024


def test_discovery_session_has_no_nexus_and_finds_session_keys_irrelevant() -> None:
    driver = Driver()
    pairs = {"InitiatorName": INITIATOR, "SessionType": "Discovery", "InitialR2T": "No", "DataDigest": "None"}
    driver.send(driver.login_request(pairs))
    completed = driver.events[-1]
    assert isinstance(completed, LoginCompleted) and completed.nexus is None
    driver.connection.accept_login(1)
    (response,) = driver.received()
    assert isinstance(response, LoginResponsePdu)
    answers = parse_text(response.data)
    assert answers["InitialR2T"] == "Irrelevant" and answers["DataDigest"] == "None"
    assert "TargetPortalGroupTag" not in answers


def test_unknown_and_obsolete_keys() -> None:
    answers = Driver().login(**{"X-com.example": "1", "OFMarkInt": "2048~8192", "TaskReporting": "FastAbort,RFC3720"})
    assert answers["X-com.example"] == "NotUnderstood"
    assert answers["OFMarkInt"] == "Reject"
    assert answers["TaskReporting"] == "RFC3720"


@pytest.mark.parametrize(
    ("status", "pairs", "fields"),
    [
        (LoginStatus.MISSING_PARAMETER, {"TargetName": IQN}, {}),
        (LoginStatus.MISSING_PARAMETER, {"InitiatorName": INITIATOR}, {}),
        (LoginStatus.NOT_FOUND, {**NAMES, "TargetName": "iqn.2026-11.org.example:other"}, {}),
        (LoginStatus.SESSION_TYPE_NOT_SUPPORTED, {**NAMES, "SessionType": "Other"}, {}),
        (LoginStatus.AUTHENTICATION_FAILURE, {**NAMES, "AuthMethod": "CHAP"}, {"csg": SECURITY, "nsg": OPERATIONAL}),
        (LoginStatus.AUTHENTICATION_FAILURE, {**NAMES, "AuthMethod": "SRP,KRB5"}, {"csg": SECURITY}),
        (LoginStatus.UNSUPPORTED_VERSION, NAMES, {"version_min": 1, "version_max": 1}),
        (LoginStatus.INITIATOR_ERROR, {**NAMES, "MaxRecvDataSegmentLength": "100"}, {}),
        (LoginStatus.INITIATOR_ERROR, {**NAMES, "SendTargets": "All"}, {}),
        (LoginStatus.INITIATOR_ERROR, {**NAMES, "InitiatorName": "x" * 224}, {}),
        (LoginStatus.INITIATOR_ERROR, {**NAMES, "InitiatorName": "\ufdfa" * 7}, {}),  # 231 bytes when normalised
        (LoginStatus.INITIATOR_ERROR, NAMES, {"csg": 2}),
        (LoginStatus.INITIATOR_ERROR, NAMES, {"csg": Stage.FULL_FEATURE_PHASE}),
        (LoginStatus.INITIATOR_ERROR, NAMES, {"nsg": OPERATIONAL}),
        (LoginStatus.INITIATOR_ERROR, NAMES, {"nsg": 2, "csg": SECURITY}),
        (LoginStatus.INITIATOR_ERROR, NAMES, {"cont": True}),
        (LoginStatus.INITIATOR_ERROR, NAMES, {"data": b"no NUL"}),
        (LoginStatus.INITIATOR_ERROR, {**NAMES, **{f"X-{index}": "" for index in range(64)}}, {}),
    ],
)
def test_refusals(status: LoginStatus, pairs: dict[str, str], fields: dict[str, Any]) -> None:
    driver = Driver()
    response = exchange(driver, driver.login_request(pairs, **fields))
    assert (response.status, response.transit, response.data) == (status, False, b"")
    assert driver.connection.phase is Phase.ENDED
    assert driver.end_reason is not None and f"{status:04X}h" in driver.end_reason


def test_a_key_may_not_come_twice_nor_the_isid_change() -> None:
    for change in ({"data": format_text({"MaxBurstLength": "512"})}, {"isid": bytes(6)}, {"cid": 8}):
        driver = Driver()
        first = format_text({**NAMES, "MaxBurstLength": "512"})
        exchange(driver, driver.login_request(transit=False, nsg=0, data=first))
        assert exchange(driver, driver.login_request(**change)).status == LoginStatus.INITIATOR_ERROR


def test_something_else_than_login() -> None:
    driver = Driver()
    (response,) = driver.send(NopOutPdu(itt=1))
    assert isinstance(response, LoginResponsePdu) and response.status == LoginStatus.INVALID_DURING_LOGIN
    assert driver.connection.phase is Phase.ENDED


def test_endless_continuation_is_bounded() -> None:
    for limits, size in ((Limits(login_requests=5), 0), (Limits(login_bytes=5000), 1000)):
        driver = Driver(limits=limits)
        request = driver.login_request(data=b"K" * size, cont=True, transit=False, nsg=0)
        statuses = [exchange(driver, request).status for _ in range(6)]
        assert statuses == [0] * 5 + [LoginStatus.INITIATOR_ERROR]


def test_login_has_a_deadline() -> None:
    driver = Driver(limits=Limits(login_timeout=15))
    assert driver.connection.next_deadline() == 15
    driver.connection.handle_deadline(14.9)
    assert driver.connection.phase is Phase.LOGIN
    driver.connection.handle_deadline(15)
    assert driver.connection.next_deadline() is None
    assert driver.connection.next_events() == [ConnectionEnded("login not finished within 15 s")]


def test_portal_refuses() -> None:
    driver = Driver()
    driver.send(driver.login_request(tsih=77))
    driver.connection.refuse_login(LoginStatus.SESSION_DOES_NOT_EXIST, "no such session")
    (response,) = driver.received()
    assert isinstance(response, LoginResponsePdu) and response.status == LoginStatus.SESSION_DOES_NOT_EXIST
    driver.connection.accept_login(1)  # too late: nothing happens
    assert driver.received() == []


def test_pdu_before_the_last_response_drops_the_connection() -> None:
    driver = Driver()
    driver.send(driver.login_request(), NopOutPdu(itt=2))
    assert driver.connection.phase is Phase.ENDED
