"""What every test may use: tools that may be missing, and settings that make a failure repeatable."""

import importlib
import os
import shutil
from collections.abc import Callable
from types import ModuleType

import hypothesis
import pytest

# A slow machine is no failure, and in CI a red run can be repeated: the same examples each time.
hypothesis.settings.register_profile("local", deadline=None, print_blob=True)
hypothesis.settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True, database=None)

_IN_CI = os.environ.get("CI", "").lower() in ("true", "1")
hypothesis.settings.load_profile("ci" if _IN_CI else "local")

# Debian keeps daemons in sbin, which is not on an ordinary user's PATH.
_TOOL_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])


def _missing(what: str) -> None:
    """Skip here; fail in CI, where a test that silently never runs would be worth nothing."""
    reason = f"{what} is missing; scripts/test as root installs it"
    if _IN_CI:
        pytest.fail(f"{reason} (CI=true: a missing tool is a failure)", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def require_tool() -> Callable[[str], str]:
    """``require_tool("qemu-img")`` is the tool's full path; without the tool the test is skipped, or fails in CI."""

    def require(name: str) -> str:
        path = shutil.which(name, path=_TOOL_PATH)
        if path is None:
            _missing(name)
        assert path is not None
        return path

    return require


@pytest.fixture(scope="session")
def require_module() -> Callable[[str], ModuleType]:
    """``require_module("iscsi")`` is the module; without it the test is skipped, or fails in CI."""

    def require(name: str) -> ModuleType:
        try:
            return importlib.import_module(name)
        except ImportError as error:
            _missing(f"Python module {name} ({error})")
            raise

    return require
