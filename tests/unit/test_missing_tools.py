"""A missing tool skips its tests on a developer's machine and fails them in CI."""

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

NEEDS_TOOL = """
def test_tool(require_tool):
    assert require_tool("no-such-tool")
def test_module(require_module):
    assert require_module("no_such_module")
def test_present(require_tool, require_module):
    assert require_tool("sh").startswith("/")
    assert require_module("struct").calcsize("I") == 4
"""


@pytest.mark.parametrize(
    ("ci", "outcome"), [("", {"passed": 1, "skipped": 2}), ("true", {"passed": 1, "failed": 2})], ids=["local", "ci"]
)
def test_missing_tool(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, ci: str, outcome: dict[str, int]
) -> None:
    monkeypatch.setenv("CI", ci)
    conftest = Path(__file__).parent.parent / "conftest.py"
    pytester.makeconftest(conftest.read_text(encoding="utf-8"))
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    pytester.makepyfile(NEEDS_TOOL)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-rsf")
    result.assert_outcomes(**outcome)
    result.stdout.fnmatch_lines(["*no-such-tool is missing*"])
