"""Login texts that want more than their share (LIO CVE-2013-2850 and later, tgt CVE-2011-0001), before any proof.

Every text comes from somebody who has not shown a secret: what it may cost is bounded, and so is what it gets back.
"""

import gc
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage_model.spec.iscsi_pdu import LoginRequestPdu, LoginResponsePdu, LoginStatus
from storage_model.spec.iscsi_text import KEYS, format_text
from target.iscsi.connection import LOGIN_DATA_SEGMENT_LENGTH, Phase
from target.iscsi.events import Limits
from tests.chap_login import SECURITY, ChapLogin, control
from tests.iscsi_driver import IQN, NAMES, Driver

LIMITS = Limits()
ERROR, OK = LoginStatus.INITIATOR_ERROR, LoginStatus.SUCCESS


def say(text: bytes, names: bytes = format_text(NAMES)) -> ChapLogin:
    login = ChapLogin(control())
    login.send(login.driver.login_request(csg=SECURITY, nsg=0, transit=False, data=names + text))
    return login


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (b"K" * 63 + b"=v\0", OK),
        (b"K" * 64 + b"=v\0", ERROR),
        (b"K" * 7000 + b"=v\0", ERROR),
        (b"=v\0", ERROR),
        (b"=\0", ERROR),
        (b"K\0", ERROR),
        (b"K=v", ERROR),  # the last NUL is missing
        (b"K=" + b"v" * 7900, ERROR),
        (b"K=" + b"v" * 7900 + b"\0", OK),
        (b"K=v\0K=v\0", ERROR),
        (b"".join(b"K%d=\0" % number for number in range(61)), OK),
        (b"".join(b"K%d=\0" % number for number in range(62)), ERROR),  # with the three names, more than 64 keys
        (b"".join(b"K%d=\0" % number for number in range(1000)), ERROR),
        (b"\0" * 100, OK),
        (b"\0" * 7000, ERROR),
        (b"\xff=\xff\0", ERROR),
        (b"TargetAlias=\xff\0", ERROR),
        (b"InitiatorAlias=" + b"a" * 7000 + b"\0", OK),
    ],
)
def test_keys_and_pairs(text: bytes, status: LoginStatus) -> None:
    assert say(text).status == status


def test_more_keys_in_many_requests() -> None:
    """The cap is for the login, not for a request."""
    login = say(b"")
    requests = 0
    while not login.ended:
        login.say({f"K{10 * requests + index}": "" for index in range(10)})
        requests += 1
    assert login.status == ERROR and requests <= LIMITS.login_keys // 10 + 1


@pytest.mark.parametrize("size", [1, 512, 8192])
def test_a_text_that_never_ends(size: int) -> None:
    driver = Driver(access=control())
    request = driver.login_request(csg=SECURITY, nsg=0, transit=False, cont=True, data=b"K" * size)
    answers = [pdu for _ in range(200) for pdu in driver.send(request)]
    assert driver.connection.phase is Phase.ENDED
    assert len(answers) <= min(LIMITS.login_requests, LIMITS.login_bytes // size) + 1
    assert isinstance(answers[-1], LoginResponsePdu) and answers[-1].status == ERROR


@pytest.mark.parametrize(
    "key",
    [f"X-{'K' * 61}", "OFMarkInt", *sorted(key for key in KEYS if key not in ("SendTargets", "AuthMethod"))],
)
def test_no_answer_is_longer_than_an_initiator_takes(key: str) -> None:
    """8192 bytes, until MaxRecvDataSegmentLength is declared (RFC 7143 §13.12); no value is sent back at length."""
    login = ChapLogin(control())
    login.send(login.driver.login_request(csg=SECURITY, nsg=0, transit=False, data=format_text(NAMES)))
    if key not in NAMES:
        login.say({key: "9" * 4000})
    assert len(login.response.data) < 200


def test_the_longest_answer_fits() -> None:
    text = b"".join(b"K" * 60 + b"%02d=\0" % number for number in range(61))
    login = say(text)
    assert login.status == OK and 61 * 60 < len(login.response.data) <= LOGIN_DATA_SEGMENT_LENGTH


def _long(driver: Driver) -> list[LoginRequestPdu]:
    return [driver.login_request(csg=SECURITY, nsg=0, transit=False, cont=True, data=b"K" * 8192)] * 40


def _many(driver: Driver) -> list[LoginRequestPdu]:
    text = format_text(NAMES) + b"".join(b"K%d=\0" % number for number in range(600))
    return [driver.login_request(csg=SECURITY, nsg=0, transit=False, data=text)] * 40


def _separators(driver: Driver) -> list[LoginRequestPdu]:
    return [driver.login_request(csg=SECURITY, nsg=0, transit=False, cont=True, data=b"=\0" * 4096)] * 40


@pytest.mark.parametrize("abuse", [_long, _many, _separators])
def test_memory_of_one_login(abuse: Callable[[Driver], list[LoginRequestPdu]]) -> None:
    """Sixteen connections at once: under half a MiB each at the peak, and nothing afterwards."""
    drivers = [Driver(access=control()) for _ in range(16)]
    requests = [abuse(driver) for driver in drivers]
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(40):
            for driver, texts in zip(drivers, requests, strict=True):
                driver.send(texts[number])
        _, peak = tracemalloc.get_traced_memory()
        drivers.clear()
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (peak - before) / 16 < 512 << 10
    assert after - before < 256 << 10


@given(st.lists(st.binary(max_size=300), max_size=6), st.booleans(), st.integers(0, 3), st.integers(0, 3))
def test_any_text_is_a_login_response_or_the_end(texts: list[bytes], names: bool, csg: int, nsg: int) -> None:
    driver = Driver(access=control())
    for number, text in enumerate(texts):
        data = format_text(NAMES) + text if names and not number else text
        for pdu in driver.send(driver.login_request(csg=csg, nsg=nsg, transit=bool(nsg), data=data)):
            assert isinstance(pdu, LoginResponsePdu) and len(pdu.data) <= LOGIN_DATA_SEGMENT_LENGTH
    assert driver.connection.phase in (Phase.LOGIN, Phase.ENDED)  # never further without the secret


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["AuthMethod", "CHAP_A", "CHAP_I", "CHAP_C", "CHAP_N", "CHAP_R", "HeaderDigest"]),
            st.sampled_from(["CHAP", "None", "5", "7,5", "0x", "0x00", "0b", "joe", "Reject", "", "0x" + "00" * 16]),
        ),
        max_size=5,
    ),
    st.lists(st.tuples(st.booleans(), st.integers(0, 1)), min_size=5, max_size=5),
)
def test_no_order_of_chap_keys_gets_in_without_the_secret(
    steps: list[dict[str, str]], forms: list[tuple[bool, int]]
) -> None:
    driver = Driver(access=control())
    for number, (step, (transit, stage)) in enumerate(zip(steps, forms, strict=False)):
        pairs = {**NAMES, **step} if not number else step
        driver.send(driver.login_request(pairs, csg=stage, nsg=3 if transit else 0, transit=transit))
        assert driver.connection.phase in (Phase.LOGIN, Phase.ENDED)


def test_a_name_of_two_lines_does_not_write_into_the_log() -> None:
    login = say(b"", f"InitiatorName=iqn.x\nERROR forged\0TargetName={IQN}\0".encode())
    assert login.status == ERROR and login.driver.connection.initiator_name == ""
