"""``iscsi://HOST[:PORT][/TARGET[/LUN]]`` as users write it for pairctl and PyscsiDevice."""

import pytest

from initiator_shim.config import Address, UnitUrl, parse_unit_url
from storage_model.errors import UserError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("iscsi://192.0.2.1", UnitUrl(Address("192.0.2.1", 3260), None, None)),
        (
            "iscsi://[::1]:3270/iqn.2026-11.org.example:a",
            UnitUrl(Address("::1", 3270), "iqn.2026-11.org.example:a", None),
        ),
        ("iscsi://host:1/name/7", UnitUrl(Address("host", 1), "name", 7)),
    ],
)
def test_it_is_understood(text: str, expected: UnitUrl) -> None:
    assert parse_unit_url(text, "-a") == expected


@pytest.mark.parametrize("text", ["http://host/", "iscsi://", "iscsi://host/name/x", "iscsi://host:99999"])
def test_it_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"^-a "):
        parse_unit_url(text, "-a")


@pytest.mark.parametrize("credentials", ["user%correct-horse", "user:correct-horse", "user"])
def test_credentials_are_refused_and_not_repeated(credentials: str) -> None:
    with pytest.raises(UserError, match="--chap-secret-file") as refused:
        parse_unit_url(f"iscsi://{credentials}@192.0.2.1:3260/name", "-a")
    assert "correct-horse" not in str(refused.value) and "192.0.2.1:3260" in str(refused.value)
