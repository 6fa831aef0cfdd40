"""The optional build of a checkout, in which mypyc has compiled the data path, in a directory of its own. [IO]"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from storage_model.errors import UserError

BUILD_SECONDS = 600.0
_BUILT_FROM = ("target", "storage_model", "initiator_shim", "pyproject.toml", "README.md", "LICENSE")


def compile_checkout(root: Path, directory: Path) -> Path:
    """The packages of ``root``, compiled, as a new root inside of ``directory``. Raises UserError."""
    source, compiled = directory / "source", directory / "compiled"
    source.mkdir()
    for name in _BUILT_FROM:
        copy = shutil.copytree if (root / name).is_dir() else shutil.copy
        copy(root / name, source / name)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(compiled), str(source)]
    environment = {**os.environ, "HATCH_BUILD_HOOK_ENABLE_MYPYC": "true"}
    try:
        finished = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"--compiled: not built within {BUILD_SECONDS:.0f} s") from None
    if finished.returncode:
        said = (finished.stdout + finished.stderr).strip().splitlines()
        raise UserError(f"--compiled: {said[-1] if said else 'pip failed'} (needs gcc and Python's headers)")
    return compiled
