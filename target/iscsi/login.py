"""What one login negotiates (RFC 7143 §6.3, §13): one request in, one response out.

Who the initiator is and where it comes from decide whether it may log in at all, and whether it has to prove itself
with CHAP. Where it need not, AuthMethod is None, and one that insists on authentication is refused. Discovery sessions
are under the same rules.
"""

from collections.abc import Callable
from typing import Any

from storage_model.errors import RemoteProtocolError
from storage_model.nexus import ITNexus, is_name_length
from storage_model.spec.iscsi_chap import CHAP_KEYS
from storage_model.spec.iscsi_pdu import LoginRequestPdu, LoginResponsePdu, LoginStatus, Stage
from storage_model.spec.iscsi_text import (
    IRRELEVANT,
    KEYS,
    NONE,
    NOT_UNDERSTOOD,
    REJECT,
    RESERVED_VALUES,
    Kind,
    Use,
    format_text,
    in_range,
    negotiate,
    parse_text,
)
from target.iscsi.access import EVERYBODY, AccessControl
from target.iscsi.chap import TargetChap
from target.iscsi.events import Limits, LoginRedirected, TargetDescription
from target.iscsi.session import SessionParameters

MAX_RECV_DATA_SEGMENT_LENGTH = 262144
_NEXT_STAGES = (Stage.LOGIN_OPERATIONAL_NEGOTIATION, Stage.FULL_FEATURE_PHASE)

# What we answer with; the outcome is made of this and the initiator's offer by the key's rule.
OWN_VALUES = {
    "AuthMethod": NONE,  # CHAP where the access rule has an account
    "HeaderDigest": "CRC32C,None",
    "DataDigest": "CRC32C,None",
    "MaxConnections": "1",
    "InitialR2T": "No",
    "ImmediateData": "Yes",
    "MaxBurstLength": "1048576",
    "DefaultTime2Wait": "0",
    "DefaultTime2Retain": "0",  # ErrorRecoveryLevel 0: a lost connection is a lost nexus, at once
    "MaxOutstandingR2T": "8",
    "DataPDUInOrder": "Yes",
    "DataSequenceInOrder": "Yes",
    "ErrorRecoveryLevel": "0",
    "TaskReporting": "RFC3720",
    "iSCSIProtocolLevel": "1",
    "IFMarker": "No",
    "OFMarker": "No",
}


def _is_crc32c(value: str) -> bool:
    return value == "CRC32C"


def _is_yes(value: str) -> bool:
    return value == "Yes"


# Which outcome becomes which session parameter.
_OUTCOMES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "HeaderDigest": ("header_digest", _is_crc32c),
    "DataDigest": ("data_digest", _is_crc32c),
    "InitialR2T": ("initial_r2t", _is_yes),
    "ImmediateData": ("immediate_data", _is_yes),
    "MaxBurstLength": ("max_burst_length", int),
    "FirstBurstLength": ("first_burst_length", int),
    "MaxOutstandingR2T": ("max_outstanding_r2t", int),
}


_NAMING_KEYS = frozenset({"InitiatorName", "TargetName", "SessionType"})
"""Once is enough (§6.3.1), but libiscsi says them again after a security stage without authentication."""

# As sets: asking a Flag or an Enum takes longer than all the rest that a key takes.
_LOGIN_KEYS = frozenset(key for key, rule in KEYS.items() if Use.LOGIN in rule.use)
_NORMAL_ONLY_KEYS = frozenset(key for key, rule in KEYS.items() if Use.NORMAL_ONLY in rule.use)
_DECLARATIVE_KEYS = frozenset(key for key, rule in KEYS.items() if rule.kind is Kind.DECLARATIVE)
_OBSOLETE_KEYS = frozenset(key for key, rule in KEYS.items() if rule.kind is Kind.OBSOLETE)


class LoginNegotiation:
    """Follows one login from its first request to the response that ends it.

    ``receive`` raises RemoteProtocolError, its reason a :class:`LoginStatus`, when the login fails. After ``complete``
    the attributes say what was agreed; until the first whole text has come they are empty. ``peer_host`` is the
    initiator's address. ``close`` must be called when the login is over, whatever its end.
    """

    def __init__(
        self, target: TargetDescription, limits: Limits, access: AccessControl | None = None, peer_host: str = ""
    ) -> None:
        self.initiator_name = ""
        self.isid = bytes(6)
        self.tsih = 0
        self.cid = 0
        self.discovery = False
        self.complete = False
        self.parameters = SessionParameters()
        self.rule = EVERYBODY
        self._access = access or AccessControl()
        self._peer_host = peer_host
        self._chap: TargetChap | None = None  # from the choice of AuthMethod on
        self._target = target
        self._limits = limits
        self._stage: Stage | None = None
        self._text = b""
        self._seen: dict[str, str] = {}
        self._requests = 0
        self._bytes = 0
        self._named = False
        self._declared_length = False

    def receive(self, request: LoginRequestPdu) -> LoginResponsePdu:
        """The response, without its sequence numbers and, when it completes the login, without the new TSIH."""
        self._account(request)
        self._check_header(request)
        stage = Stage(request.csg)
        self._text += bytes(request.data)
        if request.cont:
            return LoginResponsePdu(csg=stage, isid=self.isid, tsih=self.tsih, itt=request.itt)
        pairs, self._text = parse_text(self._text), b""
        answers = self._declarations(stage, pairs)
        self._check_stage(stage)
        proof = {key: pairs.pop(key) for key in CHAP_KEYS if key in pairs}
        for key, value in pairs.items():
            answer = self._answer(key, value)
            if answer is not None:
                answers.append((key, answer))
        if proof:
            answers += self._authenticate(proof)
        transit = request.transit and self._may_leave()
        if transit:
            self._stage = Stage(request.nsg)
            self.complete = self._stage is Stage.FULL_FEATURE_PHASE
        if self._target.redirect:
            self._redirect(stage)
        if self.complete:
            self._settle()
        return LoginResponsePdu(
            transit=transit,
            csg=stage,
            nsg=request.nsg if transit else 0,
            isid=self.isid,
            tsih=self.tsih,
            itt=request.itt,
            data=format_text(answers),
        )

    @property
    def nexus(self) -> ITNexus | None:
        """Of the session that the login opens; None for a discovery session."""
        return None if self.discovery else ITNexus(self.initiator_name, self.isid, self._target.tpgt)

    def _redirect(self, stage: Stage) -> None:
        """A redirection may come before authentication, but must be accepted only after it (§11.13.5): so that is when
        it comes, where authentication is required; else in the first response. Discovery is served here all the same.
        """
        if not self.discovery and (self.rule.chap is None or self.complete or stage is not Stage.SECURITY_NEGOTIATION):
            raise LoginRedirected(self._target.redirect)

    def close(self) -> None:
        """The login has ended, or the connection with it. A session keeps none of what only the login needed."""
        if self._chap is not None:
            self._chap.close()
        self._text, self._seen = b"", {}

    def access_holds(self) -> bool:
        """Whether the rules of this moment let the initiator in with the same account, to the same units."""
        if not self.initiator_name:
            return True
        rule = self._access.rule_for(self.initiator_name, self._peer_host)
        return rule is not None and (rule.mask, rule.chap) == (self.rule.mask, self.rule.chap)

    def visible(self) -> bool:
        """Whether the target exists for this initiator, by the rules of this moment."""
        return self._access.rule_for(self.initiator_name, self._peer_host) is not None

    def _account(self, request: LoginRequestPdu) -> None:
        self._requests += 1
        self._bytes += len(request.data)
        if self._requests > self._limits.login_requests or self._bytes > self._limits.login_bytes:
            raise RemoteProtocolError("login is longer than we allow", LoginStatus.INITIATOR_ERROR)

    def _check_header(self, request: LoginRequestPdu) -> None:
        if request.version_min > 0:
            raise RemoteProtocolError(f"version {request.version_min} or higher", LoginStatus.UNSUPPORTED_VERSION)
        if self._stage is None:
            self.isid, self.tsih, self.cid = request.isid, request.tsih, request.cid
            if request.csg in (Stage.SECURITY_NEGOTIATION, Stage.LOGIN_OPERATIONAL_NEGOTIATION):
                self._stage = Stage(request.csg)
        elif (self.isid, self.tsih, self.cid) != (request.isid, request.tsih, request.cid):
            raise RemoteProtocolError("ISID, TSIH or CID changes during login", LoginStatus.INITIATOR_ERROR)
        if request.csg != self._stage:
            raise RemoteProtocolError(f"stage {request.csg} is not the current one", LoginStatus.INITIATOR_ERROR)
        if request.transit:
            forward = request.nsg > request.csg and request.nsg in _NEXT_STAGES
            if not forward or request.cont:
                raise RemoteProtocolError("T bit with C bit or to an impossible stage", LoginStatus.INITIATOR_ERROR)

    def _declarations(self, stage: Stage, pairs: dict[str, str]) -> list[tuple[str, str]]:
        """What we say without being asked: who we are, once, and our MaxRecvDataSegmentLength, in its stage."""
        declarations: list[tuple[str, str]] = []
        if not self._named:
            self._identify(pairs)
            self._named = True
            if not self.discovery:
                # The leading response names the portal group (§13.9).
                declarations.append(("TargetPortalGroupTag", str(self._target.tpgt)))
                if self._target.alias:
                    declarations.append(("TargetAlias", self._target.alias))
        if stage is Stage.LOGIN_OPERATIONAL_NEGOTIATION and not self._declared_length:
            self._declared_length = True
            self.parameters.max_recv_data_segment_length = MAX_RECV_DATA_SEGMENT_LENGTH
            declarations.append(("MaxRecvDataSegmentLength", str(MAX_RECV_DATA_SEGMENT_LENGTH)))
        return declarations

    def _identify(self, pairs: dict[str, str]) -> None:
        """InitiatorName, SessionType and TargetName must be in the first request (§6.3.1, §13.4, §13.5, §13.21)."""
        name = pairs.get("InitiatorName", "")
        if not name:
            raise RemoteProtocolError("no InitiatorName", LoginStatus.MISSING_PARAMETER)
        if not is_name_length(name) or not name.isprintable():
            raise RemoteProtocolError("InitiatorName is not an iSCSI name", LoginStatus.INITIATOR_ERROR)
        self.initiator_name = name
        session_type = pairs.get("SessionType", "Normal")
        if session_type not in ("Normal", "Discovery"):
            raise RemoteProtocolError("unknown SessionType", LoginStatus.SESSION_TYPE_NOT_SUPPORTED)
        self.discovery = session_type == "Discovery"
        target_name = pairs.get("TargetName")
        if target_name is None and not self.discovery:
            raise RemoteProtocolError("no TargetName", LoginStatus.MISSING_PARAMETER)
        if target_name is not None and target_name.lower() != self._target.iqn.lower():
            raise RemoteProtocolError(f"no target of the name {target_name!r}", LoginStatus.NOT_FOUND)
        rule = self._access.rule_for(name, self._peer_host)
        if rule is None:
            raise RemoteProtocolError("no access rule for this initiator", LoginStatus.AUTHORIZATION_FAILURE)
        self.rule = rule

    @property
    def _proved(self) -> bool:
        """The initiator has done what its access rule asks for."""
        return self.rule.chap is None or (self._chap is not None and self._chap.done)

    def _check_stage(self, stage: Stage) -> None:
        """Past the security stage, or around it, only who needs no proof or has given it (§6.3.2)."""
        if stage is not Stage.SECURITY_NEGOTIATION and not self._proved:
            raise RemoteProtocolError("initiator leaves out authentication", LoginStatus.AUTHENTICATION_FAILURE)

    def _may_leave(self) -> bool:
        """The T bit is an offer: in the middle of CHAP it is not taken up, and without any AuthMethod it is the end."""
        if self._proved:
            return True
        if self._chap is None:
            raise RemoteProtocolError("initiator offers no authentication", LoginStatus.AUTHENTICATION_FAILURE)
        return False

    def _authenticate(self, proof: dict[str, str]) -> list[tuple[str, str]]:
        if self._chap is None or self._stage is not Stage.SECURITY_NEGOTIATION:
            raise RemoteProtocolError("CHAP keys, but CHAP was not agreed upon", LoginStatus.INITIATOR_ERROR)
        return self._chap.receive(proof)

    def _auth_method(self, offered: str) -> str:
        """What the access rule asks for must be among the offers (§12.1)."""
        account = self.rule.chap
        answer = negotiate("AuthMethod", offered, OWN_VALUES["AuthMethod"] if account is None else "CHAP")
        if answer == REJECT:
            reason = "initiator insists on authentication" if account is None else "initiator does not offer CHAP"
            raise RemoteProtocolError(reason, LoginStatus.AUTHENTICATION_FAILURE)
        if account is not None:
            self._chap = TargetChap(account, self.rule.mutual, self._access.challenges)
        return answer

    def _answer(self, key: str, value: str) -> str | None:
        """Our answer to one key, or None where none is due. The outcome goes into ``parameters``."""
        if key in _NAMING_KEYS and self._seen.get(key) == value:
            return None
        if key in self._seen or len(self._seen) >= self._limits.login_keys:
            raise RemoteProtocolError(f"{key!r} again, or too many keys", LoginStatus.INITIATOR_ERROR)
        self._seen[key] = value
        if key not in KEYS:
            return NOT_UNDERSTOOD
        if key not in _LOGIN_KEYS or value in RESERVED_VALUES:
            raise RemoteProtocolError(f"{key} cannot be negotiated so in a login", LoginStatus.INITIATOR_ERROR)
        if key in _DECLARATIVE_KEYS:
            self._declared(key, value)
            return None
        if key in _OBSOLETE_KEYS:
            return REJECT
        if self.discovery and key in _NORMAL_ONLY_KEYS:
            return IRRELEVANT
        if key == "AuthMethod":
            return self._auth_method(value)
        own = str(self._limits.first_burst_length) if key == "FirstBurstLength" else OWN_VALUES[key]
        answer = negotiate(key, value, own)
        if answer != REJECT and key in _OUTCOMES:
            name, convert = _OUTCOMES[key]
            setattr(self.parameters, name, convert(answer))
        return answer

    def _declared(self, key: str, value: str) -> None:
        if key == "MaxRecvDataSegmentLength":
            length = in_range(key, value)
            if length is None:
                raise RemoteProtocolError("MaxRecvDataSegmentLength out of range", LoginStatus.INITIATOR_ERROR)
            self.parameters.initiator_max_recv_data_segment_length = length

    def _settle(self) -> None:
        """FirstBurstLength must not exceed MaxBurstLength (§13.14); where the offers say so, the smaller rules."""
        self.parameters.first_burst_length = min(self.parameters.first_burst_length, self.parameters.max_burst_length)
