"""Presence: what makes a peer seen, and what makes it lost."""

import json

import pytest

from scripts.failover_drill.heartbeat import PresenceWatch


def presence(boot_id: str = "first", seq: int | None = 1, online: bool = True) -> bytes:
    return json.dumps({"boot_id": boot_id, "seq": seq, "epoch": 0, "online": online}).encode()


def test_a_peer_never_heard_is_not_missed() -> None:
    watch = PresenceWatch(timeout=1.0)
    assert watch.check(now=100.0) is None
    assert not watch.seen


def test_silence_is_told_once() -> None:
    watch = PresenceWatch(timeout=1.0)
    assert watch.receive(presence(), False, now=10.0) is None
    assert watch.seen
    assert watch.check(now=11.0) is None
    assert watch.check(now=11.5) == "no heartbeat for 1.5 s"
    assert watch.check(now=20.0) is None


def test_beats_keep_the_peer_alive() -> None:
    watch = PresenceWatch(timeout=1.0)
    for beat in range(20):
        watch.receive(presence(seq=beat), False, now=beat * 0.9)
        assert watch.check(now=beat * 0.9 + 0.8) is None


def test_the_last_will_is_told_from_a_farewell() -> None:
    for sequence, reason in ((None, "its last will arrived"), (7, "it left the cluster")):
        watch = PresenceWatch(timeout=1.0)
        watch.receive(presence(), False, now=0.0)
        assert watch.receive(presence(seq=sequence, online=False), False, now=0.1) == reason


def test_what_the_broker_kept_of_an_earlier_life_says_nothing() -> None:
    watch = PresenceWatch(timeout=1.0)
    watch.receive(presence("earlier"), True, now=0.0)
    assert not watch.seen
    watch.receive(presence("first"), False, now=0.1)
    assert watch.receive(presence("earlier", None, online=False), False, now=0.2) is None
    assert watch.receive(presence("first", None, online=False), False, now=0.3) is not None


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b"7", b"{}", b"\xff", b'{"boot_id": 1, "seq": 2}'])
def test_nonsense_is_not_a_heartbeat(payload: bytes) -> None:
    watch = PresenceWatch(timeout=1.0)
    assert watch.receive(payload, False, now=0.0) is None
    assert not watch.seen
