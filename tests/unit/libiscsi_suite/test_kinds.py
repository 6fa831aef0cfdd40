"""The kinds of volumes are what their names say, and the tool is told to run what it can."""

import pytest

from scripts.libiscsi_suite.kinds import KEEP_FREED_MEMORY, KINDS, LUN_RESET, Kind, Run, runs_of
from target.config import parse_volume_words


def test_names_and_files_are_used_once() -> None:
    files = [kind.file for kind in KINDS if kind.file]
    assert len({kind.name for kind in KINDS}) == len(KINDS) and len(set(files)) == len(files)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_kinds_are_what_they_are_called(kind: Kind) -> None:
    words = kind.words if kind.file is None else f"{kind.words},file=f"
    config = parse_volume_words(f"64MiB,{words}" if kind.prefilled_bytes else words, 0)
    assert config.thin == (not kind.name.startswith("full"))
    assert config.block_length == (4096 if kind.name.endswith("4096") else 512)
    assert config.write_protected == (kind.name == "read-only") == bool(kind.prefilled_bytes)
    assert config.removable == (kind.name == "removable")
    assert config.encrypted == (kind.name == "encrypted")
    assert (config.physical_block_length is not None) == (kind.name == "physical")


def test_runs_are_suite_by_suite() -> None:
    tests = ["Read6.Simple", "Read6.BeyondEol", "Sanitize.Reset", "iSCSITMF.AbortTaskSimpleAsync", LUN_RESET]
    assert runs_of(Kind("k", "1MiB"), tests) == [
        Run("ALL.Read6"),
        Run("ALL.Sanitize", paths=1),
        Run("ALL.iSCSITMF"),
        Run(f"*.{LUN_RESET}", environment=KEEP_FREED_MEMORY),
    ]
    assert runs_of(Kind("k", "1MiB", suites=("Read6",)), tests) == [Run("ALL.Read6")]
