"""SPC-4 4.2.5, CVE-2024-42416's class: every operation code with every service action is answered."""

from storage_model.spec.scsi_task import ScsiStatus
from target.scsi.command_table import ROWS_BY_OPCODE


async def test_unknown_operation_codes_are_refused(bench):
    for code in range(256):
        if ROWS_BY_OPCODE[code] is None:
            sense = await bench.refused(bytes((code,)))
            assert (sense.sense_key, sense.asc_ascq) == (0x5, 0x2000), f"{code:02X}h"


async def test_unknown_service_actions_are_bad_fields(bench):
    for code in range(256):
        entry = ROWS_BY_OPCODE[code]
        if not isinstance(entry, dict):
            continue
        for action in range(32):
            if action not in entry:
                sense = await bench.refused(bytes((code, action)))
                assert (sense.sense_key, sense.asc_ascq, sense.field_pointer) == (0x5, 0x2400, 1)


async def test_every_code_and_action_ends_with_a_status(bench):
    for code in set(range(256)) - {0xC0, 0xC1}:
        for action in range(32):
            for fill in (b"\0" * 14, b"\xff" * 14):
                outcome = await bench.run(bytes((code, action)) + fill)
                assert outcome.status in (ScsiStatus.GOOD, ScsiStatus.CHECK_CONDITION, ScsiStatus.RESERVATION_CONFLICT)
        bench.lu.reservation.clear()
