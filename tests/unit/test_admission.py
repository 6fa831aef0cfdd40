"""Connections that have not logged in: how many, and which one goes for the next."""

import pytest

from target.iscsi.admission import Admission, address_group
from target.iscsi.events import Limits

LIMITS = Limits(login_connections=6, login_connections_per_address=3)
A, B, C = "192.0.2.1", "192.0.2.2", "192.0.2.3"


def admission(silent: str = "abcdefghijklm") -> Admission[str]:
    return Admission(LIMITS, lambda connection: connection in silent)


def enter(admission: Admission[str], host: str, connections: str) -> list[str | None]:
    return [admission.enter(host, connection) for connection in connections]


def test_the_oldest_of_an_address_makes_room() -> None:
    assert enter(admission(), A, "abcde") == [None, None, None, "a", "b"]


def test_the_oldest_silent_one_goes_before_one_that_has_spoken() -> None:
    assert enter(admission(silent="cde"), A, "abcde") == [None, None, None, "c", "d"]


def test_when_all_have_spoken_the_oldest_goes() -> None:
    assert enter(admission(silent=""), A, "abcde") == [None, None, None, "a", "b"]


def test_addresses_do_not_take_each_others_places() -> None:
    several = admission()
    enter(several, A, "abcd")
    assert enter(several, B, "ef") == [None, None]


def test_at_the_total_limit_the_most_crowded_address_makes_room() -> None:
    several = admission()
    enter(several, A, "abc")
    enter(several, B, "de")
    enter(several, C, "f")
    assert (len(several), enter(several, C, "g"), len(several)) == (6, ["a"], 6)


def test_who_has_left_takes_no_place() -> None:
    several = admission()
    enter(several, A, "abc")
    several.leave(A, "b")
    several.leave(A, "b")
    several.leave(B, "c")
    assert (len(several), enter(several, A, "de")) == (2, [None, "a"])


def test_nothing_is_kept_of_addresses_that_are_gone() -> None:
    several = admission()
    for number in range(1000):
        several.enter(f"192.0.{number >> 8}.{number & 255}", "x")
        several.leave(f"192.0.{number >> 8}.{number & 255}", "x")
    assert not several._waiting and len(several) == 0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:1", True),  # a host has a whole /64 to choose from (RFC 4291 §2.5.4)
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("", "192.0.2.1", False),
    ],
)
def test_what_counts_as_one_address(one: str, other: str, same: bool) -> None:
    assert (address_group(one) == address_group(other)) is same
