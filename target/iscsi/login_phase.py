"""The login phase of one connection (RFC 7143 §6.3): answers each request, and tells as an event how it ended."""

from dataclasses import replace

from storage_model.errors import RemoteProtocolError
from storage_model.spec.iscsi_pdu import LoginRequestPdu, LoginResponsePdu, LoginStatus, Opcode
from storage_model.spec.iscsi_stream import RawPdu
from storage_model.spec.iscsi_text import format_text
from target.iscsi.events import ConnectionEnded, LoginCompleted, LoginRedirected
from target.iscsi.login import LoginNegotiation
from target.iscsi.outgoing import Outgoing


class LoginPhase:
    """Carries one negotiation until the session exists or cannot be; the last response waits for its TSIH."""

    def __init__(self, negotiation: LoginNegotiation, outgoing: Outgoing) -> None:
        self._negotiation = negotiation
        self._outgoing = outgoing
        self._first_request = True
        self._last_response: LoginResponsePdu | None = None

    def receive(self, raw: RawPdu) -> LoginCompleted | ConnectionEnded | None:
        """None while the negotiation goes on. Raises RemoteProtocolError for what is not a Login Request at all."""
        if raw.opcode != Opcode.LOGIN_REQUEST:
            error = RemoteProtocolError("PDU other than Login during login", LoginStatus.INVALID_DURING_LOGIN)
            return self._fail(LoginResponsePdu(itt=raw.itt), error)
        request = LoginRequestPdu.decode(raw.bhs, raw.ahs, raw.data)
        if self._first_request:
            self._first_request = False
            # Login is immediate: the first command has the same number (§11.12.8).
            self._outgoing.window.exp_cmd_sn = request.cmd_sn
        login = self._negotiation
        try:
            response = login.receive(request)
        except RemoteProtocolError as error:
            refused = LoginResponsePdu(csg=request.csg, isid=request.isid, tsih=request.tsih, itt=request.itt)
            return self._fail(refused, error)
        if not login.complete:
            self._send(response)
            return None
        self._last_response = response
        return LoginCompleted(login.initiator_name, login.isid, login.tsih, login.nexus, login.rule)

    def accept(self, tsih: int) -> None:
        """The session exists: the last response goes out."""
        assert self._last_response is not None
        self._send(self._last_response, tsih)
        self._last_response = None

    def refuse(self, status: int, reason: str) -> ConnectionEnded:
        """The session cannot be; ``status`` is a LoginStatus."""
        assert self._last_response is not None
        return self._fail(self._last_response, RemoteProtocolError(reason, status))

    def _send(self, response: LoginResponsePdu, tsih: int | None = None) -> None:
        window = self._outgoing.window
        self._outgoing.send(
            LoginResponsePdu(  # in full: ``replace`` takes longer than the rest of this
                transit=response.transit,
                csg=response.csg,
                nsg=response.nsg,
                isid=response.isid,
                tsih=response.tsih if tsih is None else tsih,
                itt=response.itt,
                stat_sn=self._outgoing.take_stat_sn(),
                exp_cmd_sn=window.exp_cmd_sn,
                max_cmd_sn=window.max_cmd_sn,
                status=response.status,
                data=response.data,
            )
        )

    def _fail(self, response: LoginResponsePdu, error: RemoteProtocolError) -> ConnectionEnded:
        moved_to = error.address if isinstance(error, LoginRedirected) else ""
        # Without a portal group tag, which belongs to SendTargets' answers only (§13.8).
        data = format_text({"TargetAddress": moved_to}) if moved_to else b""
        self._send(replace(response, transit=False, nsg=0, status=error.reason, data=data))
        reason = f"login {error}" if moved_to else f"login refused with status {error.reason:04X}h: {error}"
        return ConnectionEnded(reason, expected=bool(moved_to))
