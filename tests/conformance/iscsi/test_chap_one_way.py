"""CHAP, the initiator proves itself (RFC 7143 §12.1.3, RFC 1994)."""

from base64 import b64encode
from collections.abc import Callable

import pytest

from storage_model.spec.iscsi_pdu import LoginStatus
from target.iscsi.connection import Phase
from tests.chap_login import OPERATIONAL, SECURITY, USER, ChapLogin, answer_to, control
from tests.iscsi_driver import NAMES, Driver


@pytest.mark.parametrize(("algorithm", "length"), [("5", 16), ("6", 20), ("7", 32), ("8", 32)])
def test_each_algorithm(algorithm: str, length: int) -> None:
    login = ChapLogin()
    challenge = login.begin(algorithms=algorithm)
    assert set(challenge) == {"CHAP_A", "CHAP_I", "CHAP_C"} and challenge["CHAP_A"] == algorithm
    assert len(bytes.fromhex(challenge["CHAP_C"].removeprefix("0x"))) == length
    assert 0 <= int(challenge["CHAP_I"]) <= 255
    assert login.prove(challenge) == {}
    assert (login.status, login.response.transit, login.response.nsg) == (LoginStatus.SUCCESS, True, OPERATIONAL)
    login.finish()
    assert login.driver.connection.phase is Phase.FULL_FEATURE


@pytest.mark.parametrize(("offered", "chosen"), [("7,5", "7"), ("5,7", "5"), ("1,9,6,5", "6")])
def test_the_order_of_the_initiators_list_decides(offered: str, chosen: str) -> None:
    """§6.2.1: the first value that the responder supports."""
    assert ChapLogin().begin(algorithms=offered)["CHAP_A"] == chosen


@pytest.mark.parametrize("method", ["CHAP", "CHAP,None", "None,CHAP", "SRP,CHAP"])
def test_chap_anywhere_in_the_list_of_methods(method: str) -> None:
    login = ChapLogin()
    login.prove(login.begin(method))
    assert login.status == LoginStatus.SUCCESS and login.response.transit


def test_the_challenge_stands_in_every_login_for_itself() -> None:
    access = control()
    challenges = {ChapLogin(access).begin()["CHAP_C"] for _ in range(20)}
    assert len(challenges) == 20


FORMS: dict[str, Callable[[bytes], str]] = {
    "0x, lower case": lambda value: "0x" + value.hex(),
    "0X, lower case": lambda value: "0X" + value.hex(),
    "0x, upper case": lambda value: "0x" + value.hex().upper(),
    "0b": lambda value: "0b" + b64encode(value).decode(),
    "0B": lambda value: "0B" + b64encode(value).decode(),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_forms_of_a_binary_value(form: Callable[[bytes], str]) -> None:
    """§6.1: hexadecimal or base64, in upper or lower case."""
    login = ChapLogin()
    response = bytes.fromhex(answer_to(login.begin())[2:])
    login.say({"CHAP_N": USER, "CHAP_R": form(response)}, transit=True)
    assert login.status == LoginStatus.SUCCESS and login.response.transit


def test_algorithms_may_come_with_the_method() -> None:
    """Where only one method is offered, its outcome is known."""
    login = ChapLogin()
    answer = login.say({**NAMES, "AuthMethod": "CHAP", "CHAP_A": "5"})
    assert answer["AuthMethod"] == "CHAP" and "CHAP_C" in answer


def test_proof_without_the_t_bit_stays_in_the_stage() -> None:
    login = ChapLogin()
    challenge = login.begin()
    login.say({"CHAP_N": USER, "CHAP_R": answer_to(challenge)})
    assert login.status == LoginStatus.SUCCESS and not login.response.transit
    login.say({}, transit=True)
    assert login.response.transit


def test_the_t_bit_is_taken_up_only_after_the_proof() -> None:
    """§6.3: the T bit is an offer to leave the stage, and the target has the last word."""
    login = ChapLogin()
    login.say({**NAMES, "AuthMethod": "CHAP"}, transit=True)
    assert (login.status, login.response.transit, login.response.csg) == (LoginStatus.SUCCESS, False, SECURITY)
    challenge = login.say({"CHAP_A": "5"}, transit=True)
    assert (login.status, login.response.transit) == (LoginStatus.SUCCESS, False)
    login.prove(challenge)
    assert login.response.transit


def test_a_challenge_is_for_one_connection() -> None:
    """The answer to another connection's challenge proves nothing."""
    access = control()
    first, second = ChapLogin(access), ChapLogin(access)
    challenge = first.begin()
    other = second.begin()
    second.say({"CHAP_N": USER, "CHAP_R": answer_to(challenge)}, transit=True)
    assert challenge["CHAP_C"] != other["CHAP_C"]
    assert second.status == LoginStatus.AUTHENTICATION_FAILURE and second.ended


def test_proof_in_pieces() -> None:
    """§6.2: a text goes on in the next request when the C bit is set."""
    login = ChapLogin()
    challenge = login.begin()
    text = f"CHAP_N={USER}\0CHAP_R={answer_to(challenge)}\0".encode()
    request = login.driver.login_request(csg=SECURITY, nsg=0, transit=False, cont=True, data=text[:17])
    assert login.send(request) == {} and not login.response.transit
    login.send(login.driver.login_request(csg=SECURITY, nsg=OPERATIONAL, data=text[17:]))
    assert login.status == LoginStatus.SUCCESS and login.response.transit


def test_without_a_rule_for_chap_nobody_is_asked() -> None:
    driver = Driver()
    answer = ChapLogin(driver=driver).say({**NAMES, "AuthMethod": "CHAP,None"}, transit=True)
    assert answer["AuthMethod"] == "None"
