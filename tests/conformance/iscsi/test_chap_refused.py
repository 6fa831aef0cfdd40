"""Proofs that are none: each is answered 0201h, and the connection ends (RFC 7143 §12.1.3, §11.13.5)."""

import pytest

from storage_model.spec.iscsi_pdu import LoginStatus
from target.iscsi.events import ConnectionEnded
from tests.chap_login import MUTUAL, SECRET, USER, ChapLogin, answer_to, control
from tests.iscsi_driver import NAMES

DIGEST = "0x" + "00" * 16


def refused(login: ChapLogin) -> bool:
    return (
        login.status == LoginStatus.AUTHENTICATION_FAILURE
        and not login.response.transit
        and login.response.data == b""
        and login.ended
    )


def test_wrong_secret() -> None:
    login = ChapLogin()
    login.prove(login.begin(), secret=SECRET + b".")
    assert refused(login)


def test_unknown_user_gets_the_very_same_answer() -> None:
    """Neither the answer nor the log says which of the two was wrong."""
    wrong_secret, wrong_user = ChapLogin(), ChapLogin()
    wrong_secret.prove(wrong_secret.begin(), secret=b"some other secret")
    challenge = wrong_user.begin()
    wrong_user.say({"CHAP_N": "jim", "CHAP_R": answer_to(challenge)}, transit=True)
    assert refused(wrong_secret) and refused(wrong_user)
    assert wrong_user.response == wrong_secret.response
    reasons = [
        [event.reason for event in login.driver.events if isinstance(event, ConnectionEnded)]
        for login in (wrong_user, wrong_secret)
    ]
    assert reasons[0] == reasons[1] != []


@pytest.mark.parametrize("name", ["JOE", "joe ", "jo", "joeX", "", "j" * 300])
def test_user_names_are_compared_to_the_byte(name: str) -> None:
    login = ChapLogin()
    challenge = login.begin()
    login.say({"CHAP_N": name, "CHAP_R": answer_to(challenge)}, transit=True)
    assert refused(login)


@pytest.mark.parametrize("length", [1, 15, 17, 20, 32, 1024])
def test_response_of_another_length(length: int) -> None:
    login = ChapLogin()
    right = bytes.fromhex(answer_to(login.begin())[2:])
    login.say({"CHAP_N": USER, "CHAP_R": "0x" + (right * 64)[:length].hex()}, transit=True)
    assert refused(login)


def test_response_to_another_identifier() -> None:
    login = ChapLogin()
    challenge = login.begin()
    other = {**challenge, "CHAP_I": str((int(challenge["CHAP_I"]) + 1) % 256)}
    login.prove(other)
    assert refused(login)


def test_response_by_another_algorithm() -> None:
    login = ChapLogin()
    challenge = login.begin(algorithms="7,5")
    login.prove({**challenge, "CHAP_A": "8"})
    assert refused(login)


@pytest.mark.parametrize("offered", ["", "0", "4", "9,10", "MD5", "5;6", ",", "None", "5" * 4000])
def test_no_algorithm_that_is_known(offered: str) -> None:
    login = ChapLogin()
    login.begin(algorithms=offered)
    assert refused(login)


@pytest.mark.parametrize(
    "keys",
    [
        {"CHAP_N": USER},
        {"CHAP_R": DIGEST},
        {"CHAP_N": USER, "CHAP_R": DIGEST, "CHAP_A": "5"},
        {"CHAP_A": "5"},
        {"CHAP_I": "1", "CHAP_C": DIGEST},
        {"CHAP_N": USER, "CHAP_R": DIGEST, "CHAP_C": DIGEST},
    ],
)
def test_keys_that_are_missing_or_not_due(keys: dict[str, str]) -> None:
    login = ChapLogin()
    login.begin()
    login.say(keys, transit=True)
    assert refused(login)


@pytest.mark.parametrize("keys", [{"CHAP_N": USER, "CHAP_R": DIGEST}, {"CHAP_A": "5", "CHAP_N": USER}])
def test_proof_before_the_challenge(keys: dict[str, str]) -> None:
    login = ChapLogin()
    login.say({**NAMES, "AuthMethod": "CHAP"})
    login.say(keys)
    assert refused(login)


def test_a_second_proof() -> None:
    login = ChapLogin()
    challenge = login.begin()
    login.say({"CHAP_N": USER, "CHAP_R": answer_to(challenge)})
    assert login.status == LoginStatus.SUCCESS
    login.say({"CHAP_N": USER, "CHAP_R": answer_to(challenge)})
    assert refused(login)


def test_a_second_challenge_is_not_given() -> None:
    """Else an initiator could pick the one that suits it."""
    login = ChapLogin(control(MUTUAL))
    login.begin()
    login.say({"CHAP_A": "5"})
    assert refused(login)


def test_chap_keys_where_chap_was_not_agreed_upon() -> None:
    login = ChapLogin(control())
    login.say({**NAMES, "CHAP_A": "5"})
    assert login.status == LoginStatus.INITIATOR_ERROR
