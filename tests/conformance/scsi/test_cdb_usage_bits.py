"""SPC-4 6.34.3, 4.2.5.1: a CDB bit that the usage data calls unused is refused, or is on the list below.

What is asked is the wire's answer of REPORT SUPPORTED OPERATION CODES, not the table that it is made from.
"""

from collections.abc import Container, Iterator

import pytest

from storage_model.spec.scsi_sense import decode_sense
from storage_model.spec.scsi_task import ScsiStatus
from tests.conformance.scsi.bench import Bench, make_bench
from tests.supported_commands import SUPPORTED

COMMANDS: list[tuple[int, int | None]] = [
    (code, action) for code in sorted(SUPPORTED) for action in (*sorted(SUPPORTED[code]),) or (None,)
]

TEN, TWELVE, SIXTEEN = (0x28, 0x2A, 0x2E, 0x2F, 0x34, 0x35, 0x41, 0x42), (0xA8, 0xAA, 0xAE, 0xAF), range(0x88, 0x9D)
IGNORED: tuple[tuple[Container[object], dict[int, int]], ...] = (
    # SBC-3 4.23: with the grouping function not supported GROUP NUMBER has no effect (six bits of it in SBC-4).
    (TEN, {6: 0x3F}),
    (TWELVE, {10: 0x3F}),
    (SIXTEEN, {14: 0x3F}),
    # SBC-3 5.10 to 5.12: RARC (a hint on recovery), FUA_NV (obsolete), RELADR (obsolete in SBC-2).
    ((0x28, 0x88, 0xA8), {1: 0x07}),
    ((0x2A, 0x8A, 0xAA), {1: 0x03}),
    ((0x89, 0x8B), {1: 0x02}),
    # RELADR, and SYNC_NV of SYNCHRONIZE CACHE (SBC-3 5.26: obsolete).
    ((0x2E, 0x2F, 0x34, 0x8E, 0x8F, 0x90, 0xAE, 0xAF), {1: 0x01}),
    ((0x35, 0x91), {1: 0x05}),
    # SBC-3 5.15, 5.16: LOGICAL BLOCK ADDRESS and PMI are obsolete.
    ((0x25,), {**dict.fromkeys(range(2, 6), 0xFF), 8: 0x01}),
    (((0x9E, 0x10),), {**dict.fromkeys(range(2, 10), 0xFF), 14: 0x01}),
    # SPC-2 7.18, 7.21: they have a meaning only with bits of byte 1 that are refused.
    ((0x16, 0x17), {2: 0xFF, 3: 0xFF, 4: 0xFF}),
    ((0x56, 0x57), {2: 0xFF, 3: 0xFF, 7: 0xFF, 8: 0xFF}),
    # SPC-4 table 216: SCOPE and TYPE are ignored by REGISTER, CLEAR, REGISTER AND IGNORE, REGISTER AND MOVE.
    (((0x5F, 0), (0x5F, 3), (0x5F, 6), (0x5F, 7)), {2: 0xFF}),
    # SPC-4 6.20: the list identifier says nothing when the operating parameters are asked for.
    (((0x84, 0x03),), {2: 0xFF}),
)


def is_ignored(code: int, action: int | None, byte: int, bit: int) -> bool:
    return any(
        fields.get(byte, 0) >> bit & 1 for commands, fields in IGNORED if code in commands or (code, action) in commands
    )


async def usage_of(bench: Bench, code: int, action: int | None) -> bytes:
    options = 1 if action is None else 2
    data = await bench.good(bytes((0xA3, 0x0C, options, code, 0, action or 0, 0, 0, 0xFF, 0xFF)))
    assert data[1] & 0x07 == 0x03, "not supported"
    return data[4 : 4 + int.from_bytes(data[2:4], "big")]


def bits(usage: bytes, *, used: bool) -> Iterator[tuple[int, int]]:
    """(byte, bit) of the CDB after the operation code, and after the service action where there is one."""
    for byte in range(1, len(usage)):
        for bit in range(8):
            if bool(usage[byte] >> bit & 1) is used:
                yield byte, bit


def cdb_of(code: int, action: int | None, length: int, byte: int = 0, bit: int = -1) -> bytes:
    cdb = bytearray(length)
    cdb[0], cdb[1] = code, action or 0
    if bit >= 0:
        cdb[byte] |= 1 << bit
    return bytes(cdb)


def name(command: tuple[int, int | None]) -> str:
    code, action = command
    return f"{code:02X}h" if action is None else f"{code:02X}h-{action:02X}h"


@pytest.mark.parametrize("command", COMMANDS, ids=name)
async def test_unused_bits_are_refused(bench, command):
    code, action = command
    usage = await usage_of(bench, code, action)
    for byte, bit in bits(usage, used=False):
        if byte == 1 and bit < 5 and action is not None:
            continue  # another service action
        if is_ignored(code, action, byte, bit):
            continue
        sense = await bench.refused(cdb_of(code, action, len(usage), byte, bit))
        assert (sense.sense_key, sense.asc_ascq) == (0x5, 0x2400), (byte, bit)
        assert (sense.field_pointer, sense.bit_pointer, sense.in_parameter_list) == (byte, bit, False)


@pytest.mark.parametrize(
    "command", [c for c in COMMANDS if any(is_ignored(*c, n // 8, n % 8) for n in range(128))], ids=name
)
async def test_ignored_bits_change_nothing(command):
    code, action = command
    usage = await usage_of(make_bench(), code, action)
    expected = await make_bench().run(cdb_of(code, action, len(usage)))
    for byte, bit in bits(usage, used=False):
        if is_ignored(code, action, byte, bit):
            assert await make_bench().run(cdb_of(code, action, len(usage), byte, bit)) == expected, (byte, bit)


@pytest.mark.parametrize("command", COMMANDS, ids=name)
async def test_the_operation_code_and_the_service_action_are_told_with_it(bench, command):
    """SPC-4 6.34.3: byte 0 is the operation code itself, and SERVICE ACTION the action's own value."""
    code, action = command
    usage = await usage_of(bench, code, action)
    assert usage[0] == code
    if action is not None:
        assert usage[1] & 0x1F == action
    assert usage[-1] == 0, "CONTROL: NACA and the vendor's bits are refused (SAM-5 5.2)"


ON_BLOCKS = [code for code in SUPPORTED if code in (*TEN, *TWELVE, *SIXTEEN) and code != 0x42]


@pytest.mark.parametrize("code", ON_BLOCKS, ids=lambda code: f"{code:02X}h")
async def test_each_bit_of_the_logical_block_address_counts(bench, code):
    """SBC-3 4.5.2: what the usage data calls used is used. A bit beyond the capacity of 2048 blocks is out of range."""
    usage = await usage_of(bench, code, None)
    width = 8 if len(usage) == 16 else 4
    assert usage[2 : 2 + width] == b"\xff" * width
    for bit in range(11, 8 * width):
        cdb = bytearray(cdb_of(code, None, len(usage)))
        cdb[2 : 2 + width] = (1 << bit).to_bytes(width, "big")
        outcome = await bench.run(bytes(cdb))
        assert outcome.status is ScsiStatus.CHECK_CONDITION
        assert decode_sense(outcome.sense).asc_ascq == 0x2100, bit
