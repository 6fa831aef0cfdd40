"""SendTargets shows a target only to those who may log in to it (RFC 7143 appendix C)."""

import pytest

from storage_model.spec.iscsi_pdu import LoginStatus, TextRequestPdu, TextResponsePdu
from storage_model.spec.iscsi_text import format_text, parse_pairs
from target.iscsi.access import AccessControl, AccessRule
from tests.chap_login import ChapLogin, control
from tests.iscsi_driver import INITIATOR, IQN, Driver

DISCOVERY = {"InitiatorName": INITIATOR, "SessionType": "Discovery"}


def discovery(access: AccessControl) -> Driver:
    login = ChapLogin(access)
    if access.rules and access.rules[0].chap:
        login.say({**DISCOVERY, "AuthMethod": "CHAP"})
        login.prove(login.say({"CHAP_A": "5"}))
    else:
        login.say(DISCOVERY, transit=True)
    login.finish()
    assert login.status == LoginStatus.SUCCESS
    return login.driver


def send_targets(driver: Driver, value: str = "All") -> list[tuple[str, str]]:
    request = TextRequestPdu(itt=5, cmd_sn=driver.cmd_sn, data=format_text({"SendTargets": value}))
    driver.cmd_sn += 1
    (response,) = driver.send(request)
    assert isinstance(response, TextResponsePdu)
    return parse_pairs(response.data)


FOUND = [("TargetName", IQN), ("TargetAddress", "127.0.0.1:3260,1")]


@pytest.mark.parametrize("access", [AccessControl(), AccessControl([AccessRule(INITIATOR)]), control()])
def test_who_has_access_sees_it(access: AccessControl) -> None:
    assert send_targets(discovery(access)) == FOUND


@pytest.mark.parametrize("value", ["All", IQN])
def test_who_has_lost_access_does_not(value: str) -> None:
    """The rules of this moment count, not those of the login."""
    access = AccessControl([AccessRule(INITIATOR)])
    driver = discovery(access)
    assert send_targets(driver, value) == FOUND
    access.rules = (AccessRule("iqn.2026-11.org.example:other"),)
    assert send_targets(driver, value) == []


def test_who_never_had_access_gets_no_discovery_session() -> None:
    login = ChapLogin(AccessControl([AccessRule("iqn.2026-11.org.example:other")]))
    login.say(DISCOVERY, transit=True)
    assert login.status == LoginStatus.AUTHORIZATION_FAILURE and login.ended
