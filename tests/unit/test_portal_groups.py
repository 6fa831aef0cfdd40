"""The addresses that SendTargets tells of a target's portal groups."""

import pytest

from target.iscsi.portal_groups import PortalGroup, target_addresses

ONE = PortalGroup(1, ["192.0.2.1:3260", "192.0.2.2:3260"])
TWO = PortalGroup(2, ["192.0.2.1:3270"])


def test_what_was_reached_comes_first_then_its_group() -> None:
    assert target_addresses([ONE, TWO], 2, "192.0.2.1:3270") == (
        ("192.0.2.1:3270", 2), ("192.0.2.1:3260", 1), ("192.0.2.2:3260", 1),
    )  # fmt: skip
    assert target_addresses([TWO, ONE], 1, "192.0.2.2:3260")[:2] == (("192.0.2.2:3260", 1), ("192.0.2.1:3260", 1))


@pytest.mark.parametrize(
    ("listening", "reached", "told"),
    [
        ("0.0.0.0:3270", "192.0.2.1:3260", "192.0.2.1:3270"),
        ("[::]:3270", "[2001:db8::1]:3260", "[2001:db8::1]:3270"),
        ("[::]:3270", "192.0.2.1:3260", None),  # the other family: nobody can say at which address
        ("0.0.0.0:3270", "[2001:db8::1]:3260", None),
        ("[2001:db8::1]:3270", "192.0.2.1:3260", "[2001:db8::1]:3270"),
        ("array.example:3270", "192.0.2.1:3260", "array.example:3270"),
    ],
)
def test_a_portal_on_any_address_is_told_as_the_host_that_was_reached(
    listening: str, reached: str, told: str | None
) -> None:
    found = target_addresses([PortalGroup(1, [reached]), PortalGroup(2, [listening])], 1, reached)
    assert found == ((reached, 1), *([(told, 2)] if told else []))


def test_any_address_reached_at_one_of_them() -> None:
    assert target_addresses([PortalGroup(1, ["0.0.0.0:3260"])], 1, "192.0.2.9:3260") == (("192.0.2.9:3260", 1),)


def test_a_group_that_is_served_elsewhere_is_told_as_there() -> None:
    moved = PortalGroup(2, ["192.0.2.1:3270"], redirect="198.51.100.7:3260")
    assert target_addresses([ONE, moved], 1, "192.0.2.1:3260")[-1] == ("198.51.100.7:3260", 2)
    assert target_addresses([ONE, moved], 2, "192.0.2.1:3270")[0] == ("198.51.100.7:3260", 2)
    assert "192.0.2.1:3270" not in dict(target_addresses([ONE, moved], 2, "192.0.2.1:3270"))


def test_no_address_has_two_tags() -> None:
    """A group that is sent to a portal of another group here."""
    moved = PortalGroup(2, ["192.0.2.1:3270"], redirect="192.0.2.1:3260")
    assert target_addresses([ONE, moved], 1, "192.0.2.1:3260") == (("192.0.2.1:3260", 1), ("192.0.2.2:3260", 1))
