"""The optional build, in which mypyc has compiled the data path, does what the source says."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILT_FROM = ("target", "storage_model", "initiator_shim", "pyproject.toml", "README.md", "LICENSE")
TESTED_WITH = ("tests/conformance/iscsi", "tests/conformance/scsi", "tests/fuzz/test_pdu_stream.py")
UNIT_TESTS = ("test_iscsi_*.py", "test_relay*.py", "test_pdu_scan.py", "test_block_range_lock.py")
BUILD_SECONDS, TEST_SECONDS = 400, 400


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory, require_tool: Callable[[str], str]) -> Path:
    """A directory with the installed packages, and the tests beside them."""
    require_tool("gcc")
    source, installed = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("compiled")
    for name in BUILT_FROM:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(installed), str(source)]
    environment = {**os.environ, "HATCH_BUILD_HOOK_ENABLE_MYPYC": "true"}
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=BUILD_SECONDS)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    for name in ("tests", "scripts"):
        shutil.copytree(ROOT / name, installed / name)
    shutil.copy(ROOT / "pyproject.toml", installed)
    return installed


def _run(build: Path, *command: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(build)}
    finished = subprocess.run(
        [sys.executable, *command], cwd=build, env=environment, capture_output=True, text=True, timeout=TEST_SECONDS
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def test_the_data_path_is_compiled(build: Path) -> None:
    names = "target.iscsi.connection", "target.scsi.device_server", "target.volumes.file_volume", "initiator_shim.relay"
    imports = f"import {', '.join(names)}; print({', '.join(f'{name}.__file__' for name in names)}, sep='\\n')"
    for line in _run(build, "-c", imports).splitlines():
        assert line.startswith(str(build)) and line.endswith(".so")


def test_what_is_compiled_passes_the_tests_of_the_source(build: Path) -> None:
    units = [str(path.relative_to(build)) for pattern in UNIT_TESTS for path in (build / "tests/unit").glob(pattern)]
    assert len(units) > 10
    _run(build, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *TESTED_WITH, *units)
