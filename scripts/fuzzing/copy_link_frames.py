"""What a stranger, or a peer gone mad, may send to the port of the remote-copy link."""

import json
import random

from scripts.fuzzing.chance import content, damaged, number
from storage_model.spec.copy_frames import Answer, Frame, FrameType, Hello, PairOffer, encode_parts

SERIAL, PEER_SERIAL = "30097", "30096"  # the one with the higher number listens
LDEV = 60


def hello(chance: random.Random, size_bytes: int) -> Frame:
    """As the other array would say it, in one of two cases."""
    offer = PairOffer("paired", LDEV, size_bytes, 512, True)
    if chance.random() < 0.5:
        return Hello(PEER_SERIAL, SERIAL, (offer,), identity="fuzz").frame()
    offer = PairOffer(
        chance.choice(("paired", "", "x" * 300)), number(chance, 16, LDEV), number(chance, 64, size_bytes),
        chance.choice((512, 0, 4096)), chance.random() < 0.5,
    )  # fmt: skip
    made = Hello(
        chance.choice((PEER_SERIAL, SERIAL, "", "99999")), chance.choice((SERIAL, PEER_SERIAL, "1")),
        (offer,) * chance.choice((0, 1, 2, 300)), chance.choice(((1,), (), (0, 2), (1, 1, 1))),
        chance.choice(("fuzz", "", "another")),
    )  # fmt: skip
    return made.frame()


def frame(chance: random.Random, size_bytes: int) -> Frame:
    """A frame of any type, its fields near to what they may be."""
    kind = chance.choice(list(FrameType))
    payload = chance.choice(
        (
            b"", content(chance, chance.choice((1, 12, 512, 65536))), b"{}", b"[" * 500,
            json.dumps({"verb": chance.randrange(8), "epoch": number(chance, 32)}).encode(),
            encode_parts(b"{}", content(chance, 12), content(chance, 12)),
            encode_parts(content(chance, 60), b"", b""),
        )
    )  # fmt: skip
    return Frame(
        kind,
        pair=chance.choice((LDEV, LDEV, number(chance, 16))),
        request=number(chance, 32),
        epoch=number(chance, 8),
        offset_bytes=chance.choice((0, 512, number(chance, 64, size_bytes))),
        length_bytes=chance.choice((0, 512, number(chance, 32, size_bytes))),
        flags=chance.choice((0, 0, 1, 2, 3, *Answer, 255)),
        payload=payload,
    )


def link_bytes(chance: random.Random, size_bytes: int) -> bytes:
    """A conversation's one side; damaged somewhere in one of four cases."""
    frames = [hello(chance, size_bytes)] if chance.random() < 0.9 else []
    frames += [frame(chance, size_bytes) for _ in range(chance.choice((0, 1, 5, 20)))]
    data = b"".join(bytes(part) for one in frames for part in one.encode())
    return damaged(chance, data) if chance.random() < 0.25 else data
