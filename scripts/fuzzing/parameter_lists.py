"""Parameter lists of the commands that take one: as the standards lay them out, then with things wrong."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from scripts.fuzzing.chance import content, damaged, number, some

RESERVATION_KEYS = (0, 1, 2, 0x1122334455667788, (1 << 64) - 1)
_ISCSI_PROTOCOL = 5


@dataclass(frozen=True, slots=True)
class Landmarks:
    """What of the logical unit and its surroundings values may be near to.

    ``designators`` are identification descriptors of VPD page 83h, header included, of all units; ``initiators`` names
    with ISIDs as a TransportID has them.
    """

    blocks: int
    block_length: int
    designators: tuple[bytes, ...] = ()
    initiators: tuple[str, ...] = ("iqn.2026-11.org.example:fuzz",)


Maker = Callable[[random.Random, Landmarks], bytes]


@dataclass(frozen=True, slots=True)
class ParameterList:
    """``length_field``: first byte and end of the PARAMETER LIST LENGTH in the CDB; None where there is none."""

    length_field: tuple[int, int] | None
    well_formed: Maker

    def make(self, chance: random.Random, landmarks: Landmarks) -> bytes:
        data = self.well_formed(chance, landmarks)
        kind = chance.random()
        if kind < 0.6:
            return data
        return damaged(chance, data) if kind < 0.9 else content(chance, chance.choice((0, 1, 4, 24, 300)))


def _mode_page(chance: random.Random) -> bytes:
    page = chance.choice((0x01, 0x08, 0x0A, 0x1A, 0x1C, 0x0A, chance.randrange(64)))
    length = {0x01: 10, 0x08: 18, 0x0A: 10, 0x1A: 10, 0x1C: 10}.get(page, chance.randrange(32))
    # Mostly zeros with a bit or two: a page of random bits is always refused.
    body = bytearray(length)
    for _ in range(chance.randrange(3)):
        if length:
            body[chance.randrange(length)] |= 1 << chance.randrange(8)
    if chance.random() < 0.2:
        return bytes((page | 0x40, chance.choice((0, 1, 5)))) + length.to_bytes(2, "big") + bytes(body)
    return bytes((page, length)) + bytes(body)


def _mode_pages(chance: random.Random) -> bytes:
    return b"".join(_mode_page(chance) for _ in range(chance.randrange(4)))


def _block_descriptor(chance: random.Random, landmarks: Landmarks) -> bytes:
    if chance.random() < 0.5:
        return b""
    blocks = chance.choice((0, landmarks.blocks, number(chance, 32)))
    return min(blocks, 0xFFFFFFFF).to_bytes(4, "big") + b"\0" + landmarks.block_length.to_bytes(3, "big")


def _mode_select_6(chance: random.Random, landmarks: Landmarks) -> bytes:
    descriptor = _block_descriptor(chance, landmarks)
    return bytes((0, 0, 0, len(descriptor))) + descriptor + _mode_pages(chance)


def _mode_select_10(chance: random.Random, landmarks: Landmarks) -> bytes:
    descriptor = _block_descriptor(chance, landmarks)
    return bytes(6) + len(descriptor).to_bytes(2, "big") + descriptor + _mode_pages(chance)


def _range(chance: random.Random, landmarks: Landmarks, count_bits: int = 32) -> tuple[int, int]:
    """LBA and number of blocks, mostly inside the unit."""
    count = chance.choice((0, 1, 8, 100, number(chance, count_bits, landmarks.blocks)))
    if chance.random() < 0.8:
        return chance.randrange(max(landmarks.blocks - count, 1)), count
    return number(chance, 64, landmarks.blocks), count


def _unmap(chance: random.Random, landmarks: Landmarks) -> bytes:
    descriptors = b""
    for _ in range(chance.choice((0, 1, 1, 3, 257))):
        lba, count = _range(chance, landmarks)
        descriptors += lba.to_bytes(8, "big") + count.to_bytes(4, "big") + bytes(4)
    length = len(descriptors)
    return (length + 6).to_bytes(2, "big") + length.to_bytes(2, "big") + bytes(4) + descriptors


def transport_id(chance: random.Random, landmarks: Landmarks) -> bytes:
    """SPC-4 7.6.4.6: format 00b is the name alone, 01b name and ISID; ends with a NUL, padded to four bytes."""
    name = chance.choice(landmarks.initiators).encode()
    with_isid = chance.random() < 0.5
    if not with_isid:
        name = name.split(b",")[0]
    name += b"\0" if chance.random() < 0.9 else b""
    name = name.ljust(20, b"\0") + bytes(-len(name.ljust(20, b"\0")) % 4)
    return bytes((with_isid << 6 | _ISCSI_PROTOCOL, 0)) + len(name).to_bytes(2, "big") + name


def _persistent_reserve_out(chance: random.Random, landmarks: Landmarks) -> bytes:
    keys = chance.choice(RESERVATION_KEYS).to_bytes(8, "big") + chance.choice(RESERVATION_KEYS).to_bytes(8, "big")
    flags = chance.choice((0, 0, 0, 1, 4, 5, 8, 9, 0x0D, chance.randrange(256)))
    plain = keys + bytes(4) + bytes((flags, 0, 0, 0))
    if flags & 8 == 0:
        return plain
    transport_ids = b"".join(transport_id(chance, landmarks) for _ in range(chance.randrange(4)))
    return plain + len(transport_ids).to_bytes(4, "big") + transport_ids


def _register_and_move(chance: random.Random, landmarks: Landmarks) -> bytes:
    keys = chance.choice(RESERVATION_KEYS).to_bytes(8, "big") + chance.choice(RESERVATION_KEYS).to_bytes(8, "big")
    destination = transport_id(chance, landmarks)
    port = chance.choice((0, 1, 2, 3, 0xFFFF)).to_bytes(2, "big")
    return keys + bytes((0, chance.randrange(4))) + port + len(destination).to_bytes(4, "big") + destination


def _copy_target(chance: random.Random, landmarks: Landmarks) -> bytes:
    """An E4h identification descriptor target descriptor (SPC-4 6.4.5.4), for a direct-access device."""
    designator = chance.choice(landmarks.designators) if landmarks.designators else content(chance, 20)
    body = bytes((0xE4, 0, 0, 0)) + designator[:24].ljust(24, b"\0")
    return body + b"\0" + landmarks.block_length.to_bytes(3, "big")


def _copy_segment(chance: random.Random, landmarks: Landmarks) -> bytes:
    """02h: from block device to block device (SPC-4 6.4.6.2); sometimes another."""
    code = chance.choice((0x02, 0x02, 0x02, 0x00, 0x0C, chance.randrange(256)))
    source, _ = _range(chance, landmarks)
    destination, count = _range(chance, landmarks, 16)
    return (
        bytes((code, chance.choice((0, 2, 4)))) + (0x18).to_bytes(2, "big")
        + chance.choice((0, 1, 2, 0xFFFF)).to_bytes(2, "big") + chance.choice((0, 1, 2, 0xFFFF)).to_bytes(2, "big")
        + bytes(2) + (count & 0xFFFF).to_bytes(2, "big") + source.to_bytes(8, "big") + destination.to_bytes(8, "big")
    )  # fmt: skip


def _extended_copy(chance: random.Random, landmarks: Landmarks) -> bytes:
    targets = b"".join(_copy_target(chance, landmarks) for _ in range(chance.choice((0, 1, 2, 2, 2, 9))))
    segments = b"".join(_copy_segment(chance, landmarks) for _ in range(chance.choice((0, 1, 1, 2, 20))))
    inline = content(chance, chance.choice((0, 0, 0, 8, 100)))
    header = bytes((chance.randrange(4), chance.choice((0, 0x18, 0x10, chance.randrange(256)))))
    header += len(targets).to_bytes(2, "big") + bytes(4) + len(segments).to_bytes(4, "big")
    return header + len(inline).to_bytes(4, "big") + targets + segments + inline


def _set_target_port_groups(chance: random.Random, landmarks: Landmarks) -> bytes:
    states = [bytes((state, 0, 0, group)) for state in (0, 1, 2, 3, 14, 15) for group in (0, 1, 1, 2, 2, 3)]
    return bytes(4) + b"".join(some(chance, states, 4))


def _format_unit(chance: random.Random, landmarks: Landmarks) -> bytes:
    """A short or a long header; IMMED now and then; an initialization pattern now and then (SBC-3 5.3.2)."""
    flags = chance.choice((0, 0x02, 0x02, 0x0A, 0x80, chance.randrange(256)))
    header = bytes((chance.choice((0, 0, chance.randrange(8))), flags, 0, 0))
    if chance.random() < 0.3:
        header = header[:2] + bytes(6)
    pattern = content(chance, chance.choice((1, 4, landmarks.block_length)))
    initialization = bytes((0, chance.choice((0, 1)))) + len(pattern).to_bytes(2, "big") + pattern
    return header + (initialization if flags & 8 else b"")


def _sanitize_overwrite(chance: random.Random, landmarks: Landmarks) -> bytes:
    pattern = content(chance, chance.choice((1, 4, landmarks.block_length, landmarks.block_length + 1)))
    return bytes((chance.choice((1, 1, 2, 0x81, chance.randrange(256))), 0)) + len(pattern).to_bytes(2, "big") + pattern


def _pair_claim(chance: random.Random, landmarks: Landmarks) -> bytes:
    name = chance.choice(landmarks.initiators).encode()
    return b"\x01\0\0\1" + content(chance, 6) + len(name).to_bytes(2, "big") + name


def _anything(chance: random.Random, landmarks: Landmarks) -> bytes:
    return content(chance, chance.choice((0, 4, 16, 252, 4096)))


_PERSISTENT: dict[tuple[int, int | None], ParameterList] = {
    (0x5F, action): ParameterList((5, 9), _register_and_move if action == 7 else _persistent_reserve_out)
    for action in range(32)
}
_WRITE_BUFFER: dict[tuple[int, int | None], ParameterList] = {
    (0x3B, mode): ParameterList((6, 9), _anything) for mode in (None, *range(32))
}
_EXTENDED_COPY: dict[tuple[int, int | None], ParameterList] = {
    (0x83, action): ParameterList((10, 14), _extended_copy) for action in (0, 1, 0x10, 0x11, 0x1C)
}
_PAIR_CONTROL: dict[tuple[int, int | None], ParameterList] = {
    (0xC1, action): ParameterList((10, 14), _pair_claim) for action in range(8)
}
PARAMETER_LISTS: Mapping[tuple[int, int | None], ParameterList] = {
    (0x04, None): ParameterList(None, _format_unit),
    (0x15, None): ParameterList((4, 5), _mode_select_6),
    (0x55, None): ParameterList((7, 9), _mode_select_10),
    (0x1D, None): ParameterList((3, 5), _anything),
    (0x42, None): ParameterList((7, 9), _unmap),
    (0x48, 0x01): ParameterList((7, 9), _sanitize_overwrite),
    (0x4C, None): ParameterList((7, 9), _anything),
    **_WRITE_BUFFER,
    **_PERSISTENT,
    **_EXTENDED_COPY,
    (0xA4, 0x0A): ParameterList((6, 10), _set_target_port_groups),
    **_PAIR_CONTROL,
}
