"""A SANITIZE that is stopped goes on from its last checkpoint, and a pair's halves are left alone."""

from pathlib import Path

import pytest

from storage_model.medium_operation import MediumOperation, Method
from storage_model.pair_state import PairRole
from storage_model.spec.scsi_sanitize import Overwrite
from storage_model.spec.scsi_sense import decode_sense
from storage_model.spec.scsi_task import ScsiStatus
from target.medium_operations import MediumOperations
from target.metadata_store import MetadataStore
from target.scsi import background_operation
from target.scsi.background_operation import BackgroundOperation
from tests.conformance.scsi.sanitize_bench import READ_ONE, SIZE, STEPS, SanitizeBench
from tests.eventually import eventually

STEP = 1 << 20


@pytest.fixture
async def unit(monkeypatch: pytest.MonkeyPatch) -> SanitizeBench:
    """A checkpoint every two steps."""
    monkeypatch.setattr(background_operation, "CHECKPOINT_BYTES", 2 * STEP)
    return await SanitizeBench().fill()


async def three_steps(unit: SanitizeBench) -> None:
    """Three steps are written, two of them noted; the fourth has not begun."""
    await unit.overwrite()
    unit.steps.let_on(2)
    await eventually(lambda: len(unit.notes.saved) == 2, within=5, what="the checkpoint")
    await unit.at_step()


async def test_checkpoints_are_flushed_first(unit: SanitizeBench) -> None:
    order = []
    save = unit.notes.save

    async def flush() -> None:
        order.append("flush")

    async def noted(operation: MediumOperation | None) -> None:
        order.append("end" if operation is None else str(operation.done_bytes // STEP))
        await save(operation)

    unit.bench.volume.flush, unit.notes.save = flush, noted  # type: ignore[method-assign]
    unit.steps.let_on(STEPS)
    await unit.overwrite(immed=False)
    assert order == ["0", "flush", "2", "flush", "4", "end"]


async def test_it_goes_on_from_the_last_checkpoint(unit: SanitizeBench) -> None:
    await three_steps(unit)
    assert unit.lu.operation is not None
    await unit.lu.operation.stop()
    kept = unit.notes.kept
    assert kept is not None and kept.done_bytes == 2 * STEP
    await unit.bench.volume.write(0, b"not again" * 512)
    again = BackgroundOperation(unit.lu, kept)
    again.resume()
    assert str(decode_sense((await unit.bench.run(READ_ONE)).sense)) == "2h 04h/1Bh"
    unit.steps.let_on(2)
    await unit.done()
    content = await unit.content()
    assert content[:9] == b"not again" and content[2 * STEP :] == b"\xaa" * (SIZE - 2 * STEP)
    assert unit.notes.kept is None


async def test_stopping_leaves_no_task(unit: SanitizeBench) -> None:
    await unit.overwrite()
    await unit.at_step()
    operation = unit.lu.operation
    assert operation is not None and operation.running
    await operation.stop()
    assert not operation.running
    await operation.stop()
    assert not unit.lu.accessible, "what is not done does not count as done"


async def test_a_failure_stays_one(unit: SanitizeBench) -> None:
    failed = MediumOperation(Method.OVERWRITE, SIZE, b"x", failed=True)
    BackgroundOperation(unit.lu, failed).resume()
    assert str(decode_sense((await unit.bench.run(READ_ONE)).sense)) == "3h 31h/03h"
    assert await unit.content() == b"k" * SIZE


class Pair:
    def __init__(self, role: PairRole, *, about_to_change: bool = False) -> None:
        self.role = role
        self.about_to_change = about_to_change

    def refuse(self, nexus: object, *, writes: bool) -> ScsiStatus:
        return ScsiStatus.GOOD

    def status(self) -> "Pair":
        return self


@pytest.mark.parametrize("role", [PairRole.P_VOL, PairRole.S_VOL])
@pytest.mark.parametrize("cdb", ["48 02", "04"])
async def test_a_half_of_a_pair_is_refused(unit: SanitizeBench, role: PairRole, cdb: str) -> None:
    """Whether the other half is erased with it depends on the link."""
    unit.lu.pair = Pair(role)  # type: ignore[assignment]
    assert str(await unit.bench.refused(cdb)) == "5h 20h/00h"
    assert unit.lu.operation is None and await unit.content() == b"k" * SIZE


@pytest.mark.parametrize("cdb", ["48 02", "04"])
async def test_a_volume_whose_pair_is_being_made_is_refused(unit: SanitizeBench, cdb: str) -> None:
    """Like another change of the pair: what the vote was given for must not change behind it."""
    unit.lu.pair = Pair(PairRole.SMPL, about_to_change=True)  # type: ignore[assignment]
    assert str(await unit.bench.refused(cdb)) == "2h 80h/13h"
    assert unit.lu.operation is None and await unit.content() == b"k" * SIZE


async def test_without_a_pair_it_is_not(unit: SanitizeBench) -> None:
    unit.lu.pair = Pair(PairRole.SMPL)  # type: ignore[assignment]
    await unit.bench.good("48 02")


# ----------------------------------------------------------------------------------------------------- the array's part


async def test_notes_survive_in_the_metadata(unit: SanitizeBench, tmp_path: Path) -> None:
    with MetadataStore(tmp_path / "metadata.sqlite", "30095") as store:
        operations = MediumOperations(store, 1 << 30)
        operations.attach(unit.lu, "data", "data.img")
        unit.lu.pace = unit.steps
        await unit.overwrite(Overwrite(b"\x55", 2, invert=True), ause=True)
        await unit.at_step()
        await operations.detach(unit.lu)
    again = await SanitizeBench().fill()
    with MetadataStore(tmp_path / "metadata.sqlite", "30095") as store:
        operations = MediumOperations(store, 1 << 30)
        other = SanitizeBench()
        operations.attach(other.lu, "other", "data.img")
        assert other.lu.accessible
        operations.attach(again.lu, "data", "data.img")
        assert again.lu.operation is not None and not again.lu.accessible
        assert again.lu.operation.operation == MediumOperation(
            Method.OVERWRITE, SIZE, b"\x55", 2, True, True, file="data.img"
        )
        operations.resume(again.lu)
        await again.done()
        assert await again.content() == b"\x55" * SIZE
        assert store.load_operations() == {}


async def test_a_volume_that_is_removed_and_added_again_goes_on(unit: SanitizeBench) -> None:
    with MetadataStore(None, "30095") as store:
        operations = MediumOperations(store, 1 << 30)
        operations.attach(unit.lu, "data", "data.img")
        unit.lu.pace = unit.steps
        await unit.overwrite()
        await unit.at_step()
        await operations.detach(unit.lu)
        again = await SanitizeBench().fill()
        operations.attach(again.lu, "data", "data.img")
        operations.resume(again.lu)
        await again.done()
        assert await again.content() == b"\xaa" * SIZE


async def test_a_smaller_volume_by_that_name_is_another_one() -> None:
    """It is locked away, not erased: its operator decides."""
    with MetadataStore(None, "30095") as store:
        left = MediumOperation(Method.OVERWRITE, 2 * SIZE, b"x", unrestricted=True, file="data.img")
        await store.save_operation("data", left)
        operations = MediumOperations(store, 1 << 30)
        unit = await SanitizeBench().fill()
        operations.attach(unit.lu, "data", "data.img")
        operations.resume(unit.lu)
        assert str(decode_sense((await unit.bench.run(READ_ONE)).sense)) == "3h 31h/03h"
        await unit.bench.good("48 1f")
        assert await unit.content() == b"k" * SIZE


async def test_the_half_of_a_pair_is_not_written_after_a_restart() -> None:
    """It would destroy what has been copied since; only hosts and their operator know what it is worth now."""
    with MetadataStore(None, "30095") as store:
        left = MediumOperation(Method.OVERWRITE, SIZE, b"x", file="data.img")
        await store.save_operation("data", left)
        unit = await SanitizeBench().fill()
        unit.lu.pair = Pair(PairRole.S_VOL)  # type: ignore[assignment]
        operations = MediumOperations(store, 1 << 30)
        operations.attach(unit.lu, "data", "data.img")
        operations.resume(unit.lu)
        assert unit.lu.operation is not None and not unit.lu.operation.running
        assert str(decode_sense((await unit.bench.run(READ_ONE)).sense)) == "3h 31h/03h"
        assert await unit.content() == b"k" * SIZE


async def test_another_file_by_that_name_is_another_volume() -> None:
    """Names may be those that the command line counts: with a volume fewer, the next one has the name."""
    with MetadataStore(None, "30095") as store:
        left = MediumOperation(Method.OVERWRITE, SIZE, b"x", unrestricted=True, file="data.img")
        await store.save_operation("volume0", left)
        unit = await SanitizeBench().fill()
        operations = MediumOperations(store, 1 << 30)
        operations.attach(unit.lu, "volume0", "other.img")
        operations.resume(unit.lu)
        assert unit.lu.operation is not None and not unit.lu.operation.running
        assert str(decode_sense((await unit.bench.run(READ_ONE)).sense)) == "3h 31h/03h"
        assert await unit.content() == b"k" * SIZE
        assert store.load_operations() == {"volume0": left}, "with the right file it goes on"
