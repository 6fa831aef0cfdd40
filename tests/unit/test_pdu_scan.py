"""The scan of one direction: what goes on unseen, in which memory, and what is taken out."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initiator_shim.pdu_scan import Interest, PduScan
from storage_model.errors import RemoteProtocolError
from storage_model.spec.iscsi_codes import Opcode
from storage_model.spec.iscsi_pdu import DataInPdu, NopInPdu, R2TPdu, RejectPdu, ScsiCommandPdu, ScsiResponsePdu
from storage_model.spec.iscsi_stream import EncodablePdu, RawPdu, encode_pdu
from storage_model.volume import Buffer

LONGEST = 1 << 16
RESERVE, READ = bytes((0x16,)).ljust(16, b"\0"), bytes((0x28,)).ljust(16, b"\0")
INTERESTS: dict[int, Interest] = {
    Opcode.SCSI_COMMAND: Interest.TAG_OR_OPERATION,
    Opcode.SCSI_RESPONSE: Interest.TAG,
    Opcode.REJECT: Interest.ALWAYS,
}


class Scanned:
    """A scan in the full feature phase, and what became of what it was given."""

    def __init__(self, *tags: int, digests: bool = False) -> None:
        self.scan = PduScan(8192)
        self.digests = digests
        self.passed: list[Buffer] = []
        self.taken: list[RawPdu] = []
        self.scan.begin_full_feature_phase(
            INTERESTS, tags, (0x16,), header_digest=digests, data_digest=digests, max_data_segment_length=LONGEST
        )

    def wire(self, *pdus: EncodablePdu) -> bytes:
        return b"".join(b"".join(encode_pdu(pdu, self.digests, self.digests)) for pdu in pdus)

    def receive(self, data: Buffer) -> None:
        view, position = memoryview(data), 0
        while position < len(view):
            position, pdu = self.scan.advance(view, position, self.passed)
            self.taken += [pdu] if pdu is not None else []


def test_what_is_of_no_interest_goes_on_in_one_run_of_the_same_memory() -> None:
    scanned = Scanned()
    received = memoryview(scanned.wire(DataInPdu(itt=1, data=b"abc"), R2TPdu(itt=2), ScsiResponsePdu(itt=3)))
    scanned.receive(received)
    (run,) = scanned.passed
    assert isinstance(run, memoryview) and run.obj is received.obj and run == received
    assert scanned.taken == []


def test_what_is_of_interest_is_cut_out_of_its_place() -> None:
    scanned = Scanned(3)
    first, last = DataInPdu(itt=1, data=b"abc"), ScsiResponsePdu(itt=4)
    scanned.receive(scanned.wire(first, ScsiResponsePdu(itt=3, data=b"\0\1s"), last))
    assert scanned.passed == [scanned.wire(first), scanned.wire(last)]
    assert [(pdu.itt, bytes(pdu.data)) for pdu in scanned.taken] == [(3, b"\0\1s")]


@pytest.mark.parametrize(
    ("pdu", "taken"),
    [
        (ScsiCommandPdu(itt=1, cdb=READ), False),
        (ScsiCommandPdu(itt=9, cdb=READ), True),  # its tag
        (ScsiCommandPdu(itt=1, cdb=RESERVE), True),  # its operation code
        (ScsiCommandPdu(itt=1, cdb=RESERVE, immediate=True), True),
        (ScsiCommandPdu(itt=1, cdb=RESERVE, ahs=bytes(8), data=b"d"), True),
        (ScsiResponsePdu(itt=1, exp_data_sn=0x16 << 24), False),  # no operation code, although it stands there
        (ScsiResponsePdu(itt=9), True),
        (RejectPdu(reason=4), True),
        (NopInPdu(itt=9), False),
    ],
)
@pytest.mark.parametrize("digests", [False, True])
def test_interest(pdu: EncodablePdu, taken: bool, digests: bool) -> None:
    scanned = Scanned(9, digests=digests)
    scanned.receive(scanned.wire(pdu, NopInPdu()))
    assert [raw.encode_bhs() for raw in scanned.taken] == ([pdu.encode_bhs()] if taken else [])
    assert b"".join(scanned.passed) == (scanned.wire(NopInPdu()) if taken else scanned.wire(pdu, NopInPdu()))


def test_a_long_pdu_goes_on_before_it_is_whole() -> None:
    scanned = Scanned(9)
    wire = scanned.wire(DataInPdu(itt=1, data=bytes(LONGEST)), ScsiResponsePdu(itt=9))
    scanned.receive(wire[:1000])
    assert b"".join(scanned.passed) == wire[:1000]
    scanned.receive(wire[1000:])
    assert b"".join(scanned.passed) == wire[:-48]
    assert len(scanned.taken) == 1


def test_nothing_refers_to_the_memory_of_an_earlier_receive() -> None:
    scanned = Scanned(9)
    memory = bytearray(1)
    for byte in scanned.wire(ScsiResponsePdu(itt=9, data=b"\0\2ab"), DataInPdu(itt=1, data=b"abcdefg")):
        memory[0] = byte
        scanned.receive(memory)
        scanned.passed[:] = [b"".join(scanned.passed)]  # as written, before the memory is used again
    assert bytes(scanned.taken[0].data) == b"\0\2ab"
    assert scanned.passed == [scanned.wire(DataInPdu(itt=1, data=b"abcdefg"))]


def test_digests_pass_unchecked_where_nothing_is_taken() -> None:
    scanned = Scanned(digests=True)
    damaged = bytearray(scanned.wire(DataInPdu(itt=1, data=b"abc")))
    damaged[20] ^= 1  # the header's
    damaged[-1] ^= 1  # the data's
    scanned.receive(damaged)
    assert b"".join(scanned.passed) == damaged


def test_a_damaged_header_is_not_acted_upon() -> None:
    scanned = Scanned(digests=True)
    damaged = bytearray(scanned.wire(ScsiCommandPdu(cdb=RESERVE)))
    damaged[9] ^= 1
    with pytest.raises(RemoteProtocolError, match="header digest"):
        scanned.receive(damaged)
    assert (scanned.passed, scanned.taken) == ([], [])


@pytest.mark.parametrize("pdu", [DataInPdu(data=bytes(LONGEST + 1)), RejectPdu(data=bytes(LONGEST + 1))])
def test_a_segment_that_is_too_long_ends_it_behind_what_was_sound(pdu: EncodablePdu) -> None:
    scanned = Scanned()
    with pytest.raises(RemoteProtocolError, match="65537 bytes"):
        scanned.receive(scanned.wire(NopInPdu(), pdu))
    assert b"".join(scanned.passed) == scanned.wire(NopInPdu())


def test_in_login_every_pdu_is_taken_and_its_end_may_fall_anywhere() -> None:
    scan, passed = PduScan(8192), list[Buffer]()
    early = b"".join(encode_pdu(NopInPdu(data=b"early")))
    position, pdu = scan.advance(memoryview(early[:50]), 0, passed)
    assert (position, pdu, passed) == (50, None, [])
    scan.begin_full_feature_phase(INTERESTS, (), header_digest=True, data_digest=True, max_data_segment_length=LONGEST)
    position, pdu = scan.advance(memoryview(early[50:]), 0, passed)
    assert pdu is not None and bytes(pdu.data) == b"early" and not pdu.data_digest_failed
    late = b"".join(encode_pdu(NopInPdu(data=b"late"), True, True))
    assert scan.advance(memoryview(late), 0, passed) == (len(late), None)
    assert passed == [late]


PDUS = st.one_of(
    st.builds(DataInPdu, itt=st.integers(1, 4), data=st.binary(max_size=70)),
    st.builds(ScsiResponsePdu, itt=st.integers(1, 4), data=st.binary(max_size=9)),
    st.builds(
        ScsiCommandPdu,
        itt=st.integers(1, 4),
        cdb=st.sampled_from([READ, RESERVE]),
        ahs=st.sampled_from([b"", bytes(4)]),
    ),
    st.builds(RejectPdu, data=st.binary(max_size=50)),
)


@given(pdus=st.lists(PDUS, max_size=8), cuts=st.lists(st.integers(0, 600), max_size=12), digests=st.booleans())
def test_cut_anywhere(pdus: list[EncodablePdu], cuts: list[int], digests: bool) -> None:
    whole, cut = Scanned(2, 3, digests=digests), Scanned(2, 3, digests=digests)
    wire = whole.wire(*pdus)
    whole.receive(wire)
    for start, end in pairwise(sorted({0, *(min(place, len(wire)) for place in cuts), len(wire)})):
        cut.receive(wire[start:end])
    assert b"".join(cut.passed) == b"".join(whole.passed)
    assert cut.taken == whole.taken
    taken = b"".join(map(whole.wire, whole.taken))
    assert len(taken) + sum(map(len, whole.passed)) == len(wire)
