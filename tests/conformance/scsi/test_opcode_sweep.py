"""SPC-4 4.2.5: each of 256 operation codes with each of 32 service actions is answered with the right sense."""

import pytest

from storage_model.spec.scsi_sense import decode_sense
from storage_model.spec.scsi_task import ScsiStatus
from tests.conformance.scsi.bench import Bench, make_bench
from tests.supported_commands import ANSWERED_WITHOUT_A_UNIT, SUPPORTED

STATUSES = (ScsiStatus.GOOD, ScsiStatus.CHECK_CONDITION, ScsiStatus.RESERVATION_CONFLICT)


async def sense_of(bench: Bench, code: int, action: int, lun: int = 0):
    outcome = await bench.run(bytes((code, action)), lun=lun)
    assert outcome.status in STATUSES, outcome
    return decode_sense(outcome.sense) if outcome.status is ScsiStatus.CHECK_CONDITION else None


@pytest.mark.parametrize("code", sorted(set(range(256)) - set(SUPPORTED)), ids=lambda code: f"{code:02X}h")
async def test_unknown_operation_code(bench, code):
    """SPC-4 4.2.5.2: INVALID COMMAND OPERATION CODE, pointing at byte 0."""
    for action in range(32):
        sense = await sense_of(bench, code, action)
        assert sense is not None and (sense.sense_key, sense.asc_ascq, sense.field_pointer) == (0x5, 0x2000, 0)


WITH_ACTIONS = sorted(code for code, actions in SUPPORTED.items() if actions)


@pytest.mark.parametrize("code", WITH_ACTIONS, ids=lambda code: f"{code:02X}h")
async def test_unknown_service_action(bench, code):
    """SPC-4 4.2.5.2: INVALID FIELD IN CDB, pointing at the leftmost bit of SERVICE ACTION in byte 1."""
    for action in sorted(set(range(32)) - SUPPORTED[code]):
        sense = await sense_of(bench, code, action)
        assert sense is not None and (sense.sense_key, sense.asc_ascq) == (0x5, 0x2400), f"{action:02X}h"
        assert (sense.field_pointer, sense.bit_pointer, sense.in_parameter_list) == (1, 4, False)


@pytest.mark.parametrize("code", sorted(SUPPORTED), ids=lambda code: f"{code:02X}h")
async def test_known_command(code):
    """It is never called unknown; a unit of its own for each, as some of them change it."""
    for action in sorted(SUPPORTED[code]) or range(32):
        sense = await sense_of(make_bench(), code, action)
        if sense is not None:
            assert sense.asc_ascq != 0x2000, f"{action:02X}h"
            if SUPPORTED[code]:
                assert (sense.asc_ascq, sense.field_pointer, sense.bit_pointer) != (0x2400, 1, 4), f"{action:02X}h"


async def test_where_no_unit_is(bench):
    """SPC-4 6.4.1, SAM-5 4.7: LOGICAL UNIT NOT SUPPORTED, for whatever command."""
    for code in sorted(set(range(256)) - ANSWERED_WITHOUT_A_UNIT):
        for action in range(32):
            sense = await sense_of(bench, code, action, lun=9)
            assert sense is not None and (sense.sense_key, sense.asc_ascq) == (0x5, 0x2500), (
                f"{code:02X}h {action:02X}h"
            )


async def test_commands_that_answer_where_no_unit_is(bench):
    for cdb in ("03 00 0000 ff", "12 00 00 00ff", "a0 00 00 000000 000000ff"):
        outcome = await bench.run(cdb, lun=9)
        assert outcome.status is ScsiStatus.GOOD and outcome.data_in, cdb
    outcome = await bench.run("12 01 00 00ff", lun=9)
    assert decode_sense(outcome.sense).asc_ascq == 0x2500


async def test_the_table_has_these_commands_and_no_others(bench):
    """REPORT SUPPORTED OPERATION CODES tells what the sweep found (SPC-4 6.34.2)."""
    data = await bench.good("a3 0c 00 00 0000 0000ffff")
    told: dict[int, set[int]] = {}
    for at in range(4, len(data), 8):
        actions = told.setdefault(data[at], set())
        if data[at + 5] & 0x01:
            actions.add(data[at + 2] << 8 | data[at + 3])
    assert told == {code: set(actions) for code, actions in SUPPORTED.items()}
