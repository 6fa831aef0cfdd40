"""Texts of nothing, and texts that are never whole (SPDK CVE-2021-28361): answered, and bounded."""

from dataclasses import replace

import pytest

from storage_model.spec.iscsi_pdu import (
    RESERVED_TAG,
    LoginResponsePdu,
    LoginStatus,
    RejectPdu,
    RejectReason,
    TextRequestPdu,
    TextResponsePdu,
)
from storage_model.spec.iscsi_text import format_text
from target.iscsi.connection import Phase
from target.iscsi.events import Limits
from tests.chap_login import SECURITY, ChapLogin, control
from tests.iscsi_driver import IQN, Driver

LIMITS = Limits()


def text(driver: Driver, **fields: object) -> TextResponsePdu | RejectPdu:
    request = replace(TextRequestPdu(immediate=True, itt=5, cmd_sn=driver.cmd_sn), **fields)  # type: ignore[arg-type]
    (pdu,) = driver.send(request)
    assert isinstance(pdu, TextResponsePdu | RejectPdu)
    return pdu


@pytest.fixture
def driver() -> Driver:
    driver = Driver()
    driver.login()
    return driver


# ---------------------------------------------------------------------------------------------------------- in login


def test_empty_login_text_to_be_continued_is_asked_for_more() -> None:
    login = ChapLogin(control())
    assert login.send(login.driver.login_request(csg=SECURITY, nsg=0, transit=False, cont=True, data=b"")) == {}
    assert (login.status, login.response.transit, login.response.cont) == (LoginStatus.SUCCESS, False, False)


def test_empty_login_text_that_ends_names_nobody() -> None:
    login = ChapLogin(control())
    login.send(login.driver.login_request(csg=SECURITY, nsg=0, transit=False, data=b""))
    assert login.status == LoginStatus.MISSING_PARAMETER


@pytest.mark.parametrize("stage", [0, 1])
def test_endless_empty_login_text(stage: int) -> None:
    driver = Driver(access=control())
    request = driver.login_request(csg=stage, nsg=0, transit=False, cont=True, data=b"")
    answers = [pdu for _ in range(LIMITS.login_requests + 5) for pdu in driver.send(request)]
    assert len(answers) == LIMITS.login_requests + 1 and driver.connection.phase is Phase.ENDED
    assert isinstance(answers[-1], LoginResponsePdu) and answers[-1].status == LoginStatus.INITIATOR_ERROR


def test_endless_empty_login_text_in_the_middle_of_chap() -> None:
    login = ChapLogin(control())
    login.begin()
    request = login.driver.login_request(csg=SECURITY, nsg=0, transit=False, data=b"")
    for _ in range(LIMITS.login_requests):
        if login.ended:
            break
        login.send(request)
    assert login.status == LoginStatus.INITIATOR_ERROR and login.ended


# -------------------------------------------------------------------------------------------- in the full feature phase


def test_empty_text(driver: Driver) -> None:
    response = text(driver, final=True, data=b"")
    assert isinstance(response, TextResponsePdu)
    assert (response.final, response.data, response.ttt) == (True, b"", RESERVED_TAG)


def test_empty_text_to_be_continued_and_then_continued(driver: Driver) -> None:
    first = text(driver, final=False, cont=True, data=b"")
    assert isinstance(first, TextResponsePdu) and (first.final, first.data) == (False, b"")
    last = text(driver, final=True, ttt=first.ttt, data=format_text({"SendTargets": IQN}))
    assert isinstance(last, TextResponsePdu) and last.final and IQN.encode() in bytes(last.data)


def test_endless_empty_text(driver: Driver) -> None:
    response = text(driver, final=False, cont=True, data=b"")
    answers = 1
    while isinstance(response, TextResponsePdu):
        response = text(driver, final=False, cont=True, ttt=response.ttt, data=b"")
        answers += 1
        assert answers <= LIMITS.text_requests + 1
    assert response.reason == RejectReason.PROTOCOL_ERROR
    assert isinstance(text(driver, final=True, itt=6, data=b""), TextResponsePdu)  # the session goes on


def test_text_that_goes_on_with_nothing(driver: Driver) -> None:
    response = text(driver, final=True, ttt=77, data=b"")
    assert isinstance(response, RejectPdu) and response.reason == RejectReason.PROTOCOL_ERROR


def test_text_of_nuls_only(driver: Driver) -> None:
    response = text(driver, final=True, data=bytes(100))
    assert isinstance(response, TextResponsePdu) and response.data == b""
