"""SBC-3 4.11: SANITIZE leaves nothing of the data, also not in what the volume keeps beside its blocks."""

from storage_model.spec.scsi_sanitize import Overwrite
from tests.conformance.scsi.sanitize_bench import STEPS, SanitizeBench


async def test_the_log_is_erased_before_the_blocks(monkeypatch):
    unit = SanitizeBench()
    heard = []

    async def forget():
        heard.append("log")

    monkeypatch.setattr(unit.bench.volume, "forget_atomic_writes", forget)
    unit.steps.let_on(STEPS)
    assert not (await unit.overwrite(Overwrite(b"\0"), immed=False)).status
    assert heard == ["log"]
