"""The login phase as the initiator plays it (RFC 7143 §6.3), sans-IO: a Login Response in, a Login Request out.

Two stages: security negotiation, where ``AuthMethod`` is offered and, if the target chooses it, CHAP takes two or three
exchanges; then operational negotiation, where every key that we care about is offered at once.
"""

from dataclasses import dataclass, field

from initiator_shim.initiator_chap import ChapCredentials, InitiatorChap, RandomBytes
from initiator_shim.session_errors import LoginRedirected, LoginRefused, TargetNotTrusted
from storage_model.errors import RemoteProtocolError
from storage_model.spec.iscsi_chap import CHAP_KEYS
from storage_model.spec.iscsi_codes import LoginStatus, RejectReason, Stage
from storage_model.spec.iscsi_pdu import LoginRequestPdu, LoginResponsePdu
from storage_model.spec.iscsi_text import (
    KEYS,
    NO,
    NONE,
    NOT_UNDERSTOOD,
    RESERVED_VALUES,
    YES,
    Kind,
    format_text,
    in_range,
    negotiate,
    parse_text,
)

_EXCHANGES_MAX = 32  # a target that never lets the login end is a broken one
_TEXT_BYTES_MAX = 65536


@dataclass(frozen=True, slots=True)
class SessionParameters:
    """What we ask for at login. ``target_name`` None makes it a discovery session. Lengths in bytes.

    With ``chap`` we can prove ourselves, if asked to, and insist on the target's proof where it has a target's secret.
    ``header_digest`` and ``data_digest`` are lists in order of preference, as they stand in the login text.
    """

    initiator_name: str
    isid: bytes
    target_name: str | None = None
    header_digest: str = NONE
    data_digest: str = NONE
    max_recv_data_segment_length: int = 262144
    max_burst_length: int = 262144
    first_burst_length: int = 65536
    max_outstanding_r2t: int = 8
    initial_r2t: bool = False
    immediate_data: bool = True
    chap: ChapCredentials | None = None

    @property
    def auth_method(self) -> str:
        """Without authentication only where the target's own proof is not asked for."""
        if self.chap is None:
            return NONE
        return f"CHAP,{NONE}" if self.chap.target_secret is None else "CHAP"


@dataclass(slots=True)
class Negotiated:
    """What holds for the session. The defaults are RFC 7143 §13's, for keys the target never answered."""

    tsih: int = 0
    header_digest: bool = False
    data_digest: bool = False
    target_max_recv_data_segment_length: int = 8192
    max_burst_length: int = 262144
    first_burst_length: int = 65536
    initial_r2t: bool = True
    immediate_data: bool = True
    target_portal_group_tag: int | None = None


@dataclass(slots=True)
class InitiatorLogin:
    """Feed each Login Response to :meth:`receive`; send what it returns; None means the session is in full feature.

    Raises LoginRefused, LoginRedirected, TargetNotTrusted, or RemoteProtocolError (reason: a RejectReason).
    ``random_bytes`` is for mutual CHAP.
    """

    parameters: SessionParameters
    cmd_sn: int
    itt: int = 0
    random_bytes: RandomBytes | None = field(default=None, repr=False)
    result: Negotiated = field(default_factory=Negotiated)
    exp_stat_sn: int = 0
    _stage: Stage = Stage.SECURITY_NEGOTIATION
    _offered: dict[str, str] = field(default_factory=dict)
    _text: bytearray = field(default_factory=bytearray)
    _answers: dict[str, str] = field(default_factory=dict)
    _exchanges: int = 0
    _chap: InitiatorChap | None = None

    def first_request(self) -> LoginRequestPdu:
        """Names, session type and the authentication methods we offer."""
        own = self.parameters
        pairs = {"InitiatorName": own.initiator_name}
        if own.target_name is None:
            pairs["SessionType"] = "Discovery"
        else:
            pairs |= {"SessionType": "Normal", "TargetName": own.target_name}
        pairs["AuthMethod"] = self._offered["AuthMethod"] = own.auth_method
        return self._request(pairs)

    def receive(self, response: LoginResponsePdu) -> LoginRequestPdu | None:
        self._exchanges += 1
        if self._exchanges > _EXCHANGES_MAX:
            raise _broken("the target does not let the login end")
        self._check_status(response)
        self.exp_stat_sn = (response.stat_sn + 1) % (1 << 32)
        self._text += bytes(response.data)
        if len(self._text) > _TEXT_BYTES_MAX:
            raise _broken("the target's login text has no end")
        if response.cont:  # §6.2: an empty request asks for the rest
            return self._request({}, transit=False)
        received = parse_text(self._text)
        self._text.clear()
        proof = {key: received.pop(key) for key in CHAP_KEYS if key in received}
        answers = self._take(received) | self._authenticate(proof)
        if not response.transit:
            return self._request(answers, transit="CHAP_A" not in answers)
        self._check_authenticated()
        if response.csg != self._stage:
            raise _broken(f"the target answers in stage {response.csg}, we are in {self._stage}")
        if response.nsg == Stage.FULL_FEATURE_PHASE:
            self.result.tsih = response.tsih
            return None
        if response.nsg != Stage.LOGIN_OPERATIONAL_NEGOTIATION or self._stage != Stage.SECURITY_NEGOTIATION:
            raise _broken(f"the target goes from login stage {self._stage} to {response.nsg}")
        self._stage = Stage.LOGIN_OPERATIONAL_NEGOTIATION
        self._offered |= self._operational_offer()
        return self._request(answers | self._operational_offer())

    def _check_status(self, response: LoginResponsePdu) -> None:
        if response.status >> 8 == LoginStatus.TARGET_MOVED_TEMPORARILY >> 8:
            address = parse_text(response.data).get("TargetAddress", "")
            raise LoginRedirected(address.partition(",")[0])
        if response.status != LoginStatus.SUCCESS:
            raise LoginRefused(response.status)

    def _authenticate(self, proof: dict[str, str]) -> dict[str, str]:
        """What CHAP has us say next; ``proof`` are the target's CHAP keys."""
        if self._chap is None:
            if proof:
                raise _broken("the target sends CHAP keys that nobody asked for")
            return {}
        if proof:
            return self._chap.receive(proof)
        return {} if self._chap.answered else self._chap.offer()

    def _check_authenticated(self) -> None:
        """The stage may end only when both have said what they must."""
        chap = self.parameters.chap
        if self._stage != Stage.SECURITY_NEGOTIATION or chap is None:
            return
        if self._chap is None and chap.target_secret is None:
            return  # it asked for nothing, and so do we
        if self._chap is None or not self._chap.done:
            raise TargetNotTrusted("the target leaves out CHAP")

    def _operational_offer(self) -> dict[str, str]:
        own = self.parameters
        offer = {
            "HeaderDigest": own.header_digest,
            "DataDigest": own.data_digest,
            "MaxRecvDataSegmentLength": str(own.max_recv_data_segment_length),
            "DefaultTime2Wait": "0",
            "DefaultTime2Retain": "0",
            "ErrorRecoveryLevel": "0",
        }
        if own.target_name is None:
            return offer
        return offer | {
            "InitialR2T": YES if own.initial_r2t else NO,
            "ImmediateData": YES if own.immediate_data else NO,
            "MaxBurstLength": str(own.max_burst_length),
            "FirstBurstLength": str(own.first_burst_length),
            "MaxOutstandingR2T": str(own.max_outstanding_r2t),
            "MaxConnections": "1",
            "DataPDUInOrder": YES,
            "DataSequenceInOrder": YES,
        }

    def _request(self, pairs: dict[str, str], transit: bool = True) -> LoginRequestPdu:
        security = self._stage == Stage.SECURITY_NEGOTIATION
        following = Stage.LOGIN_OPERATIONAL_NEGOTIATION if security else Stage.FULL_FEATURE_PHASE
        return LoginRequestPdu(
            transit=transit,
            csg=self._stage,
            nsg=following if transit else Stage.SECURITY_NEGOTIATION,
            isid=self.parameters.isid,
            itt=self.itt,
            cmd_sn=self.cmd_sn,
            exp_stat_sn=self.exp_stat_sn,
            data=format_text(pairs),
        )

    def _take(self, received: dict[str, str]) -> dict[str, str]:
        """Applies the target's values; answers those it offered on its own account."""
        answers: dict[str, str] = {}
        for key, value in received.items():
            rule = KEYS.get(key)
            if rule is None:
                answers[key] = NOT_UNDERSTOOD
            elif rule.kind is Kind.DECLARATIVE:
                self._apply(key, value)
            elif key in self._offered:
                if value not in RESERVED_VALUES:
                    self._apply(key, self._confirmed(key, value))
            elif rule.default is not None:
                answers[key] = negotiate(key, value, rule.default)
        return answers

    def _confirmed(self, key: str, value: str) -> str:
        """The outcome of a key that we offered: what the rule makes of our value and the target's answer (§6.2)."""
        offered = self._offered[key]
        if KEYS[key].kind is Kind.LIST:
            if value not in offered.split(","):
                raise _broken(f"the target chose {key}={value}, offered was {offered}")
            return value
        outcome = negotiate(key, value, offered)
        if outcome in RESERVED_VALUES:
            raise _broken(f"the target answered {key}={value}")
        return outcome

    def _apply(self, key: str, value: str) -> None:
        result = self.result
        match key:
            case "AuthMethod":
                if value == "CHAP":
                    assert self.parameters.chap is not None, "only what was offered is applied"
                    self._chap = self._chap or InitiatorChap(self.parameters.chap, self.random_bytes)
            case "HeaderDigest":
                result.header_digest = value != NONE
            case "DataDigest":
                result.data_digest = value != NONE
            case "InitialR2T":
                result.initial_r2t = value == YES
            case "ImmediateData":
                result.immediate_data = value == YES
            case "MaxRecvDataSegmentLength":
                result.target_max_recv_data_segment_length = _number(key, value)
            case "MaxBurstLength":
                result.max_burst_length = _number(key, value)
            case "FirstBurstLength":
                result.first_burst_length = _number(key, value)
            case "TargetPortalGroupTag":
                result.target_portal_group_tag = int(value) if value.isdecimal() else None


def _number(key: str, value: str) -> int:
    number = in_range(key, value)
    if number is None:
        raise _broken(f"the target answered {key}={value}")
    return number


def _broken(message: str) -> RemoteProtocolError:
    return RemoteProtocolError(message, RejectReason.PROTOCOL_ERROR)
