"""The repository keeps its architecture: ``tests/architecture_rules.py``, applied to every tracked file."""

import subprocess
import warnings
from functools import cache
from pathlib import Path

import pytest

from tests import architecture_rules as rules
from tests.architecture_rules import Rule, SourceFile, Violation

ROOT = Path(__file__).resolve().parent.parent


@cache
def repository_paths() -> tuple[str, ...]:
    """Tracked files and those that would be on the next ``git add``; without git, all but dot folders and caches."""
    if (ROOT / ".git").exists():
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout
        names = sorted(set(filter(None, listed.split("\0"))))
        return tuple(name for name in names if (ROOT / name).is_file())
    found = (path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file())
    kept = (path for path in found if not any(_is_clutter(part) for part in path.parts[:-1]))
    return tuple(sorted(path.as_posix() for path in kept if path.name != ".venv.lock"))


def _is_clutter(folder: str) -> bool:
    return folder == "__pycache__" or (folder.startswith(".") and folder != ".ci")


@cache
def sources() -> tuple[SourceFile, ...]:
    paths = (path for path in repository_paths() if path.endswith(".py"))
    return tuple(SourceFile(path, (ROOT / path).read_text(encoding="utf-8")) for path in paths)


def package_sources() -> list[SourceFile]:
    return [source for source in sources() if source.package in rules.PACKAGES]


def assert_none(violations: list[Violation]) -> None:
    listing = "\n".join(f"  {violation}" for violation in violations)
    assert not violations, f"{len(violations)} against the architecture:\n{listing}"


def test_the_three_packages_are_found() -> None:
    """Guards the other tests: over an empty list they would all pass."""
    assert {source.package for source in package_sources()} == set(rules.PACKAGES)
    assert "tests/test_architecture.py" in repository_paths()


@pytest.mark.parametrize("rule", rules.PACKAGE_RULES, ids=lambda rule: rule.__name__)
def test_packages(rule: Rule) -> None:
    assert_none([violation for source in package_sources() for violation in rule(source)])


@pytest.mark.parametrize("rule", rules.EVERYWHERE_RULES, ids=lambda rule: rule.__name__)
def test_all_python_files(rule: Rule) -> None:
    assert_none([violation for source in sources() for violation in rule(source)])


def test_only_io_files_import_io_files() -> None:
    kinds = {source.module: source.kind for source in package_sources()}
    assert_none([v for source in package_sources() for v in rules.only_io_imports_io(source, kinds)])


def test_tests_wait_for_events_not_for_time() -> None:
    tests = [source for source in sources() if source.package == "tests"]
    assert_none([violation for source in tests for violation in rules.no_constant_sleep(source)])


def test_scripts_have_docstrings() -> None:
    scripts = [source for source in sources() if source.package == "scripts"]
    assert_none([violation for source in scripts for violation in rules.has_module_docstring(source)])


def test_no_file_speaks_of_the_place_where_it_was_written() -> None:
    violations: list[Violation] = []
    for path in repository_paths():
        try:
            text = (ROOT / path).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a binary file
        violations += rules.no_forbidden_text(path, text)
    assert_none(violations)


def test_top_level_is_fixed() -> None:
    assert_none(list(rules.top_level_is_fixed(list(repository_paths()))))


@pytest.mark.filterwarnings("default")
def test_long_files_are_mentioned() -> None:
    """Advice, not a failure: [IO] files are thin, and every file is read in one sitting."""
    for source in package_sources():
        lines = source.text.count("\n")
        if lines > rules.LONG_FILE_LINES:
            warnings.warn(f"{source.path}: {lines} lines; aim at {rules.LONG_FILE_LINES}", stacklevel=1)
        assert lines <= rules.MAX_FILE_LINES
