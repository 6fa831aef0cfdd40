"""Text segments and the negotiation table."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage_model.errors import RemoteProtocolError
from storage_model.spec.iscsi_pdu import LoginStatus
from storage_model.spec.iscsi_text import (
    KEYS,
    Kind,
    format_text,
    in_range,
    negotiate,
    parse_number,
    parse_pairs,
    parse_text,
)

KEY = st.text(st.characters(min_codepoint=0x41, max_codepoint=0x7A), min_size=1, max_size=63)
VALUE = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=40)


@given(st.dictionaries(KEY, VALUE, max_size=10))
def test_round_trip(pairs: dict[str, str]) -> None:
    assert parse_text(format_text(pairs)) == pairs


def test_repeated_keys_keep_their_order_in_pairs() -> None:
    pairs = [("TargetName", "a"), ("TargetAddress", "x"), ("TargetName", "b")]
    assert parse_pairs(format_text(pairs)) == pairs


@pytest.mark.parametrize(
    "data",
    [
        b"A=1",  # no last NUL
        b"A\0",  # no equals sign
        b"=1\0",  # no key
        b"K" * 64 + b"=1\0",
        b"\xff=1\0",
        "ä=1\0".encode(),
        b"A=\xff\0",
        b"A=\xc3\0B=\xa4\0",  # half a character on each side of a NUL
        b"A=\xc3=\xa4\0",
        b"A=1\0A=2\0",
        b"".join(b"K%d=\0" % index for index in range(129)),
    ],
)
def test_bad_text(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as error:
        parse_text(data)
    assert error.value.reason == LoginStatus.INITIATOR_ERROR


def test_values_are_utf_8() -> None:
    assert parse_text("A=ä=ß\0B=\u4e2d\0".encode()) == {"A": "ä=ß", "B": "\u4e2d"}


def test_empty_text_and_stray_nuls() -> None:
    assert parse_text(b"") == parse_text(b"\0\0") == {}
    assert parse_text(b"\0A=1\0\0B=\0") == {"A": "1", "B": ""}


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("65536", 65536), ("0x1F", 31), ("0Xff", 255)])
def test_numbers(text: str, number: int) -> None:
    assert parse_number(text) == number


@pytest.mark.parametrize("text", ["", "0x", "-1", "+1", " 1", "1_0", "1.5", "abc", "9" * 21, "٣"])
def test_bad_numbers(text: str) -> None:
    with pytest.raises(ValueError, match="number"):
        parse_number(text)


@pytest.mark.parametrize(
    ("key", "offered", "own", "answer"),
    [
        ("HeaderDigest", "CRC32C,None", "None,CRC32C", "CRC32C"),
        ("HeaderDigest", "None,CRC32C", "CRC32C,None", "None"),
        ("HeaderDigest", "Foo,None", "CRC32C,None", "None"),
        ("HeaderDigest", "Foo", "CRC32C,None", "Reject"),
        ("AuthMethod", "CHAP,None", "None", "None"),
        ("AuthMethod", "CHAP", "None", "Reject"),
        ("InitialR2T", "No", "No", "No"),
        ("InitialR2T", "Yes", "No", "Yes"),
        ("ImmediateData", "Yes", "No", "No"),
        ("ImmediateData", "yes", "Yes", "Reject"),
        ("MaxBurstLength", "16776192", "1048576", "1048576"),
        ("MaxBurstLength", "0x1000", "1048576", "4096"),
        ("MaxBurstLength", "511", "1048576", "Reject"),
        ("DefaultTime2Wait", "5", "0", "5"),
        ("ErrorRecoveryLevel", "2", "0", "0"),
        ("ErrorRecoveryLevel", "3", "0", "Reject"),
        ("IFMarker", "Yes", "No", "No"),
        ("IFMarkInt", "2048~8192", "", "Reject"),
    ],
)
def test_negotiation(key: str, offered: str, own: str, answer: str) -> None:
    assert negotiate(key, offered, own) == answer


def test_the_defaults_are_values_that_the_key_may_have() -> None:
    for key, rule in KEYS.items():
        if rule.numeric and rule.default is not None:
            assert in_range(key, rule.default) is not None, key
        if rule.kind in (Kind.AND, Kind.OR):
            assert rule.default in ("Yes", "No")
        if rule.kind is Kind.LIST:
            assert rule.default in rule.values
