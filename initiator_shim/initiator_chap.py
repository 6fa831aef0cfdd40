"""The initiator's half of CHAP, one way or mutual (RFC 7143 §12.1.3, RFC 1994): text in, text out."""

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from initiator_shim.session_errors import TargetNotTrusted
from storage_model.errors import RemoteProtocolError, UserError
from storage_model.secret import Secret
from storage_model.spec.iscsi_chap import (
    ChapAlgorithm,
    challenge_length,
    chap_response,
    decode_binary,
    decode_identifier,
    encode_binary,
)
from storage_model.spec.iscsi_codes import RejectReason

RandomBytes = Callable[[int], bytes]
_OFFER = ",".join(str(int(algorithm)) for algorithm in sorted(ChapAlgorithm, reverse=True))
_CHALLENGE_KEYS = {"CHAP_A", "CHAP_I", "CHAP_C"}
_PROOF_KEYS = {"CHAP_N", "CHAP_R"}


@dataclass(frozen=True, slots=True)
class ChapCredentials:
    """Our name and secret; with ``target_user`` and ``target_secret`` the target must prove itself, too."""

    user: str
    secret: Secret
    target_user: str | None = None
    target_secret: Secret | None = None

    def __post_init__(self) -> None:
        if (self.target_user is None) != (self.target_secret is None):
            raise UserError("mutual CHAP needs the target's name and its secret")
        if self.target_secret == self.secret:  # RFC 7143 §9.2.1
            raise UserError("the secret of the target must not be the initiator's own")


class InitiatorChap:
    """One login's exchange: :meth:`offer`, then each answer of the target to :meth:`receive`.

    ``random_bytes`` is the OS's random source, needed to challenge the target. ``done`` once we have answered and, if
    it has to, the target has, too. Raises TargetNotTrusted, or RemoteProtocolError (reason: a RejectReason).
    """

    def __init__(self, credentials: ChapCredentials, random_bytes: RandomBytes | None) -> None:
        self.done = False
        self.answered = False
        self._credentials = credentials
        self._random_bytes = random_bytes
        self._algorithm: ChapAlgorithm | None = None
        self._identifier = 0
        self._challenge = b""

    def offer(self) -> dict[str, str]:
        return {"CHAP_A": _OFFER}

    def receive(self, pairs: Mapping[str, str]) -> dict[str, str]:
        """``pairs`` are the CHAP keys of one response; what to answer, empty at the end."""
        if not self.answered and set(pairs) == _CHALLENGE_KEYS:
            return self._answer(pairs)
        if self.answered and not self.done and set(pairs) == _PROOF_KEYS:
            self._verify(pairs)
            return {}
        raise _broken("the target's CHAP keys are missing, or not due now")

    def _answer(self, pairs: Mapping[str, str]) -> dict[str, str]:
        own = self._credentials
        if pairs["CHAP_A"] not in _OFFER.split(","):
            raise _broken("the target chose a CHAP algorithm that was not offered")
        algorithm = self._algorithm = ChapAlgorithm(int(pairs["CHAP_A"]))
        challenge = _binary(pairs["CHAP_C"])
        response = chap_response(algorithm, _identifier(pairs["CHAP_I"]), own.secret, challenge)
        answer = {"CHAP_N": own.user, "CHAP_R": encode_binary(response)}
        self.answered = True
        if own.target_secret is None:
            self.done = True
            return answer
        assert self._random_bytes is not None, "who challenges a target needs a random source"
        self._identifier = self._random_bytes(1)[0]
        self._challenge = self._random_bytes(challenge_length(algorithm))
        assert self._challenge != challenge, "the random source repeats itself"
        return answer | {"CHAP_I": str(self._identifier), "CHAP_C": encode_binary(self._challenge)}

    def _verify(self, pairs: Mapping[str, str]) -> None:
        own = self._credentials
        assert self._algorithm is not None and own.target_secret is not None and own.target_user is not None
        expected = chap_response(self._algorithm, self._identifier, own.target_secret, self._challenge)
        right_name = hmac.compare_digest(pairs["CHAP_N"].encode(), own.target_user.encode())
        if not (right_name & hmac.compare_digest(_binary(pairs["CHAP_R"]), expected)):
            raise TargetNotTrusted
        self.done = True


def _identifier(text: str) -> int:
    try:
        return decode_identifier(text)
    except ValueError as error:
        raise _broken(f"the target's CHAP_I is {error}") from None


def _binary(text: str) -> bytes:
    try:
        return decode_binary(text)
    except ValueError as error:
        raise _broken(f"a CHAP value of the target's is {error}") from None


def _broken(message: str) -> RemoteProtocolError:
    return RemoteProtocolError(message, RejectReason.PROTOCOL_ERROR)
