"""Mutual CHAP: the target proves itself to an initiator that has done so (RFC 7143 §12.1.3, §9.2.1)."""

import pytest

from storage_model.spec.iscsi_pdu import LoginStatus
from target.iscsi.connection import Phase
from tests.chap_login import (
    MUTUAL,
    ONE_WAY,
    OWN_CHALLENGE,
    SECRET,
    TARGET_SECRET,
    TARGET_USER,
    USER,
    ChapLogin,
    answer_to,
    control,
    response,
)

HEX = "0x" + OWN_CHALLENGE.hex()


@pytest.mark.parametrize("algorithm", ["5", "6", "7", "8"])
def test_the_target_answers_with_its_own_secret(algorithm: str) -> None:
    login = ChapLogin(control(MUTUAL))
    proof = login.prove(login.begin(algorithms=algorithm), CHAP_I="77", CHAP_C=HEX)
    assert proof == {"CHAP_N": TARGET_USER, "CHAP_R": response(algorithm, 77, TARGET_SECRET, OWN_CHALLENGE)}
    assert login.response.transit
    login.finish()
    assert login.driver.connection.phase is Phase.FULL_FEATURE


@pytest.mark.parametrize(("identifier", "value"), [("0", 0), ("255", 255), ("0x1f", 31)])
def test_identifiers(identifier: str, value: int) -> None:
    login = ChapLogin(control(MUTUAL))
    proof = login.prove(login.begin(), CHAP_I=identifier, CHAP_C=HEX)
    assert proof["CHAP_R"] == response("5", value, TARGET_SECRET, OWN_CHALLENGE)


@pytest.mark.parametrize("length", [1, 16, 1024])
def test_challenges_up_to_1024_bytes(length: int) -> None:
    login = ChapLogin(control(MUTUAL))
    challenge = b"\x5a" * length
    proof = login.prove(login.begin(), CHAP_I="1", CHAP_C="0x" + challenge.hex())
    assert proof["CHAP_R"] == response("5", 1, TARGET_SECRET, challenge)


def test_a_challenge_in_base64() -> None:
    login = ChapLogin(control(MUTUAL))
    proof = login.prove(login.begin(), CHAP_I="1", CHAP_C="0bQUJD")
    assert proof["CHAP_R"] == response("5", 1, TARGET_SECRET, b"ABC")


def test_an_initiator_that_does_not_ask_is_let_in() -> None:
    login = ChapLogin(control(MUTUAL))
    assert login.prove(login.begin()) == {}
    assert login.status == LoginStatus.SUCCESS and login.response.transit


def test_the_target_proves_nothing_to_a_stranger() -> None:
    """Who does not know the initiator's secret gets no response to work on."""
    login = ChapLogin(control(MUTUAL))
    assert login.prove(login.begin(), secret=b"some other secret", CHAP_I="1", CHAP_C=HEX) == {}
    assert login.status == LoginStatus.AUTHENTICATION_FAILURE


def test_no_mutual_secret() -> None:
    """§12.1.3: the target must answer with a reject when it cannot prove itself."""
    login = ChapLogin(control(ONE_WAY))
    assert login.prove(login.begin(), CHAP_I="1", CHAP_C=HEX) == {}
    assert login.status == LoginStatus.AUTHENTICATION_FAILURE


def test_own_challenge_reflected() -> None:
    """§9.2.1: an initiator must not send our challenge back, and we must check that it does not."""
    login = ChapLogin(control(MUTUAL))
    challenge = login.begin()
    assert login.prove(challenge, CHAP_I="1", CHAP_C=challenge["CHAP_C"]) == {}
    assert login.status == LoginStatus.AUTHENTICATION_FAILURE and login.ended


def test_own_challenge_reflected_in_another_form() -> None:
    login = ChapLogin(control(MUTUAL))
    challenge = login.begin()
    login.prove(challenge, CHAP_I="1", CHAP_C="0X" + challenge["CHAP_C"][2:].upper())
    assert login.status == LoginStatus.AUTHENTICATION_FAILURE


@pytest.mark.parametrize("first_ends", [False, True])
def test_challenge_of_another_connection_reflected(first_ends: bool) -> None:
    access = control(MUTUAL)
    first, second = ChapLogin(access), ChapLogin(access)
    theirs = first.begin()
    if first_ends:
        first.driver.connection.end("gone")
    second.prove(second.begin(), CHAP_I="1", CHAP_C=theirs["CHAP_C"])
    assert second.status == LoginStatus.AUTHENTICATION_FAILURE


@pytest.mark.parametrize(
    "keys",
    [{"CHAP_I": "1"}, {"CHAP_C": HEX}],
    ids=["identifier without a challenge", "challenge without an identifier"],
)
def test_half_a_challenge(keys: dict[str, str]) -> None:
    login = ChapLogin(control(MUTUAL))
    challenge = login.begin()
    login.say({"CHAP_N": USER, "CHAP_R": answer_to(challenge), **keys}, transit=True)
    assert login.status == LoginStatus.AUTHENTICATION_FAILURE


@pytest.mark.parametrize("identifier", ["256", "-1", "", "x", "0x", "1 ", "99999999999999999999999"])
def test_identifier_out_of_range(identifier: str) -> None:
    login = ChapLogin(control(MUTUAL))
    login.prove(login.begin(), CHAP_I=identifier, CHAP_C=HEX)
    assert login.status == LoginStatus.AUTHENTICATION_FAILURE


def test_the_initiators_secret_does_not_serve_the_target() -> None:
    login = ChapLogin(control(MUTUAL))
    proof = login.prove(login.begin(), CHAP_I="9", CHAP_C=HEX)
    assert proof["CHAP_R"] != response("5", 9, SECRET, OWN_CHALLENGE) and proof["CHAP_N"] != USER
