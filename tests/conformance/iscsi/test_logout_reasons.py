"""Logout: what each reason code is answered (RFC 7143 §11.14, §11.15)."""

import pytest

from storage_model.spec.iscsi_pdu import (
    LogoutReason,
    LogoutRequestPdu,
    LogoutResponse,
    LogoutResponsePdu,
    RejectPdu,
    RejectReason,
)
from target.iscsi.connection import Phase
from target.iscsi.events import LogoutReceived
from tests.iscsi_driver import Driver

OWN_CID = 7  # the driver's


def logged_in() -> Driver:
    driver = Driver()
    driver.login()
    return driver


@pytest.mark.parametrize(
    ("reason", "cid"),
    [
        (LogoutReason.CLOSE_SESSION, OWN_CID),
        (LogoutReason.CLOSE_SESSION, 99),  # §11.14.2: the CID counts only with the other reasons
        (LogoutReason.CLOSE_CONNECTION, OWN_CID),  # the session's only one
    ],
)
def test_the_session_ends(reason: int, cid: int) -> None:
    driver = logged_in()
    assert driver.send(LogoutRequestPdu(reason=reason, itt=8, cid=cid, cmd_sn=100)) == []
    assert isinstance(driver.events[-1], LogoutReceived)
    driver.connection.logout_done()
    (response,) = driver.received()
    assert isinstance(response, LogoutResponsePdu)
    assert (response.response, response.itt) == (LogoutResponse.SUCCESS, 8)
    assert (response.time2wait, response.time2retain) == (0, 0)
    assert driver.connection.phase is Phase.ENDED


@pytest.mark.parametrize(
    ("reason", "cid", "answer"),
    [
        (LogoutReason.CLOSE_CONNECTION, 8, LogoutResponse.CID_NOT_FOUND),
        (LogoutReason.RECOVERY, OWN_CID, LogoutResponse.RECOVERY_NOT_SUPPORTED),  # ErrorRecoveryLevel 0
        (LogoutReason.RECOVERY, 8, LogoutResponse.RECOVERY_NOT_SUPPORTED),
    ],
)
def test_the_session_goes_on(reason: int, cid: int, answer: int) -> None:
    driver = logged_in()
    (response,) = driver.send(LogoutRequestPdu(reason=reason, itt=8, cid=cid, cmd_sn=100))
    assert isinstance(response, LogoutResponsePdu) and response.response == answer
    assert driver.connection.phase is Phase.FULL_FEATURE


@pytest.mark.parametrize("reason", [3, 127])
def test_a_reason_that_does_not_exist(reason: int) -> None:
    driver = logged_in()
    (reject,) = driver.send(LogoutRequestPdu(reason=reason, itt=8, cid=OWN_CID, cmd_sn=100))
    assert isinstance(reject, RejectPdu) and reject.reason == RejectReason.INVALID_PDU_FIELD


def test_in_a_discovery_session() -> None:
    driver = Driver()
    driver.send(driver.login_request({"InitiatorName": "iqn.2026-11.org.example:host", "SessionType": "Discovery"}))
    driver.connection.accept_login(1)
    driver.received()
    driver.send(LogoutRequestPdu(itt=8, cmd_sn=100))
    driver.connection.logout_done()
    (response,) = driver.received()
    assert isinstance(response, LogoutResponsePdu) and response.response == 0
