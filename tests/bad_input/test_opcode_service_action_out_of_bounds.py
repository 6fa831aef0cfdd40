"""Operation code and service action out of bounds (FreeBSD CTL, CVE-2024-42416): all 256 x 32 values are answered.

In the process with every kind of filling, and once over a real connection, after which the array still serves.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from initiator_shim.initiator_transport import IscsiSession
from storage_model.spec.scsi_sense import decode_sense
from storage_model.spec.scsi_task import ScsiStatus
from tests.conformance.scsi.bench import make_bench
from tests.eventually import eventually
from tests.integration.array_process import ArrayProcess, running_array
from tests.supported_commands import ANSWERED_WITHOUT_A_UNIT, SUPPORTED

FILLINGS = {"zeros": b"\0" * 14, "ones": b"\xff" * 14, "high bits": b"\x80" * 14, "low bits": b"\x01" * 14}
DATA = {"without data": b"", "with data": b"\xff" * 512, "with zeros": bytes(64)}
START_UNIT = bytes((0x1B, 0, 0, 0, 1)) + bytes(11)
ANSWERS = {ScsiStatus.GOOD, ScsiStatus.CHECK_CONDITION, ScsiStatus.RESERVATION_CONFLICT}


@pytest.mark.parametrize("filling", FILLINGS)
@pytest.mark.parametrize("data", DATA)
async def test_every_code_and_action_ends_with_a_status(filling: str, data: str) -> None:
    bench = make_bench()
    for code in range(256):
        for action in range(32):
            outcome = await bench.run(bytes((code, action)) + FILLINGS[filling], DATA[data])
            assert outcome.status in ANSWERS, f"{code:02X}h {action:02X}h"
            if outcome.status is ScsiStatus.CHECK_CONDITION:
                decode_sense(outcome.sense)
        bench = make_bench()
    assert len(bench.lu.tasks) == 0


@pytest.mark.parametrize("length", range(16))
async def test_a_cdb_that_is_shorter_than_its_code_says(length: int) -> None:
    """iSCSI always carries 16 bytes; whatever else delivers a command may not."""
    for code in range(256):
        bench = make_bench()
        task = bench.task(b"")
        task.cdb = bytes((code,) * min(length, 1)) + bytes(max(length - 1, 0))
        assert (await bench.server.execute(task)).status in ANSWERS


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def array(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ArrayProcess]:
    async with running_array(
        Path(tmp_path_factory.mktemp("array")), "--portal", "127.0.0.1:0", "--volume", "1MiB"
    ) as it:
        yield it
        await it.assert_serving()
        assert "internal error" not in it.log


@pytest_asyncio.fixture(loop_scope="module")
async def session(array: ArrayProcess) -> AsyncIterator[IscsiSession]:
    session = await array.connect()
    yield session
    await session.logout()


def is_known(code: int, action: int) -> bool:
    return code in SUPPORTED and (not SUPPORTED[code] or action in SUPPORTED[code])


async def test_unknown_ones_over_a_connection(session: IscsiSession) -> None:
    for code in range(256):
        actions = [action for action in range(32) if not is_known(code, action)]
        cdbs = (bytes((code, action)) + bytes(14) for action in actions)
        outcomes = await asyncio.gather(*(session.execute(0, cdb) for cdb in cdbs))
        for action, outcome in zip(actions, outcomes, strict=True):
            assert outcome.status == ScsiStatus.CHECK_CONDITION
            sense = decode_sense(outcome.sense)
            expected = (0x2400, 1) if code in SUPPORTED else (0x2000, 0)
            assert (sense.sense_key, sense.asc_ascq, sense.field_pointer) == (0x5, *expected), (
                f"{code:02X}h {action:02X}h"
            )


async def test_every_code_over_a_connection_where_no_unit_is(session: IscsiSession) -> None:
    for code in sorted(set(range(256)) - ANSWERED_WITHOUT_A_UNIT):
        cdbs = (bytes((code, action)) + b"\xff" * 14 for action in range(32))
        outcomes = await asyncio.gather(*(session.execute(200, cdb) for cdb in cdbs))
        for action, outcome in enumerate(outcomes):
            assert outcome.status == ScsiStatus.CHECK_CONDITION
            assert decode_sense(outcome.sense).asc_ascq == 0x2500, f"{code:02X}h {action:02X}h"


async def test_known_ones_over_a_connection(session: IscsiSession) -> None:
    """They change the unit: one is a STOP, one a FORMAT UNIT. In the end it can be used again."""
    for code in sorted(SUPPORTED):
        for action in range(32):
            if is_known(code, action):
                outcome = await session.execute(0, bytes((code, action)) + bytes(14), data_in_length=4096)
                assert outcome.status in ANSWERS, f"{code:02X}h {action:02X}h"
                if outcome.status == ScsiStatus.CHECK_CONDITION:
                    assert decode_sense(outcome.sense).asc_ascq != 0x2000
    await session.execute(0, START_UNIT)

    async def ready() -> bool:
        return (await session.execute(0, bytes(16))).status == ScsiStatus.GOOD

    await eventually(ready, what="the unit to be ready again: a FORMAT UNIT may be under way")
