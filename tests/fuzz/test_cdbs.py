"""CDBs of every kind at logical units of every kind: a status, a sense that makes sense, and nothing left behind."""

import asyncio
import gc
import random
import tracemalloc

from hypothesis import given, settings
from hypothesis import strategies as st

from scripts.fuzzing.cdbs import Command
from storage_model.spec.scsi_task import ScsiStatus, TaskAttribute, TaskFunction
from tests.fuzz.units_of_every_kind import LUNS, NEXUSES, EveryKind

SEEDS = st.integers(0, (1 << 32) - 1)
NEXUS_INDEX = st.integers(0, len(NEXUSES) - 1)
LUN_INDEX = st.sampled_from(LUNS)


@settings(max_examples=400)
@given(steps=st.lists(st.tuples(NEXUS_INDEX, LUN_INDEX, SEEDS), min_size=1, max_size=40))
def test_commands_by_the_usage_masks(steps: list[tuple[int, int, int]]) -> None:
    """Several nexuses take turns: what one leaves (reservations, mode pages, a stopped unit) the next one meets."""

    async def example() -> None:
        every = EveryKind()
        grammars = {lun: await every.grammar(lun) for lun in {lun for _, lun, _ in steps}}
        for nexus, lun, seed in steps:
            await every.run(NEXUSES[nexus], lun, grammars[lun].draw(random.Random(seed)))
        every.assert_at_rest()
        await every.stop()

    asyncio.run(example())


@settings(max_examples=300)
@given(
    lun=st.integers(0, 6),
    cdb=st.binary(min_size=1, max_size=32),
    data_out=st.binary(max_size=600),
    length=st.integers(0, 1 << 32),
    attribute=st.sampled_from(list(TaskAttribute)),
)
def test_any_bytes(lun: int, cdb: bytes, data_out: bytes, length: int, attribute: TaskAttribute) -> None:
    """Also at units that are not there, and shorter or longer than a CDB may be."""

    async def example() -> None:
        every = EveryKind()
        for _ in range(2):  # the first may be the unit attention
            await every.run(NEXUSES[0], lun, Command(cdb.ljust(16, b"\0"), data_out, length), attribute)
        every.assert_at_rest()
        await every.stop()

    asyncio.run(example())


@settings(max_examples=60)
@given(seed=SEEDS)
def test_commands_side_by_side_with_task_management(seed: int) -> None:
    """Sixty commands at once, with aborts, resets and a lost nexus among them: all of them end."""

    async def example() -> None:
        chance = random.Random(seed)
        every = EveryKind()
        lun = chance.choice(LUNS)
        grammar = await every.grammar(lun)
        running: list[asyncio.Task[object]] = []
        for _ in range(60):
            nexus = chance.choice(NEXUSES)
            attribute = chance.choice((TaskAttribute.SIMPLE, TaskAttribute.SIMPLE, TaskAttribute.ORDERED))
            running.append(asyncio.create_task(every.run(nexus, lun, grammar.draw(chance), attribute)))
            if chance.random() < 0.3:
                await asyncio.sleep(0)
            if chance.random() < 0.1:
                function = chance.choice([each for each in TaskFunction if each is not TaskFunction.TASK_REASSIGN])
                running.append(asyncio.create_task(every.server.manage(nexus, function, lun, every.tag)))
            if chance.random() < 0.03:
                running.append(asyncio.create_task(every.server.nexus_lost(NEXUSES[0])))
        async with asyncio.timeout(20):
            await asyncio.gather(*running)
        every.assert_at_rest()
        await every.stop()

    asyncio.run(example())


async def test_memory_is_bounded() -> None:
    """Whatever the commands, what is kept of them does not grow with their number."""
    every = EveryKind()
    chance = random.Random(5)
    grammars = {lun: await every.grammar(lun) for lun in LUNS}
    for unit in every.units.values():  # so that writes are not what grows
        await unit.volume.write(0, b"\1" * (1 << 20))

    async def attack(count: int) -> None:
        for _ in range(count):
            lun = chance.choice(LUNS)
            await every.run(chance.choice(NEXUSES), lun, grammars[lun].draw(chance))
        await every.stop()
        gc.collect()

    await attack(1500)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        await attack(1500)
        kept = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    # A chunk of a medium that was unmapped and is written again counts too.
    assert kept < (len(LUNS) << 20) + (256 << 10)
    every.assert_at_rest()


async def test_what_the_fuzzer_draws_is_not_all_refused() -> None:
    """A fuzzer whose every command fails at the same early check finds nothing: many kinds of end, and a third good."""
    every = EveryKind()
    grammar = await every.grammar(0)
    chance = random.Random(1)
    statuses: list[ScsiStatus] = []
    senses: set[bytes] = set()
    for _ in range(1000):
        every.units[0].reservation.clear()
        outcome = await every.run(NEXUSES[0], 0, grammar.draw(chance))
        statuses.append(outcome.status)
        senses.add(bytes(outcome.sense[12:14]) + outcome.sense[2:3])
        await every.stop()
    assert statuses.count(ScsiStatus.GOOD) > 200
    assert len(senses) >= 8
