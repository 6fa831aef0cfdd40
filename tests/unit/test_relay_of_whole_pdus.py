"""The relay, which lets most bytes pass unread, against a model that handles every PDU whole and by itself.

Whatever both sides send, in whatever pieces it arrives: the same bytes come out at the same time, and the same events.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initiator_shim.relay import ArbitrationNeeded, Relay
from storage_model.errors import RemoteProtocolError
from storage_model.spec.iscsi_codes import lun_from_bytes, lun_to_bytes
from storage_model.spec.iscsi_pdu import (
    AsyncMessagePdu,
    DataInPdu,
    DataOutPdu,
    LogoutRequestPdu,
    LogoutResponsePdu,
    NopInPdu,
    NopOutPdu,
    Pdu,
    R2TPdu,
    RejectPdu,
    ScsiCommandPdu,
    ScsiResponsePdu,
    TaskManagementRequestPdu,
    TaskManagementResponsePdu,
    TextRequestPdu,
    TextResponsePdu,
)
from storage_model.spec.iscsi_stream import EncodablePdu, encode_pdu
from tests.unit.test_relay import SHIM, Bench

GOOD, CONFLICT = 0x00, 0x18
TAGS, LUNS = st.integers(1, 4), st.integers(0, 1)
DATA = st.binary(max_size=40)


@dataclass
class Reserve:
    itt: int
    lun: int
    aborted: bool = False


@dataclass
class WholePdus:
    """Figures 5 and 6 on PDUs: what goes to either side, and the RESERVE commands that were announced."""

    to_array: list[EncodablePdu] = field(default_factory=list)
    to_host: list[EncodablePdu] = field(default_factory=list)
    announced: list[tuple[int, int]] = field(default_factory=list)
    sent: dict[int, Reserve] = field(default_factory=dict)
    held: tuple[Reserve, ScsiResponsePdu] | None = None
    held_back: list[Pdu] = field(default_factory=list)
    logout_itt: int | None = None
    logged_out: bool = False

    def from_host(self, pdu: Pdu) -> None:
        match pdu:
            case ScsiCommandPdu():
                self.sent.pop(pdu.itt, None)
                if pdu.cdb[0] in (0x16, 0x56):
                    self.sent[pdu.itt] = Reserve(pdu.itt, lun_from_bytes(pdu.lun))
            case TaskManagementRequestPdu():
                for reserve in self.open():
                    unit = pdu.function in (2, 4, 5) and lun_from_bytes(pdu.lun) == reserve.lun
                    task = pdu.function == 1 and pdu.referenced_task_tag == reserve.itt
                    reserve.aborted |= unit or task or pdu.function in (6, 7)
            case LogoutRequestPdu():
                self.logout_itt = pdu.itt
                for reserve in self.open():
                    reserve.aborted = True
        self.to_array.append(pdu)

    def open(self) -> list[Reserve]:
        return [*self.sent.values(), *([self.held[0]] if self.held else [])]

    def from_array(self, pdu: Pdu) -> None:
        if self.held is not None:
            self.held_back.append(pdu)
            return
        match pdu:
            case ScsiResponsePdu() if (reserve := self.sent.pop(pdu.itt, None)) and not pdu.response | pdu.status:
                self.held = reserve, pdu
                self.announced.append((reserve.itt, reserve.lun))
                return
            case DataInPdu() if pdu.status_present and pdu.itt in self.sent:
                raise RemoteProtocolError("data for a RESERVE", 4)
            case LogoutResponsePdu() if pdu.itt == self.logout_itt:
                self.logged_out = pdu.response == 0
            case RejectPdu():
                self.sent.pop(int.from_bytes(pdu.data[16:20]), None)
        self.to_host.append(pdu)

    def decide(self, won: bool) -> None:
        assert self.held is not None
        reserve, response = self.held
        status = GOOD if won and not reserve.aborted else CONFLICT
        self.to_host.append(
            ScsiResponsePdu(itt=response.itt, status=status, stat_sn=response.stat_sn, data=response.data)
        )
        self.held, held_back, self.held_back = None, self.held_back, []
        for pdu in held_back:
            self.from_array(pdu)


CDBS = st.sampled_from([bytes((operation,)).ljust(16, b"\0") for operation in (0x16, 0x28, 0x2A, 0x56)])
UNITS = LUNS.map(lun_to_bytes)
AHS = st.sampled_from([b"", bytes(8)])
FROM_HOST: st.SearchStrategy[Pdu] = st.one_of(
    st.builds(ScsiCommandPdu, st.booleans(), itt=TAGS, lun=UNITS, cdb=CDBS, data=DATA, ahs=AHS),
    st.builds(DataOutPdu, itt=TAGS, data=DATA),
    st.builds(NopOutPdu, itt=TAGS, data=DATA),
    st.builds(TaskManagementRequestPdu, function=st.integers(1, 7), lun=UNITS, referenced_task_tag=TAGS, itt=TAGS),
    st.builds(TextRequestPdu, itt=TAGS, data=st.sampled_from([b"", b"X-a=b\0", b"a\0"])),
    st.builds(LogoutRequestPdu, itt=TAGS),
)  # fmt: skip
FROM_ARRAY: st.SearchStrategy[Pdu] = st.one_of(
    st.builds(ScsiResponsePdu, itt=TAGS, status=st.sampled_from([GOOD, GOOD, 2]), stat_sn=st.integers(0, 9), data=DATA),
    st.builds(DataInPdu, itt=TAGS, status_present=st.booleans(), data=DATA),
    st.builds(NopInPdu, itt=TAGS, data=DATA),
    st.builds(R2TPdu, itt=TAGS),
    st.builds(TaskManagementResponsePdu, itt=TAGS),
    st.builds(TextResponsePdu, itt=TAGS, data=st.sampled_from([b"", b"X-a=b\0"])),
    st.builds(LogoutResponsePdu, itt=TAGS, response=st.sampled_from([0, 1])),
    st.builds(AsyncMessagePdu, async_event=st.just(0)),
    st.builds(RejectPdu, reason=st.just(4), data=TAGS.map(lambda itt: bytes(16) + itt.to_bytes(4) + bytes(28))),
)  # fmt: skip
CUTS = st.lists(st.integers(0, 300), max_size=6)
STEPS = st.one_of(
    st.tuples(st.just("host"), st.lists(FROM_HOST, max_size=5), CUTS),
    st.tuples(st.just("array"), st.lists(FROM_ARRAY, max_size=5), CUTS),
    st.tuples(st.sampled_from(["won", "lost"]), st.just(list[Pdu]()), st.just(list[int]())),
)


@dataclass
class Compared:
    relay: Relay
    model: WholePdus
    digests: bool
    announced: list[tuple[int, int]] = field(default_factory=list)

    def wire(self, pdus: Sequence[EncodablePdu]) -> bytes:
        return b"".join(b"".join(encode_pdu(pdu, self.digests, self.digests)) for pdu in pdus)

    def step(self, side: str, pdus: list[Pdu], cuts: list[int]) -> bytes | None:
        """Both do it; None when the model says that the array has broken the protocol."""
        try:
            for pdu in pdus:
                (self.model.from_host if side == "host" else self.model.from_array)(pdu)
            if side in ("won", "lost") and self.model.held is not None:
                self.model.decide(side == "won")
        except RemoteProtocolError:
            with pytest.raises(RemoteProtocolError):
                self.relayed(side, self.wire(pdus), cuts)
            return None
        return self.relayed(side, self.wire(pdus), cuts)

    def relayed(self, side: str, wire: bytes, cuts: list[int]) -> bytes:
        """What comes out at the other side. All receives are into the same memory, as those of a connection are."""
        out, memory = b"", bytearray(len(wire))
        for start, end in pairwise(sorted({0, *(min(cut, len(wire)) for cut in cuts), len(wire)})):
            memory[: end - start] = wire[start:end]
            view = memoryview(memory)[: end - start]
            receive = self.relay.receive_from_host if side == "host" else self.relay.receive_from_array
            self.note(receive(view))
            out += b"".join(self.relay.data_to_array() if side == "host" else self.relay.data_to_host())
        if side in ("won", "lost") and self.announced and self.relay.holds:
            self.note(self.relay.arbitration_decided(self.announced[-1][0], side == "won"))
            out += b"".join(self.relay.data_to_host())
        return out

    def note(self, events: Sequence[object]) -> None:
        for event in events:
            assert isinstance(event, ArbitrationNeeded)
            self.announced.append((event.itt, event.lun))


@given(steps=st.lists(STEPS, max_size=12), digests=st.booleans())
def test_the_same_comes_out_as_of_whole_pdus(steps: list[tuple[str, list[Pdu], list[int]]], digests: bool) -> None:
    bench = Bench(Relay(SHIM))
    answer = {"HeaderDigest": "CRC32C", "DataDigest": "CRC32C"} if digests else {}
    bench.log_in(answer, answer)
    compared = Compared(bench.relay, WholePdus(), digests)
    model = compared.model
    for side, pdus, cuts in steps:
        out = compared.step(side, pdus, cuts)
        if out is None:
            return
        sent, model.to_array, model.to_host = (model.to_array if side == "host" else model.to_host), [], []
        assert out == compared.wire(sent)
        assert compared.announced == model.announced
        assert bench.relay.logged_out == model.logged_out
        assert bench.relay.holds == (model.held is not None)
