"""The security stage cannot be gone around where CHAP is asked for (RFC 7143 §6.3, §12.1)."""

import pytest

from storage_model.spec.iscsi_pdu import LoginStatus, Stage
from target.iscsi.connection import Phase
from tests.chap_login import OPERATIONAL, SECURITY, USER, ChapLogin, answer_to, control
from tests.iscsi_driver import INITIATOR, NAMES, Driver

DISCOVERY = {"InitiatorName": INITIATOR, "SessionType": "Discovery"}
BOTH_KINDS = pytest.mark.parametrize("names", [NAMES, DISCOVERY], ids=["normal", "discovery"])


@BOTH_KINDS
def test_only_none_is_offered(names: dict[str, str]) -> None:
    login = ChapLogin()
    login.say({**names, "AuthMethod": "None"}, transit=True)
    assert login.status == LoginStatus.AUTHENTICATION_FAILURE and login.ended


@BOTH_KINDS
def test_nothing_is_offered(names: dict[str, str]) -> None:
    login = ChapLogin()
    login.say(names, transit=True)
    assert login.status == LoginStatus.AUTHENTICATION_FAILURE and login.ended


@BOTH_KINDS
def test_the_stage_is_left_out(names: dict[str, str]) -> None:
    login = ChapLogin()
    login.say(names, transit=True, stage=OPERATIONAL)
    assert login.status == LoginStatus.AUTHENTICATION_FAILURE and login.ended


def test_the_stage_is_left_out_and_goes_on_there() -> None:
    login = ChapLogin()
    login.say({**NAMES, "AuthMethod": "CHAP"}, stage=OPERATIONAL)
    assert login.status == LoginStatus.AUTHENTICATION_FAILURE


def test_from_security_straight_to_full_feature_without_proof() -> None:
    login = ChapLogin()
    request = login.driver.login_request({**NAMES, "AuthMethod": "CHAP"}, csg=SECURITY, nsg=Stage.FULL_FEATURE_PHASE)
    login.send(request)
    assert (login.status, login.response.transit) == (LoginStatus.SUCCESS, False)
    assert login.driver.connection.phase is Phase.LOGIN


def test_the_operational_stage_is_entered_in_the_middle_of_chap() -> None:
    login = ChapLogin()
    login.begin()
    login.say({}, transit=True, stage=OPERATIONAL)
    assert login.status == LoginStatus.INITIATOR_ERROR and login.ended


def test_names_first_and_the_method_in_the_next_request() -> None:
    login = ChapLogin()
    login.say(NAMES)
    assert login.status == LoginStatus.SUCCESS
    assert login.say({"AuthMethod": "CHAP"}) == {"AuthMethod": "CHAP"}
    login.prove(login.say({"CHAP_A": "5"}))
    assert login.response.transit


def test_proof_and_straight_to_full_feature() -> None:
    """§6.3: the operational stage may be left out."""
    login = ChapLogin()
    challenge = login.begin()
    proof = {"CHAP_N": USER, "CHAP_R": answer_to(challenge)}
    login.send(login.driver.login_request(proof, csg=SECURITY, nsg=Stage.FULL_FEATURE_PHASE))
    assert login.driver.connection.phase is Phase.FULL_FEATURE


def test_discovery_with_proof() -> None:
    login = ChapLogin(control())
    assert login.say({**DISCOVERY, "AuthMethod": "CHAP"})["AuthMethod"] == "CHAP"
    login.prove(login.say({"CHAP_A": "5"}))
    login.finish()
    assert login.driver.connection.phase is Phase.FULL_FEATURE


def test_another_method_only() -> None:
    login = ChapLogin()
    login.say({**NAMES, "AuthMethod": "SRP,KRB5"}, transit=True)
    assert login.status == LoginStatus.AUTHENTICATION_FAILURE


def test_the_method_is_chosen_once() -> None:
    login = ChapLogin()
    login.begin()
    login.say({"AuthMethod": "CHAP"})
    assert login.status == LoginStatus.INITIATOR_ERROR


@BOTH_KINDS
@pytest.mark.parametrize("key", ["InitiatorName", "SessionType", "TargetName"])
def test_names_said_again_in_the_next_stage(names: dict[str, str], key: str) -> None:
    """As libiscsi does after a security stage that ended with AuthMethod=None (§6.3.1); another name is refused."""
    said = {"SessionType": "Normal", "TargetName": NAMES["TargetName"], **names}
    login = ChapLogin(driver=Driver())
    login.say({**said, "AuthMethod": "CHAP,None"}, transit=True)
    login.say({**said, "HeaderDigest": "None"}, transit=True, stage=OPERATIONAL)
    assert login.agreed and login.status == LoginStatus.SUCCESS
    login = ChapLogin(driver=Driver())
    login.say({**said, "AuthMethod": "CHAP,None"}, transit=True)
    login.say({**said, key: said[key] + "x"}, transit=True, stage=OPERATIONAL)
    assert login.status == LoginStatus.INITIATOR_ERROR and login.ended
