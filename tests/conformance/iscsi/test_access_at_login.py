"""Who may log in: name and address must both match the first rule that does; else 0202h (RFC 7143 §11.13.5)."""

from ipaddress import ip_network

import pytest

from storage_model.spec.iscsi_pdu import LoginStatus
from target.iscsi.access import AccessControl, AccessRule
from target.iscsi.events import LoginCompleted
from target.scsi.lun_mask import LunMask
from tests.chap_login import ONE_WAY, ChapLogin, counting_bytes
from tests.iscsi_driver import INITIATOR, IQN, NAMES, Driver

DISCOVERY = {"InitiatorName": INITIATOR, "SessionType": "Discovery"}
LOOPBACK, ELSEWHERE = (ip_network("127.0.0.0/8"),), (ip_network("192.0.2.0/24"),)
MASK = LunMask(frozenset({1}))


def status_of(*rules: AccessRule, names: dict[str, str] = NAMES, peer_host: str = "127.0.0.1") -> LoginStatus:
    """Of a login in the operational stage, without authentication."""
    login = ChapLogin(driver=Driver(access=AccessControl(rules, counting_bytes()), peer_host=peer_host))
    login.say(names, transit=True, stage=login.driver.login_request().csg)  # type: ignore[arg-type]
    return login.status


@pytest.mark.parametrize("names", [NAMES, DISCOVERY], ids=["normal", "discovery"])
@pytest.mark.parametrize(
    ("rule", "status"),
    [
        (AccessRule(), LoginStatus.SUCCESS),
        (AccessRule(INITIATOR), LoginStatus.SUCCESS),
        (AccessRule("iqn.2026-11.org.example:*"), LoginStatus.SUCCESS),
        (AccessRule("iqn.2026-11.org.example:hos"), LoginStatus.AUTHORIZATION_FAILURE),
        (AccessRule("iqn.2026-11.org.example:host?"), LoginStatus.AUTHORIZATION_FAILURE),
        (AccessRule(INITIATOR, LOOPBACK), LoginStatus.SUCCESS),
        (AccessRule(INITIATOR, ELSEWHERE), LoginStatus.AUTHORIZATION_FAILURE),
        (AccessRule(INITIATOR, ELSEWHERE + LOOPBACK), LoginStatus.SUCCESS),
        (AccessRule("iqn.2026-11.org.example:other", LOOPBACK), LoginStatus.AUTHORIZATION_FAILURE),
    ],
)
def test_name_and_address_must_both_match(rule: AccessRule, status: LoginStatus, names: dict[str, str]) -> None:
    assert status_of(rule, names=names) == status


def test_without_any_rule_everybody_may() -> None:
    assert status_of() == LoginStatus.SUCCESS


def test_names_match_without_regard_to_case() -> None:
    """§4.2.7.1: iSCSI names are compared in their normalised, lower-case form."""
    rule = AccessRule("IQN.2026-11.org.Example:Host")
    assert status_of(rule, names={**NAMES, "InitiatorName": INITIATOR.upper()}) == LoginStatus.SUCCESS


def test_the_first_match_decides() -> None:
    open_to_all, with_chap = AccessRule(), ONE_WAY
    assert status_of(open_to_all, with_chap) == LoginStatus.SUCCESS
    assert status_of(with_chap, open_to_all) == LoginStatus.AUTHENTICATION_FAILURE


def test_a_rule_whose_address_does_not_match_is_passed_by() -> None:
    assert status_of(AccessRule(INITIATOR, ELSEWHERE), AccessRule(INITIATOR, LOOPBACK)) == LoginStatus.SUCCESS


@pytest.mark.parametrize(
    ("network", "peer_host", "status"),
    [
        ("::1/128", "::1", LoginStatus.SUCCESS),
        ("2001:db8::/32", "2001:db8:1::7", LoginStatus.SUCCESS),
        ("2001:db8::/32", "2001:db9::7", LoginStatus.AUTHORIZATION_FAILURE),
        ("fe80::/10", "fe80::1%eth0", LoginStatus.SUCCESS),
        ("192.0.2.0/24", "::ffff:192.0.2.9", LoginStatus.SUCCESS),
        ("192.0.2.0/24", "::ffff:192.0.3.9", LoginStatus.AUTHORIZATION_FAILURE),
        ("::/0", "192.0.2.9", LoginStatus.AUTHORIZATION_FAILURE),
        ("0.0.0.0/0", "2001:db8::1", LoginStatus.AUTHORIZATION_FAILURE),
        ("0.0.0.0/0", "", LoginStatus.AUTHORIZATION_FAILURE),
    ],
)
def test_addresses(network: str, peer_host: str, status: LoginStatus) -> None:
    assert status_of(AccessRule("*", (ip_network(network),)), peer_host=peer_host) == status


def test_a_name_that_is_no_target_is_not_found_whoever_asks() -> None:
    rule = AccessRule("iqn.2026-11.org.example:other")
    assert status_of(rule, names={**NAMES, "TargetName": IQN + "-not"}) == LoginStatus.NOT_FOUND


def test_the_target_does_not_trust_the_name_without_proof() -> None:
    """Another initiator's name alone opens nothing where its rule asks for CHAP."""
    assert status_of(ONE_WAY, names={**NAMES, "AuthMethod": "None"}) == LoginStatus.AUTHENTICATION_FAILURE


def test_the_rule_goes_with_the_session() -> None:
    rule = AccessRule(mask=MASK)
    login = ChapLogin(AccessControl([rule]))
    login.say(NAMES, transit=True)
    login.finish()
    (completed,) = [event for event in login.driver.events if isinstance(event, LoginCompleted)]
    assert completed.rule == rule
