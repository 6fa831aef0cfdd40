"""One line per step with its time, for ``scripts/test-linux``; pytest's own summary of failures comes after them."""

import sys
from collections.abc import Generator

import pytest

_WORDS = {"passed": "ok", "failed": "FAILED", "skipped": "skipped"}
_titles: dict[str, str] = {}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        _titles[item.nodeid] = _title(item)


def _title(item: pytest.Item) -> str:
    """The test's docstring, and its parameters."""
    text = (getattr(item, "function", item).__doc__ or item.name).strip()
    callspec = getattr(item, "callspec", None)
    return f"{text}: {callspec.id}" if callspec is not None else text


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Prints a step's line as soon as it has ended."""
    report = yield
    # Setup counts as a step where it fails or takes its time: the boot of a guest, the start of an array.
    if report.when == "call" or not report.passed:
        _print(_WORDS[report.outcome], call.duration + getattr(item, "setup_seconds", 0.0), _titles[item.nodeid])
    elif report.when == "setup":
        item.setup_seconds = call.duration  # type: ignore[attr-defined]
    return report


def _print(word: str, seconds: float, title: str) -> None:
    print(f"{word:8}{seconds:7.1f} s  {title}", file=sys.__stdout__, flush=True)


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """Without pytest's dots between the lines."""
    return (report.outcome if report.when == "call" or not report.passed else "", "", "")
