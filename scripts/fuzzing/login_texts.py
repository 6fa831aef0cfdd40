"""Login and text requests: every key that there is, with values that are right, wrong, huge or cut short."""

import random
from dataclasses import replace
from hashlib import md5

from scripts.fuzzing.chance import damaged, number
from storage_model.spec.iscsi_pdu import RESERVED_TAG, LoginRequestPdu, TextRequestPdu
from storage_model.spec.iscsi_text import KEYS, format_text

_CHAP_KEYS = ("CHAP_A", "CHAP_I", "CHAP_C", "CHAP_N", "CHAP_R")
_WORDS = (
    *"Yes No None CRC32C CHAP CHAP,None None,CHAP Reject NotUnderstood Irrelevant All Normal Discovery".split(),
    *("5", "7", "5,6,7,8", "", ",", "=", "Yes,No", "RFC3720,FastAbort", "\r\nERROR forged"),
)
_LONGEST_TEXT = 8192


def value(chance: random.Random) -> str:
    """One value of a key."""
    match chance.randrange(8):
        case 0 | 1 | 2:
            return chance.choice(_WORDS)
        case 3 | 4:
            return str(number(chance, chance.choice((8, 16, 24, 32, 64)), 512, 8192, 65536))
        case 5:
            return chance.choice(("0x", "0X", "0b", "0b=")) + _digits(
                chance, chance.choice((0, 1, 2, 7, 16, 17, 512, 1025))
            )
        case 6:
            return _digits(chance, chance.choice((1, 20, 21, 255, 256, 2000)))
        case _:
            return "".join(
                chr(chance.choice((0x20, 0x2C, 0x41, 0x7F, 0xE9, 0x4E2D))) for _ in range(chance.randrange(40))
            )


def _digits(chance: random.Random, count: int) -> str:
    alphabet = chance.choice(("0", "f", "0123456789abcdef", "ABCXYZ+/=", "9"))
    return "".join(chance.choice(alphabet) for _ in range(count))


def key(chance: random.Random) -> str:
    kind = chance.random()
    if kind < 0.7:
        return chance.choice(list(KEYS))
    if kind < 0.9:
        return chance.choice(_CHAP_KEYS)
    return chance.choice(("X-com.example.key", "x" * 63, "x" * 64, "", "A" * 300, "inItialR2T", "InitialR2T "))


def text(chance: random.Random, beginning: dict[str, str]) -> bytes:
    """A text segment: ``beginning``, then some keys; one in three is damaged."""
    pairs = list(beginning.items())
    pairs += [(key(chance), value(chance)) for _ in range(chance.choice((0, 1, 2, 3, 5, 5, 10, 70, 140)))]
    if chance.random() < 0.1:
        chance.shuffle(pairs)
    data = format_text(pairs)
    if chance.random() < 0.33:
        data = damaged(chance, data)
    if chance.random() < 0.05:
        data = data[:-1]
    return data[:_LONGEST_TEXT]


def login_request(chance: random.Random, cmd_sn: int, beginning: dict[str, str], isid: bytes) -> LoginRequestPdu:
    """One Login Request; its header as it should be in three of four cases."""
    csg = chance.choice((0, 0, 1, 1, 1))
    request = LoginRequestPdu(
        transit=chance.random() < 0.7, csg=csg, nsg=3 if csg or chance.random() < 0.5 else 1, isid=isid, itt=7, cid=1,
        cmd_sn=cmd_sn, data=text(chance, beginning),
    )  # fmt: skip
    if chance.random() < 0.75:
        return request
    changes: dict[str, object] = {
        "transit": chance.random() < 0.5,
        "cont": chance.random() < 0.5,
        "csg": chance.randrange(4),
        "nsg": chance.randrange(4),
        "version_min": chance.choice((0, 0, 1, 255)),
        "tsih": number(chance, 16),
        "cid": number(chance, 16),
        "itt": number(chance, 32),
        "cmd_sn": number(chance, 32),
    }
    names = chance.sample(sorted(changes), 2)
    return replace(request, **{name: changes[name] for name in names})  # type: ignore[arg-type]


def text_request(chance: random.Random, cmd_sn: int, ttt: int) -> TextRequestPdu:
    """A Text Request of the full feature phase, going on with ``ttt`` as often as not."""
    cont = chance.random() < 0.3
    return TextRequestPdu(
        immediate=chance.random() < 0.5,
        final=not cont and chance.random() < 0.8,
        cont=cont,
        itt=chance.choice((1, 2, RESERVED_TAG)),
        ttt=ttt if chance.random() < 0.7 else number(chance, 32),
        cmd_sn=cmd_sn,
        data=text(chance, {"SendTargets": chance.choice(("All", "", "iqn.x"))} if chance.random() < 0.5 else {}),
    )


def chap_response(identifier: str, secret: bytes, challenge: str) -> str:
    """CHAP_R for MD5 (RFC 1994); a challenge that makes no sense gives a response that makes none."""
    try:
        number_, bytes_ = int(identifier, 0) & 0xFF, bytes.fromhex(challenge[2:])
    except ValueError:
        number_, bytes_ = 0, b""
    return "0x" + md5(bytes((number_,)) + secret + bytes_, usedforsecurity=False).hexdigest()
