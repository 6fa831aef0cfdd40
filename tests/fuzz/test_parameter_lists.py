"""Parameter lists of every command that takes one: laid out by the standards, damaged, or mere bytes."""

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scripts.fuzzing.cdbs import Command
from scripts.fuzzing.parameter_lists import PARAMETER_LISTS, Landmarks, ParameterList
from storage_model.spec.scsi_sense import decode_sense
from storage_model.spec.scsi_task import ScsiStatus
from tests.fuzz.units_of_every_kind import INITIATORS, LUNS, NEXUSES, EveryKind

# Of the service actions that are drawn for safety's sake only those that may exist.
_CASES = [
    (opcode, action, made)
    for (opcode, action), made in PARAMETER_LISTS.items()
    if action is None or opcode not in (0x3B, 0x5F, 0x83, 0xC1) or action in (0, 1, 2, 3, 4, 5, 6, 7, 0x0A, 0x0D, 0x1C)
]


def _cdb(opcode: int, action: int | None, made: ParameterList, length: int, flags: int) -> bytes:
    cdb = bytearray(16)
    cdb[0] = opcode
    cdb[1] = flags if action is None else action
    if opcode == 0x5F:
        cdb[2] = flags & 0x0F
    if made.length_field is not None:
        first, end = made.length_field
        cdb[first:end] = min(length, (1 << 8 * (end - first)) - 1).to_bytes(end - first, "big")
    return bytes(cdb)


@pytest.mark.parametrize(
    ("opcode", "action", "made"), _CASES, ids=lambda case: f"{case:02X}" if isinstance(case, int) else ""
)
@settings(max_examples=30)
@given(
    seed=st.integers(0, (1 << 32) - 1),
    lun=st.sampled_from(LUNS),
    flags=st.sampled_from((0, 0x01, 0x10, 0x11, 0x18, 0x1F)),
    wrong_length=st.one_of(st.none(), st.integers(0, 1 << 16)),
    data=st.one_of(st.none(), st.binary(max_size=300)),
)
def test_any_parameter_list(
    opcode: int, action: int | None, made: ParameterList, seed: int, lun: int, flags: int,
    wrong_length: int | None, data: bytes | None,
) -> None:  # fmt: skip
    """The length in the CDB is right or not; several lists follow each other, so that some state builds up."""

    async def example() -> None:
        every = EveryKind()
        chance = random.Random(seed)
        unit = every.units[lun]
        landmarks = Landmarks(
            unit.block_count, unit.block_length, (), tuple(f"{name},i,0x800000000001" for name in INITIATORS)
        )
        for _ in range(6):
            content = made.make(chance, landmarks) if data is None else data
            length = len(content) if wrong_length is None else wrong_length
            await every.run(
                chance.choice(NEXUSES[:3]), lun, Command(_cdb(opcode, action, made, length, flags), content)
            )
        every.assert_at_rest()
        await every.stop()

    asyncio.run(example())


@pytest.mark.parametrize(
    ("opcode", "action", "made"), _CASES, ids=lambda case: f"{case:02X}" if isinstance(case, int) else ""
)
async def test_a_list_cut_after_every_byte(opcode: int, action: int | None, made: ParameterList) -> None:
    """Each length from nothing up, said truly in the CDB: never more than an ILLEGAL REQUEST."""
    every = EveryKind()
    landmarks = Landmarks(2048, 512, (), tuple(f"{name},i,0x800000000001" for name in INITIATORS))
    whole = made.well_formed(random.Random(opcode), landmarks)[:400]
    for nexus in NEXUSES[:2]:
        await every.run(nexus, 0, Command(bytes(16)))
    for length in range(len(whole) + 1):
        outcome = await every.run(NEXUSES[0], 0, Command(_cdb(opcode, action, made, length, 0), whole[:length]))
        if outcome.status is ScsiStatus.CHECK_CONDITION:
            assert decode_sense(outcome.sense).sense_key in (2, 5, 6, 0xA), (length, outcome)
    every.assert_at_rest()
    await every.stop()
