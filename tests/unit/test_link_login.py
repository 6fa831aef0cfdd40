"""Two arrays prove a common key to each other: each wrong thing is refused, and both ends know why."""

from dataclasses import replace

import pytest

from storage_model.secret import Secret
from storage_model.spec.copy_frames import (
    HEADER_LENGTH,
    MAX_HELLO_LENGTH,
    TAG_LENGTH,
    VERSIONS,
    Frame,
    FrameType,
    Hello,
    PairOffer,
)
from target.remote_copy.link import SILENCE_LIMIT, FrameReceived, Link, LinkEvent, LinkFailed, LinkOpened
from target.remote_copy.link_login import connection_keys

KEY = Secret(b"correct horse battery staple")
WRITE = Frame(FrameType.WRITE, 1, 2, 3, 4, 4, payload=b"data")


def hello(serial: str, **changes: object) -> Hello:
    other = "30095" if serial == "30096" else "30096"
    nonce = {"30095": "a1", "30096": "b2"}[serial] * 32
    made = Hello(serial, other, (PairOffer("quorum0", 10, 1 << 20, 512, True),), nonce=nonce, required=("key",))
    return replace(made, **changes)  # type: ignore[arg-type]


def link(serial: str, key: Secret | None = KEY, binding: bytes = b"", **changes: object) -> Link:
    if key is None:
        changes |= {"nonce": "", "required": ()}
    made = Link(hello(serial, **changes), 0.0, None, key)
    made.binding = binding
    return made


def sent(end: Link) -> bytes:
    return b"".join(bytes(part) for part in end.data_to_send(0.0))


def converse(a: Link, b: Link) -> tuple[list[LinkEvent], list[LinkEvent]]:
    """Until neither has anything to say."""
    events: tuple[list[LinkEvent], list[LinkEvent]] = [], []
    for _ in range(8):
        from_a, from_b = sent(a), sent(b)
        events[0].extend(a.receive_data(from_b, 0.0))
        events[1].extend(b.receive_data(from_a, 0.0))
    return events


def opened(binding: bytes = b"") -> tuple[Link, Link]:
    a, b = link("30095", binding=binding), link("30096", binding=binding)
    converse(a, b)
    return a, b


def reason(events: list[LinkEvent]) -> str:
    """Of a link that was never open."""
    (event,) = events
    assert isinstance(event, LinkFailed), event
    return event.reason


def refused_by_both(a: Link, b: Link, expected: str) -> None:
    """Whoever found out tells the other; both have the reason for their log."""
    reasons = [reason(events) for events in converse(a, b)]
    assert all(expected in one for one in reasons), reasons


def test_both_open_and_frames_go_both_ways() -> None:
    a, b = link("30095"), link("30096")
    assert converse(a, b) == ([LinkOpened(hello("30096"))], [LinkOpened(hello("30095"))])
    a.send(WRITE)
    b.send(WRITE)
    assert converse(a, b) == ([FrameReceived(WRITE)], [FrameReceived(WRITE)])


def test_any_cut_of_the_bytes_opens_the_link() -> None:
    """Also one behind which the bytes are read in another way: the first tag may come with the proof."""
    a, b = link("30095"), link("30096")
    b_events = b.receive_data(sent(a), 0.0)
    a.receive_data(sent(b), 0.0)
    b_events += [event for byte in sent(a) for event in b.receive_data(bytes([byte]), 0.0)]
    b.send(WRITE)
    assert b_events == [LinkOpened(hello("30095"))]
    assert a.receive_data(sent(b), 0.0) == [LinkOpened(hello("30096")), FrameReceived(WRITE)]


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ({}, {"key": Secret(b"another key of some length")}, "does not prove that it has the key"),
        ({}, {"key": None}, "array 30095 has a link key, array 30096 has none"),
        ({"key": None}, {}, "array 30096 has a link key, array 30095 has none"),
        ({"versions": (1, 2)}, {"versions": (3,)}, "no common version"),
        ({"peer_serial": "30099"}, {}, "array 3009"),
        ({}, {"peer_serial": "30094"}, "array 3009"),
        ({"required": ("key", "quantum")}, {}, "requires what this array does not know: ['quantum']"),
        ({"nonce": "a1"}, {}, "nonce"),
        ({}, {"binding": b"another channel"}, "does not prove that it has the key"),
    ],
)  # fmt: skip
def test_wrong_thing_is_refused_with_the_reason_at_both_ends(
    a: dict[str, object], b: dict[str, object], expected: str
) -> None:
    refused_by_both(link("30095", **a), link("30096", **b), expected)  # type: ignore[arg-type]


def test_the_highest_common_version_holds() -> None:
    a, b = link("30095", versions=(1, 2, 3, 7)), link("30096", versions=(3, 1, 2, 9))
    converse(a, b)
    assert a.version == b.version == 3 and VERSIONS == (1,)


def test_fields_that_this_array_does_not_know_are_ignored() -> None:
    end = link("30095", None)
    payload = bytes(hello("30096", nonce="", required=()).frame().payload)
    frame = Frame(FrameType.HELLO, payload=payload[:-1] + b', "of the future": {"a": [1]}}')
    (event,) = end.receive_data(b"".join(bytes(part) for part in frame.encode()), 0.0)
    assert isinstance(event, LinkOpened)


def test_nobody_in_the_middle_can_change_a_hello() -> None:
    """The proof is over every byte of it: versions cannot be taken away, nor pairs resized."""
    a, b = link("30095", versions=(1, 2)), link("30096", versions=(1, 2))
    sent(a)
    b.receive_data(wire(hello("30095", versions=(1,)).frame()), 0.0)
    a.receive_data(sent(b), 0.0)
    assert "does not prove" in reason(b.receive_data(sent(a), 0.0))
    assert "does not prove" in reason(a.receive_data(sent(b), 0.0))


def wire(frame: Frame) -> bytes:
    return b"".join(bytes(part) for part in frame.encode())


@pytest.mark.parametrize("serial", ["30095", "30096"])
def test_what_it_has_said_itself_proves_nothing(serial: str) -> None:
    """Reflection: the attacker has no key and sends back what it hears, serial numbers exchanged."""
    end = link(serial)
    sent(end)
    other = "30095" if serial == "30096" else "30096"
    end.receive_data(wire(hello(other).frame()), 0.0)
    proof = sent(end) or wire(Frame(FrameType.AUTHENTICATE, payload=bytes(32)))  # the one that listens waits for one
    assert "does not prove" in reason(end.receive_data(proof, 0.0))


def test_hello_with_this_arrays_own_nonce_is_refused() -> None:
    end = link("30095")
    echo = hello("30096", nonce=hello("30095").nonce)
    assert "fresh" in reason(end.receive_data(wire(echo.frame()), 0.0))


def test_recorded_connection_opens_no_second_one() -> None:
    a, b = link("30095"), link("30096")
    recorded = [sent(a)]
    b.receive_data(recorded[0], 0.0)
    a.receive_data(sent(b), 0.0)
    recorded.append(sent(a))
    assert b.receive_data(recorded[1], 0.0) == [LinkOpened(hello("30095"))]
    again = link("30096", nonce="c3" * 32)
    assert again.receive_data(recorded[0], 0.0) == []
    assert "does not prove" in reason(again.receive_data(recorded[1], 0.0))


def test_array_that_listens_proves_nothing_to_whoever_has_not() -> None:
    """Its proof is something to try keys on."""
    listening = link("30096")
    assert sent(listening) == wire(hello("30096").frame())
    listening.receive_data(wire(hello("30095").frame()), 0.0)
    assert sent(listening) == b""
    listening.handle_deadline(SILENCE_LIMIT)
    assert b"no AUTHENTICATE" in sent(listening)


@pytest.mark.parametrize(
    "kind", [kind for kind in FrameType if kind not in (FrameType.AUTHENTICATE, FrameType.REFUSED)]
)
def test_nothing_is_acted_on_before_the_proof(kind: FrameType) -> None:
    end = link("30096")
    end.receive_data(wire(hello("30095").frame()), 0.0)
    assert reason(end.receive_data(wire(Frame(kind, payload=b"x")), 0.0)) == f"{kind.name} before AUTHENTICATE"


def test_a_stranger_gets_little_room() -> None:
    frame = Frame(FrameType.HELLO, payload=bytes(MAX_HELLO_LENGTH + 1))
    assert "at most" in reason(link("30096").receive_data(wire(frame)[:HEADER_LENGTH], 0.0))


@pytest.mark.parametrize("binding", [b"", b"of an encrypted channel"])
def test_frames_have_tags_where_nothing_else_protects_them(binding: bytes) -> None:
    a, _ = opened(binding)
    a.send(WRITE)
    assert len(sent(a)) == len(wire(WRITE)) + (0 if binding else TAG_LENGTH)


def written(end: Link) -> list[bytes]:
    """Three writes, each as it is on the wire."""
    made = []
    for number in range(3):
        end.send(replace(WRITE, request=number))
        made.append(sent(end))
    return made


@pytest.mark.parametrize("order", [(0, 0), (0, 2), (1,), (0, 1, 0)])
def test_replayed_reordered_and_missing_frames_are_refused(order: tuple[int, ...]) -> None:
    a, b = opened()
    frames = written(a)
    events: list[LinkEvent] = []
    for index in order:
        events += b.receive_data(frames[index], 0.0)
    assert isinstance(events[-1], LinkFailed) and "its tag is wrong" in events[-1].reason
    (told,) = a.receive_data(sent(b), 0.0)
    assert isinstance(told, LinkFailed) and "its tag is wrong" in told.reason


def test_frame_that_was_never_sent_is_refused() -> None:
    _, b = opened()
    for data in (wire(WRITE) + bytes(TAG_LENGTH), written(b)[0]):
        fresh = opened()[1]
        (event,) = fresh.receive_data(data, 0.0)  # invented; its own, sent back
        assert isinstance(event, LinkFailed) and "its tag is wrong" in event.reason


def test_a_changed_bit_is_noticed_wherever_it_is() -> None:
    a, _ = opened()
    frame = written(a)[0]
    for index in range(len(frame)):
        data = bytearray(frame)
        data[index] ^= 0x10
        (event,) = opened()[1].receive_data(data, 0.0)
        assert isinstance(event, LinkFailed) and ("CRC32C" in event.reason or "tag" in event.reason)


def test_a_truncated_frame_is_not_acted_on() -> None:
    a, b = opened()
    assert b.receive_data(written(a)[0][:-1], 0.0) == []


def test_every_key_of_a_connection_is_another() -> None:
    made = [
        connection_keys(KEY, b"A", b"B", dials=True, version=1, binding=b""),
        connection_keys(KEY, b"B", b"A", dials=True, version=1, binding=b""),
        connection_keys(KEY, b"A", b"B", dials=True, version=2, binding=b""),
        connection_keys(KEY, b"A", b"B", dials=True, version=1, binding=b"tls"),
        connection_keys(KEY, b"AB", b"", dials=True, version=1, binding=b""),
        connection_keys(Secret(b"another key of some length"), b"A", b"B", dials=True, version=1, binding=b""),
    ]
    values = [value for keys in made for value in (keys.proof, keys.expected_proof, keys.sending, keys.receiving)]
    assert len(set(values)) == len(values)
    assert not any(repr(value) in repr(keys) for keys in made for value in (keys.proof, keys.sending))
