"""What pairctl orders for a group of pairs that cannot be treated as one."""

from dataclasses import dataclass, field, replace

import pytest

from initiator_shim.initiator_task import ScsiOutcome
from initiator_shim.pair_display import PairUnit
from initiator_shim.pair_orders import order
from storage_model.pair_state import PairState, Refusal
from storage_model.spec.pair_cdb import PairControlOut, PairOption, PairOut, StatusFlag
from storage_model.spec.scsi_sense import SenseData, encode_sense
from storage_model.spec.scsi_task import ScsiStatus
from storage_model.volume import Buffer
from tests.unit.test_pairctl import P_VOL

FORCED = PairControlOut(PairOut.DELETE, PairOption.FORCE)


@dataclass
class Port:
    """Refuses at some LUNs."""

    refuses: dict[int, Refusal] = field(default_factory=dict)
    asked: list[tuple[int, bool]] = field(default_factory=list)

    async def execute(
        self, lun: int, cdb: bytes, data_out: Buffer = b"", data_in_length: int = 0, timeout: float = 8.0
    ) -> ScsiOutcome:
        self.asked.append((lun, PairOption.GROUP in PairControlOut.decode(cdb).options))
        refusal = self.refuses.get(lun)
        if refusal is None:
            return ScsiOutcome(ScsiStatus.GOOD)
        return ScsiOutcome(ScsiStatus.CHECK_CONDITION, encode_sense(SenseData(refusal.sense_key, refusal.asc_ascq)))


def unit(lun: int, *, connected: bool, state: PairState = PairState.PSUE) -> PairUnit:
    flags = StatusFlag.CONFIGURED | (StatusFlag.LINK_UP if connected else StatusFlag.NONE)
    return PairUnit(lun, replace(P_VOL, state=state, pair_name=f"data{lun}", flags=flags))


async def told_by(port: Port, units: list[PairUnit], command: PairControlOut = FORCED) -> tuple[int, list[str]]:
    told: list[str] = []
    return await order(port, units, command, "delete", 5.0, told.append), told


async def test_group_that_is_partly_connected_is_deleted_one_by_one() -> None:
    port = Port()
    number, told = await told_by(port, [unit(0, connected=True), unit(1, connected=False)])
    assert (number, port.asked) == (0, [(0, False), (1, False)])
    assert told[0] == "delete data0: deleted by both arrays"
    assert told[1].startswith("delete data1: deleted by this array alone")


async def test_what_is_refused_of_one_keeps_no_other_pair() -> None:
    port = Port({0: Refusal.IN_DOUBT, 1: Refusal.BUSY})
    number, told = await told_by(port, [unit(0, connected=True), unit(1, connected=True), unit(2, connected=False)])
    assert port.asked == [(0, False), (1, False), (2, False)]
    assert [line.split(":")[0] for line in told] == ["delete data0", "delete data1", "delete data2"]
    assert told[0].endswith("; it was not changed") and "deleted by this array alone" in told[2]
    alone = await told_by(Port({0: Refusal.IN_DOUBT}), [unit(0, connected=True)])
    assert number == alone[0] != 0


@pytest.mark.parametrize(
    ("command", "connected"),
    [(FORCED, (True, True)), (FORCED, (False, False)), (PairControlOut(PairOut.DELETE), (True, False))],
)
async def test_else_the_group_is_asked_for_as_one(command: PairControlOut, connected: tuple[bool, bool]) -> None:
    port = Port()
    units = [unit(lun, connected=up) for lun, up in enumerate(connected)]
    assert await told_by(port, units, command) == (0, [])
    assert port.asked == [(0, True)]


async def test_pair_that_is_gone_already_does_not_count() -> None:
    port = Port()
    units = [unit(0, connected=False, state=PairState.SMPL), unit(1, connected=True), unit(2, connected=True)]
    assert (await told_by(port, units))[0] == 0
    assert port.asked == [(1, True)]
