"""The login phase as the initiator plays it (RFC 7143 §6.3), sans-IO: a Login Response in, a Login Request out.

Two stages: security negotiation, where ``AuthMethod`` is offered (``None`` for now; CHAP would be further exchanges of
that stage), then operational negotiation, where every key that we care about is offered at once.
"""

from dataclasses import dataclass, field

from initiator_shim.session_errors import LoginRedirected, LoginRefused
from storage_model.errors import RemoteProtocolError
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

    Raises LoginRefused, LoginRedirected, or RemoteProtocolError (reason: a RejectReason).
    """

    parameters: SessionParameters
    cmd_sn: int
    itt: int = 0
    result: Negotiated = field(default_factory=Negotiated)
    exp_stat_sn: int = 0
    _stage: Stage = Stage.SECURITY_NEGOTIATION
    _offered: dict[str, str] = field(default_factory=dict)
    _text: bytearray = field(default_factory=bytearray)
    _answers: dict[str, str] = field(default_factory=dict)
    _exchanges: int = 0

    def first_request(self) -> LoginRequestPdu:
        """Names, session type and the authentication methods we offer."""
        own = self.parameters
        pairs = {"InitiatorName": own.initiator_name}
        if own.target_name is None:
            pairs["SessionType"] = "Discovery"
        else:
            pairs |= {"SessionType": "Normal", "TargetName": own.target_name}
        pairs["AuthMethod"] = NONE
        self._offered["AuthMethod"] = NONE
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
        answers = self._take(received)
        if not response.transit:
            return self._request(answers)
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
