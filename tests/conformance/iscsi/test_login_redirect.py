"""Redirection at login: status 0101h with the new TargetAddress (RFC 7143 §11.13.5)."""

from dataclasses import replace

import pytest

from storage_model.spec.iscsi_pdu import LoginResponsePdu, LoginStatus, Stage
from storage_model.spec.iscsi_text import format_text, parse_text
from target.iscsi.connection import Phase
from target.iscsi.events import ConnectionEnded
from tests.chap_login import MUTUAL, OWN_CHALLENGE, SECURITY, TARGET_USER, ChapLogin, answer_to, control
from tests.chap_login import USER as CHAP_USER
from tests.iscsi_driver import INITIATOR, NAMES, TARGET, Driver

ELSEWHERE = "[2001:db8::7]:3260"
MOVED = replace(TARGET, redirect=ELSEWHERE)


def assert_moved(response: object, driver: Driver) -> None:
    assert isinstance(response, LoginResponsePdu)
    assert response.status == LoginStatus.TARGET_MOVED_TEMPORARILY and not response.transit
    # §13.8: without a portal group tag, which only SendTargets' answers have.
    assert parse_text(response.data) == {"TargetAddress": ELSEWHERE}
    assert driver.connection.phase is Phase.ENDED
    (ended,) = [event for event in driver.events if isinstance(event, ConnectionEnded)]
    assert ended.expected and ELSEWHERE in ended.reason


@pytest.mark.parametrize("stage", [Stage.SECURITY_NEGOTIATION, Stage.LOGIN_OPERATIONAL_NEGOTIATION])
@pytest.mark.parametrize("transit", [True, False])
def test_without_authentication_in_the_first_response(stage: Stage, transit: bool) -> None:
    driver = Driver(target=MOVED)
    (response,) = driver.send(driver.login_request(csg=stage, transit=transit, nsg=3 if transit else 0))
    assert_moved(response, driver)


def test_not_before_the_names_have_come() -> None:
    """A text that goes on in the next request (C bit) is answered empty."""
    driver = Driver(target=MOVED)
    text = format_text(NAMES)
    (response,) = driver.send(driver.login_request(transit=False, nsg=0, cont=True, data=text[:20]))
    assert isinstance(response, LoginResponsePdu) and response.status == 0 and response.data == b""
    (response,) = driver.send(driver.login_request(data=text[20:]))
    assert_moved(response, driver)


def test_with_authentication_after_it() -> None:
    """An initiator must accept a redirection after the security negotiation; before, it only should."""
    login = ChapLogin(driver=Driver(target=MOVED, access=control()))
    keys = login.begin()
    login.prove(keys)
    assert login.status == LoginStatus.SUCCESS and login.response.transit
    login.finish()
    assert_moved(login.response, login.driver)


def test_with_mutual_authentication_after_our_proof() -> None:
    login = ChapLogin(driver=Driver(target=MOVED, access=control(MUTUAL)))
    proof = login.prove(login.begin(), CHAP_I="1", CHAP_C="0x" + OWN_CHALLENGE.hex())
    assert proof["CHAP_N"] == TARGET_USER
    login.finish()
    assert_moved(login.response, login.driver)


def test_with_authentication_and_no_further_stage() -> None:
    login = ChapLogin(driver=Driver(target=MOVED, access=control()))
    pairs = {"CHAP_N": CHAP_USER, "CHAP_R": answer_to(login.begin())}
    login.send(login.driver.login_request(pairs, csg=SECURITY, nsg=Stage.FULL_FEATURE_PHASE))
    assert_moved(login.response, login.driver)


def test_who_does_not_prove_itself_learns_no_address() -> None:
    login = ChapLogin(driver=Driver(target=MOVED, access=control()))
    keys = login.begin()
    answers = login.prove(keys, secret=b"another secret")
    assert login.status == LoginStatus.AUTHENTICATION_FAILURE and answers == {}


def test_who_names_another_target_learns_no_address() -> None:
    driver = Driver(target=MOVED)
    (response,) = driver.send(driver.login_request({**NAMES, "TargetName": "iqn.2026-11.org.pairvol:other"}))
    assert isinstance(response, LoginResponsePdu)
    assert (response.status, response.data) == (LoginStatus.NOT_FOUND, b"")


def test_discovery_is_served_here() -> None:
    driver = Driver(target=MOVED)
    driver.send(driver.login_request({"InitiatorName": INITIATOR, "SessionType": "Discovery"}))
    driver.connection.accept_login(1)
    (response,) = driver.received()
    assert isinstance(response, LoginResponsePdu) and response.status == 0
