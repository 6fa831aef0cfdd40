"""The target's half of CHAP, one way or mutual (RFC 7143 §12.1.3, §9.2.1; RFC 1994): text in, text out.

Whatever goes wrong has one answer, Login status 0201h: who is no user here learns no more than who has a wrong secret.
"""

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from storage_model.errors import RemoteProtocolError
from storage_model.secret import Secret
from storage_model.spec.iscsi_chap import (
    ChapAlgorithm,
    challenge_length,
    chap_response,
    choose_algorithm,
    decode_binary,
    decode_identifier,
    encode_binary,
)
from storage_model.spec.iscsi_codes import LoginStatus

RandomBytes = Callable[[int], bytes]
RECENT_CHALLENGES = 4096
_DRAWS = 4

_RESPONSE_KEYS = {"CHAP_N", "CHAP_R"}
_MUTUAL_KEYS = {"CHAP_I", "CHAP_C"}


@dataclass(frozen=True, slots=True)
class ChapAccount:
    """A name and what proves it."""

    user: str
    secret: Secret


class Challenges:
    """The challenges of all connections of a target: from the OS's random source, none of them twice.

    ``random_bytes`` gives that many bytes. Each challenge is remembered as long as its login lasts, and the latest
    RECENT_CHALLENGES beyond.
    """

    def __init__(self, random_bytes: RandomBytes) -> None:
        self._random_bytes = random_bytes
        self._open: set[bytes] = set()
        self._recent: dict[bytes, None] = {}

    def identifier(self) -> int:
        """CHAP_I, 0 to 255."""
        return self._random_bytes(1)[0]

    def issue(self, length: int) -> bytes:
        """A challenge that was not there before; give it back with :meth:`close` when its login is over.

        Raises RemoteProtocolError (TARGET_ERROR) when the random source repeats itself: a predictable challenge is as
        good as none (CVE-2024-45751).
        """
        for _ in range(_DRAWS):
            challenge = self._random_bytes(length)
            if len(challenge) == length and not self.issued(challenge):
                break
        else:
            raise RemoteProtocolError("the random source repeats itself", LoginStatus.TARGET_ERROR)
        self._open.add(challenge)
        self._recent[challenge] = None
        if len(self._recent) > RECENT_CHALLENGES:
            del self._recent[next(iter(self._recent))]
        return challenge

    def issued(self, challenge: bytes) -> bool:
        """True when it is ours, on whatever connection: the peer reflects it (RFC 7143 §9.2.1)."""
        return challenge in self._open or challenge in self._recent

    def close(self, challenge: bytes) -> None:
        self._open.discard(challenge)


class TargetChap:
    """One login's exchange: CHAP_A; then CHAP_N and CHAP_R, with CHAP_I and CHAP_C when the target is to prove itself.

    ``receive`` raises RemoteProtocolError (AUTHENTICATION_FAILURE); ``done`` once the initiator has proved itself.
    """

    def __init__(self, account: ChapAccount, mutual: ChapAccount | None, challenges: Challenges) -> None:
        self.done = False
        self._account = account
        self._mutual = mutual
        self._challenges = challenges
        self._algorithm: ChapAlgorithm | None = None
        self._identifier = 0
        self._challenge = b""

    def receive(self, pairs: Mapping[str, str]) -> list[tuple[str, str]]:
        """``pairs`` are the CHAP keys of one request; the answer's."""
        keys = set(pairs)
        if self._algorithm is None and keys == {"CHAP_A"}:
            return self._begin(pairs["CHAP_A"])
        if self._algorithm is None or self.done or keys not in (_RESPONSE_KEYS, _RESPONSE_KEYS | _MUTUAL_KEYS):
            raise _failure("CHAP keys are missing, or not due now")
        self._verify(self._algorithm, pairs["CHAP_N"], _binary(pairs["CHAP_R"]))
        self.done = True
        return self._prove(self._algorithm, pairs) if "CHAP_C" in keys else []

    def close(self) -> None:
        """The login is over, whatever its end."""
        self._challenges.close(self._challenge)

    def _begin(self, offered: str) -> list[tuple[str, str]]:
        algorithm = choose_algorithm(offered)
        if algorithm is None:
            raise _failure("no CHAP algorithm of the initiator's is known here")
        self._challenge = self._challenges.issue(challenge_length(algorithm))
        self._algorithm, self._identifier = algorithm, self._challenges.identifier()
        return [
            ("CHAP_A", str(int(algorithm))),
            ("CHAP_I", str(self._identifier)),
            ("CHAP_C", encode_binary(self._challenge)),
        ]

    def _verify(self, algorithm: ChapAlgorithm, name: str, response: bytes) -> None:
        """Both comparisons are always made, in constant time: neither says which of the two was wrong."""
        account = self._account
        expected = chap_response(algorithm, self._identifier, account.secret, self._challenge)
        right_name = hmac.compare_digest(name.encode(), account.user.encode())
        right_response = hmac.compare_digest(response, expected)
        if not (right_name & right_response):
            raise _failure("the CHAP user name or response is wrong")

    def _prove(self, algorithm: ChapAlgorithm, pairs: Mapping[str, str]) -> list[tuple[str, str]]:
        if self._mutual is None:
            raise _failure("the initiator wants the target to prove itself, and there is no mutual secret")
        challenge = _binary(pairs["CHAP_C"])
        try:
            identifier = decode_identifier(pairs["CHAP_I"])
        except ValueError as error:
            raise _failure(f"CHAP_I is {error}") from None
        if self._challenges.issued(challenge):
            raise _failure("the initiator reflects a CHAP challenge of ours")
        response = chap_response(algorithm, identifier, self._mutual.secret, challenge)
        return [("CHAP_N", self._mutual.user), ("CHAP_R", encode_binary(response))]


def _binary(text: str) -> bytes:
    try:
        return decode_binary(text)
    except ValueError as error:
        raise _failure(f"a CHAP value is {error}") from None


def _failure(message: str) -> RemoteProtocolError:
    return RemoteProtocolError(message, LoginStatus.AUTHENTICATION_FAILURE)
