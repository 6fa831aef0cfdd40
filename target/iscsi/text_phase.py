"""Text requests in the full feature phase: SendTargets and the few keys that may be negotiated then (§6.4, App. C)."""

from collections.abc import Callable

from storage_model.errors import RemoteProtocolError
from storage_model.spec.iscsi_pdu import RESERVED_TAG, RejectReason, TextRequestPdu
from storage_model.spec.iscsi_text import (
    KEYS,
    NOT_UNDERSTOOD,
    REJECT,
    RESERVED_VALUES,
    Use,
    format_text,
    in_range,
    parse_text,
)
from target.iscsi.events import Limits, TargetDescription
from target.iscsi.session import SessionParameters


class TextPhase:
    """One text negotiation at a time: requests continued with the C bit, answers cut to what the initiator takes."""

    def __init__(
        self,
        target: TargetDescription,
        local_address: str,
        parameters: SessionParameters,
        discovery: bool,
        limits: Limits,
        visible: Callable[[], bool] = lambda: True,
    ) -> None:
        self._target = target
        self._local_address = local_address
        self._parameters = parameters
        self._discovery = discovery
        self._limits = limits
        self._visible = visible
        self._itt = RESERVED_TAG
        self._text = b""
        self._pieces = 0
        self._answer = b""
        self._answering = False
        self._last_ttt = 0

    def receive(self, request: TextRequestPdu) -> tuple[bool, bool, int, bytes]:
        """F bit, C bit, Target Transfer Tag and data of the Text Response.

        Raises RemoteProtocolError (a RejectReason).
        """
        if request.itt == RESERVED_TAG:  # it stands for "no negotiation" here
            raise RemoteProtocolError("Text Request with a reserved ITT", RejectReason.INVALID_PDU_FIELD)
        if request.ttt == RESERVED_TAG or request.itt != self._itt:
            if request.ttt != RESERVED_TAG:
                raise RemoteProtocolError("Text Request goes on with nothing", RejectReason.PROTOCOL_ERROR)
            self._itt, self._text, self._pieces, self._answer, self._answering = request.itt, b"", 0, b"", False
        elif request.ttt != self._last_ttt:
            raise RemoteProtocolError("Text Request with a wrong TTT", RejectReason.PROTOCOL_ERROR)
        if not self._answering:
            self._text += bytes(request.data)
            self._pieces += 1  # an empty one counts, too
            if len(self._text) > self._limits.text_bytes or self._pieces > self._limits.text_requests:
                self._itt, self._text = RESERVED_TAG, b""
                raise RemoteProtocolError("text is longer than we allow", RejectReason.PROTOCOL_ERROR)
            if request.cont:
                return False, False, self._next_ttt(), b""
            self._answer = format_text(self._answers())
            self._answering = True
        return self._next_piece(request.final)

    def _next_ttt(self) -> int:
        self._last_ttt = (self._last_ttt + 1) % RESERVED_TAG
        return self._last_ttt

    def _next_piece(self, final: bool) -> tuple[bool, bool, int, bytes]:
        limit = self._parameters.initiator_max_recv_data_segment_length
        piece, self._answer = self._answer[:limit], self._answer[limit:]
        if self._answer:
            return False, True, self._next_ttt(), piece
        if not final:  # the initiator keeps the negotiation open (§6.4)
            self._text, self._pieces, self._answering = b"", 0, False
            return False, False, self._next_ttt(), piece
        self._itt = RESERVED_TAG
        return True, False, RESERVED_TAG, piece

    def _answers(self) -> list[tuple[str, str]]:
        try:
            pairs = parse_text(self._text)
        except RemoteProtocolError as error:
            self._itt = RESERVED_TAG
            raise RemoteProtocolError(str(error), RejectReason.PROTOCOL_ERROR) from None
        answers: list[tuple[str, str]] = []
        for key, value in pairs.items():
            answers += self._answer_one(key, value)
        return answers

    def _answer_one(self, key: str, value: str) -> list[tuple[str, str]]:
        rule = KEYS.get(key)
        if rule is None:
            return [] if value in RESERVED_VALUES else [(key, NOT_UNDERSTOOD)]
        if Use.FULL_FEATURE not in rule.use:
            return [(key, REJECT)]
        if key == "SendTargets":
            return self._send_targets(value)
        if key == "MaxRecvDataSegmentLength":
            length = in_range(key, value)
            if length is None:
                return [(key, REJECT)]
            self._parameters.initiator_max_recv_data_segment_length = length
        return []

    def _send_targets(self, value: str) -> list[tuple[str, str]]:
        """All: only in a discovery session; a name: that target; nothing: the one of this session (Appendix C).

        A target that the initiator may not log in to does not exist for it.
        """
        if (value == "All") != self._discovery and value in ("All", ""):
            return [("SendTargets", REJECT)]
        if value not in ("All", "") and value.lower() != self._target.iqn.lower():
            return []
        if not self._visible():
            return []
        portals = self._target.portals or ((self._local_address, self._target.tpgt),)
        return [
            ("TargetName", self._target.iqn),
            *(("TargetAddress", f"{address},{tag}") for address, tag in portals),
        ]
