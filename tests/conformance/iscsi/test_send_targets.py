"""SendTargets: every portal with its group's tag (RFC 7143 appendix C, §13.8)."""

from dataclasses import replace

import pytest

from storage_model.spec.iscsi_pdu import TextRequestPdu, TextResponsePdu
from storage_model.spec.iscsi_text import format_text, parse_pairs
from tests.iscsi_driver import INITIATOR, IQN, TARGET, Driver

PORTALS = (("127.0.0.1:3260", 1), ("[::1]:3260", 1), ("127.0.0.1:3270", 2))
TWO_GROUPS = replace(TARGET, portals=PORTALS)
EVERYTHING = [("TargetName", IQN), *(("TargetAddress", f"{address},{tag}") for address, tag in PORTALS)]


def ask(driver: Driver, value: str) -> list[tuple[str, str]]:
    (response,) = driver.send(TextRequestPdu(itt=4, cmd_sn=100, data=format_text({"SendTargets": value})))
    assert isinstance(response, TextResponsePdu) and response.final
    return parse_pairs(response.data)


def discovery() -> Driver:
    driver = Driver(target=TWO_GROUPS)
    driver.send(driver.login_request({"InitiatorName": INITIATOR, "SessionType": "Discovery"}))
    driver.connection.accept_login(1)
    driver.received()
    return driver


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        ("All", EVERYTHING),
        (IQN, EVERYTHING),
        ("iqn.2026-11.org.example:other", []),
        ("", [("SendTargets", "Reject")]),  # the target of this session, which has none
    ],
)
def test_in_a_discovery_session(value: str, answer: list[tuple[str, str]]) -> None:
    assert ask(discovery(), value) == answer


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        ("", EVERYTHING),
        (IQN, EVERYTHING),
        ("iqn.2026-11.org.example:other", []),
        ("All", [("SendTargets", "Reject")]),  # MUST NOT be supported here
    ],
)
def test_in_a_normal_session(value: str, answer: list[tuple[str, str]]) -> None:
    driver = Driver(target=TWO_GROUPS)
    driver.login()
    assert ask(driver, value) == answer


def test_the_login_names_the_group_that_was_reached() -> None:
    """§13.9."""
    driver = Driver(target=replace(TWO_GROUPS, tpgt=2))
    assert driver.login()["TargetPortalGroupTag"] == "2"
    driver.send(driver.command(5))
    assert driver.tasks[0].nexus.target_port == 2
