"""PR parameter parsing: whatever a PERSISTENT RESERVE OUT carries, it ends with a status, and changes what it may.

Seen elsewhere: TransportIDs read past the end of the list, names without a terminator, additional lengths that wrap.
"""

import asyncio
import tracemalloc

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from storage_model.errors import CheckCondition
from storage_model.spec.scsi_persistent_reservation import (
    MAXIMUM_LIST_LENGTH,
    BasicParameters,
    MoveParameters,
    TransportId,
    decode_move_destination,
    decode_transport_ids,
)
from storage_model.spec.scsi_sense import SenseData, decode_sense
from storage_model.spec.scsi_task import ScsiStatus
from tests.conformance.scsi.bench import NEXUS_A, NEXUS_B, Bench, make_bench

REGISTER, RESERVE, REGISTER_AND_MOVE = 0, 1, 7
OWN_KEY, NEW_KEY = 0xA, 0x99
NAME = "iqn.2026-11.org.example:host"
PORT = TransportId(NAME, b"\x80\0\0\0\0\x07").encode()
DEVICE = TransportId(NEXUS_B.initiator_name, None).encode()


def cdb(action: int, length: int) -> bytes:
    return bytes((0x5F, action, 0x01, 0, 0)) + length.to_bytes(4, "big") + b"\0"


def register_list(ids: bytes, announced: int | None = None) -> bytes:
    """SPEC_I_PT is 1, and TRANSPORTID PARAMETER DATA LENGTH is what ``announced`` says."""
    header = BasicParameters(0, NEW_KEY, spec_i_pt=True).encode()[:24]
    return header + (len(ids) if announced is None else announced).to_bytes(4, "big") + ids


def move_list(identity: bytes, announced: int | None = None) -> bytes:
    data = bytearray(MoveParameters(OWN_KEY, NEW_KEY, 1, identity).encode())
    if announced is not None:
        data[20:24] = announced.to_bytes(4, "big")
    return bytes(data)


async def make_registered() -> Bench:
    """A holds, and would be allowed to move the reservation; B is logged in and not registered."""
    bench = make_bench()
    await bench.good(cdb(REGISTER, 24), BasicParameters(0, OWN_KEY).encode())
    await bench.good(cdb(RESERVE, 24), BasicParameters(OWN_KEY).encode())
    return bench


async def send(bench: Bench, action: int, data: bytes, length: int | None = None) -> ScsiStatus | SenseData:
    """By the nexus that may do it. Anything but GOOD leaves the very same state."""
    nexus = NEXUS_A if action == REGISTER_AND_MOVE else NEXUS_B
    before = bench.lu.reservation.persistent
    outcome = await bench.run(cdb(action, len(data) if length is None else length), data, nexus)
    after = bench.lu.reservation.persistent
    after.check()
    if outcome.status is ScsiStatus.GOOD:
        return outcome.status
    assert after is before, "a refused list has changed the state"
    if outcome.status is ScsiStatus.RESERVATION_CONFLICT:
        return outcome.status
    assert outcome.status is ScsiStatus.CHECK_CONDITION
    sense = decode_sense(outcome.sense)
    assert (sense.sense_key, sense.asc_ascq) in {(5, 0x1A00), (5, 0x2600), (5, 0x2400)}
    return sense


@pytest.mark.parametrize(
    ("action", "whole"), [(REGISTER, register_list(PORT + PORT)), (REGISTER_AND_MOVE, move_list(PORT))]
)
async def test_every_length_from_0_up(action, whole):
    """Cut after each byte, with the CDB telling the truth, and telling the whole length."""
    bench = await make_registered()
    for length in range(len(whole)):
        for announced in (length, len(whole)):
            answer = await send(bench, action, whole[:length], announced)
            assert isinstance(answer, SenseData) and answer.asc_ascq == 0x1A00, (length, announced)
    assert await send(bench, action, whole) is ScsiStatus.GOOD


@pytest.mark.parametrize("action", range(8))
async def test_every_length_of_zeros(action):
    for length in range(300):
        bench = await make_registered()
        answer = await send(bench, action, bytes(length))
        expected = ScsiStatus.GOOD if (action, length) in ((0, 24), (6, 24)) else None
        assert answer is expected or answer is ScsiStatus.RESERVATION_CONFLICT or isinstance(answer, SenseData)


@pytest.mark.parametrize(
    ("ids", "what"),
    [
        (b"\x45\0\0\x18" + b"iqn.2026-11.a:b,i,0x0007", "no terminator, and else as it should be"),
        (PORT.rstrip(b"\0").ljust(len(PORT), b"x"), "no terminator"),
        (b"\x05\0\0\x14" + b"x" * 20, "no terminator in a device name"),
        (b"\x45\0\0\x14" + b"\0" * 20, "an empty name"),
        (b"\x05\0\0\x14" + b"\0" * 20, "an empty device name"),
        (b"\x45\0\0\x00", "additional length 0"),
        (b"\x45\0\0\x10" + b"iqn.a,i,0x1\0\0\0\0\0", "additional length under 20"),
        (b"\x45\0\0\x15" + b"iqn.2026-11.a:,i,0x1\0", "an odd additional length"),
        (b"\x45\0\xff\xfc" + PORT[4:], "additional length beyond the list"),
        (b"\x45\0\xff\xff" + PORT[4:], "the greatest additional length"),
        (PORT + PORT[:-4], "the second one cut off"),
        (PORT + b"\x45", "a header cut off"),
        (b"\x40" + PORT[1:], "Fibre Channel"),
        (b"\x85" + PORT[1:], "reserved format 10b"),
        (b"\xc5" + PORT[1:], "reserved format 11b"),
        (TransportId(NAME, None).encode()[:1] + PORT[1:], "a device name with a separator"),
        (b"\x45\0" + TransportId(NAME, None).encode()[2:], "a port name without a separator"),
        (PORT.replace(b"0x8", b"0xg"), "an ISID that is not hexadecimal"),
        (PORT.replace(b",i,0x800000000007\0", b",i,0x\0".ljust(18, b"\0")), "no ISID"),
        (TransportId(NAME, bytes(6)).encode().replace(b"0x000000000000\0", b"0x0000000000000"), "a long ISID"),
        (PORT.replace(b"iqn.", b"xqn."), "not an iSCSI name"),
        (PORT.replace(b"host", b"ho\xffs"), "not UTF-8"),
        (PORT.replace(b"host", b"ho\ns"), "a line feed in the name"),
        (TransportId("iqn." + "x" * 220, bytes(6)).encode(), "a name of 224 bytes"),
        (TransportId("iqn." + "\ufdfa" * 7, bytes(6)).encode(), "a name of 235 bytes when it is normalised"),
    ],
)
@pytest.mark.parametrize("action", [REGISTER, REGISTER_AND_MOVE])
async def test_bad_transport_ids(ids, what, action):
    bench = await make_registered()
    answer = await send(bench, action, register_list(ids) if action == REGISTER else move_list(ids))
    assert isinstance(answer, SenseData) and answer.asc_ascq == 0x2600 and answer.in_parameter_list, what


@pytest.mark.parametrize("announced", [0, 1, 23, 24, 25, 47, 49, 0x7FFFFFFF, 0xFFFFFFE4, 0xFFFFFFFF])
async def test_announced_length_of_the_list(announced):
    """What wraps in 32 bits is only too long here."""
    if announced > len(PORT):
        for action, data in (
            (REGISTER, register_list(PORT, announced)),
            (REGISTER_AND_MOVE, move_list(PORT, announced)),
        ):
            answer = await send(await make_registered(), action, data)
            assert isinstance(answer, SenseData) and answer.asc_ascq == 0x1A00
    else:
        answer = await send(await make_registered(), REGISTER, register_list(PORT, announced))
        assert answer is ScsiStatus.GOOD if announced == 0 else isinstance(answer, SenseData)


async def test_the_longest_name_is_taken():
    name = "iqn." + "x" * 219
    bench = await make_registered()
    assert await send(bench, REGISTER, register_list(TransportId(name, bytes(6)).encode())) is ScsiStatus.GOOD
    assert any(nexus.initiator_name == name for nexus in bench.lu.reservation.persistent.registrations)


async def test_more_initiator_ports_than_a_unit_can_register():
    """As many as fit the longest list: all of them are refused, and nothing is kept of them."""
    one = 4 + 24
    count = (MAXIMUM_LIST_LENGTH - 28) // one
    assert count > 1024
    ids = b"".join(TransportId("iqn.b", n.to_bytes(6, "big")).encode() for n in range(count))[: count * one]
    bench = await make_registered()
    answer = await bench.run(cdb(REGISTER, 28 + len(ids)), register_list(ids), NEXUS_B)
    assert answer.status is ScsiStatus.CHECK_CONDITION
    assert decode_sense(answer.sense).asc_ascq == 0x5504
    assert list(bench.lu.reservation.persistent.registrations) == [NEXUS_A]


async def test_memory_is_bounded():
    """A list that announces 4 GiB, and one that is as long as one may be: what is taken is about the list itself."""
    bench = await make_registered()
    lists = [
        (cdb(REGISTER, 0xFFFFFFFF), register_list(PORT, 0xFFFFFFFF)),
        (cdb(REGISTER_AND_MOVE, 0xFFFFFFFF), move_list(PORT, 0xFFFFFFFF)),
        (cdb(REGISTER, 8 << 20), register_list(bytes((8 << 20) - 28))),
        (cdb(REGISTER, MAXIMUM_LIST_LENGTH), register_list(b"\x45" * (MAXIMUM_LIST_LENGTH - 28))),
        (cdb(REGISTER, MAXIMUM_LIST_LENGTH), register_list(b"\x45\0\0\x14" + b"a" * 20 + bytes(65000 - 24))),
    ]
    for command, data in lists:  # once before, so that what is made only once does not count
        await bench.run(command, data, NEXUS_B)
    tracemalloc.start()
    try:
        for command, data in lists:
            await bench.run(command, data, NEXUS_B)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * MAXIMUM_LIST_LENGTH


# --- fuzzed


def mutated(data: bytes, changes: list[tuple[int, int]], cut: int) -> bytes:
    changed = bytearray(data)
    for at, value in changes:
        changed[at % len(changed)] = value
    return bytes(changed[: len(changed) - cut % len(changed)])


changes = st.lists(st.tuples(st.integers(0, 1 << 12), st.integers(0, 255)), max_size=6)
identities = st.lists(
    st.one_of(
        st.sampled_from((PORT, DEVICE)),
        st.binary(max_size=64),
        st.builds(
            lambda first, body: bytes((first, 0)) + len(body).to_bytes(2, "big") + body,
            st.integers(0, 255),
            st.binary(max_size=64),
        ),
        st.builds(
            lambda name, isid: TransportId(f"iqn.{name}", isid).encode(),
            st.text(max_size=30),
            st.none() | st.binary(min_size=6, max_size=6),
        ),
    ),
    max_size=4,
).map(b"".join)
FUZZ = settings(max_examples=150, deadline=None)


@FUZZ
@given(
    ids=identities,
    announced=st.none() | st.integers(0, 0xFFFFFFFF),
    changed=changes,
    cut=st.sampled_from((0, 0, 0, 1, 3, 24, 30)),
)
@example(ids=b"", announced=None, changed=[], cut=0)
@pytest.mark.parametrize(("action", "make_list"), [(REGISTER, register_list), (REGISTER_AND_MOVE, move_list)])
def test_transport_ids_fuzzed(action, make_list, ids, announced, changed, cut):
    async def run() -> None:
        bench = await make_registered()
        await send(bench, action, mutated(make_list(ids, announced), changed, cut))
        assert len(bench.lu.tasks) == 0

    asyncio.run(run())


@FUZZ
@given(action=st.integers(0, 7), data=st.binary(max_size=200), length=st.none() | st.integers(0, 0xFFFFFFFF))
def test_any_bytes_as_any_list(action, data, length):
    async def run() -> None:
        await send(await make_registered(), action, data, length)

    asyncio.run(run())


@FUZZ
@given(data=st.binary(max_size=300) | identities, offset=st.integers(0, 1 << 15))
def test_decoders_raise_nothing_else(data, offset):
    for decode in (lambda: decode_transport_ids(data, offset), lambda: [decode_move_destination(data)]):
        try:
            found = decode()
        except CheckCondition:
            continue
        assert len(found) <= len(data) // 24
        for identity in found:
            assert decode_transport_ids(identity.encode(), 0) == [identity]


@given(name=st.from_regex(r"\Aiqn\.[a-z0-9:.-]{1,200}\Z"), isid=st.none() | st.binary(min_size=6, max_size=6))
def test_encoded_transport_ids_are_read_back(name, isid):
    identity = TransportId(name, isid)
    data = identity.encode()
    assert len(data) >= 24 and len(data) % 4 == 0 and data.endswith(b"\0")
    assert decode_transport_ids(data * 2, 28) == [identity, identity]
