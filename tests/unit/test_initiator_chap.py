"""Our initiator's CHAP: against responses written by hand, and against the target's own login."""

from collections.abc import Callable

import pytest

from initiator_shim.initiator_chap import ChapCredentials
from initiator_shim.initiator_login import InitiatorLogin, Negotiated, SessionParameters
from initiator_shim.session_errors import LoginRefused, TargetNotTrusted
from storage_model.errors import RemoteProtocolError, UserError
from storage_model.secret import Secret
from storage_model.spec.iscsi_codes import Stage
from storage_model.spec.iscsi_pdu import LoginRequestPdu, LoginResponsePdu
from storage_model.spec.iscsi_text import format_text, parse_text
from target.iscsi.access import AccessControl
from tests.chap_login import MUTUAL, ONE_WAY, SECRET, TARGET_SECRET, TARGET_USER, USER, control, response
from tests.iscsi_driver import INITIATOR, IQN, ISID, Driver

CREDENTIALS = ChapCredentials(USER, Secret(SECRET))
BOTH = ChapCredentials(USER, Secret(SECRET), TARGET_USER, Secret(TARGET_SECRET))
CHALLENGE = {"CHAP_A": "7", "CHAP_I": "200", "CHAP_C": "0x" + bytes(range(32)).hex()}
OPERATIONAL = Stage.LOGIN_OPERATIONAL_NEGOTIATION


def login(chap: ChapCredentials | None) -> InitiatorLogin:
    parameters = SessionParameters(INITIATOR, ISID, IQN, chap=chap)
    return InitiatorLogin(parameters, cmd_sn=100, random_bytes=lambda length: b"\x11" * length)


class Exchange:
    """The initiator's login and a target that says what the test wants."""

    def __init__(self, chap: ChapCredentials | None = CREDENTIALS) -> None:
        self.login = login(chap)
        self.request: LoginRequestPdu | None = self.login.first_request()

    @property
    def said(self) -> dict[str, str]:
        assert self.request is not None
        return parse_text(self.request.data)

    def hear(self, pairs: dict[str, str], *, transit: bool = False) -> dict[str, str]:
        pdu = LoginResponsePdu(transit=transit, nsg=OPERATIONAL if transit else 0, data=format_text(pairs))
        self.request = self.login.receive(pdu)
        return self.said


@pytest.mark.parametrize(
    ("chap", "method"), [(None, "None"), (CREDENTIALS, "CHAP,None"), (BOTH, "CHAP")], ids=["none", "one way", "mutual"]
)
def test_methods_that_are_offered(chap: ChapCredentials | None, method: str) -> None:
    """Who wants the target's proof cannot do without authentication."""
    assert Exchange(chap).said["AuthMethod"] == method


def test_one_way() -> None:
    exchange = Exchange()
    assert exchange.hear({"AuthMethod": "CHAP"}) == {"CHAP_A": "8,7,6,5"}
    assert exchange.request is not None and not exchange.request.transit
    expected = response("7", 200, SECRET, bytes(range(32)))
    assert exchange.hear(CHALLENGE) == {"CHAP_N": USER, "CHAP_R": expected}
    assert exchange.request.transit and exchange.request.csg == Stage.SECURITY_NEGOTIATION
    assert "HeaderDigest" in exchange.hear({}, transit=True)


def test_mutual() -> None:
    exchange = Exchange(BOTH)
    exchange.hear({"AuthMethod": "CHAP"})
    said = exchange.hear(CHALLENGE)
    assert (said["CHAP_I"], said["CHAP_C"]) == ("17", "0x" + "11" * 32)
    proof = {"CHAP_N": TARGET_USER, "CHAP_R": response("7", 17, TARGET_SECRET, b"\x11" * 32)}
    assert "HeaderDigest" in exchange.hear(proof, transit=True)


def test_a_target_that_wants_no_proof_gets_none() -> None:
    assert "CHAP_A" not in Exchange().hear({"AuthMethod": "None"}, transit=True)


@pytest.mark.parametrize(
    "proof",
    [
        {"CHAP_N": TARGET_USER, "CHAP_R": "0x" + "00" * 32},
        {"CHAP_N": "another", "CHAP_R": response("7", 17, TARGET_SECRET, b"\x11" * 32)},
        {"CHAP_N": TARGET_USER, "CHAP_R": response("7", 17, SECRET, b"\x11" * 32)},
        {"CHAP_N": TARGET_USER, "CHAP_R": response("7", 18, TARGET_SECRET, b"\x11" * 32)},
        {},
    ],
)
def test_a_target_that_does_not_prove_itself(proof: dict[str, str]) -> None:
    exchange = Exchange(BOTH)
    exchange.hear({"AuthMethod": "CHAP"})
    exchange.hear(CHALLENGE)
    with pytest.raises(TargetNotTrusted):
        exchange.hear(proof, transit=True)


def test_a_target_that_leaves_out_chap_after_choosing_it() -> None:
    exchange = Exchange()
    with pytest.raises(TargetNotTrusted):
        exchange.hear({"AuthMethod": "CHAP"}, transit=True)


def test_a_target_that_ends_the_stage_without_a_method() -> None:
    with pytest.raises(TargetNotTrusted):
        Exchange(BOTH).hear({}, transit=True)


@pytest.mark.parametrize(
    "change",
    [
        {"CHAP_A": "9"},
        {"CHAP_A": ""},
        {"CHAP_A": "7,5"},
        {"CHAP_I": "256"},
        {"CHAP_I": "-1"},
        {"CHAP_C": "0x"},
        {"CHAP_C": "0xabc"},
        {"CHAP_C": "0x" + "00" * 1025},
        {"CHAP_N": "too early"},
    ],
)
def test_malformed_challenges(change: dict[str, str]) -> None:
    exchange = Exchange()
    exchange.hear({"AuthMethod": "CHAP"})
    with pytest.raises(RemoteProtocolError, match="CHAP"):
        exchange.hear({**CHALLENGE, **change})


def test_keys_that_are_not_due() -> None:
    with pytest.raises(RemoteProtocolError, match="nobody asked for"):
        Exchange(None).hear(CHALLENGE)
    exchange = Exchange()
    exchange.hear({"AuthMethod": "CHAP"})
    exchange.hear(CHALLENGE)
    with pytest.raises(RemoteProtocolError, match="not due"):
        exchange.hear(CHALLENGE)


def test_a_target_cannot_choose_what_was_not_offered() -> None:
    with pytest.raises(RemoteProtocolError, match="chose AuthMethod"):
        Exchange(BOTH).hear({"AuthMethod": "None"}, transit=True)


def test_credentials_with_one_secret_for_both_or_half_a_target() -> None:
    with pytest.raises(UserError, match="must not be the initiator's own"):
        ChapCredentials(USER, Secret(SECRET), TARGET_USER, Secret(SECRET))
    with pytest.raises(UserError, match="name and its secret"):
        ChapCredentials(USER, Secret(SECRET), TARGET_USER)


# --------------------------------------------------------------------------------------------- against our own target


def log_in(chap: ChapCredentials | None, access: AccessControl) -> Negotiated:
    initiator, driver = login(chap), Driver(access=access)
    request: LoginRequestPdu | None = initiator.first_request()
    while request is not None:
        pdus = driver.send(request)
        if not pdus:
            driver.connection.accept_login(3)
            pdus = driver.received()
        (pdu,) = pdus
        assert isinstance(pdu, LoginResponsePdu)
        request = initiator.receive(pdu)
    return initiator.result


@pytest.mark.parametrize(
    ("chap", "rule"), [(CREDENTIALS, ONE_WAY), (CREDENTIALS, MUTUAL), (BOTH, MUTUAL)], ids=["1:1", "1:mutual", "mutual"]
)
def test_our_two_ends_agree(chap: ChapCredentials, rule: object) -> None:
    assert log_in(chap, control(rule)).tsih == 3  # type: ignore[arg-type]


def test_credentials_do_no_harm_where_nobody_asks() -> None:
    assert log_in(CREDENTIALS, AccessControl()).tsih == 3


@pytest.mark.parametrize(
    ("chap", "access"),
    [
        (None, control),
        (ChapCredentials(USER, Secret(b"some other secret")), control),
        (ChapCredentials("jim", Secret(SECRET)), control),
        (BOTH, control),  # the rule has no mutual secret
        (BOTH, AccessControl),  # mutual CHAP was wanted, and the target does without
    ],
)
def test_our_two_ends_refuse(chap: ChapCredentials | None, access: Callable[[], AccessControl]) -> None:
    with pytest.raises(LoginRefused, match="authentication failure"):
        log_in(chap, access())
