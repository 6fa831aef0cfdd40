"""A secret shows itself nowhere, and comes only from where others cannot have read it."""

import copy
import pickle

import pytest

from initiator_shim.initiator_chap import ChapCredentials
from initiator_shim.initiator_login import SessionParameters
from storage_model.errors import UserError
from storage_model.secret import Secret, check_secret_file, make_secret
from target.iscsi.access import AccessRule
from target.iscsi.chap import ChapAccount

VALUE = "correct horse battery"
SECRET = Secret(VALUE.encode())


@pytest.mark.parametrize(
    "holder",
    [
        SECRET,
        [SECRET],
        ChapAccount("joe", SECRET),
        AccessRule(chap=ChapAccount("joe", SECRET), mutual=ChapAccount("array", SECRET)),
        ChapCredentials("joe", SECRET, "array", Secret(VALUE[::-1].encode())),
        SessionParameters("iqn.2026-11.org.example:host", bytes(6), chap=ChapCredentials("joe", SECRET)),
    ],
)
def test_no_text_shows_it(holder: object) -> None:
    for text in (repr(holder), str(holder), f"{holder}", f"{holder!a}"):
        assert "horse" not in text and VALUE[::-1] not in text
        assert VALUE.encode().hex() not in text


def test_it_is_not_written_anywhere() -> None:
    for write in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="not written"):
            write(SECRET)


def test_equal_secrets_are_equal() -> None:
    assert make_secret(VALUE.encode(), "here") == SECRET != make_secret(b"another secret", "here")
    assert len({SECRET, Secret(VALUE.encode())}) == 1


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_the_last_line_end_is_not_part_of_it(end: bytes) -> None:
    assert make_secret(b" twelve byte" + end, "here").value == b" twelve byte"


def test_only_one_line_end_goes() -> None:
    assert make_secret(b"twelve bytes\n\n", "here").value == b"twelve bytes\n"


@pytest.mark.parametrize("length", [0, 1, 11, 256, 257])
def test_a_secret_has_96_bits_or_more(length: int) -> None:
    """RFC 7143 §9.2.1."""
    with pytest.raises(UserError, match=rf"^a\.toml: key: .*12 to 255 bytes.*has {length}$") as raised:
        make_secret(b"s" * length, "a.toml: key")
    assert "ssss" not in str(raised.value)


@pytest.mark.parametrize("length", [12, 16, 255])
def test_lengths_that_are_taken(length: int) -> None:
    assert len(make_secret(b"s" * length, "here").value) == length


@pytest.mark.parametrize("permissions", [0o604, 0o640, 0o620, 0o602, 0o610, 0o601, 0o777])
def test_a_file_that_is_open_to_others(permissions: int) -> None:
    with pytest.raises(UserError, match=r"^key: a file is open to others than its owner: chmod 600 'a file'$"):
        check_secret_file(regular=True, permissions=permissions, path="a file", where="key")


def test_a_file_of_its_owner() -> None:
    for permissions in (0o600, 0o400, 0o700):
        check_secret_file(regular=True, permissions=permissions, path="file", where="key")
    with pytest.raises(UserError, match="not a regular file"):
        check_secret_file(regular=False, permissions=0o600, path="file", where="key")
