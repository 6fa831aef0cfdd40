"""A login with CHAP from the initiator's side, written anew from RFC 7143 §12.1.3 and RFC 1994, for tests."""

import hashlib
from collections.abc import Iterator, Mapping
from itertools import count

from storage_model.secret import Secret
from storage_model.spec.iscsi_pdu import LoginRequestPdu, LoginResponsePdu, LoginStatus, Stage
from storage_model.spec.iscsi_text import parse_text
from target.iscsi.access import AccessControl, AccessRule
from target.iscsi.chap import ChapAccount, RandomBytes
from target.iscsi.events import ConnectionEnded, LoginCompleted
from tests.iscsi_driver import NAMES, Driver

SECURITY, OPERATIONAL = Stage.SECURITY_NEGOTIATION, Stage.LOGIN_OPERATIONAL_NEGOTIATION
USER, SECRET = "joe", b"correct horse battery"
TARGET_USER, TARGET_SECRET = "array", b"staple and so on"
ONE_WAY = AccessRule(chap=ChapAccount(USER, Secret(SECRET)))
MUTUAL = AccessRule(chap=ChapAccount(USER, Secret(SECRET)), mutual=ChapAccount(TARGET_USER, Secret(TARGET_SECRET)))
HASHES = {"5": "md5", "6": "sha1", "7": "sha256", "8": "sha3_256"}
OWN_CHALLENGE = bytes(range(16))


def counting_bytes() -> RandomBytes:
    """A random source that is none: each draw is another number."""
    numbers: Iterator[int] = count(1)
    return lambda length: (next(numbers) % (1 << 8 * length)).to_bytes(length, "big")


def control(rule: AccessRule = ONE_WAY, random_bytes: RandomBytes | None = None) -> AccessControl:
    return AccessControl([rule], random_bytes or counting_bytes())


def response(algorithm: str, identifier: int, secret: bytes, challenge: bytes) -> str:
    digest = hashlib.new(HASHES[algorithm], bytes([identifier]) + secret + challenge).hexdigest()
    return "0x" + digest


def answer_to(keys: Mapping[str, str], secret: bytes = SECRET) -> str:
    """CHAP_R for the target's CHAP_A, CHAP_I and CHAP_C."""
    return response(keys["CHAP_A"], int(keys["CHAP_I"]), secret, bytes.fromhex(keys["CHAP_C"][2:]))


class ChapLogin:
    """One login in the security stage; each step answers what the target said, and ``status`` what became of it."""

    def __init__(self, access: AccessControl | None = None, driver: Driver | None = None) -> None:
        self.driver = driver or Driver(access=access or control())
        self.status = LoginStatus.SUCCESS
        self.response = LoginResponsePdu()

    def send(self, request: LoginRequestPdu) -> dict[str, str]:
        pdus = self.driver.send(request)
        if not pdus and self.agreed:
            self.driver.connection.accept_login(1)
            pdus = self.driver.received()
        (self.response,) = pdus  # type: ignore[assignment]
        assert isinstance(self.response, LoginResponsePdu)
        self.status = LoginStatus(self.response.status)
        return parse_text(self.response.data)

    def say(self, pairs: Mapping[str, str], *, transit: bool = False, stage: Stage = SECURITY) -> dict[str, str]:
        following = OPERATIONAL if stage is SECURITY else Stage.FULL_FEATURE_PHASE
        request = self.driver.login_request(pairs, csg=stage, nsg=following if transit else 0, transit=transit)
        return self.send(request)

    def begin(self, method: str = "CHAP", algorithms: str = "5", **names: str) -> dict[str, str]:
        """Names and AuthMethod, then CHAP_A; the target's challenge."""
        assert self.say({**NAMES, **names, "AuthMethod": method})["AuthMethod"] == "CHAP"
        return self.say({"CHAP_A": algorithms})

    def prove(self, keys: Mapping[str, str], secret: bytes = SECRET, **more: str) -> dict[str, str]:
        """CHAP_N and CHAP_R, with what else is to be said."""
        return self.say({"CHAP_N": USER, "CHAP_R": answer_to(keys, secret), **more}, transit=True)

    def finish(self) -> None:
        """The operational stage, to the full feature phase."""
        self.say({}, transit=True, stage=OPERATIONAL)

    @property
    def agreed(self) -> bool:
        return any(isinstance(event, LoginCompleted) for event in self.driver.events)

    @property
    def ended(self) -> bool:
        return any(isinstance(event, ConnectionEnded) for event in self.driver.events)
