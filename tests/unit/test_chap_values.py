"""CHAP's responses and its binary values as text. The expected responses are openssl's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage_model.secret import Secret
from storage_model.spec.iscsi_chap import (
    MAX_BINARY_BYTES,
    ChapAlgorithm,
    challenge_length,
    chap_response,
    choose_algorithm,
    decode_binary,
    decode_identifier,
    encode_binary,
)

# printf '\x9acorrect horse battery\x00\x01…\x0f' | openssl dgst -md5 (-sha1, -sha256, -sha3-256)
SECRET, IDENTIFIER, CHALLENGE = Secret(b"correct horse battery"), 0x9A, bytes(range(16))


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        (5, "97f9ed78b0fa8d8b21dbc701dc8b94e9"),
        (6, "656b651a8afb1de7b7fe82b0861d429a9465a524"),
        (7, "0a190cd80cebc86019e4ef3dc4a26d6aa3f1d39c38fc81e696151e2beb5e35fc"),
        (8, "3c8ec23d22c1de5d567d6d3efcead553f245b2a63a007432bb0459f3590d8a75"),
    ],
)
def test_response(algorithm: int, expected: str) -> None:
    response = chap_response(ChapAlgorithm(algorithm), IDENTIFIER, SECRET, CHALLENGE)
    assert response.hex() == expected
    assert challenge_length(ChapAlgorithm(algorithm)) == len(response)


def test_response_with_identifier_0_and_a_challenge_of_one_byte() -> None:
    response = chap_response(ChapAlgorithm.MD5, 0, Secret(b"a" * 12), b"\xff")
    assert response.hex() == "9da6fac904a7fbd0547b78c1a1057d93"


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [("5", 5), ("7,5", 7), ("5,7", 5), ("99,8,6", 8), ("6", 6), ("99", None), ("", None), ("05", None), ("5 ", None)],
)
def test_the_order_of_the_offer_decides(offered: str, chosen: int | None) -> None:
    assert choose_algorithm(offered) == chosen


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0x00", b"\0"),
        ("0x0001ff", b"\0\1\xff"),
        ("0XaBcD", b"\xab\xcd"),
        ("0bQUJD", b"ABC"),
        ("0BQUI=", b"AB"),
        ("0bAA==", b"\0"),
        ("0x" + "5a" * MAX_BINARY_BYTES, b"Z" * MAX_BINARY_BYTES),
    ],
)
def test_binary_values(text: str, value: bytes) -> None:
    assert decode_binary(text) == value


MALFORMED = {
    "nothing": "",
    "no prefix": "abcd",
    "decimal": "1234",
    "0x alone": "0x",
    "0b alone": "0b",
    "half a prefix": "0",
    "odd number of hexadecimal digits": "0xabc",
    "one hexadecimal digit": "0x1",
    "no hexadecimal digit": "0x0g",
    "space among the digits": "0x00 00 ",
    "sign": "0x-1",
    "underscore": "0x1_00",
    "digits of another script": "0x\u0661\u0662",
    "prefix twice": "0x0xab",
    "base64 without its padding": "0bQUI",
    "base64 of one digit": "0bQ",
    "base64 that goes on after its padding": "0bQQ==QQ==",
    "base64 of padding only": "0b====",
    "no base64 digit": "0bQU*D",
    "base64 with a space": "0bQU JD",
    "base64url digits": "0b-_-_",
    "base64 of no ASCII": "0bÄÄÄÄ",
    "one byte too long": "0x" + "00" * (MAX_BINARY_BYTES + 1),
    "base64, one byte too long": "0b" + "AAAA" * (MAX_BINARY_BYTES // 3) + "AAA=",
    "1 MiB of hexadecimal digits": "0x" + "f" * (1 << 20),
    "1 MiB of base64": "0b" + "A" * (1 << 20),
}


@pytest.mark.parametrize("text", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_binary_values(text: str) -> None:
    with pytest.raises(ValueError, match=r".") as raised:
        decode_binary(text)
    assert len(str(raised.value)) < 80  # and not the value itself


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("255", 255), ("0xff", 255), ("0X0", 0), ("007", 7)])
def test_identifier(text: str, number: int) -> None:
    assert decode_identifier(text) == number


@pytest.mark.parametrize("text", ["", "256", "0x100", "-1", " 1", "1_0", "x", "0x", "\u0661", "9" * 5000])
def test_identifier_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"^not a number from 0 to 255$"):
        decode_identifier(text)


@given(st.text(max_size=40) | st.text("0123456789abcdefxX+/=b", max_size=40).map("0b".__add__))
def test_any_text_is_a_value_or_a_value_error(text: str) -> None:
    try:
        value = decode_binary(text)
    except ValueError:
        return
    assert 0 < len(value) <= MAX_BINARY_BYTES


@given(st.binary(min_size=1, max_size=64))
def test_what_is_encoded_is_decoded(value: bytes) -> None:
    assert decode_binary(encode_binary(value)) == value
