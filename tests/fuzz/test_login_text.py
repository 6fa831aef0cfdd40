"""Login and text requests of every kind, into a connection: an answer or a refusal, and nothing kept for it."""

import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from scripts.fuzzing.login_texts import login_request, text_request
from storage_model.secret import Secret
from storage_model.spec.iscsi_pdu import (
    RESERVED_TAG,
    LoginRequestPdu,
    LoginResponsePdu,
    LoginStatus,
    Pdu,
    RejectPdu,
    TextResponsePdu,
)
from storage_model.spec.iscsi_text import format_text, parse_pairs
from target.iscsi.access import AccessControl, AccessRule
from target.iscsi.chap import ChapAccount
from target.iscsi.connection import Phase
from target.iscsi.events import Limits
from tests.iscsi_driver import ISID, NAMES, Driver

SEEDS = st.integers(0, (1 << 32) - 1)
SECRET = b"correct horse battery"
LIMITS = Limits()


def control(with_chap: bool) -> AccessControl | None:
    if not with_chap:
        return None
    chance = random.Random(1)
    return AccessControl([AccessRule(chap=ChapAccount("fuzz", Secret(SECRET)))], chance.randbytes)


def check_login_answers(driver: Driver, answers: list[Pdu]) -> None:
    """Login Responses of a known status whose text an initiator can read, within what it takes during login."""
    for pdu in answers:
        assert isinstance(pdu, LoginResponsePdu)
        assert pdu.status in set(LoginStatus)
        assert len(pdu.data) <= 8192
        parse_pairs(pdu.data)
        if pdu.status:
            assert driver.connection.phase is Phase.ENDED and not pdu.data
    assert len(driver.connection._login._text) <= LIMITS.login_bytes


@settings(max_examples=150)
@given(seed=SEEDS, requests=st.integers(1, 8), with_chap=st.booleans())
def test_login_requests(seed: int, requests: int, with_chap: bool) -> None:
    chance = random.Random(seed)
    driver = Driver(access=control(with_chap))
    names = {**NAMES, "AuthMethod": "CHAP"} if with_chap and chance.random() < 0.8 else NAMES
    for number in range(requests):
        request = login_request(chance, driver.cmd_sn, names if number == 0 else {}, ISID)
        if with_chap and number == 0 and chance.random() < 0.8:
            request = replace(request, csg=0, nsg=1, data=format_text(names))
        check_login_answers(driver, driver.send(request))
        if driver.connection.phase is not Phase.LOGIN:
            break
    if with_chap:  # whoever knows nothing gets nowhere
        assert driver.connection.phase in (Phase.LOGIN, Phase.ENDED)


@settings(max_examples=100)
@given(texts=st.lists(st.binary(max_size=400), min_size=1, max_size=5), csg=st.sampled_from((0, 1)), cont=st.booleans())
def test_any_bytes_as_the_text_of_a_login(texts: list[bytes], csg: int, cont: bool) -> None:
    driver = Driver()
    for number, text in enumerate(texts):
        data = format_text(NAMES) + text if number == 0 else text
        request = LoginRequestPdu(cont=cont, csg=csg, isid=ISID, itt=1, cmd_sn=driver.cmd_sn, data=data)
        check_login_answers(driver, driver.send(request))


@settings(max_examples=80)
@given(seed=SEEDS, discovery=st.booleans(), segment_length=st.sampled_from(("512", "8192")))
def test_text_requests(seed: int, discovery: bool, segment_length: str) -> None:
    """In the full feature phase: every answer fits what the initiator takes, and the negotiation's text is bounded."""
    chance = random.Random(seed)
    driver = Driver()
    names = {name: value for name, value in NAMES.items() if name != "TargetName"} | {"SessionType": "Discovery"}
    driver.send(driver.login_request({**(names if discovery else NAMES), "MaxRecvDataSegmentLength": segment_length}))
    driver.connection.accept_login(1)
    driver.received()
    ttt = RESERVED_TAG
    for _ in range(12):
        request = text_request(chance, driver.cmd_sn, ttt)
        driver.cmd_sn += not request.immediate
        answers = driver.send(request)
        assert len(answers) == 1
        (answer,) = answers
        assert isinstance(answer, TextResponsePdu | RejectPdu)
        text = driver.connection._text
        assert text is not None
        assert len(text._text) <= LIMITS.text_bytes
        assert len(text._answer) <= 2 * LIMITS.text_bytes
        if isinstance(answer, TextResponsePdu):
            # What it takes may be changed by this very text, for what comes after.
            assert len(answer.data) <= max(
                int(segment_length), driver.connection.parameters.initiator_max_recv_data_segment_length
            )
            assert answer.final is (answer.ttt == RESERVED_TAG) and not (answer.final and answer.cont)
            ttt = answer.ttt
