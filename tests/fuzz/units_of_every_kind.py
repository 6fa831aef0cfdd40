"""A device server with a small logical unit of each kind, and commands run to their end, whatever they are."""

import asyncio

from scripts.fuzzing.cdbs import CdbGrammar, Command, ask_for_all, ask_for_one, described, listed
from scripts.fuzzing.parameter_lists import Landmarks
from storage_model.nexus import ITNexus
from storage_model.spec.scsi_sense import SenseKey, decode_sense
from storage_model.spec.scsi_task import ScsiStatus, TaskAttribute
from target.scsi.asymmetric_access import TargetPortGroups
from target.scsi.device_server import DeviceServer
from target.scsi.logical_unit import LogicalUnit, UnitIdentity
from target.scsi.task import ScsiTask, TaskOutcome
from target.volumes.memory_volume import MemoryVolume

INITIATORS = tuple(f"iqn.2026-11.org.example:fuzz-{index}" for index in range(3))
NEXUSES = tuple(
    ITNexus(name, bytes((0x80, 0, 0, 0, 0, index)), port) for index, name in enumerate(INITIATORS) for port in (1, 2)
)
THIN, FULL, LARGE_BLOCKS, PROTECTED, REMOVABLE = LUNS = (0, 1, 2, 3, 4)
SIZE_BYTES = 1 << 20
COMMAND_SECONDS = 10.0

# What the array may say; HARDWARE ERROR and MEDIUM ERROR mean that it has broken something itself.
SENSE_KEYS = {
    SenseKey.NO_SENSE, SenseKey.NOT_READY, SenseKey.ILLEGAL_REQUEST, SenseKey.UNIT_ATTENTION, SenseKey.DATA_PROTECT,
    SenseKey.COPY_ABORTED, SenseKey.ABORTED_COMMAND, SenseKey.MISCOMPARE,
}  # fmt: skip


def make_units() -> dict[int, LogicalUnit]:
    def unit(lun: int, block_length: int = 512, **options: bool) -> LogicalUnit:
        volume = MemoryVolume(SIZE_BYTES, block_length)
        return LogicalUnit(lun, volume, UnitIdentity(f"fuzz-{lun}"), **options)  # type: ignore[arg-type]

    return {
        THIN: unit(THIN),
        FULL: unit(FULL, thin=False),
        LARGE_BLOCKS: unit(LARGE_BLOCKS, 4096),
        PROTECTED: unit(PROTECTED, write_protected=True),
        REMOVABLE: unit(REMOVABLE, removable=True),
    }


_grammars: dict[int, CdbGrammar] = {}


class EveryKind:
    """``run`` executes one command and checks what must hold for any; use inside of one event loop."""

    def __init__(self) -> None:
        self.units = make_units()
        self.server = DeviceServer(self.units, port_groups=TargetPortGroups((1, 2)))
        self.tag = 0
        for nexus in NEXUSES:
            self.server.nexus_established(nexus)

    async def grammar(self, lun: int) -> CdbGrammar:
        """By what the unit says of itself; asked once, since units of one number are all alike."""
        if lun not in _grammars:
            _grammars[lun] = await EveryKind()._learn(lun)
        return _grammars[lun]

    async def _learn(self, lun: int) -> CdbGrammar:
        everything = await self._ask(lun, ask_for_all())
        known = []
        for opcode, service_action in listed(everything):
            known.append(described(opcode, service_action, await self._ask(lun, ask_for_one(opcode, service_action))))
        assert len(known) > 50
        page = await self._ask(lun, Command(b"\x12\1\x83\x04\0".ljust(16, b"\0"), b"", 1024))
        unit = self.units[lun]
        landmarks = Landmarks(
            unit.block_count, unit.block_length, (page[4:24],), tuple(f"{name},i,0x800000000001" for name in INITIATORS)
        )
        return CdbGrammar(known, landmarks)

    async def _ask(self, lun: int, command: Command) -> bytes:
        """Until it answers: unit attentions come first."""
        for _ in range(5):
            outcome = await self.run(NEXUSES[0], lun, command)
            if outcome.status is ScsiStatus.GOOD:
                return bytes(outcome.data_in)
        raise AssertionError(outcome)

    async def run(
        self, nexus: ITNexus, lun: int, command: Command, attribute: TaskAttribute = TaskAttribute.SIMPLE
    ) -> TaskOutcome:
        self.tag += 1
        task = ScsiTask(nexus, lun, self.tag, command.cdb, command.data_out, command.data_in_length, attribute)
        async with asyncio.timeout(COMMAND_SECONDS):
            outcome = await self.server.execute(task)
        context = f"LUN {lun}, CDB {command.cdb.hex(' ')}, data {command.data_out[:64].hex(' ')}: {outcome}"
        assert outcome.status in ScsiStatus, context
        if outcome.status is ScsiStatus.CHECK_CONDITION:
            sense = decode_sense(outcome.sense)
            assert sense.sense_key in SENSE_KEYS, context
            if sense.field_pointer is not None and not sense.in_parameter_list:
                assert sense.field_pointer < len(command.cdb), context
        else:
            assert not outcome.sense, context
        return outcome

    def assert_at_rest(self) -> None:
        """No task, no range of blocks and no exception is left in any unit."""
        for lun, unit in self.units.items():
            assert len(unit.tasks) == 0 and not unit.tasks.ordered, lun
            assert not unit.write_ranges._shared and not unit.write_ranges.exclusive, lun
            assert len(unit.unit_attentions.pending) <= len(NEXUSES), lun
            assert all(len(queue) <= 32 for queue in unit.unit_attentions.pending.values()), lun
            assert unit.block_count * unit.block_length == SIZE_BYTES, lun

    async def stop(self) -> None:
        """End what runs in the background."""
        for unit in self.units.values():
            if unit.operation is not None:
                await unit.operation.stop()
