"""CHAP in iSCSI login text (RFC 7143 §12.1.3, RFC 1994): algorithms, responses, and binary values as text (§6.1)."""

import hashlib
from binascii import Error, a2b_base64
from collections.abc import Callable
from enum import IntEnum
from typing import Any

from storage_model.secret import Secret
from storage_model.spec.iscsi_text import parse_number

MAX_BINARY_BYTES = 1024  # §12.1.3, of the decoded value
MAX_NAME_BYTES = 255
CHAP_KEYS = ("CHAP_A", "CHAP_I", "CHAP_C", "CHAP_N", "CHAP_R")

_HEX_DIGITS = frozenset("0123456789abcdefABCDEF")


class ChapAlgorithm(IntEnum):
    """The numbers of CHAP_A (RFC 7143 §12.1.3; IANA, PPP authentication algorithms)."""

    MD5 = 5
    SHA1 = 6
    SHA256 = 7
    SHA3_256 = 8


_HASHES: dict[ChapAlgorithm, Callable[[bytes], Any]] = {
    ChapAlgorithm.MD5: hashlib.md5,
    ChapAlgorithm.SHA1: hashlib.sha1,
    ChapAlgorithm.SHA256: hashlib.sha256,
    ChapAlgorithm.SHA3_256: hashlib.sha3_256,
}


def chap_response(algorithm: ChapAlgorithm, identifier: int, secret: Secret, challenge: bytes) -> bytes:
    """The hash over identifier, secret and challenge (RFC 1994 §4.1)."""
    digest: bytes = _HASHES[algorithm](bytes((identifier,)) + secret.value + challenge).digest()
    return digest


def challenge_length(algorithm: ChapAlgorithm) -> int:
    """Bytes of a challenge: as many as a response has. Older initiators take no longer ones for MD5."""
    return len(chap_response(algorithm, 0, Secret(b""), b""))


def choose_algorithm(offered: str) -> ChapAlgorithm | None:
    """The first of a CHAP_A list that we know: the offerer's order decides (§6.2.1). None: there is none."""
    known = {str(int(algorithm)): algorithm for algorithm in ChapAlgorithm}
    return next((known[number] for number in offered.split(",") if number in known), None)


def decode_identifier(text: str) -> int:
    """The value of CHAP_I, one byte (RFC 1994 §4.1). Raises ValueError."""
    try:
        number = parse_number(text)
    except ValueError:
        number = -1
    if not 0 <= number <= 255:
        raise ValueError("not a number from 0 to 255")
    return number


def encode_binary(value: bytes) -> str:
    """Hexadecimal, which every initiator takes."""
    return "0x" + value.hex()


def decode_binary(text: str) -> bytes:
    """A binary value: ``0x`` and hexadecimal digits, or ``0b`` and base64 (§6.1). Raises ValueError.

    Empty and oversized values are errors. The length is judged first, so that nothing is decoded into a buffer that
    the text could outgrow, which is how an array was taken over once (CVE-2018-14633).
    """
    prefix, digits = text[:2], text[2:]
    if prefix in ("0x", "0X"):
        if not 0 < len(digits) <= 2 * MAX_BINARY_BYTES or len(digits) % 2:
            raise ValueError("not an even number of hexadecimal digits, or too many")
        if not _HEX_DIGITS.issuperset(digits):  # bytes.fromhex alone would take spaces
            raise ValueError("not hexadecimal")
        return bytes.fromhex(digits)
    if prefix in ("0b", "0B"):
        if not 0 < len(digits) <= (MAX_BINARY_BYTES + 2) // 3 * 4:
            raise ValueError("no base64 digits, or too many")
        try:
            value = a2b_base64(digits.encode("ascii"), strict_mode=True)
        except (Error, UnicodeEncodeError):
            raise ValueError("not base64") from None
        if not 0 < len(value) <= MAX_BINARY_BYTES:
            raise ValueError("empty, or too long")
        return value
    raise ValueError("neither 0x nor 0b")
